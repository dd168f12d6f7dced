//! The directory of the queue, and what is said of a job. A job has a directory of its number:
//!
//! - `job.json`: what was handed in. For its owner only: it has an environment in it.
//! - `started.json`: since when it runs, and where.
//! - `cancel`: somebody wants it ended.
//! - `ended.json`: how it ended. Nothing changes any more.
//! - `lock`: held while somebody looks after the job, and by every process of the job itself.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How often `wait` looks.
pub const LOOK: Duration = Duration::from_millis(20);
/// How long `remove` waits for a job to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is handed in.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub owner: String,
    /// Seconds; 0: unlimited.
    pub time: u64,
    pub directory: PathBuf,
    /// Both output streams go there.
    pub output: PathBuf,
    pub env: BTreeMap<String, String>,
    pub argv: Vec<String>,
}

/// That it runs, and where.
#[derive(Serialize, Deserialize)]
pub struct Started {
    pub host: String,
}

/// How a job ended.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ended {
    /// `exited`, `signalled`, `cancelled`, `timed-out`, `never-started`.
    pub how: String,
    /// The exit code, or the signal.
    pub code: i32,
    pub reason: String,
}

/// Which job is meant. One of another owner is none.
pub struct Asked {
    pub id: u64,
    pub owner: String,
}

/// What the caller of `wait` knows.
pub struct Seen {
    pub state: String,
    pub bytes: u64,
}

/// What is said of a job.
#[derive(Serialize)]
pub struct Shown {
    pub id: String,
    pub owner: String,
    /// The queue that answers.
    pub spool: PathBuf,
    /// `queued`, `running`, `ended`; `gone`: nobody knows it.
    pub state: &'static str,
    /// As in `Ended`; `lost`: it has ended and nobody saw how. Empty while it has not.
    pub how: String,
    pub code: i32,
    pub reason: String,
    pub host: String,
    /// How much it has written.
    pub bytes: u64,
}

/// The queue's directory.
pub struct Spool {
    place: PathBuf,
}

impl Spool {
    pub fn open(place: PathBuf) -> Result<Self, String> {
        let jobs = place.join("jobs");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&jobs);
        made.map_err(|error| failure("make", &jobs, &error))?;
        Ok(Self { place })
    }

    pub fn directory(&self, id: u64) -> PathBuf {
        self.place.join("jobs").join(id.to_string())
    }

    pub fn submit(&self, job: &Job) -> Result<Shown, String> {
        if job.argv.is_empty() {
            return Err("no program is named behind `--`".to_owned());
        }
        let lock = self.lock("lock")?;
        lock.lock().map_err(|error| failure("lock", &self.place, &error))?;
        let id = self.ids()?.last().map_or(1, |last| last + 1).max(self.last() + 1);
        self.write(&self.place.join("last"), &id)?;
        // The directory gets its name when it is complete: a runner sees all of a job or nothing.
        let (new, directory) = (self.place.join("new"), self.directory(id));
        let _ = fs::remove_dir_all(&new);
        fs::create_dir(&new).map_err(|error| failure("make", &new, &error))?;
        self.write(&new.join("job.json"), job)?;
        fs::rename(&new, &directory).map_err(|error| failure("make", &directory, &error))?;
        self.look(id, &job.owner)
    }

    /// The highest number that was ever given: none is given twice.
    fn last(&self) -> u64 {
        read(&self.place.join("last")).ok().flatten().unwrap_or_default()
    }

    pub fn show(&self, asked: &Asked) -> Result<Shown, String> {
        self.look(asked.id, &asked.owner)
    }

    pub fn wait(&self, asked: &Asked, seen: &Seen, time: Duration) -> Result<Shown, String> {
        let start = Instant::now();
        loop {
            let shown = self.show(asked)?;
            if shown.state != seen.state || shown.bytes > seen.bytes || start.elapsed() >= time {
                return Ok(shown);
            }
            std::thread::sleep(LOOK);
        }
    }

    pub fn cancel(&self, asked: &Asked) -> Result<Shown, String> {
        let shown = self.show(asked)?;
        if matches!(shown.state, "ended" | "gone") {
            return Ok(shown);
        }
        let directory = self.directory(asked.id);
        self.write(&directory.join("cancel"), &())?;
        // Nobody looks after one that is queued: it ends here. Who else looks at it holds the lock for a moment only.
        let start = Instant::now();
        while self.show(asked)?.state == "queued" && start.elapsed() < PATIENCE {
            let lock = self.lock_of(asked.id)?;
            if lock.try_lock().is_ok() && !self.has(asked.id, "started.json") {
                self.end(asked.id, "cancelled", 0, "cancelled while it was queued")?;
            }
            drop(lock);
        }
        self.show(asked)
    }

    pub fn remove(&self, owner: &str) -> Result<usize, String> {
        let mut removed = 0;
        for id in self.ids()? {
            let asked = Asked { id, owner: owner.to_owned() };
            let mut shown = self.cancel(&asked)?;
            let start = Instant::now();
            while matches!(shown.state, "queued" | "running") {
                if start.elapsed() > PATIENCE {
                    return Err(format!("job {id} was told to end and still runs"));
                }
                std::thread::sleep(LOOK);
                shown = self.show(&asked)?;
            }
            if shown.state == "ended" {
                let directory = self.directory(id);
                fs::remove_dir_all(&directory).map_err(|error| failure("remove", &directory, &error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    pub fn list(&self) -> Result<Vec<Shown>, String> {
        let jobs = self.ids()?.into_iter().filter_map(|id| Some((id, self.job(id).ok()??)));
        jobs.map(|(id, job)| self.look(id, &job.owner)).collect()
    }

    /// The numbers of the jobs, in the order in which they were handed in.
    pub fn ids(&self) -> Result<Vec<u64>, String> {
        let jobs = self.place.join("jobs");
        let entries = fs::read_dir(&jobs).map_err(|error| failure("read", &jobs, &error))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut ids: Vec<u64> = names.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub fn job(&self, id: u64) -> Result<Option<Job>, String> {
        read(&self.directory(id).join("job.json"))
    }

    fn look(&self, id: u64, owner: &str) -> Result<Shown, String> {
        let mut shown = Shown {
            id: id.to_string(),
            owner: owner.to_owned(),
            spool: self.place.clone(),
            state: "gone",
            how: String::new(),
            code: 0,
            reason: "nobody knows such a job of this owner".to_owned(),
            host: String::new(),
            bytes: 0,
        };
        let Some(job) = self.job(id)?.filter(|job| job.owner == owner) else { return Ok(shown) };
        let directory = self.directory(id);
        let started: Option<Started> = read(&directory.join("started.json"))?;
        // Whoever looks after it holds the lock, and lets go of it after having written how it ended: hence this order.
        let held = self.is_held(&self.lock_of(id)?);
        let ended: Option<Ended> = read(&directory.join("ended.json"))?;
        shown.bytes = job.output.metadata().map_or(0, |meta| meta.len());
        shown.reason = String::new();
        shown.host = started.as_ref().map(|started| started.host.clone()).unwrap_or_default();
        match (ended, started) {
            (Some(ended), _) => {
                (shown.state, shown.how, shown.code, shown.reason) = ("ended", ended.how, ended.code, ended.reason);
            }
            (None, Some(_)) if held => shown.state = "running",
            (None, Some(_)) => {
                (shown.state, shown.how) = ("ended", "lost".to_owned());
                shown.reason = "it ended while no runner was there to see how".to_owned();
            }
            (None, None) => {
                shown.state = "queued";
                if !self.is_held(&self.lock("runner.lock")?) {
                    shown.reason = "no `toyq serve` runs here".to_owned();
                }
            }
        }
        Ok(shown)
    }

    fn is_held(&self, lock: &File) -> bool {
        // Shared, so that two who look do not take each other for a runner.
        lock.try_lock_shared().is_err()
    }

    pub fn start(&self, id: u64, host: &str) -> Result<(), String> {
        self.write(&self.directory(id).join("started.json"), &Started { host: host.to_owned() })
    }

    pub fn end(&self, id: u64, how: &str, code: i32, reason: &str) -> Result<(), String> {
        let ended = Ended { how: how.to_owned(), code, reason: reason.to_owned() };
        self.write(&self.directory(id).join("ended.json"), &ended)
    }

    pub fn has(&self, id: u64, name: &str) -> bool {
        self.directory(id).join(name).exists()
    }

    pub fn lock_of(&self, id: u64) -> Result<File, String> {
        open_lock(&self.directory(id).join("lock"))
    }

    /// A lock of the queue itself.
    pub fn lock(&self, name: &str) -> Result<File, String> {
        open_lock(&self.place.join(name))
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), String> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        let options = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).clone();
        let written = options.open(&temporary).and_then(|mut file| file.write_all(&bytes));
        written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| failure("write", path, &error))
    }
}

fn open_lock(path: &Path) -> Result<File, String> {
    let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).clone();
    options.open(path).map_err(|error| failure("open", path, &error))
}

/// What a file says; none where there is no file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("`{}`: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure("read", path, &error)),
    }
}

pub fn failure(verb: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {verb} `{}`: {error}", path.display())
}
