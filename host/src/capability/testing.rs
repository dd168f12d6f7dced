//! For tests, inside and outside of this crate: a plugin's state without a plugin, under a policy that allows
//! everything. Nothing in the kernel may use it.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::gate::Identity;
use super::policy::{Policy, Roots};
use super::process::Lifelines;
use super::secrets::SecretStore;
use super::tape::Tape;
use super::trace::Trace;
use crate::plugin::{Ceilings, Environment, RunContext, State};

/// The plugin that tests play.
pub const PLUGIN: &str = "test";

/// Rules that allow [`PLUGIN`] every call on everything.
pub const ALLOW_EVERYTHING: &str = "schema = 1\n[[allow]]\nplugin = \"test\"\n\
    calls = [\"facts.*\", \"files.*\", \"process.*\", \"slurm.*\", \"kube.*\"]\n\
    scope.inline-code = [\"**\"]\nscope.privileged = [\"**\"]\nscope.host-pid = [\"**\"]\nscope.unmasked-proc = [\"**\"]\n";

/// What a test may choose; everything else is as in a run.
#[derive(Debug)]
pub struct Setting {
    /// Rules in force.
    pub rules: String,
    /// Named directories.
    pub roots: Roots,
    /// The shell's environment.
    pub environment: Environment,
    /// Secrets.
    pub secrets: SecretStore,
    /// Whether programs outlive this process.
    pub detached: bool,
    /// Where calls are recorded.
    pub trace: Arc<Trace>,
}

impl Setting {
    /// A run in a directory, with everything allowed.
    #[must_use]
    pub fn in_directory(run: &Path) -> Self {
        Self {
            rules: ALLOW_EVERYTHING.to_owned(),
            roots: Roots { run: run.to_owned(), ..Roots::default() },
            environment: [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/nonexistent")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            secrets: SecretStore::default(),
            detached: false,
            trace: Trace::none(),
        }
    }

    /// The state of an instance of [`PLUGIN`].
    ///
    /// # Errors
    /// The rules are malformed.
    pub fn state(self) -> Result<State, super::policy::PolicyError> {
        let policy = Arc::new(Policy::of_text(self.roots.clone(), "test.toml", &self.rules)?);
        let context = RunContext {
            run_id: "test".to_owned(),
            roots: self.roots,
            environment: self.environment,
            secrets: self.secrets,
            docker: super::docker::Connection::default(),
            queue: super::Queue::default(),
            clusters: super::Clusters::default(),
            policy,
            trace: self.trace,
            lifelines: if self.detached { Lifelines::let_go_at_once() } else { Lifelines::default() },
        };
        let identity =
            Identity { name: PLUGIN.to_owned(), digest: "sha256:0".to_owned(), built_in: true, signer: None };
        let (events, _) = mpsc::channel(1);
        let take = context.trace.recorder().and_then(|to| to.begin(&identity, "test.call", None, |_| Ok(())));
        let tape = take.map_or(Tape::Off, Tape::Records);
        Ok(State::new(Arc::new(identity), Arc::new(context), None, events, Ceilings::default(), tape))
    }
}
