//! Sees to it that a job can be finished by another process, from the moment on that its target has launched it.

use std::io;
use std::sync::Arc;

use super::resume::{JobRecord, Launched, Records};
use super::run::Progress;
use crate::plugin::RunContext;
use crate::results::attendance;

/// How a process attends its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Jobs live on without this process from their launch on.
    pub detached: bool,
    /// It follows what it has launched.
    pub watches: bool,
    /// When it is stopped, it leaves the jobs instead of ending them.
    pub leaves: bool,
    /// A job that cannot be followed now is left for later instead of being given up.
    pub patient: bool,
}

impl Manner {
    /// With the process, the jobs end.
    pub const ATTACHED: Self = Self { detached: false, watches: true, leaves: false, patient: false };
}

/// Keeps one job.
#[derive(Debug)]
pub struct Keeper {
    /// Where everything about the run is kept.
    pub records: Arc<Records>,
    /// What this job needs.
    pub job: JobRecord,
    /// What ties programs to this process.
    pub context: Arc<RunContext>,
    /// How the run is attended.
    pub manner: Manner,
    /// How far launching is.
    pub progress: Arc<Progress>,
}

impl Keeper {
    /// The target has launched the job: keeps the handle, and only then lets go of what ties the job to this process.
    ///
    /// # Errors
    /// The handle cannot be kept; the job is still tied.
    pub async fn launched(&self, handle: &str) -> io::Result<()> {
        let launched = Launched { handle: handle.to_owned(), at: jiff::Timestamp::now().to_string() };
        self.records.write_job(&JobRecord { launched: Some(launched), ..self.job.clone() })?;
        if self.manner.detached {
            self.context.lifelines.let_go(&self.job.id).await;
        }
        self.progress.launched(&self.job.id);
        Ok(())
    }

    /// Whether this process follows the job.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.manner.watches
    }

    /// Whether the job is left, now that this process is asked to stop: not where somebody wants it to end.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.manner.leaves && !attendance::is_cancel_asked(&self.context.roots.run, Some(&self.job.id))
    }

    /// Lets the job go on without this process.
    ///
    /// # Errors
    /// That it does cannot be written; the job is still tied.
    pub async fn leave(&self) -> io::Result<()> {
        self.records.detach()?;
        self.context.lifelines.let_go(&self.job.id).await;
        Ok(())
    }
}
