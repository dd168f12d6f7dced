//! The plugins of one invocation: found in the catalogue, compiled and linked on first use, once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::calls::Plugin;
use super::catalog::{Catalog, Entry};
use super::context::Environment;
use super::engine::Engine;
use super::error::PluginError;
use super::manifest::Kind;

/// Catalogue, engine, and what is loaded already.
#[derive(Debug)]
pub struct Plugins {
    catalog: Catalog,
    engine: Arc<Engine>,
    loaded: Mutex<BTreeMap<String, Plugin>>,
}

impl Plugins {
    /// The plugins of a catalogue, none of them loaded yet.
    ///
    /// # Errors
    /// The engine cannot run on this machine.
    pub fn new(catalog: Catalog, environment: &Environment) -> Result<Self, PluginError> {
        Ok(Self { catalog, engine: Arc::new(Engine::new(environment)?), loaded: Mutex::default() })
    }

    /// What there is.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to be kept.
    #[must_use]
    pub fn shared_engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }

    /// One plugin, ready to be called.
    ///
    /// # Errors
    /// The component is malformed or does not fit this host.
    pub fn load(&self, entry: &Entry) -> Result<Plugin, PluginError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.get(&entry.identity.name) {
            return Ok(plugin.clone());
        }
        let plugin = Plugin::new(self.engine.clone(), self.engine.load(entry)?);
        loaded.insert(entry.identity.name.clone(), plugin.clone());
        Ok(plugin)
    }

    /// Every plugin of a kind, ready to be called.
    ///
    /// # Errors
    /// As [`Plugins::load`].
    pub fn all(&self, kind: Kind) -> Result<Vec<Plugin>, PluginError> {
        self.catalog.of_kind(kind).map(|entry| self.load(entry)).collect()
    }

    /// The plugin of a kind that provides a name, ready to be called; none where nothing provides it.
    ///
    /// # Errors
    /// As [`Plugins::load`].
    pub fn providing(&self, kind: Kind, name: &str) -> Result<Option<Plugin>, PluginError> {
        self.catalog.providing(kind, name).map(|entry| self.load(entry)).transpose()
    }
}
