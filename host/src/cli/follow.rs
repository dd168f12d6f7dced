//! Seeing what another process does with a run: its events and the jobs' logs, as they are written into the run's directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pipeline::event::{Event, Stream};
use crate::results::attendance;
use crate::results::run_directory::RunDirectory;

/// How often the files are looked at: people cannot tell it from at once, and it costs next to nothing.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What is read of a file at a time.
const BATCH: u64 = 1 << 20;

/// A file that others append to. It may not be there yet, and it may be written anew.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    file: Option<File>,
}

impl Growing {
    /// From its beginning.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// What has come since the last time, a part of it where it is much.
    pub fn news(&mut self) -> Vec<u8> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            // A file that cannot be read now may be next time.
            let _ = file.take(BATCH).read_to_end(&mut bytes);
        }
        bytes
    }
}

/// The events of a run, as another process writes them.
#[derive(Debug)]
pub struct Events {
    file: Growing,
    rest: Vec<u8>,
    /// The logs of the jobs that have begun, where their output is wanted.
    logs: Option<BTreeMap<String, Growing>>,
}

impl Events {
    /// All that there were and will be.
    #[must_use]
    pub fn of(directory: &RunDirectory, live: bool) -> Self {
        let file = Growing::new(directory.path().join("events.jsonl"));
        Self { file, rest: Vec::new(), logs: live.then(BTreeMap::new) }
    }

    /// Tells what has come since the last time. Answers whether there was anything.
    pub fn tell(&mut self, events: &Stream) -> bool {
        let mut news = self.file.news();
        let mut any = !news.is_empty();
        self.rest.append(&mut news);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            // Another version may know events that this one does not.
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            if let (Event::JobStarted { job, log, .. }, Some(logs)) = (&event, &mut self.logs) {
                logs.insert(job.clone(), Growing::new(log.clone()));
            }
            events.emit(&event);
        }
        for (job, log) in self.logs.iter_mut().flatten() {
            let bytes = log.news();
            any |= !bytes.is_empty();
            if !bytes.is_empty() {
                events.emit(&Event::Output { of: job.clone(), bytes });
            }
        }
        any
    }

    /// Tells what comes until nobody attends the run any more, or this process is stopped: then false.
    pub async fn until_left(&mut self, run: &Path, events: &Stream, stop: &CancellationToken) -> bool {
        loop {
            let attended = !matches!(attendance::attendant(run), Ok(None));
            // Looked at after that, so that the last words are heard.
            while self.tell(events) {}
            if !attended {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return false,
            }
        }
    }
}

/// Prints bytes on stdout. Whoever closed the pipe has read enough: then false.
pub fn print(bytes: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}
