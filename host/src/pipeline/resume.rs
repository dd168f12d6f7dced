//! What a later process needs to finish the jobs of a run: watch, collect, release, judge, record.
//!
//! It lies in `resume/` of the run's directory, readable by its owner only, replaced as a whole, and there before anybody is
//! told that a job was launched: `.run.json` for the run, `JOB.json` for each of its jobs, the handle in it as soon as the
//! target has answered it. Both say their version; another one is refused. Secrets are names; values are masked.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::run::{RunOptions, Work};
use crate::plugin::jobs::TargetInfo;
use crate::results::attendance::{RESUME, RUN_RECORD};
use crate::results::redact::Redactor;
use crate::results::row::JobFacts;
use crate::results::run_directory::{RunDirectory, is_job_id, replace_private_file};

/// Version of both records.
pub const VERSION: u32 = 1;

/// The target of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetRecord {
    /// The plugin's name.
    pub plugin: String,
    /// Of its component.
    pub digest: String,
    /// Reported as `deployment_type`.
    pub deployment_type: String,
    /// Reported where nobody names a launcher.
    pub default_launcher: String,
    /// What it can do.
    pub features: Vec<String>,
}

impl TargetRecord {
    /// As the target describes itself.
    #[must_use]
    pub fn info(&self) -> TargetInfo {
        TargetInfo {
            deployment_type: self.deployment_type.clone(),
            default_launcher: self.default_launcher.clone(),
            features: self.features.clone(),
        }
    }
}

/// A job of a run, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobName {
    /// Its id in the run.
    pub id: String,
    /// Its model.
    pub model: String,
    /// The image's reference, empty where it has none.
    pub image: String,
}

/// What all jobs of a run have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The run's id.
    pub run: String,
    /// Whether its jobs live on without an attendant.
    pub detached: bool,
    /// Whether they do from an interruption on.
    pub detaches_when_interrupted: bool,
    /// Where they run.
    pub target: TargetRecord,
    /// The model tree.
    pub tree: PathBuf,
    /// The working directory.
    pub output: PathBuf,
    /// The directory of the results file.
    pub results: PathBuf,
    /// What the command line said, the results file among it.
    pub options: RunOptions,
    /// Another node reports.
    pub worker: bool,
    /// The effective configuration, the error scan's among it; secrets are masked.
    pub config: Value,
    /// How many rows the results file had before.
    pub first_row: usize,
    /// An image was not built, or not pushed.
    pub build_failed: bool,
    /// What came of the build phase, null where there was none.
    pub build_summary: Value,
    /// Where the summary goes.
    pub summary_output: Option<PathBuf>,
    /// In the order of the models.
    pub jobs: Vec<JobName>,
}

/// That a job was launched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launched {
    /// What the target knows it by.
    pub handle: String,
    /// When the target answered.
    pub at: String,
}

/// What one job needs to be finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRecord {
    /// [`VERSION`].
    pub v: u32,
    /// Its id.
    pub id: String,
    /// Its card and its image.
    pub work: Work,
    /// What its rows have in common.
    pub facts: JobFacts,
    /// How many nodes it has.
    pub nodes: u32,
    /// How many of them have to report.
    pub reporting_nodes: u32,
    /// They work each for itself.
    #[serde(default)]
    pub replicas: bool,
    /// Seconds.
    pub time_limit: Option<u64>,
    /// Patterns of the files to bring back.
    pub collect: Vec<String>,
    /// Names of the secrets that it was given: without their values its output cannot be shown.
    pub secrets: Vec<String>,
    /// None: it was never launched.
    pub launched: Option<Launched>,
}

impl JobRecord {
    /// A job that is not set up yet.
    #[must_use]
    pub fn planned(id: &str, work: &Work, facts: JobFacts) -> Self {
        Self {
            v: VERSION,
            id: id.to_owned(),
            work: work.clone(),
            facts,
            nodes: 1,
            reporting_nodes: 1,
            replicas: false,
            time_limit: None,
            collect: Vec::new(),
            secrets: Vec::new(),
            launched: None,
        }
    }
}

/// The records of one run, written by its attendant only.
#[derive(Debug)]
pub struct Records {
    directory: Arc<RunDirectory>,
    redactor: Redactor,
    run: Mutex<RunRecord>,
}

impl Records {
    /// Records of a run that begins.
    #[must_use]
    pub fn new(directory: Arc<RunDirectory>, redactor: Redactor, run: RunRecord) -> Self {
        Self { directory, redactor, run: Mutex::new(run) }
    }

    fn record(&self) -> MutexGuard<'_, RunRecord> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the jobs have in common.
    #[must_use]
    pub fn run(&self) -> RunRecord {
        self.record().clone()
    }

    /// Writes which jobs there will be.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(&self, jobs: Vec<JobName>) -> io::Result<()> {
        let mut run = self.record();
        run.jobs = jobs;
        self.write(RUN_RECORD, &*run, None)
    }

    /// Writes that the jobs live on without an attendant.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn detach(&self) -> io::Result<()> {
        let mut run = self.record();
        if run.detached {
            return Ok(());
        }
        run.detached = true;
        self.write(RUN_RECORD, &*run, None)
    }

    /// Writes what a job needs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_job(&self, job: &JobRecord) -> io::Result<()> {
        // A masked handle would find nothing.
        let handle = job.launched.as_ref().map(|launched| launched.handle.clone());
        self.write(&format!("{}.json", job.id), job, handle)
    }

    fn write(&self, name: &str, record: &impl Serialize, handle: Option<String>) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let mut value = self.redactor.json(&serde_json::to_value(record)?);
        if let (Some(handle), Some(place)) = (handle, value.pointer_mut("/launched/handle")) {
            *place = Value::String(handle);
        }
        let directory = self.directory.path().join(RESUME);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        replace_private_file(&directory.join(name), format!("{value:#}\n").as_bytes())
    }
}

/// Why a run cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// A record cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A record is of another version of maddock.
    #[error("`{path}` has version {found}, this maddock reads {VERSION}")]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

fn read<T: DeserializeOwned>(directory: &RunDirectory, name: &str) -> Result<T, ResumeError> {
    let path = directory.path().join(RESUME).join(name);
    let unreadable = |error| ResumeError::Unreadable { path: path.clone(), error };
    let value: Value = std::fs::read(&path)
        .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from))
        .map_err(unreadable)?;
    match value.get("v").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        other => {
            let found = other.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(ResumeError::Version { path, found });
        }
    }
    serde_json::from_value(value).map_err(|error| unreadable(error.into()))
}

/// The record of an earlier run.
///
/// # Errors
/// It is not there, not readable, or of another version.
pub fn read_run(directory: &RunDirectory) -> Result<RunRecord, ResumeError> {
    read(directory, RUN_RECORD)
}

/// The record of a job of an earlier run.
///
/// # Errors
/// It is not there, not readable, or of another version.
pub fn read_job(directory: &RunDirectory, id: &str) -> Result<JobRecord, ResumeError> {
    if !is_job_id(id) {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(ResumeError::Unreadable { path: PathBuf::from(id), error });
    }
    read(directory, &format!("{id}.json"))
}
