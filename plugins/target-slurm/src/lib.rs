//! Runs jobs on the nodes of a Slurm cluster: one task on each node, in a copy of the job's workspace; a job with an image in
//! a container there, another as a program.
//!
//! The run's directory must be on a file system that all nodes share: nodes read what to do there and leave their outcome.
//! Nothing of anybody else is touched: the host ends jobs of this run only, and no allocation that was there before.

use std::time::SystemTime;

use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::job_result::JobResult;
use maddock_sdk::serde_json;
use maddock_sdk::slurm::{self, JobState, Seen};
use maddock_sdk::target::{Cause, CollectedFile, Collection, Ending, Guest, Job, JobStatus, TargetInfo};
use maddock_sdk::types::{Entry, Error, ErrorKind, OutputStream, WorkPlan};
use maddock_sdk::{Result, failed, files, invalid, local};
use serde::{Deserialize, Serialize};

pub mod allocation;
pub mod container;
pub mod once;
pub mod outcome;
pub mod plan;
pub mod preflight;
pub mod script;
pub mod section;
mod submit;
pub mod tail;

use allocation::{Allocation, Running};
use outcome::Report;
use tail::Tail;

/// What this target can do.
const FEATURES: [&str; 5] = ["multi-node", "detach", "images", "images-unless=slurm.container:false", "shares"];
/// How long one wait for news takes at most: the nodes' output is looked at in between.
const WAIT_MS: u32 = 1000;
/// Looks at the shared file system after the end, until the nodes' last words have arrived.
const LOOKS: u32 = 10;
/// Waits for a cancelled job to leave the queue: the scheduler gives its processes half a minute.
const LEAVING: u32 = 120;
/// A node's own files are a few lines; a longer one is not ours.
const REPORT_LIMIT: u64 = 64 << 10;

/// What `launch` answers, as JSON text.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Handle {
    id: String,
    directory: String,
    nodes: u32,
    /// Plain names that have to be there.
    expected: Vec<String>,
    /// What was put beside the job for the nodes alone.
    #[serde(default)]
    leftovers: Vec<String>,
    /// Seconds since 1970 after which it is not waited for any more.
    #[serde(default)]
    give_up: Option<u64>,
    /// The program that runs within an allocation of somebody else's, which `id` then names.
    #[serde(default)]
    process: Option<String>,
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Handle {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| invalid(format!("this is no handle of a batch job: {error}")))
    }

    fn text(&self, rank: u32, name: &str) -> Option<String> {
        let path = format!("{}/{name}", plan::node_directory(&self.directory, rank));
        files::read(&path, REPORT_LIMIT).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn report(&self, rank: u32) -> Report {
        let mut report = Report::default();
        for name in ["started", "ended"] {
            if let Some(text) = self.text(rank, name) {
                report.read(&text);
            }
        }
        report.result = self.text(rank, "result").and_then(|text| JobResult::parse(&text).ok());
        report
    }

    fn reports(&self) -> Vec<Report> {
        (0..self.nodes).map(|rank| self.report(rank)).collect()
    }

    /// The nodes' reports once they are complete, or cannot be expected to become so.
    fn last_reports(&self, job: &slurm::Job) -> Vec<Report> {
        let mut reports = self.reports();
        for _ in 0..LOOKS {
            if reports.iter().all(|report| report.exit.is_some() || !report.started) {
                break;
            }
            // Nothing changes any more: this waits, for the shared file system.
            let seen = Seen { id: self.id.clone(), change: job.change };
            if slurm::next_change(&[seen], WAIT_MS).is_err() {
                break;
            }
            reports = self.reports();
        }
        reports
    }

    fn log(&self, rank: u32) -> Tail {
        let path = format!("{}/output.log", plan::node_directory(&self.directory, rank));
        Tail::new(path, rank, OutputStream::Stdout)
    }

    fn batch_log(&self) -> Tail {
        Tail::new(plan::batch_log(&self.directory), 0, OutputStream::Stderr)
    }
}

/// What is told while a job runs: the first node's output as it comes, the others' after it, so that what stands first in
/// the log does not depend on which node was faster.
struct Logs {
    main: Tail,
    batch: Tail,
    others: Vec<Tail>,
    complete: bool,
}

impl Logs {
    fn of(handle: &Handle) -> Self {
        Self {
            main: handle.log(0),
            batch: handle.batch_log(),
            others: (1..handle.nodes).map(|rank| handle.log(rank)).collect(),
            complete: true,
        }
    }

    fn note(&mut self, told: Result<()>) {
        if let Err(error) = told
            && self.complete
        {
            self.complete = false;
            events::log(Level::Warning, &error.message, &[]);
        }
    }

    fn tell(&mut self) {
        let told = self.main.tell();
        self.note(told);
    }

    fn finish(&mut self) {
        let told = self.main.finish();
        self.note(told);
        for mut other in std::mem::take(&mut self.others) {
            let told = other.finish();
            self.note(told);
        }
        let told = self.batch.finish();
        self.note(told);
    }
}

fn phase(state: &JobState) -> Phase {
    match state {
        JobState::Pending => Phase::Queued,
        JobState::Starting => Phase::Starting,
        JobState::Running => Phase::Running,
        JobState::Suspended => Phase::Suspended,
        JobState::Completing => Phase::Finishing,
        JobState::Completed
        | JobState::Failed
        | JobState::Cancelled
        | JobState::TimedOut
        | JobState::NodeFailed
        | JobState::Preempted
        | JobState::OutOfMemory
        | JobState::BootFailed
        | JobState::DeadlinePassed
        | JobState::Revoked => Phase::Ended,
        JobState::LostSight | JobState::Other(_) => Phase::Unknown,
    }
}

fn describe(job: &slurm::Job) -> String {
    let word = match &job.state {
        JobState::Other(word) => word.clone(),
        _ => job.word.to_lowercase(),
    };
    let word = if word.is_empty() { word } else { format!(" {word}") };
    let place = if job.nodes.is_empty() { String::new() } else { format!(" on {}", job.nodes) };
    let reason = if job.reason.is_empty() { String::new() } else { format!(": {}", job.reason) };
    format!("batch job {}{word}{place}{reason}", job.id)
}

/// Follows a job to its end. A job that has waited in the queue for too long is taken out; then with what it waited for.
fn follow(handle: &Handle, logs: &mut Logs) -> Result<(slurm::Job, Option<String>)> {
    let mut change = 0;
    let mut waits_for = None;
    let mut given_up = None;
    loop {
        let news = slurm::next_change(&[Seen { id: handle.id.clone(), change }], WAIT_MS)?;
        logs.tell();
        for job in news {
            change = job.change;
            events::state(phase(&job.state), &describe(&job));
            if job.ended || said_by_all(handle, &job) {
                return Ok((job, given_up));
            }
            waits_for = matches!(job.state, JobState::Pending).then_some(job.reason);
        }
        let late = handle.give_up.is_some_and(|limit| now() >= limit);
        if let (Some(reason), None, true) = (&waits_for, &given_up, late) {
            events::log(
                Level::Warning,
                "the job has waited in the queue for `slurm.queue_timeout`: it is taken out",
                &[],
            );
            given_up = Some(reason.clone());
            slurm::cancel(&handle.id)?;
        }
    }
}

/// Whether the scheduler has forgotten a job of which every node has left its outcome: nobody has more to say.
fn said_by_all(handle: &Handle, job: &slurm::Job) -> bool {
    matches!(job.state, JobState::LostSight) && handle.reports().iter().all(|report| report.exit.is_some())
}

/// The ending of a job that was taken out of the queue, unless it began in the last moment.
fn taken_out(ending: Ending, waited_for: &str) -> Ending {
    if ending.nodes.iter().any(|node| node.cause != Cause::NeverStarted) {
        return ending;
    }
    let reason = if waited_for.is_empty() { String::new() } else { format!(": {waited_for}") };
    let message = format!("it waited in the queue for longer than `slurm.queue_timeout`{reason}");
    Ending { cause: Cause::NeverStarted, message, ..ending }
}

/// All that will be done for a job.
fn work(job: &Job) -> Result<plan::Work> {
    let directories = local::script_directories(&job.paths.tree)?;
    if once::is(job) {
        return once::prepare(job, &directories, Allocation::here()?);
    }
    plan::prepare(job, &directories)
}

/// Follows a program within an allocation to its end.
fn follow_within(handle: &Handle, process: &str) -> Result<Ending> {
    let running = Running::attach(process)?;
    let mut logs = Logs::of(handle);
    events::state(Phase::Running, &format!("within the allocation {}", handle.id));
    let status = loop {
        let status = running.look(WAIT_MS, &mut |bytes| events::output(0, OutputStream::Stderr, bytes))?;
        logs.tell();
        if let Some(status) = status {
            break status;
        }
    };
    logs.finish();
    Ok(outcome::within(&handle.id, status, &handle.report(0), logs.complete))
}

/// A refused submission, with what was asked for, or what there is instead, where that helps.
fn refused(error: Error, work: &plan::Work) -> Error {
    let error = error.during("handing the job in");
    if error.message.contains("node configuration") {
        return error.hint(work.asked());
    }
    let partition = &work.batch.partition;
    if !error.message.contains("partition") {
        return error;
    }
    match slurm::describe_cluster() {
        Ok(cluster) if !cluster.partitions.is_empty() => {
            let names: Vec<String> = cluster.partitions.iter().map(|known| format!("`{}`", known.name)).collect();
            let named = if partition.is_empty() { "not said".to_owned() } else { format!("`{partition}`") };
            error.hint(format!("`slurm.partition` is {named}; the cluster has {}", names.join(", ")))
        }
        _ => error,
    }
}

/// Hands the job in, or starts it within the allocation that there is: what it is known by, and its program.
fn start(job: &Job, work: &plan::Work) -> Result<(String, Option<String>)> {
    if let Some(allocation) = &work.allocation {
        let directory = &job.paths.directory;
        let script = format!("{directory}/job.sbatch");
        let process = allocation.launch(&script, directory, work.batch.env.clone(), job.time_limit)?;
        events::log(Level::Info, &format!("the job runs within the allocation {}", allocation.id), &[]);
        return Ok((allocation.id.clone(), Some(process)));
    }
    let id = slurm::submit(&work.batch).map_err(|error| refused(error, work))?;
    events::log(
        Level::Info,
        &format!("batch job {id} is handed in"),
        &[Entry { name: "id".into(), value: id.clone() }],
    );
    Ok((id, None))
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        TargetInfo {
            deployment_type: "slurm".to_owned(),
            default_launcher: "torchrun".to_owned(),
            features: FEATURES.map(str::to_owned).to_vec(),
        }
    }

    fn plan(job: Job) -> Result<WorkPlan> {
        Ok(work(&job)?.plan())
    }

    fn launch(job: Job, _plan: WorkPlan) -> Result<String> {
        let mut work = work(&job)?;
        for warning in &work.warnings {
            events::log(Level::Warning, warning, &[]);
        }
        let leftovers: Vec<String> = work.share.iter().flat_map(|share| share.leftovers(&job)).collect();
        let (id, process) = match submit::hand_in(&job, &mut work) {
            Ok(known) => known,
            Err(error) => {
                for path in &leftovers {
                    let _ = files::remove(path);
                }
                return Err(error);
            }
        };
        let plain = |pattern: &&String| !pattern.contains(['*', '?']);
        let handle = Handle {
            id,
            directory: job.paths.directory.clone(),
            nodes: if once::is(&job) { 1 } else { job.topology.nodes },
            process,
            expected: job.collect.iter().filter(plain).cloned().collect(),
            leftovers,
            give_up: work.queue_timeout.map(|seconds| now().saturating_add(seconds)),
        };
        serde_json::to_string(&handle).map_err(|error| failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        let handle = Handle::read(&handle)?;
        if let Some(process) = &handle.process {
            return follow_within(&handle, process);
        }
        let mut logs = Logs::of(&handle);
        let (job, given_up) = follow(&handle, &mut logs)?;
        let reports = handle.last_reports(&job);
        logs.finish();
        let ending = outcome::ending(&job, &reports, logs.complete);
        Ok(match given_up {
            Some(reason) => taken_out(ending, &reason),
            None => ending,
        })
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        if let Some(process) = &handle.process {
            let status = Running::attach(process)?.look(0, &mut |_| {})?;
            let ending = status.map(|status| outcome::within(&handle.id, status, &handle.report(0), true));
            let phase = if ending.is_some() { Phase::Ended } else { Phase::Running };
            return Ok(JobStatus { phase, reason: format!("within the allocation {}", handle.id), ending });
        }
        let job = slurm::query(std::slice::from_ref(&handle.id))?
            .pop()
            .ok_or_else(|| failed(format!("nothing is known about batch job {}", handle.id)))?;
        let ending = job.ended.then(|| outcome::ending(&job, &handle.reports(), true));
        Ok(JobStatus { phase: phase(&job.state), reason: describe(&job), ending })
    }

    fn logs(handle: String) -> Result<()> {
        let mut logs = Logs::of(&Handle::read(&handle)?);
        logs.finish();
        if logs.complete { Ok(()) } else { Err(failed("not all of the nodes' output could be read")) }
    }

    fn cancel(handle: String, _reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        if let Some(process) = &handle.process {
            return Running::attach(process)?.stop();
        }
        slurm::cancel(&handle.id)?;
        let mut change = 0;
        for _ in 0..LEAVING {
            for job in slurm::next_change(&[Seen { id: handle.id.clone(), change }], WAIT_MS)? {
                change = job.change;
                // What is in the queue no more has nothing to be ended.
                if job.ended || matches!(job.state, JobState::LostSight) {
                    return Ok(());
                }
            }
        }
        Err(failed(format!("batch job {} was told to end and is still in the queue", handle.id))
            .hint("the scheduler may be waiting for a node; `squeue` shows it"))
    }

    fn collect(handle: String) -> Result<Collection> {
        let handle = Handle::read(&handle)?;
        let mut collection = Collection { files: Vec::new(), facts: Vec::new(), missing: Vec::new() };
        for rank in 0..handle.nodes {
            let directory = format!("{}/files", plan::node_directory(&handle.directory, rank));
            brought_back(&directory, "", rank, &mut collection.files)?;
        }
        for name in &handle.expected {
            if !collection.files.iter().any(|file| file.node == 0 && file.name == *name) {
                collection.missing.push(format!("`{name}` is not in the work directory of the first node"));
            }
        }
        let reports = handle.reports();
        let architecture = outcome::architecture(&reports);
        let first = reports.into_iter().next().unwrap_or_default();
        let commit = first.git_commit.or_else(|| first.result.and_then(|result| result.git_commit));
        // A script that runs once leaves its rows in a file.
        let results = handle.text(0, "results").map(|_| once::RESULTS.to_owned());
        let facts = [
            ("machine_name", Some(handle.id.clone())),
            ("git_commit", commit),
            ("image_digest", first.image_digest),
            ("gpu_architecture", architecture),
            ("results", results),
        ];
        collection.facts = facts
            .into_iter()
            .filter_map(|(name, value)| Some(Entry { name: name.to_owned(), value: value? }))
            .collect();
        Ok(collection)
    }

    fn release(handle: String) -> Result<()> {
        // The nodes' own directories went with their scripts; what may be left is the job itself.
        let handle = Handle::read(&handle)?;
        let ended = match &handle.process {
            None => slurm::cancel(&handle.id),
            Some(process) => match Running::attach(process) {
                Ok(running) => running.stop(),
                Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
        };
        for path in &handle.leftovers {
            files::remove(path)?;
        }
        ended
    }
}

/// Files that a node has brought back, with the names that they had in its work directory.
fn brought_back(root: &str, below: &str, node: u32, into: &mut Vec<CollectedFile>) -> Result<()> {
    let directory = if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") };
    if files::stat(&directory)?.is_none() {
        return Ok(());
    }
    for entry in files::list_directory(&directory)? {
        let name = if below.is_empty() { entry.name.clone() } else { format!("{below}/{}", entry.name) };
        match entry.kind {
            files::FileKind::Directory => brought_back(root, &name, node, into)?,
            files::FileKind::File => into.push(CollectedFile { node, path: format!("{root}/{name}"), name }),
            files::FileKind::Other => {}
        }
    }
    Ok(())
}

maddock_sdk::manifest!("plugin.json");
// Names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);
