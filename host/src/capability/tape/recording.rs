//! Reads recordings, also those that a kill has cut off, and says what is not whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::clock::Reading;
use super::recorder::{FILE, VERSION};

/// One host call of a recording.
#[derive(Debug, Clone, Default)]
pub struct HostCall {
    /// Its place in the call of the plugin, from 0.
    pub number: u64,
    /// Such as `docker.create-container`.
    pub function: String,
    /// Its arguments.
    pub ask: Value,
    /// None: there was none before the call ended.
    pub answer: Option<Value>,
    /// Looks at a clock since the host call before.
    pub clock: Vec<Reading>,
    /// Microseconds.
    pub micros: u64,
    /// A secret was blotted out.
    pub masked: bool,
}

/// How the call of a plugin ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// How many host calls it had.
    pub calls: u64,
    /// `{"ok": …}`, `{"error": …}`, `{"ended": …}`, `{"late": …}` or `"abandoned"`.
    pub body: Value,
    /// Looks at a clock since the last host call.
    pub clock: Vec<Reading>,
}

/// One call of a plugin.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Its name in the recording.
    pub id: String,
    /// When it began.
    pub time: String,
    /// The plugin.
    pub plugin: String,
    /// Of its component.
    pub digest: String,
    /// Such as `target.launch`.
    pub function: String,
    /// The job that it was for.
    pub job: Option<String>,
    /// Its arguments.
    pub arguments: Vec<Value>,
    /// In order.
    pub host_calls: Vec<HostCall>,
    /// None: the recording does not reach it.
    pub end: Option<Ending>,
    /// A secret was blotted out somewhere.
    pub masked: bool,
    /// It looked at a clock more often than is kept.
    pub blind: bool,
}

impl Call {
    /// The first host call that is not there though a later one is.
    #[must_use]
    pub fn gap(&self) -> Option<u64> {
        let numbers = (0..).zip(&self.host_calls);
        let gap = numbers.into_iter().find(|(place, call): &(u64, _)| call.number != *place).map(|(place, _)| place);
        let there = u64::try_from(self.host_calls.len()).unwrap_or(u64::MAX);
        gap.or_else(|| self.end.as_ref().is_some_and(|end| end.calls > there).then_some(there))
    }

    /// Whether its recorded end is one that the plugin came to by itself.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.body.get("ok").is_some() || end.body.get("error").is_some())
    }
}

/// The recording of a run.
#[derive(Debug, Default)]
pub struct Recording {
    /// In the order in which they began.
    pub calls: Vec<Call>,
    /// Why it stopped before the run did.
    pub stopped: Option<String>,
    /// Its last line is cut off.
    pub torn: bool,
    /// Lines that are none, by their numbers.
    pub damaged: Vec<usize>,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is not there.
    #[error("run {0} has no recording")]
    Missing(String),
    /// The file cannot be read.
    #[error("cannot read `{0}`: {1}")]
    Unreadable(String, io::Error),
    /// It is of another version of maddock.
    #[error("`{path}` has version {found}, this maddock reads {VERSION}")]
    Version {
        /// Which.
        path: String,
        /// Its version.
        found: u64,
    },
}

fn text(line: &Value, name: &str) -> String {
    line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(line: &Value, name: &str) -> bool {
    line.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn clock(line: &Value) -> Vec<Reading> {
    line.get("clock").and_then(|readings| serde_json::from_value(readings.clone()).ok()).unwrap_or_default()
}

impl Recording {
    /// The recording in a run's directory.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is of another version.
    pub fn read(directory: &Path) -> Result<Self, RecordingError> {
        let path = directory.join(FILE);
        let shown = path.display().to_string();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let run = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(RecordingError::Missing(run));
            }
            Err(error) => return Err(RecordingError::Unreadable(shown, error)),
        };
        let mut recording = Self::default();
        let mut places = BTreeMap::new();
        let whole = bytes.ends_with(b"\n");
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        for (index, line) in lines.iter().enumerate() {
            let last = index + 1 == lines.len();
            match serde_json::from_slice::<Value>(line) {
                Ok(line) => recording.take(line, &mut places, &shown)?,
                Err(_) if last && !whole => recording.torn = true,
                Err(_) => recording.damaged.push(index + 1),
            }
        }
        Ok(recording)
    }

    fn take(
        &mut self,
        mut line: Value,
        places: &mut BTreeMap<String, usize>,
        path: &str,
    ) -> Result<(), RecordingError> {
        if let Some(found) = line.get("v").and_then(Value::as_u64) {
            if found != u64::from(VERSION) {
                return Err(RecordingError::Version { path: path.to_owned(), found });
            }
            self.stopped = self.stopped.take().or_else(|| Some(text(&line, "stopped")).filter(|why| !why.is_empty()));
            return Ok(());
        }
        let id = text(&line, "call");
        if line.get("function").is_some() {
            places.insert(id.clone(), self.calls.len());
            self.calls.push(Call {
                id,
                time: text(&line, "time"),
                plugin: text(&line, "plugin"),
                digest: text(&line, "digest"),
                function: text(&line, "function"),
                job: line.get("job").and_then(Value::as_str).map(str::to_owned),
                arguments: line.get("arguments").and_then(Value::as_array).cloned().unwrap_or_default(),
                masked: flag(&line, "masked"),
                ..Call::default()
            });
            return Ok(());
        }
        // A line whose call's beginning is gone has nothing to be compared with.
        let Some(call) = places.get(&id).and_then(|place| self.calls.get_mut(*place)) else { return Ok(()) };
        let number = line.get("n").and_then(Value::as_u64).unwrap_or_default();
        call.masked |= flag(&line, "masked");
        call.blind |= flag(&line, "blind");
        let clock = clock(&line);
        if line.get("end").is_some() {
            let body = line.get_mut("end").map(Value::take).unwrap_or_default();
            call.end = Some(Ending { calls: number, body, clock });
        } else {
            call.host_calls.push(HostCall {
                number,
                function: text(&line, "host"),
                micros: line.get("us").and_then(Value::as_u64).unwrap_or_default(),
                masked: flag(&line, "masked"),
                clock,
                ask: line.get_mut("ask").map(Value::take).unwrap_or_default(),
                answer: line.get_mut("answer").map(Value::take),
            });
        }
        Ok(())
    }
}
