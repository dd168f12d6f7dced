//! Secrets out by every way there is: answers, messages, files, rows, the trace, names. A secret travels by name, so a plugin has
//! none to tell; what it has seen a job print is masked wherever it tells it.

use serde_json::{Value, json};

use crate::lair::{Lair, SECRET};
use crate::stage::{self, Stage};

/// A run whose attacker lets the secret out in that way. The job "prints" its metric, so all ends well.
#[track_caller]
fn masked(change: Value) {
    let mut script = json!({"watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}]});
    script.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let stage = Stage::target(script);
    let answer = stage.run(&["--verbose"]);
    assert!(!stage.ground.runs().is_empty(), "{answer:#?}");
    // The way was taken: something stands where the secret would.
    let all: String = stage
        .left()
        .into_iter()
        .map(|(_, content)| content)
        .chain([answer.stdout.clone(), answer.stderr.clone()])
        .collect();
    assert!(all.contains("leak"), "{answer:#?}");
    stage.hides(&answer);
}

fn leak() -> String {
    format!("leak {}", stage::backwards())
}

fn saying(order: Value) -> Value {
    json!({"watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}, order]})
}

#[test]
fn what_a_job_prints_is_masked() {
    masked(saying(json!({"do": "events.output", "bytes": leak()})));
}

#[test]
fn what_a_job_prints_in_pieces_is_masked() {
    let (first, second) = stage::SECRET.split_at(7);
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    masked(json!({"watch": [
        {"do": "events.output", "bytes": format!("performance: 5 things\nleak rev:{}", backwards(first))},
        {"do": "events.output", "bytes": format!("rev:{}", backwards(second))},
    ]}));
}

#[test]
fn what_a_plugin_logs_is_masked() {
    masked(saying(json!({"do": "events.log", "level": "warning", "bytes": leak()})));
}

#[test]
fn why_a_plugin_says_that_a_job_waits_is_masked() {
    masked(saying(json!({"do": "events.state", "bytes": leak()})));
}

#[test]
fn what_a_plugin_says_is_going_on_is_masked() {
    masked(saying(json!({"do": "events.progress", "bytes": leak()})));
}

#[test]
fn how_a_plugin_says_that_a_job_ended_is_masked() {
    masked(json!({"ending": {"code": 3, "message": leak()}}));
    masked(json!({"ending": {"cause": "never-started", "message": leak()}}));
}

#[test]
fn the_error_of_a_plugin_is_masked() {
    masked(json!({"fails": {"kind": "failed", "message": leak(), "hint": leak()}}));
}

#[test]
fn the_facts_that_a_plugin_collects_are_masked() {
    masked(json!({"collection": {"facts": [["machine_name", leak()], ["git_commit", leak()]]}}));
}

#[test]
fn why_a_plugin_says_that_a_measurement_is_none_is_masked() {
    masked(json!({"collection": {"facts": [["unclear", leak()]]}}));
}

#[test]
fn the_name_of_what_was_measured_is_masked() {
    masked(
        json!({"watch": [{"do": "events.output", "bytes": format!("performance: 5 leak-{}\n", stage::backwards())}]}),
    );
}

#[test]
fn the_last_words_of_a_plugin_are_masked() {
    masked(saying(json!({"do": "say-and-panic", "bytes": leak()})));
}

#[test]
fn a_path_that_is_a_secret_is_masked_in_the_trace() {
    masked(saying(json!({"do": "files.stat", "path": format!("/leak/{}", stage::backwards())})));
}

#[test]
fn no_call_answers_a_secret_s_value() {
    let lair = Lair::new().grant(&["secrets.*"], "");
    let told = lair.obey(json!([
        {"do": "secrets.available", "name": "env/TOKEN"},
        {"do": "secrets.members", "name": "credential/hub"},
        {"do": "secrets.members", "name": "credential/hub/password"},
        {"do": "secrets.members", "name": ""},
        {"do": "secrets.members", "name": "env"},
    ]));
    told.iter().for_each(|told| {
        told.hides(SECRET);
    });
    assert!(told[1].ok().contains("password"));
}

#[test]
fn a_plugin_without_leave_does_not_learn_which_secrets_there_are() {
    let lair = Lair::new().grant(&["secrets.*"], "scope.secret = [\"credential/hub\"]");
    for name in ["env/TOKEN", "env/NONE", "credential", "credential/hub/password"] {
        lair.order(json!({"do": "secrets.available", "name": name})).denied();
        lair.order(json!({"do": "secrets.members", "name": name})).denied();
    }
}

#[test]
fn a_variable_of_the_shell_is_told_to_nobody_without_leave() {
    let lair = Lair::new().grant(&["facts.*"], "scope.variable = [\"HOME\"]");
    lair.order(json!({"do": "facts.environment", "name": "HOME"})).ok();
    for name in ["TOKEN", "HOME ", "home", "HOME\0TOKEN", ""] {
        lair.order(json!({"do": "facts.environment", "name": name})).denied().hides(SECRET);
    }
}

#[test]
fn a_secret_is_in_no_refusal_no_argument_and_no_trace() {
    let lair = Lair::with_programs();
    let variable = json!([["X", {"secret": "credential/hub/password"}]]);
    let told = lair.obey(json!([
        {"do": "process.run", "argv": ["true"], "env": variable},
        {"do": "process.run", "argv": ["no-such-program"], "env": variable},
        {"do": "process.run", "argv": ["true"], "env": [["X", {"secret": "credential/none"}]]},
        {"do": "process.run", "argv": ["true", SECRET]},
        {"do": "process.run", "argv": ["cat", format!("--token={SECRET}")]},
    ]));
    told[..3].iter().for_each(|told| {
        told.hides(SECRET);
    });
    assert!(lair.trace().contains("credential/hub/password") && !lair.trace().contains(SECRET), "{}", lair.trace());
}

#[test]
fn the_supervisor_of_a_program_shows_no_secret() {
    let lair = Lair::new().grant(&["process.*", "files.*"], "scope.inline-code = [\"**\"]");
    let told = lair.obey(json!([
        {"do": "process.run", "argv": ["bash", "-c", "tr '\\0' ' ' < /proc/$PPID/cmdline; cat /proc/$$/cmdline | tr '\\0' ' '"],
            "env": [["X", {"secret": "credential/hub/password"}]]},
    ]));
    told[0].hides(SECRET).ok();
}

#[test]
fn files_that_a_plugin_says_it_collected_are_the_job_s_own() {
    let stage = Stage::target(json!({}));
    let secret = stage.ground.write("elsewhere/key", stage::SECRET).display().to_string();
    let stage = Stage::target(json!({
        "watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}],
        "collection": {"files": [{"node": 0, "name": "stolen_output.csv", "path": secret}]},
    }));
    let answer = stage.run(&[]);
    stage.hides(&answer);
    assert!(!stage.ground.path("work/stolen_output.csv").exists(), "{answer:#?}");
}

#[test]
fn a_file_that_a_plugin_collected_replaces_none_that_is_not_a_result() {
    for name in ["perf.csv", "maddock-policy.toml", "../../tree/models.json", ".bashrc", "credential.json"] {
        let stage = Stage::target(json!({
            "launch": [{"do": "files.write", "path": "@JOB@/mine", "bytes": "schema = 1\n# mine\n"}],
            "watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}],
            "collection": {"files": [{"node": 0, "name": name, "path": "@JOB@/mine"}]},
        }));
        stage.ground.user(&format!("schema = 1\n{}", stage.granted(&["files.*"], "scope.path = [\"$run/**\"]")));
        let answer = stage.run(&[]);
        let file = stage.ground.work().join(std::path::Path::new(name).file_name().unwrap());
        let content = std::fs::read_to_string(file).unwrap_or_default();
        assert!(!content.contains("# mine"), "{name}: {answer:#?}");
    }
}

#[test]
fn results_are_not_read_through_a_link_of_the_job() {
    let stage = Stage::new(
        json!({"multiple_results": "rows.csv", "hostile": {
            "watch": [{"do": "events.output", "bytes": "done\n"}],
            "collection": {"files": [{"node": 0, "name": "rows.csv", "path": "@TREE@/../way/rows.csv"}], "facts": [["results", "rows.csv"]]},
        }}),
        "target",
    );
    stage.ground.write("way/rows.csv", &format!("model,performance,metric\nm,5,{}\n", stage::SECRET));
    let answer = stage.run(&[]);
    stage.hides(&answer);
}
