//! Runs what is handed in, one job after the other. Each job has a process group of its own, which ends as a whole.
//!
//! The job's processes hold the job's lock. When this process dies they go on, and the job counts as running until the last
//! of them is gone; how it ended, nobody has seen then.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::spool::{Job, LOOK, Spool, failure};

/// How long somebody who only looks may be in the way of who wants to serve.
const LOOKING: Duration = Duration::from_secs(2);
/// How long a job has between being asked to end and being ended.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the queue, for ever or until it was empty for `idle`.
pub fn serve(spool: &Spool, idle: Option<Duration>) -> Result<(), String> {
    let serving = spool.lock("runner.lock")?;
    // Who only looks whether it is served holds the lock for a moment.
    let asked = Instant::now();
    while serving.try_lock().is_err() {
        if asked.elapsed() > LOOKING {
            return Err("this queue is served already".to_owned());
        }
        std::thread::sleep(LOOK);
    }
    let mut empty_since = Instant::now();
    loop {
        let mut worked = false;
        for id in spool.ids()? {
            worked |= run(spool, id)?;
        }
        if worked {
            empty_since = Instant::now();
        } else if idle.is_some_and(|idle| empty_since.elapsed() >= idle) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs a job where it is queued; answers whether it was.
fn run(spool: &Spool, id: u64) -> Result<bool, String> {
    if spool.has(id, "started.json") || spool.has(id, "ended.json") {
        return Ok(false);
    }
    // Removed meanwhile, or being cancelled by somebody: not ours.
    let Ok(lock) = spool.lock_of(id) else { return Ok(false) };
    if lock.try_lock().is_err() || spool.has(id, "ended.json") {
        return Ok(false);
    }
    let Some(job) = spool.job(id)? else { return Ok(false) };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    spool.start(id, &host)?;
    match start(&job, &lock) {
        Ok(child) => {
            let (how, code, reason) = follow(spool, id, &job, child)?;
            spool.end(id, how, code, &reason)?;
        }
        Err(reason) => spool.end(id, "never-started", 0, &reason)?,
    }
    Ok(true)
}

fn start(job: &Job, lock: &File) -> Result<Child, String> {
    let (program, arguments) = job.argv.split_first().ok_or("no program is named")?;
    let output = File::create(&job.output).map_err(|error| failure("write", &job.output, &error))?;
    let both = output.try_clone().map_err(|error| failure("write", &job.output, &error))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&job.env)
        .current_dir(&job.directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(both)
        .process_group(0);
    let keep = |flags| fcntl_setfd(lock, flags).map_err(|error| format!("cannot hand the job's lock on: {error}"));
    keep(FdFlags::empty())?;
    let child = command.spawn().map_err(|error| format!("cannot start `{program}`: {error}"));
    keep(FdFlags::CLOEXEC)?;
    child
}

/// Waits for the end of a job, or brings it about: how it ended, a code, and a sentence.
fn follow(spool: &Spool, id: u64, job: &Job, mut child: Child) -> Result<(&'static str, i32, String), String> {
    let group = Pid::from_child(&child);
    let start = Instant::now();
    let limit = (job.time > 0).then(|| Duration::from_secs(job.time));
    // Why it is being ended, and since when.
    let mut ending: Option<(&'static str, String, Instant)> = None;
    let lost = |error: std::io::Error| format!("cannot wait for job {id}: {error}");
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(group), ended).map_err(|error| lost(error.into()))?.is_none() {
        match &ending {
            None if spool.has(id, "cancel") => {
                ending = Some(("cancelled", "cancelled while it ran".to_owned(), Instant::now()));
                let _ = kill_process_group(group, Signal::TERM);
            }
            None if limit.is_some_and(|limit| start.elapsed() >= limit) => {
                ending = Some(("timed-out", format!("its {} s were over", job.time), Instant::now()));
                let _ = kill_process_group(group, Signal::TERM);
            }
            Some((_, _, since)) if since.elapsed() >= GRACE => {
                let _ = kill_process_group(group, Signal::KILL);
            }
            None | Some(_) => {}
        }
        std::thread::sleep(LOOK);
    }
    // What it has left behind goes with it. Until it is waited for, its number is nobody else's.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait().map_err(lost)?;
    Ok(match (ending, status.code(), status.signal()) {
        (Some((how, reason, _)), code, signal) => (how, code.or(signal).unwrap_or_default(), reason),
        (None, Some(code), _) => ("exited", code, String::new()),
        (None, None, signal) => ("signalled", signal.unwrap_or_default(), String::new()),
    })
}
