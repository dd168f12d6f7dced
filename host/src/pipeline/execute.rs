//! One job on one target: launch, watch, collect, release. Whatever happens, what was launched is released, unless the
//! user asked to keep it.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use maddock_bindings::api::events::{Level, Phase};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Gravity, Stream};
use crate::capability::events::PluginEvent;
use crate::plugin::jobs::{Cause, Collection, Ending, Job, JobOptions};
use crate::plugin::{Plugin, PluginError, Session};
use crate::results::metric::{Metric, MetricScanner};
use crate::results::redact::{RedactStream, Redactor};

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
    /// What went wrong after its end, a sentence each: evidence that is missing, things that are left over.
    pub problems: Vec<String>,
    /// What each node printed as its metric, by node.
    pub metrics: Vec<(u32, Metric)>,
}

/// What executing one job takes.
#[derive(Debug)]
pub struct Order<'a> {
    /// The target.
    pub target: &'a Plugin,
    /// Its features, as it describes them.
    pub features: &'a [String],
    /// The job.
    pub job: &'a Job,
    /// Where its output goes.
    pub log: &'a Path,
    /// Who hears about it.
    pub events: &'a Stream,
    /// Fires when the user wants to stop.
    pub stop: CancellationToken,
    /// Values that must not be in the log.
    pub secrets: Vec<String>,
}

/// Runs one job to its end.
///
/// # Errors
/// Its log cannot be written: a job without a log is not started.
pub async fn execute(session: &Session, order: Order<'_>) -> std::io::Result<Executed> {
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let mut log = tokio::fs::File::options().create(true).append(true).open(order.log).await?;
    // By contract: tools that read these logs look for this line.
    let limit = order.job.time_limit.map_or_else(|| "None".to_owned(), |seconds| seconds.to_string());
    log.write_all(format!("⏰ Setting timeout to {limit} seconds.\n").as_bytes()).await?;
    let redactor = Redactor::new(order.secrets.iter().map(String::as_str)).stream();
    let nodes = order.job.topology.nodes;
    let pump = pump(receiver, log, redactor, order.job.id.clone(), order.events.clone(), nodes);
    let session = session.clone().telling(sender).for_job(&order.job.id);
    let mut executed = follow(&session, &order).await;
    // The pump ends when the last sender is gone.
    drop(session);
    let (written, metrics) = match pump.await {
        Ok(pumped) => pumped,
        Err(error) => (Err(std::io::Error::other(error)), Vec::new()),
    };
    executed.metrics = metrics;
    match written {
        Ok(()) => {}
        Err(error) => {
            executed.problems.push(format!("the log `{}` could not be written: {error}", order.log.display()));
            if let Some(ending) = &mut executed.ending {
                ending.log_complete = false;
            }
        }
    }
    Ok(executed)
}

async fn follow(session: &Session, order: &Order<'_>) -> Executed {
    let mut executed = Executed::default();
    let (target, job) = (order.target, order.job);
    let launched = async {
        let plan = target.plan_job(session, job).await?;
        // Launching may pull an image; there is no telling how long that takes.
        target.launch_job(&session.clone().within(None), job, &plan).await
    };
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

    let local = order.features.iter().any(|feature| feature == "local");
    let backstop = job.time_limit.filter(|_| local).map(|limit| Duration::from_secs(limit).saturating_add(LIMIT_GRACE));
    let watching = session.clone().within(backstop);
    let aftermath = session.clone().within(Some(AFTERMATH));
    {
        let watch = target.watch_job(&watching, &handle);
        tokio::pin!(watch);
        tokio::select! {
            ending = &mut watch => match ending {
                Ok(ending) => executed.ending = Some(ending),
                Err(error) => {
                    executed.error = Some(error);
                    note(&mut executed.problems, "ending the job", target.cancel_job(&aftermath, &handle, "it could not be watched any more").await);
                }
            },
            () = order.stop.cancelled() => {
                executed.interrupted = true;
                let cancelled = cancel_watched(target.cancel_job(&aftermath, &handle, "interrupted"), watch).await;
                note(&mut executed.problems, "ending the job", cancelled);
            }
        }
    }
    match target.collect_job(&aftermath, &handle).await {
        Ok(collection) => executed.collection = Some(collection),
        Err(error) => executed.problems.push(format!("collecting results: {error}")),
    }
    // A job that is to be kept is kept only where it came to its end.
    let keep = job.options.contains(JobOptions::KEEP_ALIVE) && executed.ending.is_some();
    if !keep {
        note(&mut executed.problems, "cleaning up", target.release_job(&aftermath, &handle).await);
    }
    executed
}

/// Ends a job that is watched on until its end is seen: what it says last belongs in its log.
async fn cancel_watched<T>(
    cancel: impl Future<Output = Result<(), PluginError>>,
    mut watch: Pin<&mut impl Future<Output = T>>,
) -> Result<(), PluginError> {
    let mut over = false;
    tokio::pin!(cancel);
    let cancelled = loop {
        tokio::select! {
            cancelled = &mut cancel => break cancelled,
            _ = &mut watch, if !over => over = true,
        }
    };
    if cancelled.is_ok() && !over {
        // One that is not seen to end has ended all the same, or is found by its owner.
        let _ = tokio::time::timeout(LAST_WORDS, watch).await;
    }
    cancelled
}

fn note(problems: &mut Vec<String>, what: &str, result: Result<(), PluginError>) {
    if let Err(error) = result {
        problems.push(format!("{what}: {error}"));
    }
}

/// Whether the log could be written, and what each node printed as its metric.
type Pumped = (std::io::Result<()>, Vec<(u32, Metric)>);

/// Takes what a plugin tells: output to the log, everything to the stream.
fn pump(
    mut receiver: mpsc::Receiver<PluginEvent>,
    mut log: tokio::fs::File,
    mut redactor: RedactStream,
    about: String,
    events: Stream,
    nodes: u32,
) -> JoinHandle<Pumped> {
    tokio::spawn(async move {
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
                PluginEvent::Output { node, bytes, .. } => {
                    if node < nodes {
                        scanners.entry(node).or_default().feed(&bytes);
                    }
                    write(&mut log, redactor.push(&bytes), &mut trouble).await;
                }
                PluginEvent::Log { level, message, .. } => events.say(gravity(level), &about, message),
                PluginEvent::State { phase, reason } => {
                    events.emit(&Event::JobState { job: about.clone(), phase: phase_word(phase), reason });
                }
                PluginEvent::Progress { activity, done, total, .. } => {
                    events.emit(&Event::Progress { of: about.clone(), activity, done, total });
                }
            }
        }
        write(&mut log, redactor.finish(), &mut trouble).await;
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

fn phase_word(phase: Phase) -> &'static str {
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
