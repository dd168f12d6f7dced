use maddock_sdk::types::Entry;

use super::*;

fn container(state: &str, reason: &str, code: Option<i32>, message: &str) -> ContainerState {
    ContainerState {
        name: MODEL.into(),
        init: false,
        state: state.into(),
        reason: reason.into(),
        message: message.into(),
        exit_code: code,
        signal: None,
        restarts: 0,
        started: if state == "waiting" { String::new() } else { "2026-01-01T00:00:00Z".into() },
        finished: if state == "terminated" { "2026-01-01T00:01:00Z".into() } else { String::new() },
        image_digest: String::new(),
    }
}

fn pod(index: u32, phase: &str, model: ContainerState) -> Pod {
    Pod {
        name: format!("j-{index}-abcde"),
        uid: String::new(),
        index,
        phase: phase.into(),
        reason: String::new(),
        message: String::new(),
        node_name: if phase == "Pending" { String::new() } else { "node-a".into() },
        containers: vec![model],
        created: "2026-01-01T00:00:00Z".into(),
        deleted: false,
    }
}

fn ended(index: u32, code: i32) -> Pod {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let message = format!("exit={code}\nstage=model\nmodel={code}\nseconds=2.5\n");
    pod(index, phase, container("terminated", if code == 0 { "Completed" } else { "Error" }, Some(code), &message))
}

fn running(index: u32) -> Pod {
    pod(index, "Running", container("running", "", None, ""))
}

fn waiting(reason: &str) -> Pod {
    pod(0, "Pending", container("waiting", reason, None, "message"))
}

fn unplaced() -> Pod {
    Pod { reason: "Unschedulable".into(), message: "0/1 nodes".into(), containers: Vec::new(), ..waiting("") }
}

fn taken(reason: &str) -> Pod {
    Pod { reason: reason.into(), phase: "Failed".into(), ..ended(0, 137) }
}

fn snapshot(state: JobState, pods: Vec<Pod>) -> Snapshot {
    Snapshot { uid: String::new(), state, active: 0, succeeded: 0, failed: 0, pods, warnings: Vec::new(), change: 1 }
}

fn failed(reason: &str) -> JobState {
    JobState::Failed(Entry { name: reason.into(), value: "message".into() })
}

fn cause_of(state: JobState, pods: Vec<Pod>) -> Cause {
    let nodes = pods.iter().map(|pod| pod.index + 1).max().unwrap_or(1);
    ending("j", &snapshot(state, pods), nodes, None, None, true).cause
}

#[test]
fn every_end_of_a_job_of_one_pod_has_a_cause() {
    let over_limit = || failed("BackoffLimitExceeded");
    let deleted = |pod: Pod| Pod { deleted: true, ..pod };
    let init = |code: i32| {
        let mut failed = container("terminated", "Error", Some(code), "no room");
        failed.init = true;
        failed.name = "workspace".into();
        Pod {
            phase: "Failed".into(),
            containers: vec![failed, container("waiting", "PodInitializing", None, "")],
            ..running(0)
        }
    };
    let oom = pod(0, "Failed", container("terminated", "OOMKilled", Some(137), ""));
    let no_bash = pod(0, "Failed", container("terminated", "Error", Some(127), ""));
    let no_result = pod(0, "Failed", container("terminated", "Error", Some(3), ""));
    let late = pod(0, "Failed", container("terminated", "Error", Some(143), "exit=143\nstage=timed-out\n"));
    let start_error = pod(0, "Failed", container("terminated", "StartError", Some(128), "no such file"));
    let vanished = pod(0, "Failed", container("terminated", "ContainerStatusUnknown", Some(137), ""));
    let mut signalled = container("terminated", "Error", Some(137), "");
    signalled.signal = Some(9);
    let well_taken = Pod { reason: "EvictionByEvictionAPI".into(), deleted: true, ..ended(0, 0) };
    for (case, state, pod, expected) in [
        ("well", JobState::Complete, Some(ended(0, 0)), Cause::Exited(0)),
        ("well, pod gone", JobState::Complete, None, Cause::Exited(0)),
        ("failed", over_limit(), Some(ended(0, 7)), Cause::Exited(7)),
        ("failed without a word", over_limit(), Some(no_result), Cause::Exited(3)),
        ("own limit", over_limit(), Some(late), Cause::TimedOut),
        ("no bash", over_limit(), Some(no_bash), Cause::NeverStarted),
        ("memory", over_limit(), Some(oom), Cause::Lost),
        ("evicted", over_limit(), Some(taken("Evicted")), Cause::Lost),
        ("preempted by the scheduler", over_limit(), Some(taken("PreemptionByScheduler")), Cause::Lost),
        ("evicted by a drain", over_limit(), Some(taken("EvictionByEvictionAPI")), Cause::Lost),
        ("a taint", over_limit(), Some(taken("DeletionByTaintManager")), Cause::Lost),
        ("a node that is shut down", over_limit(), Some(taken("TerminationByKubelet")), Cause::Lost),
        ("a node that is gone", over_limit(), Some(taken("DeletionByPodGC")), Cause::Lost),
        ("asked to go when it had ended well", JobState::Complete, Some(well_taken), Cause::Exited(0)),
        ("node lost", over_limit(), Some(taken("NodeLost")), Cause::Lost),
        ("preempted", over_limit(), Some(taken("Preempting")), Cause::Lost),
        ("not admitted", over_limit(), Some(taken("OutOfcpu")), Cause::NeverStarted),
        ("init failed", over_limit(), Some(init(1)), Cause::NeverStarted),
        ("start error", over_limit(), Some(start_error), Cause::NeverStarted),
        ("status unknown", over_limit(), Some(vanished), Cause::Lost),
        ("signalled", over_limit(), Some(pod(0, "Failed", signalled)), Cause::Signalled(9)),
        ("pod deleted", over_limit(), Some(deleted(running(0))), Cause::Lost),
        ("failed, no pod", over_limit(), None, Cause::NeverStarted),
        ("deadline", failed("DeadlineExceeded"), Some(deleted(running(0))), Cause::TimedOut),
        ("deadline in the queue", failed("DeadlineExceeded"), Some(deleted(unplaced())), Cause::NeverStarted),
        ("deleted", JobState::Gone, Some(deleted(running(0))), Cause::Cancelled),
        ("lost sight", JobState::LostSight, Some(running(0)), Cause::Unknown),
        ("lost sight after its end", JobState::LostSight, Some(ended(0, 5)), Cause::Exited(5)),
        ("lost sight of nothing", JobState::LostSight, None, Cause::Unknown),
        ("not ended", JobState::Active, Some(running(0)), Cause::Unknown),
        ("not begun", JobState::Waiting, None, Cause::Unknown),
        ("suspended", JobState::Suspended, None, Cause::Unknown),
    ] {
        assert_eq!(cause_of(state, pod.into_iter().collect()), expected, "{case}");
    }
}

#[test]
fn one_pod_that_succeeded_of_two_is_no_success() {
    let seen = snapshot(JobState::Active, vec![ended(0, 0), running(1)]);
    assert!(!is_over(&seen));
    assert_eq!(standing(&seen, 2).phase, Phase::Running);
    assert_eq!(cause_of(failed("BackoffLimitExceeded"), vec![ended(0, 0), ended(1, 4)]), Cause::Exited(4));
}

#[test]
fn a_failed_pod_is_no_end_while_another_is_tried() {
    let again = Pod { name: "j-0-newer".into(), created: "2026-01-01T00:05:00Z".into(), ..ended(0, 0) };
    let seen = snapshot(JobState::Active, vec![ended(0, 7)]);
    assert!(!is_over(&seen));
    assert_eq!(cause_of(JobState::Complete, vec![again, ended(0, 7)]), Cause::Exited(0));
}

#[test]
fn the_pod_that_failed_by_itself_decides_and_not_those_it_took_along() {
    let peer = Pod { deleted: true, ..ended(0, 143) };
    let ending = ending("j", &snapshot(failed("BackoffLimitExceeded"), vec![peer, ended(1, 7)]), 2, None, None, true);
    assert_eq!(ending.cause, Cause::Exited(7));
    assert!(ending.message.contains("node 1 (j-1-abcde)"), "{}", ending.message);
    assert_eq!((ending.nodes.len(), ending.duration), (2, Some(2.5)));
}

#[test]
fn a_pod_that_is_not_there_never_began() {
    let ending = ending("j", &snapshot(failed("BackoffLimitExceeded"), vec![ended(0, 0)]), 2, None, None, true);
    assert_eq!((ending.cause, ending.nodes[1].cause), (Cause::NeverStarted, Cause::NeverStarted));
}

#[test]
fn a_job_that_was_given_up_never_started() {
    for pod in [waiting("ImagePullBackOff"), unplaced()] {
        let seen = snapshot(JobState::Active, vec![pod]);
        let trouble = standing(&seen, 1).trouble.map(GivenUp::Trouble);
        let ending = ending("j", &seen, 1, None, trouble.as_ref(), true);
        assert_eq!(ending.cause, Cause::NeverStarted);
        assert!(ending.message.contains("message") || ending.message.contains("0/1 nodes"), "{}", ending.message);
    }
}

/// A pod that ran and was taken away, and the one that came after it.
fn taken_and_unplaced() -> Vec<Pod> {
    let successor = Pod { name: "j-0-later".into(), created: "2026-01-01T00:05:00Z".into(), ..unplaced() };
    vec![Pod { deleted: true, ..running(0) }, successor]
}

#[test]
fn a_job_that_ran_and_finds_no_other_place_is_lost_and_names_the_first() {
    let seen = snapshot(JobState::Active, taken_and_unplaced());
    let trouble = standing(&seen, 1).trouble.map(GivenUp::Trouble);
    let ending = ending("j", &seen, 1, None, trouble.as_ref(), true);
    assert_eq!(ending.cause, Cause::Lost);
    assert!(ending.message.contains("j-0-abcde was taken away from node-a; no node takes"), "{}", ending.message);
}

#[test]
fn a_deadline_names_what_was_taken_away_before_it() {
    for (state, given_up) in
        [(failed("DeadlineExceeded"), None), (JobState::Active, Some(GivenUp::Overdue(30))), (JobState::Active, None)]
    {
        let told = given_up.is_some() || matches!(state, JobState::Failed(_));
        let ending = ending("j", &snapshot(state, taken_and_unplaced()), 1, None, given_up.as_ref(), true);
        assert_eq!(ending.cause, if told { Cause::TimedOut } else { Cause::Unknown });
        assert_eq!(ending.message.contains("j-0-abcde was taken away from node-a"), told, "{}", ending.message);
    }
    let mut silent = snapshot(failed("DeadlineExceeded"), vec![running(0)]);
    silent.warnings.push(Entry { name: NODE_NOT_READY.into(), value: "Node is not ready".into() });
    let ending = ending("j", &silent, 1, None, None, true);
    assert!(ending.message.contains("deadline: node node-a does not answer: Node is not ready"), "{}", ending.message);
}

#[test]
fn a_job_that_is_overdue_and_never_began_never_started() {
    let ending = ending("j", &snapshot(JobState::Active, vec![unplaced()]), 1, None, Some(&GivenUp::Overdue(30)), true);
    assert_eq!(ending.cause, Cause::NeverStarted);
    assert!(ending.message.contains("deadline of 30 s") && ending.message.contains("0/1 nodes"), "{}", ending.message);
}

#[test]
fn a_deadline_in_the_queue_says_what_was_waited_for_and_that_there_are_no_files() {
    let pod = Pod { deleted: true, ..unplaced() };
    assert!(!may_have_begun(&pod) && !may_have_begun(&waiting("ErrImagePull")) && may_have_begun(&running(0)));
    let ending = ending("j", &snapshot(failed("DeadlineExceeded"), vec![pod]), 1, None, None, true);
    assert!(ending.message.ends_with("before it began: no node took the pod: 0/1 nodes"), "{}", ending.message);
}

#[test]
fn a_pod_that_failed_by_itself_is_not_told_as_taken_away() {
    let successor = Pod { name: "j-0-later".into(), created: "2026-01-01T00:05:00Z".into(), ..running(0) };
    assert!(replaced(&snapshot(JobState::Active, vec![ended(0, 7), successor])).is_empty());
    assert_eq!(replaced(&snapshot(JobState::Active, taken_and_unplaced())).len(), 1);
}

#[test]
fn every_state_has_a_phase_and_what_hinders_is_named() {
    let never = Some(true);
    for (case, state, pods, phase, hindered) in [
        ("no pod", JobState::Waiting, vec![], Phase::Queued, None),
        ("unplaced", JobState::Active, vec![unplaced()], Phase::Queued, Some(false)),
        ("creating", JobState::Active, vec![waiting("ContainerCreating")], Phase::Queued, None),
        ("pulling fails", JobState::Active, vec![waiting("ErrImagePull")], Phase::Starting, Some(false)),
        ("configuration", JobState::Active, vec![waiting("CreateContainerConfigError")], Phase::Starting, Some(false)),
        ("no such image", JobState::Active, vec![waiting("ErrImageNeverPull")], Phase::Starting, never),
        ("running", JobState::Active, vec![running(0)], Phase::Running, None),
        (
            "its results wait",
            JobState::Active,
            vec![Pod { phase: "Running".into(), ..ended(0, 0) }],
            Phase::Finishing,
            None,
        ),
        ("complete", JobState::Complete, vec![ended(0, 0)], Phase::Ended, None),
        ("failed", failed("X"), vec![ended(0, 1)], Phase::Ended, None),
        ("gone", JobState::Gone, vec![], Phase::Ended, None),
        ("suspended", JobState::Suspended, vec![], Phase::Suspended, None),
        ("no answer", JobState::LostSight, vec![running(0)], Phase::Unknown, None),
    ] {
        let standing = standing(&snapshot(state, pods), 1);
        assert_eq!(standing.phase, phase, "{case}");
        let found = standing.trouble.map(|trouble| matches!(trouble, Trouble::CannotStart(_, true)));
        assert_eq!(found, hindered, "{case}");
        assert!(!standing.reason.is_empty(), "{case}");
    }
}

#[test]
fn a_job_that_its_cluster_may_have_deleted_by_itself_is_not_cancelled() {
    for (case, ttl, pods, expected) in [
        ("by somebody", None, vec![running(0)], Cause::Cancelled),
        ("by somebody, after its model", None, vec![ended(0, 0)], Cause::Cancelled),
        ("nothing is known of it", Some(0), vec![], Cause::Unknown),
        ("it ran when it was last seen", Some(0), vec![running(0)], Cause::Unknown),
        ("its models had ended", Some(0), vec![ended(0, 0)], Cause::Exited(0)),
        ("badly", Some(0), vec![ended(0, 7)], Cause::Exited(7)),
    ] {
        let ending = ending("j", &snapshot(JobState::Gone, pods), 1, ttl, None, true);
        assert_eq!(ending.cause, expected, "{case}");
        let named = ending.message.contains("ttl_seconds_after_finished");
        assert_eq!(named, expected == Cause::Unknown, "{case}: {}", ending.message);
    }
}

#[test]
fn pods_that_are_not_made_hinder_also_beside_those_that_are() {
    let mut seen = snapshot(JobState::Active, vec![running(0)]);
    assert_eq!(standing(&seen, 2).trouble, None);
    seen.warnings.push(Entry { name: "FailedCreate".into(), value: "exceeded quota".into() });
    let refused = standing(&seen, 2);
    assert!(matches!(refused.trouble, Some(Trouble::CannotStart(_, false))), "{refused:?}");
    assert!(refused.reason.contains("1 of 2 pods: exceeded quota"), "{}", refused.reason);
    // Once all are there it is an old word.
    assert_eq!(standing(&seen, 1).phase, Phase::Running);
}

#[test]
fn pods_that_the_namespace_forbids_are_not_waited_for_and_the_way_out_is_named() {
    let mut seen = snapshot(JobState::Waiting, Vec::new());
    let words = "pods \"j-x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
    seen.warnings.push(Entry { name: "FailedCreate".into(), value: words.into() });
    let Some(Trouble::CannotStart(reason, never)) = standing(&seen, 1).trouble else { panic!("it cannot start") };
    assert!(never && reason.contains(words) && reason.contains("--container-profile restricted"), "{reason}");
}

#[test]
fn a_cluster_that_makes_no_pods_hinders_with_its_own_words() {
    let mut seen = snapshot(JobState::Waiting, Vec::new());
    seen.warnings.push(Entry { name: "FailedCreate".into(), value: "exceeded quota".into() });
    let standing = standing(&seen, 1);
    assert!(standing.reason.contains("exceeded quota"));
    assert!(matches!(standing.trouble, Some(Trouble::CannotStart(_, false))));
}

#[test]
fn a_job_whose_pods_only_keep_results_has_ended_for_who_asks() {
    let keeps = |index, code| Pod { phase: "Running".into(), ..ended(index, code) };
    let seen = |pods| snapshot(JobState::Active, pods);
    assert!(models_have_ended(&seen(vec![keeps(0, 0), keeps(1, 0)]), 2));
    assert!(!models_have_ended(&seen(vec![keeps(0, 0), running(1)]), 2));
    assert!(!models_have_ended(&seen(vec![keeps(0, 0)]), 2), "one has not been made yet");
    assert_eq!(cause_of(JobState::Active, vec![keeps(0, 0), keeps(1, 0)]), Cause::Exited(0));
    assert_eq!(cause_of(JobState::Active, vec![keeps(0, 0), keeps(1, 7)]), Cause::Exited(7));
    assert_eq!(cause_of(JobState::Active, vec![keeps(0, 0), running(1)]), Cause::Unknown);
}
