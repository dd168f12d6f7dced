//! A file under an exclusive lock that other invocations honour. The lock is a file of its own beside the one it
//! protects, because that one is replaced by renaming; it is never removed, or two could hold it.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use cap_std::fs::{OpenOptions, OpenOptionsExt, PermissionsExt};
use maddock_bindings::api::types::ErrorKind;
use tokio::time::Instant;

use super::Files;
use super::held::Held;
use super::place::failure;
use super::touch::{self, Durability};
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};

/// The kernel wakes nobody for a lock that is let go without blocking a thread, so it is asked again and again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A lock that is held. Only a permit makes one, and having one is leave to read and replace the file.
#[derive(Debug)]
pub(crate) struct Locked {
    file: Held,
    _lock: File,
}

impl Locked {
    /// Waits for the lock.
    ///
    /// # Errors
    /// Of kind `timed-out`, or the lock file cannot be made.
    pub(crate) async fn take(_: &Permit<Files>, path: &Path, patience: Duration) -> Result<Self, ApiError> {
        let until = Instant::now() + patience;
        let Some(name) = path.file_name() else {
            return Err(error(ErrorKind::InvalidInput, format!("`{}` is not a file's path", path.display())));
        };
        let file = touch::making(path)?;
        let mut lock_name = std::ffi::OsString::from(".");
        lock_name.push(name);
        lock_name.push(".lock");
        let lock_path = path.with_file_name(&lock_name);
        let opened = file.beside(lock_name).and_then(|beside| open_lock(&beside));
        let lock = opened.map_err(|why| failure("open the lock", &lock_path, &why))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { file, _lock: lock }),
                Err(TryLockError::Error(why)) => return Err(failure("lock", &lock_path, &why)),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    return Err(error_with_hint(
                        ErrorKind::TimedOut,
                        format!(
                            "`{}` is locked by somebody else (lock file `{}`)",
                            path.display(),
                            lock_path.display()
                        ),
                        "wait for the other invocation to end",
                    ));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep_until(until.min(Instant::now() + ASK_AGAIN)).await,
            }
        }
    }

    /// What is in the file.
    pub(crate) fn read(&self, limit: u64) -> Result<Option<Vec<u8>>, ApiError> {
        match touch::open_held(&self.file) {
            Ok(file) => touch::whole(file, self.file.path(), limit).map(Some),
            Err(absent) if matches!(absent.kind, ErrorKind::NotFound) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Replaces what is in the file; its mode stays.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Result<(), ApiError> {
        let mode = self.file.metadata().ok().map(|meta| meta.permissions().mode() & 0o777);
        touch::put(&self.file, |file| file.write_all(bytes), mode, Durability::Synced)
    }
}

/// Nothing is ever written into the file, whoever else has a name for it.
fn open_lock(beside: &Held) -> io::Result<File> {
    let lock = match beside.open(OpenOptions::new().read(true).write(true).create(true).mode(0o666)) {
        // Made by another user of the same directory: reading is enough to lock it.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => beside.open(OpenOptions::new().read(true)),
        other => other,
    }?;
    beside.refuse_foreign(&lock)?;
    Ok(lock)
}
