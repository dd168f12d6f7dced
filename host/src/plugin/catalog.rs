//! The catalogue: the embedded plugins, what the user has installed, and the component files given on the command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::error::PluginError;
use super::manifest::{KERNEL, Kind, Manifest};
use super::package::lock::{self, Lock, Override};
use super::package::signature::{self, Signed, TrustedKey};
use super::package::store::{Installed, Store};
use super::package::{PackageError, digest_of};
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
    EMBEDDED.iter().map(|embedded| embedded.name).chain([KERNEL]).collect()
}

/// Where a component's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In this binary.
    Embedded(&'static [u8]),
    /// In a file; the bytes were read once, and are the ones whose digest counts.
    File(PathBuf, Arc<[u8]>),
    /// In the user's store; read, and compared with the digest, when they are needed.
    Store(Arc<Stored>),
}

/// A component of the store.
#[derive(Debug)]
pub struct Stored {
    store: Store,
    /// Its line of the index.
    pub installed: Installed,
    bytes: OnceLock<Vec<u8>>,
}

impl Stored {
    /// The signature that it came with.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn signature(&self) -> Result<Option<String>, PackageError> {
        self.store.signature(&self.installed.digest)
    }
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
    /// The keys whose signatures count.
    keys: Arc<[TrustedKey]>,
    /// Who must have signed it, as the lock says.
    pinned: Option<String>,
    /// With the signer, once that was asked for.
    verified: Arc<OnceLock<Arc<Identity>>>,
}

impl Entry {
    fn new(manifest: Manifest, digest: String, built_in: bool, source: Source) -> Self {
        let identity = Identity { name: manifest.name.clone(), digest, built_in, signer: None };
        Self {
            manifest: Arc::new(manifest),
            identity: Arc::new(identity),
            source,
            keys: Arc::default(),
            pinned: None,
            verified: Arc::default(),
        }
    }

    /// The same, where the signatures of these keys count.
    #[must_use]
    pub fn trusting(self, keys: Arc<[TrustedKey]>) -> Self {
        Self { keys, verified: Arc::default(), ..self }
    }

    /// What is known of who made it: the signature is compared with the bytes, now. Where no key is trusted there is nothing
    /// to compare.
    ///
    /// # Errors
    /// The component or the signature cannot be read.
    pub fn signed(&self) -> Result<Signed, PluginError> {
        let text = match &self.source {
            Source::Embedded(_) => None,
            _ if self.keys.is_empty() => None,
            Source::File(path, _) => signature::beside(path)?,
            Source::Store(stored) => stored.signature()?,
        };
        match text {
            None => Ok(Signed::Not),
            Some(text) => Ok(signature::check(self.bytes()?, Some(&text), &self.keys)),
        }
    }

    /// Who asks at the gate: the identity, and who has signed the bytes. Found out once.
    ///
    /// # Errors
    /// It cannot be read, its signature is wrong, or it is signed by another than the lock says.
    pub fn who(&self) -> Result<Arc<Identity>, PluginError> {
        if let Some(who) = self.verified.get() {
            return Ok(who.clone());
        }
        let signed = self.signed()?;
        if let Signed::Wrong(why) = &signed {
            return Err(PackageError::new(format!("`{}`: {why}", self.place()))
                .hint("the file is not the one that was signed: get it again, or remove the signature")
                .into());
        }
        if let Some(pinned) = &self.pinned
            && signed.signer() != Some(pinned)
        {
            return Err(PackageError::new(format!(
                "{} says that `{}` is signed by {pinned}, and no such signature of a trusted key is here ({})",
                lock::NAME,
                self.identity.name,
                signed.words()
            ))
            .hint("trust that key by `maddock plugin trust KEY`, or install the plugin again, with its signature")
            .into());
        }
        let who = match signed.signer() {
            None => self.identity.clone(),
            Some(signer) => {
                let signer = Some(signer.to_owned());
                Arc::new(Identity { signer, ..Identity::clone(&self.identity) })
            }
        };
        Ok(self.verified.get_or_init(|| who).clone())
    }

    /// The component.
    ///
    /// # Errors
    /// It is in the store, and cannot be read or was changed there.
    pub fn bytes(&self) -> Result<&[u8], PluginError> {
        match &self.source {
            Source::Embedded(bytes) => Ok(bytes),
            Source::File(_, bytes) => Ok(bytes),
            Source::Store(stored) => match stored.bytes.get() {
                Some(bytes) => Ok(bytes),
                None => {
                    let bytes = stored.store.component(&self.identity.digest)?;
                    Ok(stored.bytes.get_or_init(|| bytes))
                }
            },
        }
    }

    /// Bytes of the component.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Embedded(bytes) => bytes.len() as u64,
            Source::File(_, bytes) => bytes.len() as u64,
            Source::Store(stored) => stored.installed.size,
        }
    }

    /// Where it lies: `built-in`, a file, or where it was installed from.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.source {
            Source::Embedded(_) => "built-in".to_owned(),
            Source::File(path, _) => path.display().to_string(),
            Source::Store(stored) => stored.installed.source.clone(),
        }
    }

    /// Reads a component file and its manifest.
    ///
    /// # Errors
    /// Unreadable, not a component, or without a usable manifest.
    pub fn of_file(path: &Path) -> Result<Self, PluginError> {
        let plugin = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| PluginError::Unreadable { plugin: plugin.clone(), source })?;
        Self::of_bytes(path, bytes)
    }

    /// Takes a component that was read from somewhere.
    ///
    /// # Errors
    /// Not a component, or without a usable manifest.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, PluginError> {
        let plugin = path.display().to_string();
        let manifest = Manifest::of_component(&bytes).map_err(|message| PluginError::Manifest { plugin, message })?;
        let digest = digest_of(&bytes);
        Ok(Self::new(manifest, digest, false, Source::File(path.to_owned(), bytes.into())))
    }

    /// One of the store's plugins.
    ///
    /// # Errors
    /// Its manifest is not one for this host.
    pub fn of_store(store: &Store, installed: &Installed) -> Result<Self, PluginError> {
        let malformed = |message| PluginError::Manifest { plugin: installed.manifest.name.clone(), message };
        let manifest = installed.manifest.clone().checked().map_err(malformed)?;
        let stored = Stored { store: store.clone(), installed: installed.clone(), bytes: OnceLock::new() };
        Ok(Self::new(manifest, installed.digest.clone(), false, Source::Store(Arc::new(stored))))
    }
}

/// The plugins that are not part of this binary.
#[derive(Debug, Default)]
pub struct Outside<'a> {
    /// The user's store and what is in it.
    pub installed: Option<(Store, Vec<Installed>)>,
    /// The lock of the project.
    pub lock: Option<Lock>,
    /// Nothing may be used that the lock does not have.
    pub locked: bool,
    /// Component files that the command line names.
    pub files: &'a [PathBuf],
    /// The keys whose signatures count.
    pub keys: Arc<[TrustedKey]>,
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
        Self::with(&Outside { files, ..Outside::default() })
    }

    /// The embedded plugins, what is installed, and the given component files, as the lock of the project says.
    ///
    /// A file takes the place of an installed plugin of its name; only a line of the lock lets anything take the place of
    /// a built-in one.
    ///
    /// # Errors
    /// A file that is no usable plugin, or that bears the name of another; a pin that is not installed; with `locked`,
    /// what the lock does not have.
    pub fn with(outside: &Outside<'_>) -> Result<Self, PluginError> {
        let none = Lock::default();
        let lock = outside.lock.as_ref().unwrap_or(&none);
        if outside.locked && outside.lock.is_none() {
            return Err(PackageError::new(format!("`--locked` was asked for, and there is no {} here", lock::NAME))
                .hint("`maddock plugin lock` writes it from what is installed")
                .into());
        }
        let mut files = Vec::with_capacity(outside.files.len());
        for file in outside.files {
            let entry = Entry::of_file(file)?;
            if files.iter().any(|other: &Entry| other.identity.name == entry.identity.name) {
                return Err(taken(file, &entry.identity.name));
            }
            check_locked(outside.locked, lock, &entry)?;
            files.push(pinned(entry, lock));
        }
        let mut others = installed(outside, lock, &files)?;
        others.extend(files);
        let others: Vec<Entry> = others.into_iter().map(|entry| entry.trusting(outside.keys.clone())).collect();
        let mut entries = embedded()?;
        for line in &lock.overrides {
            put_in_place(&mut entries, &others, line)?;
        }
        for entry in others {
            if entries.iter().any(|other| other.identity.digest == entry.identity.digest) {
                continue;
            }
            if entries.iter().any(|other| other.identity.name == entry.identity.name) {
                match &entry.source {
                    Source::File(path, _) => return Err(taken(path, &entry.identity.name)),
                    // It does nothing by being installed.
                    Source::Store(_) | Source::Embedded(_) => continue,
                }
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// Whether a name is one of the plugins that are part of this binary.
    #[must_use]
    pub fn is_built_in(name: &str) -> bool {
        EMBEDDED.iter().any(|embedded| embedded.name == name)
    }

    /// What a plugin that is part of this binary does; none where there is none of that name.
    #[must_use]
    pub fn built_in_kind(name: &str) -> Option<Kind> {
        let embedded = EMBEDDED.iter().find(|embedded| embedded.name == name)?;
        Manifest::parse(embedded.manifest).ok().map(|manifest| manifest.kind)
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
    ///
    /// What is in the place of a built-in plugin comes before everything else: no other takes from it what it is called or
    /// provides, whatever that one is called.
    #[must_use]
    pub fn providing(&self, kind: Kind, name: &str) -> Option<&Entry> {
        let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
        let wanted = plain(name);
        let provides = |entry: &&Entry| entry.manifest.provides.iter().any(|provided| plain(provided) == wanted);
        let named = |entry: &&Entry| entry.identity.name == wanted;
        let (built_in, others) = self.entries.split_at_checked(EMBEDDED.len()).unwrap_or((&self.entries, &[]));
        [built_in, others].into_iter().find_map(|entries| {
            let of_kind = || entries.iter().filter(|entry| entry.manifest.kind == kind);
            // A plugin's own name comes first: what another says it provides does not take it.
            of_kind().find(named).or_else(|| of_kind().find(provides))
        })
    }

    /// Every name that plugins of a kind provide.
    #[must_use]
    pub fn provided(&self, kind: Kind) -> Vec<&str> {
        self.of_kind(kind).flat_map(|entry| entry.manifest.provides.iter().map(String::as_str)).collect()
    }
}

fn embedded() -> Result<Vec<Entry>, PluginError> {
    let mut entries = Vec::with_capacity(EMBEDDED.len());
    for embedded in EMBEDDED {
        let plugin = embedded.name.to_owned();
        let manifest =
            Manifest::parse(embedded.manifest).map_err(|message| PluginError::Manifest { plugin, message })?;
        entries.push(Entry::new(manifest, embedded.digest.to_owned(), true, Source::Embedded(embedded.component)));
    }
    Ok(entries)
}

fn taken(file: &Path, name: &str) -> PluginError {
    let message = format!("another plugin is called `{name}` already");
    PluginError::Manifest { plugin: file.display().to_string(), message }
}

/// The installed plugins that count: of each name the pinned one, or the one that was installed last.
fn installed(outside: &Outside<'_>, lock: &Lock, files: &[Entry]) -> Result<Vec<Entry>, PluginError> {
    let nothing = Vec::new();
    let (store, plugins) = match &outside.installed {
        Some((store, plugins)) => (Some(store), plugins),
        None => (None, &nothing),
    };
    let by_file = |name: &str| files.iter().any(|entry| entry.identity.name == name);
    for pin in &lock.pins {
        let there = plugins.iter().any(|plugin| plugin.digest == pin.digest)
            || files.iter().any(|entry| entry.identity.digest == pin.digest);
        if !there && !by_file(&pin.name) {
            return Err(PackageError::new(format!(
                "{} pins `{}` {} to {}, which is not installed",
                lock::NAME,
                pin.name,
                pin.version,
                pin.digest
            ))
            .hint(format!(
                "it came from `{}`: maddock plugin install SOURCE; or take the pin back: maddock plugin lock --drop {}",
                pin.source, pin.name
            ))
            .into());
        }
    }
    let Some(store) = store else { return Ok(Vec::new()) };
    let mut entries: Vec<Entry> = Vec::new();
    // From the newest to the oldest, so that the first of a name is the one.
    for plugin in plugins.iter().rev() {
        let name = &plugin.manifest.name;
        let meant = match lock.pin(name) {
            Some(pin) => pin.digest == plugin.digest,
            None => !outside.locked,
        };
        if !meant || by_file(name) || entries.iter().any(|entry| entry.identity.name == *name) {
            continue;
        }
        if let Some(pin) = lock.pin(name)
            && pin.signer.is_some()
            && pin.signer != plugin.signer
        {
            return Err(PackageError::new(format!(
                "{} says that `{name}` is signed by {}, and what is installed is signed by {}",
                lock::NAME,
                pin.signer.as_deref().unwrap_or("nobody"),
                plugin.signer.as_deref().unwrap_or("nobody"),
            ))
            .hint("trust that key by `maddock plugin trust KEY` and install the plugin again, with its signature")
            .into());
        }
        entries.push(pinned(Entry::of_store(store, plugin)?, lock));
    }
    entries.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
    Ok(entries)
}

/// A component with the signer that the lock has for its digest.
fn pinned(entry: Entry, lock: &Lock) -> Entry {
    let pin = lock.pins.iter().find(|pin| pin.digest == entry.identity.digest);
    Entry { pinned: pin.and_then(|pin| pin.signer.clone()), ..entry }
}

fn check_locked(locked: bool, lock: &Lock, entry: &Entry) -> Result<(), PluginError> {
    if !locked || lock.pins.iter().any(|pin| pin.digest == entry.identity.digest) {
        return Ok(());
    }
    let name = &entry.identity.name;
    let message = match lock.pin(name) {
        Some(pin) => format!("`{name}` is {}, and {} pins it to {}", entry.identity.digest, lock::NAME, pin.digest),
        None => format!("`{name}` is not in {}", lock::NAME),
    };
    Err(PackageError::new(message).hint("`--locked` refuses what the lock file does not have").into())
}

/// Puts the component that a line names in the place of a built-in one.
fn put_in_place(entries: &mut [Entry], others: &[Entry], line: &Override) -> Result<(), PluginError> {
    let Some(other) = others.iter().find(|entry| entry.identity.digest == line.digest) else {
        return Err(PackageError::new(format!(
            "{} puts {} in the place of `{}`, and there is no such plugin",
            lock::NAME,
            line.digest,
            line.built_in
        ))
        .hint(format!(
            "install it, pin it by `maddock plugin lock`, or take that back: maddock plugin lock --drop-override {}",
            line.built_in
        ))
        .into());
    };
    let Some(place) = entries.iter_mut().find(|entry| entry.identity.built_in && entry.identity.name == line.built_in)
    else {
        return Err(PackageError::new(format!("{} overrides `{}`, which is not built in", lock::NAME, line.built_in))
            .hint("`maddock plugin list` shows the plugins that there are")
            .into());
    };
    if place.manifest.kind != other.manifest.kind {
        return Err(PackageError::new(format!(
            "{} puts `{}`, a {}, in the place of `{}`, a {}",
            lock::NAME,
            other.identity.name,
            other.manifest.kind.word(),
            line.built_in,
            place.manifest.kind.word()
        ))
        .into());
    }
    *place = other.clone();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_component_carries_the_manifest_that_its_source_has() {
        for entry in Catalog::new(&[]).unwrap().entries() {
            assert_eq!(
                &Manifest::of_component(entry.bytes().unwrap()).unwrap(),
                &*entry.manifest,
                "{}",
                entry.identity.name
            );
        }
    }

    #[test]
    fn a_launcher_is_found_by_any_spelling_of_its_name() {
        let catalog = Catalog::new(&[]).unwrap();
        assert!(catalog.providing(Kind::Launcher, "TorchRun").is_some());
        assert!(catalog.providing(Kind::Target, "torchrun").is_none());
    }
}
