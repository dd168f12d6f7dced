//! Prompts and lines that are somebody else's: control characters, colours, directions, line ends, lines that look like ours.

use serde_json::{Value, json};

use crate::ground::Answer;
use crate::lair::Lair;
use crate::place::assert_printable;
use crate::stage::Stage;

/// Everything that could drive a terminal or pass for another line.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;pwned\u{7}\rerror: forged\nerror: forged\u{9b}31m\u{202e}desrever\u{2028}error: forged\u{200f}\u{61c}\u{7f}";

/// The invisible ones that turn the direction of text or part lines, and are no control characters.
const INVISIBLE: [char; 5] = ['\u{200e}', '\u{200f}', '\u{61c}', '\u{2028}', '\u{2029}'];

#[track_caller]
fn is_clean(answer: &Answer) {
    for text in [&answer.stdout, &answer.stderr] {
        assert_printable(text);
        assert!(!text.contains(INVISIBLE), "{}", text.escape_debug());
        assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{text}");
    }
}

/// A run whose attacker says it in that way. All that is printed is clean, and what was said is there.
#[track_caller]
fn clean(script: Value) {
    let stage = Stage::target(script);
    let answer = stage.run(&["--verbose"]);
    assert!(answer.stderr.contains("forged") || answer.stdout.contains("forged"), "{answer:#?}");
    is_clean(&answer);
}

fn saying(call: &str) -> Value {
    json!({"watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}, {"do": call, "bytes": EVIL, "level": "warning"}]})
}

#[test]
fn a_message_of_a_plugin_is_one_line_of_text() {
    clean(saying("events.log"));
}

#[test]
fn a_reason_of_a_plugin_is_one_line_of_text() {
    clean(saying("events.state"));
}

#[test]
fn an_activity_of_a_plugin_is_one_line_of_text() {
    clean(saying("events.progress"));
}

#[test]
fn an_error_of_a_plugin_is_one_line_of_text() {
    clean(json!({"fails": {"kind": "failed", "message": EVIL, "hint": EVIL}}));
}

#[test]
fn an_ending_of_a_plugin_is_one_line_of_text() {
    clean(json!({"ending": {"code": 1, "message": EVIL}}));
}

#[test]
fn the_last_words_of_a_plugin_are_one_line_of_text() {
    clean(json!({"watch": [{"do": "say-and-panic", "bytes": EVIL}]}));
}

#[test]
fn a_plan_of_a_plugin_is_text() {
    let stage = Stage::target(json!({
        "steps": [{"summary": EVIL, "call": EVIL, "scope": [[EVIL, EVIL]]}],
        "artefacts": [{"name": EVIL, "content": EVIL}],
        "warnings": [EVIL],
    }));
    is_clean(&stage.run(&["--dry-run"]));
}

#[test]
fn facts_of_a_plugin_are_cells_and_no_rows() {
    let forged = "host\nm,1,forged,SUCCESS\r\n=cmd()";
    let stage = Stage::target(json!({
        "watch": [{"do": "events.output", "bytes": "performance: 5 things\n"}],
        "collection": {"facts": [["machine_name", forged]]},
    }));
    let answer = stage.run(&[]);
    is_clean(&answer);
    let mut reader = csv::Reader::from_path(stage.ground.work().join("perf.csv")).unwrap();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn a_line_of_events_is_one_event() {
    let stage = Stage::target(saying("events.log"));
    stage.run(&[]);
    let files = stage.left();
    let (_, events) = files.iter().find(|(path, _)| path.ends_with("events.jsonl")).unwrap();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
        assert_printable(line);
    }
}

#[test]
fn a_line_of_the_trace_is_one_call() {
    let lair = Lair::new();
    let forged = "/x\"}\n{\"v\":1,\"plugin\":\"kernel\",\"call\":\"files.read\",\"verdict\":\"allowed\"}";
    lair.order(json!({"do": "files.stat", "path": forged})).denied();
    let trace = lair.trace();
    assert_eq!(trace.lines().count(), 1, "{trace}");
    let line: Value = serde_json::from_str(trace.lines().next().unwrap()).unwrap();
    assert_eq!((line["plugin"].as_str(), line["verdict"].as_str()), (Some("hostile"), Some("denied")));
}

#[test]
fn the_lines_that_would_allow_a_call_allow_no_more() {
    // A value that closes its text and opens a rule of its own.
    let lair = Lair::new();
    let path = "/x\"]\n[[allow]]\nplugin = \"*\"\ncalls = [\"*\"]\nscope.path = [\"**";
    let told = lair.order(json!({"do": "files.stat", "path": path}));
    let hint = told.denied().0["hint"].as_str().unwrap().to_owned();
    let lines = hint.split_once('\n').unwrap().1;
    let parsed: toml::Table = toml::from_str(lines).unwrap();
    assert_eq!(parsed["allow"].as_array().unwrap().len(), 1, "{hint}");
    assert_eq!(parsed["allow"][0]["scope"]["path"].as_array().unwrap().len(), 1, "{hint}");
}

#[test]
fn a_pattern_in_a_value_is_no_pattern_in_the_lines_that_would_allow_it() {
    let lair = Lair::new();
    for (call, path) in [("files.stat", "/x/**"), ("files.stat", "/$run/*")] {
        let told = lair.order(json!({"do": call, "path": path}));
        let hint = told.denied().0["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains(&format!("\"={path}\"")), "{hint}");
    }
}

/// A tree whose attacker, as its discoverer, lists a model of that name.
fn discovered(name: &str) -> Stage {
    let stage = Stage::new(json!({}), "discovery");
    let model = json!({"name": name, "scripts": "scripts/m/run.sh", "n_gpus": "0", "tags": ["t"], "args": "", "owner": EVIL, "dockerfile": "x",
        "training_precision": EVIL});
    let cards = json!({"cards": [{"name": name, "tags": ["t", EVIL], "source": EVIL, "model": model}]});
    stage.ground.write("tree/hostile.json", &cards.to_string());
    stage.ground.user(&format!("schema = 1\n{}", stage.granted(&["files.read"], "scope.path = [\"$tree/**\"]")));
    stage
}

#[test]
fn the_name_of_a_model_is_text_in_a_list() {
    let stage = discovered(EVIL);
    let tree = stage.ground.path("tree").display().to_string();
    let answer = stage.call(&["discover", "--model-dir", &tree]);
    assert!(format!("{answer:?}").contains("forged"), "{answer:#?}");
    is_clean(&answer);
}

#[test]
fn the_name_of_a_model_is_text_in_a_run() {
    let stage = discovered(EVIL);
    is_clean(&stage.run(&["--verbose"]));
}

#[test]
fn a_name_of_a_model_is_no_path() {
    for name in ["../../../maddock-escaped", "/maddock-escaped", "a/../../maddock-escaped", ".."] {
        let stage = discovered(name);
        let answer = stage.run(&[]);
        is_clean(&answer);
        let outside: Vec<_> =
            std::fs::read_dir(stage.ground.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !outside.iter().any(|file| file.to_string_lossy().contains("maddock-escaped")),
            "{outside:?} {answer:#?}"
        );
        assert!(!std::path::Path::new("/maddock-escaped").exists());
    }
}

#[test]
fn a_message_without_end_is_cut() {
    let stage = Stage::target(json!({"watch": [
        {"do": "events.output", "bytes": "performance: 5 things\n"},
        {"do": "events.log", "level": "warning", "bytes": "forged ", "times": 1_000_000},
        {"do": "events.state", "bytes": "x", "times": 1},
    ]}));
    let answer = stage.run(&[]);
    let longest = answer.stderr.lines().map(str::len).max().unwrap();
    assert!(longest < 70_000, "a line of {longest} bytes");
}

#[test]
fn a_card_of_the_tree_is_text() {
    let stage = Stage::new(json!({"name": EVIL, "owner": EVIL}), "reporter");
    let tree = stage.ground.path("tree").display().to_string();
    is_clean(&stage.ground.call(&["discover", "--model-dir", &tree]));
    is_clean(&stage.ground.run("process", &["--verbose"]));
}

#[test]
fn a_plugin_cannot_say_that_policy_refused_another() {
    let stage = Stage::target(
        json!({"fails": {"kind": "denied", "message": "policy refuses plugin `target-docker` the call", "hint": "add allow"}}),
    );
    let answer = stage.run(&[]);
    assert!(format!("{}{}", answer.stdout, answer.stderr).contains("hostile: policy refuses plugin"), "{answer:#?}");
}
