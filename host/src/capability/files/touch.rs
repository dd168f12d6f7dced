//! One file or directory at a time: the functions that act, each with a permit. They get resolved paths and follow no
//! link in the last component.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use maddock_bindings::api::files::{DirectoryEntry, FileInfo, FileKind};
use maddock_bindings::api::types::ErrorKind;
use rustix::fs::OFlags;

use super::Files;
use super::place::{Place, failure};
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};

/// Permission bits; the others (set-user-id and such) are no plugin's to give.
const MODE_BITS: u32 = 0o777;

fn kind_of(meta: &fs::Metadata) -> FileKind {
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
    match place.path().symlink_metadata() {
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

pub(super) fn open_regular(path: &Path) -> Result<File, ApiError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .map_err(|why| failure("read", path, &why))?;
    let meta = file.metadata().map_err(|why| failure("read", path, &why))?;
    if !meta.is_file() {
        return Err(error(ErrorKind::InvalidInput, format!("`{}` is not a regular file", path.display())));
    }
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
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|why| failure("list", path, &why))? {
        let entry = entry.map_err(|why| failure("list", path, &why))?;
        // A name that is not text cannot be said to a plugin, and no path it could write would reach the file.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = match fs::metadata(entry.path()) {
            Ok(meta) => kind_of(&meta),
            Err(why) if is_absent(&why) || why.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                continue;
            }
            // There, and not to be looked into.
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
    let directory = parent(path)?;
    fs::create_dir_all(directory).map_err(|why| failure("make", directory, &why))?;
    put(path, |file| file.write_all(bytes), Some(mode), Durability::Synced)
}

/// Whether a file must survive a power cut from the moment it bears its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    /// For what can be made again, such as a copy.
    Cached,
}

/// Fills a temporary file beside `path` and gives it that name. Without `mode`, what the umask leaves of 0666.
pub(super) fn put(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    mode: Option<u32>,
    durability: Durability,
) -> Result<(), ApiError> {
    if path.is_dir() {
        return Err(error(ErrorKind::Conflict, format!("`{}` is a directory", path.display())));
    }
    let directory = parent(path)?;
    let written = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new()
            .prefix(".maddock-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(mode.map_or(0o666, |mode| mode & 0o700 | 0o600)))
            .tempfile_in(directory)?;
        fill(temporary.as_file_mut())?;
        if let Some(mode) = mode {
            // By the open file, after the bytes: the umask has no say, and a mode without write permission works.
            temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
        }
        if durability == Durability::Synced {
            temporary.as_file().sync_all()?;
        }
        temporary.persist(path).map_err(|failed| failed.error)?;
        if durability == Durability::Synced {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    written().map_err(|why| failure("write", path, &why))
}

fn parent(path: &Path) -> Result<&Path, ApiError> {
    path.parent().ok_or_else(|| error(ErrorKind::InvalidInput, format!("`{}` is not a file's path", path.display())))
}

/// Makes a directory and its parents.
pub(crate) fn make_directory(_: &Permit<Files>, path: &Path) -> Result<(), ApiError> {
    fs::create_dir_all(path).map_err(|why| failure("make", path, &why))
}

/// Removes a file, a link or a tree, following no link.
pub(crate) fn remove(_: &Permit<Files>, path: &Path) -> Result<(), ApiError> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(why) => Err(why),
    };
    match removed {
        Err(why) if !is_absent(&why) => Err(failure("remove", path, &why)),
        _ => Ok(()),
    }
}
