//! What can go wrong with a plugin, in sentences that name it.

use maddock_bindings::api::types;

use super::package::PackageError;
use crate::capability::events::printable;
use crate::results::redact::Redactor;

/// Characters of one message that are shown.
const SHOWN: usize = 1000;
/// Lines of one hint that are shown.
const HINT_LINES: usize = 60;

/// A plugin that could not be loaded, or that failed in a call.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The file is not there or cannot be read.
    #[error("plugin `{}`: cannot read it: {source}", told(.plugin))]
    Unreadable {
        /// File or name.
        plugin: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not a component, or a broken one.
    #[error("plugin `{}`: not a usable component: {}", told(.plugin), told(.message))]
    Malformed {
        /// File or name.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// The manifest is missing or wrong.
    #[error("plugin `{}`: manifest: {}", told(.plugin), told(.message))]
    Manifest {
        /// File or name.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// It was made for another interface, or imports something nobody offers.
    #[error("plugin `{}`: {}", told(.plugin), told(.message))]
    Incompatible {
        /// Name.
        plugin: String,
        /// Which import or version.
        message: String,
    },
    /// The store, the lock file, or what they should have.
    #[error("{}", told(&.0.message))]
    Package(#[from] PackageError),
    /// It trapped, or was ended at a ceiling.
    #[error("plugin `{}` failed in `{function}`: {}", told(.plugin), told(.message))]
    Ended {
        /// Name.
        plugin: String,
        /// The exported function.
        function: String,
        /// Trap, ceiling, or the panic's own message.
        message: String,
    },
    /// It answered with an error of its own.
    #[error("{}", answered(.plugin, .error))]
    Answered {
        /// Name.
        plugin: String,
        /// The exported function.
        function: String,
        /// What it said.
        error: Box<types::Error>,
    },
}

/// A text that a plugin had a hand in, as it may be shown: one line, nothing that drives a terminal, and not without end.
fn told(text: &str) -> String {
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let mut shown = printable(&line);
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// The same for what may have several lines, such as those that would allow something. Lines after the first are set in, so
/// that none of them can pass for one of ours.
fn told_in_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().take(HINT_LINES).map(told).collect();
    lines.join("\n  ")
}

fn answered(plugin: &str, error: &types::Error) -> String {
    let message = told(&error.message);
    // The gate's refusals name the plugin already; whatever else a plugin calls a refusal does not.
    let named = matches!(error.kind, types::ErrorKind::Denied) && message.contains(&format!("plugin `{plugin}`"));
    if named { message } else { format!("{plugin}: {message}") }
}

impl PluginError {
    /// Takes secrets out of what the plugin had a hand in.
    pub fn hide(&mut self, redactor: &Redactor) {
        let hide = |text: &mut String| *text = redactor.text(text);
        match self {
            Self::Ended { message, .. } => hide(message),
            Self::Answered { error, .. } => {
                hide(&mut error.message);
                error.hint.iter_mut().for_each(hide);
                error.details.iter_mut().for_each(|detail| hide(&mut detail.value));
            }
            _ => {}
        }
    }

    /// What to do about it, where something can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Answered { error, .. } => error.hint.as_deref().map(told_in_lines),
            Self::Package(error) => error.hint.as_deref().map(told),
            Self::Incompatible { .. } => Some("`maddock plugin inspect FILE` lists what it imports".to_owned()),
            _ => None,
        }
    }

    /// Whether policy refused something.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Answered { error, .. } if matches!(error.kind, types::ErrorKind::Denied))
    }
}
