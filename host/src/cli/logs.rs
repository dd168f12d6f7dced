//! `maddock logs`

use std::collections::BTreeMap;
use std::time::Duration;

use maddock_bindings::api::types::OutputStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::args::Logs;
use super::earlier::{self, Earlier};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::{Growing, LOOK_AGAIN, print};
use super::signals;
use crate::capability::events::PluginEvent;
use crate::pipeline::run::Chosen;
use crate::plugin::Session;
use crate::results::redact::{RedactStream, Redactor};

/// How long a target may take to tell all output of a job.
const TELLING: Duration = Duration::from_secs(300);
/// How often a target is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Prints the output of jobs.
///
/// # Errors
/// There is no such run or job, or its target does not answer.
pub async fn run(arguments: &Logs) -> Outcome {
    let stop = signals::quiet_token()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot listen to signals: {error}")))?;
    let run = Earlier::find(&arguments.run)?;
    let named: Vec<String> = arguments.job.iter().cloned().collect();
    let ids = run.named(&named)?;
    for id in &ids {
        if ids.len() > 1 {
            eprintln!("==> {id} <==");
        }
        if !signals::unless_stopped(&stop, one(&run, id, arguments, &stop)).await? {
            break;
        }
    }
    Ok(Exit::Success)
}

/// Prints the output of one job. Answers false once nobody reads it any more.
async fn one(run: &Earlier, id: &str, arguments: &Logs, stop: &CancellationToken) -> Result<bool, Failure> {
    let path = run.directory.job_path(id).map_err(|error| Failure::new(Exit::Failure, error))?.join("run.log");
    let mut log = Growing::new(path);
    let mut asked: Option<Asked> = None;
    loop {
        let over = run.directory.is_recorded(id) || Earlier::open(run.directory.clone())?.is_over();
        let attended = run.attendant()?.is_some();
        if over || attended || asked.is_none() && !is_launched(run, id) {
            loop {
                let news = log.news();
                if news.is_empty() {
                    break;
                }
                // What the target told already is in the log too.
                if asked.is_none() && !print(&news) {
                    return Ok(false);
                }
            }
        }
        if over || !arguments.follow && (attended || !is_launched(run, id)) || !attended && !is_launched(run, id) {
            return Ok(true);
        }
        let pause = if attended {
            LOOK_AGAIN
        } else {
            let target = match &mut asked {
                Some(target) => target,
                none => none.insert(Asked::new(run, id, arguments)?),
            };
            // Asked first: what is written between the answer and the end would be nobody's.
            let last = !arguments.follow || target.ended().await;
            if !target.tell().await? {
                return Ok(false);
            }
            if last {
                return Ok(true);
            }
            ASK_AGAIN
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

fn is_launched(run: &Earlier, id: &str) -> bool {
    run.job(id).is_ok_and(|job| job.launched.is_some())
}

/// A target that is asked for the output of a job that nobody attends. It tells all of it each time.
struct Asked {
    session: Session,
    target: Chosen,
    handle: String,
    redactor: Redactor,
    printed: BTreeMap<(u32, bool), usize>,
    streams: BTreeMap<(u32, bool), RedactStream>,
}

impl Asked {
    fn new(run: &Earlier, id: &str, arguments: &Logs) -> Result<Self, Failure> {
        let invocation = run.invocation(None, &arguments.later, false)?;
        run.check_secrets(&invocation, &[id.to_owned()], arguments.unredacted)?;
        let handle = run.job(id)?.launched.map(|launched| launched.handle).unwrap_or_default();
        Ok(Self {
            target: earlier::target(&invocation, &run.record)?,
            session: invocation.session().for_job(id),
            handle,
            redactor: invocation.redactor(),
            printed: BTreeMap::new(),
            streams: BTreeMap::new(),
        })
    }

    /// Prints what was not printed yet.
    async fn tell(&mut self) -> Result<bool, Failure> {
        let (sender, mut receiver) = mpsc::channel(256);
        let session = self.session.clone().telling(sender).within(Some(TELLING));
        let (target, handle) = (self.target.plugin.clone(), self.handle.clone());
        let telling = tokio::spawn(async move { target.job_logs(&session, &handle).await });
        let mut seen: BTreeMap<(u32, bool), usize> = BTreeMap::new();
        let mut read = true;
        while let Some(event) = receiver.recv().await {
            let PluginEvent::Output { node, stream, bytes } = event else { continue };
            let key = (node, matches!(stream, OutputStream::Stderr));
            let begin = *seen.get(&key).unwrap_or(&0);
            let known = self.printed.get(&key).copied().unwrap_or_default().saturating_sub(begin).min(bytes.len());
            let end = begin + bytes.len();
            seen.insert(key, end);
            let already = self.printed.entry(key).or_default();
            *already = end.max(*already);
            let redactor = &self.redactor;
            let stream = self.streams.entry(key).or_insert_with(|| redactor.stream());
            let news = stream.push(bytes.get(known..).unwrap_or_default());
            read &= print(&news);
        }
        let told = telling.await.map_err(|error| Failure::new(Exit::Failure, error))?;
        told.map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        Ok(read)
    }

    /// Whether there will be no more. Says the last bytes, which could have begun a secret.
    async fn ended(&mut self) -> bool {
        let status = self.target.plugin.job_status(&self.session, &self.handle).await;
        status.is_ok_and(|status| status.ending.is_some())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        for stream in std::mem::take(&mut self.streams).into_values() {
            print(&stream.finish());
        }
    }
}
