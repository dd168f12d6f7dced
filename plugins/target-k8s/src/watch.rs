//! Follows a Job: its output as it comes, its state as it changes, its results when a pod has them, and what keeps it from
//! beginning for as long as that may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::kube::{self, JobState, LogEvent, ObjectRef, Snapshot};
use maddock_sdk::serde_json::{self, Value};
use maddock_sdk::target::Ending;
use maddock_sdk::types::{Error, ErrorKind, OutputStream};
use maddock_sdk::{Result, failed};

use crate::Handle;
use crate::objects::MODEL;
use crate::outcome::{self, GivenUp, Trouble};
use crate::results::{self, Bringing};

/// How long the last output is waited for at a time.
const WAIT_MS: u32 = 500;
/// How long one wait takes at most where nothing happens: for output while models run, else for another state.
const LONG_WAIT_MS: u32 = 5_000;
/// Pieces of output between two looks at the state.
const PIECES: u32 = 64;
/// How much later than its deadline the cluster may end a Job, in seconds; and between two questions whether it has.
const LATE: u64 = 90;
const ASKED: Duration = Duration::from_secs(10);
/// Waits for the last output, each as long as the one above.
const LAST_WAITS: u32 = 20;

/// What is told while a Job is followed.
pub struct Output {
    logs: Option<kube::Logs>,
    /// Pods of which all was told.
    ended: BTreeSet<String>,
    /// For each pod, whether its output has what may be a measurement.
    measures: BTreeMap<String, Measures>,
    complete: bool,
    /// What policy said of it, where it was that.
    refusal: Option<Error>,
}

/// What begins a measurement in a log; more than that is the kernel's to know.
const MEASUREMENTS: [&[u8]; 2] = [b"performance:", b"train_samples_per_second"];

/// Looks for the beginning of a measurement in output that comes in pieces.
#[derive(Debug, Default)]
pub struct Measures {
    found: bool,
    tail: Vec<u8>,
}

impl Measures {
    /// The next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.found {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let holds = |word: &&[u8]| self.tail.windows(word.len()).any(|window| window == *word);
        self.found = MEASUREMENTS.iter().any(holds);
        // What may be the beginning of a word that goes on in the next piece.
        let longest = MEASUREMENTS.iter().map(|word| word.len()).max().unwrap_or_default();
        self.tail.drain(..self.tail.len().saturating_sub(longest));
    }

    /// Whether there was one.
    #[must_use]
    pub fn found(&self) -> bool {
        self.found
    }
}

impl Output {
    /// All pods of a Job, from their beginning.
    #[must_use]
    pub fn of(handle: &Handle) -> Self {
        let mut output =
            Self { logs: None, ended: BTreeSet::new(), measures: BTreeMap::new(), complete: true, refusal: None };
        match kube::follow_logs(&handle.connection(), &handle.job, MODEL) {
            Ok(logs) => output.logs = Some(logs),
            Err(error) => output.broken(error),
        }
        output
    }

    fn broken(&mut self, error: Error) {
        let error = error.during("reading the pods' output");
        self.incomplete(&error.message);
        self.refusal = Some(error).filter(|error| error.kind == ErrorKind::Denied);
    }

    /// Why not all was told: a refusal is handed on as one.
    #[must_use]
    pub fn failure(self) -> Error {
        self.refusal.unwrap_or_else(|| failed("not all output of the pods could be read"))
    }

    fn incomplete(&mut self, why: &str) {
        if self.complete {
            events::log(Level::Warning, why, &[]);
        }
        self.complete = false;
    }

    /// Tells what is there, or comes within so many milliseconds; whether it waited in vain.
    pub fn tell(&mut self, wait: u32) -> bool {
        for piece in 0..PIECES {
            let Some(logs) = &self.logs else { return true };
            // What follows the first is there already, or has its turn the next time.
            match logs.next_event(if piece == 0 { wait } else { 0 }) {
                Ok(LogEvent::Chunk(chunk)) => {
                    self.measures.entry(chunk.pod).or_default().feed(&chunk.bytes);
                    events::output(chunk.index, OutputStream::Stdout, &chunk.bytes);
                }
                Ok(LogEvent::End(end)) => {
                    if !end.complete {
                        self.incomplete(&format!("not all output of pod {} could be read: {}", end.pod, end.reason));
                    }
                    self.ended.insert(end.pod);
                }
                Ok(LogEvent::Idle) => return piece == 0,
                Err(error) => {
                    self.logs = None;
                    self.broken(error);
                    return true;
                }
            }
        }
        false
    }

    /// Whether output may come any moment: a model runs, or what it wrote has not been told to its end.
    fn is_expected(&self, snapshot: &Snapshot) -> bool {
        let open = |pod: &kube::Pod| has_begun(pod) && !self.ended.contains(&pod.name);
        self.logs.is_some() && snapshot.pods.iter().any(open)
    }

    /// Tells what is still on its way, as far as it comes.
    pub fn finish(&mut self, snapshot: &Snapshot) {
        self.wait_for(snapshot, |output, pod| output.ended.contains(&pod.name));
        self.note_missing_ends(snapshot.pods.iter().filter(|pod| has_begun(pod)));
    }

    /// Tells what there is by now: all of models that have ended, and of those that run at least the beginning, if they have
    /// written any.
    pub fn so_far(&mut self, snapshot: &Snapshot) {
        let ended = |pod: &&kube::Pod| outcome::model(pod).is_some_and(outcome::has_ended);
        self.wait_for(snapshot, |output, pod| {
            output.ended.contains(&pod.name) || (!ended(&pod) && output.measures.contains_key(&pod.name))
        });
        while !self.tell(WAIT_MS) {}
        self.note_missing_ends(snapshot.pods.iter().filter(ended));
    }

    /// Tells output until all pods whose models have begun are `told`, or nothing has come for long enough.
    fn wait_for(&mut self, snapshot: &Snapshot, told: impl Fn(&Self, &kube::Pod) -> bool) {
        let mut waits = 0;
        let open = |output: &Self| snapshot.pods.iter().any(|pod| has_begun(pod) && !told(output, pod));
        while self.logs.is_some() && waits < LAST_WAITS && open(self) {
            waits = if self.tell(WAIT_MS) { waits.saturating_add(1) } else { waits };
        }
    }

    fn note_missing_ends<'a>(&mut self, mut expected: impl Iterator<Item = &'a kube::Pod>) {
        if let Some(pod) = expected.find(|pod| !self.ended.contains(&pod.name)) {
            let why = format!("the end of the output of pod {} did not come", pod.name);
            self.incomplete(&why);
        }
    }

    /// For each node, the earlier attempt whose measurement is in the same log as that of the last one.
    fn unclear(&self, snapshot: &Snapshot, nodes: u32) -> Vec<(u32, String)> {
        let measured = |pod: &&kube::Pod| self.measures.get(&pod.name).is_some_and(Measures::found);
        let of_node = |node: u32| {
            let last = outcome::newest(snapshot, node)?;
            let earlier = snapshot.pods.iter().filter(|pod| pod.index == node && pod.name != last.name);
            earlier.filter(measured).min_by_key(|pod| &pod.created).map(|pod| (node, pod.name.clone()))
        };
        (0..nodes).filter_map(of_node).collect()
    }

    /// Whether all was told.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

fn has_begun(pod: &kube::Pod) -> bool {
    outcome::model(pod).is_some_and(|container| !container.started.is_empty())
}

/// How long what keeps a job from beginning has lasted.
#[derive(Debug, Default)]
pub struct Patience {
    since: Option<(bool, Instant)>,
}

impl Patience {
    /// Whether it has lasted too long. Another kind of trouble is another wait.
    pub fn is_over(&mut self, trouble: Option<&Trouble>, handle: &Handle, now: Instant) -> bool {
        let Some(trouble) = trouble else {
            self.since = None;
            return false;
        };
        let (kind, limit) = match trouble {
            Trouble::CannotStart(_, true) => (true, Some(0)),
            Trouble::CannotStart(_, false) => (true, Some(handle.start_timeout)),
            Trouble::Unplaced(_) => (false, handle.queue_timeout),
        };
        let since = match self.since {
            Some((known, since)) if known == kind => since,
            _ => now,
        };
        self.since = Some((kind, since));
        limit.is_some_and(|limit| now.saturating_duration_since(since) >= Duration::from_secs(limit))
    }
}

/// Whether a Job should have ended long ago. The cluster is who ends it, and not every cluster does.
#[derive(Debug)]
pub struct Deadline {
    limit: Option<Duration>,
    /// None while the Job is suspended: then its time does not count.
    since: Option<Instant>,
    next: Option<Instant>,
}

impl Deadline {
    /// Counts from now: one that attends a Job later waits longer, and not for ever.
    #[must_use]
    pub fn of(handle: &Handle) -> Self {
        let limit = handle.deadline.map(|seconds| Duration::from_secs(seconds.saturating_add(LATE)));
        Self { limit, since: None, next: None }
    }

    /// Whether it is time to ask the cluster why the Job has not ended.
    pub fn is_over(&mut self, suspended: bool, now: Instant) -> bool {
        if suspended {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let over = self.limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit);
        if !over || self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = now.checked_add(ASKED);
        true
    }
}

/// Whether the server, asked now, says that a Job goes on. One that is away says nothing, and is waited for.
fn goes_on(handle: &Handle) -> bool {
    let job = ObjectRef { kind: "Job".to_owned(), name: handle.job.clone() };
    let Ok(Some(text)) = kube::get(&handle.connection(), &job) else { return false };
    serde_json::from_str(&text).is_ok_and(|job| !has_condition(&job))
}

/// Whether it has ended, by its conditions.
fn has_condition(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let ends = |condition: &Value| {
        let is = |key: &str, word: &str| condition.get(key).and_then(Value::as_str) == Some(word);
        is("status", "True") && (is("type", "Complete") || is("type", "Failed"))
    };
    conditions.is_some_and(|conditions| conditions.iter().any(ends))
}

/// What is told of a Job while it is followed, each thing once.
#[derive(Debug, Default)]
struct Told {
    state: String,
    replaced: BTreeSet<String>,
    not_ready: bool,
}

impl Told {
    fn tell(&mut self, news: &Snapshot, nodes: u32) {
        let standing = outcome::standing(news, nodes);
        let text = format!("{:?} {}", standing.phase, standing.reason);
        if text != self.state {
            events::state(standing.phase, &standing.reason);
            self.state = text;
        }
        for (pod, successor) in outcome::replaced(news) {
            if self.replaced.insert(pod.name.clone()) {
                let text = format!(
                    "pod {} was taken away from {} while it ran: the cluster begins anew with {}",
                    pod.name, pod.node_name, successor.name
                );
                events::log(Level::Warning, &text, &[]);
            }
        }
        let warning = news.warnings.iter().find(|warning| warning.name == outcome::NODE_NOT_READY);
        if let Some(warning) = warning.filter(|_| !self.not_ready) {
            self.not_ready = true;
            events::log(
                Level::Warning,
                &format!("{} does not answer: {}", outcome::where_it_runs(news), warning.value),
                &[],
            );
        }
    }
}

/// Follows a Job to its end.
///
/// # Errors
/// The cluster refuses, or the Job is none of this run.
pub fn follow(handle: &Handle) -> Result<Ending> {
    let mut output = Output::of(handle);
    let mut patience = Patience::default();
    let mut deadline = Deadline::of(handle);
    let mut told = Told::default();
    let mut bringing = Bringing::default();
    let mut last: Option<Snapshot> = None;
    let given_up = loop {
        let seen = last.as_ref().map_or(0, |snapshot| snapshot.change);
        // One thing is waited for at a time: output where there is any, which also ends when a model does.
        let by_output = last.as_ref().is_some_and(|last| output.is_expected(last));
        let wait = if by_output { 0 } else { LONG_WAIT_MS };
        if let Some(news) = kube::next_change(&handle.connection(), &handle.job, seen, wait)? {
            told.tell(&news, handle.nodes);
            let over = outcome::is_over(&news);
            last = Some(news);
            if over {
                break None;
            }
        }
        if let Some(last) = &last {
            bringing.attempt(handle, &last.pods);
        }
        output.tell(if by_output { LONG_WAIT_MS } else { 0 });
        let now = Instant::now();
        let standing = last.as_ref().map(|snapshot| outcome::standing(snapshot, handle.nodes));
        let trouble = standing.and_then(|standing| standing.trouble);
        if patience.is_over(trouble.as_ref(), handle, now) {
            break trouble.map(GivenUp::Trouble);
        }
        let suspended = last.as_ref().is_some_and(|snapshot| matches!(snapshot.state, JobState::Suspended));
        if last.is_some() && deadline.is_over(suspended, now) && goes_on(handle) {
            break handle.deadline.map(GivenUp::Overdue);
        }
    };
    if let Some(given_up) = &given_up {
        events::state(Phase::Finishing, &format!("given up: {}", given_up.reason()));
    }
    let Some(last) = last else { return Err(failed(format!("nothing is known about Job {}", handle.job))) };
    output.finish(&last);
    for (node, pod) in output.unclear(&last, handle.nodes) {
        results::note_unclear(handle, node, &pod)?;
    }
    Ok(outcome::ending(&handle.job, &last, handle.nodes, handle.ttl, given_up.as_ref(), output.is_complete()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_measurement_is_found_wherever_the_output_is_cut() {
        for text in ["x\nperformance: 5 u\n", "'train_samples_per_second': 7", "performance:"] {
            for cut in 0..text.len() {
                let mut measures = Measures::default();
                measures.feed(&text.as_bytes()[..cut]);
                measures.feed(&text.as_bytes()[cut..]);
                assert!(measures.found(), "{text} cut at {cut}");
            }
        }
        let mut measures = Measures::default();
        for _ in 0..1000 {
            measures.feed(b"performance is good, train_samples_per second ");
        }
        assert!(!measures.found() && measures.tail.len() < 100);
    }

    fn due(deadline: Option<u64>) -> Deadline {
        Deadline { limit: deadline.map(|seconds| Duration::from_secs(seconds + LATE)), since: None, next: None }
    }

    #[test]
    fn a_cluster_that_is_late_is_asked_again_and_again_and_one_that_is_not_never() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut deadline = due(Some(100));
        let asked: Vec<u64> = (0..=250).filter(|&second| deadline.is_over(false, at(second))).collect();
        assert_eq!(asked, [190, 200, 210, 220, 230, 240, 250]);
        let mut none = due(None);
        assert!(!(0..=250).any(|second| none.is_over(false, at(second * 1000))));
    }

    #[test]
    fn the_time_of_a_suspended_job_does_not_count() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut deadline = due(Some(100));
        assert!((0..=500).all(|second| !deadline.is_over(second >= 100, at(second))));
        assert!((501..=690).all(|second| !deadline.is_over(false, at(second))));
        assert!(deadline.is_over(false, at(691)));
    }

    #[test]
    fn a_job_has_ended_by_a_condition_that_is_true() {
        for (kind, status, ended) in [
            ("Complete", "True", true),
            ("Failed", "True", true),
            ("Failed", "False", false),
            ("Suspended", "True", false),
            ("FailureTarget", "True", false),
        ] {
            let job = serde_json::json!({"status": {"conditions": [{"type": kind, "status": status}]}});
            assert_eq!(has_condition(&job), ended, "{kind} {status}");
        }
        assert!(!has_condition(&serde_json::json!({})));
    }
}
