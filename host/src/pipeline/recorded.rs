//! A job that has its verdict, as its `job.json` says: what summaries and exit codes are made from, by whichever process.

use std::io;

use serde_json::{Value, json};

use super::record::{Judged, row_json};
use super::run::JobReport;
use crate::results::run_directory::{JOB_FILE, RunDirectory, replace_file};

/// What is known of a job that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its id in the run.
    pub id: String,
    /// Its model.
    pub model: String,
    /// The image that was run, empty where none.
    pub image: String,
    /// `SUCCESS`, `FAILURE` or `SKIPPED`.
    pub status: String,
    /// Why it is no success.
    pub reason: Option<String>,
    /// What was measured.
    pub performance: Option<String>,
    /// Seconds.
    pub seconds: Option<f64>,
    /// Policy refused something that it needed.
    pub refused: bool,
    /// Whether its rows went to every reporter. It is false while they go there, and so where that was cut off or one of them failed.
    pub reported: bool,
}

impl Recorded {
    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status == "FAILURE"
    }

    /// Of a job that this process has finished.
    #[must_use]
    pub fn of(report: &JobReport) -> Self {
        let judged = &report.judged;
        Self {
            id: report.id.clone(),
            model: report.model.clone(),
            image: report.image.clone(),
            status: judged.verdict.status().to_owned(),
            reason: judged.reason.clone(),
            performance: judged.performance.clone(),
            seconds: judged.duration,
            refused: report.refused,
            reported: report.reported,
        }
    }

    /// Of a job that any process has finished; none where nobody has.
    #[must_use]
    pub fn read(directory: &RunDirectory, id: &str) -> Option<Self> {
        let path = directory.job_path(id).ok()?.join(JOB_FILE);
        let value: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        Some(Self {
            id: id.to_owned(),
            model: text("model").unwrap_or_default(),
            image: text("image").unwrap_or_default(),
            status: text("verdict")?,
            reason: text("reason"),
            performance: text("performance"),
            seconds: value.get("seconds").and_then(Value::as_f64),
            refused: flag("refused").unwrap_or_default(),
            reported: flag("reported").unwrap_or(true),
        })
    }
}

/// What `job.json` is made from.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The job's id.
    pub id: &'a str,
    /// Its model.
    pub model: &'a str,
    /// The image's reference.
    pub image: Option<&'a str>,
    /// The image's digest, as its build has it.
    pub digest: Option<&'a str>,
    /// The verdict and what it rests on.
    pub judged: &'a Judged,
    /// Policy refused something.
    pub refused: bool,
}

impl Entry<'_> {
    /// Writes `job.json`: from then on the job has its verdict.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &RunDirectory, reported: bool) -> io::Result<()> {
        let judged = self.judged;
        let summary = json!({
            "job": self.id,
            "model": self.model,
            "image": self.image,
            // What was run, where that is known: a tag may have moved since the build.
            "image_digest": judged.image_digest.as_deref().or(self.digest),
            "execution": judged.execution,
            "evidence": judged.evidence,
            "verdict": judged.verdict.status(),
            "reason": judged.reason,
            "hint": judged.hint,
            "performance": judged.performance,
            "seconds": judged.duration,
            "refused": self.refused,
            "rows": judged.rows.iter().map(row_json).collect::<Vec<_>>(),
            "reported": reported,
        });
        let place = directory.job_path(self.id)?;
        // A job that failed in its setup has no directory yet.
        std::fs::create_dir_all(&place)?;
        replace_file(&place.join(JOB_FILE), format!("{summary:#}\n").as_bytes())
    }
}
