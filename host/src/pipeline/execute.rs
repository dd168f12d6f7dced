//! One job on one target: launch, watch, collect, release. Whatever happens, what was launched is released, unless the
//! user asked to keep it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use maddock_bindings::api::events::{Level, Phase};
use maddock_bindings::api::types::OutputStream;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Gravity, Stream};
use super::keeper::Keeper;
use crate::capability::events::PluginEvent;
use crate::plugin::jobs::{Cause, Collection, Ending, Job};
use crate::plugin::{Plugin, PluginError, Session};
use crate::results::metric::{Metric, MetricScanner};
use crate::results::redact::{Masks, Redactor};

/// Events that may wait for the pump before a plugin has to.
const WAITING_EVENTS: usize = 256;
/// How long collecting and releasing may take each: engines that restart meanwhile are waited for.
const AFTERMATH: Duration = Duration::from_secs(180);
/// How long the end of a job that was interrupted may take to be seen: its last output is on the way.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long after its time limit a local target may take to end a job before the kernel does.
const LIMIT_GRACE: Duration = Duration::from_secs(60);

/// What came of a job, before anybody judges it.
#[derive(Debug, Default)]
pub struct Executed {
    /// How it ended, where it was launched and watched to its end.
    pub ending: Option<Ending>,
    /// What it left.
    pub collection: Option<Collection>,
    /// Why it never got to its end.
    pub error: Option<PluginError>,
    /// The user stopped it.
    pub interrupted: bool,
    /// It was launched and goes on without this process. Nothing else is known of it.
    pub left: bool,
    /// What went wrong after its end, a sentence each: evidence that is missing, things that are left over.
    pub problems: Vec<String>,
    /// What each node printed as its metric, by node.
    pub metrics: Vec<(u32, Metric)>,
}

impl Executed {
    /// Takes secrets out of all that its target said of it: a plugin has seen what the job printed.
    fn hide(&mut self, redactor: &Redactor) {
        let hide = |text: &mut String| *text = redactor.text(text);
        if let Some(ending) = &mut self.ending {
            hide(&mut ending.message);
            ending.nodes.iter_mut().for_each(|node| [&mut node.name, &mut node.message].into_iter().for_each(hide));
        }
        if let Some(collection) = &mut self.collection {
            collection.facts.iter_mut().for_each(|fact| hide(&mut fact.value));
            collection.missing.iter_mut().for_each(hide);
        }
        if let Some(error) = &mut self.error {
            error.hide(redactor);
        }
        self.problems.iter_mut().for_each(hide);
        self.metrics.iter_mut().for_each(|(_, metric)| hide(&mut metric.name));
    }
}

/// What executing one job takes, whether it is launched now or was by another process.
#[derive(Debug)]
pub struct Order<'a> {
    /// The target.
    pub target: &'a Plugin,
    /// Its features, as it describes them.
    pub features: &'a [String],
    /// The job's id.
    pub id: &'a str,
    /// How many nodes it has.
    pub nodes: u32,
    /// Seconds for the whole job.
    pub time_limit: Option<u64>,
    /// Leave the surroundings up after its end.
    pub keep_alive: bool,
    /// Where its output goes.
    pub log: &'a Path,
    /// Who hears about it.
    pub events: &'a Stream,
    /// Fires when the user wants to stop.
    pub stop: CancellationToken,
    /// Who keeps what a later process needs; none where the job ends with this process.
    pub keeper: Option<&'a Keeper>,
    /// Values that must not be in the log.
    pub secrets: Vec<String>,
}

/// With what executing a job begins.
#[derive(Debug)]
pub enum Begin<'a> {
    /// It is to be launched.
    Launch(&'a Job),
    /// It was, and this is its handle.
    Resume(&'a str),
}

/// Runs one job to its end, or follows one that runs already: its log is written anew then, as all output comes again.
///
/// # Errors
/// Its log cannot be written: a job without a log is not started.
pub async fn execute(session: &Session, order: Order<'_>, begin: Begin<'_>) -> std::io::Result<Executed> {
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let resumed = matches!(begin, Begin::Resume(_));
    let earlier = if resumed { put_aside(order.log).await? } else { None };
    let mut log = tokio::fs::File::options().create(true).append(true).open(order.log).await?;
    log.write_all(heading(order.time_limit).as_bytes()).await?;
    let redactor = Redactor::new(order.secrets.iter().map(String::as_str));
    let pump = pump(receiver, log, redactor.clone(), order.id.to_owned(), order.events.clone(), order.nodes);
    let session = session.clone().telling(sender).for_job(order.id);
    let mut executed = match begin {
        Begin::Resume(handle) => follow(&session, &order, handle).await,
        Begin::Launch(job) => launch(&session, &order, job).await,
    };
    // The pump ends when the last sender is gone.
    drop(session);
    let (written, metrics) = match pump.await {
        Ok(pumped) => pumped,
        Err(error) => (Err(std::io::Error::other(error)), Vec::new()),
    };
    executed.metrics = metrics;
    executed.hide(&redactor);
    match written {
        Ok(()) => {}
        Err(error) => {
            executed.problems.push(format!("the log `{}` could not be written: {error}", order.log.display()));
            if let Some(ending) = &mut executed.ending {
                ending.log_complete = false;
            }
        }
    }
    if let Some(earlier) = earlier {
        drop_shorter(order.log, &earlier).await;
    }
    Ok(executed)
}

/// The first line of a run log. By contract: tools that read these logs look for it.
#[must_use]
pub fn heading(time_limit: Option<u64>) -> String {
    let limit = time_limit.map_or_else(|| "None".to_owned(), |seconds| seconds.to_string());
    format!("⏰ Setting timeout to {limit} seconds.\n")
}

/// The log of an earlier process gives way to the one that is written now.
async fn put_aside(log: &Path) -> std::io::Result<Option<PathBuf>> {
    let earlier = log.with_extension("log.earlier");
    match tokio::fs::rename(log, &earlier).await {
        Ok(()) => Ok(Some(earlier)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An earlier log that has more than the new one is kept beside it: the engine may have forgotten what it said.
async fn drop_shorter(log: &Path, earlier: &Path) {
    let (new, old) = (tokio::fs::metadata(log).await, tokio::fs::metadata(earlier).await);
    if let (Ok(new), Ok(old)) = (new, old)
        && new.len() >= old.len()
    {
        let _ = tokio::fs::remove_file(earlier).await;
    }
}

/// Launches a job, keeps its handle where any process finds it, and follows it.
async fn launch(session: &Session, order: &Order<'_>, job: &Job) -> Executed {
    let target = order.target;
    let launched = async {
        let plan = target.plan_job(session, job).await?;
        // Launching may pull an image; there is no telling how long that takes.
        target.launch_job(&session.clone().within(None), job, &plan).await
    };
    let mut executed = Executed::default();
    let handle = tokio::select! {
        launched = launched => match launched {
            Ok(handle) => handle,
            Err(error) => {
                executed.error = Some(error);
                return executed;
            }
        },
        () = order.stop.cancelled() => {
            // What a launch that was cut off has made is found by its owner when the run ends.
            executed.interrupted = true;
            return executed;
        }
    };
    let Some(keeper) = order.keeper else { return follow(session, order, &handle).await };
    match keeper.launched(&handle).await {
        Ok(()) if keeper.watches() => follow(session, order, &handle).await,
        Ok(()) => Executed { left: true, ..executed },
        Err(error) => {
            // A job that nobody could find again must not go on.
            let aftermath = session.clone().within(Some(AFTERMATH));
            executed.problems.push(format!("what a later process needs cannot be written: {error}"));
            note(
                &mut executed.problems,
                "ending the job",
                target.cancel_job(&aftermath, &handle, "it could not be recorded").await,
            );
            note(&mut executed.problems, "cleaning up", target.release_job(&aftermath, &handle).await);
            executed
        }
    }
}

/// Follows a launched job to its end, collects what it left and removes what it was made of. Any process can.
async fn follow(session: &Session, order: &Order<'_>, handle: &str) -> Executed {
    let mut executed = Executed::default();
    let target = order.target;
    let local = order.features.iter().any(|feature| feature == "local");
    let backstop =
        order.time_limit.filter(|_| local).map(|limit| Duration::from_secs(limit).saturating_add(LIMIT_GRACE));
    let watching = session.clone().within(backstop);
    let aftermath = session.clone().within(Some(AFTERMATH));
    {
        let watch = target.watch_job(&watching, handle);
        tokio::pin!(watch);
        tokio::select! {
            ending = &mut watch => match ending {
                Ok(ending) => executed.ending = Some(ending),
                Err(error) if order.keeper.is_some_and(|keeper| keeper.manner.patient) => {
                    executed.problems.push(format!("it cannot be followed now: {error}"));
                    return Executed { left: true, ..executed };
                }
                Err(error) => {
                    executed.error = Some(error);
                    note(&mut executed.problems, "ending the job", target.cancel_job(&aftermath, handle, "it could not be watched any more").await);
                }
            },
            () = order.stop.cancelled() => {
                if let Some(keeper) = order.keeper.filter(|keeper| keeper.leaves()) {
                    match keeper.leave().await {
                        Ok(()) => return Executed { left: true, ..executed },
                        Err(error) => executed.problems.push(format!("it cannot be left, so it is ended: {error}")),
                    }
                }
                executed.interrupted = true;
                let cancel = target.cancel_job(&aftermath, handle, "interrupted");
                let (cancelled, over) = cancel_watched(cancel, watch).await;
                // Jobs that are not on this machine go on when nobody could end them: that is no end to be recorded.
                let goes_on = cancelled.is_err() && !over && !local;
                note(&mut executed.problems, "ending the job", cancelled);
                if let (true, Some(keeper)) = (goes_on, order.keeper) {
                    match keeper.leave().await {
                        Ok(()) => return Executed { left: true, ..executed },
                        Err(error) => executed.problems.push(format!("it cannot be left either: {error}")),
                    }
                }
            }
        }
    }
    match target.collect_job(&aftermath, handle).await {
        Ok(collection) => executed.collection = Some(collection),
        Err(error) => executed.problems.push(format!("collecting results: {error}")),
    }
    // A job that is to be kept is kept only where it came to its end.
    let keep = order.keep_alive && executed.ending.is_some();
    if !keep {
        note(&mut executed.problems, "cleaning up", target.release_job(&aftermath, handle).await);
    }
    executed
}

/// Ends a job that is watched on until its end is seen: what it says last belongs in its log. Says whether that was so, too.
async fn cancel_watched<T>(
    cancel: impl Future<Output = Result<(), PluginError>>,
    mut watch: Pin<&mut impl Future<Output = Result<T, PluginError>>>,
) -> (Result<(), PluginError>, bool) {
    let mut watched = None;
    tokio::pin!(cancel);
    let cancelled = loop {
        tokio::select! {
            cancelled = &mut cancel => break cancelled,
            ended = &mut watch, if watched.is_none() => watched = Some(ended.is_ok()),
        }
    };
    if cancelled.is_ok() && watched.is_none() {
        // One that is not seen to end has ended all the same, or is found by its owner.
        let _ = tokio::time::timeout(LAST_WORDS, watch).await;
    }
    (cancelled, watched.unwrap_or(false))
}

fn note(problems: &mut Vec<String>, what: &str, result: Result<(), PluginError>) {
    if let Err(error) = result {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        problems.push(format!("{what}: {error}{hint}"));
    }
}

/// Whether the log could be written, and what each node printed as its metric.
type Pumped = (std::io::Result<()>, Vec<(u32, Metric)>);

/// Takes what a plugin tells: output to the log, everything to the stream.
fn pump(
    mut receiver: mpsc::Receiver<PluginEvent>,
    mut log: tokio::fs::File,
    redactor: Redactor,
    about: String,
    events: Stream,
    nodes: u32,
) -> JoinHandle<Pumped> {
    tokio::spawn(async move {
        let mut masks = Masks::new(redactor.clone());
        // One scanner a node: their outputs come in turns, and a line of one must not end in another's.
        let mut scanners: BTreeMap<u32, MetricScanner> = BTreeMap::new();
        // After a write fails the plugin is still listened to: a full disk must not stop the job.
        let mut trouble = None;
        let write = async |log: &mut tokio::fs::File, bytes: Vec<u8>, trouble: &mut Option<std::io::Error>| {
            if trouble.is_none()
                && let Err(error) = log.write_all(&bytes).await
            {
                *trouble = Some(error);
            }
            events.emit(&Event::Output { of: about.clone(), bytes });
        };
        while let Some(event) = receiver.recv().await {
            match event {
                PluginEvent::Output { node, stream, bytes } => {
                    if node < nodes {
                        scanners.entry(node).or_default().feed(&bytes);
                    }
                    let source = (node.min(nodes), matches!(stream, OutputStream::Stderr));
                    write(&mut log, masks.push(source, &bytes), &mut trouble).await;
                }
                PluginEvent::Log { level, message, .. } => {
                    events.say(gravity(level), &about, redactor.text(&message));
                }
                PluginEvent::State { phase, reason } => {
                    let reason = redactor.text(&reason);
                    events.emit(&Event::JobState { job: about.clone(), phase: phase_word(phase).into(), reason });
                }
                PluginEvent::Progress { activity, done, total, .. } => {
                    let activity = redactor.text(&activity);
                    events.emit(&Event::Progress { of: about.clone(), activity, done, total });
                }
            }
        }
        write(&mut log, masks.finish(), &mut trouble).await;
        let flushed = log.flush().await;
        let metrics = scanners.into_iter().filter_map(|(node, scanner)| Some((node, scanner.finish()?))).collect();
        (trouble.map_or(flushed, Err), metrics)
    })
}

/// How grave a plugin's line is.
#[must_use]
pub fn gravity(level: Level) -> Gravity {
    match level {
        Level::Debug => Gravity::Debug,
        Level::Info => Gravity::Info,
        Level::Warning => Gravity::Warning,
        Level::Error => Gravity::Error,
    }
}

/// One word for a phase.
#[must_use]
pub fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Suspended => "suspended",
        Phase::Finishing => "finishing",
        Phase::Ended => "ended",
        Phase::Unknown => "unknown",
    }
}

/// One word for a cause, as `run.json` has it.
#[must_use]
pub fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Exited(_) => "exited",
        Cause::Signalled(_) => "signalled",
        Cause::TimedOut => "timed-out",
        Cause::Cancelled => "cancelled",
        Cause::NeverStarted => "never-started",
        Cause::Lost => "lost",
        Cause::Unknown => "unknown",
    }
}
