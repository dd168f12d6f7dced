//! Which process answers for a container, as a label of it.
//!
//! A run that is killed cannot remove its containers; the next run of this machine can, where the mark says beyond doubt
//! that the process is gone. A mark of another machine, boot or process namespace says nothing here: its container is left.

use rustix::process::{Pid, getpid};
use serde::{Deserialize, Serialize};

use crate::capability::process::proc_table;

/// The label that holds a mark.
pub(super) const OWNER: &str = "maddock.owner";
/// The label by which a plugin asks that a container outlive its run, for a person to look around in.
pub(super) const KEPT: &str = "maddock.keep-alive";

/// A process of maddock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    machine: String,
    boot: String,
    namespace: String,
    pid: i32,
    /// Ticks since boot: process numbers come again.
    started: u64,
}

impl Mark {
    /// This process's; none where the machine does not say enough to know it again.
    pub(super) fn mine() -> Option<Self> {
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

    /// Whether the process was one of this machine and is gone.
    pub(super) fn is_gone(&self) -> bool {
        let Some(here) = Self::mine() else { return false };
        let comparable = (&self.machine, &self.boot, &self.namespace) == (&here.machine, &here.boot, &here.namespace);
        let Some(pid) = (self.pid > 0).then(|| Pid::from_raw(self.pid)).flatten() else { return false };
        comparable && !proc_table::lives(pid, self.started)
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
