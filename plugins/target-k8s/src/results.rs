//! What a pod has left: brought to the job's directory while the pod still waits for that, and read from there afterwards.
//!
//! A pod's outcome needs no access to it: it is the container's last words, which the cluster keeps. Files do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use maddock_sdk::events::{self, Level};
use maddock_sdk::kube::{self, Pod};
use maddock_sdk::target::CollectedFile;
use maddock_sdk::types::{Error, ErrorKind};
use maddock_sdk::{Result, failed, files};

use crate::Handle;
use crate::objects::{self, KEEPER};
use crate::outcome;
use crate::script::{self, Word};

/// Waits for the pod that holds a claim, and how long each is.
const HELD_WAITS: u32 = 60;
const HELD_WAIT_MS: u32 = 1000;
/// Between two tries to bring a pod's files, at first and at most.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Tries for what may be of its container: what is of the way to it is tried for as long as the pod waits.
const TRIES: u32 = 3;
/// A note of ours is a line.
const NOTE_LIMIT: u64 = 64 << 10;

/// The directory of what came from one node.
fn directory(handle: &Handle, index: u32) -> String {
    format!("{}/nodes/{index}", handle.directory)
}

fn note(handle: &Handle, index: u32, name: &str) -> Option<String> {
    let bytes = files::read(&format!("{}/{name}", directory(handle, index)), NOTE_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_note(handle: &Handle, index: u32, name: &str, text: &str) -> Result<()> {
    files::write(&format!("{}/{name}", directory(handle, index)), text.as_bytes(), 0o644)
}

/// Notes that an earlier attempt of a node wrote a measurement, too: the log does not say which is the job's.
///
/// # Errors
/// It cannot be written.
pub fn note_unclear(handle: &Handle, index: u32, pod: &str) -> Result<()> {
    write_note(handle, index, "unclear", pod)
}

/// Why what the job's log holds is no measurement, where it is none.
#[must_use]
pub fn unclear(handle: &Handle) -> Option<String> {
    let pod = (0..handle.nodes).find_map(|index| note(handle, index, "unclear"))?;
    Some(format!(
        "pod {} wrote a measurement, failed, and was run again: which attempt the log's is of is not clear; \
         leave `k8s.backoff_limit` at 0, or name the model's results file by `multiple_results`",
        pod.trim()
    ))
}

/// Whether a pod's model has ended and its results wait.
#[must_use]
pub fn wait(pod: &Pod) -> bool {
    outcome::model(pod).is_some_and(outcome::has_ended) && keeps(pod)
}

/// Whether a pod has what keeps its results.
fn keeps(pod: &Pod) -> bool {
    let kept = pod.containers.iter().any(|container| container.name == KEEPER && container.state == "running");
    kept && !pod.deleted
}

fn say(handle: &Handle, pod: &Pod, word: Word) -> Result<()> {
    kube::exec(&handle.connection(), &pod.name, KEEPER, &["touch".to_owned(), word.file()]).map(|_| ())
}

/// How it went to bring a pod's files so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// They are here, or never will be.
    Settled,
    /// Not yet: from when on it is tried again, how often it was, and the pause before that.
    Again(Instant, u32, Duration),
}

/// Brings the files of a job's pods, as their models end. One that fails leaves them in the pod, and is tried again.
#[derive(Debug, Default)]
pub struct Bringing {
    held: BTreeSet<String>,
    tried: BTreeMap<String, Tried>,
}

impl Bringing {
    /// Brings what waits and is due.
    pub fn attempt(&mut self, handle: &Handle, pods: &[Pod]) {
        let now = Instant::now();
        let due: Vec<&Pod> = pods.iter().filter(|pod| wait(pod) && self.is_due(&pod.name, now)).collect();
        if due.is_empty() {
            return;
        }
        // Nobody knows how long the first takes: the others, and the first itself, do not count the time meanwhile.
        for pod in pods.iter().filter(|pod| keeps(pod)) {
            if !self.held.contains(&pod.name) && say(handle, pod, Word::Held).is_ok() {
                self.held.insert(pod.name.clone());
            }
        }
        for pod in due {
            let brought = bring(handle, pod);
            let again = self.note(&pod.name, brought.as_ref().err(), Instant::now());
            let Err(error) = brought else { continue };
            let what = if again { "it is tried again" } else { "it is not tried again" };
            events::log(Level::Warning, &format!("pod {}: {}; {what}", pod.name, error.message), &[]);
            if !again {
                // It goes by itself, as if nobody had been here.
                let _ = say(handle, pod, Word::LetGo);
            }
        }
    }

    /// Whether there is a pod that is to be tried again.
    #[must_use]
    pub fn is_unsettled(&self, pods: &[Pod]) -> bool {
        let unsettled = |pod: &&Pod| self.tried.get(&pod.name).is_none_or(|tried| *tried != Tried::Settled);
        pods.iter().filter(|pod| wait(pod)).any(|pod| unsettled(&pod))
    }

    fn is_due(&self, pod: &str, now: Instant) -> bool {
        match self.tried.get(pod) {
            None => true,
            Some(Tried::Settled) => false,
            Some(Tried::Again(from, ..)) => now >= *from,
        }
    }

    /// Notes how it went; whether it is tried again.
    fn note(&mut self, pod: &str, error: Option<&Error>, now: Instant) -> bool {
        let (tries, pause) = match self.tried.get(pod) {
            Some(Tried::Again(_, tries, pause)) => (tries.saturating_add(1), pause.saturating_mul(2)),
            Some(Tried::Settled) | None => (1, PAUSE),
        };
        let pause = pause.min(LONGEST_PAUSE);
        let again = error.is_some_and(|error| match error.kind {
            ErrorKind::Unavailable | ErrorKind::TimedOut => true,
            ErrorKind::Failed => !is_forbidden(error) && tries < TRIES,
            _ => false,
        });
        let tried = match now.checked_add(pause).filter(|_| again) {
            Some(from) => Tried::Again(from, tries, pause),
            None => Tried::Settled,
        };
        self.tried.insert(pod.to_owned(), tried);
        tried != Tried::Settled
    }
}

/// Brings a pod's files, and tells it that nothing keeps it any longer. Where they did not come, the pod keeps them.
///
/// # Errors
/// They cannot be brought; the reason is noted, too, for whoever collects.
fn bring(handle: &Handle, pod: &Pod) -> Result<()> {
    let source = script::results_directory(&handle.job, pod.index);
    let destination = format!("{}/{}", directory(handle, pod.index), pod.name);
    let brought = kube::copy_out(&handle.connection(), &pod.name, KEEPER, &source, &destination);
    if let Err(error) = brought {
        write_note(handle, pod.index, "problem", &explain(&error))?;
        return Err(error.during("bringing results"));
    }
    write_note(handle, pod.index, "pod", &pod.name)?;
    if let Err(error) = say(handle, pod, Word::Fetched) {
        // The files are here. One that is not told ends by itself, later.
        let why = format!("pod {}: letting it go: {}", pod.name, error.message);
        events::log(Level::Warning, &why, &[]);
    }
    Ok(())
}

/// Brings what nobody fetched from these nodes' pods, from the claim that it lies on.
///
/// # Errors
/// The claim cannot be held, or not be read.
pub fn bring_from_claim(handle: &Handle, nodes: &[u32]) -> Result<()> {
    let Some(collector) = &handle.collector else { return Ok(()) };
    let connection = handle.connection();
    let held = kube::create(&connection, std::slice::from_ref(collector))?;
    let brought = held_pod(handle).and_then(|pod| {
        each(nodes, |index| {
            let source = script::results_directory(&handle.job, index);
            let destination = format!("{}/claim", directory(handle, index));
            let copied = kube::copy_out(&connection, &pod, KEEPER, &source, &destination);
            if let Err(error) = &copied {
                write_note(handle, index, "problem", &explain(error))?;
            }
            copied.map_err(|error| error.during(&format!("node {index}")))?;
            write_note(handle, index, "pod", "claim")
        })
    });
    for object in &held {
        kube::delete(&connection, object)?;
    }
    brought
}

/// Does something for every node, whatever becomes of the others; the first error is told.
fn each(nodes: &[u32], act: impl FnMut(u32) -> Result<()>) -> Result<()> {
    let results: Vec<Result<()>> = nodes.iter().copied().map(act).collect();
    results.into_iter().collect()
}

/// The pod that holds the claim, once it runs.
fn held_pod(handle: &Handle) -> Result<String> {
    let name = objects::collector_name(&handle.job);
    let mut seen = 0;
    for _ in 0..HELD_WAITS {
        let Some(news) = kube::next_change(&handle.connection(), &name, seen, HELD_WAIT_MS)? else { continue };
        seen = news.change;
        let runs = |pod: &&Pod| pod.containers.iter().any(|container| container.state == "running") && !pod.deleted;
        if let Some(pod) = news.pods.iter().find(runs) {
            return Ok(pod.name.clone());
        }
        if outcome::is_over(&news) {
            break;
        }
    }
    Err(failed(format!("the pod of Job {name}, which holds the claim with the results, did not begin")))
}

fn is_forbidden(error: &Error) -> bool {
    error.details.iter().any(|detail| detail.name == "reason" && detail.value == "Forbidden")
}

fn explain(error: &Error) -> String {
    let needed = if is_forbidden(error) { "; the account needs `create` on `pods/exec`" } else { "" };
    format!("{}{needed}", error.message)
}

/// The files that came from one node.
///
/// # Errors
/// They cannot be listed.
pub fn brought(handle: &Handle, index: u32) -> Result<Vec<CollectedFile>> {
    let mut found = Vec::new();
    if let Some(pod) = note(handle, index, "pod") {
        let root = format!("{}/{}", directory(handle, index), pod.trim());
        list(&root, "", index, &mut found)?;
    }
    Ok(found)
}

/// Whether anything came from a node: of this pod of it, where one is named.
#[must_use]
pub fn has_come(handle: &Handle, index: u32, pod: Option<&Pod>) -> bool {
    note(handle, index, "pod")
        .is_some_and(|name| pod.is_none_or(|pod| matches!(name.trim(), known if known == pod.name || known == "claim")))
}

/// Why nothing came from a node, where that is known.
#[must_use]
pub fn problem(handle: &Handle, index: u32) -> Option<String> {
    note(handle, index, "problem")
}

fn list(root: &str, below: &str, node: u32, into: &mut Vec<CollectedFile>) -> Result<()> {
    let path = if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") };
    if files::stat(&path)?.is_none() {
        return Ok(());
    }
    for entry in files::list_directory(&path)? {
        let name = if below.is_empty() { entry.name } else { format!("{below}/{}", entry.name) };
        match entry.kind {
            files::FileKind::Directory => list(root, &name, node, into)?,
            files::FileKind::File => into.push(CollectedFile { node, path: format!("{root}/{name}"), name }),
            files::FileKind::Other => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error { kind, message: String::new(), hint: None, details: Vec::new() }
    }

    #[test]
    fn what_could_not_be_brought_is_tried_again_while_that_may_help() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut bringing = Bringing::default();
        assert!(bringing.is_due("p", at(0)));
        // A server that is away is waited for, with pauses that grow.
        let mut tries = Vec::new();
        for second in 0..150 {
            if bringing.is_due("p", at(second)) {
                tries.push(second);
                assert!(bringing.note("p", Some(&error(ErrorKind::Unavailable)), at(second)));
            }
        }
        assert_eq!(tries, [0, 2, 6, 14, 30, 60, 90, 120]);
        assert!(!bringing.note("p", None, at(150)), "it came");
        assert!(!bringing.is_due("p", at(1000)));
        // What the pod itself says is tried a few times, and what nobody will ever be allowed not at all.
        for (kind, expected) in [(ErrorKind::Failed, 3), (ErrorKind::Denied, 1), (ErrorKind::NotFound, 1)] {
            let mut bringing = Bringing::default();
            let tries = (0..1000).filter(|second| {
                let due = bringing.is_due("p", at(*second));
                due && {
                    bringing.note("p", Some(&error(kind.clone())), at(*second));
                    true
                }
            });
            assert_eq!(tries.count(), expected, "{kind:?}");
        }
        let reason = maddock_sdk::types::Entry { name: "reason".into(), value: "Forbidden".into() };
        let forbidden = Error { details: vec![reason], ..error(ErrorKind::Failed) };
        assert!(!Bringing::default().note("p", Some(&forbidden), at(0)));
    }

    #[test]
    fn a_node_whose_files_cannot_be_brought_costs_no_other_its_own() {
        let mut asked = Vec::new();
        let result = each(&[0, 1, 2], |node| {
            asked.push(node);
            if node == 0 { Err(error(ErrorKind::NotFound)) } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(asked, [0, 1, 2]);
    }
}
