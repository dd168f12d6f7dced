//! Escapes by path and by link: out of the directories that a rule speaks of.

use serde_json::json;

use crate::lair::{Lair, SECRET};

#[test]
fn a_file_beside_the_root_is_not_read() {
    let lair = Lair::with_files();
    lair.order(json!({"do": "files.read", "path": lair.at("outside/secret")})).denied().hides(SECRET);
}

#[test]
fn two_dots_do_not_lead_out() {
    let lair = Lair::with_files();
    lair.order(json!({"do": "files.read", "path": lair.at("run/../outside/secret")})).is("invalid-input").hides(SECRET);
}

#[test]
fn two_dots_behind_a_link_do_not_lead_out() {
    let lair = Lair::with_files();
    lair.write("run/deep/x", "");
    lair.link("run/way", &lair.at("outside"));
    lair.order(json!({"do": "files.read", "path": lair.at("run/way/../outside/secret")}))
        .hides(SECRET)
        .is("invalid-input");
}

#[test]
fn a_link_to_a_file_outside_is_not_read() {
    let lair = Lair::with_files();
    let link = lair.link("run/harmless", &lair.at("outside/secret"));
    for call in ["files.read", "files.read-head", "files.read-from", "files.stat"] {
        lair.order(json!({"do": call, "path": link})).denied().hides(SECRET);
    }
}

#[test]
fn a_link_to_a_directory_outside_is_not_entered() {
    let lair = Lair::with_files();
    let link = lair.link("run/way", &lair.at("outside"));
    lair.order(json!({"do": "files.list-directory", "path": link})).denied().hides("secret\"");
    lair.order(json!({"do": "files.read", "path": format!("{link}/secret")})).denied().hides(SECRET);
}

#[test]
fn a_chain_of_links_is_judged_by_its_end() {
    let lair = Lair::with_files();
    lair.link("run/three", &lair.at("outside/secret"));
    lair.link("run/two", "three");
    let one = lair.link("run/one", "two");
    lair.order(json!({"do": "files.read", "path": one})).denied().hides(SECRET);
}

#[test]
fn nothing_is_written_through_a_link() {
    let lair = Lair::with_files();
    let link = lair.link("run/harmless", &lair.at("outside/secret"));
    lair.order(json!({"do": "files.write", "path": link, "bytes": "mine"})).denied();
    assert_eq!(std::fs::read_to_string(lair.root().join("outside/secret")).unwrap(), SECRET);
}

#[test]
fn a_link_to_nothing_makes_no_file_outside() {
    let lair = Lair::with_files();
    let link = lair.link("run/dangling", &lair.at("outside/new"));
    let told = lair.order(json!({"do": "files.write", "path": link, "bytes": "mine"}));
    assert!(!lair.has("outside/new"), "{}", told.0);
    let told = lair.order(json!({"do": "files.lock", "path": link, "bytes": "mine"}));
    assert!(!lair.has("outside/new") && !lair.has("outside/.new.lock"), "{}", told.0);
}

#[test]
fn no_directory_is_made_through_a_link() {
    let lair = Lair::with_files();
    let link = lair.link("run/way", &lair.at("outside"));
    lair.order(json!({"do": "files.make-directory", "path": format!("{link}/new")})).denied();
    lair.order(json!({"do": "files.write", "path": format!("{link}/new/file"), "bytes": "x"})).denied();
    assert!(!lair.has("outside/new"));
}

#[test]
fn nothing_is_removed_through_a_link() {
    let lair = Lair::with_files();
    let link = lair.link("run/way", &lair.at("outside"));
    lair.order(json!({"do": "files.remove", "path": format!("{link}/secret")})).denied();
    lair.order(json!({"do": "files.remove", "path": link})).ok();
    assert!(lair.has("outside/secret"), "the link goes, and what it points to stays");
}

#[test]
fn a_tree_with_links_in_it_is_removed_and_nothing_else() {
    let lair = Lair::with_files();
    lair.write("run/tree/deep/x", "");
    lair.link("run/tree/deep/way", &lair.at("outside"));
    lair.order(json!({"do": "files.remove", "path": lair.at("run/tree")})).ok();
    assert!(!lair.has("run/tree") && lair.has("outside/secret"));
}

#[test]
fn a_directory_that_a_run_stands_on_is_not_removed() {
    let lair = Lair::new().grant(&["files.remove"], "");
    for path in ["output", "output/.", "tree", "run", ""] {
        let told = lair.order(json!({"do": "files.remove", "path": lair.at(path)}));
        assert!(matches!(told.kind(), "invalid-input" | "denied"), "{path}: {}", told.0);
    }
    // No rule speaks of this one: it is the host that refuses.
    lair.order(json!({"do": "files.remove", "path": lair.at("tree")})).is("invalid-input");
    assert!(lair.has("run") && lair.has("output") && lair.has("tree"));
}

#[test]
fn a_link_within_a_tree_that_is_copied_brings_nothing_in() {
    let lair = Lair::with_files();
    lair.write("run/tree/file", "x");
    lair.link("run/tree/zz", &lair.at("outside/secret"));
    lair.order(json!({"do": "files.copy", "source": lair.at("run/tree"), "path": lair.at("run/copy")}))
        .denied()
        .hides(SECRET);
    assert!(!lair.has("run/copy"), "and nothing is half copied");
}

#[test]
fn nothing_is_copied_out_of_the_root_or_into_it() {
    let lair = Lair::with_files();
    lair.write("run/file", "x");
    lair.order(json!({"do": "files.copy", "source": lair.at("run/file"), "path": lair.at("outside/new")})).denied();
    lair.order(json!({"do": "files.copy", "source": lair.at("outside/secret"), "path": lair.at("run/new")})).denied();
    assert!(!lair.has("outside/new") && !lair.has("run/new"));
}

#[test]
fn a_copy_does_not_go_through_a_link_at_its_destination() {
    let lair = Lair::with_files();
    lair.write("run/tree/sub/file", "mine");
    lair.write("run/copy/x", "");
    lair.link("run/copy/sub", &lair.at("outside"));
    lair.order(json!({"do": "files.copy", "source": lair.at("run/tree"), "path": lair.at("run/copy")}));
    assert!(!lair.has("outside/file"));
}

#[test]
fn a_directory_of_a_similar_name_is_another() {
    let lair = Lair::with_files();
    std::fs::create_dir(lair.root().join("running")).unwrap();
    let file = lair.write("running/file", SECRET);
    lair.order(json!({"do": "files.read", "path": file})).denied().hides(SECRET);
}

#[test]
fn a_relative_path_and_an_empty_one_lead_nowhere() {
    let lair = Lair::with_files();
    for path in ["", "outside/secret", "./run", "~/x", "file:///etc/passwd"] {
        lair.order(json!({"do": "files.read", "path": path})).is("invalid-input");
    }
}

#[test]
fn a_nul_byte_does_not_cut_a_path() {
    let lair = Lair::with_files();
    let path = format!("{}\0/run", lair.at("outside/secret"));
    lair.order(json!({"do": "files.read", "path": path})).is("invalid-input").hides(SECRET);
}

#[test]
fn what_processes_show_of_themselves_is_no_way_around() {
    let lair = Lair::with_files();
    lair.link("run/root", "/proc/self/root");
    for path in [
        format!("/proc/self/root{}", lair.at("run/x")),
        "/proc/self/environ".to_owned(),
        lair.at("run/root/etc/passwd"),
    ] {
        let told = lair.order(json!({"do": "files.read", "path": path}));
        assert!(matches!(told.kind(), "denied" | "not-found"), "{}", told.0);
        told.hides("root:");
    }
}

#[test]
fn a_pipe_a_device_and_a_directory_are_not_read() {
    let lair = Lair::new().grant(&["files.*"], "scope.path = [\"$run/**\", \"/dev/*\"]");
    let pipe = lair.root().join("run/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0).unwrap();
    for path in [lair.at("run/pipe"), "/dev/zero".to_owned(), lair.at("run")] {
        let told = lair.order(json!({"do": "files.read", "path": path, "limit": 10}));
        assert!(matches!(told.kind(), "invalid-input" | "failed"), "{}", told.0);
    }
}

#[test]
fn no_mode_gives_other_rights_than_permissions() {
    let lair = Lair::with_files();
    for mode in [0o4755, 0o2755, 0o1777] {
        lair.order(json!({"do": "files.write", "path": lair.at("run/x"), "bytes": "x", "mode": mode}))
            .is("invalid-input");
    }
    assert!(!lair.has("run/x"));
}

#[test]
fn a_denied_directory_is_denied_within_a_tree_that_holds_it() {
    let lair =
        Lair::with_files().rules("[[deny]]\nplugin = \"*\"\ncalls = [\"files.*\"]\nscope.path = [\"$run/kept/**\"]\n");
    lair.write("run/kept/file", "x");
    lair.order(json!({"do": "files.remove", "path": lair.at("run/kept")})).denied();
    lair.order(json!({"do": "files.remove", "path": lair.at("run/kept/file")})).denied();
    assert!(lair.has("run/kept/file"));
}

#[test]
fn a_program_through_a_link_is_judged_by_where_it_leads() {
    let lair = Lair::new().grant(&["process.run"], "scope.path = [\"$run/**\"]");
    let link = lair.link("run/harmless", "/usr/bin/id");
    lair.order(json!({"do": "process.run", "argv": [link]})).denied();
}

#[test]
fn a_working_directory_through_a_link_is_judged_by_where_it_leads() {
    let lair = Lair::new().grant(&["process.run"], "scope.directory = [\"$run\", \"$run/**\"]");
    let link = lair.link("run/way", &lair.at("outside"));
    lair.order(json!({"do": "process.run", "argv": ["ls"], "directory": link})).denied().hides("secret");
}

#[test]
fn a_program_is_not_launched_into_another_directory() {
    let lair = Lair::new().grant(&["process.*"], "");
    let link = lair.link("run/way", &lair.at("outside"));
    for path in [lair.at("outside"), link, lair.at("output")] {
        lair.order(json!({"do": "process.launch", "argv": ["true"], "path": path})).denied();
    }
    assert!(!lair.has("outside/output.log"));
}

#[test]
fn what_is_copied_out_lands_in_no_record_of_a_run() {
    let lair = Lair::new().grant(&["docker.*", "kube.*"], "").set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    lair.write("run/resume/0-m.json", "{}");
    let link = lair.link("run/way", "resume");
    for destination in
        [link.clone(), format!("{link}/x"), lair.at("run/resume"), lair.at("run/./resume"), lair.at("run")]
    {
        lair.order(json!({"do": "docker.copy-out", "id": "c", "path": "/x", "destination": destination}))
            .denied()
            .says("records of runs");
        let copy =
            json!({"do": "kube.copy-out", "namespace": "n", "name": "p", "path": "/x", "destination": destination});
        lair.order(copy).denied().says("records of runs");
    }
}

#[test]
fn records_of_other_runs_and_what_the_user_says_are_not_written() {
    let lair = Lair::new().grant(&["files.*"], "");
    for record in ["run.json", "trace.jsonl", "resume/0-m.json", "jobs/0-m/job.json"] {
        let path = lair.write(&format!("output/.maddock/runs/another/{record}"), "theirs");
        for call in ["files.write", "files.remove", "files.lock"] {
            lair.order(json!({"do": call, "path": path, "bytes": "mine"})).denied().says("records of runs");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
    }
    lair.order(json!({"do": "files.remove", "path": lair.at("output/.maddock/runs/another")})).denied();
    for file in ["output/credential.json", "output/maddock-policy.toml", "tree/credential.json"] {
        lair.order(json!({"do": "files.write", "path": lair.at(file), "bytes": "{}"})).denied().says("records of runs");
        assert!(!lair.has(file));
    }
}
