//! The engine: compiles components once, checks what they import, and links what the host offers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use maddock_bindings::api;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, EngineWeak};

use super::cache::Cache;
use super::catalog::Entry;
use super::conformance::Script;
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
        let hash = key_of(&engine);
        let alive = Arc::new(());
        tick(engine.weak(), Arc::downgrade(&alive))?;
        Ok(Self { engine, linker, cache: Cache::open(environment), hash, _alive: alive })
    }

    /// Compiles (or takes from the cache) and links one plugin.
    ///
    /// # Errors
    /// Not a component, or one that imports what this host does not offer.
    pub fn load(&self, entry: &Entry) -> Result<Loaded, PluginError> {
        let plugin = &entry.identity.name;
        let identity = entry.who()?;
        let component = self.compiled(entry)?;
        self.check_imports(plugin, &component)?;
        self.check_exports(plugin, entry.manifest.kind, &component)?;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| PluginError::Incompatible {
            plugin: plugin.clone(),
            message: format!("it does not fit this host's interface: {error:#}"),
        })?;
        Ok(Loaded { identity, manifest: entry.manifest.clone(), pre })
    }

    /// Links a plugin to a host made of a script, for the conformance suite.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_scripted(&self, entry: &Entry, script: &Script) -> Result<Loaded, PluginError> {
        let malformed = |error: wasmtime::Error| PluginError::Malformed {
            plugin: entry.identity.name.clone(),
            message: format!("{error:#}"),
        };
        let component = self.compiled(entry)?;
        let mut linker = Linker::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(malformed)?;
        for (name, item) in component.component_type().imports(&self.engine) {
            if let (true, ComponentItem::ComponentInstance(instance)) = (name.starts_with(PACKAGE), item.ty) {
                let mut linked = linker.instance(name).map_err(malformed)?;
                script.link(&self.engine, name, &instance, &mut linked).map_err(malformed)?;
            }
        }
        let pre = linker.instantiate_pre(&component).map_err(malformed)?;
        Ok(Loaded { identity: entry.identity.clone(), manifest: entry.manifest.clone(), pre })
    }

    fn compiled(&self, entry: &Entry) -> Result<Component, PluginError> {
        let malformed = |error: wasmtime::Error| PluginError::Malformed {
            plugin: entry.identity.name.clone(),
            message: format!("{error:#}"),
        };
        let Some(cache) = &self.cache else { return Component::new(&self.engine, entry.bytes()?).map_err(malformed) };
        let stem = Cache::stem(&entry.identity.digest, self.hash);
        if let Some(code) = cache.read(&stem) {
            // SAFETY: the code lay in a directory that only this user can enter, on a local file system, in a file that is
            // this user's alone, and is as `Cache::store` wrote it (`Cache::open`, `Cache::read`); it was written from this
            // engine's own compiler: its name holds the digest of the component and the hash of the engine's settings and
            // of this processor, which the engine checks again.
            if let Ok(component) = unsafe { Component::deserialize(&self.engine, &code) } {
                return Ok(component);
            }
        }
        let component = Component::new(&self.engine, entry.bytes()?).map_err(malformed)?;
        // A cache that is full or read-only costs time, not the run.
        if let Ok(bytes) = component.serialize() {
            let _ = cache.store(&stem, &bytes);
        }
        Ok(component)
    }

    /// Removes compiled components: those of other engines and of components that `keep` does not have, or all of them.
    /// Answers how many files and bytes.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn prune(&self, keep: Option<&[String]>) -> std::io::Result<(usize, u64)> {
        let Some(cache) = &self.cache else { return Ok((0, 0)) };
        let stems: Vec<String> = keep.unwrap_or_default().iter().map(|digest| Cache::stem(digest, self.hash)).collect();
        cache.prune(&stems)
    }

    /// Where compiled components are kept; none where no place is fit for it.
    #[must_use]
    pub fn cache_directory(&self) -> Option<&std::path::Path> {
        self.cache.as_ref().map(Cache::directory)
    }

    /// What speaks against the places that the cache would lie in, up to the first that is fit.
    #[must_use]
    pub fn cache_faults(environment: &Environment) -> Vec<String> {
        Cache::look(environment).1
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
        let component = self.compiled(entry)?;
        Ok(component.component_type().imports(&self.engine).map(|(name, _)| name.to_owned()).collect())
    }

    /// Bytes of the compiled form.
    ///
    /// # Errors
    /// Not a component.
    pub fn compiled_size(&self, entry: &Entry) -> Result<usize, PluginError> {
        Ok(self.compiled(entry)?.serialize().map_or(0, |code| code.len()))
    }

    pub(super) fn store(&self, state: State) -> wasmtime::Store<State> {
        wasmtime::Store::new(&self.engine, state)
    }
}

/// What compiled code depends on besides what was compiled: the engine and its settings, the target, and the features of
/// this processor; a home directory may be seen by several kinds.
fn key_of(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    hasher.finish()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::catalog::Catalog;
    use crate::plugin::package::digest_of;

    #[test]
    fn compiled_code_is_keyed_by_the_engines_settings_and_the_processor() {
        let config = || {
            let mut config = Config::new();
            config.epoch_interruption(true);
            config
        };
        let key = |config: &Config| key_of(&wasmtime::Engine::new(config).unwrap());
        let ours = key(&config());
        assert_eq!(ours, key(&config()));
        assert_ne!(ours, key(config().epoch_interruption(false)));
        // The target by name has none of the features that this processor has beyond the least.
        let least = if cfg!(target_arch = "x86_64") { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" };
        assert_ne!(ours, key(config().target(least).unwrap()));
    }

    #[test]
    fn what_is_in_the_cache_and_is_no_code_of_this_engine_is_compiled_again() {
        let place = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("MADDOCK_CACHE_DIR".to_owned(), place.path().display().to_string())].into_iter().collect();
        let engine = Engine::new(&environment).unwrap();
        let catalog = Catalog::new(&[]).unwrap();
        let entry = catalog.entries().iter().find(|entry| entry.identity.name == "report-csv").unwrap();
        engine.load(entry).unwrap();
        let stem = Cache::stem(&entry.identity.digest, engine.hash);
        let cache = engine.cache.as_ref().unwrap();
        let good = cache.read(&stem).unwrap();
        // Its sum is right, as if another engine had written it.
        cache.store(&stem, b"\x7fELF and nothing else").unwrap();
        engine.load(entry).unwrap();
        assert_eq!(digest_of(&cache.read(&stem).unwrap()), digest_of(&good));
    }
}
