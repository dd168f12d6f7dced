//! From a job to what is handed in, and to the plan that says so. Nothing here has an effect.

use maddock_sdk::local::{self, Place};
use maddock_sdk::serde_json::Value;
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{Artefact, Entry, EnvValue, EnvVar, Step, WorkPlan};
use maddock_sdk::{Result, entry, invalid, quote, serde_json, unsupported};

use crate::queue;

/// Variables of the invoking shell that the queue and programs of this machine commonly need.
pub const INHERITED: [&str; 7] = [queue::SPOOL, "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR"];

/// The key of the configuration.
const SECTION: &str = "queue";

/// All that will be done for a job.
#[derive(Debug)]
pub struct Work {
    /// Where its files lie.
    pub place: Place,
    /// Whose it is in the queue.
    pub owner: String,
    /// The entry script.
    pub script: String,
    /// Script directories to be copied: from the tree, into the workspace.
    pub copies: Vec<(String, String)>,
    /// The words of the submission.
    pub words: Vec<String>,
    /// What the job's environment has, besides what is inherited.
    pub env: Vec<EnvVar>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// The file of a job's output.
#[must_use]
pub fn output(place: &Place) -> String {
    format!("{}/queue.log", place.directory)
}

/// Prepares a job. `directories` are those of the tree's scripts.
///
/// # Errors
/// The job is one that a queue of one machine cannot run.
pub fn prepare(job: &Job, directories: &[String]) -> Result<Work> {
    if job.topology.nodes > 1 {
        return Err(unsupported(format!("{} nodes were asked for, and the queue has one", job.topology.nodes))
            .hint("choose a target with the feature `multi-node`, or ask for one node"));
    }
    if job.paths.work_directory.is_empty() || job.paths.work_directory.split('/').any(|part| part == "..") {
        return Err(invalid(format!("`{}` cannot be a work directory", job.paths.work_directory)));
    }
    let place = Place::of(job);
    let role = local::role(job);
    let mut env = local::environment(job, role)?;
    if let Some(secret) = env.iter().find(|variable| matches!(variable.value, EnvValue::Secret(_))) {
        // The queue keeps the environment of its jobs in files.
        return Err(unsupported(format!(
            "`{}` is a secret, and the queue writes its jobs' variables to a disk",
            secret.name
        ))
        .hint("take the secret out of the configuration, or choose another target"));
    }
    if let Some(spool) = spool(&job.config)? {
        env.push(EnvVar { name: queue::SPOOL.to_owned(), value: EnvValue::Text(spool) });
    }
    let owner = format!("{}/{}", job.run_id, job.id);
    let copies = directories
        .iter()
        .map(|name| (format!("{}/scripts/{name}", job.paths.tree), format!("{}/scripts/{name}", job.paths.workspace)))
        .collect();
    let words = queue::submission(&owner, job.time_limit, &place.workspace, &output(&place), &place.entry());
    let script = entry::script(&without_keep_alive(job), role);
    Ok(Work { warnings: warnings(job), place, owner, script, copies, words, env })
}

/// The queue that the configuration names.
fn spool(config: &str) -> Result<Option<String>> {
    let config: Value =
        serde_json::from_str(config).map_err(|error| invalid(format!("the configuration is no JSON: {error}")))?;
    let Some(section) = config.get(SECTION).and_then(Value::as_object) else { return Ok(None) };
    if let Some(unknown) = section.keys().find(|key| *key != "spool") {
        return Err(invalid(format!("`{SECTION}.{unknown}` is not known")).hint(format!("there is `{SECTION}.spool`")));
    }
    match section.get("spool") {
        None => Ok(None),
        Some(Value::String(spool)) if spool.starts_with('/') => Ok(Some(spool.clone())),
        Some(other) => Err(invalid(format!("`{SECTION}.spool` cannot be `{other}`"))
            .hint("it is the absolute path of the queue's directory")),
    }
}

fn warnings(job: &Job) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(image) = &job.image {
        warnings.push(format!("image `{}` is not used: the job runs as a program", image.reference));
    }
    if job.options.has(JobOptions::KEEP_ALIVE) {
        warnings.push(format!("nothing is kept alive: the job's files stay in `{}`", job.paths.workspace));
    }
    warnings
}

/// Kept alive, the entry script would never end: its files are all there is to look at.
fn without_keep_alive(job: &Job) -> Job {
    let mut job = job.clone();
    job.options = job.options & (JobOptions::SKIP_MODEL | JobOptions::DETACH);
    job
}

impl Work {
    /// What will happen, in the words of the capabilities: policy decides of each step before the first of them.
    #[must_use]
    pub fn plan(&self) -> WorkPlan {
        let scope = |name: &str, value: &str| Entry { name: name.to_owned(), value: value.to_owned() };
        let mut steps = Vec::new();
        for (source, destination) in &self.copies {
            steps.push(Step {
                summary: format!("copy the tree's scripts `{source}` beside the job"),
                call: "files.copy".to_owned(),
                scope: vec![scope("source", source), scope("path", destination)],
            });
        }
        steps.push(Step {
            summary: "write the job's entry script".to_owned(),
            call: "files.write".to_owned(),
            scope: vec![scope("path", &self.place.entry())],
        });
        let environment = self.env.iter().map(|variable| scope("env", &variable.name));
        let inherited = INHERITED.iter().map(|name| scope("env", name));
        let program = [scope("program", queue::PROGRAM), scope("arguments", &quote::words(&self.words))];
        steps.push(Step {
            summary: "hand the entry script in to the queue".to_owned(),
            call: "process.run".to_owned(),
            scope: program.into_iter().chain(environment).chain(inherited).collect(),
        });
        let content = self.script.clone();
        let script = Artefact { name: "entry.sh".to_owned(), media_type: "text/x-shellscript".to_owned(), content };
        WorkPlan { steps, artefacts: vec![script], warnings: self.warnings.clone(), extra: Vec::new() }
    }
}
