//! Jobs that nobody attends, and the commands of other processes that go on with them.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::ground::{Ground, MADDOCK, NOTHING, WAITS, kubectl, said, until};

fn later(ground: &Ground, arguments: &[&str]) -> Output {
    command(ground, arguments).output().unwrap()
}

fn command(ground: &Ground, arguments: &[&str]) -> Command {
    let mut command = Command::new(MADDOCK);
    command.args(arguments).current_dir(ground.work()).stdin(Stdio::null());
    command
}

fn status(ground: &Ground) -> Value {
    let output = later(ground, &["status", "last", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is(ground: &Ground, state: &str) -> Option<()> {
    (status(ground)["jobs"][0]["state"] == state).then_some(())
}

fn detach(ground: &Ground, section: Value) -> String {
    ground.bystander();
    let output = ground.command(section, json!({})).arg("--detach").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_detached_job_goes_on_by_itself_until_another_process_attaches_and_records_it() {
    let Some(ground) = Ground::new("detach and attach", json!({}), WAITS) else { return };
    let id = detach(&ground, json!({}));
    let runs: Value = serde_json::from_slice(&later(&ground, &["runs", "--json"]).stdout).unwrap();
    assert_eq!((&runs[0]["run"], &runs[0]["state"]), (&json!(id), &json!("detached")), "{runs:#}");
    until("the job", || is(&ground, "running"));
    // A container that has just begun may have written nothing yet: its beginning is waited for.
    let logs = later(&ground, &["logs", "last"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("hello\n"), "{}", said(&logs));
    let early = later(&ground, &["collect", "last"]);
    assert!(early.status.code() == Some(0) && said(&early).contains("running"), "{}", said(&early));
    let attached = Command::new(MADDOCK)
        .args(["attach", &id])
        .current_dir(ground.work())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ground.go();
    let attached = attached.wait_with_output().unwrap();
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
    let job = ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("42"), "{job:#}");
    assert_eq!(ground.log().matches("hello\n").count(), 1);
    assert_eq!(std::fs::read_to_string(ground.work().join("perf.csv")).unwrap().lines().count(), 2);
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn files_of_a_detached_job_wait_in_its_pod_and_are_collected() {
    let Some(ground) = Ground::new("detach and collect", json!({}), WAITS) else { return };
    detach(&ground, json!({}));
    until("the job", || is(&ground, "running"));
    ground.go();
    until("the end of the model", || ground.model_has_ended().then_some(()));
    // Its pod keeps them, and the Job has not ended before they are fetched.
    let collected = until("what is collected", || {
        let output = later(&ground, &["collect", "last"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        ground.recorded().then_some(output)
    });
    assert_eq!(ground.job()["verdict"].as_str(), Some("SUCCESS"), "{}", said(&collected));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn files_of_a_detached_job_whose_pod_did_not_wait_come_from_its_claim() {
    let Some(ground) = Ground::new("detach and claim", json!({}), WAITS) else { return };
    detach(&ground, json!({"results_storage_size": "10Mi", "results_wait": 1}));
    until("the job", || is(&ground, "running"));
    ground.go();
    until("the end of the job", || is(&ground, "ended"));
    let collected = later(&ground, &["collect", "last"]);
    assert_eq!(collected.status.code(), Some(0), "{}", said(&collected));
    assert_eq!(ground.job()["verdict"].as_str(), Some("SUCCESS"), "{}", said(&collected));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn a_detached_job_is_cancelled_from_another_process() {
    let Some(ground) = Ground::new("detach and cancel", json!({}), WAITS) else { return };
    detach(&ground, json!({}));
    until("the job", || is(&ground, "running"));
    let cancelled = later(&ground, &["cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    let job = ground.job();
    assert_eq!(
        (job["execution"]["state"].as_str(), job["verdict"].as_str()),
        (Some("cancelled"), Some("FAILURE")),
        "{job:#}"
    );
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

/// The test cluster's connections, by way of a context of this name, to this server.
fn connections(server: Option<&str>) -> Value {
    let view = kubectl(&["config", "view", "--raw", "--minify", "--output=json"]);
    let mut file: Value = serde_json::from_slice(&view.stdout).unwrap();
    if let Some(server) = server {
        file["clusters"][0]["cluster"]["server"] = json!(server);
    }
    file
}

#[test]
fn a_detached_job_is_looked_for_in_its_own_cluster_whatever_the_shell_says() {
    let Some(ground) = Ground::new("another shell", json!({}), WAITS) else { return };
    let file = ground.root.path().join("connections");
    std::fs::write(&file, connections(None).to_string()).unwrap();
    ground.bystander();
    let mut detached = ground.command(json!({}), json!({}));
    let output = detached.arg("--detach").env("KUBECONFIG", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    until("the job", || is(&ground, "running"));
    // Another shell has other connections, or none.
    let other = ground.root.path().join("other connections");
    std::fs::write(&other, connections(Some("https://127.0.0.1:1")).to_string()).unwrap();
    let output = command(&ground, &["status", "last", "--json"]).env("KUBECONFIG", &other).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["jobs"][0]["state"], "running", "{}", said(&output));
    // The file itself now leads elsewhere, where there is no such Job: nobody takes it for one that was deleted.
    let way = crate::trouble::way_to_the_cluster();
    let mut elsewhere = connections(Some(&format!("https://{}", way.address)));
    elsewhere["clusters"][0]["cluster"]["tls-server-name"] = json!(way.name);
    std::fs::write(&file, elsewhere.to_string()).unwrap();
    for word in ["collect", "cancel"] {
        let output = later(&ground, &[word, "last"]);
        let text = said(&output);
        assert!(text.contains(&format!("now leads to {}", way.address)), "{word}: {text}");
        assert!(!ground.recorded(), "{word}: {text}");
    }
    std::fs::write(&file, connections(None).to_string()).unwrap();
    let cancelled = later(&ground, &["cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}
