//! The private cache of compiled components.
//!
//! A compiled component is native code that the engine trusts, so only a directory that belongs to this user alone, on a
//! local file system, is ever used; otherwise components are compiled in memory each time. Whoever knows a network file
//! system to be as private as a disk says so by `MADDOCK_CACHE_ON_NETWORK=1`.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::Environment;
use super::package::digest_of;

/// Magic numbers of network file systems (linux/magic.h, and those that have theirs elsewhere), and of such as several
/// machines share.
const NETWORK: [u32; 16] = [
    0x6969,      // NFS
    0x5346_414f, // AFS
    0x6b41_4653, // AFS of the kernel
    0x7375_7245, // Coda
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x2003_0528, // OrangeFS
    0x1983_0326, // BeeGFS
    0x6573_5546, // FUSE: sshfs, object stores, and what else somebody serves from elsewhere
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0bd0_0bd0, // Lustre
    0x00c3_6400, // Ceph
    0x4750_4653, // GPFS
    0x0102_1997, // 9P
];

/// Extension of compiled code.
const CODE: &str = "cwasm";
/// Extension of the digest of the code.
const SUM: &str = "sum";
/// How files begin that are being written.
const UNFINISHED: &str = ".new-";
/// Nobody writes one file for longer.
const ABANDONED: Duration = Duration::from_secs(3600);
#[allow(clippy::cast_possible_wrap, reason = "flags of open(2) are small")]
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// A directory that passed the checks.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache of this user: `MADDOCK_CACHE_DIR`, else `XDG_CACHE_HOME/maddock`, else `~/.cache/maddock`, else a private
    /// directory under the temporary one; none where all of these fail the checks.
    pub(super) fn open(environment: &Environment) -> Option<Self> {
        Self::look(environment).0
    }

    /// The same, and what speaks against each place that was looked at before it.
    pub(super) fn look(environment: &Environment) -> (Option<Self>, Vec<String>) {
        let under = |name: &str, rest: &str| {
            environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(rest))
        };
        let user = rustix::process::geteuid().as_raw();
        let on_network = environment.get("MADDOCK_CACHE_ON_NETWORK") == Some("1");
        let candidates = match under("MADDOCK_CACHE_DIR", "") {
            Some(directory) => vec![directory],
            None => [under("XDG_CACHE_HOME", "maddock"), under("HOME", ".cache/maddock")]
                .into_iter()
                .flatten()
                .chain([std::env::temp_dir().join(format!("maddock-{user}"))])
                .collect(),
        };
        let mut faults = Vec::new();
        if let Some(given) = environment.get("MADDOCK_CACHE_DIR")
            && !Path::new(given).is_absolute()
        {
            faults.push(format!("MADDOCK_CACHE_DIR, `{given}`, is not an absolute path, so it does not count"));
        }
        for directory in candidates.into_iter().map(|directory| directory.join("components")) {
            let fault = match usable(&directory, user) {
                Ok(()) if on_network || is_local(&directory) => return (Some(Self { directory }), faults),
                Ok(()) => "it is on a network file system (MADDOCK_CACHE_ON_NETWORK=1 allows that)".to_owned(),
                Err(fault) => fault,
            };
            faults.push(format!("`{}`: {fault}", directory.display()));
        }
        (None, faults)
    }

    /// Where it lies.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of a compiled component: the digest of what was compiled and everything that its code depends on.
    pub(super) fn stem(digest: &str, engine: u64) -> String {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        format!("{digest}-{engine:016x}")
    }

    fn files(&self, stem: &str) -> [PathBuf; 2] {
        [CODE, SUM].map(|extension| self.directory.join(format!("{stem}.{extension}")))
    }

    /// Compiled code that is ours alone and as it was written; none otherwise. What is damaged is compiled again.
    pub(super) fn read(&self, stem: &str) -> Option<Vec<u8>> {
        let [code, sum] = self.files(stem);
        let read = |path: &Path| {
            let file = File::options().read(true).custom_flags(O_NOFOLLOW).open(path).ok()?;
            let mut bytes = Vec::new();
            trusted(&file).then(|| std::io::Read::read_to_end(&mut &file, &mut bytes).ok())??;
            Some(bytes)
        };
        let bytes = read(&code)?;
        (read(&sum)? == digest_of(&bytes).as_bytes()).then_some(bytes)
    }

    /// Stores compiled code; readers see all of it or nothing. Where two write at once, the sum of one may stand beside the
    /// code of the other: then it is compiled once more. A cache that cannot be written is no error.
    pub(super) fn store(&self, stem: &str, bytes: &[u8]) -> std::io::Result<()> {
        let [code, sum] = self.files(stem);
        self.put(&code, bytes)?;
        self.put(&sum, digest_of(bytes).as_bytes())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.directory)?;
        temporary.write_all(bytes)?;
        temporary.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes all but the named. What somebody is writing now is left alone. Answers how many files and bytes.
    pub(super) fn prune(&self, keep: &[String]) -> std::io::Result<(usize, u64)> {
        let (mut files, mut bytes) = (0, 0);
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let ours = match name.rsplit_once('.') {
                Some((stem, CODE | SUM)) => !keep.iter().any(|kept| kept == stem),
                _ => name.starts_with(UNFINISHED) && meta.modified()?.elapsed().is_ok_and(|age| age > ABANDONED),
            };
            if ours && meta.is_file() {
                match fs::remove_file(&path) {
                    Ok(()) => (files, bytes) = (files + 1, bytes + meta.len()),
                    // Somebody else was faster.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((files, bytes))
    }
}

/// Whether an open file is ours alone.
fn trusted(file: &File) -> bool {
    let user = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == user && meta.mode() & 0o022 == 0)
}

/// Whether nobody else can put anything into a directory; it is made where there is none.
fn usable(directory: &Path, user: u32) -> Result<(), String> {
    let private = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0)
    };
    // Whoever may rename what is in the directory above could put another in its place.
    let kept = |path: &Path| {
        let trusted = |meta: fs::Metadata| {
            (meta.uid() == user || meta.uid() == 0) && (meta.mode() & 0o022 == 0 || meta.mode() & 0o1000 != 0)
        };
        path.parent().is_some_and(|parent| fs::metadata(parent).is_ok_and(trusted))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| format!("it cannot be made: {error}"))?;
    if !private(directory) {
        return Err("it is a link, somebody else's, or others may enter it".to_owned());
    }
    if !kept(directory) {
        return Err("others could exchange it, as they can write to the directory that it is in".to_owned());
    }
    Ok(())
}

/// Whether a directory is on a file system of this machine; one that does not tell is not.
fn is_local(directory: &Path) -> bool {
    let Ok(opened) = File::open(directory) else { return false };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's magic numbers have 32 bits"
    )]
    let kind = rustix::fs::fstatfs(&opened).map(|stat| stat.f_type as u32);
    kind.is_ok_and(|kind| !NETWORK.contains(&kind))
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
    fn a_directory_in_one_that_others_may_change_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("MADDOCK_CACHE_DIR".to_owned(), place.path().join("c").display().to_string())].into_iter().collect();
        assert!(Cache::open(&environment).is_some());
        fs::set_permissions(place.path().join("c"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::open(&environment).is_none());
        // As `/tmp` is: others may add to it, and not rename what is ours.
        fs::set_permissions(place.path().join("c"), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(Cache::open(&environment).is_some());
    }

    #[test]
    fn what_speaks_against_a_place_is_told() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("c").display().to_string();
        let of = |given: &str| -> Environment {
            let home = ("HOME".to_owned(), directory.clone());
            [home, ("MADDOCK_CACHE_DIR".to_owned(), given.to_owned())].into_iter().collect()
        };
        assert_eq!(Cache::look(&of(&directory)).1, [""; 0]);
        fs::set_permissions(place.path().join("c/components"), fs::Permissions::from_mode(0o755)).unwrap();
        let (cache, faults) = Cache::look(&of(&directory));
        assert!(cache.is_none() && faults.len() == 1 && faults[0].contains("others may enter it"), "{faults:?}");
        let (cache, faults) = Cache::look(&of("here"));
        assert!(cache.unwrap().directory().starts_with(place.path().join("c/.cache")));
        assert_eq!(faults, ["MADDOCK_CACHE_DIR, `here`, is not an absolute path, so it does not count"]);
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        // NFS, CIFS, Lustre, Ceph, FUSE, OCFS2, OrangeFS; ext4, tmpfs, overlay, btrfs, xfs.
        for kind in [0x6969, 0xff53_4d42, 0x0bd0_0bd0, 0x00c3_6400, 0x6573_5546, 0x7461_636f, 0x2003_0528] {
            assert!(NETWORK.contains(&kind), "{kind:x}");
        }
        for kind in [0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e, 0x5846_5342] {
            assert!(!NETWORK.contains(&kind), "{kind:x}");
        }
    }

    fn cache(place: &tempfile::TempDir) -> Cache {
        let environment: Environment =
            [("MADDOCK_CACHE_DIR".to_owned(), place.path().join("c").display().to_string())].into_iter().collect();
        Cache::open(&environment).unwrap()
    }

    #[test]
    fn code_is_given_out_as_it_was_written_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let cache = cache(&place);
        cache.store("x", b"code").unwrap();
        assert_eq!(cache.read("x").unwrap(), b"code");
        assert_eq!(cache.read("y"), None);
        let [code, sum] = cache.files("x");
        fs::set_permissions(&code, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(cache.read("x"), None, "others may write it");
        cache.store("x", b"code").unwrap();
        fs::write(&code, b"c0de").unwrap();
        assert_eq!(cache.read("x"), None, "it was damaged");
        cache.store("x", b"code").unwrap();
        fs::rename(&code, place.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(place.path().join("elsewhere"), &code).unwrap();
        assert_eq!(cache.read("x"), None, "it is a link");
        cache.store("x", b"code").unwrap();
        fs::remove_file(sum).unwrap();
        assert_eq!(cache.read("x"), None, "it has no sum");
    }

    #[test]
    fn many_writers_and_readers_never_see_half() {
        let place = tempfile::tempdir().unwrap();
        let cache = cache(&place);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        cache.store("x", &[7; 100_000]).unwrap();
                        if let Some(code) = cache.read("x") {
                            assert_eq!(code, [7; 100_000]);
                        }
                    }
                });
            }
        });
        assert_eq!(cache.read("x").unwrap(), [7; 100_000]);
    }

    #[test]
    fn pruning_keeps_what_is_named_and_what_is_none_of_its_business() {
        let place = tempfile::tempdir().unwrap();
        let cache = cache(&place);
        cache.store("old", b"code").unwrap();
        cache.store("new", b"code").unwrap();
        fs::write(cache.directory().join("other.txt"), b"x").unwrap();
        fs::write(cache.directory().join(".new-now"), b"x").unwrap();
        assert_eq!(cache.prune(&["new".to_owned()]).unwrap().0, 2);
        assert!(cache.read("new").is_some() && cache.read("old").is_none());
        assert!(cache.directory().join("other.txt").exists() && cache.directory().join(".new-now").exists());
    }
}
