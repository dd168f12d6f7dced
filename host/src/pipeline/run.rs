//! The run phase: every selected model becomes a job on the chosen target, and every job ends with a verdict and rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::card::Card;
use super::devices::{Lease, Pool};
use super::event::{Event, Gravity, Stream};
use super::execute::{self, Executed, Order};
use super::image::Image;
use super::job::{self, Additions, Ingredients};
use super::record::{self, Judged};
use super::stage::{self, StageError};
use crate::capability::events::PluginEvent;
use crate::capability::process::supervise::OUTPUT_FILE;
use crate::config::{ConfigError, gpus, tools, words};
use crate::plugin::accelerators::Inventory;
use crate::plugin::jobs::{Hook, Job, JobOptions, TargetInfo};
use crate::plugin::manifest::Kind;
use crate::plugin::{Environment, Plugin, PluginError, Plugins, RunContext, Session};
use crate::results::row::{JobFacts, Row};
use crate::results::run_directory::RunDirectory;
use crate::results::verdict::Verdict;

/// Seconds for a model where neither it nor the user says anything.
pub const DEFAULT_TIME_LIMIT: u64 = 7200;

/// How long a model may take, as the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// What the model says, else [`DEFAULT_TIME_LIMIT`].
    Default,
    /// Seconds, whatever the model says.
    Seconds(u64),
    /// For ever.
    Unlimited,
}

/// What the command line says about the run phase.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
    /// Who hears what happens.
    pub events: Stream,
    /// Fires when the user wants to stop.
    pub stop: CancellationToken,
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
    /// None of the images is for this machine.
    #[error("none of the {count} images is for this machine: {reason}")]
    NothingFits {
        /// How many there were.
        count: usize,
        /// What the first one is for, and what this machine is.
        reason: String,
    },
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct RunReport {
    /// In the order of the models.
    pub jobs: Vec<JobReport>,
    /// The user stopped it.
    pub interrupted: bool,
    /// Plans of a dry run, in the order of the models: model and plan.
    pub plans: Vec<(String, maddock_bindings::api::types::WorkPlan)>,
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
    let shared =
        Arc::new(Shared { place: place.clone(), target: target.clone(), options: options.clone(), inventory, pool });

    place.events.emit(&Event::RunStarted {
        run: place.directory.id().as_str().to_owned(),
        directory: place.directory.path().to_owned(),
        jobs: works.len(),
    });
    let mut running = JoinSet::new();
    let mut reports: BTreeMap<usize, JobReport> = BTreeMap::new();
    let mut plans: BTreeMap<usize, (String, maddock_bindings::api::types::WorkPlan)> = BTreeMap::new();
    for (number, work) in works.into_iter().enumerate() {
        // One job after the other enters, in the order of the models; the rest wait here, not in memory.
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit.ok(),
            () = place.stop.cancelled() => None,
        };
        if permit.is_none() {
            break;
        }
        while let Some(done) = running.try_join_next() {
            keep(done, &mut reports, &mut plans, &place.events);
        }
        let shared = shared.clone();
        running.spawn(async move {
            let outcome = shared.one(number, work).await;
            drop(permit);
            (number, outcome)
        });
    }
    while let Some(done) = running.join_next().await {
        keep(done, &mut reports, &mut plans, &place.events);
    }

    let report = RunReport {
        jobs: reports.into_values().collect(),
        interrupted: place.stop.is_cancelled(),
        plans: plans.into_values().collect(),
    };
    sweep(place, options, &report).await;
    let failed = report.jobs.iter().filter(|job| matches!(job.judged.verdict, Verdict::Failure(_))).count();
    place.events.emit(&Event::RunEnded {
        run: place.directory.id().as_str().to_owned(),
        succeeded: report.jobs.len() - failed,
        failed,
    });
    Ok(report)
}

/// What one job answers: a verdict, or the plan of a dry run.
enum Outcome {
    Report(Box<JobReport>),
    Plan(String, maddock_bindings::api::types::WorkPlan),
}

fn keep(
    done: Result<(usize, Outcome), tokio::task::JoinError>,
    reports: &mut BTreeMap<usize, JobReport>,
    plans: &mut BTreeMap<usize, (String, maddock_bindings::api::types::WorkPlan)>,
    events: &Stream,
) {
    match done {
        Ok((number, Outcome::Report(report))) => {
            reports.insert(number, *report);
        }
        Ok((number, Outcome::Plan(model, plan))) => {
            plans.insert(number, (model, plan));
        }
        Err(error) => events.say(Gravity::Error, "", format!("a job's task ended: {error}; please report this")),
    }
}

/// Removes what is left over: what a launch that was cut off has made is found by its owner. Jobs that came to their end
/// are kept where the user asked for it.
async fn sweep(place: &Place, options: &RunOptions, report: &RunReport) {
    let ended =
        |job: &&JobReport| options.keep_alive && !report.interrupted && !matches!(job.judged.execution, Value::Null);
    let keep: Vec<String> = report.jobs.iter().filter(ended).map(|job| job.id.clone()).collect();
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
}

/// A job that cannot be set up.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Other(String),
}

impl SetupError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Plugin(error) => error.hint(),
            Self::Config(error) => error.hint.clone(),
            Self::Stage(StageError::NoScript { .. }) => {
                Some("`--model-dir` or MODEL_DIR names the model tree".to_owned())
            }
            Self::Stage(_) | Self::Io(_) | Self::Other(_) => None,
        }
    }
}

/// A job that is ready for its target, and the devices that it has.
struct Ready {
    job: Job,
    lease: Option<Lease>,
}

impl Shared {
    async fn one(&self, number: usize, work: Work) -> Outcome {
        let place = &self.place;
        let id = crate::results::run_directory::job_id(number, &work.card.name);
        let image = work.image.as_ref().map(|image| image.reference().to_owned()).unwrap_or_default();
        let mut facts = self.facts(&work);
        if let Some(reason) = self.left_out(&work.card) {
            place.events.say(Gravity::Info, "", &reason);
            let judged = Judged::skipped(&id, &facts, reason);
            return self.finish(id, work, image, judged, false).await;
        }
        let ready = match self.prepare(&id, &work, &mut facts).await {
            Ok(ready) => ready,
            Err(error) => {
                let refused = matches!(&error, SetupError::Plugin(error) if error.is_denied());
                let hint = error.hint();
                let judged =
                    Judged::setup_failure(&id, &facts, &job::text(&work.card.model, "n_gpus"), error.to_string())
                        .hint(hint);
                return self.finish(id, work, image, judged, refused).await;
            }
        };
        if self.options.dry_run {
            return match self.target.plugin.plan_job(&place.session().for_job(&id), &ready.job).await {
                Ok(plan) => Outcome::Plan(work.card.name.clone(), plan),
                Err(error) => {
                    let refused = error.is_denied();
                    let judged = Judged::setup_failure(&id, &facts, "", error.to_string()).hint(error.hint());
                    Outcome::Report(Box::new(JobReport {
                        id,
                        model: work.card.name.clone(),
                        image,
                        judged,
                        refused,
                        unplannable: true,
                    }))
                }
            };
        }
        let (judged, refused) = self.execute(&id, &work, &ready, facts).await;
        drop(ready.lease);
        self.finish(id, work, image, judged, refused).await
    }

    /// Why a model is not run at all, where it is not.
    fn left_out(&self, card: &Card) -> Option<String> {
        let deprecated =
            ["deprecated", "is_deprecated"].iter().any(|name| card.model.get(*name) == Some(&Value::Bool(true)));
        if deprecated && !self.options.deprecated_too {
            return Some(format!("{} is deprecated; `--ignore-deprecated` runs it all the same", card.name));
        }
        let architecture = job::variable(self.inventory.as_ref(), "MAD_SYSTEM_GPU_ARCHITECTURE")?;
        let listed = record::list(card.model.get("skip_gpu_arch")?);
        let short =
            architecture.rsplit(' ').next().unwrap_or(architecture).split(['-', ' ']).next().unwrap_or(architecture);
        let unsupported = listed.iter().any(|name| name == architecture || name == short);
        (unsupported && !self.options.any_architecture)
            .then(|| format!("Skipping model {} as it is not supported on {architecture} architecture.", card.name))
    }

    fn facts(&self, work: &Work) -> JobFacts {
        let card = &work.card.model;
        let image = work.image.clone().unwrap_or_default();
        let environment = self.place.environment();
        let variable = |name: &str| environment.get(name).unwrap_or_default().to_owned();
        JobFacts {
            model: work.card.name.clone(),
            nnodes: "1".to_owned(),
            training_precision: job::text(card, "training_precision"),
            pipeline: variable("pipeline"),
            args: job::text(card, "args"),
            tags: work.card.tags.clone(),
            docker_file: image.dockerfile.clone(),
            base_docker: image.base_docker.clone(),
            docker_sha: image.docker_sha.clone(),
            docker_image: work.image.as_ref().map(|image| image.reference().to_owned()).unwrap_or_default(),
            machine_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            deployment_type: environment
                .get("MAD_DEPLOYMENT_TYPE")
                .map_or_else(|| self.target.info.deployment_type.clone(), str::to_owned),
            gpu_architecture: job::variable(self.inventory.as_ref(), "MAD_SYSTEM_GPU_ARCHITECTURE")
                .unwrap_or_default()
                .to_owned(),
            build_duration: image.build_duration,
            build_number: environment.get("BUILD_NUMBER").unwrap_or("0").to_owned(),
            additional_docker_run_options: job::text(card, "additional_docker_run_options"),
            ..JobFacts::default()
        }
    }

    async fn prepare(&self, id: &str, work: &Work, facts: &mut JobFacts) -> Result<Ready, SetupError> {
        let place = &self.place;
        let card = &work.card;
        let lease = if self.target.has("multi-node") { None } else { self.devices(card).await? };
        let indices = lease.as_ref().map(Lease::indices).unwrap_or_default();
        let devices = u32::try_from(indices.len()).unwrap_or(u32::MAX);
        let (nodes, devices) = if self.target.has("multi-node") { self.asked_for(card)? } else { (1, devices) };
        facts.nnodes = nodes.to_string();
        facts.gpus_per_node = devices.to_string();
        facts.n_gpus = nodes.saturating_mul(devices).to_string();

        let session = place.session().for_job(id);
        let attachment = match &self.inventory {
            Some(inventory) if !indices.is_empty() => Some(self.attach(&session, inventory, indices).await?),
            _ => None,
        };
        let asked = job::launcher(card, &place.config, place.environment());
        let (topology, arrangement) = self.arrange(&session, card, asked.as_deref(), id, (nodes, devices)).await?;
        facts.launcher =
            if asked.is_some() { arrangement.name.clone() } else { self.target.info.default_launcher.clone() };

        if !job::text(&card.model, "data").is_empty() && place.context.roots.tree.join("data.json").is_file() {
            let text =
                format!("`{}` asks for data, and data providers are not in this version: it runs without", card.name);
            place.events.say(Gravity::Warning, "", text);
        }
        let script = stage::find_script(&place.context.roots.tree, &card.name, &job::text(&card.model, "scripts"))?;
        let additions = self.additions(card)?;
        let arguments = self.arguments(card)?;
        let directory = self.job_directory(id)?;
        let workspace = job::workspace(&directory);
        let hooks: Vec<String> =
            additions.before.iter().chain(&additions.after).map(|hook| hook.file.clone()).collect();
        if !self.options.dry_run {
            let (tree, name, work_directory) =
                (place.context.roots.tree.clone(), card.name.clone(), job::work_directory(card));
            let (staged, destination) = (script.clone(), workspace.clone());
            tokio::task::spawn_blocking(move || {
                stage::workspace(&tree, &name, &staged, &destination, &work_directory, &hooks)
            })
            .await
            .map_err(|error| SetupError::Other(format!("staging ended: {error}")))??;
        }
        let secret_names = self.secret_names(card);
        let mut options = JobOptions::empty();
        if self.options.keep_alive {
            options |= JobOptions::KEEP_ALIVE;
        }
        if self.options.skip_model {
            options |= JobOptions::SKIP_MODEL;
        }
        let job = job::assemble(Ingredients {
            run_id: place.directory.id().as_str(),
            id,
            card,
            image: work.image.as_ref(),
            config: &place.config,
            environment: place.environment(),
            secret_names: &secret_names,
            inventory: self.inventory.as_ref(),
            attachment,
            arrangement: &arrangement,
            topology: &topology,
            script: &script,
            arguments,
            additions,
            tree: &place.context.roots.tree,
            directory: &directory,
            time_limit: self.time_limit(card)?,
            profile: &self.options.profile,
            options,
        });
        Ok(Ready { job, lease })
    }

    /// Nodes and accelerators on each, for a target that gets both from elsewhere: as the configuration and the card say.
    fn asked_for(&self, card: &Card) -> Result<(u32, u32), SetupError> {
        let provides = &self.target.plugin.loaded().manifest.provides;
        let sections: Vec<&str> = provides.iter().map(String::as_str).collect();
        let config = &self.place.config;
        let wanted = gpus::resolve(config, &sections, &card.model);
        for warning in &wanted.warnings {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        let nodes = job::nodes(config, &sections).map_err(SetupError::Other)?;
        Ok((nodes, wanted.count.on_cluster()?))
    }

    /// Waits for the devices that a model wants. On a machine without any, a model runs without, unless the configuration
    /// asks for devices by number.
    async fn devices(&self, card: &Card) -> Result<Option<Lease>, SetupError> {
        let wanted = gpus::resolve(&self.place.config, &[], &card.model);
        for warning in &wanted.warnings {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        let asked_by_card = wanted.source == "default" || wanted.source.starts_with("model.");
        let by_number =
            self.place.config.get("docker_gpus").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if self.inventory.is_none() && asked_by_card && !by_number {
            return Ok(None);
        }
        let count = match wanted.count {
            gpus::Count::All => self.pool.size(),
            gpus::Count::Exactly(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        tokio::select! {
            lease = self.pool.take(count) => match lease {
                Some(lease) => Ok(Some(lease)),
                None => Err(SetupError::Other(format!(
                    "Too many gpus requested({count}): this run may use {}", self.pool.size()
                ))),
            },
            () = self.place.stop.cancelled() => Err(SetupError::Other("interrupted".to_owned())),
        }
    }

    /// The job's own directory; of a dry run only its name.
    fn job_directory(&self, id: &str) -> std::io::Result<PathBuf> {
        let directory = &self.place.directory;
        if self.options.dry_run { directory.job_path(id) } else { directory.create_job(id) }
    }

    async fn attach(
        &self,
        session: &Session,
        inventory: &Inventory,
        indices: &[u32],
    ) -> Result<maddock_bindings::api::types::Attachment, SetupError> {
        let plugin = self
            .place
            .plugins
            .providing(Kind::Gpu, &inventory.vendor)?
            .ok_or_else(|| SetupError::Other(format!("no plugin knows the vendor `{}`", inventory.vendor)))?;
        Ok(plugin.attach(session, inventory, indices).await?)
    }

    async fn arrange(
        &self,
        session: &Session,
        card: &Card,
        asked: Option<&str>,
        id: &str,
        (nodes, devices): (u32, u32),
    ) -> Result<(crate::plugin::launch::Topology, crate::plugin::launch::Arrangement), SetupError> {
        let name = asked.unwrap_or("none");
        let plugins = &self.place.plugins;
        let plugin = match plugins.providing(Kind::Launcher, name)? {
            Some(plugin) => plugin,
            // A name that nobody knows goes to the plugin that has `none`, which says what it does about it.
            None => plugins
                .providing(Kind::Launcher, "none")?
                .ok_or_else(|| SetupError::Other(format!("no plugin provides the launcher `{name}`")))?,
        };
        let topology = job::topology(card, &self.place.config, name, id, nodes, devices);
        let arrangement = plugin.arrange(session, &topology).await?;
        for warning in &arrangement.warnings {
            self.place.events.say(Gravity::Warning, id, warning);
        }
        Ok((topology, arrangement))
    }

    fn additions(&self, card: &Card) -> Result<Additions, SetupError> {
        let chain = tools::surround(&self.options.tools, tools::Wishes::of(&self.place.config))?;
        for warning in &chain.warnings {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        let hooks = |hooks: Vec<tools::Hook>| {
            hooks.into_iter().map(|hook| Hook { file: hook.path, arguments: hook.arguments }).collect()
        };
        Ok(Additions {
            before: hooks(chain.before),
            after: hooks(chain.after),
            encapsulate: chain.encapsulate,
            env: chain.env,
        })
    }

    fn arguments(&self, card: &Card) -> Result<Vec<String>, SetupError> {
        let given = job::text(&self.place.config, "model_args");
        let text = if given.is_empty() { job::text(&card.model, "args") } else { given };
        let split = words::split(&text, &format!("the arguments of model `{}`", card.name))?;
        if let Some(warning) = split.warning {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        Ok(split.words)
    }

    fn time_limit(&self, card: &Card) -> Result<Option<u64>, SetupError> {
        match self.options.time_limit {
            TimeLimit::Seconds(seconds) => Ok(Some(seconds)),
            TimeLimit::Unlimited => Ok(None),
            TimeLimit::Default => match card.model.get("timeout") {
                None | Some(Value::Null) => Ok(Some(DEFAULT_TIME_LIMIT)),
                Some(value) => {
                    let seconds = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
                    match seconds {
                        Some(seconds) if seconds > 0.0 && seconds.is_finite() => {
                            Ok(Some(Duration::from_secs_f64(seconds.min(1e9)).as_secs().max(1)))
                        }
                        Some(_) => Ok(Some(DEFAULT_TIME_LIMIT)),
                        None => Err(SetupError::Other(format!(
                            "`timeout` of {} is {value}, not a number of seconds",
                            card.name
                        ))),
                    }
                }
            },
        }
    }

    /// Secrets that a job gets as variables: the site's `MAD_SECRETS…`, and the credential that the card names.
    fn secret_names(&self, card: &Card) -> Vec<String> {
        let secrets = &self.place.context.secrets;
        let mut names: Vec<String> = secrets.members("env").into_iter().map(|name| format!("env/{name}")).collect();
        let credential = job::text(&card.model, "cred");
        if !credential.is_empty() {
            names.extend(
                secrets
                    .members(&format!("credential/{credential}"))
                    .into_iter()
                    .map(|m| format!("credential/{credential}/{m}")),
            );
        }
        names
    }

    async fn execute(&self, id: &str, work: &Work, ready: &Ready, facts: JobFacts) -> (Judged, bool) {
        let place = &self.place;
        let directory = PathBuf::from(&ready.job.paths.directory);
        let log = directory.join("run.log");
        place.events.emit(&Event::JobStarted { job: id.to_owned(), model: work.card.name.clone(), log: log.clone() });
        let order = Order {
            target: &self.target.plugin,
            features: &self.target.info.features,
            job: &ready.job,
            log: &log,
            events: &place.events,
            stop: place.stop.clone(),
            secrets: place.context.secrets.values().into_iter().map(str::to_owned).collect(),
        };
        let executed = execute::execute(&place.session(), order).await.unwrap_or_else(|error| Executed {
            ending: None,
            collection: None,
            error: None,
            interrupted: false,
            problems: vec![format!("its log `{}` cannot be opened: {error}", log.display())],
        });
        for problem in &executed.problems {
            place.events.say(Gravity::Error, id, problem);
        }
        let refused = executed.error.as_ref().is_some_and(PluginError::is_denied);
        let evidence = record::Gathering {
            id,
            card: &work.card,
            config: &place.config,
            tree: &place.context.roots.tree,
            log: &log,
            facts,
            nodes: ready.job.topology.nodes,
            skip_model: self.options.skip_model,
            worker: place
                .environment()
                .get("MAD_COLLECT_METRICS")
                .is_some_and(|value| value.eq_ignore_ascii_case("false")),
        };
        let judged = record::judge(evidence, &executed).await;
        if let Err(error) = record::close_log(&log, &work.card.name, &judged) {
            place.events.say(Gravity::Warning, id, format!("cannot end its log: {error}"));
        }
        // The log has it all, without the secrets that this file may hold.
        let _ = tokio::fs::remove_file(directory.join(OUTPUT_FILE)).await;
        if !self.options.keep_work && !self.options.keep_alive {
            let workspace = job::workspace(&directory);
            let _ = tokio::fs::remove_dir_all(&workspace).await;
        }
        (judged, refused)
    }

    /// Writes a job's rows, its views, and its part of the run's directory; says what to do where it failed.
    async fn finish(&self, id: String, work: Work, image: String, judged: Judged, refused: bool) -> Outcome {
        let place = &self.place;
        if !self.options.dry_run {
            if !judged.rows.is_empty() && place.config.get("skip_perf_collection") != Some(&Value::Bool(true)) {
                self.report(&judged.rows).await;
            }
            self.views(&id, &work, &judged);
        }
        place.events.emit(&Event::JobEnded {
            job: id.clone(),
            model: work.card.name.clone(),
            status: judged.verdict.status(),
            reason: judged.reason.clone(),
            seconds: judged.duration,
        });
        if let Some(hint) = &judged.hint {
            place.events.say(Gravity::Info, &id, format!("hint: {hint}"));
        }
        Outcome::Report(Box::new(JobReport { id, model: work.card.name, image, judged, refused, unplannable: false }))
    }

    /// Every reporter that answers to `run` gets the rows.
    async fn report(&self, rows: &[Row]) {
        let place = &self.place;
        let entry = |name: &str, value: String| maddock_bindings::api::types::Entry { name: name.to_owned(), value };
        let request = crate::plugin::report::ReportRequest {
            format: "run".to_owned(),
            rows: rows.iter().cloned().map(Into::into).collect(),
            inputs: Vec::new(),
            output: self.options.output.display().to_string(),
            options: vec![
                entry("directory", place.context.roots.output.display().to_string()),
                entry("cleanup", self.options.cleanup.to_string()),
            ],
        };
        let plugins = place
            .plugins
            .catalog()
            .of_kind(Kind::Reporter)
            .filter(|entry| entry.manifest.provides.iter().any(|name| name == "run"));
        for entry in plugins {
            let written = match place.plugins.load(entry) {
                Ok(plugin) => plugin.report(&place.session(), &request).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                let rows = place.directory.path().join("run.json");
                place.events.say(Gravity::Error, "", format!("{error}; the rows are in `{}`", rows.display()));
            }
        }
    }

    fn views(&self, id: &str, work: &Work, judged: &Judged) {
        let place = &self.place;
        let directory = place.directory.path().join("jobs").join(id);
        let log = directory.join("run.log");
        let output = &place.context.roots.output;
        if log.is_file() {
            // Where there is no image, the target's name stands for it.
            let provided = self.target.plugin.loaded().manifest.provides.first().map_or("run", String::as_str);
            let image = work.image.as_ref().map_or(provided, Image::reference);
            let name = crate::results::run_directory::run_log_name(&work.card.name, image);
            if let Err(error) = crate::results::run_directory::publish(&log, output, &name) {
                place.events.say(Gravity::Warning, id, format!("cannot write `{name}`: {error}"));
            }
            if let Some(image) = &work.image {
                self.combined(id, image, &log, &name);
            }
        }
        // Files of one name come from every node; those of the first stand for the job, the others are in its directory.
        for file in judged.files.iter().filter(|file| file.node == 0) {
            if let Some(name) = Path::new(&file.name).file_name().and_then(|name| name.to_str())
                && let Err(error) = crate::results::run_directory::publish(Path::new(&file.path), output, name)
            {
                place.events.say(Gravity::Warning, id, format!("cannot write `{}`: {error}", file.name));
            }
        }
        let summary = json!({
            "job": id,
            "model": work.card.name,
            "image": work.image.as_ref().map(Image::reference),
            // What was run, where that is known: a tag may have moved since the build.
            "image_digest": judged.image_digest.clone().or_else(|| work.image.as_ref()?.image_digest.clone()),
            "execution": judged.execution,
            "evidence": judged.evidence,
            "verdict": judged.verdict.status(),
            "reason": judged.reason,
            "hint": judged.hint,
            "seconds": judged.duration,
            "rows": judged.rows.iter().map(record::row_json).collect::<Vec<_>>(),
        });
        let written = ensure(&directory).and_then(|()| {
            crate::results::run_directory::replace_file(
                &directory.join("job.json"),
                format!("{summary:#}\n").as_bytes(),
            )
        });
        if let Err(error) = written {
            place.events.say(Gravity::Error, id, format!("cannot write `job.json`: {error}"));
        }
    }

    /// Build log and run log in one file, where the build was part of this invocation's tree.
    fn combined(&self, id: &str, image: &Image, log: &Path, name: &str) {
        let output = &self.place.context.roots.output;
        let build = output.join(&image.log_file);
        let base = name.strip_suffix(".run.live.log").unwrap_or(name);
        if image.log_file.is_empty() || image.log_file != format!("{base}.build.live.log") || !build.is_file() {
            return;
        }
        let rule = "=".repeat(80);
        let heading = format!("\n{rule}\nRUN PHASE LOG\n{rule}\n\n");
        let joined = record::join_logs(&build, &heading, log, &output.join(format!("{base}.live.log")));
        if let Err(error) = joined {
            self.place.events.say(Gravity::Warning, id, format!("cannot write `{base}.live.log`: {error}"));
        }
    }
}

/// A job that failed in its setup has no directory yet.
fn ensure(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)
}
