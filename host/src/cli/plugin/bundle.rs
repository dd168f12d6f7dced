//! `maddock plugin bundle`

use std::path::Path;

use super::{failed, project, store};
use crate::capability::events::printable;
use crate::capability::policy::{Level, Policy, Roots};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::setup::of_policy;
use crate::plugin::package::bundle::{self, Bundle};
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
    let chosen = chosen(&plugins, lock.as_ref(), names)?;
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
            let names = std::iter::once(key.name.clone()).chain((2..).map(|number| format!("{}-{number}", key.name)));
            let mut paths = names.map(|name| bundle::key_path(&name));
            // Two keys may have one name: a machine's and a user's.
            if let Some(path) = paths.find(|path| bundle.files.get(path).is_none_or(|other| *other == bytes)) {
                bundle.put(path, bytes);
            }
        }
    }
    if let Some(policy) = policy {
        bundle.put("policy.toml", checked_policy(policy)?);
    }
    let digests: Vec<&str> = chosen.iter().map(|plugin| plugin.digest.as_str()).collect();
    if let Some(lock) = lock.and_then(|lock| lock.part(&digests)) {
        bundle.put(lock::NAME, lock.text().map_err(|error| failed(&error))?.into_bytes());
    }
    bundle.write(output).map_err(|error| failed(&error))?;
    println!("packed {} plugins in {}:", chosen.len(), output.display());
    for path in bundle.files.keys() {
        println!("  {path}");
    }
    Ok(Exit::Success)
}

/// What is packed: all of what was asked for, as the lock says, or nothing.
fn chosen<'a>(plugins: &'a [Installed], lock: Option<&Lock>, names: &[String]) -> Result<Vec<&'a Installed>, Failure> {
    let asked = |plugin: &Installed| names.is_empty() || names.iter().any(|name| is_meant(plugin, name));
    for pin in lock.iter().flat_map(|lock| &lock.pins) {
        let asked = names.is_empty()
            || names.contains(&pin.name)
            || plugins.iter().any(|plugin| plugin.manifest.name == pin.name && asked(plugin));
        if asked && !plugins.iter().any(|plugin| plugin.digest == pin.digest) {
            return Err(Failure::new(
                Exit::Failure,
                format!("{} pins `{}` {} to {}, which is not installed", lock::NAME, pin.name, pin.version, pin.digest),
            )
            .hint(format!("it came from `{}`: maddock plugin install SOURCE", pin.source))
            .hint(format!("or take the pin back: maddock plugin lock --drop {}", pin.name)));
        }
    }
    let mut chosen: Vec<&Installed> = Vec::new();
    for plugin in plugins.iter().rev().filter(|plugin| asked(plugin)) {
        let pinned = lock.and_then(|lock| lock.pin(&plugin.manifest.name));
        let counts = pinned.is_none_or(|pin| pin.digest == plugin.digest);
        if counts && !chosen.iter().any(|other| other.manifest.name == plugin.manifest.name) {
            chosen.push(plugin);
        }
    }
    if let Some(name) = names.iter().find(|name| !chosen.iter().any(|plugin| is_meant(plugin, name))) {
        return Err(Failure::new(Exit::Failure, format!("`{name}` is not the version that counts here"))
            .hint(format!("of each name that is what {} pins, else what was installed last", lock::NAME)));
    }
    if chosen.is_empty() {
        return Err(Failure::new(Exit::Failure, "nothing is installed that could be packed"));
    }
    Ok(chosen)
}

/// A policy as it is, once it is known to be one: of a site or of a user.
fn checked_policy(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read_at_most(path, 1 << 20).map_err(|error| failed(&error))?;
    let name = path.display().to_string();
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(Exit::Arguments, format!("policy {}: it is not UTF-8", printable(&name))))?;
    Policy::shipped(Roots::default())
        .and_then(|policy| policy.with_layer(Level::Site, &name, text))
        .map_err(|error| of_policy(&error))?;
    Ok(bytes)
}
