//! A run that was left, or whose process died: its jobs are finished by this process, each recorded once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use maddock_bindings::api::events::Phase;
use tokio::task::JoinSet;

use super::finish::Execution;
use super::{Chosen, Outcome, Place, RunError, Shared};
use crate::pipeline::devices::Pool;
use crate::pipeline::event::{Event, Gravity};
use crate::pipeline::execute::{Begin, phase_word};
use crate::pipeline::job;
use crate::pipeline::record::Judged;
use crate::pipeline::recorded::Recorded;
use crate::pipeline::resume::{self, JobName, JobRecord, RunRecord};
use crate::results::run_directory::RunDirectory;

/// How long asking for the state of a job may take.
const ASKING: Duration = Duration::from_secs(30);

/// What is wanted of the jobs that have no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Follow them all to their ends.
    Attend,
    /// Finish those that have ended.
    Collect,
    /// End these, by their ids; none: all of them.
    Cancel(Vec<String>),
}

impl Wish {
    fn is_about(&self, id: &str) -> bool {
        match self {
            Self::Attend | Self::Collect => true,
            Self::Cancel(ids) => ids.is_empty() || ids.iter().any(|wanted| wanted == id),
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Jobs that have their verdict, in the order of the models.
    pub jobs: Vec<Recorded>,
    /// Jobs that have none yet, and where they are.
    pub going: Vec<(JobName, String)>,
    /// The user stopped it.
    pub interrupted: bool,
}

impl Resumed {
    /// Whether all jobs have their verdict.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.going.is_empty()
    }

    /// What the run's directory says now.
    #[must_use]
    pub fn read(directory: &RunDirectory, run: &RunRecord) -> Self {
        let mut resumed = Self::default();
        for name in &run.jobs {
            match Recorded::read(directory, &name.id) {
                Some(recorded) => resumed.jobs.push(recorded),
                None => resumed.going.push((name.clone(), String::new())),
            }
        }
        resumed
    }
}

/// Where one job is afterwards, when it has no verdict.
type Where = Option<String>;

/// Finishes the jobs of a run as far as is wished. The caller attends the run.
///
/// # Errors
/// What a job needs cannot be read. What goes wrong with one job is that job's verdict.
pub async fn resume(place: &Place, target: &Chosen, run: &RunRecord, wish: &Wish) -> Result<Resumed, RunError> {
    let shared = Arc::new(Shared {
        place: place.clone(),
        target: target.clone(),
        options: run.options.clone(),
        inventory: None,
        pool: Pool::new([]),
        worker: run.worker,
    });
    let mut going: BTreeMap<String, String> = BTreeMap::new();
    let mut running = JoinSet::new();
    for name in &run.jobs {
        if let Some(recorded) = Recorded::read(&place.directory, &name.id) {
            if !recorded.reported {
                let text = "its rows may not have reached every results file; they are in its `job.json`";
                place.events.say(Gravity::Warning, &name.id, text);
            }
            continue;
        }
        let record = resume::read_job(&place.directory, &name.id)?;
        let (shared, wish) = (shared.clone(), wish.clone());
        running.spawn(async move {
            let id = record.id.clone();
            (id, shared.again(record, &wish).await)
        });
    }
    while let Some(done) = running.join_next().await {
        match done {
            Ok((id, Some(phase))) => {
                going.insert(id, phase);
            }
            Ok((_, None)) => {}
            Err(error) => {
                place.events.say(Gravity::Error, "", format!("a job's task ended: {error}; please report this"));
            }
        }
    }
    let mut resumed = Resumed::read(&place.directory, run);
    for (name, phase) in &mut resumed.going {
        *phase = going.remove(&name.id).unwrap_or_default();
    }
    resumed.interrupted = place.stop.is_cancelled();
    let keep: Vec<String> = resumed.going.iter().map(|(name, _)| name.id.clone()).collect();
    // What was to be kept alive bears a job's name that has its verdict; only what the engine was asked for here is swept.
    if !run.options.keep_alive {
        for problem in crate::capability::sweep(&place.context, &keep).await {
            place.events.say(Gravity::Error, "", problem);
        }
    }
    let id = run.run.clone();
    if resumed.finished() {
        let failed = resumed.jobs.iter().filter(|job| job.failed()).count();
        place.events.emit(&Event::RunEnded { run: id, succeeded: resumed.jobs.len() - failed, failed });
    } else {
        place.events.emit(&Event::RunLeft { run: id, launched: resumed.going.len(), unlaunched: 0 });
    }
    Ok(resumed)
}

impl Shared {
    /// One job that another process has begun; where it is, unless it has its verdict now.
    async fn again(&self, record: JobRecord, wish: &Wish) -> Where {
        if !wish.is_about(&record.id) {
            return Some(self.phase(&record).await);
        }
        let Some(launched) = record.launched.clone() else {
            self.never_launched(record).await;
            return None;
        };
        match wish {
            Wish::Attend => {}
            Wish::Collect => {
                let phase = self.phase(&record).await;
                if phase != phase_word(Phase::Ended) {
                    return Some(phase);
                }
            }
            Wish::Cancel(_) => {
                let session = self.place.session().for_job(&record.id).within(Some(ASKING.saturating_mul(6)));
                let cancelled =
                    self.target.plugin.cancel_job(&session, &launched.handle, "cancelled by `maddock cancel`").await;
                if let Err(error) = cancelled {
                    let events = &self.place.events;
                    events.say(Gravity::Error, &record.id, format!("ending the job: {error}"));
                    if let Some(hint) = error.hint() {
                        events.say(Gravity::Info, &record.id, format!("hint: {hint}"));
                    }
                    // One that goes on for all that is known has no verdict, and following it to the end that it would have had is not
                    // what was asked for.
                    let phase = self.phase(&record).await;
                    if phase != phase_word(Phase::Ended) {
                        return Some(phase);
                    }
                }
            }
        }
        let (id, work) = (record.id.clone(), record.work.clone());
        match self.conclude(record, Begin::Resume(&launched.handle)).await {
            Execution::Judged(judged, refused) => {
                let image = String::new();
                let _: Outcome = self.finish(id, work, image, *judged, refused).await;
                None
            }
            Execution::Left | Execution::Unlaunched => Some("left".to_owned()),
        }
    }

    async fn never_launched(&self, record: JobRecord) {
        let wanted = job::text(&record.work.card.model, "n_gpus");
        let reason = "cancelled: never launched".to_owned();
        let judged = Judged::setup_failure(&record.id, &record.facts, &wanted, reason);
        let _: Outcome = self.finish(record.id, record.work, String::new(), judged, false).await;
    }

    /// Where a job is, in a word of the target interface, or why nobody can say.
    async fn phase(&self, record: &JobRecord) -> String {
        let Some(launched) = &record.launched else { return "never launched".to_owned() };
        let session = self.place.session().for_job(&record.id).within(Some(ASKING));
        match self.target.plugin.job_status(&session, &launched.handle).await {
            Ok(status) if status.ending.is_some() => phase_word(Phase::Ended).to_owned(),
            Ok(status) => phase_word(status.phase).to_owned(),
            Err(error) => {
                self.place.events.say(Gravity::Warning, &record.id, error.to_string());
                phase_word(Phase::Unknown).to_owned()
            }
        }
    }
}
