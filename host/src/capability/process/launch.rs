//! Hands a program to a supervisor and says where it is found again.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use maddock_bindings::api::types::ErrorKind;
use rustix::fs::OFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::lifeline::Lifelines;
use super::prepare::{Asked, Prepared};
use super::supervise::{self, LET_GO, OUTPUT_FILE, Specification, Started};
use super::{Process, failure, proc_table};
use crate::capability::files::place;
use crate::capability::gate::Permit;
use crate::capability::policy::Roots;
use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::RunContext;

/// A supervisor that has not said by then whether its program runs is broken (or its disk is).
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Its answer is one short line.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Where a launched program is found again, as text for plugins to keep. It comes back from a plugin, so nothing in it
/// is believed: the directory must be the run's, and the process must be a supervisor of that directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    pid: i32,
    /// Ticks since boot; with the number, the identity of the supervisor.
    starttime: u64,
    directory: PathBuf,
    boot: String,
    namespace: String,
    machine: String,
}

/// Where the process of a handle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Its number means something here.
    Here(Pid),
    /// It cannot be alive: this machine has started anew.
    Gone,
    /// On another machine, or in another container.
    Elsewhere,
}

impl Handle {
    /// Reads a handle, whose directory must be the run's.
    pub(super) fn parse(text: &str, roots: &Roots) -> Result<Self, ApiError> {
        let handle: Self = serde_json::from_str(text).map_err(|why| {
            error(ErrorKind::InvalidInput, format!("this is not the handle of a launched program: {why}"))
        })?;
        let directory = inside_run(&handle.directory.to_string_lossy(), roots)?;
        Ok(Self { directory, ..handle })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    pub(super) fn whereabouts(&self) -> Whereabouts {
        let same_boot = proc_table::boot().is_some_and(|boot| boot == self.boot);
        let same_namespace = proc_table::namespace().is_some_and(|namespace| namespace == self.namespace);
        match (same_boot, same_namespace, (self.pid > 0).then(|| Pid::from_raw(self.pid)).flatten()) {
            (true, true, Some(pid)) => Whereabouts::Here(pid),
            (true, true, None) => Whereabouts::Gone,
            (false, ..) if self.machine == proc_table::machine() => Whereabouts::Gone,
            _ => Whereabouts::Elsewhere,
        }
    }

    /// Whether the process that now has the number is the supervisor that this handle speaks of.
    pub(super) fn is_of(&self, pid: Pid) -> bool {
        let arguments = proc_table::arguments(pid);
        proc_table::start_time(pid) == Some(self.starttime)
            && arguments.get(1).is_some_and(|command| command == supervise::COMMAND.as_bytes())
            && arguments.get(2).is_some_and(|directory| directory == self.directory.as_os_str().as_encoded_bytes())
    }
}

/// Reads the directory of a launched program: it must lie in the run's own.
pub(super) fn inside_run(directory: &str, roots: &Roots) -> Result<PathBuf, ApiError> {
    let place = place::existing(&place::parse(directory)?)?;
    if roots.run.as_os_str().is_empty() || !place.path().starts_with(&roots.run) {
        return Err(error_with_hint(
            ErrorKind::Denied,
            format!("`{}` is not in the directory of this run", place.path().display()),
            "launch programs with a directory below the run's own",
        ));
    }
    Ok(place.path().to_owned())
}

/// Launches a program under a supervisor.
pub(super) async fn launch(
    permit: &Permit<Process>,
    supervisor: &Path,
    asked: Asked,
    output: &Path,
    (context, job): (&RunContext, &str),
) -> Result<String, ApiError> {
    if asked.has_stdin() {
        return Err(error_with_hint(
            ErrorKind::Unsupported,
            "a launched program has no standard input",
            "write a file and name it in the arguments",
        ));
    }
    let prepared = asked.reveal(permit, &context.secrets)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(output)
        .map_err(|why| failure("make", output, &why))?;
    let log = make_log(output)?;
    let launched = supervised(supervisor, prepared, output, (&context.lifelines, job)).await;
    if launched.is_err() {
        // So that another attempt finds the place free.
        let _ = std::fs::remove_file(log);
    }
    launched
}

fn make_log(output: &Path) -> Result<PathBuf, ApiError> {
    let log = output.join(OUTPUT_FILE);
    let made = std::fs::File::options()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
        .open(&log);
    match made {
        Ok(_) => Ok(log),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Err(error_with_hint(
            ErrorKind::Conflict,
            format!("a program was launched with the directory `{}` before", output.display()),
            "give every program a directory of its own",
        )),
        Err(why) => Err(failure("make", &log, &why)),
    }
}

async fn supervised(
    supervisor: &Path,
    prepared: Prepared,
    output: &Path,
    (lifelines, job): (&Lifelines, &str),
) -> Result<String, ApiError> {
    let program = prepared.program.clone();
    let broken = |why: io::Error| failure("supervise", &program, &why);
    let mut command = Command::new(supervisor);
    command
        .arg0("maddock")
        .arg(supervise::COMMAND)
        .arg(output)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(false);
    let mut child = command.spawn().map_err(broken)?;
    let (Some(mut lifeline), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(error(ErrorKind::Failed, "the supervisor has no pipes"));
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let identity = pid.and_then(|pid| Some((pid, proc_table::start_time(pid)?)));
    let (pid, starttime) =
        identity.ok_or_else(|| error(ErrorKind::Failed, "the supervisor cannot be found in `/proc`"))?;

    // Whatever goes wrong from here on closes the lifeline, and with it ends what was started.
    let spoken = tokio::time::timeout(START_DEADLINE, async {
        lifeline.write_all(&specification(prepared)?).await?;
        lifeline.flush().await?;
        let mut line = String::new();
        BufReader::new(answer.take(LONGEST_ANSWER)).read_line(&mut line).await?;
        let started: Started = serde_json::from_str(&line)
            .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor ended without an answer"))?;
        if lifelines.at_once() && matches!(started, Started::Pid(_)) {
            lifeline.write_all(&[LET_GO]).await?;
            lifeline.flush().await?;
        }
        Ok::<Started, io::Error>(started)
    });
    let started = match spoken.await {
        Ok(started) => started.map_err(broken)?,
        Err(_) => {
            return Err(error(
                ErrorKind::TimedOut,
                format!("the supervisor of `{}` did not answer", program.display()),
            ));
        }
    };
    if let Started::Failed { errno, message } = started {
        let why = errno.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error);
        return Err(failure("start", &program, &why));
    }
    let handle = Handle {
        pid: pid.as_raw_nonzero().get(),
        starttime,
        directory: output.to_owned(),
        boot: proc_table::boot().unwrap_or_default(),
        namespace: proc_table::namespace().unwrap_or_default(),
        machine: proc_table::machine(),
    };
    let text = serde_json::to_string(&handle).map_err(|why| error(ErrorKind::Failed, why.to_string()))?;
    lifelines.hold(job, child, lifeline);
    Ok(text)
}

fn specification(prepared: Prepared) -> io::Result<Vec<u8>> {
    let Prepared { argv, program, env, directory, stdin: _, time_limit } = prepared;
    let time_limit_ms = time_limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let text = serde_json::to_vec(&Specification { program, argv, env, directory, time_limit_ms })?;
    let length = u32::try_from(text.len()).map_err(|_| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
    Ok([length.to_le_bytes().as_slice(), &text].concat())
}
