//! `events`: what a plugin tells the kernel. Always granted, and bounded by the ceiling on log bytes.

use maddock_bindings::api::events::{self, Level, Phase};
use maddock_bindings::api::types::{Entry, OutputStream};

use crate::plugin::State;

/// One thing that a plugin told.
#[derive(Debug, Clone)]
pub enum PluginEvent {
    /// A line for a person.
    Log {
        /// How grave.
        level: Level,
        /// Without control characters.
        message: String,
        /// For machines.
        fields: Vec<(String, String)>,
    },
    /// Bytes of the job.
    Output {
        /// From 0.
        node: u32,
        /// Which stream.
        stream: OutputStream,
        /// As written.
        bytes: Vec<u8>,
    },
    /// The job moved on.
    State {
        /// Where it is.
        phase: Phase,
        /// The engine's word.
        reason: String,
    },
    /// How far an activity is.
    Progress {
        /// What is going on.
        activity: String,
        /// Done so far.
        done: Option<u64>,
        /// In all.
        total: Option<u64>,
        /// Of what.
        unit: String,
    },
}

/// Bytes of one message that are kept: it is a line for a person.
const LONGEST: usize = 16 << 10;

/// What could drive a terminal or pass for another line: control characters of C0 and C1, what turns the direction of text,
/// and what parts lines.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces what [`is_hostile`], but for tabs.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_hostile(c) && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The same for one message of a plugin: what is longer than a person reads is cut, and says so.
fn message_of(text: &str) -> String {
    cut(&printable(text), LONGEST)
}

/// So many bytes of a text at most, and how many it had.
#[must_use]
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len())
}

/// The same for what may have several lines: those after the first are set in, so that none of them can pass for another
/// message.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n  ")
}

impl State {
    async fn tell(&mut self, size: usize, event: PluginEvent) -> wasmtime::Result<()> {
        self.charge_log(size)?;
        // Nobody listening is fine: `describe` and `plan` have no audience.
        let _ = self.events.send(event).await;
        Ok(())
    }
}

impl events::Host for State {
    async fn log(&mut self, level: Level, message: String, fields: Vec<Entry>) -> wasmtime::Result<()> {
        let told: usize = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
        let told = told.saturating_add(message.len());
        let fields = fields.into_iter().map(|field| (message_of(&field.name), message_of(&field.value))).collect();
        self.tell(told, PluginEvent::Log { level, message: message_of(&message), fields }).await
    }

    async fn output(&mut self, node: u32, stream: OutputStream, bytes: Vec<u8>) -> wasmtime::Result<()> {
        self.tell(bytes.len(), PluginEvent::Output { node, stream, bytes }).await
    }

    async fn state(&mut self, phase: Phase, reason: String) -> wasmtime::Result<()> {
        self.tell(reason.len(), PluginEvent::State { phase, reason: message_of(&reason) }).await
    }

    async fn progress(
        &mut self,
        activity: String,
        done: Option<u64>,
        total: Option<u64>,
        unit: String,
    ) -> wasmtime::Result<()> {
        let told = activity.len().saturating_add(unit.len());
        let (activity, unit) = (message_of(&activity), message_of(&unit));
        self.tell(told, PluginEvent::Progress { activity, done, total, unit }).await
    }
}

impl maddock_bindings::api::types::Host for State {}
