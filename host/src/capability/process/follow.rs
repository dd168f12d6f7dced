//! `attach`: follows a launched program by its output file and its supervisor, from any process on the same machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use maddock_bindings::api::process::{Event, ExitStatus};
use maddock_bindings::api::types::{ErrorKind, OutputStream};
use rustix::fs::OFlags;
use rustix::process::Signal;
use tokio::time::Instant;

use super::child::Watched;
use super::launch::{Handle, Whereabouts};
use super::supervise::{EXIT_FILE, End, ExitRecord, OUTPUT_FILE, STOP_FILE, StopRequest};
use super::{Process, failure};
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};

/// The most that one event carries.
const BATCH: u64 = 64 << 10;
/// How often the file is looked at while the program runs.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What a supervisor may take over the grace: killing, waiting for the dead, writing its answer.
const STOP_SLACK: Duration = Duration::from_secs(20);
/// An exit record is a line.
const LONGEST_RECORD: u64 = 64 << 10;

/// A launched program that is being followed. Only a permit makes one.
#[derive(Debug)]
pub(super) struct Following {
    handle: Handle,
    output: File,
    /// None once the supervisor is known to be gone.
    supervisor: Option<Watched>,
    told_end: bool,
}

impl Following {
    /// Finds the program again.
    pub(super) fn start(_: &Permit<Process>, handle: Handle) -> Result<Self, ApiError> {
        let path = handle.directory().join(OUTPUT_FILE);
        let output = open(&path).map_err(|why| failure("follow", &path, &why))?;
        let supervisor = match handle.whereabouts() {
            // Opened first and compared after: whatever takes the number later is not what the descriptor stands for.
            Whereabouts::Here(pid) => Watched::open(pid).ok().filter(|_| handle.is_of(pid)),
            Whereabouts::Gone => None,
            Whereabouts::Elsewhere => {
                return Err(error_with_hint(
                    ErrorKind::Unavailable,
                    format!("the program was launched on `{}` and cannot be followed from here", handle.machine()),
                    "ask there",
                ));
            }
        };
        Ok(Self { handle, output, supervisor, told_end: false })
    }

    pub(super) fn directory(&self) -> &Path {
        self.handle.directory()
    }

    /// Waits for output or the end.
    pub(super) async fn next_event(&mut self, timeout: Duration) -> Result<Event, ApiError> {
        if self.told_end {
            return Err(error(ErrorKind::InvalidInput, "the program has ended, and that was told"));
        }
        let until = Instant::now() + timeout;
        loop {
            let bytes = self.batch()?;
            if !bytes.is_empty() {
                return Ok(Event::Output((OutputStream::Stdout, bytes)));
            }
            // The end was seen before the file was read: empty means that all was read.
            let Some(supervisor) = &self.supervisor else {
                self.told_end = true;
                return Ok(Event::Exited(self.status()));
            };
            let now = Instant::now();
            let waited = tokio::time::timeout_at(until.min(now + LOOK_AGAIN), supervisor.ended()).await;
            match waited {
                Ok(Ok(())) => self.supervisor = None,
                Ok(Err(why)) => return Err(failure("watch the supervisor of", self.directory(), &why)),
                Err(_) if now >= until => return Ok(Event::Timeout),
                Err(_) => {}
            }
        }
    }

    fn batch(&mut self) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        (&mut self.output)
            .take(BATCH)
            .read_to_end(&mut bytes)
            .map_err(|why| failure("follow", &self.handle.directory().join(OUTPUT_FILE), &why))?;
        Ok(bytes)
    }

    fn status(&self) -> ExitStatus {
        let record = open(&self.directory().join(EXIT_FILE)).and_then(|file| {
            let mut text = Vec::new();
            file.take(LONGEST_RECORD).read_to_end(&mut text)?;
            Ok(serde_json::from_slice::<ExitRecord>(&text)?)
        });
        let Ok(record) = record else { return ExitStatus::Lost };
        match record {
            ExitRecord { timed_out: true, .. } => ExitStatus::TimedOut,
            ExitRecord { exited: Some(code), .. } | ExitRecord { cancelled: Some(End::Exited(code)), .. } => {
                ExitStatus::Exited(code)
            }
            ExitRecord { signalled: Some(signal), .. } | ExitRecord { cancelled: Some(End::Signalled(signal)), .. } => {
                ExitStatus::Signalled(signal)
            }
            ExitRecord { .. } => ExitStatus::Lost,
        }
    }

    /// Asks the program to end and waits until it and everything it started are gone.
    pub(super) async fn stop(&self, _: &Permit<Process>, grace: Duration) -> Result<(), ApiError> {
        let Some(supervisor) = &self.supervisor else { return Ok(()) };
        let failed = |why: io::Error| failure("stop the program of", self.directory(), &why);
        self.leave_request(grace).map_err(failed)?;
        supervisor.signal(Signal::TERM).map_err(failed)?;
        match tokio::time::timeout(grace.saturating_add(STOP_SLACK), supervisor.ended()).await {
            Ok(ended) => ended.map_err(failed),
            Err(_) => Err(error_with_hint(
                ErrorKind::TimedOut,
                format!("the supervisor of `{}` did not end", self.directory().display()),
                "a process of its may wait for a disk or device that does not answer",
            )),
        }
    }

    fn leave_request(&self, grace: Duration) -> io::Result<()> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let mut temporary = tempfile::Builder::new()
            .prefix(".stop-")
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(self.directory())?;
        temporary.write_all(&serde_json::to_vec(&StopRequest { grace_ms })?)?;
        temporary.persist(self.directory().join(STOP_FILE)).map_err(|failed| failed.error)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path)
}
