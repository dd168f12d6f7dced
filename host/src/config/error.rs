//! A configuration that cannot be used: what, where, and what to do. Every one is the user's to mend (exit code 4).

use std::fmt::{self, Display};
use std::path::PathBuf;

/// What kind of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// The file is not there or cannot be read.
    Unreadable,
    /// The text is neither JSON nor a literal.
    Syntax,
    /// A value has the wrong type.
    WrongType,
    /// A value is none of those allowed.
    NotAllowed,
    /// A key that nobody knows, where only known ones are accepted.
    UnknownKey,
    /// Two values that exclude each other.
    Conflict,
    /// A name that does not exist: a tool, a target.
    UnknownName,
    /// A value of the right type that cannot be used.
    Invalid,
    /// More than the machine has.
    Unavailable,
    /// A shipped preset is broken: a fault of the build.
    Preset,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What kind of mistake it is.
    pub kind: ConfigErrorKind,
    /// One lower-case sentence fragment.
    pub message: String,
    /// The key, dotted.
    pub key: Option<String>,
    /// The file; none where the value came from the command line.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1, in characters.
    pub column: Option<u32>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ConfigError {
    /// An error without a place.
    #[must_use]
    pub fn new(kind: ConfigErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), key: None, file: None, line: None, column: None, hint: None }
    }

    /// Names the key.
    #[must_use]
    pub fn on_key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Option<&Place>) -> Self {
        if let Some(place) = place {
            self.file.clone_from(&place.file);
            self.line = Some(place.line);
            self.column = Some(place.column);
        }
        self
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line, self.column) {
            (Some(file), Some(line), Some(column)) => write!(f, "{}:{line}:{column}: ", file.display())?,
            (Some(file), _, _) => write!(f, "{}: ", file.display())?,
            (None, Some(line), Some(column)) => write!(f, "additional context, line {line}, column {column}: ")?,
            (None, _, _) => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Where a key stands in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; none for the command line.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}
