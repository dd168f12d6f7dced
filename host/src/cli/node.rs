//! `maddock __node FILE`: one node's share of a job that several machines run. A target starts it on every node; it talks
//! through the files of the node's own directory, and ends with the model's exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::Node as Arguments;
use super::exit::Exit;
use super::failure::Failure;
use super::setup::{Given, Setup};
use crate::capability::secrets::SecretStore;
use crate::capability::trace::Trace;
use crate::pipeline::share::{self, Desk, Node, Outcome, Share};
use crate::plugin::Environment;

/// The code of a node that cannot even say in its own directory what is wrong.
const CANNOT: u8 = 125;
/// How often a directory that is still being added to is removed: for 5 s, well within what schedulers leave after asking to end.
const REMOVALS: u32 = 100;
/// The time between two of them.
const BETWEEN: Duration = Duration::from_millis(50);

/// Does the share and answers its code.
pub fn main(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let attended =
        runtime.map_err(|error| Failure::new(Exit::Failure, format!("cannot start: {error}"))).and_then(|runtime| {
            let attended = runtime.block_on(attend(arguments));
            runtime.shutdown_background();
            attended
        });
    match attended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(CANNOT)
        }
    }
}

/// Removes the directory of the work. A copy that was on its way when the job was ended may add to it for a moment.
async fn remove(directory: &Path) -> std::io::Result<()> {
    let mut tries = 0;
    loop {
        match tokio::fs::remove_dir_all(directory).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && tries < REMOVALS => {
                tries += 1;
                tokio::time::sleep(BETWEEN).await;
            }
            other => return other,
        }
    }
}

async fn attend(arguments: &Arguments) -> Result<u8, Failure> {
    let file = &arguments.file;
    let stop = stop_token().map_err(|error| failure(format!("cannot listen to signals: {error}")))?;
    let text = std::fs::read_to_string(file).map_err(|error| {
        failure(format!("cannot read the job file `{}`: {error}", file.display()))
            .hint("a target writes it below its run's directory, which has to be on a file system that all nodes share")
    })?;
    let share = Share::parse(&text).map_err(|error| {
        failure(format!("`{}`: {error}", file.display()))
            .hint("the program that handed the job in and the one on this node have to be of one version")
    })?;
    let environment = Environment::of_process();
    let rank = rank(arguments.node, &share, &environment)?;
    let host = share.node.host.iter().find_map(|name| environment.get(name)).map(str::to_owned);
    let host = host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let own = share.node.directory.join(rank.to_string());
    let desk = Desk::open(&own, rank, &host)
        .map_err(|error| failure(format!("cannot write to `{}`: {error}", own.display())))?;

    let outcome = match scratch(&share, &environment, rank) {
        Err(error) => cannot(format!("no directory for the work can be made on this node: {error}")),
        Ok(scratch) => {
            let outcome = at_work(share, &environment, rank, desk.clone(), scratch.path(), stop).await;
            if let Err(error) = remove(&scratch.keep()).await {
                desk.say(&format!("something is left on this node: {error}"));
            }
            outcome.unwrap_or_else(|failure| cannot(failure.message))
        }
    };
    if !outcome.message.is_empty() {
        desk.say(&outcome.message);
    }
    desk.close(&outcome).map_err(|error| failure(format!("cannot leave the outcome: {error}")))?;
    Ok(u8::try_from(outcome.code & 0xff).unwrap_or(CANNOT))
}

fn failure(message: String) -> Failure {
    Failure::new(Exit::Failure, message)
}

fn cannot(message: String) -> Outcome {
    Outcome { code: i32::from(CANNOT), cause: "never-started", message, ..Outcome::default() }
}

fn rank(given: Option<u32>, share: &Share, environment: &Environment) -> Result<u32, Failure> {
    let name = &share.node.rank;
    let rank = match (given, environment.get(name)) {
        (Some(rank), _) => rank,
        (None, Some(text)) => {
            text.trim().parse().map_err(|_| failure(format!("`{name}` is `{text}`, which is no number of a node")))?
        }
        (None, None) => {
            return Err(failure(format!("`{name}` is not set, so this is no node of the job"))
                .hint("this command is started by a target; `--node N` says the number by hand"));
        }
    };
    if rank < share.job.nodes {
        return Ok(rank);
    }
    Err(failure(format!("there is no node {rank} in a job of {}", share.job.nodes)))
}

/// A directory on the node's own disk, which goes with the share.
fn scratch(share: &Share, environment: &Environment, rank: u32) -> std::io::Result<tempfile::TempDir> {
    let named = share.node.scratch.iter().filter_map(|name| environment.get(name)).map(PathBuf::from);
    let base = named.into_iter().find(|path| path.is_absolute() && path.is_dir());
    let base = base.unwrap_or_else(std::env::temp_dir).canonicalize()?;
    tempfile::Builder::new().prefix(&format!("maddock-{}-{rank}-", share.job.run_id)).tempdir_in(base)
}

/// With the surroundings of a run, made of what is here: the roots are this node's, the secrets came as variables.
async fn at_work(
    share: Share,
    environment: &Environment,
    rank: u32,
    desk: Desk,
    scratch: &Path,
    stop: CancellationToken,
) -> Result<Outcome, Failure> {
    let broken = |error: std::io::Error| failure(format!("`{}`: {error}", scratch.display()));
    let (tree, run) = (scratch.join("tree"), scratch.join("run"));
    // The scripts of the tree are in the workspace: here it is empty.
    for directory in [&tree, &run] {
        std::fs::create_dir(directory).map_err(broken)?;
    }
    let mut secrets = SecretStore::default();
    for (name, value) in share::secrets(&share, environment) {
        secrets.add(name, value);
    }
    let given = Given { policies: share.policies.clone(), ..Given::default() };
    let setup = Setup::with([tree, share.output.clone(), PathBuf::new()], &given)?;
    let trace = Trace::to_file(&desk.trace(), &share.job.run_id).map_err(broken)?;
    let context = setup.context_in(share.job.run_id.clone(), &run, trace, secrets)?;
    let node = Node { share, rank, desk, plugins: setup.plugins, context, stop };
    Ok(share::attend(&node).await)
}

/// Fires at the first signal. There is no second thought: those who send more end the process by force soon enough.
fn stop_token() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let fired = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            fired.cancel();
        }
    });
    Ok(token)
}
