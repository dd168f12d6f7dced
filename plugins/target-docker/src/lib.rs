//! Runs jobs in containers on this machine.
//!
//! A job is the main process of a container of its own, which outlives the invocation if need be: its output and exit code
//! stay with the engine, the outcome of its script in the workspace. A handle carries all that later steps need, as they may
//! happen in another process. No container is ever touched that does not carry this job's owner labels.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maddock_sdk::docker::{self, ContainerEvent, ContainerInfo};
use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::local::{self, Place};
use maddock_sdk::target::{Cause, Collection, Ending, Guest, Job, JobOptions, JobStatus, TargetInfo};
use maddock_sdk::types::{Entry, Error, ErrorKind, WorkPlan};
use maddock_sdk::{Result, failed, files, invalid, quote, serde_json};
use serde::{Deserialize, Serialize};

mod image;
mod name;
mod options;
mod spec;
mod watch;

use spec::{Surroundings, WORKSPACE};
use watch::{Deadline, Next, Over};

/// Seconds that a job has between being asked to end and being ended, where nobody says otherwise.
const GRACE_SECONDS: u32 = 10;
/// How long output that is there already may take to come.
const AT_ONCE_MS: u32 = 500;

/// What `launch` answers, as JSON text.
#[derive(Debug, Serialize, Deserialize)]
struct Handle {
    container: String,
    name: String,
    job: String,
    image: String,
    image_id: String,
    keep_alive: bool,
    time_limit: Option<u64>,
    /// Seconds that the job has between being asked to end and being ended.
    #[serde(default = "grace")]
    grace: u32,
    /// When the container was started, in seconds since 1970; 0: not known.
    #[serde(default)]
    started: u64,
    place: Place,
}

fn grace() -> u32 {
    GRACE_SECONDS
}

impl Handle {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| invalid(format!("this is no handle of a container: {error}")))
    }

    /// What the engine says of the container; none where it is gone.
    fn inspect(&self) -> Result<Option<ContainerInfo>> {
        match docker::inspect_container(&self.container) {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the job is over although its container may go on.
    fn is_over(&self, container: Option<&ContainerInfo>) -> bool {
        let ended = container.is_none_or(|container| watch::phase(container) == Phase::Ended);
        ended || (self.keep_alive && self.place.has_result())
    }

    fn ending(&self, code: Option<i32>, container: Option<&ContainerInfo>, timed_out: bool, complete: bool) -> Ending {
        let result = self.place.result();
        let cancelled = self.place.cancelled();
        let (cause, message) = watch::cause(Over {
            code,
            container,
            result: result.as_ref(),
            cancelled: cancelled.as_deref(),
            timed_out,
            image: &self.image,
        });
        local::ending(cause, message, result.as_ref(), &self.name, complete)
    }

    /// For how long the container runs already, as far as its time limit is concerned. One that is over has kept to it, or
    /// nobody was there to end it.
    fn age(&self) -> Result<Duration> {
        let over = self.is_over(self.inspect()?.as_ref());
        let age = if over || self.started == 0 { 0 } else { now().saturating_sub(self.started) };
        Ok(Duration::from_secs(age))
    }

    /// How to look around in a container that was left.
    fn invite(&self) {
        let name = quote::word(&self.name);
        events::log(
            Level::Info,
            &format!("container `{}` is kept alive; enter it with: docker exec -it {name} bash", self.name),
            &[],
        );
        let work = quote::word(&format!("{WORKSPACE}/{}", self.place.work_directory));
        events::log(
            Level::Info,
            &format!("in it, {work} is the work directory and {WORKSPACE}/.maddock/model.sh runs the model"),
            &[],
        );
        events::log(Level::Info, &format!("remove it with: docker rm -f {name}"), &[]);
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The mounts of a job, as far as this machine has them.
fn surroundings(job: &Job) -> Result<Surroundings> {
    Ok(Surroundings {
        script_directories: local::script_directories(&job.paths.tree)?,
        // Where nobody may look, the engine will say whether it is there.
        fuse: files::stat(spec::FUSE).map_or(true, |found| found.is_some()),
    })
}

/// Creates the container under the first name that is free.
fn create(work: &mut spec::Work) -> Result<String> {
    let unique = work.spec.name.clone();
    if let Some(plain) = work.plain_name.take() {
        work.spec.name = plain;
        match docker::create_container(&work.spec) {
            Err(error) if error.kind == ErrorKind::Conflict => work.spec.name = unique,
            other => return other.map_err(|error| error.during("creating the container")),
        }
    }
    docker::create_container(&work.spec).map_err(|error| error.during("creating the container"))
}

/// Starts a container; one that does not start is removed.
fn start(id: &str, image: &str) -> Result<()> {
    let refused = match docker::start_container(id) {
        Ok(()) => return Ok(()),
        Err(error) => watch::start_error(image, error),
    };
    remove(id);
    Err(refused)
}

fn remove(id: &str) {
    if let Err(error) = docker::remove_container(id) {
        events::log(Level::Warning, &format!("container `{id}` was not removed: {}", error.message), &[]);
    }
}

/// Follows a container to the end of its job, telling its output.
fn follow(handle: &Handle) -> Result<Ending> {
    // A job may be followed long after its start: its time limit counts from there.
    let age = handle.age()?;
    let follow = docker::follow_container(&handle.container)?;
    events::state(Phase::Running, "");
    let started = Instant::now();
    let mut deadline = Deadline::new(handle.time_limit, handle.keep_alive);
    let mut over = false;
    loop {
        let wait = match deadline.next(age.saturating_add(started.elapsed())) {
            // Whatever was written before the result is there by now.
            Next::Wait(_) if over => AT_ONCE_MS,
            Next::Wait(wait) => wait,
            Next::Stop => {
                events::log(Level::Warning, "the time limit passed: the container is stopped", &[]);
                docker::stop_container(&handle.container, handle.grace)?;
                continue;
            }
            Next::GiveUp => {
                let container = handle.inspect()?;
                return Ok(handle.ending(None, container.as_ref(), true, false));
            }
        };
        match follow.next_event(wait) {
            Ok(ContainerEvent::Output((stream, bytes))) => events::output(0, stream, &bytes),
            Ok(ContainerEvent::Exited(code)) => {
                events::state(Phase::Finishing, "");
                let container = handle.inspect()?;
                return Ok(handle.ending(Some(code), container.as_ref(), deadline.passed(), true));
            }
            Ok(ContainerEvent::Timeout) if over => {
                events::state(Phase::Finishing, "kept alive");
                let container = handle.inspect()?;
                return Ok(handle.ending(None, container.as_ref(), deadline.passed(), true));
            }
            Ok(ContainerEvent::Timeout) => over = handle.keep_alive && handle.place.has_result(),
            Err(error) => return lost(handle, &error, deadline.passed()),
        }
    }
}

/// The stream broke: what the engine still knows decides.
fn lost(handle: &Handle, error: &Error, timed_out: bool) -> Result<Ending> {
    events::log(Level::Warning, &format!("the container's output broke off: {}", error.message), &[]);
    let container = match handle.inspect() {
        Ok(container) => container,
        Err(error) => {
            let message = format!("the container engine does not answer any more: {}", error.message);
            return Ok(local::ending(Cause::Unknown, message, None, &handle.name, false));
        }
    };
    if handle.is_over(container.as_ref()) {
        return Ok(handle.ending(None, container.as_ref(), timed_out, false));
    }
    // It still runs, unseen; ending it is the only way to know how it ends.
    docker::stop_container(&handle.container, handle.grace)?;
    let message = format!("the container's output broke off, so it was stopped: {}", error.message);
    Ok(local::ending(Cause::Unknown, message, handle.place.result().as_ref(), &handle.name, false))
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        let features = ["images", "local", "detach", "keep-alive"];
        TargetInfo {
            deployment_type: "local".to_owned(),
            default_launcher: "docker".to_owned(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        }
    }

    fn plan(job: Job) -> Result<WorkPlan> {
        Ok(spec::prepare(&job, &surroundings(&job)?)?.plan(&job))
    }

    fn launch(job: Job, _plan: WorkPlan) -> Result<String> {
        let mut work = spec::prepare(&job, &surroundings(&job)?)?;
        events::state(Phase::Starting, "looking for the image");
        let (reference, info) = image::find(&work.image, &job.model, &work.wish)?;
        work.spec.image = reference;
        work.locate_runtime(&job, &info.env);
        work.place.write_entry(&work.script)?;
        events::state(Phase::Starting, "creating the container");
        let container = create(&mut work)?;
        start(&container, &work.spec.image)?;
        let handle = Handle {
            container,
            name: work.spec.name,
            job: job.id,
            image: work.spec.image,
            image_id: info.id,
            keep_alive: job.options.has(JobOptions::KEEP_ALIVE),
            time_limit: job.time_limit,
            grace: work.grace.unwrap_or(GRACE_SECONDS),
            started: now(),
            place: work.place,
        };
        serde_json::to_string(&handle).map_err(|error| failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        let handle = Handle::read(&handle)?;
        let ending = match follow(&handle) {
            Err(error) if error.kind == ErrorKind::NotFound => handle.ending(None, None, false, false),
            other => other?,
        };
        if handle.keep_alive {
            handle.invite();
        }
        Ok(ending)
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        let container = handle.inspect()?;
        let reason = container.as_ref().map_or_else(|| "gone".to_owned(), |container| container.state.clone());
        if handle.is_over(container.as_ref()) {
            let ending = handle.ending(None, container.as_ref(), false, container.is_some());
            return Ok(JobStatus { phase: Phase::Ended, reason, ending: Some(ending) });
        }
        let phase = container.as_ref().map_or(Phase::Unknown, watch::phase);
        Ok(JobStatus { phase, reason, ending: None })
    }

    fn logs(handle: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let follow = docker::follow_container(&handle.container)?;
        loop {
            match follow.next_event(AT_ONCE_MS)? {
                ContainerEvent::Output((stream, bytes)) => events::output(0, stream, &bytes),
                ContainerEvent::Exited(_) | ContainerEvent::Timeout => return Ok(()),
            }
        }
    }

    fn cancel(handle: String, reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let container = handle.inspect()?;
        let Some(container) = container.filter(|container| watch::phase(container) != Phase::Ended) else {
            return Ok(());
        };
        // A job that is over and only kept alive was not cancelled.
        if !handle.is_over(Some(&container)) {
            handle.place.mark_cancelled(&reason)?;
        }
        docker::stop_container(&handle.container, handle.grace)
    }

    fn collect(handle: String) -> Result<Collection> {
        let handle = Handle::read(&handle)?;
        let mut collection = handle.place.collect()?;
        collection.facts.push(Entry { name: "image_digest".to_owned(), value: handle.image_id });
        Ok(collection)
    }

    fn release(handle: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let labels = [Entry { name: "maddock.job".to_owned(), value: handle.job.clone() }];
        let mut first_error = None;
        for container in docker::find_containers(&labels)? {
            if let Err(error) = docker::remove_container(&container.id) {
                first_error = first_error.or(Some(error));
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

maddock_sdk::manifest!("plugin.json");
// Names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);
