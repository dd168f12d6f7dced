//! The one poller of this process: asks for all jobs of all instances in one call, at a rate that does not grow with them.
//!
//! It runs while somebody is interested and stops by itself. It must never take silence for an end: a controller that does
//! not answer is asked again, and a job that has left the queue without a trace has a grace before it is lost sight of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use maddock_bindings::api::slurm::{Cluster, Job, JobState, Seen};
use tokio::sync::{Mutex as Turn, Notify, watch};
use tokio::time::Instant;

use super::ask::{self, Found};
use super::client::{Client, is_absent};
use super::{ApiError, parse};

/// How often, and for how long.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two questions where something has just changed.
    least: Duration,
    /// Between two questions where nothing changes.
    most: Duration,
    /// For a job that has left the queue, until the accounting has it.
    grace: Duration,
    /// For a controller that does not answer.
    patience: Duration,
}

const PACE: Pace = Pace {
    least: Duration::from_secs(1),
    most: Duration::from_secs(10),
    grace: Duration::from_secs(90),
    patience: Duration::from_secs(30 * 60),
};

/// Nobody has to ask again at once: a caller works on what it heard.
const INTEREST: Duration = Duration::from_secs(60);

/// How long a description of the cluster is good for: many jobs that are handed in together look at it once.
const DESCRIBED: Duration = Duration::from_secs(60);

/// What this process knows about batch jobs, shared by all instances of an invocation.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pace: Pace,
    used: AtomicBool,
    known: Mutex<Known>,
    /// Counts what the poller found; whoever waits looks again.
    turns: watch::Sender<u64>,
    /// Somebody has come with a job that nobody asked for yet.
    nudge: Notify,
    /// What the cluster is, and when that was heard.
    cluster: Turn<Option<(Instant, Result<Cluster, ApiError>)>>,
}

#[derive(Debug, Default)]
struct Known {
    jobs: BTreeMap<String, Tracked>,
    polling: bool,
    silent_since: Option<Instant>,
}

#[derive(Debug)]
struct Tracked {
    job: Option<Job>,
    change: u64,
    wanted_until: Instant,
    missing_since: Option<Instant>,
    /// It alone could not be asked for.
    silent_since: Option<Instant>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::with(PACE)
    }
}

impl Shared {
    fn with(pace: Pace) -> Self {
        let (turns, _) = watch::channel(0);
        let (used, known) = (AtomicBool::new(false), Mutex::new(Known::default()));
        Self { pace, used, known, turns, nudge: Notify::new(), cluster: Turn::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is kept here is whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// From now on there may be jobs of this run.
    pub(super) fn mark_used(&self) {
        self.shared.used.store(true, Ordering::Relaxed);
    }

    /// Whether this invocation has handed anything in.
    pub(super) fn is_used(&self) -> bool {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether a job is known to have ended: not one that nobody has an answer about.
    pub(super) fn has_ended(&self, id: &str) -> bool {
        let known = self.shared.known();
        let job = known.jobs.get(id).and_then(|tracked| tracked.job.as_ref());
        job.is_some_and(|job| job.ended && !matches!(job.state, JobState::LostSight))
    }

    /// What there is. Callers at one time share a question, and its trouble; a good answer holds for a while.
    pub(super) async fn cluster(&self, client: &Client) -> Result<Cluster, ApiError> {
        let came = Instant::now();
        let mut described = self.shared.cluster.lock().await;
        if let Some((heard, answer)) = &*described
            && (*heard >= came || (answer.is_ok() && heard.elapsed() < DESCRIBED))
        {
            return answer.clone();
        }
        let answer = ask::cluster(client).await;
        *described = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Waits until one of the jobs is not as it was seen.
    pub(super) async fn next_change(&self, client: Client, seen: &[Seen], timeout: Duration) -> Vec<Job> {
        let until = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
        let mut turns = self.shared.turns.subscribe();
        self.want(client, seen, until);
        loop {
            turns.borrow_and_update();
            let changed = self.changed(seen);
            if !changed.is_empty() {
                return changed;
            }
            match tokio::time::timeout_at(until, turns.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Vec::new(),
            }
        }
    }

    fn changed(&self, seen: &[Seen]) -> Vec<Job> {
        let known = self.shared.known();
        seen.iter()
            .filter_map(|seen| {
                let tracked = known.jobs.get(&seen.id).filter(|tracked| tracked.change != seen.change)?;
                tracked.job.as_ref().map(|job| Job { change: tracked.change, ..job.clone() })
            })
            .collect()
    }

    fn want(&self, client: Client, seen: &[Seen], until: Instant) {
        let until = until.checked_add(INTEREST).unwrap_or(until);
        let mut known = self.shared.known();
        let mut new = false;
        for seen in seen {
            let tracked = known.jobs.entry(seen.id.clone()).or_insert_with(|| {
                new = true;
                Tracked { job: None, change: 0, wanted_until: until, missing_since: None, silent_since: None }
            });
            tracked.wanted_until = tracked.wanted_until.max(until);
        }
        if !known.polling {
            known.polling = true;
            tokio::spawn(poll(Arc::downgrade(&self.shared), client));
        } else if new {
            self.shared.nudge.notify_one();
        }
    }
}

/// Asks until nobody wants to know any more, or the invocation is over.
async fn poll(shared: Weak<Shared>, client: Client) {
    let Some(pace) = shared.upgrade().map(|shared| shared.pace) else { return };
    let mut pause = pace.least;
    loop {
        let Some(queue) = shared.upgrade() else { return };
        let Some((ids, forgotten)) = wanted(&queue) else { return };
        let answer = ask::jobs(&client, &ids, &forgotten).await;
        pause = if take(&queue, &ids, answer) { pace.least } else { pause.mul_f64(1.5).min(pace.most) };
        let asked = Instant::now();
        // A new job is asked for soon, and never sooner than the least pause: many new jobs are one question, too.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = queue.nudge.notified() => {
                pause = pace.least;
                tokio::time::sleep_until(asked.checked_add(pace.least).unwrap_or(asked)).await;
            }
        }
    }
}

/// The jobs to ask for, and those of them that the controller has forgotten; none ends the poller, which whoever comes next
/// starts again.
fn wanted(queue: &Shared) -> Option<(Vec<String>, BTreeSet<String>)> {
    let now = Instant::now();
    let mut known = queue.known();
    let wanted = |tracked: &Tracked| tracked.wanted_until > now && !tracked.job.as_ref().is_some_and(|job| job.ended);
    let ids: Vec<String> = known.jobs.iter().filter(|(_, tracked)| wanted(tracked)).map(|(id, _)| id.clone()).collect();
    if ids.is_empty() {
        known.polling = false;
        known.silent_since = None;
        return None;
    }
    let is_forgotten = |id: &&String| known.jobs.get(*id).is_some_and(|tracked| tracked.missing_since.is_some());
    let forgotten = ids.iter().filter(is_forgotten).cloned().collect();
    Some((ids, forgotten))
}

/// Takes note of an answer. Says whether anything changed.
fn take(queue: &Shared, ids: &[String], answer: Result<Found, ApiError>) -> bool {
    let now = Instant::now();
    let mut known = queue.known();
    let mut changed = false;
    match answer {
        Ok(found) => {
            known.silent_since = None;
            for job in found.jobs {
                changed |= known.update(job);
            }
            for id in &found.missing {
                let since = known.jobs.get_mut(id).map(|tracked| *tracked.missing_since.get_or_insert(now));
                let Some(since) = since else { continue };
                let over = now.duration_since(since) >= queue.pace.grace;
                let reason = match over {
                    true => "it has left the queue, and the accounting does not know it".to_owned(),
                    false => format!(
                        "it is not in the queue, and no accounting knows it yet; that is waited for, {} s at most",
                        queue.pace.grace.as_secs()
                    ),
                };
                changed |= known.update(Job { ended: over, ..ask::out_of_sight(id, reason) });
                if let Some(tracked) = known.jobs.get_mut(id) {
                    tracked.missing_since = Some(since);
                }
            }
            for (id, listed, trouble) in found.silent {
                let since = known.jobs.get_mut(&id).map(|tracked| *tracked.silent_since.get_or_insert(now));
                if let Some(reason) = since.and_then(|since| given_up(&queue.pace, now.duration_since(since), &trouble))
                {
                    changed |= known.update(listed.unwrap_or_else(|| ask::out_of_sight(&id, reason)));
                }
            }
        }
        Err(trouble) => {
            let since = *known.silent_since.get_or_insert(now);
            if let Some(reason) = given_up(&queue.pace, now.duration_since(since), &trouble) {
                for id in ids {
                    changed |= known.update(ask::out_of_sight(id, reason.clone()));
                }
            }
        }
    }
    drop(known);
    if changed {
        queue.turns.send_modify(|turn| *turn = turn.wrapping_add(1));
    }
    changed
}

/// Why jobs are given up, where that is so. Whatever a client says, the trouble may be over soon and the jobs go on: only a
/// client that is not installed does not get better by waiting.
fn given_up(pace: &Pace, silent: Duration, trouble: &ApiError) -> Option<String> {
    if is_absent(trouble) {
        return Some(format!("the scheduler cannot be asked: {}", trouble.message));
    }
    let patience = pace.patience;
    (silent >= patience)
        .then(|| format!("the scheduler has not answered for {} s: {}", patience.as_secs(), trouble.message))
}

impl Known {
    fn update(&mut self, job: Job) -> bool {
        let Some(tracked) = self.jobs.get_mut(&job.id) else { return false };
        tracked.missing_since = None;
        tracked.silent_since = None;
        if tracked.job.as_ref().is_some_and(|known| parse::same(known, &job)) {
            return false;
        }
        tracked.change = tracked.change.saturating_add(1);
        tracked.job = Some(job);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plugin::Environment;

    /// Programs of these names that are scripts: a scheduler that says what the test wants.
    struct Pretended {
        directory: tempfile::TempDir,
    }

    impl Pretended {
        fn new() -> Self {
            let pretended = Self { directory: tempfile::tempdir().unwrap() };
            pretended.program("squeue", "exit 0");
            pretended.program("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1");
            pretended.program("sacct", "echo 'accounting storage is disabled' >&2; exit 1");
            pretended
        }

        fn program(&self, name: &str, body: &str) {
            let here = self.directory.path();
            let new = here.join(format!(".{name}"));
            std::fs::write(&new, body).unwrap();
            std::fs::rename(new, here.join(format!("{name}.body"))).unwrap();
            let program = here.join(name);
            if program.exists() {
                return;
            }
            // Written by another process: a child that this one starts meanwhile for another test would hold the file open, and
            // what is open for writing cannot be executed.
            let text = format!("#!/bin/bash\ncd {}\necho \"$@\" >> {name}.calls\n. ./{name}.body\n", here.display());
            let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
            let mut writer = std::process::Command::new("bash");
            assert!(writer.args(["-c", write, "-", &text]).arg(program).status().unwrap().success());
        }

        fn lists(&self, jobs: &[(&str, &str)]) {
            let lines: String = jobs
                .iter()
                .map(|(id, state)| format!("{id}\\x1f{state}\\x1fn1\\x1fN/A\\x1fN/A\\x1fmaddock:r/j\\x1fNone\\x1e\\n"))
                .collect();
            self.program("squeue", &format!("printf '{lines}'"));
        }

        fn calls(&self, name: &str) -> Vec<String> {
            let text = std::fs::read_to_string(self.directory.path().join(format!("{name}.calls"))).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }

        fn client(&self) -> Client {
            let path = format!("{}:/usr/bin:/bin", Path::new(self.directory.path()).display());
            let environment: Environment = [("PATH".to_owned(), path)].into_iter().collect();
            Client::for_tests(environment, Duration::from_secs(30))
        }
    }

    fn queue(grace: Duration, patience: Duration) -> Queue {
        let least = Duration::from_millis(20);
        let pace = Pace { least, most: least, grace, patience };
        Queue { shared: Arc::new(Shared::with(pace)) }
    }

    fn seen(id: &str, change: u64) -> Seen {
        Seen { id: id.to_owned(), change }
    }

    const LONG: Duration = Duration::from_secs(30);
    const NEVER: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn fifty_jobs_are_one_question() {
        let pretended = Pretended::new();
        let names: Vec<String> = (1..=50).map(|id| id.to_string()).collect();
        let rows: Vec<(&str, &str)> = names.iter().map(|id| (id.as_str(), "RUNNING")).collect();
        pretended.lists(&rows);
        let queue = queue(NEVER, NEVER);
        let all: Vec<Seen> = names.iter().map(|id| seen(id, 0)).collect();
        let changed = queue.next_change(pretended.client(), &all, LONG).await;
        assert_eq!(changed.len(), 50);
        let calls = pretended.calls("squeue");
        assert!(calls[0].contains("--jobs=1,10,11,"), "{calls:?}");
        assert!(pretended.calls("scontrol").is_empty(), "running jobs need no second question");
    }

    #[tokio::test]
    async fn a_job_that_is_as_it_was_seen_is_not_told_again() {
        let pretended = Pretended::new();
        pretended.lists(&[("7", "PENDING")]);
        let queue = queue(NEVER, NEVER);
        let first = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert_eq!(first[0].change, 1);
        let none = queue.next_change(pretended.client(), &[seen("7", 1)], Duration::from_millis(100)).await;
        assert!(none.is_empty());
        pretended.lists(&[("7", "RUNNING")]);
        let second = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
        assert!(matches!(second[0].state, JobState::Running));
    }

    #[tokio::test]
    async fn a_job_without_a_trace_is_lost_sight_of_after_its_grace_and_not_before() {
        let pretended = Pretended::new();
        let queue = queue(Duration::from_millis(200), NEVER);
        let first = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(matches!(first[0].state, JobState::LostSight) && !first[0].ended, "{first:?}");
        assert!(first[0].reason.contains("waited for"), "whoever waits knows for what: {first:?}");
        assert!(!queue.has_ended("7"));
        let changed = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
        assert!(matches!(changed[0].state, JobState::LostSight) && changed[0].ended, "{changed:?}");
        assert!(pretended.calls("squeue").len() > 1, "it was asked for again within the grace");
    }

    #[tokio::test]
    async fn the_accounting_may_come_late() {
        let pretended = Pretended::new();
        let queue = queue(NEVER, NEVER);
        let waiting = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(!waiting[0].ended, "{waiting:?}");
        let none = queue.next_change(pretended.client(), &[seen("7", 1)], Duration::from_millis(100)).await;
        assert!(none.is_empty(), "that is told once: {none:?}");
        pretended.program("sacct", "printf '7\\x1fFAILED\\x1f5:0\\x1fn1\\x1fUnknown\\x1fUnknown\\n'");
        let changed = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
        assert!(matches!(changed[0].state, JobState::Failed));
        assert_eq!(changed[0].exit_code, Some(5));
    }

    #[tokio::test]
    async fn a_controller_that_goes_away_is_waited_for() {
        let pretended = Pretended::new();
        pretended.lists(&[("7", "RUNNING")]);
        let queue = queue(Duration::ZERO, NEVER);
        let first = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(matches!(first[0].state, JobState::Running));
        let away = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1";
        pretended.program("squeue", away);
        let none = queue.next_change(pretended.client(), &[seen("7", 1)], Duration::from_millis(200)).await;
        assert!(none.is_empty(), "{none:?}");
        pretended.lists(&[("7", "COMPLETED")]);
        let last = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
        assert!(matches!(last[0].state, JobState::Completed));
    }

    #[tokio::test]
    async fn a_controller_that_stays_away_has_a_deadline() {
        let pretended = Pretended::new();
        pretended.program("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1");
        let queue = queue(NEVER, Duration::from_millis(100));
        let changed = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(matches!(changed[0].state, JobState::LostSight));
        assert!(changed[0].reason.contains("has not answered"), "{}", changed[0].reason);
    }

    #[tokio::test]
    async fn whatever_a_client_says_a_job_is_not_given_up_before_the_patience_is_over() {
        for trouble in [
            "echo 'squeue: error: Munge encode failed: Failed to access socket' >&2; exit 1",
            "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1",
            "echo 'squeue: error: something that nobody has thought of' >&2; exit 1",
            "kill -9 $$",
        ] {
            let pretended = Pretended::new();
            pretended.lists(&[("7", "RUNNING")]);
            let queue = queue(NEVER, NEVER);
            let first = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
            assert!(matches!(first[0].state, JobState::Running));
            pretended.program("squeue", &format!("touch troubled\n{trouble}"));
            while !pretended.directory.path().join("troubled").exists() {
                assert_eq!(queue.next_change(pretended.client(), &[seen("7", 1)], SHORT).await.len(), 0, "{trouble}");
            }
            pretended.lists(&[("7", "COMPLETED")]);
            let last = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
            assert!(matches!(last[0].state, JobState::Completed), "{trouble}: {last:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_is_not_installed_is_not_waited_for() {
        let empty = tempfile::tempdir().unwrap();
        let environment: Environment = [("PATH".to_owned(), empty.path().display().to_string())].into_iter().collect();
        let client = Client::for_tests(environment, LONG);
        let changed = queue(NEVER, NEVER).next_change(client, &[seen("7", 0)], LONG).await;
        assert!(matches!(changed[0].state, JobState::LostSight) && changed[0].ended, "{changed:?}");
        assert!(changed[0].reason.contains("not on the search path"), "{changed:?}");
    }

    #[tokio::test]
    async fn a_job_that_alone_cannot_be_asked_for_keeps_nothing_from_the_others_and_is_waited_for() {
        let pretended = Pretended::new();
        pretended.lists(&[("7", "COMPLETED"), ("8", "RUNNING")]);
        pretended.program("scontrol", "echo 'scontrol: error: something' >&2; exit 1");
        let patient = queue(NEVER, NEVER);
        let changed = patient.next_change(pretended.client(), &[seen("7", 0), seen("8", 0)], LONG).await;
        assert_eq!(changed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["8"], "{changed:?}");
        // Then what the queue says of its end has to do.
        let changed = queue(NEVER, Duration::ZERO).next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(matches!(changed[0].state, JobState::Completed), "{changed:?}");
    }

    #[tokio::test]
    async fn the_controller_is_asked_once_for_a_job_that_it_has_forgotten() {
        let pretended = Pretended::new();
        pretended.program("sacct", "[ $(wc -l < sacct.calls) -gt 3 ] || exit 1\nprintf '7\\x1fFAILED\\x1f5:0\\x1fn1\\x1fUnknown\\x1fUnknown\\n'");
        let queue = queue(NEVER, NEVER);
        let waiting = queue.next_change(pretended.client(), &[seen("7", 0)], LONG).await;
        assert!(!waiting[0].ended, "{waiting:?}");
        let changed = queue.next_change(pretended.client(), &[seen("7", 1)], LONG).await;
        assert!(matches!(changed[0].state, JobState::Failed), "{changed:?}");
        assert_eq!(pretended.calls("scontrol").len(), 1);
    }

    #[tokio::test]
    async fn jobs_that_are_handed_in_together_look_at_the_cluster_once() {
        let pretended = Pretended::new();
        pretended.program("sinfo", "echo 'slurm 22.05.8'");
        let queue = queue(NEVER, NEVER);
        let client = pretended.client();
        let (first, second) = tokio::join!(queue.cluster(&client), queue.cluster(&client));
        let asked = [first.unwrap(), second.unwrap(), queue.cluster(&client).await.unwrap()];
        assert!(asked.iter().all(|cluster| cluster.version == "22.05.8"));
        // Its version, its partitions, its nodes.
        assert_eq!(pretended.calls("sinfo").len(), 3);
    }

    #[tokio::test]
    async fn trouble_with_the_cluster_is_shared_by_those_who_wait_and_kept_for_nobody_else() {
        let pretended = Pretended::new();
        pretended.program("sinfo", "echo 'Unable to contact slurm controller' >&2; exit 1");
        let queue = queue(NEVER, NEVER);
        let client = pretended.client();
        let (first, second) = tokio::join!(queue.cluster(&client), queue.cluster(&client));
        assert!(first.is_err() && second.is_err());
        assert_eq!(pretended.calls("sinfo").len(), 1);
        pretended.program("sinfo", "echo 'slurm 22.05.8'");
        assert_eq!(queue.cluster(&client).await.unwrap().version, "22.05.8");
    }
}
