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

/// Replaces what could drive a terminal: C0 and C1 control characters (but tab), and bidirectional overrides.
#[must_use]
pub fn printable(text: &str) -> String {
    let hostile =
        |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hostile(c) { '\u{fffd}' } else { c }).collect()
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
        let fields = fields.into_iter().map(|field| (printable(&field.name), printable(&field.value))).collect();
        let message = printable(&message);
        self.tell(told + message.len(), PluginEvent::Log { level, message, fields }).await
    }

    async fn output(&mut self, node: u32, stream: OutputStream, bytes: Vec<u8>) -> wasmtime::Result<()> {
        self.tell(bytes.len(), PluginEvent::Output { node, stream, bytes }).await
    }

    async fn state(&mut self, phase: Phase, reason: String) -> wasmtime::Result<()> {
        let reason = printable(&reason);
        self.tell(reason.len(), PluginEvent::State { phase, reason }).await
    }

    async fn progress(
        &mut self,
        activity: String,
        done: Option<u64>,
        total: Option<u64>,
        unit: String,
    ) -> wasmtime::Result<()> {
        let activity = printable(&activity);
        self.tell(activity.len() + unit.len(), PluginEvent::Progress { activity, done, total, unit: printable(&unit) })
            .await
    }
}

impl maddock_bindings::api::types::Host for State {}
