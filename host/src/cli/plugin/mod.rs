//! `maddock plugin …`: one file for each group of commands.

pub mod args;
mod bundle;
mod conform;
mod inspect;
mod install;
mod installed;
mod keys;
mod project;
mod push;

use std::path::Path;

use self::args::PluginAction;
use self::installed::Changes;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::setup::Setup;
use crate::plugin::catalog::Entry;
use crate::plugin::package::PackageError;
use crate::plugin::package::signature;
use crate::plugin::package::store::Store;
use crate::plugin::{Environment, PluginError};

/// Whether a command waits for something.
#[must_use]
pub fn waits(action: &PluginAction) -> bool {
    matches!(
        action,
        PluginAction::Install { .. }
            | PluginAction::Update { .. }
            | PluginAction::Test { .. }
            | PluginAction::Push { .. }
    )
}

/// Commands that wait for nothing.
///
/// # Errors
/// A plugin that is not there or not usable: exit 1.
pub fn run(action: &PluginAction) -> Outcome {
    match action {
        PluginAction::List { all, common } => inspect::list(*all, common),
        PluginAction::Inspect { plugin, common } => inspect::inspect(plugin, common),
        PluginAction::Remove { names, common } => installed::remove(names, common),
        PluginAction::Verify { names, require_signature, common } => {
            installed::verify(names, *require_signature, common)
        }
        PluginAction::Lock { names, r#override, drop, drop_override, common } => {
            installed::lock(&Changes { names, overrides: r#override, drops: drop, restores: drop_override }, common)
        }
        PluginAction::Prune { all, common } => installed::prune(*all, common),
        PluginAction::Keygen { file, no_password, password_file } => {
            keys::generate(file, *no_password, password_file.as_deref())
        }
        PluginAction::Sign { file, key, password_file } => keys::sign(file, key, password_file.as_deref()),
        PluginAction::Trust { key, name } => keys::trust(key, name.as_deref()),
        PluginAction::New { kind, name, lang, directory } => project::new(*kind, name, lang, directory),
        PluginAction::Vendor { directory } => project::vendor(directory),
        PluginAction::Pack { file, manifest, output } => project::pack(file, manifest, output.as_deref()),
        PluginAction::Bundle { output, names, policy } => bundle::bundle(output, names, policy.as_deref()),
        // These wait.
        PluginAction::Install { .. }
        | PluginAction::Update { .. }
        | PluginAction::Test { .. }
        | PluginAction::Push { .. } => Ok(Exit::Success),
    }
}

/// Commands that wait for something.
///
/// # Errors
/// A plugin that is not there or not usable: exit 1; requests without consent: exit 5; a failed check: exit 3.
pub async fn wait(action: &PluginAction) -> Outcome {
    match action {
        PluginAction::Install { sources, consent, common } => install::install(sources, consent, common).await,
        PluginAction::Update { names, consent, common } => install::update(names, consent, common).await,
        PluginAction::Test { plugin, common } => conform::test(plugin, common).await,
        PluginAction::Push { file, place, plain_http } => push::push(file, place, *plain_http).await,
        other => run(other),
    }
}

/// An error of packages, with exit code 1.
fn failed(error: &PackageError) -> Failure {
    Failure::of_plugin(Exit::Failure, &PluginError::Package(error.clone()))
}

/// The store, and whose environment it is from.
fn store() -> Result<(Store, Environment), Failure> {
    let environment = Environment::of_process();
    let store = Store::of(&environment).ok_or_else(|| {
        Failure::new(Exit::Failure, "there is no place for plugins: neither XDG_DATA_HOME nor HOME is set")
    })?;
    Ok((store, environment))
}

/// The working directory, where `maddock.lock` lies.
fn project() -> Result<std::path::PathBuf, Failure> {
    std::env::current_dir()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot use the working directory: {error}")))
}

/// A plugin by its name in the catalogue, or by its file.
fn named(setup: &Setup, plugin: &str) -> Result<Entry, Failure> {
    let named = setup.plugins.catalog().entries().iter().find(|entry| entry.identity.name == plugin).cloned();
    match named {
        Some(entry) => Ok(entry),
        None if Path::new(plugin).exists() => {
            let keys = signature::trusted(&setup.environment).map_err(|error| failed(&error))?;
            Entry::of_file(Path::new(plugin))
                .map(|entry| entry.trusting(keys.into()))
                .map_err(|error| Failure::of_plugin(Exit::Failure, &error))
        }
        None => Err(Failure::new(Exit::Failure, format!("there is no plugin and no file `{plugin}`"))
            .hint("`maddock plugin list` shows the plugins that there are")),
    }
}
