//! Setting one job up: devices, launcher, scripts, arguments and surroundings, before its target hears of it.

use std::path::PathBuf;
use std::time::Duration;

use maddock_bindings::api::types::Entry;
use serde_json::Value;

use super::{DEFAULT_TIME_LIMIT, Place, Shared, TimeLimit, Work};
use crate::config::{ConfigError, gpus, tools, words};
use crate::pipeline::card::Card;
use crate::pipeline::devices::Lease;
use crate::pipeline::event::Gravity;
use crate::pipeline::job::{self, Additions, Ingredients};
use crate::pipeline::record::{self};
use crate::pipeline::share;
use crate::pipeline::stage::{self, StageError};
use crate::plugin::accelerators::Inventory;
use crate::plugin::jobs::{Hook, Job, JobOptions};
use crate::plugin::manifest::Kind;
use crate::plugin::{PluginError, Session};
use crate::results::row::JobFacts;

/// A job that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
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
    pub(super) fn hint(&self) -> Option<String> {
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
pub(super) struct Ready {
    pub(super) job: Job,
    pub(super) lease: Option<Lease>,
    /// Names of the secrets that it is given.
    pub(super) secrets: Vec<String>,
}

impl Shared {
    /// Why a model is not run at all, where it is not.
    pub(super) fn left_out(&self, card: &Card) -> Option<String> {
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

    pub(super) fn facts(&self, work: &Work) -> JobFacts {
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

    pub(super) async fn prepare(&self, id: &str, work: &Work, facts: &mut JobFacts) -> Result<Ready, SetupError> {
        let place = &self.place;
        let card = &work.card;
        let lease = if self.target.has("multi-node") { None } else { self.devices(id, card).await? };
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
        let asked = job::launcher(card, &place.said, &place.presets, place.environment());
        let script = stage::find_script(&place.context.roots.tree, &card.name, &job::text(&card.model, "scripts"))?;
        let elsewhere = self.target.has("multi-node");
        let wish = job::Asked { launcher: asked.as_deref().unwrap_or("none"), job: id, nodes, devices, elsewhere };
        let (topology, arrangement) = self.arrange(&session, card, &script, wish).await?;
        facts.launcher =
            if asked.is_some() { arrangement.name.clone() } else { self.target.info.default_launcher.clone() };

        if !job::text(&card.model, "data").is_empty() && place.context.roots.tree.join("data.json").is_file() {
            let text =
                format!("`{}` asks for data, and data providers are not in this version: it runs without", card.name);
            place.events.say(Gravity::Warning, "", text);
        }
        let additions = self.additions(card)?;
        let arguments = self.arguments(card)?;
        let directory = self.job_directory(id)?;
        let workspace = job::workspace(&directory);
        let hooks: Vec<String> =
            additions.before.iter().chain(&additions.after).map(|hook| hook.file.clone()).collect();
        if self.is_staged() {
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
        if place.manner.detached {
            options |= JobOptions::DETACH;
        }
        let (time_limit, limited_by) = self.time_limit(card)?;
        let mut job = job::assemble(Ingredients {
            run_id: place.directory.id().as_str(),
            id,
            card,
            image: work.image.as_ref(),
            config: &place.config,
            said: &place.said,
            presets: &place.presets,
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
            time_limit,
            profile: &self.options.profile,
            options,
            elsewhere: elsewhere || job::deploys_itself(&arrangement),
        });
        if let Some(place) = job::nul(&job) {
            return Err(SetupError::Other(format!("{place} has a NUL character, which no program can be given")));
        }
        let entry = |name: &str, value: String| Entry { name: name.to_owned(), value };
        job.extra.extend([entry("presets", place.presets.to_string()), entry("time-limit-of", limited_by.to_owned())]);
        if place.manner.leaves {
            // Ctrl-C may leave it to itself, for a while.
            job.extra.push(entry("may-be-left", "true".to_owned()));
        }
        if self.target.has("shares") && job.image.is_some() && !job::deploys_itself(&arrangement) {
            self.share(&mut job, directory)?;
        }
        Ok(Ready { job, lease, secrets: secret_names })
    }

    /// What a target needs that starts this program on each node.
    fn share(&self, job: &mut Job, directory: PathBuf) -> Result<(), SetupError> {
        let program = share::program(&directory, self.options.dry_run)?;
        let entry = |name: &str, value: String| Entry { name: name.to_owned(), value };
        let context = &self.place.context;
        let text = share::text_of(job, &context.roots.output, context.policy.given());
        job.extra.extend([
            entry("share", text),
            entry("program", program.path.display().to_string()),
            entry("program-linkage", program.linkage.word().to_owned()),
        ]);
        Ok(())
    }

    /// Nodes and accelerators on each, for a target that gets both from elsewhere: as the configuration and the card say.
    fn asked_for(&self, card: &Card) -> Result<(u32, u32), SetupError> {
        let provides = &self.target.plugin.loaded().manifest.provides;
        let sections: Vec<&str> = provides.iter().map(String::as_str).collect();
        let Place { said, presets, .. } = &self.place;
        let wanted = gpus::resolve(said, &sections, &card.model, presets);
        for warning in &wanted.warnings {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        let nodes = job::nodes(said, card, presets, &sections).map_err(SetupError::Other)?;
        let (count, whole) = wanted.on_cluster()?;
        if let Some(whole) = whole {
            self.place.events.say(Gravity::Info, &card.name, whole);
        }
        Ok((nodes, count))
    }

    /// Waits for the devices that a model wants. On a machine without any, a model runs without, unless the configuration
    /// asks for devices by number.
    async fn devices(&self, id: &str, card: &Card) -> Result<Option<Lease>, SetupError> {
        let wanted = gpus::resolve(&self.place.said, &[], &card.model, &self.place.presets);
        for warning in &wanted.warnings {
            self.place.events.say(Gravity::Warning, &card.name, warning);
        }
        let asked_by_card =
            ["default", gpus::VENDOR].contains(&wanted.source.as_str()) || wanted.source.starts_with("model.");
        let by_number =
            self.place.config.get("docker_gpus").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if self.inventory.is_none() && asked_by_card && !by_number {
            return Ok(None);
        }
        let count = match wanted.count {
            gpus::Count::All => self.pool.size(),
            gpus::Count::Exactly(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let _waiting = self.place.progress.waiting(id);
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

    /// Whether a job's files are put together: also in a dry run, where they are a part of what is handed in. A dry run's
    /// directory is gone with it.
    fn is_staged(&self) -> bool {
        !self.options.dry_run || !self.target.has("local")
    }

    /// The job's own directory; only its name where nothing is put there.
    fn job_directory(&self, id: &str) -> std::io::Result<PathBuf> {
        let directory = &self.place.directory;
        if self.is_staged() { directory.create_job(id) } else { directory.job_path(id) }
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
        script: &stage::Script,
        wish: job::Asked<'_>,
    ) -> Result<(crate::plugin::launch::Topology, crate::plugin::launch::Arrangement), SetupError> {
        let name = wish.launcher;
        let plugins = &self.place.plugins;
        let plugin = match plugins.providing(Kind::Launcher, name)? {
            Some(plugin) => plugin,
            // A name that nobody knows goes to the plugin that has `none`, which says what it does about it.
            None => plugins
                .providing(Kind::Launcher, "none")?
                .ok_or_else(|| SetupError::Other(format!("no plugin provides the launcher `{name}`")))?,
        };
        let topology = job::topology(card, &self.place.said, &self.place.presets, script, wish);
        let arrangement = plugin.arrange(session, &topology).await?;
        for warning in &arrangement.warnings {
            self.place.events.say(Gravity::Warning, wish.job, warning);
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

    /// The limit, and who says it: the command line, the card, or nobody.
    fn time_limit(&self, card: &Card) -> Result<(Option<u64>, &'static str), SetupError> {
        match self.options.time_limit {
            TimeLimit::Seconds(seconds) => Ok((Some(seconds), "option")),
            TimeLimit::Unlimited => Ok((None, "option")),
            TimeLimit::Default => match card.model.get("timeout") {
                None | Some(Value::Null) => Ok((Some(DEFAULT_TIME_LIMIT), "default")),
                Some(value) => {
                    let seconds = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
                    match seconds {
                        Some(seconds) if seconds > 0.0 && seconds.is_finite() => {
                            Ok((Some(Duration::from_secs_f64(seconds.min(1e9)).as_secs().max(1)), "card"))
                        }
                        Some(_) => Ok((Some(DEFAULT_TIME_LIMIT), "default")),
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
}
