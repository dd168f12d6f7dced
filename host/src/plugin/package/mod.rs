//! Plugins as things that are shipped: the store of what is installed, the lock file of a project, signatures, bundles,
//! registries, and new projects.
//!
//! Nothing here grants anything. A plugin that is installed may do what policy says of its digest, and nothing else.
//! Nothing is downloaded but by an explicit `maddock plugin` command.

pub mod bundle;
pub mod grants;
pub mod lock;
pub mod project;
pub mod registry;
pub mod signature;
pub mod source;
pub mod store;

/// The largest component that is read: a Python plugin has 20 MB.
pub const LARGEST_COMPONENT: u64 = 256 << 20;

/// What went wrong with something shipped: a sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PackageError {
    /// A lower-case fragment that names the file or plugin.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl PackageError {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file that could not be read or written.
    pub fn of_file(did: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {did} `{}`: {error}", path.display()))
    }
}

/// What functions here answer.
pub type Result<T> = std::result::Result<T, PackageError>;

/// The digest of bytes, as `sha256:…`.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// Whether a text is a digest as they are written here: `sha256:` and 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hexadecimal| {
        hexadecimal.len() == 64
            && hexadecimal.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Writes a file as a whole: readers see the old one or the new one.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &std::path::Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        temporary.write_all(bytes)?;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| PackageError::of_file("write", path, &error))
}

/// Reads a file of at most so many bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_at_most(path: &std::path::Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let cannot = |error: std::io::Error| PackageError::of_file("read", path, &error);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(PackageError::new(format!("`{}` is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
