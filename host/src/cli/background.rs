//! The attendant of a detached run whose jobs need one: this binary once more, in a session of its own, called as
//! `maddock __attend RUN-DIRECTORY`. What it says goes to `console.log` of the run's directory.
//!
//! On its standard input, a socket, comes the order as JSON, because it may hold what must not be on a disk, up to the end of
//! input. It answers on the same socket, a line each: `launched` once everything that can run does, `ended CODE` at its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::args::Format;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{Invocation, Talk};
use super::outcome::{self, Done};
use super::setup::{Given, Setup};
use super::{earlier, run, signals};
use crate::pipeline::keeper::Manner;
use crate::pipeline::resume::RunRecord;
use crate::pipeline::run::{Progress, Work};
use crate::results::attendance::{self, Attendance, Attended};
use crate::results::run_directory::{CONSOLE_FILE, RunDirectory};

/// The hidden command of the binary.
pub const COMMAND: &str = "__attend";
/// This binary, whatever happened to its file meanwhile.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// No order is longer.
const LONGEST: u64 = 256 << 20;
/// How often what it says is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an attendant is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// What the jobs have in common.
    pub record: RunRecord,
    /// The jobs.
    pub works: Vec<Work>,
    /// What of the configuration somebody said.
    pub said: Value,
    /// What of it only presets say.
    pub presets: Value,
    /// What the command line says of plugins, its paths absolute.
    pub given: Given,
    /// Say more.
    pub verbose: bool,
    /// Print for programs.
    pub json: bool,
}

fn cannot(what: &str) -> impl Fn(std::io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::new(Exit::Failure, format!("cannot {what}: {error}"))
}

/// What the attendant has said.
enum Said {
    Launched,
    Ended(u8),
}

/// Starts an attendant, hands the run over to it, and shows what it says until all jobs that can run do.
///
/// # Errors
/// It cannot be started, or goes away before it has launched anything.
pub async fn hand_over(invocation: &mut Invocation, order: &Order, stop: &CancellationToken) -> Outcome {
    let directory = invocation.directory.path().to_owned();
    let text = serde_json::to_vec(order).map_err(|error| cannot("write the order")(error.into()))?;
    let console = directory.join(CONSOLE_FILE);
    // From here on the run is the other one's.
    invocation.attendance = None;
    let mut child = start(&directory, &console).map_err(cannot("start an attendant"))?;
    child.write_all(&text).and_then(|()| child.shutdown(Shutdown::Write)).map_err(cannot("hand the run over"))?;
    let said = listen(child, &directory, &console, stop).await?;
    let id = &order.record.run;
    match said {
        Some(Said::Ended(code)) => {
            // One that ended before it had jobs has said why.
            if let Ok(seen) = earlier::Earlier::open(invocation.directory.as_ref().clone()) {
                let format = if order.json { Format::Json } else { Format::Text };
                let jobs = seen.jobs().jobs;
                outcome::conclude(invocation, &seen.record, &jobs, Done::Ended, format, Map::new())?;
            }
            Ok(Exit::of_code(code))
        }
        Some(Said::Launched) => {
            let seen = earlier::Earlier::open(invocation.directory.as_ref().clone())?;
            let going: Vec<_> = seen.jobs().going.into_iter().map(|(name, _)| name).collect();
            outcome::say_left(&order.record, &going, &[], if order.json { Format::Json } else { Format::Text });
            Ok(Exit::Success)
        }
        None => Err(Failure::new(Exit::Failure, format!("the attendant of run {id} went away")).hint(format!(
            "`{}` has what it said; `maddock collect {id}` records what it has launched",
            console.display()
        ))),
    }
}

fn start(directory: &Path, console: &Path) -> std::io::Result<UnixStream> {
    let (mine, its) = UnixStream::pair()?;
    let console = File::options().create(true).append(true).mode(0o600).open(console)?;
    Command::new(OWN_EXECUTABLE)
        .arg0("maddock")
        .arg(COMMAND)
        .arg(directory)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()?;
    Ok(mine)
}

/// Shows what an attendant says until it has launched what can run, or is gone.
async fn listen(
    socket: UnixStream,
    directory: &Path,
    console: &Path,
    stop: &CancellationToken,
) -> Result<Option<Said>, Failure> {
    let broken = cannot("listen to the attendant");
    socket.set_nonblocking(true).map_err(&broken)?;
    let socket = tokio::net::UnixStream::from_std(socket).map_err(&broken)?;
    let mut lines = BufReader::new(socket).lines();
    let mut console = File::open(console).map_err(&broken)?;
    let mut asked = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => Some(line.unwrap_or_default()),
            () = stop.cancelled(), if !asked => {
                asked = true;
                // It has the run by now, or will see the word when it does.
                attendance::ask_to_cancel(directory, None).map_err(&broken)?;
                None
            }
            () = tokio::time::sleep(LOOK_AGAIN) => None,
        };
        if asked {
            let who = attendance::attendant(directory).ok().flatten().flatten();
            if let Some(process) = who.and_then(|who| who.process) {
                let _ = process.terminate();
            }
        }
        let mut text = Vec::new();
        // At its end comes the summary, which is shown otherwise.
        if !matches!(&line, Some(Some(said)) if said.starts_with("ended")) {
            let _ = console.read_to_end(&mut text);
        }
        let _ = std::io::stderr().lock().write_all(&text);
        match line.as_ref().map(|line| line.as_deref()) {
            None => {}
            Some(None) => return Ok(None),
            Some(Some("launched")) if !asked => return Ok(Some(Said::Launched)),
            Some(Some(said)) => {
                if let Some(code) = said.strip_prefix("ended ").and_then(|code| code.parse().ok()) {
                    return Ok(Some(Said::Ended(code)));
                }
            }
        }
    }
}

/// The attendant's whole life; `arguments` are those after [`COMMAND`].
pub async fn attend(mut arguments: impl Iterator<Item = OsString>) -> Outcome {
    let directory = arguments.next().map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = directory.ok_or_else(|| Failure::new(Exit::Build, "this command is maddock's own"))?;
    let socket = rustix::io::dup(rustix::stdio::stdin()).map(UnixStream::from);
    let mut socket = socket.map_err(|error| cannot("listen")(error.into()))?;
    let mut text = Vec::new();
    (&mut socket).take(LONGEST).read_to_end(&mut text).map_err(cannot("read the order"))?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| cannot("read the order")(error.into()))?;
    let outcome = attended(order, &directory, &socket).await;
    let code = match &outcome {
        Ok(exit) => *exit,
        Err(failure) => failure.exit,
    };
    // Whoever started it may have gone long ago.
    let _ = writeln!(socket, "ended {}", code as u8);
    outcome
}

async fn attended(order: Order, directory: &Path, socket: &UnixStream) -> Outcome {
    let record = &order.record;
    let directories = [&record.tree, &record.output, &record.results].map(Clone::clone);
    let setup = Setup::with(directories, &order.given)?;
    let taken = Attendance::take(directory, "run --detach").map_err(cannot("attend the run"))?;
    let Attended::Here(attendance) = taken else {
        return Err(Failure::new(Exit::Failure, "another process attends this run already"));
    };
    let directory = RunDirectory::at(directory).map_err(cannot("open the run's directory"))?;
    let talk = Talk { live_output: false, verbose: order.verbose };
    let invocation = Invocation::of(setup, directory, Some(attendance), talk)?;
    let stop = signals::stop_token().map_err(cannot("listen to signals"))?;
    if attendance::is_cancel_asked(invocation.directory.path(), None) {
        stop.cancel();
    }
    let outcome = launched(&invocation, order, stop, socket).await;
    if let Err(failure) = &outcome {
        let members = Map::from_iter([("error".to_owned(), json!(failure.message))]);
        invocation.record("run", "failed", members);
    }
    outcome
}

/// Runs the jobs, and says when all that can run do.
async fn launched(invocation: &Invocation, order: Order, stop: CancellationToken, socket: &UnixStream) -> Outcome {
    let target = earlier::target(invocation, &order.record)?;
    let progress: Arc<Progress> = Arc::default();
    let mut answer = socket.try_clone().map_err(cannot("answer"))?;
    let settling = progress.clone();
    tokio::spawn(async move {
        settling.settled().await;
        let _ = writeln!(answer, "launched");
    });
    let manner = Manner { detached: true, watches: true, leaves: true, patient: false };
    run::attend(invocation, order, &target, run::Attending { manner, stop, progress, members: Map::new() }).await
}
