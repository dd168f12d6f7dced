//! The help of every command as a user reads it. A change here is a change of the public interface: read it before taking
//! it over (`cargo insta review`, or INSTA_UPDATE=always).

use crate::playground::Playground;

fn help(command: &[&str]) -> String {
    let answer = Playground::new().call(&[command, &["--help"]].concat()).exits(0);
    assert_eq!(answer.stderr, "");
    for line in answer.stdout.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
    answer.stdout.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
}

#[test]
fn the_help_of_the_program() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn the_help_of_discover() {
    insta::assert_snapshot!(help(&["discover"]));
}

#[test]
fn the_help_of_build() {
    insta::assert_snapshot!(help(&["build"]));
}

#[test]
fn the_help_of_run() {
    insta::assert_snapshot!(help(&["run"]));
}

#[test]
fn the_help_of_runs() {
    insta::assert_snapshot!(help(&["runs"]));
}

#[test]
fn the_help_of_status() {
    insta::assert_snapshot!(help(&["status"]));
}

#[test]
fn the_help_of_logs() {
    insta::assert_snapshot!(help(&["logs"]));
}

#[test]
fn the_help_of_cancel() {
    insta::assert_snapshot!(help(&["cancel"]));
}

#[test]
fn the_help_of_attach() {
    insta::assert_snapshot!(help(&["attach"]));
}

#[test]
fn the_help_of_collect() {
    insta::assert_snapshot!(help(&["collect"]));
}

#[test]
fn the_help_of_replay() {
    insta::assert_snapshot!(help(&["replay"]));
}

#[test]
fn the_help_of_trace() {
    insta::assert_snapshot!(help(&["trace"]));
    insta::assert_snapshot!("the_help_of_trace_show", help(&["trace", "show"]));
    insta::assert_snapshot!("the_help_of_trace_stats", help(&["trace", "stats"]));
}

#[test]
fn the_help_of_report() {
    insta::assert_snapshot!(help(&["report"]));
    insta::assert_snapshot!("the_help_of_report_to_html", help(&["report", "to-html"]));
    insta::assert_snapshot!("the_help_of_report_to_email", help(&["report", "to-email"]));
}

#[test]
fn the_help_of_config() {
    insta::assert_snapshot!(help(&["config"]));
    insta::assert_snapshot!("the_help_of_config_show", help(&["config", "show"]));
    insta::assert_snapshot!("the_help_of_config_presets", help(&["config", "presets"]));
}

#[test]
fn the_help_of_plugin() {
    insta::assert_snapshot!(help(&["plugin"]));
    insta::assert_snapshot!("the_help_of_plugin_list", help(&["plugin", "list"]));
    insta::assert_snapshot!("the_help_of_plugin_inspect", help(&["plugin", "inspect"]));
    for command in [
        "install", "update", "remove", "verify", "lock", "prune", "keygen", "sign", "trust", "bundle", "push", "new",
        "vendor", "pack", "test",
    ] {
        insta::assert_snapshot!(format!("the_help_of_plugin_{command}"), help(&["plugin", command]));
    }
}

#[test]
fn the_help_of_policy() {
    insta::assert_snapshot!(help(&["policy"]));
    for action in ["check", "show", "explain", "suggest", "test"] {
        insta::assert_snapshot!(format!("the_help_of_policy_{action}"), help(&["policy", action]));
    }
}

#[test]
fn the_help_of_doctor() {
    insta::assert_snapshot!(help(&["doctor"]));
}

#[test]
fn the_help_of_completions() {
    insta::assert_snapshot!(help(&["completions"]));
}

#[test]
fn every_command_has_a_snapshot_here() {
    let listed = help(&[]);
    let commands = listed.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    let snapshots = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cli/snapshots");
    for name in names {
        let file = format!("{snapshots}/cli__help__the_help_of_{name}.snap");
        assert!(std::path::Path::new(&file).exists(), "there is no {file}");
    }
}

#[test]
fn help_does_not_show_what_the_environment_holds() {
    let playground = Playground::new();
    let answer =
        crate::playground::answer(playground.command().args(["run", "--help"]).env("MODEL_DIR", "/the/secret/tree"));
    assert!(!answer.exits(0).stdout.contains("/the/secret/tree"));
}
