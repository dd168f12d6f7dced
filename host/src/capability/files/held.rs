//! From a place that the gate has allowed to what is there, with no moment in between in which it could become something
//! else: the directory is opened without following a link on the way and held, and what acts names one entry of it.
//!
//! A resolved path has no links. One that is met all the same was put there after the gate was asked, and ends the call.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions, OpenOptionsExt};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// A link where there was none when the gate was asked.
#[derive(Debug, thiserror::Error)]
#[error("its way leads through a link that was not there when the gate was asked")]
pub(super) struct Swapped;

/// A name that another user may have given to a file that is not theirs.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is one of {names} names of a file that belongs to another user than its directory, and may be a link out of it"
)]
pub(super) struct Foreign {
    names: u64,
}

/// One entry of a directory that is held open. It need not exist.
#[derive(Debug)]
pub(crate) struct Held {
    directory: Dir,
    name: OsString,
    path: PathBuf,
}

/// What a temporary file is told apart by, within this process.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// More temporary files of one name are never in the way.
const ATTEMPTS: u32 = 100;

impl Held {
    /// Holds the directory of a resolved path.
    ///
    /// # Errors
    /// It is not there, or may not be searched, or its way has come to lead through a link.
    pub(super) fn reach(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        Ok(Self { directory: without_links(parent)?, name: name.to_owned(), path: path.to_owned() })
    }

    /// The same, with the directories on the way made where they are missing.
    ///
    /// # Errors
    /// As [`Held::reach`], or they cannot be made.
    pub(super) fn reach_making(path: &Path) -> io::Result<Self> {
        match Self::reach(path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = split(path)?;
        let mut directory = Dir::open_ambient_dir("/", ambient_authority())?;
        for part in names_of(parent) {
            directory = match step(&directory, part) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => {
                    match directory.create_dir(part) {
                        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
                        _ => {}
                    }
                    step(&directory, part)?
                }
                other => other?,
            };
        }
        Ok(Self { directory, name: name.to_owned(), path: path.to_owned() })
    }

    /// Another entry of the same directory.
    pub(super) fn beside(&self, name: OsString) -> io::Result<Self> {
        let path = self.path.parent().unwrap_or(Path::new("/")).join(&name);
        Ok(Self { directory: self.directory.try_clone()?, name, path })
    }

    /// What it is called.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Of the entry itself: a link is not followed.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.directory.symlink_metadata(&self.name)
    }

    /// Opens the entry, no link, and without waiting for the other end of a pipe.
    pub(super) fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.follow(FollowSymlinks::No).custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
        Ok(self.directory.open_with(&self.name, options)?.into_std())
    }

    /// Refuses a file that somebody may have linked into a directory of their own, in order to have it read or held.
    pub(super) fn refuse_foreign(&self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        let names = found.nlink();
        if names > 1 && found.uid() != rustix::fs::fstat(&self.directory)?.st_uid {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, Foreign { names }));
        }
        Ok(())
    }

    /// The entry as a directory whose entries can be listed.
    pub(super) fn directory(&self) -> io::Result<Dir> {
        step(&self.directory, &self.name)
    }

    pub(super) fn make_directory(&self) -> io::Result<()> {
        self.directory.create_dir(&self.name)
    }

    /// Removes a file, a link or a tree, following no link.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.metadata()?.is_dir() {
            self.directory.remove_dir_all(&self.name)
        } else {
            self.directory.remove_file(&self.name)
        }
    }

    /// Fills a new file and gives it this name. What had the name before keeps its bytes under every other name that it has.
    pub(super) fn replace(
        &self,
        mode: Mode,
        synced: bool,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut file, mut temporary) = self.temporary(mode)?;
        fill(&mut file)?;
        file.flush()?;
        if synced {
            file.sync_all()?;
        }
        self.directory.rename(&temporary.name, &self.directory, &self.name)?;
        temporary.renamed = true;
        if synced {
            open_directory(&self.directory, OsStr::new("."))?.sync_all()?;
        }
        Ok(())
    }

    fn temporary(&self, mode: Mode) -> io::Result<(File, Temporary<'_>)> {
        for _ in 0..ATTEMPTS {
            let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
            let name = format!(".maddock-{}-{number}.tmp", std::process::id());
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(mode.bits()).follow(FollowSymlinks::No);
            match self.directory.open_with(&name, &options) {
                Ok(file) => {
                    return Ok((file.into_std(), Temporary { directory: &self.directory, name, renamed: false }));
                }
                // Left by another process of that number, on this machine or on another that shares the directory.
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(why),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Sets the permissions of the entry, which is a directory.
    pub(super) fn set_directory_mode(&self, mode: Mode) -> io::Result<()> {
        Ok(rustix::fs::fchmod(open_directory(&self.directory, &self.name)?, mode)?)
    }
}

/// Removed unless it was given its name.
struct Temporary<'a> {
    directory: &'a Dir,
    name: String,
    renamed: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = self.directory.remove_file(&self.name);
        }
    }
}

/// The root has no name: it is the entry `.` of itself.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        (None, _) if path.has_root() => Ok((path, OsStr::new("."))),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn names_of(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn without_links(path: &Path) -> io::Result<Dir> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let way = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match openat2(CWD, path, flags, Mode::empty(), way) {
            Ok(directory) => Ok(Dir::from_std_file(File::from(directory))),
            Err(Errno::LOOP) => Err(swapped()),
            // The kernel asks to try again where something on the way was renamed at that moment.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // An old kernel, or a sandbox that does not know the call: the same way, step by step.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => step_by_step(path),
            Err(why) => Err(why.into()),
        };
    }
}

fn step_by_step(path: &Path) -> io::Result<Dir> {
    names_of(path).try_fold(Dir::open_ambient_dir("/", ambient_authority())?, |directory, name| step(&directory, name))
}

/// One directory further, through no link.
fn step(directory: &Dir, name: &OsStr) -> io::Result<Dir> {
    directory.open_dir_nofollow(name).map_err(|why| {
        let is_link = directory.symlink_metadata(name).is_ok_and(|found| found.is_symlink());
        if is_link { swapped() } else { why }
    })
}

fn swapped() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Swapped)
}

/// For what a handle that merely names a directory cannot do.
fn open_directory(directory: &Dir, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn is_swapped(answer: io::Result<Dir>) -> bool {
        answer.is_err_and(|why| why.get_ref().is_some_and(|inner| inner.is::<Swapped>()))
    }

    #[test]
    fn no_way_leads_through_a_link_with_the_call_of_the_kernel_and_without() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        for open in [without_links, step_by_step] {
            assert!(open(&root.join("real/deep")).is_ok());
            assert!(open(Path::new("/")).is_ok());
            for odd in ["link", "link/deep", "slash", "slash/etc"] {
                assert!(is_swapped(open(&root.join(odd))), "{odd}");
            }
            assert_eq!(open(&root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_directory_that_may_only_be_searched_can_be_passed() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("searched/in")).unwrap();
        std::fs::set_permissions(root.join("searched"), std::fs::Permissions::from_mode(0o311)).unwrap();
        for open in [without_links, step_by_step] {
            assert!(open(&root.join("searched/in")).is_ok());
        }
    }

    #[test]
    fn what_is_held_stays_the_same_when_its_name_leads_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for name in ["mine", "other"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let held = Held::reach(&root.join("mine/file")).unwrap();
        std::fs::rename(root.join("mine"), root.join("moved")).unwrap();
        symlink("other", root.join("mine")).unwrap();
        held.replace(Mode::from(0o600), true, |file| file.write_all(b"x")).unwrap();
        assert_eq!(std::fs::read(root.join("moved/file")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(root.join("other")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_could_not_be_filled_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let held = Held::reach(&directory.path().canonicalize().unwrap().join("file")).unwrap();
        assert!(held.replace(Mode::from(0o600), false, |_| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
