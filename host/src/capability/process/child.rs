//! A process that is waited for by a descriptor, so that its end is noticed at once and a later process of the same
//! number is never mistaken for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process, dead or alive.
#[derive(Debug)]
pub(super) struct Watched {
    descriptor: AsyncFd<OwnedFd>,
}

impl Watched {
    /// The process that has this number now.
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: the `OwnedFd` answers the same descriptor all its life, and the `AsyncFd` owns it: nobody else closes it,
        // and it is closed only after it was taken from the reactor.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { descriptor })
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.descriptor.readable().await.map(|_| ())
    }

    /// Sends a signal; a process that has ended is fine.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.descriptor.get_ref().as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}
