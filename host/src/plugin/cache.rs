//! The private cache of compiled components.
//!
//! A compiled component is native code that the engine trusts, so only a directory that belongs to this user alone, on a
//! local file system, is ever used; otherwise components are compiled in memory each time.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::context::Environment;

/// Magic numbers of network file systems (linux/magic.h, and Lustre's own).
const NETWORK: [u32; 8] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0bd0_0bd0, // Lustre
    0x00c3_6400, // Ceph
    0x4750_4653, // GPFS
    0x0102_1997, // 9P
];

/// A directory that passed the checks.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache of this user: `MADDOCK_CACHE_DIR`, else `XDG_CACHE_HOME/maddock`, else `~/.cache/maddock`, else a private
    /// directory under the temporary one; none where all of these fail the checks.
    pub(super) fn open(environment: &Environment) -> Option<Self> {
        let under = |name: &str, rest: &str| {
            environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(rest))
        };
        let user = rustix::process::geteuid().as_raw();
        let candidates = match under("MADDOCK_CACHE_DIR", "") {
            Some(directory) => vec![directory],
            None => [under("XDG_CACHE_HOME", "maddock"), under("HOME", ".cache/maddock")]
                .into_iter()
                .flatten()
                .chain([std::env::temp_dir().join(format!("maddock-{user}"))])
                .collect(),
        };
        candidates
            .into_iter()
            .map(|directory| directory.join("components"))
            .find(|directory| usable(directory, user))
            .map(|directory| Self { directory })
    }

    /// The file for a component: its digest and everything that the compiled form depends on.
    pub(super) fn file(&self, digest: &str, engine: u64) -> PathBuf {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.directory.join(format!("{digest}-{engine:016x}.cwasm"))
    }

    /// Whether a file is ours alone.
    pub(super) fn trusted(path: &Path) -> bool {
        let user = rustix::process::geteuid().as_raw();
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.uid() == user && meta.mode() & 0o022 == 0)
    }

    /// Stores a compiled component; readers see all of it or nothing. A cache that cannot be written is no error.
    pub(super) fn store(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.directory)?;
        temporary.write_all(bytes)?;
        temporary.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn usable(directory: &Path, user: u32) -> bool {
    let private = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0)
    };
    if DirBuilder::new().recursive(true).mode(0o700).create(directory).is_err() || !private(directory) {
        return false;
    }
    let Ok(opened) = File::open(directory) else { return false };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's magic numbers have 32 bits"
    )]
    let is_network = rustix::fs::fstatfs(&opened).map_or(true, |stat| NETWORK.contains(&(stat.f_type as u32)));
    !is_network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_may_enter_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("MADDOCK_CACHE_DIR".to_owned(), place.path().join("c").display().to_string())].into_iter().collect();
        assert!(Cache::open(&environment).is_some());
        fs::set_permissions(place.path().join("c/components"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::open(&environment).is_none());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_trusted() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("x");
        fs::write(&file, b"x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Cache::trusted(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(!Cache::trusted(&file));
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(!Cache::trusted(&link));
    }
}
