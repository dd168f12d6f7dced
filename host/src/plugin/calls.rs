//! Calls into plugins. Each call has a store and an instance of its own: nothing leaks from one job to the next, and a
//! plugin that traps takes nothing along.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use maddock_bindings::api::types;
use maddock_bindings::{builder, discovery, gpu, launcher, reporter, target};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::context::RunContext;
use super::engine::{Engine, Loaded};
use super::error::PluginError;
use super::instance::{Ceilings, Reached, State};
use crate::capability::events::{PluginEvent, printable};
use crate::capability::tape::body::{self, BodyError, Writer};
use crate::capability::tape::{Arguments, End, Playback, Tape};
use crate::results::redact::Redactor;

pub use builder::exports::maddock::plugin::builder as build;
pub use discovery::exports::maddock::plugin::discovery as discover;
pub use gpu::exports::maddock::plugin::gpu as accelerators;
pub use launcher::exports::maddock::plugin::launcher as launch;
pub use reporter::exports::maddock::plugin::reporter as report;
pub use target::exports::maddock::plugin::target as jobs;

/// The last lines of what a guest wrote to stderr that go into a message.
const STDERR_LINES: usize = 5;
/// The characters of them.
const STDERR_CHARACTERS: usize = 500;

/// What a call works with.
#[derive(Debug, Clone)]
pub struct Session {
    /// What the invocation shares.
    pub context: Arc<RunContext>,
    /// The job that the call is for.
    pub job: Option<String>,
    /// Who hears what the plugin tells.
    pub events: mpsc::Sender<PluginEvent>,
    /// What one call may use up.
    pub ceilings: Ceilings,
    /// Wall-clock time for one call; none where the plugin waits for a job.
    pub deadline: Option<Duration>,
    /// The recorded call that answers; none: the host does.
    pub playback: Option<Arc<Playback>>,
}

impl Session {
    /// A session for calls that belong to no job. What the plugin tells is dropped.
    #[must_use]
    pub fn quiet(context: Arc<RunContext>) -> Self {
        let (events, _) = mpsc::channel(1);
        Self {
            context,
            job: None,
            events,
            ceilings: Ceilings::default(),
            deadline: Some(Duration::from_secs(120)),
            playback: None,
        }
    }

    /// The same session with somebody listening.
    #[must_use]
    pub fn telling(mut self, events: mpsc::Sender<PluginEvent>) -> Self {
        self.events = events;
        self
    }

    /// The same session for one job.
    #[must_use]
    pub fn for_job(mut self, job: impl Into<String>) -> Self {
        self.job = Some(job.into());
        self
    }

    /// The same session for one call that was recorded: no host function is called.
    #[must_use]
    pub fn playing(mut self, playback: Arc<Playback>) -> Self {
        self.playback = Some(playback);
        self
    }

    /// The same session with another wall-clock limit.
    #[must_use]
    pub fn within(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// A plugin and the engine that runs it.
#[derive(Debug, Clone)]
pub struct Plugin {
    engine: Arc<Engine>,
    loaded: Loaded,
}

impl Plugin {
    /// Pairs a loaded plugin with its engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, loaded: Loaded) -> Self {
        Self { engine, loaded }
    }

    /// The name in the manifest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded.identity.name
    }

    /// What is loaded.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The tape of a call that begins.
    fn tape(
        &self,
        session: &Session,
        function: &str,
        arguments: impl FnOnce(&mut Arguments<'_>) -> Result<(), BodyError>,
    ) -> Tape {
        if let Some(playback) = &session.playback {
            return Tape::Plays(playback.clone());
        }
        let recorder = session.context.trace.recorder();
        let take = recorder.and_then(|to| to.begin(&self.loaded.identity, function, session.job.as_deref(), arguments));
        take.map_or(Tape::Off, Tape::Records)
    }

    fn store(&self, session: &Session, tape: Tape) -> Store<State> {
        let Session { context, job, events, ceilings, .. } = session.clone();
        let ceilings = context.policy.ceilings(&self.loaded.identity, ceilings);
        let state = State::new(self.loaded.identity.clone(), context, job, events, ceilings, tape);
        let mut store = self.engine.store(state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            state.tick()?;
            state.meter.interrupt();
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    /// `begun`: the instance was made, so that what went wrong afterwards is what the plugin did.
    fn ended(&self, store: &Store<State>, function: String, begun: bool, error: &wasmtime::Error) -> PluginError {
        let reason = match (error.downcast_ref::<Trap>(), error.downcast_ref::<Reached>()) {
            (Some(trap), _) => trap.to_string(),
            (None, Some(ceiling)) => ceiling.to_string(),
            (None, None) if let Some(ceiling) = store.data().engine_ceiling(error) => ceiling.to_string(),
            (None, None) if begun => format!("it broke the rules of the interface: {}", error.root_cause()),
            (None, None) => format!("it could not be started: {error:#}"),
        };
        let told = store.data().stderr.tail();
        let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("note: ")).collect();
        let tail = printable(&lines.get(lines.len().saturating_sub(STDERR_LINES)..).unwrap_or_default().join("; "));
        // The end says most, so that is what stays of long lines.
        let words = match tail.char_indices().nth_back(STDERR_CHARACTERS) {
            Some((start, _)) => format!("…{}", tail.get(start..).unwrap_or_default()),
            None => tail,
        };
        let message = if words.is_empty() { reason } else { format!("{reason} ({words})") };
        PluginError::Ended { plugin: self.name().to_owned(), function, message }
    }

    fn late(&self, function: String, deadline: Duration) -> PluginError {
        let message = format!("no answer within {} s", deadline.as_secs_f64());
        PluginError::Ended { plugin: self.name().to_owned(), function, message }
    }

    fn answered<T>(&self, function: String, answer: Result<T, types::Error>) -> Result<T, PluginError> {
        answer.map_err(|error| PluginError::Answered {
            plugin: self.name().to_owned(),
            function,
            error: Box::new(error),
        })
    }
}

/// The words of the WIT file for a generated module and method.
fn in_wit(interface: &str, call: &str) -> String {
    let interface = interface.strip_prefix("maddock_plugin_").unwrap_or(interface);
    let call = call.strip_prefix("call_").unwrap_or(call);
    format!("{interface}.{call}").replace('_', "-")
}

/// The nearer of what the kind of the call allows and what policy does.
fn deadline(session: &Session, store: &Store<State>) -> Option<Duration> {
    [session.deadline, store.data().ceilings.time].into_iter().flatten().min()
}

/// Waits for a call, for the session's deadline at most.
async fn bounded<T>(deadline: Option<Duration>, call: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(limit) => tokio::time::timeout(limit, call).await.ok(),
        None => Some(call.await),
    }
}

macro_rules! calls {
    ($world:path, $interface:ident, $played:ident {
        $( $(#[$doc:meta])* fn $name:ident = $call:ident ( $($argument:ident : & $type:ty),* ) -> $answer:ty; )*
    }) => {
        impl Plugin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// The plugin trapped, reached a ceiling or its deadline, or answered with an error of its own.
                pub async fn $name(&self, session: &Session, $($argument: &$type),*) -> Result<$answer, PluginError> {
                    let function = in_wit(stringify!($interface), stringify!($call));
                    let tape = self.tape(session, &function, |told| { $( told.push($argument)?; )* Ok(()) });
                    let mut store = self.store(session, tape.clone());
                    let mut begun = false;
                    let (meter, deadline) = (store.data().meter.clone(), deadline(session, &store));
                    let call = async {
                        let plugin = <$world>::new(self.loaded.pre.clone())?.instantiate_async(&mut store).await?;
                        begun = true;
                        plugin.$interface().$call(&mut store, $($argument),*).await
                    };
                    let ended = bounded(deadline, meter.measure(call)).await;
                    let late = ended.is_none();
                    let outcome = match ended {
                        None => Err(self.late(function, deadline.unwrap_or_default())),
                        Some(Err(error)) => Err(self.ended(&store, function, begun, &error)),
                        Some(Ok(answer)) => self.answered(function, answer),
                    };
                    close(&tape, &outcome, late);
                    outcome
                }
            )*

            /// One of these by its name, with arguments as a recording has them; none where the name is another's.
            async fn $played(&self, session: &Session, name: &str, told: &[Value]) -> Option<Result<Played, BodyError>> {
                $(
                    if name == in_wit(stringify!($interface), stringify!($call)) {
                        let mut told = told.iter().cloned();
                        $(
                            let $argument = match body::read::<<$type as ToOwned>::Owned>(told.next().unwrap_or_default()) {
                                Ok(argument) => argument,
                                Err(error) => return Some(Err(error)),
                            };
                        )*
                        let outcome = self.$name(session, $( $argument.borrow() ),*).await;
                        return Some(played(outcome));
                    }
                )*
                None
            }
        }
    };
}

/// What a call came to, when it was played: its answer as a recording has it.
pub type Played = Result<Value, PluginError>;

fn played<T: Serialize>(outcome: Result<T, PluginError>) -> Result<Played, BodyError> {
    match outcome {
        Ok(answer) => Ok(Ok(Writer::of_answers(&Redactor::default()).body(&answer)?)),
        Err(error) => Ok(Err(error)),
    }
}

/// Says on the tape how a call ended.
fn close<T: Serialize>(tape: &Tape, outcome: &Result<T, PluginError>, late: bool) {
    match outcome {
        Ok(answer) => tape.end(&End::Answered(answer)),
        Err(PluginError::Answered { error, .. }) => tape.end(&End::<T>::Refused(error)),
        Err(PluginError::Ended { message, .. }) if late => tape.end(&End::<T>::Late(message)),
        Err(PluginError::Ended { message, .. }) => tape.end(&End::<T>::Ended(message)),
        Err(error) => tape.end(&End::<T>::Ended(&error.to_string())),
    }
}

calls!(discovery::DiscoveryPluginPre<State>, maddock_plugin_discovery, play_discovery {
    /// Every model under a tree.
    fn list_models = call_list_models(tree: &str) -> discover::Listing;
    /// Completes the cards that were selected.
    fn finalise = call_finalise(tree: &str, cards: &[types::Card]) -> Vec<types::Card>;
});

calls!(builder::BuilderPluginPre<State>, maddock_plugin_builder, play_builder {
    /// Keys of the configuration that image definitions give a meaning.
    fn context_keys = call_context_keys(tree: &str, cards: &[types::Card]) -> Vec<String>;
    /// Which images will be made and how.
    fn plan_images = call_plan_images(request: &build::BuildRequest) -> build::BuildPlan;
    /// Makes one.
    fn build_image = call_build_image(request: &build::BuildRequest, image: &build::ImagePlan) -> build::Built;
    /// Pushes one that was built.
    fn push_image = call_push_image(request: &build::BuildRequest, image: &build::ImagePlan, built: &build::Built) -> build::Pushed;
});

calls!(target::TargetPluginPre<State>, maddock_plugin_target, play_target {
    /// What the job will do, in full.
    fn plan_job = call_plan(job: &jobs::Job) -> types::WorkPlan;
    /// Starts it; the handle is plain text.
    fn launch_job = call_launch(job: &jobs::Job, plan: &types::WorkPlan) -> String;
    /// Follows it to its end.
    fn watch_job = call_watch(handle: &str) -> jobs::Ending;
    /// Where it is now.
    fn job_status = call_status(handle: &str) -> jobs::JobStatus;
    /// Tells all output so far.
    fn job_logs = call_logs(handle: &str) -> ();
    /// Ends it.
    fn cancel_job = call_cancel(handle: &str, reason: &str) -> ();
    /// Brings results to the job's directory.
    fn collect_job = call_collect(handle: &str) -> jobs::Collection;
    /// Removes everything that it made.
    fn release_job = call_release(handle: &str) -> ();
});

calls!(launcher::LauncherPluginPre<State>, maddock_plugin_launcher, play_launcher {
    /// From a topology to commands and variables.
    fn arrange = call_arrange(topology: &launch::Topology) -> launch::Arrangement;
});

calls!(gpu::GpuPluginPre<State>, maddock_plugin_gpu, play_gpu {
    /// The accelerators of this machine.
    fn detect = call_detect(config: &types::Json) -> Option<accelerators::Inventory>;
    /// What a job needs to use some of them.
    fn attach = call_attach(inventory: &accelerators::Inventory, indices: &[u32]) -> types::Attachment;
});

calls!(reporter::ReporterPluginPre<State>, maddock_plugin_reporter, play_reporter {
    /// Turns rows into files.
    fn report = call_report(request: &report::ReportRequest) -> Vec<report::Produced>;
});

impl Plugin {
    /// The static facts of a target.
    ///
    /// # Errors
    /// The plugin trapped, or reached a ceiling or its deadline.
    pub async fn describe_target(&self, session: &Session) -> Result<jobs::TargetInfo, PluginError> {
        let function = in_wit("target", "describe");
        let tape = self.tape(session, &function, |_| Ok(()));
        let mut store = self.store(session, tape.clone());
        let mut begun = false;
        let (meter, deadline) = (store.data().meter.clone(), deadline(session, &store));
        let call = async {
            let plugin = target::TargetPluginPre::new(self.loaded.pre.clone())?.instantiate_async(&mut store).await?;
            begun = true;
            plugin.maddock_plugin_target().call_describe(&mut store).await
        };
        let ended = bounded(deadline, meter.measure(call)).await;
        let late = ended.is_none();
        let outcome = match ended {
            None => Err(self.late(function, deadline.unwrap_or_default())),
            Some(answer) => answer.map_err(|error| self.ended(&store, function, begun, &error)),
        };
        close(&tape, &outcome, late);
        outcome
    }

    /// A call by its name in the WIT package, with arguments as a recording has them.
    ///
    /// # Errors
    /// There is no such call, or the arguments are not its own.
    pub async fn play(&self, session: &Session, function: &str, arguments: &[Value]) -> Result<Played, BodyError> {
        if function == in_wit("target", "describe") {
            return played(self.describe_target(session).await);
        }
        let by_kind = match function.split_once('.').map(|(interface, _)| interface) {
            Some("discovery") => self.play_discovery(session, function, arguments).await,
            Some("builder") => self.play_builder(session, function, arguments).await,
            Some("target") => self.play_target(session, function, arguments).await,
            Some("launcher") => self.play_launcher(session, function, arguments).await,
            Some("gpu") => self.play_gpu(session, function, arguments).await,
            Some("reporter") => self.play_reporter(session, function, arguments).await,
            _ => None,
        };
        by_kind.unwrap_or_else(|| Err(serde::ser::Error::custom(format!("there is no call `{function}`"))))
    }
}
