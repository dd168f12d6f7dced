//! The place of a value in a configuration: keys from the outside in.

use std::fmt;

/// Keys from the outside in. Text is split at dots; a key that holds a dot itself is given as an element of an array.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    /// One level further in.
    #[must_use]
    pub fn child(&self, key: &str) -> Self {
        let mut keys = self.0.clone();
        keys.push(key.to_owned());
        Self(keys)
    }

    /// Whether this is `outer` or lies in it.
    #[must_use]
    pub fn lies_in(&self, outer: &Self) -> bool {
        self.0.starts_with(&outer.0)
    }

    /// The same place after `outer` has become `new`.
    #[must_use]
    pub fn moved(&self, outer: &Self, new: &Self) -> Self {
        let rest = self.0.get(outer.0.len()..).unwrap_or_default();
        Self(new.0.iter().chain(rest).cloned().collect())
    }
}

impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        Self(text.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect())
    }
}

impl From<&String> for KeyPath {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl<const N: usize> From<[&str; N]> for KeyPath {
    fn from(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|key| (*key).to_owned()).collect())
    }
}

impl From<&[String]> for KeyPath {
    fn from(keys: &[String]) -> Self {
        Self(keys.to_vec())
    }
}

impl From<&Self> for KeyPath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
