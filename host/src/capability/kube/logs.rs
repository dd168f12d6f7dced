//! Follows what the pods of a Job write: of each that is there and each that comes, from its beginning to its end.
//!
//! When there is something to read, and whether it was all, is what the watch says; nobody is asked again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use maddock_bindings::api::kube::{LogChunk, LogEnd, LogEvent};
use maddock_bindings::api::types::ErrorKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cluster::Client;
use super::position::{Position, Reader};
use super::trouble;
use super::watch::{Standing, Watch};
use crate::capability::{ApiError, error};

/// Events that wait for a plugin that is busy; then the readers wait.
const WAITING: usize = 64;
/// For an API server that does not answer, as long as for the watch.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// A connection over which nothing comes for so long is made anew: it may be dead, and the job may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// For the stream to begin.
const OPENING: Duration = Duration::from_secs(30);
/// A container has ended, and its stream has not: what is left comes within.
const REST: Duration = Duration::from_secs(15);
const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);

/// The pulling side. Dropping it ends the readers.
pub(super) struct Logs {
    told: mpsc::Receiver<LogEvent>,
    _tasks: JoinSet<()>,
}

impl Logs {
    /// Begins to follow.
    pub(super) fn begin(client: Client, watch: Arc<Watch>, job: &str, container: &str) -> Self {
        let (tell, told) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let follow = Follow { client, watch, job: job.to_owned(), container: container.to_owned(), tell };
        tasks.spawn(follow.pods());
        Self { told, _tasks: tasks }
    }

    pub(super) async fn next(&mut self, limit: Duration) -> Result<LogEvent, ApiError> {
        match tokio::time::timeout(limit, self.told.recv()).await {
            Err(_) => Ok(LogEvent::Idle),
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(error(ErrorKind::Failed, "the host's readers ended without an answer")),
        }
    }
}

#[derive(Clone)]
struct Follow {
    client: Client,
    watch: Arc<Watch>,
    job: String,
    container: String,
    tell: mpsc::Sender<LogEvent>,
}

impl Follow {
    /// A reader for each pod, as they come.
    async fn pods(self) {
        let mut turns = self.watch.subscribe();
        let mut known = BTreeSet::new();
        let mut readers = JoinSet::new();
        loop {
            turns.borrow_and_update();
            for (uid, name, index) in self.watch.pods(&self.job) {
                if known.insert(uid.clone()) {
                    let pod =
                        PodReader { follow: self.clone(), uid, name, index, position: Position::default(), gap: false };
                    readers.spawn(pod.run());
                }
            }
            while readers.try_join_next().is_some() {}
            tokio::select! {
                changed = turns.changed() => if changed.is_err() { return },
                () = self.tell.closed() => return,
            }
        }
    }
}

struct PodReader {
    follow: Follow,
    uid: String,
    name: String,
    index: u32,
    position: Position,
    /// Something was thrown away before it could be read.
    gap: bool,
}

/// Which run of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one now, to its end.
    Following,
    /// The one now, as far as it has come.
    SoFar,
    /// The one before.
    Previous,
}

impl PodReader {
    async fn run(mut self) {
        let (complete, reason) = match self.read_all().await {
            Ok(()) if self.gap => (false, "some of it was thrown away by its node before it was read".to_owned()),
            Ok(()) => (true, String::new()),
            Err(reason) => (false, reason),
        };
        let end = LogEnd { index: self.index, pod: self.name.clone(), complete, reason };
        // A plugin that went away needs no end.
        let _ = self.follow.tell.send(LogEvent::End(end)).await;
    }

    fn standing(&self) -> Standing {
        self.follow.watch.standing(&self.follow.job, &self.uid, &self.follow.container)
    }

    /// Reads every run of the container. An error says what was not read.
    async fn read_all(&mut self) -> Result<(), String> {
        let mut turns = self.follow.watch.subscribe();
        let mut run: Option<u32> = None;
        // The run that has ended and was read to its end.
        let mut settled: Option<u32> = None;
        // The run whose stream the server has ended by itself.
        let mut ended: Option<u32> = None;
        let mut pause = LEAST;
        let mut away: Option<Instant> = None;
        loop {
            turns.borrow_and_update();
            let standing = self.standing();
            if !standing.started {
                if standing.over {
                    // It never began, and wrote nothing.
                    return Ok(());
                }
                let _ = turns.changed().await;
                continue;
            }
            // What runs before the last two wrote is with nobody any more.
            self.gap |= run.is_none() && standing.restarts > 1;
            let latest = *run.get_or_insert(standing.restarts.saturating_sub(1));
            let outcome = if standing.restarts > latest {
                // What the run before wrote to its end, unless two have come and gone since.
                self.gap |= standing.restarts > latest.saturating_add(1);
                let read = self.read(Which::Previous).await.map(|_| ());
                if read.is_ok() || read.as_ref().is_err_and(|error| !trouble::may_pass(error)) {
                    run = Some(standing.restarts);
                    self.position_of_new_run();
                }
                match read {
                    // Its node has thrown it away.
                    Err(error) if !trouble::may_pass(&error) => {
                        self.gap |= ended != Some(latest) && settled != Some(latest);
                        Ok(())
                    }
                    read => read,
                }
            } else if standing.running {
                let read = self.read(Which::Following).await;
                if let Ok(true) = read {
                    ended = Some(standing.restarts);
                }
                read.map(|_| ())
            } else {
                if settled == Some(standing.restarts) && !standing.over {
                    // It waits to be started again.
                    let _ = turns.changed().await;
                    continue;
                }
                let read = self.read(Which::SoFar).await.map(|_| ());
                if read.is_ok() && standing.over && self.standing().restarts == standing.restarts {
                    return Ok(());
                }
                if read.is_ok() {
                    settled = Some(standing.restarts);
                }
                read
            };
            match outcome {
                Ok(()) => {
                    away = None;
                    pause = LEAST;
                    if standing.running && self.standing() == standing {
                        // The stream ends a little before the watch says why.
                        let _ = tokio::time::timeout(LEAST, turns.changed()).await;
                    }
                }
                Err(error) => {
                    let passes = trouble::may_pass(&error);
                    // A container that is just being made has no output yet, and one that was refused once may be there.
                    let early = matches!(error.kind, ErrorKind::InvalidInput);
                    let gone = matches!(error.kind, ErrorKind::NotFound);
                    if (gone && self.standing().gone) || (standing.gone && !passes) {
                        return Err("the pod was deleted before its output had been read to its end".to_owned());
                    }
                    let since = *away.get_or_insert_with(Instant::now);
                    if since.elapsed() >= if passes || early { PATIENCE } else { MOST * 6 } {
                        return Err(error.message);
                    }
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(MOST);
                }
            }
        }
    }

    /// A new run writes a new log.
    fn position_of_new_run(&mut self) {
        self.position = Position::default();
    }

    /// Reads on from the position. Says whether the server ended the stream, rather than this side.
    async fn read(&mut self, which: Which) -> Result<bool, ApiError> {
        let api: Api<Pod> = Api::namespaced(self.follow.client.api.clone(), &self.follow.client.place.namespace);
        let doing = format!("cannot read the output of pod `{}`", self.name);
        let since = self.position.since().and_then(|second| k8s_openapi::jiff::Timestamp::from_second(second).ok());
        let parameters = LogParams {
            container: Some(self.follow.container.clone()),
            follow: which == Which::Following,
            previous: which == Which::Previous,
            since_time: since,
            timestamps: true,
            ..LogParams::default()
        };
        let opened = match tokio::time::timeout(OPENING, api.log_stream(&self.name, &parameters)).await {
            Ok(opened) => opened.map_err(|cause| trouble::of(&doing, cause))?,
            Err(_) => return Err(error(ErrorKind::Unavailable, format!("{doing}: the API server did not answer"))),
        };
        let mut reader = Reader::new(self.position);
        let answer = self.pump(&mut reader, &mut Box::pin(opened), which, &doing).await;
        self.position = reader.position();
        self.gap |= reader.has_gap();
        match (answer, reader.said()) {
            (Ok(true), Some(said)) => {
                let said = crate::capability::events::printable(&said);
                Err(error(ErrorKind::Failed, format!("{doing}: its node says: {said}")))
            }
            (answer, _) => answer,
        }
    }

    async fn pump(
        &self,
        reader: &mut Reader,
        stream: &mut (impl AsyncBufRead + Unpin),
        which: Which,
        doing: &str,
    ) -> Result<bool, ApiError> {
        loop {
            let limit = if which == Which::Following { self.patience_with_silence() } else { OPENING };
            let bytes = match tokio::time::timeout(limit, stream.fill_buf()).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(cause)) => return Err(error(ErrorKind::Unavailable, format!("{doing}: {cause}"))),
                Err(_) if which == Which::Following => return Ok(false),
                Err(_) => return Err(error(ErrorKind::Unavailable, format!("{doing}: nothing comes any more"))),
            };
            if bytes.is_empty() {
                return Ok(true);
            }
            let (fresh, read) = (reader.read(bytes), bytes.len());
            stream.consume_unpin(read);
            if !fresh.is_empty() {
                let chunk = LogChunk { index: self.index, pod: self.name.clone(), bytes: fresh };
                if self.follow.tell.send(LogEvent::Chunk(chunk)).await.is_err() {
                    return Err(error(ErrorKind::Cancelled, "nobody follows any more"));
                }
            }
        }
    }

    fn patience_with_silence(&self) -> Duration {
        if self.standing().running { SILENCE } else { REST }
    }
}
