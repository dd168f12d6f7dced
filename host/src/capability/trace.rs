//! The record of host calls: one JSON object a line, allowed and denied alike, never a secret's value.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::gate::Identity;

/// Version of the line format; readers refuse others.
pub const VERSION: u32 = 1;

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

/// Where records go. Without a file they are dropped: commands that belong to no run have no trace.
#[derive(Debug, Default)]
pub struct Trace {
    file: Option<Mutex<File>>,
    run: String,
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
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Arc::new(Self { file: Some(Mutex::new(file)), run: run.to_owned() }))
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
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
