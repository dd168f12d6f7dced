//! What every command that uses plugins starts with: the tree, the plugins, the secrets, the context of the invocation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::args::Common;
use super::exit::Exit;
use super::failure::Failure;
use super::secret_files;
use crate::capability::docker::Connection;
use crate::capability::policy::{Homes, Policy, PolicyError, Roots};
use crate::capability::process::Lifelines;
use crate::capability::secrets::SecretStore;
use crate::capability::trace::Trace;
use crate::capability::{Clusters, Queue};
use crate::plugin::catalog::{Catalog, Outside};
use crate::plugin::package::lock::Lock;
use crate::plugin::package::signature;
use crate::plugin::package::store::Store;
use crate::plugin::{Environment, PluginError, Plugins, RunContext, Session};

/// What the command line says of plugins and of what they may do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Given {
    /// Component files.
    pub plugins: Vec<PathBuf>,
    /// Policy files.
    pub policies: Vec<PathBuf>,
    /// Nothing that is not in the lock.
    pub locked: bool,
}

impl Given {
    /// The same for a process that may begin in another directory.
    #[must_use]
    pub fn at(self, directory: &Path) -> Self {
        let absolute = |files: Vec<PathBuf>| files.into_iter().map(|file| directory.join(file)).collect();
        Self { plugins: absolute(self.plugins), policies: absolute(self.policies), locked: self.locked }
    }
}

/// The plugins of an invocation: built in, installed, named on the command line, as the lock of the project says.
fn catalog(given: &Given, project: &Path, environment: &Environment) -> Result<Catalog, PluginError> {
    let store = Store::of(environment);
    let installed = store.map(|store| store.read().map(|installed| (store, installed))).transpose()?;
    let lock = Lock::read(project)?;
    let outsiders = !given.plugins.is_empty() || installed.as_ref().is_some_and(|(_, plugins)| !plugins.is_empty());
    let keys = if outsiders { signature::trusted(environment)? } else { Vec::new() };
    Catalog::with(&Outside { installed, lock, locked: given.locked, files: &given.plugins, keys: keys.into() })
}

/// Plugins and where they work.
#[derive(Debug)]
pub struct Setup {
    /// Absolute and resolved.
    pub tree: PathBuf,
    /// Where the compatible files go: the working directory, absolute and resolved.
    pub output: PathBuf,
    /// Where the results file goes, where that is another directory; else empty.
    pub results: PathBuf,
    /// The invoking shell's.
    pub environment: Environment,
    /// Catalogue and engine.
    pub plugins: Arc<Plugins>,
    /// Policy files of the command line.
    pub policies: Vec<PathBuf>,
}

impl Setup {
    /// Reads what the command line says about tree and plugins.
    ///
    /// # Errors
    /// The tree or a plugin is not there.
    pub fn new(common: &Common) -> Result<Self, Failure> {
        let output = std::env::current_dir()
            .and_then(|directory| directory.canonicalize())
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot use the working directory: {error}")))?;
        let wanted = common
            .model_dir
            .clone()
            .filter(|directory| !directory.as_os_str().is_empty())
            .unwrap_or_else(|| output.clone());
        let tree = wanted.canonicalize().map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot read the model tree `{}`: {error}", wanted.display()))
                .hint("name it by `--model-dir DIR` or the variable MODEL_DIR")
        })?;
        Self::with([tree, output, PathBuf::new()], &common.given())
    }

    /// The same for directories that are known: tree, working directory, results; with the plugins and policies that the
    /// command line names.
    ///
    /// # Errors
    /// A plugin is not there.
    pub fn with([tree, output, results]: [PathBuf; 3], given: &Given) -> Result<Self, Failure> {
        let environment = Environment::of_process();
        let catalog =
            catalog(given, &output, &environment).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        let plugins = Plugins::new(catalog, &environment).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        Ok(Self { tree, output, results, environment, plugins: Arc::new(plugins), policies: given.policies.clone() })
    }

    /// The built-in plugins alone, wherever that is: for commands that put in order what others need.
    ///
    /// # Errors
    /// The engine cannot run on this machine.
    pub fn bare() -> Result<Self, Failure> {
        let output = std::env::current_dir()
            .and_then(|directory| directory.canonicalize())
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot use the working directory: {error}")))?;
        let environment = Environment::of_process();
        let plugins = Catalog::new(&[])
            .and_then(|catalog| Plugins::new(catalog, &environment))
            .map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        Ok(Self {
            tree: output.clone(),
            output,
            results: PathBuf::new(),
            environment,
            plugins: Arc::new(plugins),
            policies: Vec::new(),
        })
    }

    /// The context of an invocation that is no run: no directory of its own, no trace.
    ///
    /// # Errors
    /// A policy file cannot be used.
    pub fn context(&self) -> Result<Arc<RunContext>, Failure> {
        self.context_in(String::new(), Path::new(""), Trace::none(), SecretStore::default())
    }

    /// The context of a run.
    ///
    /// # Errors
    /// A policy file cannot be used.
    pub fn context_in(
        &self,
        run_id: String,
        run: &Path,
        trace: Arc<Trace>,
        secrets: SecretStore,
    ) -> Result<Arc<RunContext>, Failure> {
        let roots = Roots {
            tree: self.tree.clone(),
            run: run.to_owned(),
            output: self.output.clone(),
            results: self.results.clone(),
        };
        let policy = self.policy(roots.clone())?;
        Ok(Arc::new(RunContext {
            run_id,
            roots,
            environment: self.environment.clone(),
            secrets,
            docker: Connection::default(),
            queue: Queue::default(),
            clusters: Clusters::default(),
            policy: Arc::new(policy),
            trace,
            lifelines: Lifelines::default(),
        }))
    }

    /// Every layer of policy that there is.
    ///
    /// # Errors
    /// A file that is malformed (exit 4), or that others could have written (exit 5).
    pub fn policy(&self, roots: Roots) -> Result<Policy, Failure> {
        let homes = Homes::of(&self.environment, &self.output);
        Policy::load(roots, homes, &self.policies).map_err(|error| of_policy(&error))
    }

    /// A session of an invocation that is no run.
    ///
    /// # Errors
    /// A policy file cannot be used.
    pub fn session(&self) -> Result<Session, Failure> {
        Ok(Session::quiet(self.context()?))
    }

    /// What `credential.json`, the environment and files of secrets hold, the last of these that has one. A broken file is told and left out, as upstream does.
    #[must_use]
    pub fn secrets(&self, warn: &mut dyn FnMut(String)) -> SecretStore {
        let mut secrets = SecretStore::default();
        for directory in [&self.tree, &self.output] {
            let file = directory.join("credential.json");
            match std::fs::read_to_string(&file) {
                Ok(text) => match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(value) if value.is_object() => secrets.add_object("credential", &value),
                    Ok(_) => warn(format!("`{}` is not a JSON object; going on without it", file.display())),
                    Err(error) => warn(format!("`{}` is not JSON ({error}); going on without it", file.display())),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => warn(format!("cannot read `{}` ({error}); going on without it", file.display())),
            }
            if self.tree == self.output {
                break;
            }
        }
        if let (Some(user), Some(password)) =
            (self.environment.get("MAD_DOCKERHUB_USER"), self.environment.get("MAD_DOCKERHUB_PASSWORD"))
        {
            secrets.add("credential/dockerhub/username", user);
            secrets.add("credential/dockerhub/password", password);
            if let Some(repository) = self.environment.get("MAD_DOCKERHUB_REPO") {
                secrets.add("credential/dockerhub/repository", repository);
            }
        }
        for (name, value) in self.environment.iter().filter(|(name, _)| name.contains("MAD_SECRETS")) {
            secrets.add(format!("env/{name}"), value);
        }
        if let Some(directory) = self.environment.get(secret_files::DIRECTORY).filter(|directory| !directory.is_empty())
        {
            secret_files::add_all(Path::new(directory), &mut secrets, warn);
        }
        secrets
    }
}

/// A policy that cannot be used: nothing is done without it.
#[must_use]
pub fn of_policy(error: &PolicyError) -> Failure {
    let exit = match error {
        PolicyError::Malformed { .. } => Exit::Arguments,
        PolicyError::Untrusted { .. } => Exit::Refused,
    };
    Failure::new(exit, error).maybe_hint(error.hint())
}
