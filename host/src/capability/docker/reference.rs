//! Names that go into the engine's URLs: images, containers. A name that could address anything else is refused here.

use maddock_bindings::api::types::ErrorKind;

use crate::capability::{ApiError, error};

/// The registry whose images bear no registry in their name.
const DEFAULT_REGISTRY: &str = "docker.io";

/// A checked image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    text: String,
}

impl Reference {
    /// Checks a reference or an image's id.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let wrong =
            |why: &str| Err(error(ErrorKind::InvalidInput, format!("`{text}` is not an image reference: {why}")));
        if text.is_empty() {
            return wrong("it is empty");
        }
        if let Some(c) =
            text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@')))
        {
            return wrong(&format!("`{}` cannot be part of one", c.escape_debug()));
        }
        let starts_well = |segment: &str| segment.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !text.split('/').all(starts_well) || text.contains("..") {
            return wrong("each part between `/` begins with a letter or digit");
        }
        if text.ends_with([':', '@', '.', '-']) || text.matches('@').count() > 1 {
            return wrong("its tag or digest is incomplete");
        }
        Ok(Self { text: text.to_owned() })
    }

    /// As given.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is an image's id rather than a name.
    pub(super) fn is_id(&self) -> bool {
        self.text.starts_with("sha256:")
    }

    /// The name without tag and digest.
    pub(super) fn repository(&self) -> &str {
        let name = self.text.split_once('@').map_or(self.text.as_str(), |(name, _)| name);
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        match name.get(last..).and_then(|segment| segment.find(':')) {
            Some(colon) => name.get(..last + colon).unwrap_or(name),
            None => name,
        }
    }

    /// The digest, else the tag, else `latest`: an engine would take every tag where none is named.
    pub(super) fn version(&self) -> &str {
        if let Some((_, digest)) = self.text.split_once('@') {
            return digest;
        }
        self.text.get(self.repository().len()..).and_then(|rest| rest.strip_prefix(':')).unwrap_or("latest")
    }

    /// `host[:port]` of the registry.
    pub(super) fn registry(&self) -> &str {
        match self.repository().split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            // No repository has capitals: what has some is a host.
            Some((host, _)) if host.contains(|c: char| c.is_ascii_uppercase()) => host,
            _ => DEFAULT_REGISTRY,
        }
    }

    /// What the engine calls the registry where it keeps logins.
    pub(super) fn login_server(&self) -> &str {
        if self.registry() == DEFAULT_REGISTRY { "https://index.docker.io/v1/" } else { self.registry() }
    }
}

/// Checks a container's id or name: never empty, and nothing that is more than one part of a URL's path.
pub(super) fn container(id: &str) -> Result<&str, ApiError> {
    let good = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if good {
        Ok(id)
    } else {
        Err(error(ErrorKind::InvalidInput, format!("`{}` is not a container's id or name", id.escape_debug())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let reference = Reference::parse(text).unwrap();
        (reference.registry().to_owned(), reference.repository().to_owned(), reference.version().to_owned())
    }

    #[test]
    fn a_reference_has_registry_repository_and_version() {
        let expect = |text, registry: &str, repository: &str, version: &str| {
            assert_eq!(parts(text), (registry.to_owned(), repository.to_owned(), version.to_owned()), "{text}");
        };
        expect("busybox", "docker.io", "busybox", "latest");
        expect("rocm/pytorch:7.0", "docker.io", "rocm/pytorch", "7.0");
        expect("localhost:5000/base/busybox:1", "localhost:5000", "localhost:5000/base/busybox", "1");
        expect("localhost:5000/base/busybox", "localhost:5000", "localhost:5000/base/busybox", "latest");
        expect("EVIL/a:1", "EVIL", "EVIL/a", "1");
        expect("ghcr.io/a/b:t@sha256:12ab", "ghcr.io", "ghcr.io/a/b", "sha256:12ab");
    }

    #[test]
    fn what_could_address_something_else_is_no_reference() {
        for hostile in
            ["", " ", "a b", "a/../b", "../x", "/a", "a//b", "a?x=1", "a#b", "a%2fb", "a\nb", "a:", "a@", "a@b@c"]
        {
            assert!(Reference::parse(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn a_container_is_never_named_by_nothing_or_by_a_path() {
        for hostile in ["", ".", "..", "a/b", "a?force=1", "-x", " ", "a b", "a%20"] {
            assert!(container(hostile).is_err(), "{hostile:?}");
        }
        assert_eq!(container("ci_dummy-1.x").unwrap(), "ci_dummy-1.x");
    }
}
