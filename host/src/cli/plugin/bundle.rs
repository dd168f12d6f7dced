//! `maddock plugin bundle`

use std::path::Path;

use super::{failed, project, store};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::plugin::package::bundle::Bundle;
use crate::plugin::package::lock::{self, Lock};
use crate::plugin::package::store::{Installed, is_meant};
use crate::plugin::package::{read_at_most, signature};

/// Packs what is installed: of each name what the lock pins, else what was installed last.
///
/// # Errors
/// Something is not installed, or was changed: exit 1, and nothing is written.
pub fn bundle(output: &Path, names: &[String], policy: Option<&Path>) -> Outcome {
    let (store, environment) = store()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    let project = project()?;
    let lock = Lock::read(&project).map_err(|error| failed(&error))?;
    if let Some(name) = names.iter().find(|name| !plugins.iter().any(|plugin| is_meant(plugin, name))) {
        return Err(Failure::new(Exit::Failure, format!("no plugin `{name}` is installed"))
            .hint("`maddock plugin list` shows the plugins that there are"));
    }
    let mut chosen: Vec<&Installed> = Vec::new();
    for plugin in plugins.iter().rev() {
        let asked = names.is_empty() || names.iter().any(|name| is_meant(plugin, name));
        let pinned = lock.as_ref().and_then(|lock| lock.pin(&plugin.manifest.name));
        let counts = pinned.is_none_or(|pin| pin.digest == plugin.digest);
        if asked && counts && !chosen.iter().any(|other| other.manifest.name == plugin.manifest.name) {
            chosen.push(plugin);
        }
    }
    if chosen.is_empty() {
        return Err(Failure::new(Exit::Failure, "nothing is installed that could be packed"));
    }
    let mut bundle = Bundle::default();
    for plugin in &chosen {
        let path = format!("plugins/{}.wasm", plugin.digest.replace(':', "-"));
        if let Some(text) = store.signature(&plugin.digest).map_err(|error| failed(&error))? {
            bundle.put(format!("{path}.sig"), text.into_bytes());
        }
        bundle.put(path, store.component(&plugin.digest).map_err(|error| failed(&error))?);
    }
    for key in signature::trusted(&environment).map_err(|error| failed(&error))? {
        if chosen.iter().any(|plugin| plugin.signer.as_deref() == Some(&key.public)) {
            let bytes = read_at_most(&key.place, 1 << 16).map_err(|error| failed(&error))?;
            bundle.put(format!("keys/{}.pub", key.name), bytes);
        }
    }
    if let Some(policy) = policy {
        bundle.put("policy.toml", read_at_most(policy, 1 << 20).map_err(|error| failed(&error))?);
    }
    if let Some(lock) = lock {
        bundle.put(lock::NAME, lock.text().map_err(|error| failed(&error))?.into_bytes());
    }
    bundle.write(output).map_err(|error| failed(&error))?;
    println!("packed {} plugins in {}:", chosen.len(), output.display());
    for path in bundle.files.keys() {
        println!("  {path}");
    }
    Ok(Exit::Success)
}
