//! Runs of every target, replayed where nothing is that they used.

use std::process::Command;

use serde_json::json;

use crate::ground::{Answer, Ground, needed};

#[track_caller]
fn same(ground: &Ground) {
    ground.replay().exits(0).says(&["0-m: SUCCESS, 5 things: as recorded", "the same to the last bit"]);
}

#[test]
fn a_process_run_replays_to_the_same_verdict_with_nothing_there() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    // Not even the tree's script is there any more.
    std::fs::remove_dir_all(ground.path("tree/scripts")).unwrap();
    same(&ground);
}

#[test]
fn a_failure_replays_to_the_same_failure() {
    let ground = Ground::new("echo oh; exit 3\n");
    ground.run("process", &[]).exits(3);
    ground.replay().exits(0).says(&["0-m: FAILURE: as recorded", "the same to the last bit"]);
}

#[test]
fn a_container_run_replays_without_an_engine() {
    let Some(image) = needed("MADDOCK_TEST_IMAGE") else { return };
    let ground = Ground::plain();
    let context = json!({"MAD_CONTAINER_IMAGE": image}).to_string();
    ground.run("docker", &["-c", &context]).exits(0);
    assert!(ground.recording().contains("docker.create-container"));
    same(&ground);
}

#[test]
fn a_batch_run_replays_without_a_scheduler() {
    let Some(_) = needed("SLURM_CONF") else { return };
    let ground = Ground::plain();
    ground.run("slurm", &["-c", &json!({"slurm": {"container": false}}).to_string()]).exits(0);
    assert!(ground.recording().contains("slurm.submit"));
    same(&ground);
}

#[test]
fn a_cluster_run_replays_without_a_cluster() {
    let (Some(_), Some(image)) = (needed("KUBECONFIG"), needed("MADDOCK_TEST_KUBE_IMAGE")) else { return };
    let ground = Ground::plain();
    let place = ground.path("").display().to_string().to_lowercase();
    let unique: String = place.chars().filter(char::is_ascii_alphanumeric).rev().take(20).collect();
    let namespace = format!("t-{unique}");
    let kubectl = |words: &[&str]| assert!(Command::new("kubectl").args(words).status().unwrap().success());
    kubectl(&["create", "namespace", &namespace]);
    let section = json!({"namespace": namespace, "image_pull_policy": "IfNotPresent", "memory": "64Mi", "cpu": "20m",
        "shm_size": "8Mi"});
    let context = json!({"MAD_CONTAINER_IMAGE": image, "k8s": section}).to_string();
    let ran: Answer = ground.run("k8s", &["-c", &context]);
    kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
    ran.exits(0);
    assert!(ground.recording().contains("kube.create"));
    same(&ground);
}

#[test]
fn one_job_can_be_replayed_alone() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    ground.call(&["replay", "last", "--job", "m", "--json"]).exits(0).says(&["\"same\": true", "\"job\": \"0-m\""]);
    ground.call(&["replay", "last", "--job", "n"]).exits(4).says(&["has no job `n`", "its jobs are `0-m`"]);
}

#[test]
fn a_run_of_another_directory_is_replayed_by_its_path() {
    let (ground, elsewhere) = (Ground::plain(), Ground::plain());
    ground.run("process", &[]).exits(0);
    let path = ground.directory().display().to_string();
    elsewhere.call(&["replay", &path]).exits(0).says(&["the same to the last bit"]);
    elsewhere.call(&["trace", "stats", &path]).exits(0).says(&["process.launch"]);
}
