//! What the kernel says of processes, read from `/proc`.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The words of `/proc/PID/stat` after the name, which may contain anything.
fn words(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

/// When a process started, in ticks since boot: with the number, its identity until the next boot.
pub(in crate::capability) fn start_time(pid: Pid) -> Option<u64> {
    words(pid)?.get(19)?.parse().ok()
}

/// Whether a process still runs. One that is dead and that nobody waited for does not.
pub(in crate::capability) fn lives(pid: Pid, started: u64) -> bool {
    words(pid).is_some_and(|words| {
        let state = words.first().map_or("X", String::as_str);
        let same = words.get(19).and_then(|ticks| ticks.parse().ok()) == Some(started);
        same && !matches!(state, "Z" | "X" | "x")
    })
}

/// The processes whose parent is `parent`, dead ones that nobody waited for included.
pub(super) fn children_of(parent: Pid) -> Vec<Pid> {
    everybody().into_iter().filter(|seen| seen.parent == Some(parent)).map(|seen| seen.pid).collect()
}

/// A process that was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pid: Pid,
    parent: Option<Pid>,
    started: u64,
}

impl Seen {
    /// Kills it, unless another process has its number by now.
    pub(super) fn kill(self) {
        let Ok(descriptor) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        if start_time(self.pid) == Some(self.started) {
            let _ = pidfd_send_signal(&descriptor, Signal::KILL);
        }
    }
}

/// The processes that descend from `ancestor`, without itself.
pub(super) fn descendants_of(ancestor: Pid) -> Vec<Seen> {
    let all = everybody();
    let mut found: Vec<Seen> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for seen in all.iter().filter(|seen| seen.parent == Some(parent)) {
            parents.push(seen.pid);
            found.push(*seen);
        }
    }
    found
}

fn everybody() -> Vec<Seen> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?;
            let words = words(pid)?;
            let parent = Pid::from_raw(words.get(1)?.parse().ok()?);
            Some(Seen { pid, parent, started: words.get(19)?.parse().ok()? })
        })
        .collect()
}

/// The argument vector of a process; empty for one that has ended.
pub(super) fn arguments(pid: Pid) -> Vec<Vec<u8>> {
    let bytes = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Where process numbers have their meaning: this boot of this machine, and the namespace in it.
pub(in crate::capability) fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// The namespace of process numbers that this process lives in.
pub(in crate::capability) fn namespace() -> Option<String> {
    Some(fs::read_link(Path::new("/proc/self/ns/pid")).ok()?.to_string_lossy().into_owned())
}

/// The machine's own name.
pub(in crate::capability) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
