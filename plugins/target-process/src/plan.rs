//! From a job to the program that will be launched, and to the plan that says so. Nothing here has an effect.

use maddock_sdk::local::{self, Place};
use maddock_sdk::process::Command;
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{Artefact, Entry, EnvValue, Step, WorkPlan};
use maddock_sdk::{Result, entry, invalid, quote, unsupported};

/// Variables of the invoking shell that programs on this machine commonly need to work at all.
const INHERITED: [&str; 14] = [
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// All that will be done for a job.
#[derive(Debug)]
pub struct Work {
    /// Where its files lie.
    pub place: Place,
    /// The entry script.
    pub script: String,
    /// Script directories to be copied: from the tree, into the workspace.
    pub copies: Vec<(String, String)>,
    /// What will be launched.
    pub command: Command,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Prepares a job. `directories` are those of the tree's scripts.
///
/// # Errors
/// The job is one that a process on one machine cannot be.
pub fn prepare(job: &Job, directories: &[String]) -> Result<Work> {
    if job.topology.nodes > 1 {
        return Err(unsupported(format!("{} nodes were asked for, and a process runs on one", job.topology.nodes))
            .hint("choose a target with the feature `multi-node`, or ask for one node"));
    }
    if job.paths.work_directory.is_empty() || job.paths.work_directory.split('/').any(|part| part == "..") {
        return Err(invalid(format!("`{}` cannot be a work directory", job.paths.work_directory)));
    }
    let mut warnings = Vec::new();
    if let Some(image) = &job.image {
        warnings.push(format!("image `{}` is not used: the job runs as a program on this machine", image.reference));
    }
    if job.options.has(JobOptions::KEEP_ALIVE) {
        warnings.push(format!("nothing is kept alive: the job's files stay in `{}`", job.paths.workspace));
    }
    let place = Place::of(job);
    let role = local::role(job);
    let command = Command {
        argv: vec!["bash".to_owned(), place.entry()],
        env: local::environment(job, role)?,
        inherit: INHERITED.iter().map(|name| (*name).to_owned()).collect(),
        directory: Some(place.workspace.clone()),
        stdin: None,
        time_limit_ms: job.time_limit.map(|seconds| seconds.saturating_mul(1000)),
        extra: Vec::new(),
    };
    let copies = directories
        .iter()
        .map(|name| (format!("{}/scripts/{name}", job.paths.tree), format!("{}/scripts/{name}", job.paths.workspace)))
        .collect();
    // Kept alive, the script would wait for ever: here the files are all there is to look at.
    let script = entry::script(&without_keep_alive(job), role);
    Ok(Work { place, script, copies, command, warnings })
}

fn without_keep_alive(job: &Job) -> Job {
    let mut job = job.clone();
    let others = JobOptions::SKIP_MODEL | JobOptions::DETACH;
    job.options = job.options & others;
    job
}

impl Work {
    /// What will happen, in the words of the capabilities.
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
        let environment = self.command.env.iter().map(|variable| scope("env", &variable.name));
        let inherited = self.command.inherit.iter().map(|name| scope("env", name));
        steps.push(Step {
            summary: "run the entry script with bash".to_owned(),
            call: "process.launch".to_owned(),
            scope: [scope("program", "bash")].into_iter().chain(environment).chain(inherited).collect(),
        });
        WorkPlan {
            steps,
            artefacts: vec![
                Artefact {
                    name: "entry.sh".to_owned(),
                    media_type: "text/x-shellscript".to_owned(),
                    content: self.script.clone(),
                },
                Artefact {
                    name: "environment.txt".to_owned(),
                    media_type: "text/plain".to_owned(),
                    content: self.environment_text(),
                },
            ],
            warnings: self.warnings.clone(),
            extra: Vec::new(),
        }
    }

    /// The variables as text; secrets by their names only.
    fn environment_text(&self) -> String {
        let mut text = String::new();
        for variable in &self.command.env {
            let value = match &variable.value {
                EnvValue::Text(value) => quote::word(value),
                EnvValue::Secret(name) => format!("<secret {name}>"),
            };
            text.push_str(&format!("{}={value}\n", variable.name));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use maddock_sdk::target::{JobPaths, Script, Topology};
    use maddock_sdk::types::{EnvVar, ErrorKind, Image};

    use super::*;

    fn job() -> Job {
        Job {
            run_id: "r1".into(),
            id: "dummy".into(),
            model: "dummy".into(),
            card: "{}".into(),
            image: None,
            topology: Topology {
                nodes: 1,
                processes_per_node: 1,
                gpus_per_node: 0,
                launcher: "none".into(),
                main_port: 1,
                roles: Vec::new(),
            },
            script: Script {
                interpreter: vec!["bash".into()],
                file: "run.sh".into(),
                arguments: Vec::new(),
                encapsulate: String::new(),
                before: Vec::new(),
                after: Vec::new(),
                clone_url: None,
            },
            env: vec![
                EnvVar { name: "A".into(), value: EnvValue::Text("it's".into()) },
                EnvVar { name: "KEY".into(), value: EnvValue::Secret("env/KEY".into()) },
            ],
            accelerators: None,
            time_limit: Some(60),
            paths: JobPaths {
                directory: "/r/dummy".into(),
                workspace: "/r/dummy/workspace".into(),
                work_directory: "run_directory".into(),
                tree: "/mad".into(),
            },
            profile: String::new(),
            options: JobOptions::empty(),
            collect: Vec::new(),
            config: "{}".into(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_job_becomes_its_entry_script_run_with_bash() {
        let work = prepare(&job(), &["other".to_owned()]).unwrap();
        assert_eq!(work.command.argv, ["bash", "/r/dummy/workspace/.maddock/entry.sh"]);
        assert_eq!(work.command.time_limit_ms, Some(60_000));
        let expected = [("/mad/scripts/other".to_owned(), "/r/dummy/workspace/scripts/other".to_owned())];
        assert_eq!(work.copies, expected);
        let calls: Vec<String> = work.plan().steps.into_iter().map(|step| step.call).collect();
        assert_eq!(calls, ["files.copy", "files.write", "process.launch"]);
    }

    #[test]
    fn a_plan_shows_secrets_by_name() {
        let plan = prepare(&job(), &[]).unwrap().plan();
        assert_eq!(plan.artefacts[1].content, "A='it'\\''s'\nKEY=<secret env/KEY>\n");
    }

    #[test]
    fn several_nodes_are_refused_with_a_hint() {
        let mut job = job();
        job.topology.nodes = 2;
        let error = prepare(&job, &[]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.hint.is_some());
    }

    #[test]
    fn what_has_no_meaning_here_is_told() {
        let mut job = job();
        job.options = JobOptions::KEEP_ALIVE;
        let image = Image { reference: "i".into(), digest: None, registry_reference: None, local: true };
        job.image = Some(image);
        let work = prepare(&job, &[]).unwrap();
        assert_eq!(work.warnings.len(), 2);
        assert!(!work.script.contains("Kept alive"));
    }

    #[test]
    fn a_work_directory_outside_the_workspace_is_refused() {
        for name in ["", "..", "a/../.."] {
            let mut job = job();
            job.paths.work_directory = name.into();
            assert!(prepare(&job, &[]).is_err(), "{name}");
        }
    }
}
