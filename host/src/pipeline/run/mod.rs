//! The run phase: every selected model becomes a job on the chosen target, and every job ends with a verdict and rows.

mod finish;
mod prepare;
mod progress;
mod resumed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::capability::events::PluginEvent;
use crate::capability::policy::step::Refusal;
use crate::config::gpus;
use crate::pipeline::card::Card;
use crate::pipeline::devices::Pool;
use crate::pipeline::event::{Event, Gravity, Stream};
use crate::pipeline::execute::{self};
use crate::pipeline::image::Image;
use crate::pipeline::job::{self};
use crate::pipeline::keeper::Manner;
use crate::pipeline::record::Judged;
use crate::pipeline::resume::{JobName, JobRecord, Records};
use crate::plugin::accelerators::Inventory;
use crate::plugin::jobs::TargetInfo;
use crate::plugin::manifest::Kind;
use crate::plugin::{Environment, Plugin, PluginError, Plugins, RunContext, Session};
use crate::results::attendance;
use crate::results::run_directory::{RunDirectory, random};
use crate::results::verdict::Verdict;

use prepare::SetupError;
pub use progress::Progress;
pub use resumed::{Resumed, Wish, resume};

/// Seconds for a model where neither it nor the user says anything.
pub const DEFAULT_TIME_LIMIT: u64 = 7200;

/// How long a model may take, as the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeLimit {
    /// What the model says, else [`DEFAULT_TIME_LIMIT`].
    Default,
    /// Seconds, whatever the model says.
    Seconds(u64),
    /// For ever.
    Unlimited,
}

/// What the command line says about the run phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunOptions {
    /// How many jobs at once.
    pub jobs: usize,
    /// How long a model may take.
    pub time_limit: TimeLimit,
    /// Leave the surroundings up.
    pub keep_alive: bool,
    /// Keep work directories.
    pub keep_work: bool,
    /// Do not run the models.
    pub skip_model: bool,
    /// Container profile, empty for the target's default.
    pub profile: String,
    /// Run models also where they say that they do not support the architecture.
    pub any_architecture: bool,
    /// Run deprecated models too.
    pub deprecated_too: bool,
    /// The table of tools.
    pub tools: Value,
    /// The file that rows are appended to, absolute.
    pub output: PathBuf,
    /// Delete intermediate result files afterwards.
    pub cleanup: bool,
    /// Print plans and do nothing.
    pub dry_run: bool,
}

/// One model to run, with its image where the target needs one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// The model.
    pub card: Card,
    /// Its image.
    pub image: Option<Image>,
}

/// Where and with what a run goes on.
#[derive(Debug, Clone)]
pub struct Place {
    /// Catalogue and engine.
    pub plugins: Arc<Plugins>,
    /// What plugin instances share.
    pub context: Arc<RunContext>,
    /// The run's own directory.
    pub directory: Arc<RunDirectory>,
    /// The effective configuration.
    pub config: Arc<Value>,
    /// What of it somebody said.
    pub said: Arc<Value>,
    /// What of it only presets say.
    pub presets: Arc<Value>,
    /// Who hears what happens.
    pub events: Stream,
    /// Fires when the user wants to stop.
    pub stop: CancellationToken,
    /// How the run is attended.
    pub manner: Manner,
    /// What a later process needs; none where nothing is done that could be resumed.
    pub records: Option<Arc<Records>>,
    /// How far launching is.
    pub progress: Arc<Progress>,
}

impl Place {
    /// A session whose plugins are heard: what they log becomes messages of the run.
    fn session(&self) -> Session {
        let (sender, mut receiver) = mpsc::channel(64);
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                if let PluginEvent::Log { level, message, .. } = event {
                    events.say(execute::gravity(level), "", message);
                }
            }
        });
        Session::quiet(self.context.clone()).telling(sender)
    }

    fn environment(&self) -> &Environment {
        &self.context.environment
    }

    /// The same with a directory of its own below the run's, for plans that are made ahead: what a target wants to see staged
    /// for them is gone with it, and not in the way of the job itself.
    ///
    /// # Errors
    /// The run's directory cannot be written.
    pub fn aside(&self) -> std::io::Result<(tempfile::TempDir, Self)> {
        let scratch = tempfile::Builder::new().prefix(".plan-").tempdir_in(self.directory.path())?;
        let directory = RunDirectory::create(scratch.path(), jiff::Timestamp::now(), random)?;
        Ok((scratch, Self { directory: Arc::new(directory), ..self.clone() }))
    }
}

/// Why a run phase cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A plugin failed before any job.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The run's directory cannot be written.
    #[error("cannot write the run's directory: {0}")]
    Directory(#[from] std::io::Error),
    /// What a later process needs of an earlier run cannot be read.
    #[error(transparent)]
    Resume(#[from] crate::pipeline::resume::ResumeError),
    /// None of the images is for this machine.
    #[error("none of the {count} images is for this machine: {reason}")]
    NothingFits {
        /// How many there were.
        count: usize,
        /// What the first one is for, and what this machine is.
        reason: String,
    },
    /// Policy refuses a step of a job's plan: nothing was begun.
    #[error("{model}: {message}")]
    Refused {
        /// The job's model.
        model: String,
        /// Why.
        message: String,
        /// What would allow it.
        remedy: String,
    },
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct RunReport {
    /// In the order of the models.
    pub jobs: Vec<JobReport>,
    /// The user stopped it.
    pub interrupted: bool,
    /// Jobs that were launched and go on, in the order of the models.
    pub left: Vec<JobName>,
    /// Jobs that were never launched because the others were left.
    pub unlaunched: Vec<JobName>,
    /// Plans of a dry run, in the order of the models.
    pub plans: Vec<Planned>,
}

/// What a job would do, and what of it policy would refuse.
#[derive(Debug)]
pub struct Planned {
    /// The job's id, by which its directory would be called.
    pub id: String,
    /// The model.
    pub model: String,
    /// The target's plan.
    pub plan: maddock_bindings::api::types::WorkPlan,
    /// Steps that the gate would refuse.
    pub refusals: Vec<Refusal>,
}

/// What came of one job.
#[derive(Debug)]
pub struct JobReport {
    /// Its id in the run.
    pub id: String,
    /// Its model.
    pub model: String,
    /// The image that was run.
    pub image: String,
    /// The verdict and what it rests on.
    pub judged: Judged,
    /// Policy refused something that it needed.
    pub refused: bool,
    /// Its target says that it can never run as it is.
    pub unplannable: bool,
    /// Whether its rows went to every reporter.
    pub reported: bool,
}

/// A target that was chosen, and how it describes itself.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The plugin.
    pub plugin: Plugin,
    /// Its own words.
    pub info: TargetInfo,
}

impl Chosen {
    /// Asks a target plugin to describe itself.
    ///
    /// # Errors
    /// The plugin failed.
    pub async fn new(plugin: Plugin, session: &Session) -> Result<Self, PluginError> {
        let info = plugin.describe_target(session).await?;
        Ok(Self { plugin, info })
    }

    /// Whether it has a feature.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.info.features.iter().any(|own| own == feature)
    }

    /// Whether it runs images under a configuration: some do so unless a key has a certain value.
    #[must_use]
    pub fn runs_images(&self, config: &Value) -> bool {
        let unless = self.info.features.iter().filter_map(|own| own.strip_prefix("images-unless="));
        self.has("images")
            && !unless.filter_map(|text| text.split_once(':')).any(|(key, value)| says(config, key, value))
    }
}

/// Whether a configuration has a value, written as JSON, at a key whose parts are separated by dots.
fn says(config: &Value, key: &str, value: &str) -> bool {
    let found = key.split('.').try_fold(config, |section, part| section.get(part));
    serde_json::from_str::<Value>(value).is_ok_and(|value| found == Some(&value))
}

/// The accelerators of this machine: the first vendor's that has any. A plugin that fails is told about, and is as good as
/// one that finds nothing, unless the configuration names its vendor.
///
/// # Errors
/// The named vendor's plugin failed.
pub async fn detect(
    plugins: &Plugins,
    session: &Session,
    config: &Value,
    events: &Stream,
) -> Result<Option<Inventory>, PluginError> {
    let wanted = job::text(config, "gpu_vendor");
    let text = config.to_string();
    for plugin in plugins.all(Kind::Gpu)? {
        match plugin.detect(session, &text).await {
            Ok(Some(inventory)) if !inventory.devices.is_empty() => {
                for warning in &inventory.warnings {
                    events.say(Gravity::Warning, plugin.name(), warning);
                }
                return Ok(Some(inventory));
            }
            Ok(_) => {}
            Err(error) => {
                let named = plugin.loaded().manifest.provides.iter().any(|vendor| vendor.eq_ignore_ascii_case(&wanted));
                if named && !wanted.is_empty() {
                    return Err(error);
                }
                events.say(Gravity::Warning, "", error.to_string());
            }
        }
    }
    Ok(None)
}

/// Runs every work item to its verdict and records each as soon as it has one.
///
/// # Errors
/// Nothing can begin. What goes wrong with one job is that job's verdict.
pub async fn run(
    place: &Place,
    target: &Chosen,
    works: Vec<Work>,
    options: &RunOptions,
) -> Result<RunReport, RunError> {
    let inventory = if target.has("local") {
        let session = place.session();
        tokio::select! {
            found = detect(&place.plugins, &session, &place.config, &place.events) => found?,
            () = place.stop.cancelled() => return Ok(RunReport { interrupted: true, ..RunReport::default() }),
        }
    } else {
        None
    };
    let works = fitting(works, inventory.as_ref(), place)?;
    let pool = device_pool(place, inventory.as_ref());
    let room = Arc::new(Semaphore::new(options.jobs.max(1)));
    let shared = Arc::new(Shared {
        worker: is_worker(place.environment()),
        place: place.clone(),
        target: target.clone(),
        options: options.clone(),
        inventory,
        pool,
    });
    // What is handed in elsewhere was planned before.
    if !options.dry_run && target.has("local") {
        shared.foresee(&works).await?;
    }

    place.events.emit(&Event::RunStarted {
        run: place.directory.id().as_str().to_owned(),
        directory: place.directory.path().to_owned(),
        jobs: works.len(),
    });
    let names = shared.plan(&works)?;
    place.progress.begin(works.len(), options.jobs.max(1));
    let mut gathered = Gathered::default();
    let mut running = JoinSet::new();
    for (number, work) in works.into_iter().enumerate() {
        // One job after the other enters, in the order of the models; the rest wait here, not in memory.
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit.ok(),
            () = place.stop.cancelled() => None,
        };
        // Jobs of a run that is cancelled get their verdicts; those of one that was interrupted or left get none here.
        if permit.is_none() && !attendance::is_cancel_asked(place.directory.path(), None) {
            break;
        }
        while let Some(done) = running.try_join_next() {
            gathered.keep(done, &place.events);
        }
        let id = name_of(number, &work).id;
        place.progress.entered(&id);
        let shared = shared.clone();
        running.spawn(async move {
            let outcome = shared.one(number, work).await;
            shared.place.progress.over(&id);
            drop(permit);
            (number, outcome)
        });
    }
    while let Some(done) = running.join_next().await {
        gathered.keep(done, &place.events);
    }
    let report = gathered.report(place, names);
    sweep(place, options, &report).await;
    tell_end(place, &report);
    Ok(report)
}

/// How a run ended, or that it goes on without this process.
fn tell_end(place: &Place, report: &RunReport) {
    let run = place.directory.id().as_str().to_owned();
    let (launched, unlaunched) = (report.left.len(), report.unlaunched.len());
    if launched > 0 {
        place.events.emit(&Event::RunLeft { run, launched, unlaunched });
        return;
    }
    let failed = report.jobs.iter().filter(|job| matches!(job.judged.verdict, Verdict::Failure(_))).count();
    place.events.emit(&Event::RunEnded { run, succeeded: report.jobs.len() - failed, failed });
}

/// What the jobs of a run have answered, by their numbers.
#[derive(Default)]
struct Gathered {
    reports: BTreeMap<usize, JobReport>,
    left: BTreeMap<usize, JobName>,
    plans: BTreeMap<usize, Planned>,
}

impl Gathered {
    fn keep(&mut self, done: Result<(usize, Outcome), tokio::task::JoinError>, events: &Stream) {
        match done {
            Ok((number, Outcome::Report(report))) => {
                self.reports.insert(number, *report);
            }
            Ok((number, Outcome::Left(name))) => {
                self.left.insert(number, name);
            }
            Ok((number, Outcome::Plan(planned))) => {
                self.plans.insert(number, planned);
            }
            Ok((_, Outcome::Unlaunched)) => {}
            Err(error) => events.say(Gravity::Error, "", format!("a job's task ended: {error}; please report this")),
        }
    }

    fn report(self, place: &Place, names: Vec<JobName>) -> RunReport {
        let answered: Vec<&String> =
            self.reports.values().map(|report| &report.id).chain(self.left.values().map(|left| &left.id)).collect();
        // Of an interrupted run these have no verdict and never will; of one that was left they are owed one.
        let unlaunched = if self.left.is_empty() {
            Vec::new()
        } else {
            names.iter().filter(|name| !answered.contains(&&name.id)).cloned().collect()
        };
        RunReport {
            interrupted: place.stop.is_cancelled(),
            jobs: self.reports.into_values().collect(),
            left: self.left.into_values().collect(),
            unlaunched,
            plans: self.plans.into_values().collect(),
        }
    }
}

/// Whether another node reports.
#[must_use]
pub fn is_worker(environment: &Environment) -> bool {
    environment.get("MAD_COLLECT_METRICS").is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// What one job answers: a verdict, or the plan of a dry run.
enum Outcome {
    Report(Box<JobReport>),
    /// It goes on without this process.
    Left(JobName),
    /// It was to be launched when this process was told to leave.
    Unlaunched,
    Plan(Planned),
}

/// Removes what is left over: what a launch that was cut off has made is found by its owner. Jobs that came to their end
/// are kept where the user asked for it.
async fn sweep(place: &Place, options: &RunOptions, report: &RunReport) {
    let ended =
        |job: &&JobReport| options.keep_alive && !report.interrupted && !matches!(job.judged.execution, Value::Null);
    let kept = report.jobs.iter().filter(ended).map(|job| job.id.clone());
    let keep: Vec<String> = kept.chain(report.left.iter().map(|left| left.id.clone())).collect();
    for problem in crate::capability::sweep(&place.context, &keep).await {
        place.events.say(Gravity::Error, "", problem);
    }
}

/// Images for another vendor or architecture are left out; a machine without accelerators runs any.
fn fitting(works: Vec<Work>, inventory: Option<&Inventory>, place: &Place) -> Result<Vec<Work>, RunError> {
    let Some(inventory) = inventory else { return Ok(works) };
    let architecture = job::variable(Some(inventory), "MAD_SYSTEM_GPU_ARCHITECTURE").unwrap_or_default().to_owned();
    let count = works.len();
    let mut refused = None;
    let mut left = Vec::new();
    for work in works {
        let Some(image) = &work.image else {
            left.push(work);
            continue;
        };
        let other_vendor = !image.gpu_vendor.is_empty() && !image.gpu_vendor.eq_ignore_ascii_case(&inventory.vendor);
        let other_architecture =
            !image.gpu_architecture.is_empty() && !architecture.is_empty() && image.gpu_architecture != architecture;
        if other_vendor || other_architecture {
            let reason = format!(
                "`{}` is for {} {}, this machine has {} {architecture}",
                image.key, image.gpu_vendor, image.gpu_architecture, inventory.vendor
            );
            place.events.say(Gravity::Warning, "", format!("left out: {reason}"));
            refused.get_or_insert(reason);
        } else {
            left.push(work);
        }
    }
    match refused {
        Some(reason) if left.is_empty() => Err(RunError::NothingFits { count, reason }),
        _ => Ok(left),
    }
}

/// The devices that the configuration allows, else all that were detected.
fn device_pool(place: &Place, inventory: Option<&Inventory>) -> Pool {
    let Some(inventory) = inventory else { return Pool::new([]) };
    let all: Vec<u32> = (0..).zip(&inventory.devices).map(|(place, _)| place).collect();
    let chosen = place.config.get("docker_gpus").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    match chosen.map(gpus::parse_devices) {
        Some(Ok(list)) => Pool::new(list.into_iter().filter(|index| all.contains(index))),
        Some(Err(error)) => {
            place.events.say(Gravity::Warning, "", format!("{error}; using all devices"));
            Pool::new(all)
        }
        None => Pool::new(all),
    }
}

/// What the jobs of a run share.
struct Shared {
    place: Place,
    target: Chosen,
    options: RunOptions,
    inventory: Option<Inventory>,
    pool: Pool,
    /// Another node reports.
    worker: bool,
}

impl Shared {
    /// Says which jobs there will be, before any of them begins.
    fn plan(&self, works: &[Work]) -> std::io::Result<Vec<JobName>> {
        let names: Vec<JobName> = works.iter().enumerate().map(|(number, work)| name_of(number, work)).collect();
        if let Some(records) = &self.place.records {
            records.begin(names.clone())?;
            for (name, work) in names.iter().zip(works) {
                records.write_job(&JobRecord::planned(&name.id, work, self.facts(work)))?;
            }
        }
        Ok(names)
    }

    /// Why a job is not launched any more, where somebody asked for its end before it began.
    fn cancelled(&self, id: &str) -> Option<String> {
        attendance::is_cancel_asked(self.place.directory.path(), Some(id))
            .then(|| "cancelled: never launched".to_owned())
    }

    /// Plans every job and asks policy about every step, before any of them has an effect. What cannot be planned is for the
    /// job itself to say.
    async fn foresee(&self, works: &[Work]) -> Result<(), RunError> {
        let (_scratch, aside) = self.place.aside()?;
        let quiet = Self {
            worker: self.worker,
            place: Place { events: Stream::default(), records: None, ..aside },
            target: self.target.clone(),
            options: RunOptions { dry_run: true, ..self.options.clone() },
            inventory: self.inventory.clone(),
            pool: self.pool.clone(),
        };
        for (number, work) in works.iter().enumerate() {
            if self.place.stop.is_cancelled() {
                break;
            }
            if quiet.left_out(&work.card).is_some() {
                continue;
            }
            let id = crate::results::run_directory::job_id(number, &work.card.name);
            let Ok(ready) = quiet.prepare(&id, work, &mut quiet.facts(work)).await else { continue };
            let Ok(planned) = quiet.planned(&id, work, &ready).await else { continue };
            if let Some(Refusal { denial, .. }) = planned.refusals.into_iter().next() {
                let (model, message, remedy) = (planned.model, denial.message, denial.remedy);
                return Err(RunError::Refused { model, message, remedy });
            }
        }
        Ok(())
    }

    /// The target's plan of a job, and what policy says of it.
    async fn planned(&self, id: &str, work: &Work, ready: &prepare::Ready) -> Result<Planned, PluginError> {
        let place = &self.place;
        let plan = self.target.plugin.plan_job(&place.session().for_job(id), &ready.job).await?;
        let refusals = place.context.policy.refusals(&self.target.plugin.loaded().identity, &plan);
        Ok(Planned { id: id.to_owned(), model: work.card.name.clone(), plan, refusals })
    }

    async fn one(&self, number: usize, work: Work) -> Outcome {
        let place = &self.place;
        let JobName { id, model, image } = name_of(number, &work);
        let mut facts = self.facts(&work);
        if let Some(reason) = self.left_out(&work.card) {
            place.events.say(Gravity::Info, "", &reason);
            let judged = Judged::skipped(&id, &facts, reason);
            return self.finish(id, work, image, judged, false).await;
        }
        let prepared = match self.cancelled(&id) {
            Some(reason) => Err(SetupError::Other(reason)),
            None => self.prepare(&id, &work, &mut facts).await,
        };
        let ready = match (prepared, self.cancelled(&id)) {
            (Ok(ready), None) => ready,
            (Ok(_), Some(reason)) => {
                let judged = Judged::setup_failure(&id, &facts, &job::text(&work.card.model, "n_gpus"), reason);
                return self.finish(id, work, image, judged, false).await;
            }
            (Err(_), None) if place.stop.is_cancelled() && place.manner.leaves => return Outcome::Unlaunched,
            (Err(error), _) => {
                let refused = matches!(&error, SetupError::Plugin(error) if error.is_denied());
                let hint = error.hint();
                let judged =
                    Judged::setup_failure(&id, &facts, &job::text(&work.card.model, "n_gpus"), error.to_string())
                        .hint(hint);
                if self.options.dry_run && matches!(error, SetupError::Config(_)) {
                    let model = work.card.name.clone();
                    let report = JobReport { id, model, image, judged, refused, unplannable: true, reported: true };
                    return Outcome::Report(Box::new(report));
                }
                return self.finish(id, work, image, judged, refused).await;
            }
        };
        if self.options.dry_run {
            return match self.planned(&id, &work, &ready).await {
                Ok(planned) => Outcome::Plan(planned),
                Err(error) => {
                    let refused = error.is_denied();
                    let judged = Judged::setup_failure(&id, &facts, "", error.to_string()).hint(error.hint());
                    Outcome::Report(Box::new(JobReport {
                        id,
                        model,
                        image,
                        judged,
                        refused,
                        unplannable: true,
                        reported: true,
                    }))
                }
            };
        }
        let outcome = self.execute(&work, &ready, facts).await;
        drop(ready.lease);
        match outcome {
            finish::Execution::Judged(judged, refused) => self.finish(id, work, image, *judged, refused).await,
            finish::Execution::Left => Outcome::Left(JobName { id, model, image }),
            finish::Execution::Unlaunched => Outcome::Unlaunched,
        }
    }
}

fn name_of(number: usize, work: &Work) -> JobName {
    JobName {
        id: crate::results::run_directory::job_id(number, &work.card.name),
        model: work.card.name.clone(),
        image: work.image.as_ref().map(|image| image.reference().to_owned()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_says_a_value_at_a_key_or_does_not() {
        let config = json!({"toy": {"container": false, "word": "x"}});
        assert!(says(&config, "toy.container", "false"));
        assert!(says(&config, "toy.word", "\"x\""));
        for (key, value) in
            [("toy.container", "true"), ("toy.none", "false"), ("container", "false"), ("toy.word", "x")]
        {
            assert!(!says(&config, key, value), "{key} {value}");
        }
    }
}
