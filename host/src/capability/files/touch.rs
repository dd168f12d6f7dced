//! One file or directory at a time: the functions that act, each with a permit. They get resolved paths and follow no
//! link, whoever puts one there meanwhile ([`super::held`]).

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cap_std::fs::{Metadata, OpenOptions, PermissionsExt as _};

use maddock_bindings::api::files::{DirectoryEntry, FileInfo, FileKind};
use maddock_bindings::api::types::ErrorKind;
use rustix::fs::{AtFlags, Mode, statat};
use rustix::io::Errno;

use super::Files;
use super::held::Held;
use super::place::{Place, failure};
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};

/// Permission bits; the others (set-user-id and such) are no plugin's to give.
const MODE_BITS: u32 = 0o777;

fn kind_of(meta: &Metadata) -> FileKind {
    if meta.is_file() {
        FileKind::File
    } else if meta.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

fn is_absent(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What is there.
pub(crate) fn stat(_: &Permit<Files>, place: &Place) -> Result<Option<FileInfo>, ApiError> {
    match Held::reach(place.path()).and_then(|held| held.metadata()) {
        // A link in a resolved path leads nowhere, or was put there this moment.
        Ok(meta) if meta.file_type().is_symlink() => Ok(None),
        Ok(meta) => Ok(Some(FileInfo {
            kind: kind_of(&meta),
            size: if meta.is_file() { meta.len() } else { 0 },
            mode: meta.permissions().mode() & 0o7777,
        })),
        Err(why) if is_absent(&why) => Ok(None),
        Err(why) => Err(failure("look at", place.path(), &why)),
    }
}

/// Opens a regular file for reading: no link, and no waiting for the other end of a pipe.
pub(crate) fn open(_: &Permit<Files>, path: &Path) -> Result<File, ApiError> {
    open_regular(path)
}

fn open_regular(path: &Path) -> Result<File, ApiError> {
    let held = Held::reach(path).map_err(|why| failure("read", path, &why))?;
    open_held(&held)
}

pub(super) fn open_held(held: &Held) -> Result<File, ApiError> {
    let path = held.path();
    let unreadable = |why: io::Error| failure("read", path, &why);
    let file = held.open(OpenOptions::new().read(true)).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(error(ErrorKind::InvalidInput, format!("`{}` is not a regular file", path.display())));
    }
    held.refuse_foreign(&file).map_err(unreadable)?;
    Ok(file)
}

/// The whole file, if it is no longer than `limit`.
pub(crate) fn read(permit: &Permit<Files>, path: &Path, limit: u64) -> Result<Vec<u8>, ApiError> {
    whole(open(permit, path)?, path, limit)
}

pub(super) fn whole(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, ApiError> {
    let bytes = head(file, path, limit.saturating_add(1))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(error_with_hint(
            ErrorKind::InvalidInput,
            format!("`{}` is longer than {limit} bytes", path.display()),
            "ask for more, or for its head",
        ));
    }
    Ok(bytes)
}

/// The first `limit` bytes.
pub(crate) fn read_head(permit: &Permit<Files>, path: &Path, limit: u64) -> Result<Vec<u8>, ApiError> {
    head(open(permit, path)?, path, limit)
}

fn head(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|why| failure("read", path, &why))?;
    Ok(bytes)
}

/// At most `limit` bytes from `offset` on.
pub(crate) fn read_from(permit: &Permit<Files>, path: &Path, offset: u64, limit: u64) -> Result<Vec<u8>, ApiError> {
    let mut file = open(permit, path)?;
    file.seek(SeekFrom::Start(offset)).map_err(|why| failure("read", path, &why))?;
    head(file, path, limit)
}

/// The entries of a directory, sorted.
pub(crate) fn list(_: &Permit<Files>, path: &Path) -> Result<Vec<DirectoryEntry>, ApiError> {
    let unlisted = |why: io::Error| failure("list", path, &why);
    let directory = Held::reach(path).and_then(|held| held.directory()).map_err(unlisted)?;
    let mut entries = Vec::new();
    for entry in directory.entries().map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        // A name that is not text cannot be said to a plugin, and no path it could write would reach the file.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = match entry.metadata() {
            // What a link points to tells its kind and nothing else, wherever it is.
            Ok(meta) if meta.is_symlink() => match statat(&directory, &name, AtFlags::empty()) {
                Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() => FileKind::File,
                Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() => FileKind::Directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                // There, and not to be looked into.
                _ => FileKind::Other,
            },
            Ok(meta) => kind_of(&meta),
            Err(why) if is_absent(&why) => continue,
            Err(_) => FileKind::Other,
        };
        entries.push(DirectoryEntry { name, kind });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Writes a whole file at once, with its missing parents.
pub(crate) fn write(_: &Permit<Files>, path: &Path, bytes: &[u8], mode: u32) -> Result<(), ApiError> {
    if mode & !MODE_BITS != 0 {
        return Err(error(ErrorKind::InvalidInput, format!("mode {mode:o} has more than permission bits")));
    }
    put(&making(path)?, |file| file.write_all(bytes), Some(mode), Durability::Synced)
}

/// Whether a file must survive a power cut from the moment it bears its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    /// For what can be made again, such as a copy.
    Cached,
}

/// Holds the directory of a file, made where it is missing.
pub(super) fn making(path: &Path) -> Result<Held, ApiError> {
    let directory = path
        .parent()
        .ok_or_else(|| error(ErrorKind::InvalidInput, format!("`{}` is not a file's path", path.display())))?;
    Held::reach_making(path).map_err(|why| failure("make", directory, &why))
}

/// Fills a temporary file beside the held one and gives it that name. Without `mode`, what the umask leaves of 0666.
pub(super) fn put(
    held: &Held,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    mode: Option<u32>,
    durability: Durability,
) -> Result<(), ApiError> {
    let path = held.path();
    if held.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(error(ErrorKind::Conflict, format!("`{}` is a directory", path.display())));
    }
    let first = Mode::from_bits_truncate(mode.map_or(0o666, |mode| mode & 0o700 | 0o600));
    let filled = held.replace(first, durability == Durability::Synced, |file| {
        fill(file)?;
        match mode {
            // By the open file, after the bytes: the umask has no say, and a mode without write permission works.
            Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
            None => Ok(()),
        }
    });
    filled.map_err(|why| failure("write", path, &why))
}

/// Makes a directory and its parents.
pub(crate) fn make_directory(_: &Permit<Files>, path: &Path) -> Result<(), ApiError> {
    make(path).map(|_| ())
}

/// Whether the directory is new.
pub(super) fn make(path: &Path) -> Result<bool, ApiError> {
    let failed = |why: io::Error| failure("make", path, &why);
    let held = Held::reach_making(path).map_err(failed)?;
    match held.make_directory() {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => match held.metadata() {
            Ok(meta) if meta.is_dir() => Ok(false),
            _ => Err(failed(why)),
        },
        Err(why) => Err(failed(why)),
    }
}

/// Removes a file, a link or a tree, following no link.
pub(crate) fn remove(_: &Permit<Files>, path: &Path) -> Result<(), ApiError> {
    match Held::reach(path).and_then(|held| held.remove()) {
        Err(why) if !is_absent(&why) => Err(failure("remove", path, &why)),
        _ => Ok(()),
    }
}
