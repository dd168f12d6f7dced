//! The edge: what a command says when it cannot go on. Kind, message, hints; printed on stderr.

use std::fmt::Display;

use super::exit::Exit;
use crate::plugin::PluginError;

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    /// With which code.
    pub exit: Exit,
    /// A lower-case fragment.
    pub message: String,
    /// What to do about it, in order of use.
    pub hints: Vec<String>,
}

/// What a command answers.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), hints: Vec::new() }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what to do about it, where there is something to say.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hints.extend(hint.map(Into::into));
        self
    }

    /// A plugin's error: policy's refusals have an exit code of their own.
    #[must_use]
    pub fn of_plugin(exit: Exit, error: &PluginError) -> Self {
        let exit = if error.is_denied() { Exit::Refused } else { exit };
        Self::new(exit, error).maybe_hint(error.hint())
    }

    /// Prints message and hints on stderr.
    pub fn print(&self) {
        let palette = super::style::Palette::of_stderr();
        eprintln!("{}: {}", palette.bad("error"), self.message);
        for hint in &self.hints {
            eprintln!("{}: {hint}", palette.note("hint"));
        }
    }
}
