//! Jobs whose pods the cluster runs again, because the user asked for it.

use serde_json::json;

use crate::ground::{Ground, NOTHING, said};

/// Fails the first time, and says `first` then; says that it measured 42 the second time.
fn twice(first: &str) -> Option<Ground> {
    let script = format!(
        "if mkdir /data/tried; then {first}; echo early > a_output.csv; exit 7; fi\necho late > a_output.csv\n\
         echo 'performance: 42 things_per_second'\n"
    );
    let ground = Ground::new("attempts", json!({}), &script)?;
    ground.apply(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "theirs"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}));
    Some(ground)
}

#[test]
fn an_attempt_after_one_that_failed_is_judged_by_its_job_and_its_measurement_is_its_own() {
    let Some(ground) = twice("echo nothing measured") else { return };
    let output = ground.run(json!({"backoff_limit": 1, "data_pvc": "theirs"}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("42"), "{job:#}");
    let log = ground.log();
    assert!(log.contains("nothing measured\n") && log.contains("performance: 42"), "every attempt's output: {log}");
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "late\n");
    assert_eq!(ground.left(), ["persistentvolumeclaim/theirs"]);
}

#[test]
fn what_an_attempt_that_failed_measured_is_not_taken_for_the_job_s() {
    let Some(ground) = twice("echo 'performance: 1 things_per_second'") else { return };
    let output = ground.run(json!({"backoff_limit": 1, "data_pvc": "theirs"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["code"].as_i64(), Some(0), "the Job is complete: {job:#}");
    assert_eq!(job["rows"][0]["performance"].as_str(), None, "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("was run again") && reason.contains("k8s.backoff_limit"), "{reason}");
    assert_eq!(ground.left(), ["persistentvolumeclaim/theirs"]);
}

#[test]
fn no_pod_is_run_again_unless_the_user_asks_for_it() {
    let Some(ground) = twice("echo 'performance: 1 things_per_second'") else { return };
    let output = ground.run(json!({"data_pvc": "theirs"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["code"].as_i64(), Some(7), "{job:#}");
    assert_ne!(ground.left(), NOTHING, "claims of others stay");
}
