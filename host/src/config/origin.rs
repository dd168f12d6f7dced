//! Where a value came from. Carried with every leaf, shown by `config show`, and what decides who may replace it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A shipped preset, by its name.
    Default {
        /// Such as `defaults.json`.
        preset: String,
    },
    /// A preset of the user's own.
    Preset {
        /// Its file.
        path: PathBuf,
    },
    /// The file given with `-f`.
    File {
        /// As given.
        path: PathBuf,
    },
    /// The text given with `-c`, or an option.
    CommandLine,
    /// A variable of the invoking shell.
    Environment {
        /// Its name.
        name: String,
    },
    /// A plugin found it on this machine.
    Detected {
        /// The plugin.
        plugin: String,
    },
    /// A build manifest.
    Manifest {
        /// As given.
        path: PathBuf,
    },
}

impl Origin {
    /// Whether somebody wrote the value down for this invocation: nothing found or shipped may replace it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self, Self::File { .. } | Self::CommandLine | Self::Environment { .. })
    }

    /// Whether it stands in a preset: it counts where nobody says anything else.
    #[must_use]
    pub fn is_preset(&self) -> bool {
        matches!(self, Self::Default { .. } | Self::Preset { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { preset } => write!(f, "default ({preset})"),
            Self::Preset { path } => write!(f, "preset {}", path.display()),
            Self::File { path } => write!(f, "file {}", path.display()),
            Self::CommandLine => f.write_str("command line"),
            Self::Environment { name } => write!(f, "environment {name}"),
            Self::Detected { plugin } => write!(f, "detected by {plugin}"),
            Self::Manifest { path } => write!(f, "manifest {}", path.display()),
        }
    }
}
