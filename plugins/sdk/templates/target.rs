//! Runs a job as a program on this machine. Put the words of your engine where `process` is called: `launch` answers all
//! that the later steps need, as text, because they may happen in another process.

use maddock_sdk::events::{self, Phase};
use maddock_sdk::local::{self, Place};
use maddock_sdk::process::{self, Child, Command, Event, ExitStatus};
use maddock_sdk::target::{Cause, Collection, Ending, Guest, Job, JobStatus, TargetInfo};
use maddock_sdk::types::{Artefact, Entry, EnvVar, ErrorKind, Step, WorkPlan};
use maddock_sdk::{Result, entry, failed, invalid, serde_json, unsupported};
use serde::{Deserialize, Serialize};

/// How long one wait for something to happen takes at most.
const WAIT_MS: u32 = 10_000;
/// How long the program has between being asked to end and being ended.
const GRACE_MS: u32 = 10_000;

/// What `launch` answers, as JSON text.
#[derive(Serialize, Deserialize)]
struct Handle {
    process: String,
    place: Place,
}

impl Handle {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| invalid(format!("this is no handle of this target: {error}")))
    }

    fn attach(&self) -> Result<Child> {
        process::attach(&self.process)
            .map_err(|error| error.during("attaching to the job's program"))
    }

    /// Every end that the engine knows has a cause here.
    fn ending(&self, status: ExitStatus) -> Ending {
        let result = self.place.result();
        let (cause, message) = match (self.place.cancelled(), status) {
            (_, ExitStatus::TimedOut) => (Cause::TimedOut, "the time limit passed".to_owned()),
            (Some(reason), _) => (Cause::Cancelled, reason),
            (None, ExitStatus::Exited(code)) => local::outcome(code, result.as_ref()),
            (None, ExitStatus::Signalled(signal)) => (
                Cause::Signalled(signal),
                format!("ended by signal {signal}"),
            ),
            (None, ExitStatus::Lost) => (Cause::Lost, "nobody has seen how it ended".to_owned()),
        };
        local::ending(cause, message, result.as_ref(), "localhost", true)
    }
}

/// How the program ended, once it has; its output is told on the way where `tell` says so.
fn follow(child: &Child, wait: bool, tell: bool) -> Result<Option<ExitStatus>> {
    loop {
        match child.next_event(if wait { WAIT_MS } else { 0 })? {
            Event::Output((stream, bytes)) if tell => events::output(0, stream, &bytes),
            Event::Output(_) => {}
            Event::Exited(status) => return Ok(Some(status)),
            Event::Timeout if wait => {}
            Event::Timeout => return Ok(None),
        }
    }
}

/// The job's variables, and what starts it.
fn command(job: &Job) -> Result<Command> {
    if job.topology.nodes > 1 {
        return Err(unsupported(format!(
            "{} nodes were asked for, and this target has one",
            job.topology.nodes
        ))
        .hint("ask for one node"));
    }
    let env: Vec<EnvVar> = local::environment(job, local::role(job))?;
    let place = Place::of(job);
    Ok(Command {
        argv: vec!["bash".to_owned(), place.entry()],
        env,
        inherit: vec!["LANG".to_owned(), "TMPDIR".to_owned()],
        directory: Some(place.workspace),
        stdin: None,
        time_limit_ms: job.time_limit.map(|seconds| seconds.saturating_mul(1000)),
        extra: Vec::new(),
    })
}

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        TargetInfo {
            deployment_type: "NAME".to_owned(),
            default_launcher: "native".to_owned(),
            features: vec!["local".to_owned(), "detach".to_owned()],
        }
    }

    fn plan(job: Job) -> Result<WorkPlan> {
        // No effects here. Policy decides of each step before the first of them is done.
        let command = command(&job)?;
        let scope = |name: &str, value: &str| Entry {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let write = Step {
            summary: "write the job's entry script".to_owned(),
            call: "files.write".to_owned(),
            scope: vec![scope("path", &Place::of(&job).entry())],
        };
        let variables = command
            .env
            .iter()
            .map(|variable| &variable.name)
            .chain(&command.inherit);
        let run = Step {
            summary: "run the entry script with bash".to_owned(),
            call: "process.launch".to_owned(),
            scope: [scope("program", "bash")]
                .into_iter()
                .chain(variables.map(|name| scope("env", name)))
                .collect(),
        };
        let script = Artefact {
            name: "entry.sh".to_owned(),
            media_type: "text/x-shellscript".to_owned(),
            content: entry::script(&job, local::role(&job)),
        };
        Ok(WorkPlan {
            steps: vec![write, run],
            artefacts: vec![script],
            warnings: Vec::new(),
            extra: Vec::new(),
        })
    }

    fn launch(job: Job, _plan: WorkPlan) -> Result<String> {
        let (command, place) = (command(&job)?, Place::of(&job));
        place.write_entry(&entry::script(&job, local::role(&job)))?;
        let process = process::launch(&command, &place.directory)
            .map_err(|error| error.during("starting the job's program"))?;
        serde_json::to_string(&Handle { process, place }).map_err(|error| failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        let handle = Handle::read(&handle)?;
        let child = handle.attach()?;
        events::state(Phase::Running, "");
        let status = follow(&child, true, true)?.unwrap_or(ExitStatus::Lost);
        Ok(handle.ending(status))
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        let ending = follow(&handle.attach()?, false, false)?.map(|status| handle.ending(status));
        let phase = if ending.is_some() {
            Phase::Ended
        } else {
            Phase::Running
        };
        Ok(JobStatus {
            phase,
            reason: String::new(),
            ending,
        })
    }

    fn logs(handle: String) -> Result<()> {
        follow(&Handle::read(&handle)?.attach()?, false, true).map(|_| ())
    }

    fn cancel(handle: String, reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let child = handle.attach()?;
        // One that has ended by itself was not cancelled, whatever is asked of it now.
        if follow(&child, false, false)?.is_some() {
            return Ok(());
        }
        handle.place.mark_cancelled(&reason)?;
        child.stop(GRACE_MS)
    }

    fn collect(handle: String) -> Result<Collection> {
        Handle::read(&handle)?.place.collect()
    }

    fn release(handle: String) -> Result<()> {
        // What `launch` made, and nothing else. What is gone already is fine.
        match Handle::read(&handle)?.attach() {
            Ok(child) => child.stop(GRACE_MS),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_sdk::target::{JobOptions, JobPaths, Script, Topology};

    fn job(nodes: u32) -> Job {
        Job {
            run_id: "r".into(),
            id: "0-m".into(),
            model: "m".into(),
            card: "{}".into(),
            image: None,
            topology: Topology {
                nodes,
                processes_per_node: 1,
                gpus_per_node: 0,
                launcher: "native".into(),
                main_port: 29500,
                roles: Vec::new(),
            },
            script: Script {
                interpreter: vec!["bash".into()],
                file: "run.sh".into(),
                arguments: Vec::new(),
                encapsulate: String::new(),
                before: Vec::new(),
                after: Vec::new(),
                clone_url: None,
            },
            env: Vec::new(),
            accelerators: None,
            time_limit: Some(60),
            paths: JobPaths {
                directory: "/r/0-m".into(),
                workspace: "/r/0-m/workspace".into(),
                work_directory: "run_directory".into(),
                tree: "/tree".into(),
            },
            profile: String::new(),
            options: JobOptions::empty(),
            collect: Vec::new(),
            config: "{}".into(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_plan_says_all_that_will_be_done() {
        let plan = Plugin::plan(job(1)).unwrap();
        let calls: Vec<&str> = plan.steps.iter().map(|step| step.call.as_str()).collect();
        assert_eq!(calls, ["files.write", "process.launch"]);
    }

    #[test]
    fn several_nodes_are_refused() {
        assert_eq!(
            Plugin::plan(job(2)).unwrap_err().kind,
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_handle_is_read_back() {
        let handle = Handle {
            process: "p".into(),
            place: Place::of(&job(1)),
        };
        let text = serde_json::to_string(&handle).unwrap();
        assert_eq!(Handle::read(&text).unwrap().place, handle.place);
        assert!(Handle::read("nonsense").is_err());
    }
}
