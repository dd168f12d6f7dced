//! Writes recordings: one JSON object a line, one write a line, so that a run that is killed leaves all that was answered.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::body::{BodyError, Writer};
use super::clock::Reading;
use super::{Arguments, End, in_wit};
use crate::capability::ApiError;
use crate::capability::gate::Identity;
use crate::results::attendance;
use crate::results::redact::Redactor;
use crate::results::run_directory::RunDirectory;

/// Version of the line format; readers refuse others.
pub const VERSION: u32 = 1;
/// The file in the run's directory.
pub const FILE: &str = "recording.jsonl";
/// Bytes that the recording of one run may have.
pub const LIMIT: u64 = 64 << 20;
/// How many of the newest runs keep theirs.
pub const KEPT: usize = 20;
/// Looks at a clock between two host calls that are kept.
const LOOKS: usize = 100_000;

/// The recording of one run, as this process writes it.
#[derive(Debug)]
pub struct Recorder {
    place: Mutex<Place>,
    redactor: Redactor,
    /// Tells the calls of this process from those of another one that works on the same run.
    writer: String,
    calls: AtomicU64,
    limit: u64,
}

#[derive(Debug)]
struct Place {
    file: File,
    written: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A line did not get onto the disk; that it did not is still to be said.
    Broken(String),
    Over,
}

impl Recorder {
    /// Appends to the recording of a run. Values that the redactor knows never reach it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(directory: &Path, run: &str, redactor: Redactor, limit: u64) -> std::io::Result<Arc<Self>> {
        let path = directory.join(FILE);
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        let now = jiff::Timestamp::now();
        let writer = format!("{:x}-{:x}", std::process::id(), now.as_microsecond() & 0xff_ffff);
        let recorder = Self {
            place: Mutex::new(Place { file, written, state: State::Open }),
            redactor,
            writer,
            calls: AtomicU64::new(0),
            limit,
        };
        recorder.write(&json!({
            "v": VERSION,
            "run": run,
            "writer": recorder.writer,
            "maddock": env!("CARGO_PKG_VERSION"),
            "time": now.to_string(),
            "limit": limit,
        }));
        Ok(Arc::new(recorder))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.place().state == State::Over
    }

    /// A full disk must not end the run: the recording ends, and says so as soon as it can.
    fn write(&self, line: &impl Serialize) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let mut place = self.place();
        match &place.state {
            State::Over => return,
            State::Broken(why) => {
                let mark = format!("\n{}\n", json!({"v": VERSION, "stopped": why}));
                if place.file.write_all(mark.as_bytes()).is_ok() {
                    place.state = State::Over;
                }
                return;
            }
            State::Open => {}
        }
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if place.written.saturating_add(length) > self.limit {
            let why = format!("it has {} bytes, and may have {}", place.written, self.limit);
            let mark = format!("{}\n", json!({"v": VERSION, "stopped": why}));
            place.state = match place.file.write_all(mark.as_bytes()) {
                Ok(()) => State::Over,
                Err(_) => State::Broken(why),
            };
            return;
        }
        match place.file.write_all(&text) {
            Ok(()) => place.written = place.written.saturating_add(length),
            Err(error) => place.state = State::Broken(format!("a line of it could not be written: {error}")),
        }
    }

    /// A call into a plugin begins.
    pub(crate) fn begin(
        self: &Arc<Self>,
        identity: &Identity,
        function: &str,
        job: Option<&str>,
        arguments: impl FnOnce(&mut Arguments<'_>) -> Result<(), BodyError>,
    ) -> Option<Arc<Take>> {
        if self.is_over() {
            return None;
        }
        let call = format!("{}.{}", self.writer, self.calls.fetch_add(1, Ordering::Relaxed));
        let mut told = Arguments::new(Writer::of_answers(&self.redactor));
        arguments(&mut told).ok()?;
        self.write(&json!({
            "call": call,
            "time": jiff::Timestamp::now().to_string(),
            "plugin": identity.name,
            "digest": identity.digest,
            "function": function,
            "job": job,
            "arguments": told.bodies,
            "masked": told.writer.masked(),
        }));
        Some(Arc::new(Take { recorder: self.clone(), call, progress: Mutex::default() }))
    }
}

/// One call into a plugin, as it goes on.
#[derive(Debug)]
pub struct Take {
    recorder: Arc<Recorder>,
    call: String,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    asked: u64,
    looks: Vec<Reading>,
    /// More looks than are kept.
    blind: bool,
    ended: bool,
}

impl Take {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look(&self, reading: Reading) -> Reading {
        let mut progress = self.progress();
        if progress.looks.len() < LOOKS {
            progress.looks.push(reading);
        } else {
            progress.blind = true;
        }
        reading
    }

    pub(super) fn ask(
        self: &Arc<Self>,
        function: &'static str,
        arguments: impl FnOnce(&mut Arguments<'_>) -> Result<(), BodyError>,
    ) -> Option<Pending> {
        if self.recorder.is_over() {
            return None;
        }
        let mut told = Arguments::new(Writer::of_requests(&self.recorder.redactor));
        // What cannot be told leaves a gap in the numbers, which the replay names.
        let told = arguments(&mut told).map(|()| (told.bodies, told.writer.masked()));
        let mut progress = self.progress();
        let number = progress.asked;
        progress.asked = progress.asked.saturating_add(1);
        let looks = std::mem::take(&mut progress.looks);
        let (ask, masked) = told.ok()?;
        Some(Pending {
            take: self.clone(),
            number,
            function,
            ask,
            masked,
            looks,
            began: Instant::now(),
            settled: false,
        })
    }

    pub(super) fn end<T: Serialize>(&self, end: &End<'_, T>) {
        let writer = Writer::of_answers(&self.recorder.redactor);
        match end.body(&writer) {
            Ok(body) => self.close(&body, writer.masked()),
            Err(error) => self.close(&json!({"unknown": error.to_string()}), false),
        }
    }

    fn close(&self, end: &Value, masked: bool) {
        let mut progress = self.progress();
        progress.ended = true;
        let mut line = json!({"call": self.call, "n": progress.asked, "end": end});
        add(&mut line, "clock", &progress.looks, !progress.looks.is_empty());
        add(&mut line, "blind", &true, progress.blind);
        add(&mut line, "masked", &true, masked);
        self.recorder.write(&line);
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        if !self.progress().ended {
            self.close(&json!("abandoned"), false);
        }
    }
}

fn add(line: &mut Value, name: &str, value: &impl Serialize, wanted: bool) {
    if let (true, Some(members), Ok(value)) = (wanted, line.as_object_mut(), serde_json::to_value(value)) {
        members.insert(name.to_owned(), value);
    }
}

/// The line of a host call.
#[derive(Serialize)]
struct HostLine<'a> {
    call: &'a str,
    n: u64,
    host: &'a str,
    ask: &'a [Value],
    us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    clock: &'a [Reading],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    masked: bool,
}

/// A host call that has been asked and not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    take: Arc<Take>,
    number: u64,
    function: &'static str,
    ask: Vec<Value>,
    masked: bool,
    looks: Vec<Reading>,
    began: Instant,
    settled: bool,
}

impl Pending {
    fn close(&mut self, answer: Option<Value>, masked: bool) {
        self.settled = true;
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.take.recorder.write(&HostLine {
            call: &self.take.call,
            n: self.number,
            host: &in_wit(self.function),
            ask: &self.ask,
            us: micros,
            answer: answer.as_ref(),
            clock: &self.looks,
            masked: masked || self.masked,
        });
    }

    pub(super) fn answered(mut self, answer: impl FnOnce(&Writer<'_>) -> Result<Value, BodyError>) {
        let take = self.take.clone();
        let writer = Writer::of_answers(&take.recorder.redactor);
        let body = answer(&writer).ok();
        self.close(body, writer.masked());
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.settled {
            self.close(None, false);
        }
    }
}

/// The body of what a host function answers.
pub(super) fn answer_body<T: Serialize>(
    answer: &wasmtime::Result<Result<T, ApiError>>,
    writer: &Writer<'_>,
) -> Result<Value, BodyError> {
    Ok(match answer {
        Ok(Ok(answer)) => json!({"ok": writer.body(answer)?}),
        Ok(Err(error)) => json!({"error": writer.body(error)?}),
        Err(ended) => json!({"ends": writer.body(&ended.to_string())?}),
    })
}

/// Removes the recordings of all runs of a directory but the newest. Traces, rows and logs stay.
pub fn forget_older(output: &Path) {
    let Ok(runs) = RunDirectory::list(output) else { return };
    for id in runs.iter().rev().skip(KEPT) {
        let Ok(directory) = RunDirectory::open(output, id) else { continue };
        let file = directory.path().join(FILE);
        if file.is_file() && matches!(attendance::attendant(directory.path()), Ok(None)) {
            let _ = std::fs::remove_file(file);
        }
    }
}
