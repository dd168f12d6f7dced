//! The engine: compiles components once, checks what they import, and links what the host offers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use maddock_bindings::api;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, EngineWeak};

use super::cache::Cache;
use super::catalog::Entry;
use super::context::Environment;
use super::error::PluginError;
use super::instance::State;
use super::manifest::{INTERFACE, Kind, Manifest, PACKAGE};
use crate::capability::gate::Identity;
use crate::capability::tape::{HasTape, Taped};

/// How often running plugins are looked at.
const TICK: Duration = Duration::from_millis(10);

/// WASI packages that are linked, and empty.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// One engine for the whole process.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    cache: Option<Cache>,
    hash: u64,
    // Ends the ticker when the engine goes.
    _alive: Arc<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// A plugin that is compiled and linked, ready to be instantiated.
#[derive(Clone)]
pub struct Loaded {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it says about itself.
    pub manifest: Arc<Manifest>,
    pub(super) pre: InstancePre<State>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with the user's cache.
    ///
    /// # Errors
    /// The engine cannot run on this machine.
    pub fn new(environment: &Environment) -> Result<Self, PluginError> {
        Self::build(environment)
            .map_err(|error| PluginError::Malformed { plugin: "engine".to_owned(), message: format!("{error:#}") })
    }

    fn build(environment: &Environment) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = wasmtime::Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        api::types::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::events::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::docker::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::facts::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::files::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::process::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::slurm::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::kube::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        api::secrets::add_to_linker::<_, HasTape>(&mut linker, |state| Taped(state))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let alive = Arc::new(());
        tick(engine.weak(), Arc::downgrade(&alive))?;
        Ok(Self { engine, linker, cache: Cache::open(environment), hash: hasher.finish(), _alive: alive })
    }

    /// Compiles (or takes from the cache) and links one plugin.
    ///
    /// # Errors
    /// Not a component, or one that imports what this host does not offer.
    pub fn load(&self, entry: &Entry) -> Result<Loaded, PluginError> {
        let plugin = &entry.identity.name;
        let component = self
            .compiled(entry)
            .map_err(|error| PluginError::Malformed { plugin: plugin.clone(), message: format!("{error:#}") })?;
        self.check_imports(plugin, &component)?;
        self.check_exports(plugin, entry.manifest.kind, &component)?;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| PluginError::Incompatible {
            plugin: plugin.clone(),
            message: format!("it does not fit this host's interface: {error:#}"),
        })?;
        Ok(Loaded { identity: entry.identity.clone(), manifest: entry.manifest.clone(), pre })
    }

    fn compiled(&self, entry: &Entry) -> wasmtime::Result<Component> {
        let Some(cache) = &self.cache else { return Component::new(&self.engine, entry.bytes()) };
        let file = cache.file(&entry.identity.digest, self.hash);
        if Cache::trusted(&file) {
            // SAFETY: the file is this user's alone, in a directory that only this user can enter, on a local file system
            // (`Cache::open` and `Cache::trusted`), and was written by `Cache::store` from this engine's own compiler: its
            // name holds the digest of the component and the hash of the engine's settings, which the engine checks again.
            if let Ok(component) = unsafe { Component::deserialize_file(&self.engine, &file) } {
                return Ok(component);
            }
        }
        let component = Component::new(&self.engine, entry.bytes())?;
        // A cache that is full or read-only costs time, not the run.
        if let Ok(bytes) = component.serialize() {
            let _ = cache.store(&file, &bytes);
        }
        Ok(component)
    }

    fn check_imports(&self, plugin: &str, component: &Component) -> Result<(), PluginError> {
        let (major, minor, patch) = INTERFACE;
        for (name, _) in component.component_type().imports(&self.engine) {
            let known = WASI.iter().any(|package| name.starts_with(package))
                || name
                    .strip_prefix(PACKAGE)
                    .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(&format!("@{major}.{minor}.{patch}")));
            if !known {
                let message = format!(
                    "it imports `{name}`, which this host does not offer (it offers {PACKAGE}@{major}.{minor}.{patch})"
                );
                return Err(PluginError::Incompatible { plugin: plugin.to_owned(), message });
            }
        }
        Ok(())
    }

    fn check_exports(&self, plugin: &str, kind: Kind, component: &Component) -> Result<(), PluginError> {
        let (major, minor, patch) = INTERFACE;
        let kind = kind.word();
        let wanted = format!("{PACKAGE}/{kind}@{major}.{minor}.{patch}");
        let names: Vec<_> =
            component.component_type().exports(&self.engine).map(|(name, _)| format!("`{name}`")).collect();
        if names.iter().any(|name| name.trim_matches('`') == wanted) {
            return Ok(());
        }
        let instead = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let message = format!("its manifest calls it a {kind}, which exports `{wanted}`; it exports {instead}");
        Err(PluginError::Incompatible { plugin: plugin.to_owned(), message })
    }

    /// The names of what a component imports: the `maddock:*` ones are the capabilities that it can use at all.
    ///
    /// # Errors
    /// Not a component.
    pub fn imports(&self, entry: &Entry) -> Result<Vec<String>, PluginError> {
        let component = self.compiled(entry).map_err(|error| PluginError::Malformed {
            plugin: entry.identity.name.clone(),
            message: format!("{error:#}"),
        })?;
        Ok(component.component_type().imports(&self.engine).map(|(name, _)| name.to_owned()).collect())
    }

    pub(super) fn store(&self, state: State) -> wasmtime::Store<State> {
        wasmtime::Store::new(&self.engine, state)
    }
}

/// Advances the epoch for as long as the engine lives.
fn tick(engine: EngineWeak, alive: Weak<()>) -> std::io::Result<()> {
    std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || {
        while alive.strong_count() > 0 {
            std::thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { break };
            engine.increment_epoch();
        }
    })?;
    Ok(())
}
