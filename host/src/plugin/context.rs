//! What an invocation gives to every plugin instance: roots, environment, secrets, and connections that are made once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capability::docker::Connection;
use crate::capability::policy::{Policy, Roots};
use crate::capability::process::Lifelines;
use crate::capability::secrets::SecretStore;
use crate::capability::trace::Trace;
use crate::capability::{Clusters, Queue};

/// The environment of the invoking shell, taken once. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect() }
    }
}

impl Environment {
    /// This process's environment; variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// One variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first executable file of that name on `PATH`.
    #[must_use]
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let executable =
            |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        std::env::split_paths(self.get("PATH").unwrap_or("/usr/bin:/bin"))
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|path| executable(path))
    }
}

/// What every instance of one invocation shares.
#[derive(Debug)]
pub struct RunContext {
    /// The run's id; empty for commands that are not runs.
    pub run_id: String,
    /// Named directories, absolute and resolved.
    pub roots: Roots,
    /// The invoking shell's environment.
    pub environment: Environment,
    /// What may be put somewhere and never shown.
    pub secrets: SecretStore,
    /// The container engine, connected to on first use.
    pub docker: Connection,
    /// What is known of batch jobs.
    pub queue: Queue,
    /// Clusters that were spoken to, and what is known of their jobs.
    pub clusters: Clusters,
    /// What the gate allows.
    pub policy: Arc<Policy>,
    /// What was called.
    pub trace: Arc<Trace>,
    /// What ties launched programs to this process.
    pub lifelines: Lifelines,
}
