//! What is known about a Job, as the kernel says it: where it is, what is wrong with it, and how it ended. Total: every state
//! of the Job, of its pods and of their containers has a meaning, and what is not known is never taken for success.

use std::collections::BTreeSet;

use maddock_sdk::events::Phase;
use maddock_sdk::job_result::JobResult;
use maddock_sdk::kube::{ContainerState, JobState, Pod, Snapshot};
use maddock_sdk::local;
use maddock_sdk::target::{Cause, Ending, NodeEnding};

use crate::objects::MODEL;

/// Why a container does not begin, in the cluster's words; a person or time may mend it.
const CANNOT_START: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// The same, where time mends nothing.
const NEVER_STARTS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// Why a pod was taken away: in its status, or, since clusters say so in a condition, in that.
const TAKEN: [&str; 14] = [
    "Evicted",
    "NodeLost",
    "NodeShutdown",
    "Shutdown",
    "Terminated",
    "Preempting",
    "Preempted",
    "DisruptionTarget",
    "PreemptionByScheduler",
    "PreemptionByKubeScheduler",
    "EvictionByEvictionAPI",
    "DeletionByTaintManager",
    "TerminationByKubelet",
    "DeletionByPodGC",
];
/// What the cluster says where pods of a namespace have to be of a kind that these are not.
const POD_SECURITY: &str = "violates PodSecurity";
/// What the cluster says of a pod whose node does not answer.
pub const NODE_NOT_READY: &str = "NodeNotReady";
/// Why a node did not take a pod that it was given.
const NOT_TAKEN: [&str; 5] = ["UnexpectedAdmissionError", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods"];

/// What keeps a job from beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A container of it does not start; `true` where it never will.
    CannotStart(String, bool),
    /// No node takes it.
    Unplaced(String),
}

/// Why a job is not waited for any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// It does not begin.
    Trouble(Trouble),
    /// The cluster should have ended it so many seconds after its beginning, and did not.
    Overdue(u64),
}

impl Trouble {
    /// In words.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::CannotStart(reason, _) | Self::Unplaced(reason) => reason,
        }
    }
}

impl GivenUp {
    /// In words.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Trouble(trouble) => trouble.reason().to_owned(),
            Self::Overdue(seconds) => format!("the cluster did not end it at its deadline of {seconds} s"),
        }
    }
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// In the kernel's words.
    pub phase: Phase,
    /// In the cluster's.
    pub reason: String,
    /// What keeps it from beginning.
    pub trouble: Option<Trouble>,
}

/// The newest pod of an index.
#[must_use]
pub fn newest(snapshot: &Snapshot, index: u32) -> Option<&Pod> {
    let of_index = snapshot.pods.iter().filter(|pod| pod.index == index);
    of_index.max_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)))
}

/// The container that runs the model.
#[must_use]
pub fn model(pod: &Pod) -> Option<&ContainerState> {
    pod.containers.iter().find(|container| container.name == MODEL)
}

/// Whether it has ended.
#[must_use]
pub fn has_ended(container: &ContainerState) -> bool {
    container.state == "terminated"
}

/// Whether the Job has ended, or nothing more will be heard of it.
#[must_use]
pub fn is_over(snapshot: &Snapshot) -> bool {
    match snapshot.state {
        JobState::Complete | JobState::Failed(_) | JobState::Gone | JobState::LostSight => true,
        JobState::Waiting | JobState::Active | JobState::Suspended => false,
    }
}

/// Whether every node's model has ended. The Job has not, while its pods keep their results.
#[must_use]
pub fn models_have_ended(snapshot: &Snapshot, nodes: u32) -> bool {
    (0..nodes).all(|node| newest(snapshot, node).and_then(model).is_some_and(has_ended))
}

/// What the model's container left as its outcome.
#[must_use]
pub fn result(pod: &Pod) -> Option<JobResult> {
    JobResult::parse(&model(pod).filter(|container| has_ended(container))?.message).ok()
}

fn with(what: &str, message: &str) -> String {
    let message = message.trim();
    if message.is_empty() { what.to_owned() } else { format!("{what}: {message}") }
}

fn warning<'a>(snapshot: &'a Snapshot, names: &[&str]) -> Option<&'a str> {
    let found = snapshot.warnings.iter().find(|warning| names.contains(&warning.name.as_str()));
    found.map(|warning| warning.value.as_str())
}

/// What keeps one pod from beginning.
fn trouble(pod: &Pod) -> Option<Trouble> {
    if pod.deleted {
        return None;
    }
    for container in pod.containers.iter().filter(|container| container.state == "waiting") {
        let reason = container.reason.as_str();
        let never = NEVER_STARTS.contains(&reason);
        if never || CANNOT_START.contains(&reason) {
            return Some(Trouble::CannotStart(with(reason, &container.message), never));
        }
    }
    is_unplaced(pod).then(|| Trouble::Unplaced(with("no node takes the pod", &pod.message)))
}

fn is_unplaced(pod: &Pod) -> bool {
    pod.phase == "Pending" && pod.node_name.is_empty() && pod.reason == "Unschedulable"
}

/// Whether a pod's model may have begun, and left something.
#[must_use]
pub fn may_have_begun(pod: &Pod) -> bool {
    match model(pod) {
        Some(model) => !model.started.is_empty(),
        // Its node has said nothing of it yet; of one that has no node nothing is to be said.
        None => !pod.node_name.is_empty(),
    }
}

/// Where a job of `nodes` pods is.
#[must_use]
pub fn standing(snapshot: &Snapshot, nodes: u32) -> Standing {
    let pods: Vec<&Pod> = (0..nodes).filter_map(|index| newest(snapshot, index)).collect();
    let plain = |phase, reason: &str| Standing { phase, reason: reason.to_owned(), trouble: None };
    match &snapshot.state {
        JobState::Complete => plain(Phase::Ended, "complete"),
        JobState::Failed(why) => plain(Phase::Ended, &with(&why.name, &why.value)),
        JobState::Gone => plain(Phase::Ended, "the Job is not there any more"),
        JobState::LostSight => plain(Phase::Unknown, "the API server does not answer"),
        JobState::Suspended => plain(Phase::Suspended, "the Job is suspended"),
        JobState::Waiting | JobState::Active => {
            let troubles: Vec<Trouble> = pods.iter().filter_map(|pod| trouble(pod)).collect();
            let worst =
                troubles.iter().find(|trouble| matches!(trouble, Trouble::CannotStart(..))).or(troubles.first());
            if let Some(trouble) = worst {
                let phase = match trouble {
                    Trouble::CannotStart(..) => Phase::Starting,
                    Trouble::Unplaced(_) => Phase::Queued,
                };
                return Standing { phase, reason: trouble.reason().to_owned(), trouble: Some(trouble.clone()) };
            }
            let all = usize::try_from(nodes).unwrap_or(usize::MAX);
            if pods.len() < all
                && let Some(message) = warning(snapshot, &["FailedCreate"])
            {
                return not_made(message, pods.len(), all);
            }
            if pods.is_empty() {
                return plain(Phase::Queued, "no pod has been made yet");
            }
            let models: Vec<&ContainerState> = pods.iter().filter_map(|pod| model(pod)).collect();
            let of = |state: &str| models.iter().filter(|container| container.state == state).count();
            let (running, ended) = (of("running"), of("terminated"));
            let counted = |count: usize| if all == 1 { String::new() } else { format!("{count} of {all} pods") };
            if ended >= all {
                plain(Phase::Finishing, "bringing results")
            } else if running.saturating_add(ended) >= all {
                plain(Phase::Running, &places(&pods))
            } else if pods.iter().all(|pod| pod.node_name.is_empty()) {
                plain(Phase::Queued, "waiting for a node")
            } else {
                let mounting = warning(snapshot, &["FailedMount", "FailedAttachVolume"]);
                let doing = pods.iter().flat_map(|pod| &pod.containers).find(|container| container.state == "waiting");
                let doing = doing.map(|container| container.reason.as_str()).filter(|reason| !reason.is_empty());
                let reason = with(doing.unwrap_or("preparing"), &counted(running));
                plain(Phase::Starting, &mounting.map_or(reason, |message| with("volumes", message)))
            }
        }
    }
}

/// The cluster refuses to make pods of which `made` of `all` are there.
fn not_made(message: &str, made: usize, all: usize) -> Standing {
    let what = match made {
        0 => "the cluster makes no pod".to_owned(),
        made => format!("the cluster makes no more than {made} of {all} pods"),
    };
    let mut reason = with(&what, message);
    let never = message.contains(POD_SECURITY);
    if never {
        reason.push_str("; `--container-profile restricted` makes pods that the level `restricted` takes");
    }
    let trouble = Some(Trouble::CannotStart(reason.clone(), never));
    Standing { phase: Phase::Queued, reason, trouble }
}

fn places(pods: &[&Pod]) -> String {
    let mut names: Vec<&str> = pods.iter().map(|pod| pod.node_name.as_str()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    format!("on {}", names.join(", "))
}

/// How one pod ended.
fn of_pod(pod: &Pod) -> (Cause, String) {
    let reason = pod.reason.as_str();
    // One whose model has come to a good end before, or while it was asked to go, has lost nothing.
    let well = model(pod).is_some_and(|container| has_ended(container) && container.exit_code == Some(0));
    if TAKEN.contains(&reason) && !well {
        return (Cause::Lost, with(&format!("the pod was taken away ({reason})"), &pod.message));
    }
    if NOT_TAKEN.contains(&reason) {
        return (Cause::NeverStarted, with(&format!("the node did not take the pod ({reason})"), &pod.message));
    }
    if let Some(container) = model(pod).filter(|container| has_ended(container)) {
        return of_container(pod, container);
    }
    let prepared = pod.containers.iter().find(|container| container.init && has_ended(container));
    if let Some(failed) = prepared.filter(|container| container.exit_code.is_some_and(|code| code != 0)) {
        let code = failed.exit_code.unwrap_or_default();
        return (Cause::NeverStarted, with(&format!("preparing the pod failed with code {code}"), &failed.message));
    }
    if let Some(trouble) = trouble(pod) {
        return (Cause::NeverStarted, trouble.reason().to_owned());
    }
    let running = model(pod).is_some_and(|container| container.state == "running");
    match (pod.phase.as_str(), pod.deleted) {
        ("Unknown", _) => (Cause::Lost, "its node does not answer any more".to_owned()),
        (_, true) if running => (Cause::Lost, "the pod was deleted while it ran".to_owned()),
        (_, true) if is_unplaced(pod) => (Cause::NeverStarted, with("no node took the pod", &pod.message)),
        (_, true) => (Cause::NeverStarted, "the pod was deleted before the model began".to_owned()),
        ("Pending", false) => (Cause::NeverStarted, with("the pod has not begun", &pod.message)),
        ("Failed", false) => (Cause::Lost, with("the pod failed without an outcome", &with(reason, &pod.message))),
        (_, false) => (Cause::Unknown, "it left no outcome".to_owned()),
    }
}

fn of_container(pod: &Pod, container: &ContainerState) -> (Cause, String) {
    let result = result(pod);
    match (container.reason.as_str(), container.signal, container.exit_code) {
        ("OOMKilled", ..) => (Cause::Lost, "it used more memory than its limit".to_owned()),
        ("ContainerCannotRun" | "StartError", ..) => {
            (Cause::NeverStarted, with("the container does not run", &container.message))
        }
        ("ContainerStatusUnknown", ..) => (Cause::Lost, with("its node does not know it any more", &container.message)),
        (_, Some(signal), _) if result.is_none() => (Cause::Signalled(signal), format!("ended by signal {signal}")),
        (_, _, Some(code)) => local::outcome(code, result.as_ref()),
        (_, _, None) => (Cause::Unknown, "it left no exit code".to_owned()),
    }
}

/// Whether it ended as a job should.
fn is_good(cause: &Cause) -> bool {
    matches!(cause, Cause::Exited(0))
}

/// How the job `name` of `nodes` pods ended. The cluster deletes it by itself `ttl` seconds after that. `given_up` says why nobody waited for it any longer.
#[must_use]
pub fn ending(
    name: &str,
    snapshot: &Snapshot,
    nodes: u32,
    ttl: Option<u64>,
    given_up: Option<&GivenUp>,
    log_complete: bool,
) -> Ending {
    let complete = matches!(snapshot.state, JobState::Complete);
    let endings: Vec<NodeEnding> = (0..nodes)
        .map(|node| match newest(snapshot, node) {
            Some(pod) => {
                let (cause, message) = of_pod(pod);
                NodeEnding { node, name: pod.name.clone(), cause, message }
            }
            // The cluster has seen all of them succeed.
            None if complete => {
                NodeEnding { node, name: String::new(), cause: Cause::Exited(0), message: String::new() }
            }
            None => NodeEnding {
                node,
                name: String::new(),
                cause: Cause::NeverStarted,
                message: "it had no pod".to_owned(),
            },
        })
        .collect();
    let (cause, message) = cause(name, snapshot, &endings, ttl, given_up);
    let seconds = (0..nodes).filter_map(|node| result(newest(snapshot, node)?)?.seconds);
    Ending { cause, message, duration: seconds.reduce(f64::max), nodes: endings, log_complete }
}

/// Pods that were taken away while they ran, and have a successor: each with what is known of it.
#[must_use]
pub fn replaced(snapshot: &Snapshot) -> Vec<(&Pod, &Pod)> {
    let by_another = |pod: &Pod| newest(snapshot, pod.index).is_some_and(|last| last.name != pod.name);
    let ran = |pod: &Pod| model(pod).is_some_and(|model| !model.started.is_empty());
    let taken = |pod: &Pod| pod.deleted || TAKEN.contains(&pod.reason.as_str());
    let pods = snapshot.pods.iter().filter(|pod| by_another(pod) && ran(pod) && taken(pod));
    pods.filter_map(|pod| Some((pod, newest(snapshot, pod.index)?))).collect()
}

/// The node of a job's pods, or that it is one of them.
#[must_use]
pub fn where_it_runs(snapshot: &Snapshot) -> String {
    let nodes: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.node_name.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().filter(|node| !node.is_empty()).collect();
    match nodes.as_slice() {
        [node] => format!("node {node}"),
        nodes => format!("one of the nodes {}", nodes.join(", ")),
    }
}

/// What became of the places that the job ran at, as far as it explains why it did not end by itself.
fn lost_places(snapshot: &Snapshot) -> String {
    let taken: Vec<String> = replaced(snapshot)
        .iter()
        .map(|(pod, _)| format!("pod {} was taken away from {}", pod.name, pod.node_name))
        .collect();
    match warning(snapshot, &[NODE_NOT_READY]) {
        _ if !taken.is_empty() => taken.join(", "),
        Some(message) => with(&format!("{} does not answer", where_it_runs(snapshot)), message),
        None => String::new(),
    }
}

fn cause(
    name: &str,
    snapshot: &Snapshot,
    nodes: &[NodeEnding],
    ttl: Option<u64>,
    given_up: Option<&GivenUp>,
) -> (Cause, String) {
    let ran = |pod: &Pod| model(pod).is_some_and(|model| !model.started.is_empty());
    let began = nodes.iter().any(|node| !matches!(node.cause, Cause::NeverStarted)) || snapshot.pods.iter().any(ran);
    let waited =
        || nodes.iter().map(|node| node.message.as_str()).find(|message| !message.is_empty()).unwrap_or_default();
    if let Some(given_up) = given_up {
        let (lost, why) = (lost_places(snapshot), given_up.reason());
        let cause = match (began, given_up) {
            (false, _) => Cause::NeverStarted,
            (true, GivenUp::Trouble(_)) => Cause::Lost,
            (true, GivenUp::Overdue(_)) => Cause::TimedOut,
        };
        let why = match given_up {
            _ if !lost.is_empty() => format!("{lost}; {why}"),
            GivenUp::Overdue(_) if !began => with(&why, waited()),
            _ => why,
        };
        return (cause, format!("Job {name} was given up: {why}"));
    }
    match &snapshot.state {
        JobState::Complete => by_nodes(snapshot, nodes).unwrap_or((Cause::Exited(0), String::new())),
        JobState::Failed(why) if why.name == "DeadlineExceeded" => {
            if began {
                return (Cause::TimedOut, with(&format!("Job {name} reached its deadline"), &lost_places(snapshot)));
            }
            (Cause::NeverStarted, with(&format!("Job {name} reached its deadline before it began"), waited()))
        }
        JobState::Failed(why) => by_nodes(snapshot, nodes)
            .unwrap_or_else(|| (Cause::Unknown, with(&format!("Job {name} failed ({})", why.name), &why.value))),
        // Whoever comes later than the cluster itself cannot tell an end from a deletion.
        JobState::Gone => match ttl {
            None => (Cause::Cancelled, format!("Job {name} was deleted")),
            Some(_) if all_known(nodes) => by_nodes(snapshot, nodes).unwrap_or((Cause::Exited(0), String::new())),
            Some(seconds) => {
                let by =
                    format!("perhaps by the cluster, {seconds} s after its end (`k8s.ttl_seconds_after_finished`)");
                (Cause::Unknown, format!("Job {name} was deleted, {by}"))
            }
        },
        JobState::LostSight => {
            if all_known(nodes) {
                // All that the cluster could say has been said by the pods.
                return by_nodes(snapshot, nodes).unwrap_or((Cause::Exited(0), String::new()));
            }
            (Cause::Unknown, format!("Job {name} is lost sight of: the API server does not answer"))
        }
        JobState::Waiting | JobState::Active | JobState::Suspended
            if nodes.iter().all(|node| newest(snapshot, node.node).and_then(model).is_some_and(has_ended)) =>
        {
            by_nodes(snapshot, nodes).unwrap_or((Cause::Exited(0), String::new()))
        }
        // These are no ends; whoever asks for one has not waited.
        JobState::Waiting | JobState::Active | JobState::Suspended => {
            (Cause::Unknown, format!("Job {name} has not ended"))
        }
    }
}

/// Whether every node's model is known to have ended by itself.
fn all_known(nodes: &[NodeEnding]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| matches!(node.cause, Cause::Exited(_)))
}

/// The pod that failed by itself decides, before those that were taken along by it; none where all ended well.
fn by_nodes(snapshot: &Snapshot, nodes: &[NodeEnding]) -> Option<(Cause, String)> {
    let taken_along = |node: &&NodeEnding| newest(snapshot, node.node).is_none_or(|pod| pod.deleted);
    let bad: Vec<&NodeEnding> = nodes.iter().filter(|node| !is_good(&node.cause)).collect();
    let by_itself: Vec<&NodeEnding> = bad.iter().filter(|node| !taken_along(node)).copied().collect();
    let candidates = if by_itself.is_empty() { &bad } else { &by_itself };
    let finished = |node: &&NodeEnding| {
        let pod = newest(snapshot, node.node);
        let finished = pod.and_then(model).map(|container| container.finished.clone()).unwrap_or_default();
        // One that has no time of an end comes after those that have.
        (finished.is_empty(), finished, node.node)
    };
    let first = candidates.iter().copied().min_by_key(finished)?;
    if nodes.len() == 1 {
        return Some((first.cause, first.message.clone()));
    }
    let code = match first.cause {
        Cause::Exited(code) => format!(" with code {code}"),
        _ => String::new(),
    };
    Some((first.cause, with(&format!("node {} ({}) failed{code}", first.node, first.name), &first.message)))
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
