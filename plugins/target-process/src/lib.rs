//! Runs jobs as programs on this machine, without containers: for trees whose models need none, and for tests.
//!
//! What the job may see is not narrowed in any way; a container target is for that. The directories of `tree/scripts`,
//! which a container would see mounted read-only, are copied into the workspace, so that the tree is never written.
//! A handle carries all that the later steps need: they may happen in another process.

use maddock_sdk::events::{self, Phase};
use maddock_sdk::local::{self, Place};
use maddock_sdk::process::{self, Child, Event, ExitStatus};
use maddock_sdk::target::{Cause, Collection, Ending, Guest, Job, JobOptions, JobStatus, TargetInfo};
use maddock_sdk::types::{ErrorKind, WorkPlan};
use maddock_sdk::{Result, files, invalid, serde_json};
use serde::{Deserialize, Serialize};

pub mod plan;

/// How long one wait for something to happen takes at most.
const WAIT_MS: u32 = 10_000;
/// How long a program has between being asked to end and being ended.
const GRACE_MS: u32 = 10_000;

/// What `launch` answers, as JSON text.
#[derive(Debug, Serialize, Deserialize)]
struct Handle {
    process: String,
    place: Place,
}

impl Handle {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| invalid(format!("this is no handle of a process: {error}")))
    }

    fn attach(&self) -> Result<Child> {
        process::attach(&self.process).map_err(|error| error.during("attaching to the job's program"))
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        let result = self.place.result();
        let (cause, message) = match (self.place.cancelled(), status) {
            (_, ExitStatus::TimedOut) => (Cause::TimedOut, "the time limit passed".to_owned()),
            (Some(reason), _) => (Cause::Cancelled, reason),
            (None, ExitStatus::Exited(code)) => local::outcome(code, result.as_ref()),
            (None, ExitStatus::Signalled(signal)) => {
                (Cause::Signalled(signal), format!("the job's script was ended by signal {signal}"))
            }
            (None, ExitStatus::Lost) => {
                (Cause::Lost, "the job's supervisor is gone without having written an answer".to_owned())
            }
        };
        local::ending(cause, message, result.as_ref(), "localhost", true)
    }
}

/// Reads events until the program ends, or until nothing more is there when `wait` is none.
fn drain(child: &Child, wait: Option<u32>, tell: bool) -> Result<Option<ExitStatus>> {
    loop {
        match child.next_event(wait.unwrap_or(0))? {
            Event::Output((stream, bytes)) if tell => events::output(0, stream, &bytes),
            Event::Output(_) => {}
            Event::Exited(status) => return Ok(Some(status)),
            Event::Timeout if wait.is_none() => return Ok(None),
            Event::Timeout => {}
        }
    }
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        TargetInfo {
            deployment_type: "local".to_owned(),
            default_launcher: "native".to_owned(),
            features: vec!["local".to_owned(), "detach".to_owned()],
        }
    }

    fn plan(job: Job) -> Result<WorkPlan> {
        Ok(plan::prepare(&job, &local::script_directories(&job.paths.tree)?)?.plan())
    }

    fn launch(job: Job, _plan: WorkPlan) -> Result<String> {
        let work = plan::prepare(&job, &local::script_directories(&job.paths.tree)?)?;
        events::state(Phase::Starting, "staging");
        for (source, destination) in &work.copies {
            files::copy(source, destination).map_err(|error| error.during("copying the tree's scripts"))?;
        }
        work.place.write_entry(&work.script)?;
        let process = process::launch(&work.command, &work.place.directory)
            .map_err(|error| error.during("starting the job's program"))?;
        if job.options.has(JobOptions::DETACH) {
            events::log(events::Level::Info, "the job goes on when this command ends", &[]);
        }
        let handle = Handle { process, place: work.place };
        serde_json::to_string(&handle).map_err(|error| maddock_sdk::failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        let handle = Handle::read(&handle)?;
        let child = handle.attach()?;
        events::state(Phase::Running, "");
        let status = drain(&child, Some(WAIT_MS), true)?.unwrap_or(ExitStatus::Lost);
        events::state(Phase::Finishing, "");
        Ok(handle.ending(status))
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        Ok(match drain(&handle.attach()?, None, false)? {
            None => JobStatus { phase: Phase::Running, reason: String::new(), ending: None },
            Some(status) => {
                JobStatus { phase: Phase::Ended, reason: String::new(), ending: Some(handle.ending(status)) }
            }
        })
    }

    fn logs(handle: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        drain(&handle.attach()?, None, true).map(|_| ())
    }

    fn cancel(handle: String, reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let child = handle.attach()?;
        // One that has ended by itself was not cancelled, whatever is asked of it now.
        if drain(&child, None, false)?.is_some() {
            return Ok(());
        }
        handle.place.mark_cancelled(&reason)?;
        child.stop(GRACE_MS)
    }

    fn collect(handle: String) -> Result<Collection> {
        Handle::read(&handle)?.place.collect()
    }

    fn release(handle: String) -> Result<()> {
        // The files belong to the run's directory, which is the kernel's; what runs is ours.
        match Handle::read(&handle)?.attach() {
            Ok(child) => child.stop(GRACE_MS),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

maddock_sdk::manifest!("plugin.json");
// Names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);
