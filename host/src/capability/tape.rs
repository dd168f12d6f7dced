//! What plugins ask and are answered, recorded so that a run can be played again with nothing there to ask.
//!
//! The trace says what was asked for and decided; the recording beside it says what came of it, to the byte. Every call of a
//! plugin has a tape: it records, or it plays back, or it is off. Between the plugin and the host functions lies one table
//! (`table.rs`) which knows all of them, so that none can be forgotten.

pub mod body;
mod clock;
pub mod playback;
pub mod recorder;
pub mod recording;
mod table;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::ApiError;
pub(crate) use clock::{Monotonic, Wall};
pub use playback::Playback;
use recorder::{Pending, Take};
pub use recorder::{Recorder, forget_older};
pub use recording::Recording;
pub(crate) use table::HasTape;
pub use table::{FUNCTIONS, Taped};

/// The tape of one call of a plugin.
#[derive(Debug, Clone, Default)]
pub enum Tape {
    /// Nothing is recorded.
    #[default]
    Off,
    /// What is asked and answered goes into the recording.
    Records(Arc<Take>),
    /// Answers come from a recording; no host function is called.
    Plays(Arc<Playback>),
}

/// How a call of a plugin ended.
#[derive(Debug, Clone, Copy)]
pub enum End<'a, T> {
    /// It answered.
    Answered(&'a T),
    /// It answered with an error of its own.
    Refused(&'a ApiError),
    /// It trapped, or reached a ceiling.
    Ended(&'a str),
    /// The host did not wait any longer.
    Late(&'a str),
}

impl<T: Serialize> End<'_, T> {
    fn body(&self, writer: &body::Writer<'_>) -> Result<Value, body::BodyError> {
        Ok(match self {
            Self::Answered(answer) => json!({"ok": writer.body(*answer)?}),
            Self::Refused(error) => json!({"error": writer.body(*error)?}),
            Self::Ended(message) => json!({"ended": writer.body(*message)?}),
            Self::Late(message) => json!({"late": writer.body(*message)?}),
        })
    }
}

impl Tape {
    /// The call has come to its end. A tape that records and is dropped without it says so.
    pub fn end<T: Serialize>(&self, end: &End<'_, T>) {
        match self {
            Self::Off => {}
            Self::Records(take) => take.end(end),
            Self::Plays(playback) => playback.end(end),
        }
    }
}

/// What happens to one host call.
enum Turn {
    /// It is made, and recorded if there is somebody to.
    Live(Option<Pending>),
    /// It has been made: this is its answer.
    Played(Value),
}

impl Turn {
    fn of(
        tape: &Tape,
        function: &'static str,
        arguments: impl FnOnce(&mut Arguments<'_>) -> Result<(), body::BodyError>,
    ) -> wasmtime::Result<Self> {
        Ok(match tape {
            Tape::Off => Self::Live(None),
            Tape::Records(take) => Self::Live(take.ask(function, arguments)),
            Tape::Plays(playback) => Self::Played(playback.ask(function, arguments)?),
        })
    }
}

/// The arguments of one host call on their way into a body.
pub(crate) struct Arguments<'a> {
    writer: body::Writer<'a>,
    bodies: Vec<Value>,
}

impl<'a> Arguments<'a> {
    fn new(writer: body::Writer<'a>) -> Self {
        Self { writer, bodies: Vec::new() }
    }

    pub(crate) fn push<T: Serialize + ?Sized>(&mut self, argument: &T) -> Result<(), body::BodyError> {
        self.bodies.push(self.writer.body(argument)?);
        Ok(())
    }
}

/// `docker.build_image` in the words of the WIT file.
fn in_wit(function: &str) -> String {
    function.replace('_', "-")
}

#[cfg(test)]
mod tests;
