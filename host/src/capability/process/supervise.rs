//! The supervisor: a small process between maddock and a launched program, started as `maddock __supervise DIRECTORY`.
//!
//! It sees to it that a program leaves nothing behind: it is the reaper of all its descendants, and ends every one of
//! them when the program ends, when its time is up, when it is told to (SIGTERM), and when the process that launched it
//! is gone (its standard input is the lifeline). It must stay light: no runtime, no plugins, one thread.
//!
//! On standard input come the length of the specification (four bytes, least significant first), the specification as
//! JSON, because it holds secrets, and later perhaps `LET_GO`. On standard output goes one line, a `Started`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setsid, wait,
};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::proc_table;

/// The hidden command of the binary.
pub const COMMAND: &str = "__supervise";

/// The byte on standard input that makes the end of input mean nothing: the run is detached.
pub(super) const LET_GO: u8 = b'D';

/// The output of the program, both streams.
pub const OUTPUT_FILE: &str = "output.log";
/// How it ended.
pub(super) const EXIT_FILE: &str = "exit.json";
/// How long a stop may take.
pub(super) const STOP_FILE: &str = "stop.json";

/// Between asking a group to end and ending it, where nobody says otherwise.
const GRACE: Duration = Duration::from_secs(2);
/// A process that does not even die of SIGKILL (it waits for a broken disk) is given up after this.
const UNKILLABLE: Duration = Duration::from_secs(10);
/// How often killing is repeated: a process that forks at the wrong moment has a child nobody has seen.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// No specification is longer; arguments and environment have a limit of their own in the system.
const LONGEST_SPECIFICATION: u32 = 64 << 20;

/// What to supervise. It holds secrets, hence no `Debug`.
#[derive(Serialize, Deserialize)]
pub(super) struct Specification {
    pub(super) program: PathBuf,
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) time_limit_ms: Option<u64>,
}

/// Whether the program could be started.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Started {
    /// With this number.
    Pid(i32),
    /// The number of the system's error, for its kind, and what was tried.
    Failed { errno: Option<i32>, message: String },
}

/// How a program ended by itself or by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Exited(i32),
    Signalled(i32),
}

/// What is written at the end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exited: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signalled: Option<i32>,
    /// Its time was up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) timed_out: bool,
    /// It was asked to end, and how it then did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cancelled: Option<End>,
    pub(super) seconds: f64,
    /// Processes that could not be ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<i32>,
}

/// What `stop` leaves for the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StopRequest {
    pub(super) grace_ms: u64,
}

/// The supervisor's whole life; `arguments` are those after [`COMMAND`].
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(output) = arguments.next().map(PathBuf::from).filter(|path| path.is_absolute()) else {
        return ExitCode::from(2);
    };
    match supervise(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Whoever reads may be gone; there is nobody else to tell.
            let _ = answer(&Started::Failed {
                errno: why.raw_os_error(),
                message: crate::capability::files::place::reason(&why),
            });
            ExitCode::FAILURE
        }
    }
}

fn answer(started: &Started) -> io::Result<()> {
    let mut line = serde_json::to_vec(started)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn read_specification() -> io::Result<Specification> {
    // Not by `io::stdin()`: its buffer would swallow what `poll` is to see.
    let mut stdin = File::from(rustix::io::dup(rustix::stdio::stdin())?);
    let mut length = [0; 4];
    stdin.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST_SPECIFICATION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the specification is too long"));
    }
    let mut text = Vec::new();
    stdin.take(length.into()).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn supervise(output: &Path) -> io::Result<()> {
    // A session of its own: neither the terminal's Ctrl-C nor its end reaches this process or the program.
    setsid()?;
    let (signals, writer) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // Before the pipe: whoever is woken finds the flag set.
        signal_hook::flag::register(signal, told.clone())?;
    }
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    set_child_subreaper(Some(getpid()))?;
    let specification = read_specification()?;
    let time_limit = specification.time_limit_ms.map(Duration::from_millis);
    let began = Instant::now();
    let program = start(specification, output)?;
    // A launcher that is gone by now has let go of the lifeline too, and that is acted on below.
    let _ = answer(&Started::Pid(program.as_raw_nonzero().get()));
    let mut watch = Watch {
        program,
        output,
        signals,
        told,
        lifeline: true,
        deadline: time_limit.and_then(|limit| began.checked_add(limit)),
        ending: None,
    };
    let end = watch.until_it_ends();
    let left = watch.leave_nothing();
    let record = watch.record(end, left, began.elapsed());
    write_exit(output, &record)
}

fn start(specification: Specification, output: &Path) -> io::Result<Pid> {
    let Specification { program, argv, env, directory, time_limit_ms: _ } = specification;
    let log = File::options()
        .append(true)
        .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
        .open(output.join(OUTPUT_FILE))?;
    let mut command = Command::new(&program);
    command
        .args(argv.iter().skip(1))
        .env_clear()
        .envs(&env)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    if let Some(name) = argv.first() {
        command.arg0(name);
    }
    let supervisor = getpid();
    // SAFETY: between fork and exec only async-signal-safe things may be done: the closure makes two plain system calls
    // (prctl, getppid) and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // Should the supervisor be killed outright, the program goes with it.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Unless that happened before this line.
            if getppid() == Some(supervisor) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
    let child = command.spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the program has no number"))
}

/// Why the program is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    TimeIsUp,
    Cancelled,
}

struct Watch<'a> {
    program: Pid,
    output: &'a Path,
    signals: UnixStream,
    told: Arc<AtomicBool>,
    /// The end of input still means that the launcher is gone.
    lifeline: bool,
    deadline: Option<Instant>,
    /// Why, and when the grace is over.
    ending: Option<(Why, Instant)>,
}

impl Watch<'_> {
    fn until_it_ends(&mut self) -> Option<End> {
        loop {
            match self.reap() {
                Reaped::Program(end) => return Some(end),
                Reaped::Nobody => return None,
                Reaped::Others => {}
            }
            let now = Instant::now();
            if self.ending.is_none() && self.deadline.is_some_and(|deadline| now >= deadline) {
                self.ask_to_end(Why::TimeIsUp, GRACE);
            }
            if self.ending.is_some_and(|(_, until)| now >= until) {
                // The group first, so that the program's own end is seen; the rest follows in `leave_nothing`.
                let _ = kill_process_group(self.program, Signal::KILL);
                self.ending = self.ending.map(|(why, _)| (why, now + KILL_AGAIN));
            }
            let wake = self.ending.map(|(_, until)| until).or(self.deadline);
            let heard = self.listen(wake);
            if heard.asked {
                self.ask_to_end(Why::Cancelled, self.grace());
            }
            if heard.launcher_gone {
                self.ask_to_end(Why::Cancelled, GRACE);
            }
        }
    }

    /// Waits for a signal, the lifeline or a moment. It only listens: once the program was waited for, its number may
    /// be anybody's and must not be signalled.
    fn listen(&mut self, wake: Option<Instant>) -> Heard {
        let timeout = wake.and_then(|wake| Timespec::try_from(wake.saturating_duration_since(Instant::now())).ok());
        let stdin = rustix::stdio::stdin();
        let mut watched = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.lifeline {
            watched.push(PollFd::new(&stdin, PollFlags::IN));
        }
        // Interrupted by a signal: the pipe has its byte.
        let _ = poll(&mut watched, timeout.as_ref());
        let lifeline_moved = watched.get(1).is_some_and(|lifeline| !lifeline.revents().is_empty());
        let mut bytes = [0; 64];
        while matches!((&self.signals).read(&mut bytes), Ok(read) if read > 0) {}
        let asked = self.told.swap(false, Ordering::SeqCst);
        Heard { asked, launcher_gone: lifeline_moved && self.lifeline_ended() }
    }

    fn lifeline_ended(&mut self) -> bool {
        let mut byte = [0; 1];
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(1) if byte == [LET_GO] => self.lifeline = false,
            Ok(1) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            _ => {
                self.lifeline = false;
                return true;
            }
        }
        false
    }

    /// Asks the program's group to end. Asked again, the nearer moment counts, and the first reason.
    fn ask_to_end(&mut self, why: Why, grace: Duration) {
        let until = Instant::now().checked_add(grace).unwrap_or_else(Instant::now);
        let _ = kill_process_group(self.program, Signal::TERM);
        // A stopped process hears nothing else.
        let _ = kill_process_group(self.program, Signal::CONT);
        self.ending = Some(match self.ending {
            None => (why, until),
            Some((first, earlier)) => (first, earlier.min(until)),
        });
    }

    fn grace(&self) -> Duration {
        let request = fs::read(self.output.join(STOP_FILE)).ok();
        let request: Option<StopRequest> = request.and_then(|text| serde_json::from_slice(&text).ok());
        request.map_or(GRACE, |request| Duration::from_millis(request.grace_ms))
    }

    /// Takes note of everybody who has ended.
    fn reap(&self) -> Reaped {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => {
                    if let Some(end) = end_of(status) {
                        return Reaped::Program(end);
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Reaped::Others,
                Err(_) => return Reaped::Nobody,
            }
        }
    }

    /// Ends every descendant: whoever lost its parent is a child of this process, so killing children again and again
    /// reaches them all, and no number of a child can be somebody else's before it is waited for here.
    fn leave_nothing(&mut self) -> Vec<i32> {
        let until = Instant::now() + UNKILLABLE;
        loop {
            if matches!(self.reap(), Reaped::Nobody) {
                return Vec::new();
            }
            let children = proc_table::children_of(getpid());
            for child in &children {
                let _ = kill_process(*child, Signal::KILL);
            }
            let now = Instant::now();
            if now >= until {
                return children.into_iter().map(|child| child.as_raw_nonzero().get()).collect();
            }
            self.listen(Some(now + KILL_AGAIN));
        }
    }

    fn record(&self, end: Option<End>, left: Vec<i32>, took: Duration) -> ExitRecord {
        let seconds = took.as_secs_f64();
        let record = ExitRecord { seconds, left, ..ExitRecord::default() };
        match (self.ending.map(|(why, _)| why), end) {
            (Some(Why::TimeIsUp), _) => ExitRecord { timed_out: true, ..record },
            (Some(Why::Cancelled), end) => ExitRecord { cancelled: end, ..record },
            (None, Some(End::Exited(code))) => ExitRecord { exited: Some(code), ..record },
            (None, Some(End::Signalled(signal))) => ExitRecord { signalled: Some(signal), ..record },
            (None, None) => record,
        }
    }
}

struct Heard {
    /// By a signal.
    asked: bool,
    launcher_gone: bool,
}

enum Reaped {
    Program(End),
    /// Somebody is left.
    Others,
    Nobody,
}

fn end_of(status: WaitStatus) -> Option<End> {
    status.exit_status().map(End::Exited).or_else(|| status.terminating_signal().map(End::Signalled))
}

fn write_exit(output: &Path, record: &ExitRecord) -> io::Result<()> {
    let mut temporary =
        tempfile::Builder::new().prefix(".exit-").permissions(fs::Permissions::from_mode(0o600)).tempfile_in(output)?;
    temporary.write_all(format!("{}\n", serde_json::to_string(record)?).as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(output.join(EXIT_FILE)).map_err(|failed| failed.error)?;
    Ok(())
}
