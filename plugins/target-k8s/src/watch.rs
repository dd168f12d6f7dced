//! Follows a Job: its output as it comes, its state as it changes, its results when a pod has them, and what keeps it from
//! beginning for as long as that may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use maddock_sdk::events::{self, Level};
use maddock_sdk::kube::{self, LogEvent, Snapshot};
use maddock_sdk::target::Ending;
use maddock_sdk::types::OutputStream;
use maddock_sdk::{Result, failed};

use crate::Handle;
use crate::objects::MODEL;
use crate::outcome::{self, Trouble};
use crate::results;

/// How long one wait for output takes at most; the state is looked at in between.
const WAIT_MS: u32 = 500;
/// Pieces of output between two looks at the state.
const PIECES: u32 = 64;
/// Waits for the last output, each as long as the one above.
const LAST_WAITS: u32 = 20;

/// What is told while a Job is followed.
pub struct Output {
    logs: Option<kube::Logs>,
    /// Pods of which all was told.
    ended: BTreeSet<String>,
    complete: bool,
}

impl Output {
    /// All pods of a Job, from their beginning.
    #[must_use]
    pub fn of(handle: &Handle) -> Self {
        let mut output = Self { logs: None, ended: BTreeSet::new(), complete: true };
        match kube::follow_logs(&handle.connection(), &handle.job, MODEL) {
            Ok(logs) => output.logs = Some(logs),
            Err(error) => output.incomplete(&error.during("reading the pods' output").message),
        }
        output
    }

    fn incomplete(&mut self, why: &str) {
        if self.complete {
            events::log(Level::Warning, why, &[]);
        }
        self.complete = false;
    }

    /// Tells what is there; whether it waited in vain.
    pub fn tell(&mut self) -> bool {
        for _ in 0..PIECES {
            let Some(logs) = &self.logs else { return true };
            match logs.next_event(WAIT_MS) {
                Ok(LogEvent::Chunk(chunk)) => events::output(chunk.index, OutputStream::Stdout, &chunk.bytes),
                Ok(LogEvent::End(end)) => {
                    if !end.complete {
                        self.incomplete(&format!("not all output of pod {} could be read: {}", end.pod, end.reason));
                    }
                    self.ended.insert(end.pod);
                }
                Ok(LogEvent::Idle) => return true,
                Err(error) => {
                    self.logs = None;
                    self.incomplete(&error.during("reading the pods' output").message);
                    return true;
                }
            }
        }
        false
    }

    /// Tells what is still on its way, as far as it comes.
    pub fn finish(&mut self, snapshot: Option<&Snapshot>) {
        let began = |pod: &&kube::Pod| outcome::model(pod).is_some_and(|container| !container.started.is_empty());
        let expected: Vec<&str> =
            snapshot.iter().flat_map(|seen| seen.pods.iter().filter(began)).map(|pod| pod.name.as_str()).collect();
        let mut waits = 0;
        while self.logs.is_some() && waits < LAST_WAITS && !expected.iter().all(|pod| self.ended.contains(*pod)) {
            waits = if self.tell() { waits.saturating_add(1) } else { waits };
        }
        if let Some(pod) = expected.iter().find(|pod| !self.ended.contains(**pod)) {
            self.incomplete(&format!("the end of the output of pod {pod} did not come"));
        }
    }

    /// Whether all was told.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
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

/// Follows a Job to its end.
///
/// # Errors
/// The cluster refuses, or the Job is none of this run.
pub fn follow(handle: &Handle) -> Result<Ending> {
    let mut output = Output::of(handle);
    let mut patience = Patience::default();
    let mut told = String::new();
    let mut tried: BTreeMap<String, bool> = BTreeMap::new();
    let mut last: Option<Snapshot> = None;
    let given_up = loop {
        let seen = last.as_ref().map_or(0, |snapshot| snapshot.change);
        let wait = if output.logs.is_some() { 0 } else { WAIT_MS };
        if let Some(news) = kube::next_change(&handle.connection(), &handle.job, seen, wait)? {
            let standing = outcome::standing(&news, handle.nodes);
            let text = format!("{:?} {}", standing.phase, standing.reason);
            if text != told {
                events::state(standing.phase, &standing.reason);
                told = text;
            }
            for pod in news.pods.iter().filter(|pod| results::wait(pod)) {
                if !tried.contains_key(&pod.name) {
                    let brought = results::bring(handle, pod);
                    if let Err(error) = &brought {
                        events::log(Level::Warning, &format!("pod {}: {}", pod.name, error.message), &[]);
                    }
                    tried.insert(pod.name.clone(), brought.is_ok());
                }
            }
            let over = outcome::is_over(&news);
            last = Some(news);
            if over {
                break None;
            }
        }
        output.tell();
        let standing = last.as_ref().map(|snapshot| outcome::standing(snapshot, handle.nodes));
        let trouble = standing.and_then(|standing| standing.trouble);
        if patience.is_over(trouble.as_ref(), handle, Instant::now()) {
            break trouble;
        }
    };
    let Some(last) = last else { return Err(failed(format!("nothing is known about Job {}", handle.job))) };
    output.finish(Some(&last));
    Ok(outcome::ending(&handle.job, &last, handle.nodes, given_up.as_ref(), output.is_complete()))
}
