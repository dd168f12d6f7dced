//! Who attends a run: watches its jobs, collects what they leave, and records each of them once.
//!
//! At most one process does, the one that holds the lock `attendant.lock` in the run's directory. The system lets go of the
//! lock when that process ends, however it ends; who it is stands in the file, for people and for `cancel`. A run that
//! nobody attends can be taken over by whoever takes the lock.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::run_directory::{JOB_FILE, is_job_id};
use crate::capability::mark::Mark;

/// The lock, which also says who holds it.
const LOCK: &str = "attendant.lock";
/// Where what a later process needs is kept.
pub const RESUME: &str = "resume";
/// The run's own record there; `.` cannot be in front of a job's name, and `/` in none.
pub const RUN_RECORD: &str = ".run.json";
/// Asks the attendant to end the jobs, not to leave them.
const CANCEL: &str = "cancel";
/// Somebody who only looks holds the lock for a moment; whoever wants it asks again so often.
const TRIES: u32 = 100;
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// No record is longer.
const LONGEST: u64 = 64 << 20;

/// Who attends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendant {
    /// The process; none where its machine does not say enough to know it again.
    pub process: Option<Mark>,
    /// The command, such as `run` or `attach`.
    pub command: String,
    /// Since when.
    pub since: String,
}

impl Attendant {
    /// In a few words: number and machine.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.process {
            Some(process) => format!("process {} on {}", process.pid(), process.machine()),
            None => "another process".to_owned(),
        }
    }
}

/// The attendance of a run, until this is dropped.
#[derive(Debug)]
pub struct Attendance {
    lock: File,
    /// This process.
    pub who: Attendant,
}

/// What came of wanting to attend.
#[derive(Debug)]
pub enum Attended {
    /// This process attends.
    Here(Attendance),
    /// Another one does; none where it does not say who it is.
    Elsewhere(Option<Attendant>),
}

impl Attendance {
    /// Attends a run, unless somebody does already.
    ///
    /// # Errors
    /// The lock cannot be made or taken, such as on a file system that has none.
    pub fn take(run: &Path, command: &str) -> io::Result<Attended> {
        let lock = open(run)?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let since = jiff::Timestamp::now().to_string();
                    let who = Attendant { process: Mark::mine(), command: command.to_owned(), since };
                    lock.set_len(0)?;
                    lock.write_all_at(serde_json::to_string(&who)?.as_bytes(), 0)?;
                    return Ok(Attended::Here(Self { lock, who }));
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    let holder = read(&lock);
                    if holder.as_ref().is_some_and(|holder| !is_gone(holder)) {
                        return Ok(Attended::Elsewhere(holder));
                    }
                    std::thread::sleep(ASK_AGAIN);
                }
            }
        }
        Ok(Attended::Elsewhere(read(&lock)))
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        // Whoever looks in between sees nobody; the lock itself goes with the file.
        let _ = self.lock.set_len(0);
    }
}

fn is_gone(attendant: &Attendant) -> bool {
    attendant.process.as_ref().is_some_and(Mark::is_gone)
}

fn open(run: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags)
        .open(run.join(LOCK))
}

fn read(lock: &File) -> Option<Attendant> {
    let mut text = vec![0; usize::try_from(lock.metadata().ok()?.len().min(4096)).ok()?];
    lock.read_exact_at(&mut text, 0).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Who attends a run now. The inner one is none where the attendant does not say who it is.
///
/// # Errors
/// The lock cannot be looked at.
pub fn attendant(run: &Path) -> io::Result<Option<Option<Attendant>>> {
    let lock = match File::open(run.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(read(&lock))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a job outlives the process that launched it: somebody attends its run, or the run was let go and the job, which
/// was launched, has no verdict yet. Where nobody can say, it does.
#[must_use]
pub fn lives_on(run: &Path, job: &str) -> bool {
    if !is_job_id(job) || !run.is_absolute() {
        return false;
    }
    match attendant(run) {
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => return true,
    }
    let record = |name: &str| match small_file(&run.join(RESUME).join(name)) {
        Ok(text) => Some(serde_json::from_slice::<Value>(&text).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Value::Bool(true)),
    };
    let (Some(whole), Some(own)) = (record(RUN_RECORD), record(&format!("{job}.json"))) else { return false };
    let unreadable = whole.is_boolean() || own.is_boolean();
    let launched = own.get("launched").is_some_and(|launched| !launched.is_null());
    let detached = whole.get("detached") == Some(&Value::Bool(true));
    let recorded = run.join("jobs").join(job).join(JOB_FILE).exists();
    !recorded && (unreadable || (detached && launched))
}

/// Reads a regular file that is not enormous: what a label points to may be anything.
fn small_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

fn cancel_file(run: &Path, job: Option<&str>) -> PathBuf {
    match job {
        Some(job) => run.join(format!("{CANCEL}.{job}")),
        None => run.join(CANCEL),
    }
}

/// Leaves word that a job, or the whole run, is to be ended.
///
/// # Errors
/// The word cannot be written.
pub fn ask_to_cancel(run: &Path, job: Option<&str>) -> io::Result<()> {
    let mut file = File::options().create(true).write(true).truncate(true).open(cancel_file(run, job))?;
    file.write_all(jiff::Timestamp::now().to_string().as_bytes())
}

/// Whether somebody asked for a job's end, or for the whole run's.
#[must_use]
pub fn is_cancel_asked(run: &Path, job: Option<&str>) -> bool {
    cancel_file(run, None).exists() || job.is_some_and(|job| cancel_file(run, Some(job)).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn record(run: &Path, detached: bool, launched: Value) {
        fs::create_dir_all(run.join(RESUME)).unwrap();
        fs::create_dir_all(run.join("jobs/1-a")).unwrap();
        fs::write(run.join(RESUME).join(RUN_RECORD), json!({"detached": detached}).to_string()).unwrap();
        fs::write(run.join(RESUME).join("1-a.json"), json!({"launched": launched}).to_string()).unwrap();
    }

    #[test]
    fn one_process_at_a_time_attends_and_says_who_it_is() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(attendant(run.path()).unwrap(), None);
        let Attended::Here(mine) = Attendance::take(run.path(), "run").unwrap() else { panic!("nobody else is here") };
        assert_eq!(attendant(run.path()).unwrap(), Some(Some(mine.who.clone())));
        let Attended::Elsewhere(Some(other)) = Attendance::take(run.path(), "attach").unwrap() else {
            panic!("it is attended")
        };
        assert_eq!(other, mine.who);
        drop(mine);
        assert_eq!(attendant(run.path()).unwrap(), None);
        assert!(matches!(Attendance::take(run.path(), "attach").unwrap(), Attended::Here(_)));
    }

    #[test]
    fn only_launched_jobs_of_a_run_that_was_let_go_live_on_until_they_have_their_verdict() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path();
        assert!(!lives_on(path, "1-a"), "nothing is known of it");
        record(path, true, json!({"handle": "h"}));
        assert!(lives_on(path, "1-a"));
        assert!(!lives_on(path, "2-b"), "another job");
        assert!(!lives_on(path, "../1-a"), "no job at all");
        fs::write(path.join("jobs/1-a").join(JOB_FILE), "{}").unwrap();
        assert!(!lives_on(path, "1-a"), "it has its verdict");
        fs::remove_file(path.join("jobs/1-a").join(JOB_FILE)).unwrap();
        record(path, true, Value::Null);
        assert!(!lives_on(path, "1-a"), "it was never launched");
        record(path, false, json!({"handle": "h"}));
        assert!(!lives_on(path, "1-a"), "its run was to end with its process");
        let Attended::Here(attendance) = Attendance::take(path, "attach").unwrap() else { panic!() };
        assert!(lives_on(path, "1-a"), "somebody attends it all the same");
        drop(attendance);
    }

    #[test]
    fn words_about_an_end_are_heard_by_the_jobs_they_are_about() {
        let run = tempfile::tempdir().unwrap();
        ask_to_cancel(run.path(), Some("1-a")).unwrap();
        assert!(is_cancel_asked(run.path(), Some("1-a")) && !is_cancel_asked(run.path(), Some("2-b")));
        assert!(!is_cancel_asked(run.path(), None));
        ask_to_cancel(run.path(), None).unwrap();
        assert!(is_cancel_asked(run.path(), Some("2-b")));
    }
}
