//! `run`: a program that ends with the call. Its process group never outlives the future that waits for it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use maddock_bindings::api::process::{ExitStatus, Finished};
use maddock_bindings::api::types::ErrorKind;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::child::Watched;
use super::prepare::Prepared;
use super::proc_table;
use super::{Process, failure};
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};

/// How long a stream may stay open once the program is gone: somebody who left its group may hold it for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// The leader of a process group. Until it was waited for nobody else can get its number, so the group can be ended
/// safely at any moment; dropping this ends it.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// Ends the group.
    fn end(&self) {
        if let Some(leader) = self.leader {
            // It may have ended on its own.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// Ends the group and everybody who left it and still is a descendant.
    fn end_with_descendants(&self) {
        let descendants = self.leader.map(proc_table::descendants_of).unwrap_or_default();
        self.end();
        for descendant in descendants {
            descendant.kill();
        }
    }

    async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait().await;
        self.leader = None;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.leader.is_some() {
            self.end_with_descendants();
        }
    }
}

/// Why the program was not left to end by itself.
enum Cut {
    TimedOut,
    /// On that stream.
    TooMuch(&'static str),
    Broken(io::Error),
}

impl From<io::Error> for Cut {
    fn from(why: io::Error) -> Self {
        Self::Broken(why)
    }
}

/// Runs a program to its end and gathers what it writes.
pub(super) async fn run(_: &Permit<Process>, prepared: Prepared, limit: usize) -> Result<Finished, ApiError> {
    let program = prepared.program.clone();
    let broken = |verb: &str, why: &io::Error| failure(verb, &program, why);
    let mut group = start(&prepared).map_err(|why| broken("start", &why))?;
    let leader = group.leader.ok_or_else(|| error(ErrorKind::Failed, "the program has no process number"))?;
    let watched = Watched::open(leader).map_err(|why| broken("watch", &why))?;

    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let streams = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
    let gathered = async {
        let reading = async {
            tokio::try_join!(
                feed(streams.0, prepared.stdin.as_deref()),
                take(streams.1, &mut stdout, limit, "stdout"),
                take(streams.2, &mut stderr, limit, "stderr"),
            )
        };
        tokio::pin!(reading);
        tokio::select! {
            read = &mut reading => {
                read?;
                watched.ended().await?;
            }
            end = watched.ended() => {
                end?;
                // What it left behind in its group would hold the streams open.
                group.end();
                if let Ok(read) = tokio::time::timeout(DRAIN, &mut reading).await {
                    read?;
                }
            }
        }
        Ok::<(), Cut>(())
    };
    let cut = match prepared.time_limit {
        Some(limit) => tokio::time::timeout(limit, gathered).await.unwrap_or(Err(Cut::TimedOut)),
        None => gathered.await,
    };
    match cut {
        Ok(()) => group.end(),
        Err(_) => group.end_with_descendants(),
    }
    let ended = group.wait().await.map_err(|why| broken("wait for", &why))?;
    let status = match cut {
        Ok(()) => status_of(ended),
        Err(Cut::TimedOut) => ExitStatus::TimedOut,
        Err(Cut::Broken(why)) => return Err(broken("follow", &why)),
        Err(Cut::TooMuch(stream)) => {
            return Err(error_with_hint(
                ErrorKind::Failed,
                format!("`{}` wrote more than {limit} bytes to {stream} and was ended", program.display()),
                "ask for less output, or launch it",
            ));
        }
    };
    Ok(Finished { status, stdout, stderr })
}

fn start(prepared: &Prepared) -> io::Result<Group> {
    let mut command = Command::new(&prepared.program);
    command
        .args(prepared.argv.iter().skip(1))
        .env_clear()
        .envs(&prepared.env)
        .current_dir(&prepared.directory)
        .stdin(if prepared.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(name) = prepared.argv.first() {
        command.arg0(name);
    }
    let child = command.spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Group { child, leader })
}

async fn feed(stdin: Option<ChildStdin>, bytes: Option<&[u8]>) -> Result<(), Cut> {
    if let (Some(mut stdin), Some(bytes)) = (stdin, bytes) {
        // A program need not read what it is given.
        let _ = stdin.write_all(bytes).await;
    }
    Ok(())
}

async fn take(
    stream: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    limit: usize,
    name: &'static str,
) -> Result<(), Cut> {
    let Some(mut stream) = stream else { return Ok(()) };
    while stream.read_buf(into).await? > 0 {
        if into.len() > limit {
            return Err(Cut::TooMuch(name));
        }
    }
    Ok(())
}

fn status_of(status: std::process::ExitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Exited(code),
        (None, Some(signal)) => ExitStatus::Signalled(signal),
        (None, None) => ExitStatus::Lost,
    }
}
