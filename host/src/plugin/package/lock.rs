//! `maddock.lock`: which components a project uses, by digest. It lies in the working directory and belongs into version
//! control.
//!
//! A plugin that is pinned is used as pinned or not at all. Nothing else overrides a built-in plugin than a line here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::Installed;
use super::{PackageError, Result, is_digest, read_at_most, replace};
use crate::plugin::manifest::Kind;

/// The name of the file.
pub const NAME: &str = "maddock.lock";
/// The version that this binary reads and writes.
const VERSION: u32 = 1;
const LARGEST: u64 = 4 << 20;
const HEAD: &str =
    "# Which plugins this project uses. Written by `maddock plugin lock`; keep it under version control.\n";

/// One plugin of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The name in its manifest.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it does.
    pub kind: Kind,
    /// `sha256:…` of the component.
    pub digest: String,
    /// Where it can be had.
    pub source: String,
    /// The public key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// A built-in plugin that another takes the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Override {
    /// The built-in one's name.
    pub built_in: String,
    /// The other one's digest.
    pub digest: String,
}

/// The content of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// In the order of names.
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// In the order of names.
    #[serde(default, rename = "override", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, pins: Vec::new(), overrides: Vec::new() }
    }
}

impl Pin {
    /// The pin of an installed plugin.
    #[must_use]
    pub fn of(installed: &Installed) -> Self {
        Self {
            name: installed.manifest.name.clone(),
            version: installed.manifest.version.clone(),
            kind: installed.manifest.kind,
            digest: installed.digest.clone(),
            source: installed.source.clone(),
            signer: installed.signer.clone(),
        }
    }
}

impl Lock {
    /// The file of a project.
    #[must_use]
    pub fn file(project: &Path) -> PathBuf {
        project.join(NAME)
    }

    /// Reads the lock of a project; none where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is broken.
    pub fn read(project: &Path) -> Result<Option<Self>> {
        let path = Self::file(project);
        if !path.exists() {
            return Ok(None);
        }
        let text = String::from_utf8(read_at_most(&path, LARGEST)?)
            .map_err(|error| PackageError::new(format!("`{}` is not UTF-8: {error}", path.display())))?;
        Self::parse(&text).map(Some).map_err(|message| PackageError::new(format!("`{}`: {message}", path.display())))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let lock: Self = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        if lock.version != VERSION {
            return Err(format!("version {} is not known here; this program reads {VERSION}", lock.version));
        }
        for digest in lock.pins.iter().map(|pin| &pin.digest).chain(lock.overrides.iter().map(|line| &line.digest)) {
            if !is_digest(digest) {
                return Err(format!("`{}` is not a digest of the form sha256:…", digest.escape_debug()));
            }
        }
        for (at, pin) in lock.pins.iter().enumerate() {
            if lock.pins.iter().take(at).any(|other| other.name == pin.name) {
                return Err(format!("`{}` is pinned twice", pin.name.escape_debug()));
            }
        }
        for (at, line) in lock.overrides.iter().enumerate() {
            if lock.overrides.iter().take(at).any(|other| other.built_in == line.built_in) {
                return Err(format!("`{}` is overridden twice", line.built_in.escape_debug()));
            }
        }
        Ok(lock)
    }

    /// The pin of a name.
    #[must_use]
    pub fn pin(&self, name: &str) -> Option<&Pin> {
        self.pins.iter().find(|pin| pin.name == name)
    }

    /// Pins a plugin, in place of what was pinned under its name.
    pub fn put(&mut self, pin: Pin) {
        // What replaced a built-in one goes on doing so in its new version.
        if let Some(before) = self.pin(&pin.name).map(|before| before.digest.clone()) {
            for line in self.overrides.iter_mut().filter(|line| line.digest == before) {
                line.digest.clone_from(&pin.digest);
            }
        }
        self.pins.retain(|other| other.name != pin.name);
        self.pins.push(pin);
        self.pins.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Puts a component in the place of a built-in plugin.
    pub fn override_built_in(&mut self, built_in: &str, digest: &str) {
        self.overrides.retain(|line| line.built_in != built_in);
        self.overrides.push(Override { built_in: built_in.to_owned(), digest: digest.to_owned() });
        self.overrides.sort_by(|a, b| a.built_in.cmp(&b.built_in));
    }

    /// Takes a pin back; answers whether there was one.
    ///
    /// # Errors
    /// It is in the place of built-in plugins, whose names are answered.
    pub fn drop_pin(&mut self, name: &str) -> std::result::Result<bool, Vec<String>> {
        let Some(digest) = self.pin(name).map(|pin| pin.digest.clone()) else { return Ok(false) };
        let replaced = self.overrides.iter().filter(|line| line.digest == digest);
        let replaced: Vec<String> = replaced.map(|line| line.built_in.clone()).collect();
        if !replaced.is_empty() {
            return Err(replaced);
        }
        self.pins.retain(|pin| pin.name != name);
        Ok(true)
    }

    /// Puts a built-in plugin back into its place; answers whether another was there.
    pub fn drop_override(&mut self, built_in: &str) -> bool {
        let before = self.overrides.len();
        self.overrides.retain(|line| line.built_in != built_in);
        self.overrides.len() != before
    }

    /// What it says of some components; none where that is nothing.
    #[must_use]
    pub fn part(&self, digests: &[&str]) -> Option<Self> {
        let has = |digest: &String| digests.contains(&digest.as_str());
        let pins: Vec<Pin> = self.pins.iter().filter(|pin| has(&pin.digest)).cloned().collect();
        let overrides: Vec<Override> = self.overrides.iter().filter(|line| has(&line.digest)).cloned().collect();
        let something = !pins.is_empty() || !overrides.is_empty();
        something.then_some(Self { version: self.version, pins, overrides })
    }

    /// The text of the file.
    ///
    /// # Errors
    /// It has no form as TOML.
    pub fn text(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|error| PackageError::new(format!("cannot write {NAME}: {error}")))?;
        Ok(format!("{HEAD}{text}"))
    }

    /// Writes the lock of a project.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, project: &Path) -> Result<()> {
        replace(&Self::file(project), self.text()?.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str, digit: char) -> Pin {
        Pin {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            kind: Kind::Target,
            digest: format!("sha256:{}", digit.to_string().repeat(64)),
            source: "a \"quoted\" place".to_owned(),
            signer: None,
        }
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let mut lock = Lock::default();
        lock.put(pin("b", '1'));
        lock.put(pin("a", '2'));
        lock.override_built_in("launchers", &pin("a", '2').digest);
        let text = lock.text().unwrap();
        assert_eq!(Lock::parse(&text).unwrap(), lock, "{text}");
        assert!(text.find("\"a\"") < text.find("\"b\""), "{text}");
    }

    #[test]
    fn an_override_follows_the_pin_of_its_plugin() {
        let mut lock = Lock::default();
        lock.put(pin("a", '1'));
        lock.override_built_in("launchers", &pin("a", '1').digest);
        lock.put(pin("a", '2'));
        assert_eq!(lock.overrides[0].digest, pin("a", '2').digest);
    }

    #[test]
    fn a_pin_is_taken_back_unless_something_stands_on_it() {
        let mut lock = Lock::default();
        lock.put(pin("a", '1'));
        lock.put(pin("b", '2'));
        lock.override_built_in("launchers", &pin("a", '1').digest);
        assert_eq!(lock.drop_pin("absent"), Ok(false));
        assert_eq!(lock.drop_pin("b"), Ok(true));
        assert_eq!(lock.drop_pin("a"), Err(vec!["launchers".to_owned()]));
        assert!(lock.drop_override("launchers") && !lock.drop_override("launchers"));
        assert_eq!(lock.drop_pin("a"), Ok(true));
        assert_eq!(lock, Lock::default());
    }

    #[test]
    fn a_part_of_a_lock_speaks_of_nothing_else() {
        let mut lock = Lock::default();
        lock.put(pin("a", '1'));
        lock.put(pin("b", '2'));
        lock.override_built_in("launchers", &pin("b", '2').digest);
        let part = lock.part(&[&pin("a", '1').digest]).unwrap();
        assert_eq!((part.pins.len(), part.overrides.len()), (1, 0));
        let part = lock.part(&[&pin("b", '2').digest]).unwrap();
        assert_eq!((part.pins.len(), part.overrides.len()), (1, 1));
        assert_eq!(lock.part(&[&pin("c", '3').digest]), None);
    }

    #[test]
    fn a_broken_lock_says_what_is_wrong() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let entry = format!("[[plugin]]\nname='a'\nversion='1'\nkind='target'\nsource=''\ndigest='{digest}'\n");
        for (text, expected) in [
            ("version = 2".to_owned(), "version 2 is not known"),
            ("version = 1\nother = 1".to_owned(), "unknown field `other`"),
            (format!("version = 1\n{}", entry.replace("sha256:", "")), "is not a digest"),
            (format!("version = 1\n{entry}{entry}"), "is pinned twice"),
            (format!("version = 1\n{}", entry.replace("'target'", "'pilot'")), "pilot"),
        ] {
            let error = Lock::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
