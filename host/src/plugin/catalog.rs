//! The catalogue: the embedded plugins, and the component files given on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::PluginError;
use super::manifest::{Kind, Manifest};
use crate::capability::gate::Identity;

/// A plugin that is part of this binary.
struct Embedded {
    name: &'static str,
    digest: &'static str,
    manifest: &'static str,
    component: &'static [u8],
}

/// In the order of their names.
static EMBEDDED: &[Embedded] = &include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Names that belong to this binary: its plugins, and the kernel where it asks at the gate itself.
#[must_use]
pub fn built_in_names() -> Vec<&'static str> {
    EMBEDDED.iter().map(|embedded| embedded.name).chain(["kernel"]).collect()
}

/// Where a component's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In this binary.
    Embedded(&'static [u8]),
    /// In a file; the bytes were read once, and are the ones whose digest counts.
    File(PathBuf, Arc<[u8]>),
}

/// One plugin that there is.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it says about itself.
    pub manifest: Arc<Manifest>,
    /// Name, digest, and whether it is built in.
    pub identity: Arc<Identity>,
    /// Its bytes.
    pub source: Source,
}

impl Entry {
    /// The component.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Embedded(bytes) => bytes,
            Source::File(_, bytes) => bytes,
        }
    }

    /// Reads a component file and its manifest.
    ///
    /// # Errors
    /// Unreadable, not a component, or without a usable manifest.
    pub fn of_file(path: &Path) -> Result<Self, PluginError> {
        let plugin = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| PluginError::Unreadable { plugin: plugin.clone(), source })?;
        let manifest = Manifest::of_component(&bytes).map_err(|message| PluginError::Manifest { plugin, message })?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let identity = Identity { name: manifest.name.clone(), digest, built_in: false };
        Ok(Self {
            manifest: Arc::new(manifest),
            identity: Arc::new(identity),
            source: Source::File(path.to_owned(), bytes.into()),
        })
    }
}

/// All plugins of this invocation.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: Vec<Entry>,
}

impl Catalog {
    /// The embedded plugins, and the given component files after them.
    ///
    /// # Errors
    /// A file that is no usable plugin, or that bears the name of another.
    pub fn new(files: &[PathBuf]) -> Result<Self, PluginError> {
        let mut entries = Vec::with_capacity(EMBEDDED.len() + files.len());
        for embedded in EMBEDDED {
            let plugin = embedded.name.to_owned();
            let manifest =
                Manifest::parse(embedded.manifest).map_err(|message| PluginError::Manifest { plugin, message })?;
            let identity = Identity { name: manifest.name.clone(), digest: embedded.digest.to_owned(), built_in: true };
            entries.push(Entry {
                manifest: Arc::new(manifest),
                identity: Arc::new(identity),
                source: Source::Embedded(embedded.component),
            });
        }
        for file in files {
            let entry = Entry::of_file(file)?;
            if entries.iter().any(|other: &Entry| other.identity.name == entry.identity.name) {
                let message = format!("another plugin is called `{}` already", entry.identity.name);
                return Err(PluginError::Manifest { plugin: file.display().to_string(), message });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// All of them, built-ins first, by name.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Those of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.manifest.kind == kind)
    }

    /// The one of a kind that provides a name; the plugin's own name counts as one it provides. Case, hyphen and
    /// underscore make no difference.
    #[must_use]
    pub fn providing(&self, kind: Kind, name: &str) -> Option<&Entry> {
        let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
        let wanted = plain(name);
        self.of_kind(kind)
            .find(|entry| entry.manifest.provides.iter().any(|provided| plain(provided) == wanted))
            .or_else(|| self.of_kind(kind).find(|entry| entry.identity.name == wanted))
    }

    /// Every name that plugins of a kind provide.
    #[must_use]
    pub fn provided(&self, kind: Kind) -> Vec<&str> {
        self.of_kind(kind).flat_map(|entry| entry.manifest.provides.iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_component_carries_the_manifest_that_its_source_has() {
        for entry in Catalog::new(&[]).unwrap().entries() {
            assert_eq!(&Manifest::of_component(entry.bytes()).unwrap(), &*entry.manifest, "{}", entry.identity.name);
        }
    }

    #[test]
    fn a_launcher_is_found_by_any_spelling_of_its_name() {
        let catalog = Catalog::new(&[]).unwrap();
        assert!(catalog.providing(Kind::Launcher, "TorchRun").is_some());
        assert!(catalog.providing(Kind::Target, "torchrun").is_none());
    }
}
