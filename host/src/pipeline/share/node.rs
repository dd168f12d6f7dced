//! Doing one node's share: the same steps that a job on this machine takes, with a workspace of the node's own.
//!
//! Whatever becomes of it, what was launched is released, the files that it left are brought back, and its outcome is
//! written down.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use maddock_bindings::api::types::{Attachment, Entry, EnvValue, EnvVar};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::devices;
use super::file::{Share, Variable};
use super::report::{Desk, Outcome, STARTED};
use crate::pipeline::event::{Gravity, Stream};
use crate::pipeline::execute::{self, Begin, Executed, Order, cause_word};
use crate::pipeline::job;
use crate::pipeline::run::{Chosen, detect};
use crate::pipeline::stage;
use crate::plugin::accelerators::Inventory;
use crate::plugin::jobs::{Cause, Job, JobOptions, JobPaths, NodeRole, Script, Topology};
use crate::plugin::manifest::Kind;
use crate::plugin::{Environment, Plugins, RunContext, Session};

/// The code of a node that could not run its share.
const CANNOT: i32 = 125;
/// The code of one that was asked to end, as a shell has it.
const ENDED: i32 = 143;
/// The code of one whose time was over.
const OVERDUE: i32 = 124;
/// Between two looks whether another node failed.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes that a node's own disk has to have left: a share that cannot write its outcome is no measurement.
const SPACE: u64 = 256 << 20;
/// Characters that a job's id may have.
const JOB_ID: usize = 40;
/// What launchers' values may speak of, which only a node's surroundings know: the entry script looks there.
const OF_SURROUNDINGS: [&str; 3] = ["MADDOCK_MAIN_NODE", "MADDOCK_NODES", "MADDOCK_NODE_ADDRESS"];

/// One node at its work.
#[derive(Debug)]
pub struct Node {
    /// What to do.
    pub share: Share,
    /// Which node this is.
    pub rank: u32,
    /// Where it leaves what there is to say.
    pub desk: Desk,
    /// The plugins.
    pub plugins: Arc<Plugins>,
    /// Roots, secrets, policy and trace of this node: `run` is on its own disk.
    pub context: Arc<RunContext>,
    /// Fires when somebody wants it to end.
    pub stop: CancellationToken,
}

/// Does the node's share, whatever comes of it.
pub async fn attend(node: &Node) -> Outcome {
    let stop = node.stop.child_token();
    let failed = node.share.node.failed.clone();
    let others = Arc::new(OnceLock::new());
    let watcher = Others::of(node).map(|watch| tokio::spawn(watch.run(stop.clone(), others.clone())));
    let mut outcome = attempt(node, &stop).await;
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    match others.get() {
        None => {}
        Some(Trouble::Failed) => outcome.peer = true,
        Some(Trouble::Absent(message)) => {
            outcome = Outcome { code: CANNOT, cause: "lost", message: message.clone(), ..outcome };
        }
    }
    if let (Some(failed), true) = (failed, outcome.code != 0)
        && let Err(error) = std::fs::write(&failed, "")
    {
        node.desk.say(&format!("the other nodes cannot be told that this one failed: {error}"));
    }
    outcome
}

/// What keeps the other nodes from doing their part.
#[derive(Debug)]
enum Trouble {
    /// One failed, and says itself why.
    Failed,
    /// Some never began, and can say nothing: a sentence.
    Absent(String),
}

/// A look at the other nodes. They wait for each other for hours: one that failed or never began ends them all.
#[derive(Debug)]
struct Others {
    failed: PathBuf,
    directory: PathBuf,
    /// Until when all of them have to have begun, and how many seconds that is.
    begun: Option<(Instant, u64)>,
    names: Vec<String>,
}

impl Others {
    /// None where there are none, or nobody is to look.
    fn of(node: &Node) -> Option<Self> {
        let orders = &node.share.node;
        let known = node.context.environment.get(&orders.machines).unwrap_or_default();
        let mut known = known.split(',').map(str::trim);
        let names = (0..node.share.job.nodes).map(|number| match known.next().filter(|name| !name.is_empty()) {
            Some(name) => format!("node {number} ({name})"),
            None => format!("node {number}"),
        });
        let begun = orders.begin_within.and_then(|seconds| {
            let until = Instant::now().checked_add(Duration::from_secs(seconds))?;
            Some((until, seconds))
        });
        Some(Self {
            failed: orders.failed.clone()?,
            directory: orders.directory.clone(),
            begun,
            names: names.collect(),
        })
    }

    async fn run(mut self, stop: CancellationToken, trouble: Arc<OnceLock<Trouble>>) {
        let found = loop {
            if self.failed.exists() {
                break Trouble::Failed;
            }
            if let Some(message) = self.absent() {
                break Trouble::Absent(message);
            }
            let until = self.begun.map(|(until, _)| until);
            let look = Instant::now().checked_add(LOOK);
            tokio::time::sleep_until(look.into_iter().chain(until).min().unwrap_or_else(Instant::now)).await;
        };
        let _ = trouble.set(found);
        stop.cancel();
    }

    /// The roll is called once, when all of them had time enough.
    fn absent(&mut self) -> Option<String> {
        let (_, seconds) = self.begun.take_if(|(until, _)| Instant::now() >= *until)?;
        let began = |number: usize| self.directory.join(number.to_string()).join(STARTED).exists();
        let absent: Vec<&str> = self
            .names
            .iter()
            .enumerate()
            .filter(|(number, _)| !began(*number))
            .map(|(_, name)| name.as_str())
            .collect();
        if absent.is_empty() {
            return None;
        }
        Some(format!(
            "{} did not begin within {seconds} s: does this program start there, and are the run's files there?",
            absent.join(", ")
        ))
    }
}

async fn attempt(node: &Node, stop: &CancellationToken) -> Outcome {
    let never = |message: String| Outcome { code: CANNOT, cause: "never-started", message, ..Outcome::default() };
    let ended = || Outcome { code: ENDED, cause: "cancelled", message: asked(), ..Outcome::default() };
    let events = Stream::to(Arc::new(node.desk.clone()));
    let session = Session::quiet(node.context.clone());
    let ready = tokio::select! {
        ready = prepare(node, &session, &events) => ready,
        () = stop.cancelled() => return ended(),
    };
    let (target, job, architecture) = match ready {
        Ok(ready) => ready,
        Err(trouble) => return never(trouble),
    };
    let log = node.desk.log();
    let order = Order {
        target: &target.plugin,
        features: &target.info.features,
        id: &job.id,
        nodes: 1,
        time_limit: job.time_limit,
        keep_alive: false,
        log: &log,
        events: &events,
        stop: stop.clone(),
        keeper: None,
        secrets: node.context.secrets.values().into_iter().map(str::to_owned).collect(),
    };
    let executed = match execute::execute(&session, order, Begin::Launch(&job)).await {
        Ok(executed) => executed,
        Err(error) => return never(format!("its output cannot be written: {error}")),
    };
    // What a launch that was cut off has made bears this share's mark.
    for problem in executed.problems.iter().cloned().chain(crate::capability::sweep_job(&node.context, &job.id).await) {
        node.desk.say(&problem);
    }
    if let Some(collection) = &executed.collection {
        node.desk.keep(&collection.files);
    }
    let mut outcome = outcome(&executed);
    outcome.facts.extend(architecture.map(|architecture| ("gpu_architecture".to_owned(), architecture)));
    outcome
}

fn asked() -> String {
    "it was asked to end".to_owned()
}

/// What became of it, in the words of the report.
fn outcome(executed: &Executed) -> Outcome {
    let facts = executed.collection.iter().flat_map(|collection| &collection.facts);
    let facts = facts.map(|fact| (fact.name.clone(), fact.value.clone())).collect();
    let seconds = executed.ending.as_ref().and_then(|ending| ending.duration);
    let said = |code, cause, message| Outcome { code, cause, message, peer: false, seconds, facts };
    if executed.interrupted {
        return said(ENDED, "cancelled", asked());
    }
    match (&executed.ending, &executed.error) {
        (Some(ending), _) => {
            let code = match ending.cause {
                Cause::Exited(code) => code,
                Cause::Signalled(signal) => signal.saturating_add(128),
                Cause::TimedOut => OVERDUE,
                Cause::Cancelled => ENDED,
                Cause::NeverStarted | Cause::Lost | Cause::Unknown => CANNOT,
            };
            said(code, cause_word(&ending.cause), ending.message.clone())
        }
        (None, error) => {
            let message = error.as_ref().map(|error| match error.hint() {
                Some(hint) => format!("{error} ({hint})"),
                None => error.to_string(),
            });
            // One that was launched and lost from sight has been collected from.
            let cause = if executed.collection.is_some() { "unknown" } else { "never-started" };
            said(CANNOT, cause, message.unwrap_or_default())
        }
    }
}

/// The target, the job as it gets it, and what accelerators were found here.
async fn prepare(node: &Node, session: &Session, events: &Stream) -> Result<(Chosen, Job, Option<String>), String> {
    let Node { share, plugins, context, .. } = node;
    let scratch = &context.roots.run;
    if share.node.check {
        space(scratch)?;
    }
    let name = &share.node.target;
    let plugin = plugins
        .providing(Kind::Target, name)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("this program has no target `{name}`"))?;
    let target = Chosen::new(plugin, session).await.map_err(|error| error.to_string())?;

    let directory = scratch.join("jobs").join(id(&share.job.id, node.rank));
    let (source, destination) = (share.job.workspace.clone(), job::workspace(&directory));
    tokio::task::spawn_blocking(move || stage::copy_tree(&source, &destination))
        .await
        .map_err(|error| format!("copying the workspace ended: {error}"))?
        .map_err(|error| format!("the workspace cannot be copied to this node: {error}"))?;

    let inventory = detect(plugins, session, &share.job.config, events).await.map_err(|error| error.to_string())?;
    let attachment = attach(node, session, inventory.as_ref(), events).await?;
    let architecture = job::variable(inventory.as_ref(), "MAD_SYSTEM_GPU_ARCHITECTURE").map(str::to_owned);
    Ok((target, assemble(node, &directory, inventory.as_ref(), attachment), architecture))
}

fn space(scratch: &Path) -> Result<(), String> {
    let stat = rustix::fs::statvfs(scratch).map_err(|error| format!("`{}`: {error}", scratch.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= SPACE {
        return Ok(());
    }
    Err(format!("this node's disk is full: `{}` has {} MiB left", scratch.display(), free >> 20))
}

/// What the devices that were given to this job on this node need.
async fn attach(
    node: &Node,
    session: &Session,
    inventory: Option<&Inventory>,
    events: &Stream,
) -> Result<Option<Attachment>, String> {
    let share = &node.share;
    let count = share.job.gpus_per_node;
    let Some(inventory) = inventory else {
        if count > 0 && share.node.check {
            return Err(format!("no accelerator answers on this node, and the job asks for {count}"));
        }
        if count > 0 {
            events.say(
                Gravity::Warning,
                "",
                format!("no accelerator answers on this node: the job gets none of {count}"),
            );
        }
        return Ok(None);
    };
    if count == 0 {
        return Ok(None);
    }
    let indices = devices::given(inventory, count, &share.node.devices, &node.context.environment)?;
    let plugin = node
        .plugins
        .providing(Kind::Gpu, &inventory.vendor)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("no plugin knows the vendor `{}`", inventory.vendor))?;
    plugin.attach(session, inventory, &indices).await.map(Some).map_err(|error| error.to_string())
}

/// The id of a node's share: what it makes bears it, so that two shares on one engine are told apart.
fn id(job: &str, rank: u32) -> String {
    let end = format!("-node{rank}");
    let room = JOB_ID.saturating_sub(end.len());
    let start: String = job.chars().take(room).collect();
    format!("{}{end}", start.trim_end_matches(['-', '.']))
}

/// The job as the inner target gets it: of one node, with what is known here.
fn assemble(node: &Node, directory: &Path, inventory: Option<&Inventory>, accelerators: Option<Attachment>) -> Job {
    let Node { share, rank, context, .. } = node;
    let (described, orders) = (&share.job, &share.node);
    let entry = |name: &str, value: String| Entry { name: name.to_owned(), value };
    let mut extra: Vec<Entry> = orders.extra.iter().cloned().map(Entry::from).collect();
    extra.push(entry("node", rank.to_string()));
    let profile = if described.profile.is_empty() { &orders.profile } else { &described.profile };
    let role = described.roles.iter().find(|role| role.node == *rank).cloned().map(NodeRole::from);
    let mut options = JobOptions::empty();
    if described.skip_model {
        options |= JobOptions::SKIP_MODEL;
    }
    Job {
        run_id: described.run_id.clone(),
        id: id(&described.id, *rank),
        model: described.model.clone(),
        card: described.card.to_string(),
        image: orders.image.clone().or_else(|| described.image.clone()).map(Into::into),
        topology: Topology {
            nodes: 1,
            processes_per_node: described.processes_per_node,
            gpus_per_node: described.gpus_per_node,
            launcher: described.launcher.clone(),
            main_port: described.main_port,
            roles: role.into_iter().collect(),
        },
        script: Script::from(described.script.clone()),
        env: variables(node, inventory),
        accelerators,
        time_limit: described.time_limit,
        paths: JobPaths {
            directory: directory.display().to_string(),
            workspace: job::workspace(directory).display().to_string(),
            work_directory: described.work_directory.clone(),
            tree: context.roots.tree.display().to_string(),
        },
        profile: profile.clone(),
        options,
        collect: described.collect.clone(),
        config: described.config.to_string(),
        extra,
    }
}

/// The job's variables, in order: a later one of the same name wins, so the job's own come last.
fn variables(node: &Node, inventory: Option<&Inventory>) -> Vec<EnvVar> {
    let Node { share, rank, context, .. } = node;
    let environment = &context.environment;
    let text = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: EnvValue::Text(value.to_owned()) };
    let given = |variable: &Variable| match variable {
        Variable::Known { name, value } => text(name, value),
        Variable::There { name, variable } => text(name, environment.get(variable).unwrap_or_default()),
    };
    let of_node = usize::try_from(*rank).ok().and_then(|rank| share.node.by_node.get(rank));
    let detected = inventory.into_iter().flat_map(|inventory| &inventory.variables);
    detected
        .map(|entry| text(&entry.name, &entry.value))
        .chain(OF_SURROUNDINGS.iter().filter_map(|name| Some(text(name, environment.get(name)?))))
        .chain(share.node.variables.iter().map(given))
        .chain(of_node.into_iter().flatten().map(given))
        .chain(share.job.env.iter().cloned().map(Into::into))
        .collect()
}

/// The secrets that came along as variables.
#[must_use]
pub fn secrets(share: &Share, environment: &Environment) -> Vec<(String, String)> {
    let of_job = share.job.env.iter().filter_map(|variable| match variable {
        super::file::Env::Secret { name, secret } => Some((secret, name)),
        super::file::Env::Text { .. } => None,
    });
    let of_target = share.node.secrets.iter().map(|secret| (&secret.name, &secret.variable));
    of_job
        .chain(of_target)
        .filter_map(|(secret, variable)| Some((secret.clone(), environment.get(variable)?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_share_fits_and_ends_with_its_node() {
        assert_eq!(id("0-m", 12), "0-m-node12");
        let long = id(&"a".repeat(40), 7);
        assert_eq!((long.len(), long.ends_with("a-node7")), (40, true));
    }

    #[test]
    fn what_never_ran_is_no_exit_of_the_model() {
        let outcome = outcome(&Executed::default());
        assert_eq!((outcome.code, outcome.cause), (CANNOT, "never-started"));
    }
}
