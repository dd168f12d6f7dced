//! `process`: programs on this machine, as argument vectors.
//!
//! `run` gathers the output of a program that ends with the call. `launch` hands a program to a supervisor, a process of
//! its own (`supervise`), which outlives the plugin and, once its lifeline is let go, this process; `attach` finds it again.
//! Nothing here may pass on more of the caller's environment than asked, or put a secret anywhere but into the child's.

mod child;
mod follow;
mod gather;
mod interpreter;
mod launch;
mod lifeline;
mod prepare;
pub(super) mod proc_table;
pub mod supervise;

use std::path::Path;
use std::time::Duration;

use maddock_bindings::api::process::{self, Command, Event, Finished};
use wasmtime::component::Resource;

pub use self::lifeline::Lifelines;

use self::follow::Following;
use self::prepare::Asked;
use super::files::allowed;
use super::gate::{Call, Capability};
use super::{Answer, ApiError};
use crate::plugin::State;

/// The `process` interface.
#[derive(Debug)]
pub enum Process {}

impl Capability for Process {
    const NAME: &'static str = "process";
}

/// This binary, whatever happened to its file meanwhile.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

impl State {
    /// `launch` with another binary as the supervisor: for tests, whose own binary is not maddock.
    ///
    /// # Errors
    /// The outer one ends the plugin, the inner one is the plugin's.
    #[doc(hidden)]
    pub async fn launch_supervised_by(
        &mut self,
        supervisor: &Path,
        command: Command,
        directory: String,
    ) -> Answer<String> {
        let asked = allowed!(Asked::new(command, &self.context));
        let output = allowed!(launch::inside_run(&directory, &self.context.roots));
        let call =
            asked.describe(Call::<Process>::new("launch"), &self.context.policy).on("output", output.to_string_lossy());
        let permit = allowed!(self.gate.permit(call));
        let job = self.job.clone().unwrap_or_default();
        let answer = launch::launch(&permit, supervisor, asked, &output, (&self.context, &job)).await;
        Ok(permit.finish(answer))
    }
}

impl process::Host for State {
    async fn run(&mut self, command: Command, output_limit: u32) -> Answer<Finished> {
        let asked = allowed!(Asked::new(command, &self.context));
        let permit = allowed!(self.gate.permit(asked.describe(Call::<Process>::new("run"), &self.context.policy)));
        self.charge_transfer(asked.stdin_length())?;
        let limit = usize::try_from(output_limit).unwrap_or(usize::MAX).min(self.ceilings.memory);
        let answer = match asked.reveal(&permit, &self.context.secrets) {
            Ok(prepared) => gather::run(&permit, prepared, limit).await,
            Err(refused) => Err(refused),
        };
        if let Ok(finished) = &answer {
            self.charge_transfer(finished.stdout.len().saturating_add(finished.stderr.len()))?;
        }
        Ok(permit.finish(answer))
    }

    async fn launch(&mut self, command: Command, directory: String) -> Answer<String> {
        self.launch_supervised_by(Path::new(OWN_EXECUTABLE), command, directory).await
    }

    async fn attach(&mut self, handle: String) -> Answer<Resource<process::Child>> {
        let handle = allowed!(launch::Handle::parse(&handle, &self.context.roots));
        let call = Call::<Process>::new("attach").on("output", handle.directory().to_string_lossy());
        let permit = allowed!(self.gate.permit(call));
        let found = Following::start(&permit, handle);
        let following = allowed!(permit.finish(found));
        let resource = self.table.push(following)?;
        Ok(Ok(Resource::new_own(resource.rep())))
    }
}

fn following(child: &Resource<process::Child>) -> Resource<Following> {
    Resource::new_borrow(child.rep())
}

impl process::HostChild for State {
    async fn next_event(&mut self, child: Resource<process::Child>, timeout_ms: u32) -> Answer<Event> {
        let answer = self.table.get_mut(&following(&child))?.next_event(Duration::from_millis(timeout_ms.into())).await;
        if let Ok(Event::Output((_, bytes))) = &answer {
            self.charge_transfer(bytes.len())?;
        }
        Ok(answer)
    }

    async fn stop(&mut self, child: Resource<process::Child>, grace_ms: u32) -> Answer<()> {
        let directory = self.table.get(&following(&child))?.directory().to_string_lossy().into_owned();
        let permit = allowed!(self.gate.permit(Call::<Process>::new("stop").on("output", directory)));
        let stopped = self.table.get(&following(&child))?.stop(&permit, Duration::from_millis(grace_ms.into())).await;
        Ok(permit.finish(stopped))
    }

    async fn drop(&mut self, child: Resource<process::Child>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Following>::new_own(child.rep()))?;
        Ok(())
    }
}

/// An error of the operating system about a program or its files.
fn failure(verb: &str, path: &Path, why: &std::io::Error) -> ApiError {
    super::files::place::failure(verb, path, why)
}
