//! From the cluster's objects to what a snapshot says. Total: a word that nobody knows is handed on, and is no end.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use maddock_bindings::api::kube::{self as wit, JobState};
use maddock_bindings::api::types::Entry;

/// Where the index of a pod stands.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A Job without its pods.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobView {
    pub(super) state: JobState,
    pub(super) active: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

impl JobView {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, JobState::Complete | JobState::Failed(_))
    }
}

fn count(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn job(job: &Job) -> JobView {
    let status = job.status.as_ref();
    let count_of = |pick: fn(&k8s_openapi::api::batch::v1::JobStatus) -> Option<i32>| count(status.and_then(pick));
    let (active, succeeded, failed) =
        (count_of(|status| status.active), count_of(|status| status.succeeded), count_of(|status| status.failed));
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |word: &str| conditions.iter().find(|found| found.type_ == word && found.status == "True");
    let state = if let Some(failure) = holds("Failed") {
        JobState::Failed(Entry {
            name: failure.reason.clone().unwrap_or_default(),
            value: failure.message.clone().unwrap_or_default(),
        })
    } else if holds("Complete").is_some() {
        JobState::Complete
    } else if holds("Suspended").is_some() || job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) {
        JobState::Suspended
    } else if active + succeeded + failed == 0 {
        JobState::Waiting
    } else {
        JobState::Active
    };
    JobView { state, active, succeeded, failed }
}

/// The Job that a pod belongs to, by name and identity.
pub(super) fn job_of(metadata: &ObjectMeta) -> Option<(String, String)> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Job")?;
    Some((owner.name.clone(), owner.uid.clone()))
}

fn time(time: Option<&Time>) -> String {
    time.map(|time| time.0.to_string()).unwrap_or_default()
}

pub(super) fn pod(pod: &Pod) -> wit::Pod {
    let metadata = &pod.metadata;
    let index = [metadata.annotations.as_ref(), metadata.labels.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|map| map.get(INDEX)?.parse().ok())
        .unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let condition = |kind: &str, holds: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == kind && condition.status == holds)
    };
    // Who takes a pod away says so in a condition, and only some of them in the status as well.
    let about = condition("DisruptionTarget", "True").or_else(|| condition("PodScheduled", "False"));
    let or = |own: Option<&String>, other: Option<&String>| {
        own.filter(|text| !text.is_empty()).or(other).cloned().unwrap_or_default()
    };
    let reason = or(status.reason.as_ref(), about.and_then(|condition| condition.reason.as_ref()));
    let message = or(status.message.as_ref(), about.and_then(|condition| condition.message.as_ref()));
    let started = |all: Option<Vec<ContainerStatus>>, init: bool| {
        all.unwrap_or_default().into_iter().map(move |status| container(status, init))
    };
    wit::Pod {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        index,
        phase: status.phase.unwrap_or_else(|| "Unknown".to_owned()),
        reason,
        message,
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        containers: started(status.init_container_statuses, true)
            .chain(started(status.container_statuses, false))
            .collect(),
        created: time(metadata.creation_timestamp.as_ref()),
        deleted: metadata.deletion_timestamp.is_some(),
    }
}

fn container(status: ContainerStatus, init: bool) -> wit::ContainerState {
    let state = status.state.unwrap_or_default();
    let mut view = wit::ContainerState {
        name: status.name,
        init,
        state: "waiting".to_owned(),
        reason: String::new(),
        message: String::new(),
        exit_code: None,
        signal: None,
        restarts: count(Some(status.restart_count)),
        started: String::new(),
        finished: String::new(),
        image_digest: digest(&status.image_id),
    };
    match state {
        ContainerState { terminated: Some(end), .. } => {
            view.state = "terminated".to_owned();
            view.reason = end.reason.unwrap_or_default();
            view.message = end.message.unwrap_or_default();
            view.exit_code = Some(end.exit_code);
            view.signal = end.signal.filter(|signal| *signal != 0);
            view.started = time(end.started_at.as_ref());
            view.finished = time(end.finished_at.as_ref());
        }
        ContainerState { running: Some(running), .. } => {
            view.state = "running".to_owned();
            view.started = time(running.started_at.as_ref());
        }
        ContainerState { waiting: Some(waiting), .. } => {
            view.reason = waiting.reason.unwrap_or_default();
            view.message = waiting.message.unwrap_or_default();
        }
        _ => {}
    }
    view
}

/// `sha256:…` of `registry/name@sha256:…`, or of an image that no registry has.
fn digest(image: &str) -> String {
    image.find("sha256:").and_then(|at| image.get(at..)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(value: serde_json::Value) -> JobState {
        job(&serde_json::from_value(value).unwrap()).state
    }

    fn with(status: serde_json::Value) -> serde_json::Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "status": status})
    }

    #[test]
    fn a_job_has_ended_when_a_condition_says_so_and_not_by_its_counts() {
        assert_eq!(state(with(json!({}))), JobState::Waiting);
        assert_eq!(state(with(json!({"active": 1}))), JobState::Active);
        assert_eq!(state(with(json!({"succeeded": 1}))), JobState::Active);
        assert_eq!(state(with(json!({"failed": 7}))), JobState::Active);
        let condition = |word: &str, holds: &str| json!({"conditions": [{"type": word, "status": holds, "reason": "R", "message": "m"}]});
        assert_eq!(state(with(condition("Complete", "True"))), JobState::Complete);
        assert_eq!(state(with(condition("Complete", "False"))), JobState::Waiting);
        assert_eq!(state(with(condition("FailureTarget", "True"))), JobState::Waiting);
        assert_eq!(state(with(condition("Suspended", "True"))), JobState::Suspended);
        let JobState::Failed(why) = state(with(condition("Failed", "True"))) else { panic!("it failed") };
        assert_eq!((why.name.as_str(), why.value.as_str()), ("R", "m"));
    }

    #[test]
    fn a_pod_tells_its_index_its_end_and_what_runs_in_it() {
        let text = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "uid": "u", "annotations": {INDEX: "3"}},
            "status": {"phase": "Failed", "containerStatuses": [{
                "name": "main", "image": "x", "imageID": "r.example/x@sha256:ab", "ready": false, "restartCount": 2,
                "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-31T12:00:00Z"}}}]}});
        let view = pod(&serde_json::from_value(text).unwrap());
        assert_eq!((view.index, view.phase.as_str()), (3, "Failed"));
        let container = &view.containers[0];
        assert_eq!((container.exit_code, container.reason.as_str(), container.restarts), (Some(137), "OOMKilled", 2));
        assert_eq!(container.image_digest, "sha256:ab");
        assert_eq!(container.finished, "2026-01-31T12:00:00Z");
    }

    #[test]
    fn a_pod_that_is_taken_away_says_by_whom() {
        let taken = |more: serde_json::Value| {
            let mut status = json!({"phase": "Running", "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for another"}]});
            status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": status});
            let view = pod(&serde_json::from_value(text).unwrap());
            (view.reason, view.message)
        };
        assert_eq!(taken(json!({})), ("PreemptionByScheduler".into(), "for another".into()));
        assert_eq!(taken(json!({"reason": "Evicted", "message": "disk"})), ("Evicted".into(), "disk".into()));
        let over = json!({"conditions": [{"type": "DisruptionTarget", "status": "False", "reason": "X"}]});
        assert_eq!(taken(over), (String::new(), String::new()));
    }

    #[test]
    fn a_pod_that_finds_no_node_says_why() {
        let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}});
        let view = pod(&serde_json::from_value(text).unwrap());
        assert_eq!((view.reason.as_str(), view.message.as_str()), ("Unschedulable", "0/1 nodes"));
    }
}
