//! The plugins that this user has installed: components in files named by their digest, and an index that says what they
//! are. The index is small and read at every start; a component is read when it is compiled, and then compared with its
//! digest.
//!
//! Several versions of a plugin may be there, since projects pin digests: the one that was installed last counts where
//! no lock file says otherwise.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{LARGEST_COMPONENT, PackageError, Result, digest_of, is_digest, read_at_most, replace};
use crate::plugin::Environment;
use crate::plugin::manifest::Manifest;

/// The version of the index that this binary reads and writes.
const VERSION: u32 = 1;
/// An index is far smaller.
const LARGEST_INDEX: u64 = 16 << 20;
/// How long another invocation may hold the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// One installed plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// `sha256:…` of the component.
    pub digest: String,
    /// Bytes of the component.
    pub size: u64,
    /// Where it came from: a path, or `oci://…@sha256:…`.
    pub source: String,
    /// The public key whose signature was verified, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// When it was installed.
    pub time: String,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// What is to be installed: the component, its signature, and its line of the index.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The line.
    pub installed: Installed,
    /// The component.
    pub bytes: Vec<u8>,
    /// The text of a detached signature.
    pub signature: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    v: u32,
    plugins: Vec<Installed>,
}

/// A user's store.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store of this user: below `XDG_DATA_HOME`, else `~/.local/share`; none where neither is known.
    #[must_use]
    pub fn of(environment: &Environment) -> Option<Self> {
        let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| Self { directory: data.join("maddock/plugins") })
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of a component.
    #[must_use]
    pub fn file(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{}.wasm", digest.replace(':', "-")))
    }

    fn signature_file(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{}.wasm.sig", digest.replace(':', "-")))
    }

    /// What is installed, in the order of installation.
    ///
    /// # Errors
    /// The index cannot be read, is broken, or others could have written it.
    pub fn read(&self) -> Result<Vec<Installed>> {
        let path = self.directory.join("index.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        for of in [&self.directory, &path] {
            let meta = fs::metadata(of).map_err(|error| PackageError::of_file("read", of, &error))?;
            let user = rustix::process::geteuid().as_raw();
            if !(meta.uid() == user || meta.uid() == 0) || meta.mode() & 0o022 != 0 {
                return Err(PackageError::new(format!("others can write `{}`, so it is not used", of.display()))
                    .hint(format!("chmod go-w {}", of.display())));
            }
        }
        let broken = |message: String| {
            PackageError::new(format!("`{}`: {message}", path.display()))
                .hint("move the file away and install the plugins again; their components stay")
        };
        let index: Index = serde_json::from_slice(&read_at_most(&path, LARGEST_INDEX)?)
            .map_err(|error| broken(format!("not an index of plugins: {error}")))?;
        if index.v != VERSION {
            return Err(broken(format!("version {} is not known here; this program reads {VERSION}", index.v)));
        }
        for plugin in &index.plugins {
            if !is_digest(&plugin.digest) {
                return Err(broken(format!("`{}` is not a digest", plugin.digest.escape_debug())));
            }
        }
        Ok(index.plugins)
    }

    /// The component of a digest.
    ///
    /// # Errors
    /// It cannot be read, or is another than the digest says.
    pub fn component(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.file(digest);
        let bytes = read_at_most(&path, LARGEST_COMPONENT)?;
        let found = digest_of(&bytes);
        if found != digest {
            return Err(PackageError::new(format!("`{}` was changed: its digest is {found}", path.display()))
                .hint("install the plugin again"));
        }
        Ok(bytes)
    }

    /// The signature that came with a component.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn signature(&self, digest: &str) -> Result<Option<String>> {
        super::signature::read_text(&self.signature_file(digest))
    }

    /// Adds plugins: all of them, or on an error none.
    ///
    /// # Errors
    /// The store cannot be written, or another invocation holds it for too long.
    pub fn add(&self, arrivals: &[Arrival]) -> Result<()> {
        let _held = self.hold()?;
        let mut plugins = self.read()?;
        for arrival in arrivals {
            let digest = &arrival.installed.digest;
            replace(&self.file(digest), &arrival.bytes, 0o600)?;
            if let Some(signature) = &arrival.signature {
                replace(&self.signature_file(digest), signature.as_bytes(), 0o600)?;
            }
            plugins.retain(|plugin| plugin.digest != *digest);
            plugins.push(arrival.installed.clone());
        }
        self.write(plugins)
    }

    /// Removes what a name or a digest (or the beginning of one, of eight digits at least) stands for; answers what it was.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remove(&self, what: &str) -> Result<Vec<Installed>> {
        let _held = self.hold()?;
        let (gone, kept): (Vec<_>, Vec<_>) = self.read()?.into_iter().partition(|plugin| is_meant(plugin, what));
        self.write(kept)?;
        for plugin in &gone {
            for file in [self.file(&plugin.digest), self.signature_file(&plugin.digest)] {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(PackageError::of_file("remove", &file, &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(gone)
    }

    fn write(&self, plugins: Vec<Installed>) -> Result<()> {
        let path = self.directory.join("index.json");
        let text = serde_json::to_string_pretty(&Index { v: VERSION, plugins })
            .map_err(|error| PackageError::new(format!("cannot write `{}`: {error}", path.display())))?;
        replace(&path, format!("{text}\n").as_bytes(), 0o600)
    }

    /// The store for this invocation alone.
    fn hold(&self) -> Result<File> {
        let cannot = |error: &std::io::Error| PackageError::of_file("use", &self.directory, error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(|error| cannot(&error))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.directory.join(".lock"))
            .map_err(|error| cannot(&error))?;
        let begun = Instant::now();
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err(PackageError::new(format!(
                    "another maddock has held `{}` for {} s",
                    self.directory.display(),
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(file)
    }
}

/// Whether a name, a digest or the beginning of one stands for a plugin.
#[must_use]
pub fn is_meant(plugin: &Installed, what: &str) -> bool {
    let hexadecimal = what.strip_prefix("sha256:").unwrap_or(what);
    let short = hexadecimal.len() >= 8 && plugin.digest.trim_start_matches("sha256:").starts_with(hexadecimal);
    plugin.manifest.name == what || short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(name: &str, bytes: &[u8]) -> Arrival {
        let text = format!(
            r#"{{"schema":1,"name":"{name}","version":"0.1.0","kind":"launcher","interface":"maddock:plugin@0.1.0"}}"#
        );
        Arrival {
            installed: Installed {
                digest: digest_of(bytes),
                size: bytes.len() as u64,
                source: "/x.wasm".to_owned(),
                signer: None,
                time: "now".to_owned(),
                manifest: Manifest::parse(&text).unwrap(),
            },
            bytes: bytes.to_vec(),
            signature: None,
        }
    }

    fn store(place: &tempfile::TempDir) -> Store {
        let environment: Environment =
            [("XDG_DATA_HOME".to_owned(), place.path().display().to_string())].into_iter().collect();
        Store::of(&environment).unwrap()
    }

    #[test]
    fn what_was_installed_is_there_until_it_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place);
        assert_eq!(store.read().unwrap(), []);
        store.add(&[arrival("a", b"one"), arrival("b", b"two")]).unwrap();
        store.add(&[arrival("a", b"three")]).unwrap();
        let names: Vec<_> = store.read().unwrap().into_iter().map(|plugin| plugin.manifest.name).collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!(store.component(&digest_of(b"two")).unwrap(), b"two");
        assert_eq!(store.remove("a").unwrap().len(), 2);
        assert_eq!(store.remove(&digest_of(b"two")[..20]).unwrap().len(), 1);
        let left: Vec<_> = fs::read_dir(store.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".wasm")), "{left:?}");
    }

    #[test]
    fn a_component_that_was_changed_is_not_given_out() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place);
        store.add(&[arrival("a", b"one")]).unwrap();
        fs::write(store.file(&digest_of(b"one")), b"other").unwrap();
        let error = store.component(&digest_of(b"one")).unwrap_err();
        assert!(error.message.contains("was changed"), "{error}");
    }

    #[test]
    fn an_index_that_others_may_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let store = store(&place);
        store.add(&[arrival("a", b"one")]).unwrap();
        fs::set_permissions(store.directory().join("index.json"), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(store.read().unwrap_err().message.contains("others can write"));
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place);
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                let store = store.clone();
                scope.spawn(move || store.add(&[arrival(&format!("p{number}"), &[number])]).unwrap());
            }
        });
        assert_eq!(store.read().unwrap().len(), 8);
    }
}
