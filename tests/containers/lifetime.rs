//! What ends when the program ends, however that is; and what is kept where somebody asked for it.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::engine::{self, Removed};
use crate::scene::{Going, Scene, until};

/// A process in the background that writes for as long as it lives, and a model that does not end by itself.
const ENDLESS: &str = "( while :; do echo beat >> /shared/beats; sleep 0.05; done ) &\necho started\nsleep 600\n";

/// Waits for the heart of a container.
fn beating(scene: &Scene) {
    until("a heartbeat", || Some(()).filter(|()| scene.left("beats").len() > 10));
}

/// Checks that a heart has stopped: many times the pause between two beats pass without one.
fn still(scene: &Scene) {
    let before = scene.left("beats").len();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(scene.left("beats").len(), before, "the heart goes on beating");
}

fn endless(card: &serde_json::Value) -> Option<Scene> {
    let mut scene = Scene::new()?;
    scene.model("endless", ENDLESS, card);
    Some(scene)
}

fn only_container(scene: &Scene) -> String {
    until("the container", || scene.containers().pop())
}

#[test]
fn a_job_is_stopped_inside_its_container_when_its_time_is_over() {
    let Some(scene) = endless(&json!({"timeout": 5})) else { return };
    scene.run(&json!({}), &[]).with(3).says("time limit");
    assert!(!scene.left("beats").is_empty(), "it did run");
    still(&scene);
    assert_eq!(scene.containers(), Vec::<String>::new());
    let (row, job) = (scene.rows().remove(0), scene.jobs().remove(0));
    assert_eq!((row["status"].as_str(), row["performance"].as_str()), ("FAILURE", ""));
    assert_eq!(job["execution"]["state"], "timed-out", "{job}");
    let log = scene.run_log(&scene.model_name("endless"));
    assert!(log.contains("Setting timeout to 5 seconds.") && log.contains("started"), "{log}");
}

#[test]
fn a_time_limit_on_the_command_line_beats_the_cards() {
    let Some(scene) = endless(&json!({"timeout": 500})) else { return };
    scene.run(&json!({}), &["--timeout", "1"]).with(3);
    assert_eq!(scene.jobs()[0]["execution"]["state"], "timed-out");
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn an_interrupted_run_leaves_no_container() {
    for signal in [Signal::INT, Signal::TERM] {
        let Some(scene) = endless(&json!({})) else { return };
        let going = scene.start_run(&json!({}), &[]);
        beating(&scene);
        let container = only_container(&scene);
        scene.heard("started");
        going.signal(signal);
        going.wait().with(130);
        assert_eq!(engine::inspect("container", &container), None, "the container is gone after {signal:?}");
        still(&scene);
        let log = scene.run_log(&scene.model_name("endless"));
        assert!(log.contains("started"), "what it said is in the log: {log}");
    }
}

#[test]
fn an_interrupted_build_says_so_and_leaves_no_image() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("long", "true\n", &json!({}));
    scene.dockerfile("long.Dockerfile", "", &format!("RUN echo begun-$((40 + 2)) {} && sleep 600", scene.name));
    let tag = scene.name.clone();
    let going = scene.start(&["build", "--tags", &tag]);
    let log = scene.work.join(format!("{model}_long.build.live.log"));
    until("the build", || std::fs::read_to_string(&log).ok().filter(|log| log.contains("begun-42")));
    going.signal(Signal::INT);
    going.wait().with(130);
    assert_eq!(scene.images(), Vec::<String>::new());
}

/// Kills the program without a chance to clean up.
fn killed(scene: &Scene, more: &[&str]) -> String {
    let going = scene.start_run(&json!({}), more);
    beating(scene);
    let container = only_container(scene);
    kill(going);
    container
}

fn kill(mut going: Going) {
    going.signal(Signal::KILL);
    until("the end of the program", || going.ended().then_some(()));
}

#[test]
fn the_container_of_a_killed_run_is_removed_by_the_next_run_and_no_other_is() {
    let Some(scene) = endless(&json!({})) else { return };
    let Some(mut next) = Scene::new() else { return };
    let Some(alive) = endless(&json!({})) else { return };
    let orphan = killed(&scene, &[]);
    let going = alive.start_run(&json!({}), &[]);
    beating(&alive);
    let living = only_container(&alive);
    // Of somebody else: with our labels but without a sign of whose process it is, and without any.
    let [unsigned, strange] = [Some("maddock.run=nobody"), None].map(|label| {
        let mut arguments = vec!["create"];
        arguments.extend(label.iter().flat_map(|label| ["--label", label]));
        arguments.extend([next.image.as_str(), "true"]);
        Removed(engine::said(&arguments))
    });

    next.model("after", "echo 'performance: 1 u'\n", &json!({}));
    next.run(&json!({}), &[]).with(0);

    // Whether it was this run or one of another test that came first: it is gone now.
    assert_eq!(engine::inspect("container", &orphan), None, "the orphan is gone");
    still(&scene);
    for id in [&living, &unsigned.0, &strange.0] {
        assert!(engine::inspect("container", id).is_some(), "{id} is none of its business");
    }
    going.signal(Signal::INT);
    going.wait().with(130);
}

#[test]
fn what_a_killed_run_was_to_keep_alive_is_kept() {
    let Some(scene) = endless(&json!({})) else { return };
    let Some(mut next) = Scene::new() else { return };
    let kept = killed(&scene, &["--keep-alive"]);
    next.model("after", "echo 'performance: 1 u'\n", &json!({}));
    next.run(&json!({}), &[]).with(0);
    assert!(engine::inspect("container", &kept).is_some());
}

#[test]
fn a_container_kept_alive_has_the_known_name_and_harms_no_later_run() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("kept", "echo here > note\necho 'performance: 1 u'\n", &json!({}));
    scene.dockerfile("kept.Dockerfile", "", "");
    let tag = scene.name.clone();
    let name = format!("container_ci-{model}_kept");
    let ended = scene.maddock(&["run", "--tags", &tag, "--keep-alive"]).with(0).says(&name);
    assert!(ended.all().contains("docker exec -it"), "{}", ended.all());
    let container = engine::inspect("container", &name).expect("it is left under the name that scripts know");
    assert_eq!(container["State"]["Running"], true);
    // The work directory is there to look at.
    assert_eq!(engine::said(&["exec", &name, "cat", "/myworkspace/run_directory/note"]), "here");
    engine::said(&["exec", &name, "bash", "/myworkspace/.maddock/model.sh"]);

    // Neither a run that keeps nothing nor one that keeps its own as well takes it away.
    scene.maddock(&["run", "-m", "build_manifest.json"]).with(0);
    scene.maddock(&["run", "-m", "build_manifest.json", "--keep-alive"]).with(0);
    let after = engine::inspect("container", &name).expect("it is still there");
    assert_eq!((&after["Id"], &after["State"]["Running"]), (&container["Id"], &json!(true)));
    assert_eq!(scene.containers().len(), 2, "the first and the third run's");
    assert_eq!(scene.rows().len(), 3);
}

#[test]
fn a_kept_work_directory_outlives_its_container() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("dir", "echo here > note\necho 'performance: 1 u'\n", &json!({}));
    let note = |scene: &Scene| {
        let run = scene.run_directories().pop().unwrap();
        let found = std::fs::read_dir(run.join("jobs")).unwrap().next().unwrap().unwrap().path();
        std::fs::read_to_string(found.join("workspace/run_directory/note")).ok()
    };
    scene.run(&json!({}), &["--keep-model-dir"]).with(0);
    assert_eq!((note(&scene).as_deref(), scene.containers().len()), (Some("here\n"), 0));
    scene.run(&json!({}), &[]).with(0);
    assert_eq!(note(&scene), None);
}

#[test]
fn a_container_that_somebody_else_removes_is_a_failed_job() {
    let Some(scene) = endless(&json!({})) else { return };
    let going = scene.start_run(&json!({}), &[]);
    beating(&scene);
    engine::said(&["rm", "--force", &only_container(&scene)]);
    going.wait().with(3);
    assert_eq!(scene.rows()[0]["status"], "FAILURE");
}

#[test]
fn the_tree_is_left_as_it_was() {
    let Some(mut scene) = Scene::new() else { return };
    let script =
        "touch /myworkspace/scripts/clean/litter 2> /dev/null && exit 4\ntouch litter\necho 'performance: 1 u'\n";
    scene.model("clean", script, &json!({}));
    let listing = |scene: &Scene| {
        let listed = Command::new("find").arg(&scene.tree).args(["-printf", "%P %s %T@\n"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    let before = listing(&scene);
    scene.run(&json!({}), &[]).with(0);
    assert_eq!(listing(&scene), before);
}

#[test]
fn a_model_that_does_not_listen_is_ended_all_the_same() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("deaf", &format!("trap '' TERM INT\n{ENDLESS}while :; do sleep 1; done\n"), &json!({"timeout": 1}));
    scene.run(&json!({}), &[]).with(3).says("time limit");
    assert_eq!(scene.jobs()[0]["execution"]["state"], "timed-out");
    assert_eq!(scene.containers(), Vec::<String>::new());
    still(&scene);
}

#[test]
fn an_interrupted_run_ends_all_its_jobs_and_begins_no_other() {
    let Some(mut scene) = Scene::new() else { return };
    for part in ["one", "two", "three"] {
        scene.model(part, &format!("touch /shared/{part}\n{ENDLESS}"), &json!({}));
    }
    let going = scene.start_run(&json!({}), &["--jobs", "2"]);
    until("two jobs", || ["one", "two"].iter().all(|part| scene.shared.join(part).exists()).then_some(()));
    going.signal(Signal::INT);
    going.wait().with(130);
    assert_eq!(scene.containers(), Vec::<String>::new());
    still(&scene);
    assert!(!scene.shared.join("three").exists());
}

#[test]
fn a_second_interrupt_does_not_wait_and_the_next_run_cleans_up() {
    let Some(mut scene) = Scene::new() else { return };
    let Some(mut next) = Scene::new() else { return };
    scene.model("deaf", &format!("trap '' TERM INT\n{ENDLESS}while :; do sleep 1; done\n"), &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    beating(&scene);
    let container = only_container(&scene);
    going.signal(Signal::INT);
    until("word of it", || going.said().contains("again to stop without cleaning up").then_some(()));
    going.signal(Signal::INT);
    going.wait().with(130);
    next.model("after", "echo 'performance: 1 u'\n", &json!({}));
    next.run(&json!({}), &[]).with(0);
    assert_eq!(engine::inspect("container", &container), None);
    still(&scene);
}

#[test]
fn what_a_model_says_when_it_is_interrupted_is_in_its_log() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "trap 'echo last-$((40 + 2)); exit 1' TERM\necho ready\nwhile :; do sleep 0.05; done\n";
    let model = scene.model("polite", script, &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    scene.heard("ready");
    going.signal(Signal::INT);
    going.wait().with(130);
    assert!(scene.run_log(&model).contains("last-42"), "{}", scene.run_log(&model));
    assert_eq!(scene.containers(), Vec::<String>::new());
}
