//! Exit codes are a public interface: each of these is in the table of the user guide. None needs a container engine.

use serde_json::json;

use crate::playground::{Playground, answer, names};

const GOOD: &str = "echo 'performance: 1 x'";

#[test]
fn no_arguments_print_the_help_and_end_with_2() {
    for words in [&[][..], &["report"], &["plugin"]] {
        let answer = Playground::new().call(words).exits(2);
        assert!(answer.stderr.contains("Usage: maddock"), "{answer:#?}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    Playground::new().call(&["--help"]).exits(0).prints(&["Usage: maddock"]);
    let version = Playground::new().call(&["--version"]).exits(0);
    assert_eq!(version.stdout, format!("maddock {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_line_that_cannot_be_parsed_ends_with_2() {
    let cases: [(&[&str], &str); 6] = [
        (&["nonsense"], "nonsense"),
        (&["run", "--nonsense"], "--nonsense"),
        (&["run", "--tags", "m", "--jobs", "0"], "--jobs"),
        (&["run", "--tags", "m", "--timeout", "soon"], "--timeout"),
        (&["report", "to-html"], "--csv-file-path"),
        (&["discover", "stray"], "stray"),
    ];
    for (words, expected) in cases {
        Playground::new().call(words).exits(2).says(&["error:", expected]);
    }
}

#[test]
fn a_build_without_tags_ends_with_1() {
    let playground = Playground::with(GOOD);
    playground.call(&["build"]).exits(1).says(&["No models discovered", "`--tags all`"]);
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn a_build_with_context_by_file_and_by_text_ends_with_4() {
    let playground = Playground::with(GOOD);
    let file = playground.write("context.json", "{}");
    let file = file.to_str().unwrap();
    playground.call(&["build", "--tags", "m", "-f", file, "-c", "{'debug': True}"]).exits(4).says(&[
        "--additional-context-file",
        "--additional-context`",
        "hint:",
    ]);
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn a_run_may_have_both_and_the_text_wins() {
    let playground = Playground::with("echo \"performance: $A $B\"");
    let file = playground.write("context.json", r#"{"docker_env_vars": {"A": "1"}, "debug": true}"#);
    let text = "{'docker_env_vars': {'A': '2', 'B': 'b'}}";
    playground.run(&["--tags", "m", "-f", file.to_str().unwrap(), "-c", text]).exits(0);
    let row = &playground.rows()[0];
    assert_eq!((row["performance"].as_str(), row["metric"].as_str()), ("2", "b"));
}

#[test]
fn context_that_cannot_be_read_ends_with_4_and_says_where() {
    let playground = Playground::with(GOOD);
    for (text, line, column) in [("{\"a\":\n 1,, }", 2, 4), ("{'a': 1", 1, 8), ("[1]", 1, 1), ("nonsense", 1, 1)] {
        playground
            .run(&["--tags", "m", "-c", text])
            .exits(4)
            .says(&[&format!("line {line}, column {column}"), "additional context"]);
    }
    let file = playground.write("context.json", "{\n  'python': 1\n}");
    let file = file.to_str().unwrap();
    playground.run(&["--tags", "m", "-f", file]).exits(4).says(&["context.json:2:3"]);
    playground.run(&["--tags", "m", "-f", "nowhere.json"]).exits(4).says(&["nowhere.json"]);
    assert!(!playground.work().join("perf.csv").exists());
}

#[test]
fn context_with_a_value_of_the_wrong_type_ends_with_4_and_names_the_key() {
    let playground = Playground::with(GOOD);
    let cases = [
        ("{'docker_env_vars': []}", "`docker_env_vars`"),
        ("{'tools': {}}", "`tools`"),
        ("{'gpu_vendor': 'INTEL'}", "`gpu_vendor`"),
        ("{'log_error_patterns': []}", "`log_error_patterns`"),
    ];
    for (text, key) in cases {
        playground.run(&["--tags", "m", "-c", text]).exits(4).says(&[key, "line 1, column 2"]);
    }
}

#[test]
fn a_run_with_neither_tags_nor_a_manifest_ends_with_4() {
    let playground = Playground::with(GOOD);
    playground.run(&[]).exits(4).says(&["`--tags`", "`--manifest-file`"]);
    playground.run(&["-m", "nowhere.json"]).exits(4).says(&["nowhere.json"]);
    assert_eq!(names(&playground.work()), [""; 0]);
}

#[test]
fn a_timeout_below_minus_one_ends_with_4() {
    let playground = Playground::with(GOOD);
    playground.run(&["--tags", "m", "--timeout", "-5"]).exits(4).says(&["`--timeout`", "-5"]);
    playground.run(&["--tags", "m", "--timeout=-2"]).exits(4);
    playground.run(&["--tags", "m", "--timeout", "-1"]).exits(0);
}

#[test]
fn an_unknown_target_ends_with_4_and_lists_the_known() {
    let playground = Playground::with(GOOD);
    let tree = playground.tree();
    let tree = tree.to_str().unwrap();
    let words = ["run", "--model-dir", tree, "--tags", "m", "--target", "proces"];
    playground.call(&words).exits(4).says(&["`proces`", "`process`"]);
    let words = ["run", "--model-dir", tree, "--tags", "m", "-c", "{'deploy': 'proces'}"];
    playground.call(&words).exits(4).says(&["`proces`", "`process`", "line 1, column 2"]);
}

#[test]
fn the_context_may_name_the_target_by_name_or_by_section() {
    for text in ["{'deploy': 'process'}", "{'process': {}}", "{'deploy': 'process', 'process': {}}"] {
        let playground = Playground::with(GOOD);
        let tree = playground.tree();
        playground.call(&["run", "--model-dir", tree.to_str().unwrap(), "--tags", "m", "-c", text]).exits(0);
    }
}

#[test]
fn a_run_whose_tag_matches_nothing_ends_with_2() {
    let mut playground = Playground::with(GOOD);
    playground.model("resnet", json!({}), GOOD);
    playground.run(&["--tags", "m", "resnt"]).exits(2).says(&["`resnt`", "did you mean `resnet`"]);
    assert!(!playground.work().join("perf.csv").exists(), "nothing was run");
}

#[test]
fn a_run_in_a_place_without_models_ends_with_2() {
    let playground = Playground::new();
    playground.call(&["run", "--tags", "m", "--target", "process"]).exits(2).says(&["`models.json`"]);
}

#[test]
fn a_model_that_fails_ends_with_3_whatever_the_others_do() {
    let mut playground = Playground::with(GOOD);
    playground.model("bad", json!({}), "exit 7");
    playground.model("last", json!({}), GOOD);
    playground.run(&["--tags", "all"]).exits(3);
    let statuses: Vec<String> = playground.rows().into_iter().map(|row| row["status"].clone()).collect();
    assert_eq!(statuses, ["SUCCESS", "FAILURE", "SUCCESS"]);
}

#[test]
fn a_model_without_its_script_ends_with_3_and_has_a_row() {
    let mut playground = Playground::new();
    playground.model("m", json!({"scripts": "scripts/m/gone.sh"}), GOOD);
    playground.run(&["--tags", "m"]).exits(3).says(&["scripts/m/gone.sh"]);
    assert_eq!(playground.rows()[0]["status"], "FAILURE");
}

#[test]
fn a_run_whose_models_are_all_skipped_ends_with_0() {
    let playground = Playground::with("exit 1");
    playground.run(&["--tags", "m", "--skip-model-run"]).exits(0);
    assert!(!playground.work().join("perf.csv").exists(), "a model that was not to run has no row");

    let mut playground = Playground::new();
    playground.model("old", json!({"deprecated": true}), "exit 1");
    playground.run(&["--tags", "old"]).exits(0).says(&["old is deprecated", "--ignore-deprecated"]);
    assert_eq!(playground.rows()[0]["status"], "SKIPPED");
    playground.run(&["--tags", "old", "--ignore-deprecated"]).exits(3);
}

#[test]
fn an_unknown_key_warns_with_the_nearest_and_strict_makes_it_4() {
    let playground = Playground::with(GOOD);
    let text = "{'docker_env_varz': {}}";
    let nearest: &[&str] = &["`docker_env_varz`", "did you mean `docker_env_vars`"];
    playground.run(&["--tags", "m", "-c", text]).exits(0).says(nearest).says(&["warning:"]);
    playground.run(&["--tags", "m", "-c", text, "--strict"]).exits(4).says(nearest).says(&["line 1, column 2"]);
    assert_eq!(playground.rows().len(), 1);
    playground.run(&["--tags", "m", "-c", "{'docker_env_vars': {'MY_OWN': 1}}", "--strict"]).exits(0);
}

#[test]
fn results_that_cannot_be_written_end_with_1_before_any_model_runs() {
    let playground = Playground::new();
    let mark = playground.note("ran");
    let mut playground = playground;
    playground.model("m", json!({}), &format!("touch '{}'", mark.display()));
    let blocked = playground.write("file", "");
    let output = blocked.join("perf.csv");
    playground.run(&["--tags", "m", "-o", output.to_str().unwrap()]).exits(1).says(&["results cannot be written"]);
    assert!(!mark.exists());
}

#[test]
fn a_closed_pipe_is_no_crash() {
    let playground = Playground::with(GOOD);
    let mut child = playground.run_command();
    let mut child = child
        .args(["--tags", "m"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let answer = crate::playground::ended(child);
    assert!(!answer.stderr.contains("panicked"), "{answer:#?}");
    assert_eq!(playground.rows().len(), 1);
}

#[test]
fn a_context_that_asks_for_two_targets_ends_with_4() {
    let playground = Playground::with(GOOD);
    let listed = answer(playground.command().args(["plugin", "list", "--format", "json"])).exits(0).json();
    let targets: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|plugin| plugin["kind"] == "target")
        .map(|plugin| plugin["provides"][0].as_str().unwrap().to_owned())
        .collect();
    let tree = playground.tree();
    let run = |text: &str| {
        playground.call(&["run", "--model-dir", tree.to_str().unwrap(), "--tags", "m", "--dry-run", "-c", text])
    };
    let Some(other) = targets.iter().find(|name| *name != "process") else { return };
    run(&format!("{{'process': {{}}, '{other}': {{}}}}")).exits(4).says(&["are both there", "line 1, column"]);
    run(&format!("{{'deploy': '{other}', 'process': {{}}}}")).exits(4).says(&["`deploy`", "`process`"]);
}
