//! `maddock plugin remove|verify|lock|prune`: what is installed already.

use std::path::Path;

use serde_json::{Value, json};

use super::inspect::signed;
use super::{failed, project, store};
use crate::capability::events::printable;
use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::setup::Setup;
use crate::plugin::catalog::{Catalog, Entry};
use crate::plugin::package::lock::{self, Lock, Pin};
use crate::plugin::package::signature::Signed;
use crate::plugin::package::store::{Installed, Store, is_meant};

/// Removes.
///
/// # Errors
/// Something is not installed: exit 1, and nothing is removed.
pub fn remove(names: &[String], common: &Common) -> Outcome {
    let (store, _) = store()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    check_names(names, &plugins)?;
    // A lock that is broken is told by those who need it.
    let lock = Lock::read(&project()?).ok().flatten();
    let mut gone = Vec::new();
    for name in names {
        gone.extend(store.remove(name).map_err(|error| failed(&error))?);
    }
    if common.format == Format::Json {
        let list: Value =
            gone.iter().map(|plugin| json!({"name": plugin.manifest.name, "digest": plugin.digest})).collect();
        println!("{list:#}");
    } else {
        for plugin in &gone {
            println!("removed: {} {} {}", plugin.manifest.name, printable(&plugin.manifest.version), plugin.digest);
        }
        for pin in lock.iter().flat_map(|lock| &lock.pins).filter(|pin| gone.iter().any(|one| one.digest == pin.digest))
        {
            let (name, version) = (printable(&pin.name), printable(&pin.version));
            println!("{} here still pins {name} {version}, so nothing runs here until", lock::NAME);
            println!("it is installed again, or: maddock plugin lock --drop {name}");
        }
    }
    Ok(Exit::Success)
}

fn check_names(names: &[String], plugins: &[Installed]) -> Result<(), Failure> {
    match names.iter().find(|name| !plugins.iter().any(|plugin| is_meant(plugin, name))) {
        None => Ok(()),
        Some(name) if Catalog::is_built_in(name) => {
            Err(Failure::new(Exit::Failure, format!("`{name}` is built in, not installed")))
        }
        Some(name) => Err(Failure::new(Exit::Failure, format!("no plugin `{name}` is installed"))
            .hint("`maddock plugin list` shows the plugins that there are")),
    }
}

/// Checks digests, signatures, the lock, and that everything loads.
///
/// # Errors
/// Something is wrong: exit 1, after all was checked.
pub fn verify(names: &[String], require_signature: bool, common: &Common) -> Outcome {
    let setup = Setup::bare()?;
    let (store, _) = store()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    let lock = Lock::read(&setup.output).map_err(|error| failed(&error))?;
    let mut entries = Vec::new();
    let (files, names): (Vec<&String>, Vec<&String>) = names
        .iter()
        .partition(|name| !plugins.iter().any(|plugin| is_meant(plugin, name)) && Path::new(name.as_str()).is_file());
    let names: Vec<String> = names.into_iter().cloned().collect();
    check_names(&names, &plugins)?;
    for file in &files {
        entries.push(Entry::of_file(Path::new(file)).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?);
    }
    let all = names.is_empty() && files.is_empty();
    for plugin in plugins.iter().filter(|plugin| all || names.iter().any(|name| is_meant(plugin, name))) {
        entries.push(Entry::of_store(&store, plugin).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?);
    }
    let mut reports: Vec<(String, String, Vec<String>)> = Vec::new();
    for entry in &entries {
        let (says, faults) = look_at(&setup, entry, lock.as_ref(), require_signature);
        let title = format!("{} {} {}", entry.identity.name, printable(&entry.manifest.version), entry.identity.digest);
        reports.push((title, says, faults));
    }
    if all {
        for pin in lock.iter().flat_map(|lock| &lock.pins) {
            if !plugins.iter().any(|plugin| plugin.digest == pin.digest) {
                let title = format!("{} {} {}", pin.name, pin.version, pin.digest);
                reports.push((title, String::new(), vec!["the lock file pins it, and it is not installed".to_owned()]));
            }
        }
    }
    print(&reports, common.format);
    let wrong = reports.iter().filter(|(_, _, faults)| !faults.is_empty()).count();
    if wrong > 0 {
        return Err(Failure::new(Exit::Failure, format!("{wrong} of {} are not as they should be", reports.len())));
    }
    Ok(Exit::Success)
}

fn look_at(setup: &Setup, entry: &Entry, lock: Option<&Lock>, require_signature: bool) -> (String, Vec<String>) {
    let mut faults = Vec::new();
    let mut says = String::new();
    match signed(setup, entry) {
        Ok(found) => {
            let found = found.unwrap_or(Signed::Not);
            match &found {
                Signed::Wrong(why) => faults.push(why.clone()),
                Signed::Not | Signed::ByStranger(_) if require_signature => {
                    faults.push(format!("no trusted key has signed it: {}", found.words()));
                }
                _ => {}
            }
            says = found.words();
            if let Some(pin) = lock.and_then(|lock| lock.pins.iter().find(|pin| pin.digest == entry.identity.digest))
                && pin.signer.is_some()
                && pin.signer.as_deref() != found.signer()
            {
                faults.push("the lock file names another signer".to_owned());
            }
        }
        Err(failure) => faults.push(failure.message),
    }
    if let Some(pin) = lock.and_then(|lock| lock.pin(&entry.identity.name))
        && pin.digest != entry.identity.digest
    {
        says.push_str("; the lock file pins another version");
    }
    if let Err(error) = setup.plugins.engine().load(entry) {
        faults.push(error.to_string());
    }
    (says, faults)
}

fn print(reports: &[(String, String, Vec<String>)], format: Format) {
    if format == Format::Json {
        let list: Value = reports
            .iter()
            .map(|(title, says, faults)| json!({"plugin": title, "signature": says, "faults": faults}))
            .collect();
        println!("{list:#}");
        return;
    }
    for (title, says, faults) in reports {
        if faults.is_empty() {
            println!("ok    {title}: {}", printable(says));
        }
        for fault in faults {
            println!("WRONG {title}: {}", printable(fault));
        }
    }
    if reports.is_empty() {
        println!("nothing is installed");
    }
}

/// What is to be changed in a lock.
#[derive(Debug)]
pub struct Changes<'a> {
    /// Pins of these; of all that is installed, where nothing is taken back.
    pub names: &'a [String],
    /// `BUILT-IN=NAME`
    pub overrides: &'a [String],
    /// No pins of these any more.
    pub drops: &'a [String],
    /// Nothing in the place of these any more.
    pub restores: &'a [String],
}

/// Pins what is installed, and takes back what was pinned.
///
/// # Errors
/// Something is not installed, or not pinned; an override that cannot be: exit 1.
pub fn lock(changes: &Changes<'_>, common: &Common) -> Outcome {
    let names = changes.names;
    let (store, _) = store()?;
    let project = project()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    check_names(names, &plugins)?;
    let mut lock = Lock::read(&project).map_err(|error| failed(&error))?.unwrap_or_default();
    for built_in in changes.restores {
        if !lock.drop_override(built_in) {
            return Err(Failure::new(Exit::Arguments, format!("nothing is in the place of `{}`", printable(built_in))));
        }
    }
    for name in changes.drops {
        drop_pin(&mut lock, name)?;
    }
    let all = names.is_empty() && changes.drops.is_empty() && changes.restores.is_empty();
    // In the order of installation, so that the newest of a name stays.
    for plugin in plugins.iter().filter(|plugin| all || names.iter().any(|name| is_meant(plugin, name))) {
        lock.put(Pin::of(plugin));
    }
    for text in changes.overrides {
        override_built_in(&mut lock, text)?;
    }
    write(&lock, &project, common.format)
}

fn drop_pin(lock: &mut Lock, name: &str) -> Result<(), Failure> {
    match lock.drop_pin(name) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Exit::Arguments, format!("`{}` is not pinned", printable(name)))),
        Err(built_ins) => {
            let message = format!("`{name}` is in the place of {}", built_ins.join(", "));
            let words: Vec<String> = built_ins.iter().map(|name| format!("--drop-override {name}")).collect();
            Err(Failure::new(Exit::Arguments, message).hint(format!("take that back, too: {}", words.join(" "))))
        }
    }
}

fn override_built_in(lock: &mut Lock, text: &str) -> Result<(), Failure> {
    let (built_in, name) = text.split_once('=').unwrap_or((text, text));
    let Some(kind) = Catalog::built_in_kind(built_in) else {
        return Err(Failure::new(Exit::Arguments, format!("there is no built-in plugin `{built_in}`"))
            .hint("`maddock plugin list` shows the plugins that there are"));
    };
    let Some(pin) = lock.pin(name) else {
        return Err(Failure::new(
            Exit::Arguments,
            format!("no plugin `{name}` is pinned, so it cannot replace `{built_in}`"),
        )
        .hint("install it first"));
    };
    if pin.kind != kind {
        return Err(Failure::new(
            Exit::Arguments,
            format!("`{name}`, a {}, cannot be in the place of `{built_in}`, a {}", pin.kind.word(), kind.word()),
        ));
    }
    let digest = pin.digest.clone();
    lock.override_built_in(built_in, &digest);
    Ok(())
}

/// Writes the lock and says what is in it.
pub fn write(lock: &Lock, project: &Path, format: Format) -> Outcome {
    lock.write(project).map_err(|error| failed(&error))?;
    if format == Format::Json {
        println!("{:#}", json!(lock));
        return Ok(Exit::Success);
    }
    println!("{}: {} pinned", Lock::file(project).display(), lock.pins.len());
    for line in &lock.overrides {
        println!("  the built-in `{}` is replaced by {}", line.built_in, line.digest);
    }
    Ok(Exit::Success)
}

/// Removes what was compiled and is not needed.
///
/// # Errors
/// The cache cannot be read or written: exit 1.
pub fn prune(all: bool, common: &Common) -> Outcome {
    let setup = Setup::bare()?;
    let engine = setup.plugins.engine();
    let Some(directory) = engine.cache_directory() else {
        println!("nothing to prune: no directory is fit to keep compiled plugins in");
        return Ok(Exit::Success);
    };
    let mut keep: Vec<String> =
        setup.plugins.catalog().entries().iter().map(|entry| entry.identity.digest.clone()).collect();
    // What other projects pin stays, too.
    let installed =
        Store::of(&setup.environment).map(|store| store.read()).transpose().map_err(|error| failed(&error))?;
    keep.extend(installed.unwrap_or_default().into_iter().map(|plugin| plugin.digest));
    let (files, bytes) = engine
        .prune((!all).then_some(keep.as_slice()))
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot prune `{}`: {error}", directory.display())))?;
    if common.format == Format::Json {
        println!("{:#}", json!({"directory": directory, "files": files, "bytes": bytes}));
    } else {
        println!("removed {files} files of {bytes} bytes in {}", directory.display());
    }
    Ok(Exit::Success)
}
