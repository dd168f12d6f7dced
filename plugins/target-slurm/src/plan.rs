//! From a job to everything that will be written and handed in, and to the plan that says so. Nothing here has an effect.

use maddock_sdk::serde_json::{self, Value};
use maddock_sdk::slurm::Batch;
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::Entry;
use maddock_sdk::types::{Artefact, EnvValue, EnvVar, Step, WorkPlan};
use maddock_sdk::{Result, entry, invalid};

use crate::allocation::Allocation;
use crate::container::Share;
use crate::script;
use crate::section::{Section, gpus_in};

/// Minutes that copying to and from the nodes may take beyond the model's own time limit.
const ROOM: u64 = 10;
/// No cluster gives one job more; a slip of the pen does.
const MOST_NODES: u32 = 10_000;

/// All that will be done for a job.
#[derive(Debug)]
pub struct Work {
    /// Script directories to be copied: from the tree, into the workspace.
    pub copies: Vec<(String, String)>,
    /// Files to be written: path, content and mode.
    pub files: Vec<(String, String, u32)>,
    /// What will be handed in, or run within the allocation.
    pub batch: Batch,
    /// What nodes read that run an image.
    pub share: Option<Share>,
    /// Whether the partition is looked at first.
    pub check: bool,
    /// Whether the longest time that the partition allows is asked for.
    pub longest: bool,
    /// Seconds that the job may wait.
    pub queue_timeout: Option<u64>,
    /// The allocation to run in, which is there already; none: a batch job is handed in.
    pub allocation: Option<Allocation>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// The directory of all nodes' files.
#[must_use]
pub fn nodes_directory(directory: &str) -> String {
    format!("{directory}/nodes")
}

/// The directory of one node's files.
#[must_use]
pub fn node_directory(directory: &str, rank: u32) -> String {
    format!("{}/{rank}", nodes_directory(directory))
}

/// What nodes read that run an image.
#[must_use]
pub fn share_file(directory: &str) -> String {
    format!("{directory}/node.json")
}

/// The batch script's own output.
#[must_use]
pub fn batch_log(directory: &str) -> String {
    format!("{directory}/batch.log")
}

/// Prepares a job. `directories` are those of the tree's scripts.
///
/// # Errors
/// The job or its configuration cannot be.
pub fn prepare(job: &Job, directories: &[String]) -> Result<Work> {
    let section = Section::read(&job.config)?;
    let mut warnings = check(job, &section)?;
    if !section.results_dir.is_empty() {
        warnings.push("`slurm.results_dir` has no effect: logs and results are in the run's directory".to_owned());
    }
    let share = Share::prepare(job, &section, &mut warnings)?;
    let batch_script = script::batch(job, &section, share.as_ref().map(|share| share.program.as_str()));
    let directory = &job.paths.directory;
    let mut files = vec![(format!("{directory}/job.sbatch"), batch_script.clone(), 0o644)];
    match &share {
        Some(_) => files.push((format!("{directory}/node.sh"), script::start(), 0o644)),
        None => files.extend(programs(job, &section)?),
    }
    let copies = directories
        .iter()
        .map(|name| (format!("{}/scripts/{name}", job.paths.tree), format!("{}/scripts/{name}", job.paths.workspace)))
        .collect();
    let (check, queue_timeout) = (section.check, section.queue_timeout);
    let longest = time(job, &section) == Time::Longest;
    let batch = batch(job, section, batch_script);
    Ok(Work { copies, files, batch, share, check, longest, queue_timeout, allocation: None, warnings })
}

/// What holds for every job, and what a person should know about it.
pub(crate) fn check(job: &Job, section: &Section) -> Result<Vec<String>> {
    let nodes = job.topology.nodes;
    if nodes == 0 || nodes > MOST_NODES {
        return Err(invalid(format!("a job cannot have {nodes} nodes")));
    }
    if let Some(asked) = section.nodes.filter(|asked| *asked != nodes) {
        return Err(invalid(format!("`slurm.nodes` is {asked}, and the job is arranged for {nodes} nodes"))
            .hint("give `slurm.nodes` and `distributed.nnodes` the same value, or only one of them")
            .detail("key", "slurm.nodes"));
    }
    let gpus = job.topology.gpus_per_node;
    if let Some(asked) = gpus_in(&section.gres).filter(|asked| *asked != gpus) {
        return Err(invalid(format!(
            "`slurm.gres` asks for {asked} GPUs on each node, and the job is arranged for {gpus}"
        ))
        .hint(format!("write `slurm.gpus_per_node: {asked}` beside it, or leave `slurm.gres` out"))
        .detail("key", "slurm.gres"));
    }
    if job.paths.work_directory.is_empty() || job.paths.work_directory.split('/').any(|part| part == "..") {
        return Err(invalid(format!("`{}` cannot be a work directory", job.paths.work_directory)));
    }
    let mut warnings = section.warnings.clone();
    if job.options.has(JobOptions::KEEP_ALIVE) {
        warnings.push("nothing is kept alive on the nodes: they belong to the next job".to_owned());
    }
    if let (Time::Minutes(minutes), Some(seconds)) = (time(job, section), job.time_limit)
        && u64::from(minutes).saturating_mul(60) < seconds
    {
        warnings.push(format!(
            "`slurm.time` of {minutes} minutes ends the job before the model's own limit of {seconds} seconds"
        ));
    }
    Ok(warnings)
}

/// What is handed in for a job.
pub(crate) fn batch(job: &Job, section: Section, script: String) -> Batch {
    let directory = &job.paths.directory;
    let time_limit = match time(job, &section) {
        Time::Minutes(minutes) => Some(minutes),
        Time::Longest | Time::OfPartition => None,
    };
    Batch {
        name: name(&job.model),
        script,
        partition: section.partition,
        nodes: job.topology.nodes,
        tasks_per_node: 1,
        gpus_per_node: if gpus_in(&section.gres).is_none() { job.topology.gpus_per_node } else { 0 },
        gres: section.gres,
        time_limit,
        account: section.account,
        qos: section.qos,
        reservation: section.reservation,
        constraint: section.constraint,
        nodelist: section.nodelist,
        exclude: section.exclude,
        memory: section.memory,
        exclusive: section.exclusive,
        requeue: false,
        mail_user: section.mail_user,
        mail_type: section.mail_type,
        output: batch_log(directory),
        error_output: batch_log(directory),
        directory: directory.clone(),
        env: secrets(job),
        extra: Vec::new(),
    }
}

/// What nodes read that run the model as a program.
fn programs(job: &Job, section: &Section) -> Result<Vec<(String, String, u32)>> {
    let directory = &job.paths.directory;
    let mut files = vec![(format!("{directory}/node.sh"), script::node(job, section), 0o644)];
    let job_for_entry = without_keep_alive(job);
    for rank in 0..job.topology.nodes {
        let role = job.topology.roles.iter().find(|role| role.node == rank);
        let own = node_directory(directory, rank);
        files.push((format!("{own}/env.sh"), script::variables(job, section, role, rank)?, 0o600));
        files.push((format!("{own}/entry.sh"), entry::script(&job_for_entry, role), 0o755));
    }
    Ok(files)
}

/// How long a batch job may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// So long.
    Minutes(u32),
    /// As long as the partition allows.
    Longest,
    /// What the partition gives where nothing is asked for.
    OfPartition,
}

/// What a person said goes before the model's card, and the card before a preset.
pub(crate) fn time(job: &Job, section: &Section) -> Time {
    let extra = |name: &str| job.extra.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str());
    let of_presets = extra("presets").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let of_preset = of_presets.is_some_and(|presets| presets.pointer("/slurm/time").is_some());
    let of_model = limit(job.time_limit);
    match (section.time, extra("time-limit-of"), of_model) {
        (Some(minutes), ..) if !of_preset => Time::Minutes(minutes),
        (_, Some("option"), None) => Time::Longest,
        (_, Some("option" | "card"), Some(minutes)) => Time::Minutes(minutes),
        (Some(minutes), ..) | (None, _, Some(minutes)) => Time::Minutes(minutes),
        (None, _, None) => Time::OfPartition,
    }
}

/// Minutes for a model's seconds, with room for what is around it.
fn limit(seconds: Option<u64>) -> Option<u32> {
    let minutes = seconds?.div_ceil(60).saturating_add(ROOM);
    u32::try_from(minutes).ok()
}

/// What the queue shows: the model, without what would break a line.
fn name(model: &str) -> String {
    let plain: String = model.chars().map(|letter| if letter.is_control() { '_' } else { letter }).take(40).collect();
    format!("maddock-{plain}")
}

fn secrets(job: &Job) -> Vec<EnvVar> {
    job.env.iter().filter(|variable| matches!(variable.value, EnvValue::Secret(_))).cloned().collect()
}

pub(crate) fn without_keep_alive(job: &Job) -> Job {
    let mut job = job.clone();
    job.options = job.options & (JobOptions::SKIP_MODEL | JobOptions::DETACH);
    job
}

impl Work {
    /// What the batch job asks for, by the keys that say so: a preset may have said it.
    #[must_use]
    pub fn asked(&self) -> String {
        let batch = &self.batch;
        let counts = [("nodes", batch.nodes), ("gpus_per_node", batch.gpus_per_node)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0).map(|(key, count)| (key, count.to_string()));
        let texts = [
            ("partition", &batch.partition),
            ("gres", &batch.gres),
            ("mem", &batch.memory),
            ("constraint", &batch.constraint),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let all = counts.chain(texts.map(|(key, text)| (key, format!("`{text}`"))));
        let all: Vec<String> = all.map(|(key, value)| format!("`slurm.{key}` {value}")).collect();
        format!("it asks for {}; `sinfo -N -o '%N %P %c %m %G'` shows what there is", all.join(", "))
    }

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
        steps.extend(self.share.iter().flat_map(Share::steps));
        let share = self.share.iter().map(|_| share_file(&self.batch.directory));
        let written: Vec<String> = self.files.iter().map(|(path, ..)| path.clone()).chain(share).collect();
        steps.push(Step {
            summary: format!("write {} files that the nodes read", written.len()),
            call: "files.write".to_owned(),
            scope: written.iter().map(|path| scope("path", path)).collect(),
        });
        let batch = &self.batch;
        let time = batch.time_limit.map_or_else(|| "unlimited".to_owned(), |minutes| minutes.to_string());
        let mut asked = vec![
            scope("partition", &batch.partition),
            scope("account", &batch.account),
            scope("qos", &batch.qos),
            scope("reservation", &batch.reservation),
            scope("node-count", &batch.nodes.to_string()),
            scope("time", &time),
        ];
        asked.extend(batch.nodelist.iter().map(|node| scope("nodes", node)));
        asked.push(scope("path", &batch.directory));
        asked.extend(batch.env.iter().map(|variable| scope("env", &variable.name)));
        steps.push(match &self.allocation {
            Some(allocation) => allocation.step(),
            None => Step {
                summary: match batch.partition.as_str() {
                    "" => format!("hand in a batch job for {} nodes of the scheduler's default partition", batch.nodes),
                    partition => format!("hand in a batch job for {} nodes of partition `{partition}`", batch.nodes),
                },
                call: "slurm.submit".to_owned(),
                scope: asked,
            },
        });
        // One node stands for the others: they differ in their variables, which are all there.
        let shown = |path: &str| {
            !path.contains("/nodes/") || !path.ends_with("/entry.sh") || path.ends_with("/nodes/0/entry.sh")
        };
        let artefacts = self.files.iter().filter(|(path, ..)| shown(path)).map(|(path, content, _)| Artefact {
            name: artefact_name(path),
            media_type: "text/x-shellscript".to_owned(),
            content: content.clone(),
        });
        let share = self.share.iter().map(|share| Artefact {
            name: "node.json".to_owned(),
            media_type: "application/json".to_owned(),
            content: share.text(),
        });
        WorkPlan {
            steps,
            artefacts: artefacts.chain(share).chain([self.directives()]).collect(),
            warnings: self.warnings.clone(),
            extra: Vec::new(),
        }
    }

    /// The directives as text: what the host hands in beside the script.
    fn directives(&self) -> Artefact {
        let batch = &self.batch;
        let mut content = String::new();
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                content.push_str(&format!("{name}={value}\n"));
            }
        };
        line("job-name", batch.name.clone());
        line("partition", batch.partition.clone());
        line("nodes", batch.nodes.to_string());
        line("ntasks-per-node", batch.tasks_per_node.to_string());
        line("gpus-per-node", if batch.gpus_per_node > 0 { batch.gpus_per_node.to_string() } else { String::new() });
        line("gres", batch.gres.clone());
        line("time", batch.time_limit.map(|minutes| minutes.to_string()).unwrap_or_default());
        line("account", batch.account.clone());
        line("qos", batch.qos.clone());
        line("reservation", batch.reservation.clone());
        line("constraint", batch.constraint.clone());
        line("nodelist", batch.nodelist.join(","));
        line("exclude", batch.exclude.join(","));
        line("mem", batch.memory.clone());
        line("exclusive", if batch.exclusive { "yes".to_owned() } else { String::new() });
        line("mail-user", batch.mail_user.clone());
        line("mail-type", batch.mail_type.join(","));
        line("chdir", batch.directory.clone());
        line("output", batch.output.clone());
        for variable in &batch.env {
            line("secret-variable", variable.name.clone());
        }
        Artefact { name: "directives.txt".to_owned(), media_type: "text/plain".to_owned(), content }
    }
}

fn artefact_name(path: &str) -> String {
    match path.rsplit_once("/nodes/") {
        Some((_, rest)) => rest.split_once('/').map_or_else(
            || rest.to_owned(),
            |(rank, file)| match file {
                "entry.sh" => "entry.sh".to_owned(),
                file => format!("node-{rank}-{file}"),
            },
        ),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}
