//! What a batch job's end means, from the scheduler's word and from what each node left. Total: every state maps to a cause.
//!
//! The scheduler says how the whole ended, the nodes say why. A node that left nothing is never taken for one that ended
//! well.

use maddock_sdk::job_result::JobResult;
use maddock_sdk::local;
use maddock_sdk::process::ExitStatus;
use maddock_sdk::slurm::{Job, JobState};
use maddock_sdk::target::{Cause, Ending, NodeEnding};

/// What one node left in its directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The node's name, where it started.
    pub host: String,
    /// It began.
    pub started: bool,
    /// What its script ended with.
    pub exit: Option<i32>,
    /// It was ended because another node failed.
    pub peer: bool,
    /// How it ended, in one word, where the node says it itself.
    pub cause: Option<String>,
    /// The sentence to it.
    pub message: String,
    /// Seconds that the model ran.
    pub seconds: Option<f64>,
    /// What was cloned.
    pub git_commit: Option<String>,
    /// What was run.
    pub image_digest: Option<String>,
    /// What accelerators were found there.
    pub gpu_architecture: Option<String>,
    /// What the entry script left.
    pub result: Option<JobResult>,
}

impl Report {
    /// Reads the lines of a node's file, `name=value`; those that are not known are left alone.
    pub fn read(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "host" => value.clone_into(&mut self.host),
                "exit" => self.exit = value.parse().ok(),
                "peer" => self.peer = value == "1",
                "cause" => self.cause = Some(value.to_owned()),
                "message" => value.clone_into(&mut self.message),
                "seconds" => self.seconds = value.parse().ok(),
                "git_commit" => self.git_commit = Some(value.to_owned()),
                "image_digest" => self.image_digest = Some(value.to_owned()),
                "gpu_architecture" => self.gpu_architecture = Some(value.to_owned()).filter(|name| !name.is_empty()),
                _ => {}
            }
        }
        self.started = true;
    }

    fn own(&self) -> Option<(Cause, String)> {
        let code = self.exit?;
        let (cause, message) = match self.cause.as_deref() {
            None => local::outcome(code, self.result.as_ref()),
            Some(word) => (cause_of(word, code), self.message.clone()),
        };
        if self.peer {
            return Some((cause, "it was ended because another node failed".to_owned()));
        }
        Some((cause, message))
    }
}

/// The accelerators of the first node that found some.
#[must_use]
pub fn architecture(reports: &[Report]) -> Option<String> {
    reports.iter().find_map(|report| report.gpu_architecture.clone())
}

/// A node's own word for how its share ended.
fn cause_of(word: &str, code: i32) -> Cause {
    match word {
        "exited" => Cause::Exited(code),
        "signalled" => Cause::Signalled(code.saturating_sub(128)),
        "timed-out" => Cause::TimedOut,
        "cancelled" => Cause::Cancelled,
        "never-started" => Cause::NeverStarted,
        "lost" => Cause::Lost,
        _ => Cause::Unknown,
    }
}

/// The ending of a job of which `reports` has one entry for each node.
#[must_use]
pub fn ending(job: &Job, reports: &[Report], log_complete: bool) -> Ending {
    let (cause, message) = cause(job, reports);
    let nodes = (0..)
        .zip(reports)
        .map(|(node, report)| {
            let (cause, message) = report.own().unwrap_or_else(|| match (&cause, report.started) {
                (_, false) => (Cause::NeverStarted, "the job did not begin on it".to_owned()),
                (Cause::TimedOut | Cause::Cancelled | Cause::Lost, true) => (cause, "it left no outcome".to_owned()),
                (_, true) => (Cause::Unknown, "it left no outcome".to_owned()),
            });
            NodeEnding { node, name: report.host.clone(), cause, message }
        })
        .collect();
    let of_result = |report: &Report| report.result.as_ref().and_then(|result| result.seconds);
    let seconds = reports.iter().filter_map(|report| report.seconds.or_else(|| of_result(report)));
    Ending { cause, message, duration: seconds.reduce(f64::max), nodes, log_complete }
}

/// The ending of a program that ran within somebody else's allocation.
#[must_use]
pub fn within(id: &str, status: ExitStatus, report: &Report, log_complete: bool) -> Ending {
    let (cause, message) = match status {
        ExitStatus::TimedOut => (Cause::TimedOut, "the time limit passed".to_owned()),
        ExitStatus::Signalled(signal) => {
            (Cause::Signalled(signal), format!("the job's script was ended by signal {signal}"))
        }
        ExitStatus::Lost => (Cause::Lost, "the supervisor of the job's script is gone without an answer".to_owned()),
        ExitStatus::Exited(code) => report.own().unwrap_or_else(|| match code {
            0 => (Cause::Unknown, format!("the script within the allocation {id} left no outcome")),
            code => (Cause::NeverStarted, format!("the job did not begin in the allocation {id} (code {code})")),
        }),
    };
    local::ending(cause, message, report.result.as_ref(), &report.host, log_complete)
}

fn cause(job: &Job, reports: &[Report]) -> (Cause, String) {
    let by = |what: &str| {
        let reason = if job.reason.is_empty() { String::new() } else { format!(": {}", job.reason) };
        format!("batch job {} {what}{reason}", job.id)
    };
    match &job.state {
        JobState::Completed | JobState::Failed => by_nodes(job, reports),
        JobState::Cancelled => (Cause::Cancelled, format!("batch job {} was cancelled", job.id)),
        JobState::TimedOut => (Cause::TimedOut, by("reached its time limit")),
        JobState::DeadlinePassed => (Cause::TimedOut, by("could not end before its deadline")),
        JobState::NodeFailed => (Cause::Lost, by("lost a node")),
        JobState::Preempted => (Cause::Lost, by("was preempted")),
        JobState::OutOfMemory => (Cause::Lost, by("ran out of memory")),
        JobState::BootFailed => (Cause::NeverStarted, by("got a node that did not start")),
        JobState::Revoked => (Cause::Lost, by("was taken over by another cluster")),
        JobState::LostSight if !reports.is_empty() && reports.iter().all(|report| report.exit.is_some()) => {
            // All that the scheduler could say has been said by the nodes.
            by_nodes(job, reports)
        }
        JobState::LostSight => (Cause::Unknown, by("is lost sight of")),
        // These are no ends; whoever asks for one has not waited.
        JobState::Pending
        | JobState::Starting
        | JobState::Running
        | JobState::Suspended
        | JobState::Completing
        | JobState::Other(_) => (Cause::Unknown, by("has not ended")),
    }
}

/// The first node that failed by itself decides, else the first that failed, else the batch job's own code.
fn by_nodes(job: &Job, reports: &[Report]) -> (Cause, String) {
    let failed = |report: &&(u32, &Report)| report.1.exit.is_some_and(|code| code != 0);
    let numbered: Vec<(u32, &Report)> = (0..).zip(reports).collect();
    let worst = numbered.iter().filter(failed).find(|(_, report)| !report.peer).or(numbered.iter().find(failed));
    if let Some((node, report)) = worst
        && let Some((cause, message)) = report.own()
    {
        if reports.len() == 1 {
            return (cause, message);
        }
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        let code = report.exit.unwrap_or_default();
        return (cause, format!("node {node} ({}) failed with code {code}{said}", report.host));
    }
    if matches!(job.state, JobState::Failed) {
        let reason = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
        if !reports.iter().any(|report| report.started) {
            return (Cause::NeverStarted, format!("batch job {} failed before any node began{reason}", job.id));
        }
        return match (job.signal, job.exit_code) {
            (Some(signal), _) => (Cause::Signalled(signal), format!("batch job {} failed{reason}", job.id)),
            (None, Some(code)) if code != 0 => (Cause::Exited(code), format!("batch job {} failed{reason}", job.id)),
            (None, _) => (Cause::Unknown, format!("batch job {} failed without a code{reason}", job.id)),
        };
    }
    let silent: Vec<String> =
        numbered.iter().filter(|(_, report)| report.exit.is_none()).map(|(node, _)| node.to_string()).collect();
    let timed_out = numbered.iter().filter_map(|(_, report)| report.own()).find(|(cause, _)| *cause == Cause::TimedOut);
    match (timed_out, silent.as_slice()) {
        (Some(timed_out), _) => timed_out,
        (None, []) => (Cause::Exited(0), String::new()),
        (None, silent) => (Cause::Exited(0), format!("no outcome came from node {}", silent.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use maddock_sdk::job_result::Stage;

    use super::*;

    #[test]
    fn accelerators_are_those_of_the_first_node_that_found_some() {
        let report = |text: &str| {
            let mut report = Report::default();
            report.read(text);
            report
        };
        let reports = [report("exit=0"), report("gpu_architecture="), report("gpu_architecture=gfx942\nexit=0")];
        assert_eq!(architecture(&reports).as_deref(), Some("gfx942"));
        assert_eq!(architecture(&reports[..2]), None);
    }

    fn job(state: JobState) -> Job {
        Job {
            id: "39".into(),
            state,
            word: String::new(),
            reason: String::new(),
            ended: true,
            exit_code: None,
            signal: None,
            nodes: "node[1-2]".into(),
            start: String::new(),
            end: String::new(),
            owner: String::new(),
            change: 1,
        }
    }

    fn report(exit: Option<i32>) -> Report {
        let result = exit.map(|exit| JobResult {
            exit,
            stage: Stage::Model,
            model: Some(exit),
            seconds: Some(2.5),
            git_commit: None,
        });
        Report { host: "n".into(), started: true, exit, result, ..Report::default() }
    }

    #[test]
    fn all_nodes_well_is_well() {
        let ending = ending(&job(JobState::Completed), &[report(Some(0)), report(Some(0))], true);
        assert_eq!((ending.cause, ending.nodes.len(), ending.duration), (Cause::Exited(0), 2, Some(2.5)));
        assert_eq!(ending.message, "");
    }

    #[test]
    fn a_node_that_left_nothing_did_not_report() {
        let ending = ending(&job(JobState::Completed), &[report(Some(0)), report(None)], true);
        assert_eq!(ending.nodes[1].cause, Cause::Unknown);
        assert!(ending.message.contains("node 1"), "{}", ending.message);
    }

    #[test]
    fn the_node_that_failed_first_decides_and_not_those_it_took_along() {
        let taken = Report { peer: true, ..report(Some(143)) };
        let ending = ending(&job(JobState::Failed), &[taken, report(Some(3))], true);
        assert_eq!(ending.cause, Cause::Exited(3));
        assert!(ending.message.contains("node 1"), "{}", ending.message);
    }

    #[test]
    fn a_node_s_failure_counts_also_where_the_scheduler_is_content() {
        let ending = ending(&job(JobState::Completed), &[report(Some(5))], true);
        assert_eq!(ending.cause, Cause::Exited(5));
    }

    #[test]
    fn a_job_that_no_node_began_never_started() {
        let ending = ending(&job(JobState::Failed), &[Report::default()], true);
        assert_eq!((ending.cause, ending.nodes[0].cause), (Cause::NeverStarted, Cause::NeverStarted));
    }

    #[test]
    fn every_end_of_the_scheduler_has_a_cause() {
        for (state, cause) in [
            (JobState::Cancelled, Cause::Cancelled),
            (JobState::TimedOut, Cause::TimedOut),
            (JobState::DeadlinePassed, Cause::TimedOut),
            (JobState::NodeFailed, Cause::Lost),
            (JobState::Preempted, Cause::Lost),
            (JobState::OutOfMemory, Cause::Lost),
            (JobState::BootFailed, Cause::NeverStarted),
            (JobState::Revoked, Cause::Lost),
            (JobState::LostSight, Cause::Unknown),
            (JobState::Running, Cause::Unknown),
            (JobState::Other("X".into()), Cause::Unknown),
        ] {
            assert_eq!(ending(&job(state), &[report(None)], true).cause, cause);
        }
    }

    #[test]
    fn what_the_nodes_say_stands_for_a_job_that_is_lost_sight_of() {
        assert_eq!(ending(&job(JobState::LostSight), &[report(Some(0))], true).cause, Cause::Exited(0));
    }

    #[test]
    fn a_node_s_own_word_for_its_end_counts() {
        let mut never = Report::default();
        never.read("exit=125\nhost=n\npeer=0\ncause=never-started\nmessage=no image\n");
        let alone = ending(&job(JobState::Failed), std::slice::from_ref(&never), true);
        assert_eq!((alone.cause, alone.message.as_str()), (Cause::NeverStarted, "no image"));
        let ending = ending(&job(JobState::Failed), &[report(Some(0)), never], true);
        assert_eq!(ending.message, "node 1 (n) failed with code 125: no image");
        let mut good = Report::default();
        good.read("exit=0\ncause=exited\nseconds=1.5\ngit_commit=abc\nimage_digest=sha256:1\n");
        assert_eq!((good.seconds, good.git_commit.as_deref()), (Some(1.5), Some("abc")));
    }

    #[test]
    fn every_end_within_an_allocation_has_a_cause_and_silence_is_none_that_is_well() {
        for (status, report, cause) in [
            (ExitStatus::Exited(0), report(Some(0)), Cause::Exited(0)),
            (ExitStatus::Exited(9), report(Some(9)), Cause::Exited(9)),
            (ExitStatus::Exited(0), Report::default(), Cause::Unknown),
            (ExitStatus::Exited(125), Report::default(), Cause::NeverStarted),
            (ExitStatus::Signalled(9), report(None), Cause::Signalled(9)),
            (ExitStatus::TimedOut, report(None), Cause::TimedOut),
            (ExitStatus::Lost, report(None), Cause::Lost),
        ] {
            assert_eq!(within("7", status, &report, true).cause, cause, "{status:?}");
        }
    }

    #[test]
    fn a_node_s_file_is_read() {
        let mut report = Report::default();
        report.read("exit=3\nhost=node2\npeer=1\nnew=x\n");
        assert_eq!((report.exit, report.host.as_str(), report.peer, report.started), (Some(3), "node2", true, true));
    }
}
