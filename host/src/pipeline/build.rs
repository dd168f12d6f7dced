//! The build phase: which images the selected models need, made one after the other, pushed where asked, and recorded.

use std::path::PathBuf;
use std::time::Instant;

use maddock_bindings::api::types::Entry;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::card::Card;
use super::discover::write_card;
use super::event::{Event, Stream};
use super::execute;
use crate::capability::events::PluginEvent;
use crate::capability::policy::step::Refusal;
use crate::plugin::build::{BuildPlan, BuildRequest, Built, ImagePlan};
use crate::plugin::manifest::Kind;
use crate::plugin::{Plugin, PluginError, Plugins, RunContext, Session};
use crate::results::redact::Redactor;

/// Events that may wait for the log's writer before a builder has to.
const WAITING_EVENTS: usize = 256;

/// What the command line says about the build phase.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Accelerator architectures; empty: one image for each definition.
    pub architectures: Vec<String>,
    /// Where to push.
    pub registry: Option<String>,
    /// Without the engine's cache.
    pub no_cache: bool,
    /// Where the build logs go.
    pub log_directory: PathBuf,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The manifest's key.
    pub key: String,
    /// The model it is for.
    pub model: String,
    /// The manifest's entry.
    pub entry: Value,
}

/// An image that was not built.
#[derive(Debug, Clone)]
pub struct FailedBuild {
    /// The model.
    pub model: String,
    /// The architecture, where one was asked for.
    pub architecture: Option<String>,
    /// Why not.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An image that a registry took.
#[derive(Debug, Clone)]
pub struct PushedImage {
    /// The manifest's key.
    pub key: String,
    /// Its name there.
    pub reference: String,
    /// Its digest there.
    pub digest: String,
}

/// What came of the build phase.
#[derive(Debug, Default)]
pub struct BuildReport {
    /// In the order of the models.
    pub built: Vec<BuiltImage>,
    /// The others.
    pub failed: Vec<FailedBuild>,
    /// What a registry took.
    pub pushed: Vec<PushedImage>,
    /// Keys of what it did not take, and why.
    pub unpushed: Vec<(String, String)>,
    /// Seconds.
    pub seconds: f64,
    /// Policy refused something.
    pub refused: bool,
}

/// A build phase: the builder and what it is asked.
#[derive(Debug)]
pub struct Build<'a> {
    builder: Plugin,
    request: BuildRequest,
    context: &'a RunContext,
    session: Session,
    events: &'a Stream,
}

impl<'a> Build<'a> {
    /// A build phase for selected models, by the first builder plugin; none where there is no builder.
    ///
    /// # Errors
    /// The builder cannot be loaded.
    pub fn new(
        plugins: &Plugins,
        session: &Session,
        events: &'a Stream,
        context: &'a RunContext,
        cards: &[Card],
        config: &Value,
        options: &BuildOptions,
    ) -> Result<Option<Self>, PluginError> {
        let Some(entry) = plugins.catalog().of_kind(Kind::Builder).next() else { return Ok(None) };
        let builder = plugins.load(entry)?;
        let mut extra = Vec::new();
        // A repository is a name, not a secret, although it stands beside them.
        for key in context.secrets.members("credential") {
            if let Some(repository) = context.secrets.reveal(&format!("credential/{key}/repository")) {
                extra.push(Entry { name: format!("repository:{key}"), value: repository.to_owned() });
            }
        }
        let request = BuildRequest {
            run_id: context.run_id.clone(),
            tree: context.roots.tree.display().to_string(),
            cards: cards.iter().map(write_card).collect(),
            context: config.to_string(),
            architectures: options.architectures.clone(),
            no_cache: options.no_cache,
            registry: options.registry.clone(),
            log_directory: options.log_directory.display().to_string(),
            extra,
        };
        // A build takes as long as it takes: Ctrl-C ends it.
        let session = session.clone().within(None);
        Ok(Some(Self { builder, request, context, session, events }))
    }

    /// Which images will be made and how.
    ///
    /// # Errors
    /// The builder failed.
    pub async fn plan(&self) -> Result<BuildPlan, PluginError> {
        self.builder.plan_images(&self.session, &self.request).await
    }

    /// What policy would refuse of an image's plan.
    #[must_use]
    pub fn refusals(&self, plan: &maddock_bindings::api::types::WorkPlan) -> Vec<Refusal> {
        self.context.policy.refusals(&self.builder.loaded().identity, plan)
    }

    /// Makes every image of a plan, and pushes each that was made where a registry was named.
    pub async fn run(&self, plan: BuildPlan) -> BuildReport {
        let began = Instant::now();
        let mut report = BuildReport::default();
        for problem in plan.problems {
            let refused = matches!(problem.error.kind, maddock_bindings::api::types::ErrorKind::Denied);
            report.refused |= refused;
            report.failed.push(FailedBuild {
                model: problem.model,
                architecture: problem.architecture,
                error: problem.error.message,
                hint: problem.error.hint,
            });
        }
        for image in &plan.images {
            match self.one(image).await {
                Ok(built) => self.keep(&mut report, image, built).await,
                Err(error) => {
                    report.refused |= error.is_denied();
                    report.failed.push(FailedBuild {
                        model: image.model.clone(),
                        architecture: image.architecture.clone(),
                        error: error.to_string(),
                        hint: error.hint(),
                    });
                }
            }
        }
        report.seconds = began.elapsed().as_secs_f64();
        report
    }

    async fn one(&self, image: &ImagePlan) -> Result<Built, PluginError> {
        let log = PathBuf::from(&self.request.log_directory).join(&image.log_file);
        self.events.emit(&Event::BuildStarted {
            image: image.key.clone(),
            model: image.model.clone(),
            log: log.clone(),
        });
        let began = Instant::now();
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let writer = self.write_log(log.clone(), image.key.clone(), receiver);
        let session = self.session.clone().telling(sender);
        let build = async {
            let built = self.builder.build_image(&session, &self.request, image).await;
            drop(session);
            built
        };
        let (built, written) = tokio::join!(build, writer);
        if let Err(error) = written {
            let text = format!("the log `{}` could not be written: {error}", log.display());
            self.events.say(super::event::Gravity::Error, &image.key, text);
        }
        let error = built.as_ref().err().map(ToString::to_string);
        self.events.emit(&Event::BuildEnded {
            image: image.key.clone(),
            model: image.model.clone(),
            seconds: began.elapsed().as_secs_f64(),
            error,
        });
        built
    }

    async fn write_log(
        &self,
        log: PathBuf,
        key: String,
        mut receiver: mpsc::Receiver<PluginEvent>,
    ) -> std::io::Result<()> {
        let mut file = tokio::fs::File::create(&log).await;
        let secrets = self.context.secrets.values();
        let mut redactor = Redactor::new(secrets).stream();
        let mut trouble = None;
        while let Some(event) = receiver.recv().await {
            match event {
                PluginEvent::Output { bytes, .. } => {
                    let bytes = redactor.push(&bytes);
                    if let Ok(file) = &mut file
                        && let Err(error) = file.write_all(&bytes).await
                    {
                        trouble.get_or_insert(error);
                    }
                    self.events.emit(&Event::Output { of: key.clone(), bytes });
                }
                PluginEvent::Log { level, message, .. } => self.events.say(execute::gravity(level), &key, message),
                PluginEvent::Progress { activity, done, total, .. } => {
                    self.events.emit(&Event::Progress { of: key.clone(), activity, done, total });
                }
                PluginEvent::State { .. } => {}
            }
        }
        let mut file = file?;
        file.write_all(&redactor.finish()).await?;
        file.flush().await?;
        trouble.map_or(Ok(()), Err)
    }

    async fn keep(&self, report: &mut BuildReport, image: &ImagePlan, built: Built) {
        let mut entry: Value = serde_json::from_str(&built.manifest_entry).unwrap_or_else(|_| json!({}));
        if self.request.registry.is_some() {
            match self.builder.push_image(&self.session, &self.request, image, &built).await {
                Ok(pushed) => {
                    set(&mut entry, "registry_image", json!(pushed.registry_reference));
                    let reference = pushed.registry_reference;
                    report.pushed.push(PushedImage { key: image.key.clone(), reference, digest: pushed.digest });
                }
                Err(error) => {
                    report.refused |= error.is_denied();
                    report.unpushed.push((image.key.clone(), error.to_string()));
                }
            }
        }
        report.built.push(BuiltImage { key: image.key.clone(), model: image.model.clone(), entry });
    }
}

fn set(entry: &mut Value, name: &str, value: Value) {
    if let Some(object) = entry.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}
