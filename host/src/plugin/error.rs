//! What can go wrong with a plugin, in sentences that name it.

use maddock_bindings::api::types;

/// A plugin that could not be loaded, or that failed in a call.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The file is not there or cannot be read.
    #[error("plugin `{plugin}`: cannot read it: {source}")]
    Unreadable {
        /// File or name.
        plugin: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not a component, or a broken one.
    #[error("plugin `{plugin}`: not a usable component: {message}")]
    Malformed {
        /// File or name.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// The manifest is missing or wrong.
    #[error("plugin `{plugin}`: manifest: {message}")]
    Manifest {
        /// File or name.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// It was made for another interface, or imports something nobody offers.
    #[error("plugin `{plugin}`: {message}")]
    Incompatible {
        /// Name.
        plugin: String,
        /// Which import or version.
        message: String,
    },
    /// It trapped, or was ended at a ceiling.
    #[error("plugin `{plugin}` failed in `{function}`: {message}")]
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

fn answered(plugin: &str, error: &types::Error) -> String {
    let message = crate::capability::events::printable(&error.message);
    // A refusal names the plugin already.
    if matches!(error.kind, types::ErrorKind::Denied) { message } else { format!("{plugin}: {message}") }
}

impl PluginError {
    /// What to do about it, where something can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Answered { error, .. } => error.hint.as_deref().map(crate::capability::events::printable),
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
