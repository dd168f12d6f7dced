//! Commands around the runs: plans, plugins, the doctor, completions, other names of the program, and what pipes get.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::playground::{MADDOCK, Playground, answer, contents, names};

const GOOD: &str = "echo 'performance: 1 x'";

#[test]
fn a_dry_run_prints_the_plan_and_leaves_nothing() {
    let mut playground = Playground::new();
    let mark = playground.note("ran");
    playground.model("m", json!({"args": "--secret-free 'a b'"}), &format!("touch {}", mark.display()));
    let before = contents(&playground.tree());
    let answer = playground.run(&["--tags", "m", "--dry-run"]).exits(0).prints(&["plan of m", "process.launch"]);
    assert!(!answer.stdout.contains("Performance Results"), "{answer:#?}");
    assert_eq!(names(&playground.work()), [""; 0], "nothing in the working directory");
    assert!(contents(&playground.tree()) == before && !mark.exists());
}

#[test]
fn the_texts_of_a_plan_are_written_as_they_are_where_somebody_asks() {
    let playground = Playground::with(GOOD);
    let plans = playground.run(&["--tags", "m", "--dry-run", "--plan-output", "texts/all", "--format", "json"]);
    let plans = plans.exits(0).json();
    let texts = plans[0]["plan"]["artefacts"].as_array().unwrap();
    assert!(!texts.is_empty(), "{plans:#}");
    for text in texts {
        let file = playground.work().join("texts/all/0-m").join(text["name"].as_str().unwrap());
        assert_eq!(std::fs::read_to_string(file).unwrap(), text["content"].as_str().unwrap());
    }
    assert_eq!(names(&playground.work()), ["texts"]);
    playground.run(&["--tags", "m", "--plan-output", "texts"]).exits(2);
}

#[test]
fn a_dry_run_as_json_has_steps_with_their_calls_and_scopes() {
    let playground = Playground::with(GOOD);
    let plans = playground.run(&["--tags", "m", "--dry-run", "--format", "json"]).exits(0).json();
    assert_eq!(plans[0]["model"], "m");
    let steps = plans[0]["plan"]["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["call"] == "process.launch"), "{plans:#}");
    assert!(steps.iter().all(|step| step["summary"].is_string() && step["scope"].is_array()));
}

#[test]
fn a_dry_run_of_what_cannot_be_run_says_why_and_ends_with_3() {
    let mut playground = Playground::new();
    playground.model("m", json!({"scripts": "scripts/m/gone.sh"}), GOOD);
    let answer = playground.run(&["--tags", "m", "--dry-run"]).exits(3);
    assert!(answer.stdout.contains("gone.sh") || answer.stderr.contains("gone.sh"), "{answer:#?}");
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn a_dry_run_leaves_an_earlier_runs_results_alone() {
    let playground = Playground::with(GOOD);
    playground.run(&["--tags", "m"]).exits(0);
    let before = contents(&playground.work());
    playground.run(&["--tags", "m", "--dry-run"]).exits(0);
    assert!(contents(&playground.work()) == before);
}

#[test]
fn plugins_are_listed_for_people_and_for_programs() {
    let playground = Playground::new();
    let text = playground.call(&["plugin", "list"]).exits(0);
    let list = playground.call(&["plugin", "list", "--format", "json"]).exits(0).json();
    let plugins = list.as_array().unwrap();
    assert_eq!(text.stdout.lines().count(), plugins.len() + 1, "one line each, and the header");
    for plugin in plugins {
        let member = |name: &str| plugin[name].as_str().unwrap_or_else(|| panic!("{name} in {plugin:#}"));
        assert!(text.stdout.contains(member("name")));
        assert_eq!((member("source"), member("digest").len()), ("built-in", 71));
        assert!(member("interface").starts_with("maddock:plugin@"));
        assert!(!member("description").is_empty());
        for request in plugin["requests"].as_array().unwrap() {
            assert!(!request["reason"].as_str().unwrap().is_empty(), "{plugin:#}");
        }
    }
    let kinds: Vec<&str> = plugins.iter().map(|plugin| plugin["kind"].as_str().unwrap()).collect();
    for kind in ["discovery", "target", "launcher", "gpu", "reporter"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[test]
fn every_plugin_can_be_inspected_by_name() {
    let playground = Playground::new();
    let list = playground.call(&["plugin", "list", "--format", "json"]).exits(0).json();
    for plugin in list.as_array().unwrap() {
        let name = plugin["name"].as_str().unwrap();
        playground.call(&["plugin", "inspect", name]).exits(0).prints(&[
            name,
            plugin["digest"].as_str().unwrap(),
            "imports",
            "requests",
        ]);
        let whole = playground.call(&["plugin", "inspect", name, "--format", "json"]).exits(0).json();
        assert_eq!((&whole["usable"], &whole["name"]), (&json!(true), &plugin["name"]));
    }
}

#[test]
fn what_is_no_plugin_cannot_be_inspected() {
    let playground = Playground::new();
    playground.call(&["plugin", "inspect", "nonsense"]).exits(1).says(&["`nonsense`", "plugin list"]);
    let file = playground.write("work/odd.wasm", "no component");
    playground.call(&["plugin", "inspect", file.to_str().unwrap()]).exits(1).says(&["odd.wasm"]);
    playground.call(&["discover", "--plugin", file.to_str().unwrap()]).exits(1).says(&["odd.wasm"]);
}

#[test]
fn the_doctor_finds_what_this_test_needs() {
    let playground = Playground::new();
    playground.call(&["doctor"]).exits(0).prints(&["plugins\tok\tall "]);
    let findings = playground.call(&["doctor", "--format", "json"]).exits(0).json();
    let state = |what: &str| {
        findings.as_array().unwrap().iter().find(|finding| finding["what"] == what).map(|f| f["state"].clone())
    };
    assert_eq!((state("plugins"), state("bash")), (Some(json!("ok")), Some(json!("ok"))));
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn the_doctor_says_what_a_missing_program_is_needed_for() {
    let playground = Playground::new();
    let nothing = playground.note("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let command = &mut playground.command();
    answer(command.arg("doctor").env("PATH", &nothing)).exits(0).prints(&["bash\tabsent\tneeded for", "git\tabsent"]);
}

#[test]
fn the_doctor_says_where_compiled_plugins_are_kept_or_why_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let playground = Playground::new();
    let cache = playground.note("cache");
    let doctor = |directory: &std::path::Path| {
        let command = &mut playground.command();
        answer(command.arg("doctor").env("MADDOCK_CACHE_DIR", directory)).exits(0)
    };
    let components = cache.join("components");
    doctor(&cache).prints(&[&format!("cache\tok\t{}", components.display())]);
    std::fs::set_permissions(&components, PermissionsExt::from_mode(0o755)).unwrap();
    doctor(&cache).prints(&["cache\twarning\tplugins are compiled at every start", "others may enter it"]);
    doctor(std::path::Path::new("here")).prints(&["MADDOCK_CACHE_DIR, `here`, is not an absolute path"]);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Playground::new().call(&["completions", shell]).exits(0);
        assert!(script.stdout.contains("maddock") && script.stdout.contains("additional-context"), "{shell}");
        assert_eq!(script.stderr, "");
    }
    Playground::new().call(&["completions", "csh"]).exits(2).says(&["csh"]);
}

#[test]
fn bash_can_read_its_completions() {
    let playground = Playground::new();
    let script = playground.call(&["completions", "bash"]).exits(0).stdout;
    let file = playground.write("completions.bash", &script);
    let status = std::process::Command::new("bash").arg("-n").arg(file).status().unwrap();
    assert!(status.success());
}

#[test]
fn called_as_madengine_it_is_the_same_program() {
    let playground = Playground::with(GOOD);
    let link = playground.note("madengine");
    symlink(MADDOCK, &link).unwrap();
    let help = answer(playground.command_of(&link).arg("--help")).exits(0).prints(&["Usage: madengine <COMMAND>"]);
    assert!(!help.stdout.contains("maddock"), "{help:#?}");
    answer(playground.command_of(&link).args(["run", "--help"])).exits(0).prints(&["Usage: madengine run"]);
    answer(playground.command_of(&link).args(["completions", "bash"])).exits(0).prints(&["_madengine()"]);
    let tree = playground.tree();
    let words = ["run", "--model-dir", tree.to_str().unwrap(), "--target", "process", "--tags", "m"];
    answer(playground.command_of(&link).args(words)).exits(0);
    assert_eq!(playground.rows()[0]["performance"], "1");
    answer(playground.command_of(&link).args(["run", "--nonsense"])).exits(2).says(&["Usage: madengine run"]);
}

#[test]
fn pipes_get_no_terminal_codes() {
    let mut playground = Playground::with(GOOD);
    playground.model("bad", json!({}), "exit 1");
    playground.run(&["--tags", "m"]).exits(0);
    let tree = playground.tree();
    let tree = tree.to_str().unwrap();
    let calls: [&[&str]; 10] = [
        &["--help"],
        &["run", "--help"],
        &["nonsense"],
        &["discover", "--model-dir", tree],
        &["discover", "--model-dir", tree, "--tags", "nonsense"],
        &["run", "--model-dir", tree, "--target", "process", "--tags", "all"],
        &["run", "--model-dir", tree, "--target", "process", "--tags", "all", "--dry-run"],
        &["plugin", "list"],
        &["plugin", "inspect", "discover-mad"],
        &["doctor"],
    ];
    for words in calls {
        let mut command = playground.command();
        let answer = answer(command.args(words).env("TERM", "xterm-256color"));
        assert!(!(answer.stdout.clone() + &answer.stderr).contains('\u{1b}'), "{words:?}: {answer:#?}");
    }
}

#[test]
fn tables_in_pipes_are_lines_of_cells_with_tabs() {
    let playground = Playground::with(GOOD);
    let answer = playground.run(&["--tags", "m"]).exits(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines[0], "⚡ Execution Results");
    let header: Vec<&str> = lines[1].split('\t').collect();
    let row: Vec<&str> = lines[2].split('\t').collect();
    assert_eq!(header.len(), row.len());
    assert_eq!((row[2], *row.last().unwrap()), ("m", "1 x"));
}

#[test]
fn messages_are_on_stderr_and_data_on_stdout() {
    let playground = Playground::with(GOOD);
    let answer =
        playground.run(&["--tags", "m", "--format", "json", "--verbose"]).exits(0).says(&["running m", "SUCCESS m"]);
    let summary: Value = answer.json();
    assert_eq!(summary["total_runs"], 1);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_so() {
    let playground = Playground::with(GOOD);
    playground.write("work/.maddock", "in the way");
    playground.run(&["--tags", "m"]).exits(1).says(&[".maddock"]);
}
