//! One watch for all Jobs of a run in a namespace, however many ask: Jobs, their pods and the warnings about both are kept up
//! with, and a snapshot is made of them when somebody wants it.
//!
//! What is told is the state, not what led to it: a caller that was busy misses nothing that still holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::batch::v1;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::Api;
use maddock_bindings::api::kube::{self as wit, JobState, Snapshot};
use maddock_bindings::api::types::Entry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cluster::Client;
use super::object::Kind;
use super::owner::RUN;
use super::reflect::{self, Heard, Selection};
use super::view::{self, JobView};
use super::{act, trouble};
use crate::capability::ApiError;

/// For an API server that does not answer. It is as long as for any other scheduler.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// For one that refuses what it allowed before: rules and tokens are changed in several steps.
const GRACE: Duration = Duration::from_secs(60);
/// Pods that are gone and still listed, of each Job.
const REMEMBERED: usize = 256;
/// Warnings that are kept, of objects that may not be known yet.
const WARNINGS: usize = 4096;

/// How the watches of Jobs and pods stand, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stream {
    Jobs,
    Pods,
}

/// A watch that runs for as long as this lives.
pub(super) struct Watch {
    state: Arc<State>,
    // Ends with the watch.
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    run: String,
    patience: Duration,
    known: Mutex<Known>,
    /// Counts what was heard; whoever waits looks again.
    turns: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    jobs: BTreeMap<String, Tracked>,
    /// The Job of each Job and pod that is known, by identity.
    names: BTreeMap<String, String>,
    warnings: BTreeMap<String, Warning>,
    synced: BTreeSet<Stream>,
    away: BTreeMap<Stream, Away>,
}

#[derive(Debug, Default)]
struct Tracked {
    /// The Job's, and so that of the pods which count.
    uid: String,
    job: Option<JobView>,
    /// It had ended, and is not there any more.
    gone: bool,
    /// By identity; the second is that of their Job.
    pods: BTreeMap<String, Seen>,
    change: u64,
    told: Option<Snapshot>,
}

#[derive(Debug, Clone)]
struct Seen {
    pod: wit::Pod,
    job: String,
    /// Its containers are not started anew.
    once: bool,
    gone: bool,
}

#[derive(Debug, Clone)]
struct Warning {
    at: Option<k8s_openapi::jiff::Timestamp>,
    entry: Entry,
}

#[derive(Debug, Clone)]
struct Away {
    since: Instant,
    trouble: ApiError,
}

/// How a container of a pod stands, for those who read its output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pub(super) started: bool,
    pub(super) running: bool,
    pub(super) restarts: u32,
    /// Nothing starts in it any more.
    pub(super) over: bool,
    pub(super) gone: bool,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn begin(client: &Client, run: &str) -> Self {
        Self::with(client, run, PATIENCE)
    }

    fn with(client: &Client, run: &str, patience: Duration) -> Self {
        let (turns, _) = watch::channel(0);
        let state = Arc::new(State { run: run.to_owned(), patience, known: Mutex::default(), turns });
        let mut tasks = JoinSet::new();
        let ours = Selection { labels: Some(format!("{RUN}={run}")), fields: None };
        let namespace = &client.place.namespace;
        let jobs: Api<v1::Job> = Api::namespaced(client.api.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.api.clone(), namespace);
        let events: Api<Event> = Api::namespaced(client.api.clone(), namespace);
        let (selection, weak) = (ours.clone(), Arc::downgrade(&state));
        tasks.spawn(async move {
            let tell = |heard| with(&weak, |known| known.jobs(heard));
            reflect::follow("cannot watch the run's Jobs", jobs, selection, tell).await;
        });
        let weak = Arc::downgrade(&state);
        tasks.spawn(async move {
            let tell = |heard| with(&weak, |known| known.pods(heard));
            reflect::follow("cannot watch the run's pods", pods, ours, tell).await;
        });
        let weak = Arc::downgrade(&state);
        let warnings = Selection { labels: None, fields: Some("type=Warning".to_owned()) };
        tasks.spawn(async move {
            let tell = |heard| with(&weak, |known| known.events(heard));
            reflect::follow("cannot watch for warnings", events, warnings, tell).await;
        });
        Self { state, _tasks: tasks }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.known()
    }

    /// Waits until a Job is not as it was seen.
    pub(super) async fn next_change(
        &self,
        client: &Client,
        job: &str,
        seen: u64,
        timeout: Duration,
    ) -> Result<Option<Snapshot>, ApiError> {
        let until = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
        let mut turns = self.state.turns.subscribe();
        let mut looked = false;
        loop {
            turns.borrow_and_update();
            let (snapshot, unknown) = {
                let mut known = self.known();
                known.refused()?;
                (known.snapshot(job, self.state.patience), known.is_synced() && !known.has(job))
            };
            if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.change != seen) {
                return Ok(Some(snapshot));
            }
            // A Job that was made a moment ago comes by the watch; one that is not there, or is not ours, never does.
            if unknown && !looked {
                looked = true;
                self.look_for(client, job).await?;
                continue;
            }
            match tokio::time::timeout_at(until, turns.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    async fn look_for(&self, client: &Client, job: &str) -> Result<(), ApiError> {
        match act::metadata(client, Kind::Job, job).await {
            Ok(Some(found)) => act::owned(Kind::Job, job, &found, &self.state.run).map(|_| ()),
            Ok(None) => {
                let mut known = self.known();
                let tracked = known.jobs.entry(job.to_owned()).or_default();
                tracked.job.get_or_insert_with(gone);
                Ok(())
            }
            Err(passing) if trouble::may_pass(&passing) => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// A Job is about to be made: what is known of an earlier one of that name says nothing about it.
    pub(super) fn expect(&self, job: &str) {
        let mut known = self.known();
        if let Some(tracked) = known.jobs.get_mut(job) {
            let change = tracked.change;
            *tracked = Tracked { change, ..Tracked::default() };
        }
    }

    /// Tells when something was heard.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.state.turns.subscribe()
    }

    /// The pods of a Job: identity, name and index.
    pub(super) fn pods(&self, job: &str) -> Vec<(String, String, u32)> {
        let known = self.known();
        let Some(tracked) = known.jobs.get(job) else { return Vec::new() };
        tracked.own().map(|seen| (seen.pod.uid.clone(), seen.pod.name.clone(), seen.pod.index)).collect()
    }

    /// How a container stands.
    pub(super) fn standing(&self, job: &str, pod: &str, container: &str) -> Standing {
        let known = self.known();
        let Some(seen) = known.jobs.get(job).and_then(|tracked| tracked.pods.get(pod)) else {
            return Standing { over: true, gone: true, ..Standing::default() };
        };
        let found = seen.pod.containers.iter().find(|found| found.name == container);
        let state = found.map_or("", |found| found.state.as_str());
        let restarts = found.map_or(0, |found| found.restarts);
        let ended = matches!(seen.pod.phase.as_str(), "Succeeded" | "Failed");
        Standing {
            started: matches!(state, "running" | "terminated") || restarts > 0,
            running: state == "running" && !seen.gone,
            restarts,
            over: seen.gone || ended || (seen.once && state == "terminated"),
            gone: seen.gone,
        }
    }
}

impl State {
    fn known(&self) -> MutexGuard<'_, Known> {
        // What is kept here is whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note of something; false: nobody wants to know any more.
fn with(weak: &Weak<State>, note: impl FnOnce(&mut Known)) -> bool {
    let Some(state) = weak.upgrade() else { return false };
    note(&mut state.known());
    state.turns.send_modify(|turn| *turn = turn.wrapping_add(1));
    true
}

fn gone() -> JobView {
    JobView { state: JobState::Gone, active: 0, succeeded: 0, failed: 0 }
}

impl Tracked {
    /// It is not there any more.
    fn lose(&mut self) {
        match &self.job {
            Some(job) if job.has_ended() => self.gone = true,
            Some(_) => self.job = Some(gone()),
            None => {}
        }
    }

    /// The Job, as it is to be told. A cluster may take it away as soon as it has ended: its end is told before.
    fn view(&self) -> Option<JobView> {
        let told =
            |snapshot: &Snapshot| matches!(snapshot.state, JobState::Complete | JobState::Failed(_) | JobState::Gone);
        if self.gone && self.told.as_ref().is_some_and(told) { Some(gone()) } else { self.job.clone() }
    }

    fn own(&self) -> impl Iterator<Item = &Seen> {
        self.pods.values().filter(|seen| self.uid.is_empty() || seen.job == self.uid)
    }
}

impl Known {
    fn is_synced(&self) -> bool {
        self.synced.contains(&Stream::Jobs) && self.synced.contains(&Stream::Pods)
    }

    fn has(&self, job: &str) -> bool {
        self.jobs.get(job).is_some_and(|tracked| tracked.job.is_some())
    }

    fn trouble(&mut self, stream: Stream, trouble: ApiError) {
        self.away
            .entry(stream)
            .and_modify(|away| away.trouble = trouble.clone())
            .or_insert_with(|| Away { since: Instant::now(), trouble });
    }

    /// What does not get better by waiting.
    fn refused(&self) -> Result<(), ApiError> {
        let lasting = self.away.iter().find(|(stream, away)| {
            !trouble::may_pass(&away.trouble) && (!self.synced.contains(stream) || away.since.elapsed() >= GRACE)
        });
        lasting.map_or(Ok(()), |(_, away)| Err(away.trouble.clone()))
    }

    fn jobs(&mut self, heard: Heard<v1::Job>) {
        match heard {
            Heard::All(all) => {
                let there: BTreeSet<String> = all.iter().filter_map(|job| job.metadata.name.clone()).collect();
                for (_, tracked) in self.jobs.iter_mut().filter(|(name, _)| !there.contains(*name)) {
                    tracked.lose();
                }
                all.into_iter().for_each(|job| self.job(job));
                self.synced.insert(Stream::Jobs);
                self.away.remove(&Stream::Jobs);
            }
            Heard::Changed(job) => self.job(job),
            Heard::Gone(job) => {
                let last = view::job(&job);
                let tracked = self.jobs.entry(job.metadata.name.unwrap_or_default()).or_default();
                // Another of that name may have come in its place.
                if job.metadata.uid.as_ref() == Some(&tracked.uid) {
                    // What it was like when it went may be its end, which nobody has heard of before.
                    tracked.job = Some(last);
                    tracked.lose();
                }
            }
            Heard::Back => {
                self.away.remove(&Stream::Jobs);
            }
            Heard::Trouble(trouble) => self.trouble(Stream::Jobs, trouble),
        }
    }

    fn job(&mut self, job: v1::Job) {
        let view = view::job(&job);
        let (name, uid) = (job.metadata.name.unwrap_or_default(), job.metadata.uid.unwrap_or_default());
        self.names.insert(uid.clone(), name.clone());
        let tracked = self.jobs.entry(name).or_default();
        tracked.uid = uid;
        tracked.job = Some(view);
        tracked.gone = false;
    }

    fn pods(&mut self, heard: Heard<Pod>) {
        match heard {
            Heard::All(all) => {
                let there: BTreeSet<String> = all.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
                for tracked in self.jobs.values_mut() {
                    for (_, seen) in tracked.pods.iter_mut().filter(|(uid, _)| !there.contains(*uid)) {
                        seen.lose();
                    }
                }
                all.into_iter().for_each(|pod| self.pod(&pod, false));
                self.synced.insert(Stream::Pods);
                self.away.remove(&Stream::Pods);
            }
            Heard::Changed(pod) => self.pod(&pod, false),
            Heard::Gone(pod) => self.pod(&pod, true),
            Heard::Back => {
                self.away.remove(&Stream::Pods);
            }
            Heard::Trouble(trouble) => self.trouble(Stream::Pods, trouble),
        }
    }

    fn pod(&mut self, pod: &Pod, gone: bool) {
        let Some((name, job)) = view::job_of(&pod.metadata) else { return };
        let once = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never"));
        let view = view::pod(pod);
        self.names.insert(view.uid.clone(), name.clone());
        let tracked = self.jobs.entry(name).or_default();
        let mut seen = Seen { pod: view, job, once, gone: false };
        if gone {
            seen.lose();
        }
        tracked.pods.insert(seen.pod.uid.clone(), seen);
        if gone {
            tracked.forget();
        }
    }

    fn events(&mut self, heard: Heard<Event>) {
        let events = match heard {
            Heard::All(all) => all,
            Heard::Changed(event) => vec![event],
            // An account that may not see events misses words, and nothing else.
            Heard::Gone(_) | Heard::Back | Heard::Trouble(_) => return,
        };
        for event in events {
            let about = event.involved_object;
            let (Some(uid), Some("Job" | "Pod")) = (about.uid, about.kind.as_deref()) else { continue };
            let at = event.last_timestamp.map(|time| time.0).or(event.event_time.map(|time| time.0));
            let entry = Entry { name: event.reason.unwrap_or_default(), value: event.message.unwrap_or_default() };
            let older = self.warnings.get(&uid).is_some_and(|known| known.at > at);
            if !older {
                self.warnings.insert(uid, Warning { at, entry });
            }
        }
        if self.warnings.len() > WARNINGS {
            self.warnings.retain(|uid, _| self.names.contains_key(uid));
        }
    }

    /// All that is known of a Job now; none before it was seen.
    fn snapshot(&mut self, job: &str, patience: Duration) -> Option<Snapshot> {
        let lost = self.away.values().any(|away| away.since.elapsed() >= patience);
        // A Job without its pods would be one that has none.
        if !lost && !self.synced.contains(&Stream::Pods) {
            return None;
        }
        let tracked = self.jobs.get(job);
        let view = match tracked.and_then(Tracked::view) {
            Some(view) => view,
            None if lost => gone(),
            None => return None,
        };
        let empty = Tracked::default();
        let tracked = tracked.unwrap_or(&empty);
        let mut pods: Vec<wit::Pod> = tracked.own().map(|seen| seen.pod.clone()).collect();
        pods.sort_by(|a, b| (a.index, &a.created, &a.name).cmp(&(b.index, &b.created, &b.name)));
        let about = std::iter::once(&tracked.uid).chain(pods.iter().map(|pod| &pod.uid));
        let warnings = about.filter_map(|uid| self.warnings.get(uid)).map(|warning| warning.entry.clone()).collect();
        let ended = view.has_ended();
        let snapshot = Snapshot {
            uid: tracked.uid.clone(),
            state: if lost && !ended { JobState::LostSight } else { view.state },
            active: view.active,
            succeeded: view.succeeded,
            failed: view.failed,
            pods,
            warnings,
            change: 0,
        };
        let tracked = self.jobs.entry(job.to_owned()).or_default();
        if tracked.told.as_ref() != Some(&snapshot) {
            tracked.change = tracked.change.saturating_add(1);
            tracked.told = Some(snapshot.clone());
        }
        Some(Snapshot { change: tracked.change, ..snapshot })
    }
}

impl Tracked {
    /// Of many pods that are gone, the oldest are not listed for ever.
    fn forget(&mut self) {
        let mut gone: Vec<(String, String)> = self
            .pods
            .values()
            .filter(|seen| seen.gone)
            .map(|seen| (seen.pod.created.clone(), seen.pod.uid.clone()))
            .collect();
        gone.sort();
        let many = gone.len().saturating_sub(REMEMBERED);
        for (_, uid) in gone.into_iter().take(many) {
            self.pods.remove(&uid);
        }
    }
}

impl Seen {
    fn lose(&mut self) {
        self.gone = true;
        self.pod.deleted = true;
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
