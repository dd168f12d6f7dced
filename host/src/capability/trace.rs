//! The record of host calls: one JSON object a line, allowed and denied alike, never a secret's value.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::gate::Identity;
use super::tape::Recorder;

/// Version of the line format; readers refuse others.
pub const VERSION: u32 = 1;

/// The file in the run's directory.
pub const FILE: &str = "trace.jsonl";
/// What the file was before it grew too large.
const EARLIER: &str = "trace.1.jsonl";
/// Bytes of each of the two.
const PIECE: u64 = 64 << 20;

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was allowed and did not work.
    Error(String),
    /// It was refused.
    Denied,
    /// The caller went away before there was an answer: cancelled, or the plugin was ended.
    Abandoned,
}

/// One host call.
#[derive(Debug, Clone)]
pub struct Record {
    /// Who asked.
    pub plugin: Arc<Identity>,
    /// Such as `docker.create-container`.
    pub call: Cow<'static, str>,
    /// What it wanted to touch.
    pub scope: Vec<(&'static str, String)>,
    /// The deciding rule as file:line.
    pub rule: Arc<str>,
    /// How it went.
    pub outcome: Outcome,
    /// From permit to answer.
    pub duration: Duration,
}

/// A file that is put aside when it has its size: what was put aside before goes then, and a line says so.
#[derive(Debug)]
struct Pieces {
    path: PathBuf,
    file: File,
    written: u64,
    most: u64,
}

impl Pieces {
    fn open(path: &Path, most: u64) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written, most })
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.written.saturating_add(length) > self.most && self.written > 0 {
            let earlier = self.path.with_file_name(EARLIER);
            let dropped = earlier.metadata().map(|earlier| earlier.len()).unwrap_or_default();
            std::fs::rename(&self.path, &earlier)?;
            *self = Self::open(&self.path, self.most)?;
            if dropped > 0 {
                let mark = format!("{}\n", json!({"v": VERSION, "dropped": dropped}));
                self.file.write_all(mark.as_bytes())?;
            }
        }
        self.file.write_all(line)?;
        self.written = self.written.saturating_add(length);
        Ok(())
    }
}

/// Where records go. Without a file they are dropped: commands that belong to no run have no trace.
#[derive(Debug, Default)]
pub struct Trace {
    file: Option<Mutex<Pieces>>,
    run: String,
    recorder: Option<Arc<Recorder>>,
}

impl Trace {
    /// A trace that keeps nothing.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A trace that appends to a file.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn to_file(path: &Path, run: &str) -> std::io::Result<Arc<Self>> {
        let pieces = Pieces::open(path, PIECE)?;
        Ok(Arc::new(Self { file: Some(Mutex::new(pieces)), run: run.to_owned(), recorder: None }))
    }

    /// The same with a recording beside it.
    #[must_use]
    pub fn recording(self: Arc<Self>, recorder: Option<Arc<Recorder>>) -> Arc<Self> {
        Arc::try_unwrap(self).map(|trace| Arc::new(Self { recorder, ..trace })).unwrap_or_else(|shared| shared)
    }

    /// Where bodies go, where they go anywhere.
    #[must_use]
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// Writes one record as one line with one write, so that lines of several writers never mix.
    pub fn append(&self, record: &Record) {
        let Some(file) = &self.file else { return };
        let mut scope = Map::new();
        for (name, value) in &record.scope {
            match scope.get_mut(*name) {
                None => {
                    scope.insert((*name).to_owned(), Value::String(value.clone()));
                }
                Some(Value::Array(values)) => values.push(Value::String(value.clone())),
                Some(single) => *single = Value::Array(vec![single.take(), Value::String(value.clone())]),
            }
        }
        let (verdict, outcome, error) = match &record.outcome {
            Outcome::Ok => ("allowed", "ok", None),
            Outcome::Error(message) => ("allowed", "error", Some(message)),
            Outcome::Denied => ("denied", "denied", None),
            Outcome::Abandoned => ("allowed", "abandoned", None),
        };
        let mut line = json!({
            "v": VERSION,
            "time": jiff::Timestamp::now().to_string(),
            "run": self.run,
            "plugin": record.plugin.name,
            "digest": record.plugin.digest,
            "call": record.call,
            "scope": scope,
            "verdict": verdict,
            "rule": &*record.rule,
            "outcome": outcome,
            "us": u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        });
        if let (Some(error), Some(object)) = (error, line.as_object_mut()) {
            object.insert("error".to_owned(), Value::String(error.clone()));
        }
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not end the run: the row says what happened, the trace is evidence about it.
        let _ = file.append(format!("{line}\n").as_bytes());
    }
}

/// The lines of a run's trace, the older piece first where it has two.
///
/// # Errors
/// It is not there or cannot be read.
pub fn read(directory: &Path) -> std::io::Result<String> {
    let earlier = std::fs::read(directory.join(EARLIER)).unwrap_or_default();
    let bytes = [earlier, std::fs::read(directory.join(FILE))?].concat();
    // A line that was cut off by a kill may end in the middle of a character.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_grows_is_put_aside_once_and_says_what_went() {
        let place = tempfile::tempdir().unwrap();
        let mut pieces = Pieces::open(&place.path().join(FILE), 100).unwrap();
        for number in 0..30 {
            pieces.append(format!("{{\"line\": {number:010}}}\n").as_bytes()).unwrap();
        }
        let text = read(place.path()).unwrap();
        assert!(text.len() < 300, "{text}");
        assert!(text.ends_with("0000000029}\n") && text.contains("dropped"), "{text}");
    }
}
