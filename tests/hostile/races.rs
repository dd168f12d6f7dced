//! Changing something between the look and the act, and doing two things at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::component::good_launcher;
use crate::lair::{Lair, SECRET};
use crate::place::Place;
use crate::stage::{self, Stage};

/// Changes one name for another, back and forth, while something is done.
fn while_changing<T>(swap: impl Fn(bool) + Send, act: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut turn = false;
            while !stop.load(Ordering::Relaxed) {
                turn = !turn;
                swap(turn);
            }
        });
        let _stop = Stop(stop);
        act()
    })
}

/// Puts a link, or the honest thing, under a name, by renaming: there is always one of them.
fn swapping(lair: &Lair, name: &str, honest: &str, link: &str) -> impl Fn(bool) + Send + use<> {
    let root = lair.root().to_owned();
    let [name, honest, link] = [name, honest, link].map(|path| root.join(path));
    move |turn| {
        // Each is taken away and the other is put there: names are exchanged in one step.
        let other = if turn { &link } else { &honest };
        let _ = rustix::fs::renameat_with(
            rustix::fs::CWD,
            other,
            rustix::fs::CWD,
            &name,
            rustix::fs::RenameFlags::EXCHANGE,
        );
    }
}

#[test]
fn a_file_that_becomes_a_link_is_not_read() {
    let lair = Lair::with_files();
    lair.write("run/x", "honest");
    lair.write("run/spare", "honest");
    lair.link("run/link", &lair.at("outside/secret"));
    let orders: Vec<_> = (0..2000).map(|_| json!({"do": "files.read", "path": lair.at("run/x")})).collect();
    let told = while_changing(swapping(&lair, "run/x", "run/spare", "run/link"), || lair.obey(json!(orders)));
    assert!(told.iter().any(|told| told.0["ok"].is_string()), "none was read");
    told.iter().for_each(|told| {
        told.hides(SECRET);
    });
}

#[test]
fn a_file_that_becomes_a_link_is_not_written_through() {
    let lair = Lair::with_files();
    lair.write("run/x", "honest");
    lair.write("run/spare", "honest");
    lair.link("run/link", &lair.at("outside/secret"));
    let orders: Vec<_> =
        (0..200).map(|_| json!({"do": "files.write", "path": lair.at("run/x"), "bytes": "pwned"})).collect();
    while_changing(swapping(&lair, "run/x", "run/spare", "run/link"), || lair.obey(json!(orders)));
    assert_eq!(std::fs::read_to_string(lair.root().join("outside/secret")).unwrap(), SECRET);
}

#[test]
fn a_file_that_becomes_a_link_is_not_copied() {
    let lair = Lair::with_files();
    lair.write("run/tree/x", "honest");
    lair.write("run/spare", "honest");
    lair.link("run/link", &lair.at("outside/secret"));
    let orders: Vec<_> = (0..200)
        .map(|number| json!({"do": "files.copy", "source": lair.at("run/tree"), "path": lair.at(&format!("run/copy{number}"))}))
        .collect();
    while_changing(swapping(&lair, "run/tree/x", "run/spare", "run/link"), || lair.obey(json!(orders)));
    for number in 0..200 {
        let copied = std::fs::read_to_string(lair.root().join(format!("run/copy{number}/x"))).unwrap_or_default();
        assert!(!copied.contains(SECRET));
    }
}

#[test]
fn a_tree_that_becomes_a_link_is_not_removed_where_it_leads() {
    let lair = Lair::with_files();
    for number in 0..20 {
        lair.write(&format!("outside/many/{number}"), "x");
    }
    let orders: Vec<_> = (0..200).map(|_| json!({"do": "files.remove", "path": lair.at("run/x")})).collect();
    let (root, target) = (lair.root().to_owned(), lair.root().join("outside/many"));
    let swap = move |turn: bool| {
        if turn {
            let _ = std::os::unix::fs::symlink(&target, root.join("run/x"));
        } else {
            let _ = std::fs::create_dir(root.join("run/new"));
            let _ = std::fs::write(root.join("run/new/own"), "x");
            let _ = std::fs::rename(root.join("run/new"), root.join("run/x"));
        }
    };
    while_changing(swap, || lair.obey(json!(orders)));
    assert_eq!(std::fs::read_dir(lair.root().join("outside/many")).unwrap().count(), 20);
}

#[test]
fn a_lock_that_becomes_a_link_opens_nothing_else() {
    let lair = Lair::with_files();
    lair.write("run/.x.lock", "");
    lair.write("run/spare", "");
    lair.link("run/link", &lair.at("outside/secret"));
    let orders: Vec<_> = (0..200)
        .map(|_| json!({"do": "files.lock", "path": lair.at("run/x"), "bytes": "mine", "timeout-ms": 1000}))
        .collect();
    while_changing(swapping(&lair, "run/.x.lock", "run/spare", "run/link"), || lair.obey(json!(orders)));
    assert_eq!(std::fs::read_to_string(lair.root().join("outside/secret")).unwrap(), SECRET);
}

#[test]
fn a_policy_that_a_job_writes_is_not_the_policy_of_its_run() {
    // The job itself grants the attacker, which reports it, all that it wants.
    let stage = Stage::new(json!({}), "reporter");
    let secret = stage.ground.write("elsewhere/key", stage::SECRET).display().to_string();
    let policy = stage.ground.path("config/maddock/policy.toml").display().to_string();
    let wide = format!("schema = 1\n{}", stage.granted(&["files.*"], ""));
    stage.ground.write("wide.toml", &wide);
    let wide = stage.ground.path("wide.toml").display().to_string();
    stage.ground.write(
        "tree/scripts/m/run.sh",
        &format!("mkdir -p \"$(dirname '{policy}')\"\ncp '{wide}' '{policy}'\necho 'performance: 5 things'\n"),
    );
    let first = stage.run(&[]).exits(0);
    assert!(std::path::Path::new(&policy).exists(), "{first:#?}");
    let called =
        stage.ground.trace().into_iter().any(|line| line["plugin"] == "hostile" && line["verdict"] == "allowed");
    assert!(!called, "{:?} {secret}", stage.ground.trace());
}

#[test]
fn a_plugin_s_file_that_is_changed_meanwhile_is_the_one_that_was_judged() {
    use maddock::plugin::catalog::Entry;
    let place = Place::new();
    let file = place.file("plugin.wasm", &good_launcher("first"));
    let entry = Entry::of_file(&file).unwrap();
    place.file("plugin.wasm", &good_launcher("second"));
    assert_eq!(entry.bytes().unwrap(), good_launcher("first"), "the bytes whose digest counts are the bytes that run");
}

#[test]
fn many_who_fill_one_cache_at_once_all_get_what_they_asked_for() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_maddock"))
            .args(["plugin", "inspect", "./good.wasm"])
            .current_dir(place.path())
            .env_clear()
            .env("HOME", place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let going: Vec<_> = (0..6).map(|_| start()).collect();
    for one in going {
        let output = one.wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("good 0.1.0 (launcher)"));
    }
    let left: Vec<_> = std::fs::read_dir(place.path().join(".cache/maddock/components"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.len() <= 2 && left.iter().any(|name| Path::new(name).extension().is_some_and(|end| end == "cwasm")),
        "{left:?}"
    );
}
