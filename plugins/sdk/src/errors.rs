//! Errors as the interface has them, made in one line.

use crate::types::{Entry, Error, ErrorKind};

/// What every exported function answers.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a kind with a message.
pub fn of(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error { kind, message: message.into(), hint: None, details: Vec::new() }
}

/// The caller passed something that can never work.
pub fn invalid(message: impl Into<String>) -> Error {
    of(ErrorKind::InvalidInput, message)
}

/// It was tried and did not work.
pub fn failed(message: impl Into<String>) -> Error {
    of(ErrorKind::Failed, message)
}

/// The thing named does not exist.
pub fn not_found(message: impl Into<String>) -> Error {
    of(ErrorKind::NotFound, message)
}

/// This plugin cannot do that.
pub fn unsupported(message: impl Into<String>) -> Error {
    of(ErrorKind::Unsupported, message)
}

impl Error {
    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a machine-readable detail.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.push(Entry { name: name.to_owned(), value: value.into() });
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}
