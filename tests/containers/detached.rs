//! Runs whose containers go on without the command that began them, and are finished by another one.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::engine;
use crate::scene::{Scene, until};

/// Ends well once its test says so.
const WAITS: &str =
    "echo hello\ntouch /shared/begun\nuntil [ -e /shared/go ]; do sleep 0.05; done\necho 'performance: 42 u'\n";

fn waiting(card: &Value) -> Option<Scene> {
    let mut scene = Scene::new()?;
    scene.model("waits", WAITS, card);
    Some(scene)
}

fn detach(scene: &Scene) -> String {
    let id = scene.run(&json!({}), &["--detach"]).with(0).stdout.trim().to_owned();
    begun(scene);
    id
}

fn begun(scene: &Scene) {
    until("the model", || scene.shared.join("begun").exists().then_some(()));
}

fn go(scene: &Scene) {
    std::fs::write(scene.shared.join("go"), "").unwrap();
}

fn status(scene: &Scene) -> Value {
    serde_json::from_str(&scene.maddock(&["status", "last", "--json"]).with(0).stdout).unwrap()
}

fn kill_attendant(scene: &Scene) {
    let pid = i32::try_from(status(scene)["attendant"]["process"]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    until("the end of the attendant", || (status(scene)["state"] == "detached").then_some(()));
}

#[test]
fn a_detached_run_is_followed_to_its_row_by_another_process_and_leaves_no_container() {
    let Some(scene) = waiting(&json!({})) else { return };
    let id = detach(&scene);
    assert_eq!(status(&scene)["jobs"][0]["state"], "running");
    until("its output", || scene.maddock(&["logs", &id]).with(0).stdout.contains("hello").then_some(()));
    let attached = scene.start(&["attach", &id]);
    go(&scene);
    let ended = attached.wait().with(0).says("42 u");
    assert!(ended.stdout.contains(&id), "{}", ended.stdout);
    assert_eq!((scene.rows().len(), scene.containers()), (1, Vec::new()));
}

#[test]
fn no_other_run_removes_the_container_of_a_job_that_was_left_and_it_is_collected() {
    let Some(scene) = waiting(&json!({})) else { return };
    let Some(mut next) = Scene::new() else { return };
    detach(&scene);
    let container = until("the container", || scene.containers().pop());
    kill_attendant(&scene);

    next.model("after", "echo 'performance: 1 u'\n", &json!({}));
    next.run(&json!({}), &[]).with(0);
    assert!(engine::inspect("container", &container).is_some(), "its run's directory says that it goes on");

    let logs = scene.maddock(&["logs", "last"]).with(0).stdout;
    assert_eq!(logs.matches("hello").count(), 1, "{logs}");
    scene.maddock(&["collect", "last"]).with(0).says("running");
    go(&scene);
    until("the end of the job", || (status(&scene)["jobs"][0]["state"] == "ended").then_some(()));
    scene.maddock(&["collect", "last"]).with(0).says("42 u");
    assert_eq!((scene.rows().len(), scene.containers()), (1, Vec::new()));
    let log = scene.run_log(&scene.model_name("waits"));
    assert_eq!(log.matches("hello").count(), 1, "{log}");
}

#[test]
fn the_container_of_a_left_job_whose_run_directory_is_gone_is_removed_by_the_next_run() {
    let Some(scene) = waiting(&json!({})) else { return };
    let Some(mut next) = Scene::new() else { return };
    detach(&scene);
    let container = until("the container", || scene.containers().pop());
    kill_attendant(&scene);
    std::fs::remove_dir_all(scene.work.join(".maddock/runs")).unwrap();
    next.model("after", "echo 'performance: 1 u'\n", &json!({}));
    next.run(&json!({}), &[]).with(0);
    assert_eq!(engine::inspect("container", &container), None, "nobody could ever finish it");
}

#[test]
fn cancel_removes_the_container_whether_somebody_attends_it_or_not() {
    for kill in [false, true] {
        let Some(scene) = waiting(&json!({})) else { return };
        detach(&scene);
        if kill {
            kill_attendant(&scene);
        }
        scene.maddock(&["cancel", "last"]).with(0);
        until("the end of the run", || (status(&scene)["state"] == "cancelled").then_some(()));
        assert_eq!(scene.containers(), Vec::<String>::new());
        assert_eq!(scene.jobs()[0]["execution"]["state"], "cancelled", "kill: {kill}");
        assert_eq!(scene.rows()[0]["status"], "FAILURE");
    }
}

#[test]
fn an_interruption_detaches_where_that_was_asked_for() {
    let Some(scene) = waiting(&json!({})) else { return };
    let going = scene.start_run(&json!({}), &["--on-interrupt", "detach"]);
    begun(&scene);
    scene.heard("hello");
    going.signal(Signal::INT);
    going.wait().with(130).says("maddock attach");
    assert_eq!(scene.containers().len(), 1);
    go(&scene);
    scene.maddock(&["attach", "last"]).with(0).says("42 u");
    assert_eq!((scene.rows().len(), scene.containers()), (1, Vec::new()));
}

#[test]
fn the_time_limit_of_a_left_job_counts_from_its_start() {
    let Some(scene) = waiting(&json!({"timeout": 600})) else { return };
    detach(&scene);
    kill_attendant(&scene);
    // As if it had been started long ago.
    let resume = scene.run_directories().pop().unwrap().join("resume");
    let job = std::fs::read_dir(resume).unwrap().map(|file| file.unwrap().path());
    let job = job.into_iter().find(|file| !file.ends_with(".run.json")).unwrap();
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&job).unwrap()).unwrap();
    let mut handle: Value = serde_json::from_str(record["launched"]["handle"].as_str().unwrap()).unwrap();
    handle["started"] = json!(handle["started"].as_u64().unwrap() - 1000);
    record["launched"]["handle"] = json!(handle.to_string());
    std::fs::write(&job, record.to_string()).unwrap();

    scene.maddock(&["attach", "last"]).with(3);
    assert_eq!(scene.jobs()[0]["execution"]["state"], "timed-out");
    assert_eq!(scene.containers(), Vec::<String>::new());
}
