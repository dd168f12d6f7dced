//! Which process answers for something that outlives it: a container, a run.
//!
//! A run that is killed cannot clean up; another process of this machine can, where the mark says beyond doubt that the
//! first one is gone. A mark of another machine, boot or process namespace says nothing here.

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::capability::process::proc_table;

/// A process of maddock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    machine: String,
    boot: String,
    namespace: String,
    pid: i32,
    /// Ticks since boot: process numbers come again.
    started: u64,
}

impl Mark {
    /// This process's; none where the machine does not say enough to know it again.
    #[must_use]
    pub fn mine() -> Option<Self> {
        let pid = getpid();
        Some(Self {
            machine: proc_table::machine(),
            boot: proc_table::boot()?,
            namespace: proc_table::namespace()?,
            pid: pid.as_raw_nonzero().get(),
            started: proc_table::start_time(pid)?,
        })
    }

    pub(super) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The number of the process, on its machine.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The machine's own name.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// The number, where it means something to this process.
    fn here(&self) -> Option<Pid> {
        let here = Self::mine()?;
        let comparable = (&self.machine, &self.boot, &self.namespace) == (&here.machine, &here.boot, &here.namespace);
        (comparable && self.pid > 0).then(|| Pid::from_raw(self.pid)).flatten()
    }

    /// Whether the process was one of this machine and is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.here().is_some_and(|pid| !proc_table::lives(pid, self.started))
    }

    /// Whether the process is one that this one can reach.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.here().is_some_and(|pid| proc_table::lives(pid, self.started))
    }

    /// Asks the process to end, unless its number is another's by now. Answers whether it was told.
    #[must_use]
    pub fn terminate(&self) -> bool {
        let Some(pid) = self.here() else { return false };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        proc_table::lives(pid, self.started) && pidfd_send_signal(&descriptor, Signal::TERM).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_gone() {
        let mine = Mark::mine().unwrap();
        assert!(!mine.is_gone());
        assert_eq!(Mark::read(&mine.text().unwrap()), Some(mine));
    }

    #[test]
    fn a_number_that_another_process_has_by_now_is_gone() {
        let mine = Mark::mine().unwrap();
        assert!(Mark { started: mine.started + 1, ..mine }.is_gone());
    }

    #[test]
    fn nothing_is_known_of_processes_elsewhere() {
        let mine = Mark::mine().unwrap();
        let gone = Mark { started: mine.started + 1, ..mine };
        for elsewhere in [
            Mark { machine: "another".to_owned(), ..gone.clone() },
            Mark { boot: "another".to_owned(), ..gone.clone() },
            Mark { namespace: "another".to_owned(), ..gone.clone() },
            Mark { pid: 0, ..gone.clone() },
            Mark { pid: -1, ..gone },
        ] {
            assert!(!elsewhere.is_gone(), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_label_that_is_no_mark_is_none() {
        for text in ["", "1", "{}", "host/1/2"] {
            assert_eq!(Mark::read(text), None, "{text}");
        }
    }
}
