//! The one event stream: it feeds the terminal, `events.jsonl` and machine-readable output. Printing decides nothing.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gravity {
    /// For those who ask.
    Debug,
    /// Good to know.
    Info,
    /// Something to look at.
    Warning,
    /// Something went wrong.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Its id.
        run: String,
        /// Its directory.
        directory: PathBuf,
        /// How many jobs it has.
        jobs: usize,
    },
    /// An image is being made.
    BuildStarted {
        /// The image's name.
        image: String,
        /// The model it is for.
        model: String,
        /// Where its output goes.
        log: PathBuf,
    },
    /// An image is there, or is not.
    BuildEnded {
        /// The image's name.
        image: String,
        /// The model it is for.
        model: String,
        /// Seconds.
        seconds: f64,
        /// Why not.
        error: Option<String>,
    },
    /// A job began.
    JobStarted {
        /// The job's id in the run.
        job: String,
        /// Its model.
        model: String,
        /// Where its output goes.
        log: PathBuf,
    },
    /// A job moved on.
    JobState {
        /// The job's id in the run.
        job: String,
        /// Where it is.
        phase: Cow<'static, str>,
        /// The engine's word.
        reason: String,
    },
    /// A job has a verdict.
    JobEnded {
        /// The job's id in the run.
        job: String,
        /// Its model.
        model: String,
        /// `SUCCESS`, `FAILURE` or `SKIPPED`.
        status: Cow<'static, str>,
        /// Why, where it is no success.
        reason: Option<String>,
        /// Seconds.
        seconds: Option<f64>,
    },
    /// How far an activity of a job or build is.
    Progress {
        /// The job's id or image's name.
        of: String,
        /// What is going on.
        activity: String,
        /// Done so far.
        done: Option<u64>,
        /// In all.
        total: Option<u64>,
    },
    /// Bytes of a job or build. Not written to `events.jsonl`: the logs have them.
    #[serde(skip)]
    Output {
        /// The job's id or image's name.
        of: String,
        /// As written.
        bytes: Vec<u8>,
    },
    /// A line for a person.
    Message {
        /// How grave.
        gravity: Gravity,
        /// What it is about: a job's id, a plugin's name; empty for the run.
        about: String,
        /// The line.
        text: String,
    },
    /// Nobody attends the run any more, and its jobs go on.
    RunLeft {
        /// Its id.
        run: String,
        /// Jobs that go on.
        launched: usize,
        /// Jobs that were never launched.
        unlaunched: usize,
    },
    /// Somebody attends a run that was left.
    RunResumed {
        /// Its id.
        run: String,
        /// The command that does.
        by: String,
    },
    /// A run ended.
    RunEnded {
        /// Its id.
        run: String,
        /// Jobs with a verdict of success or skipped.
        succeeded: usize,
        /// The others.
        failed: usize,
    },
}

/// Somebody who hears every event, in order.
pub trait Listener: Send + Sync {
    /// Called for each event; must not block for long.
    fn hear(&self, event: &Event);
}

/// Where events are sent to.
#[derive(Clone, Default)]
pub struct Stream {
    listeners: Vec<Arc<dyn Listener>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("listeners", &self.listeners.len()).finish()
    }
}

impl Stream {
    /// A stream with one listener.
    #[must_use]
    pub fn to(listener: Arc<dyn Listener>) -> Self {
        Self { listeners: vec![listener] }
    }

    /// The same stream with one more listener.
    #[must_use]
    pub fn and(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Tells everybody.
    pub fn emit(&self, event: &Event) {
        for listener in &self.listeners {
            listener.hear(event);
        }
    }

    /// Tells everybody a line.
    pub fn say(&self, gravity: Gravity, about: &str, text: impl Into<String>) {
        self.emit(&Event::Message { gravity, about: about.to_owned(), text: text.into() });
    }
}
