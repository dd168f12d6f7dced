//! Runs jobs through toyq, a queue of one machine. What a target of a real scheduler does is all here, in little: a job is
//! handed in with its owner's mark, waits, runs where somebody else starts it, and is found again by any later process
//! that has the handle.

use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::local::{self, Place};
use maddock_sdk::target::{Collection, Ending, Guest, Job, JobStatus, TargetInfo};
use maddock_sdk::types::{Entry, ErrorKind, OutputStream, WorkPlan};
use maddock_sdk::{Result, failed, files, invalid, serde_json};
use serde::{Deserialize, Serialize};

pub mod ending;
pub mod plan;
pub mod queue;
#[cfg(test)]
mod tests;

use queue::{Shown, State};

/// Bytes that one look at the output takes.
const LOOK: u64 = 256 << 10;
/// Waits for a cancelled job to end: the queue gives it a few seconds.
const LEAVING: u32 = 6;

/// What `launch` answers, as JSON text: all that later steps need, whichever process they are in.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Handle {
    entry: queue::Entry,
    place: Place,
}

impl Handle {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| invalid(format!("this is no handle of a queued job: {error}")))
    }

    fn ending(&self, shown: &Shown, log_complete: bool) -> Option<Ending> {
        ending::ending(shown, self.place.cancelled(), self.place.result().as_ref(), log_complete)
    }

    /// Tells what the job has written from `offset` on; answers where that ends.
    fn tell(&self, mut offset: u64) -> Result<u64> {
        let path = plan::output(&self.place);
        loop {
            let bytes = match files::read_from(&path, offset, LOOK) {
                Ok(bytes) => bytes,
                // It has not begun.
                Err(error) if error.kind == ErrorKind::NotFound && offset == 0 => return Ok(0),
                Err(error) => return Err(error.during("reading the job's output")),
            };
            if bytes.is_empty() {
                return Ok(offset);
            }
            events::output(0, OutputStream::Stdout, &bytes);
            offset = offset.saturating_add(bytes.len() as u64);
        }
    }
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        TargetInfo {
            deployment_type: "queue".to_owned(),
            default_launcher: "native".to_owned(),
            // Not `local`: who runs the queue starts the job, on devices that are not the kernel's to share out.
            features: vec!["detach".to_owned()],
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
        let entry = queue::submit(&work.owner, work.words, work.env, &plan::INHERITED)?;
        events::log(Level::Info, &format!("handed in as job {} of `{}`", entry.id, entry.spool), &[]);
        serde_json::to_string(&Handle { entry, place: work.place }).map_err(|error| failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        let handle = Handle::read(&handle)?;
        let (mut told, mut state, mut complete) = (0, None, true);
        let mut shown = handle.entry.show()?;
        loop {
            if state != Some(shown.state) {
                events::state(ending::phase(shown.state), &ending::describe(&shown));
                state = Some(shown.state);
            }
            // A log that cannot be read is evidence that lacks. It is no reason to lose sight of the job.
            if complete {
                match handle.tell(told) {
                    Ok(offset) => told = offset,
                    Err(error) => {
                        events::log(Level::Warning, &error.message, &[]);
                        complete = false;
                    }
                }
            }
            if let Some(ending) = handle.ending(&shown, complete) {
                return Ok(ending);
            }
            // What was told may be more than was shown.
            shown.bytes = shown.bytes.max(told);
            shown = handle.entry.wait(&shown)?;
        }
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        let shown = handle.entry.show()?;
        Ok(JobStatus {
            phase: ending::phase(shown.state),
            reason: ending::describe(&shown),
            ending: handle.ending(&shown, true),
        })
    }

    fn logs(handle: String) -> Result<()> {
        Handle::read(&handle)?.tell(0).map(|_| ())
    }

    fn cancel(handle: String, reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        // One that has ended by itself was not cancelled, whatever is asked of it now.
        if handle.ending(&handle.entry.show()?, true).is_some() {
            return Ok(());
        }
        handle.place.mark_cancelled(&reason)?;
        let mut shown = handle.entry.cancel()?;
        for _ in 0..LEAVING {
            if shown.state != State::Running {
                return Ok(());
            }
            shown = handle.entry.wait(&shown)?;
        }
        Err(failed(format!("job {} of the queue was told to end and still runs", handle.entry.id))
            .hint("nobody ends it where no `toyq serve` runs"))
    }

    fn collect(handle: String) -> Result<Collection> {
        let handle = Handle::read(&handle)?;
        let mut collection = handle.place.collect()?;
        let host = handle.entry.show()?.host;
        if !host.is_empty() {
            collection.facts.push(Entry { name: "machine_name".to_owned(), value: host });
        }
        Ok(collection)
    }

    fn release(handle: String) -> Result<()> {
        // The files belong to the run's directory, which is the kernel's; what is in the queue is ours.
        Handle::read(&handle)?.entry.remove()
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);
