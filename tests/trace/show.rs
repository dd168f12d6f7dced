//! What `trace show` and `trace stats` say.

use serde_json::Value;

use crate::ground::Ground;

#[test]
fn calls_are_listed_by_plugin_and_pattern_in_eighty_columns() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    let all = ground.call(&["trace", "show"]).exits(0).says(&["discover-mad", "process.launch", "report-csv"]).stdout;
    assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
    let some = ground.call(&["trace", "show", "last", "--of", "target-process", "--call", "process.*"]).exits(0).stdout;
    assert!(some.contains("process.launch") && !some.contains("files.") && !some.contains("report-csv"), "{some}");
    let none = ground.call(&["trace", "show", "--denied"]).exits(0).stdout;
    assert_eq!(none, "");
    let lines = ground.call(&["trace", "show", "--json"]).exits(0).stdout;
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["v"] == 1)));
    ground.call(&["trace", "show", "--call", "[x"]).exits(4).says(&["`--call` is no pattern"]);
    ground.call(&["trace", "show", "nothing"]).exits(4).says(&["there is no run `nothing`"]);
}

#[test]
fn a_refused_call_is_listed_with_its_rule() {
    let ground = Ground::plain();
    let policy = "schema = 1\n[[deny]]\nplugin = \"report-csv\"\ncalls = [\"files.write\"]\n";
    let policy = ground.write("tight.toml", policy).display().to_string();
    ground.run("process", &["--policy", &policy]);
    let denied = ground.call(&["trace", "show", "--denied"]).exits(0).says(&["files.write", "denied", "by "]).stdout;
    assert!(!denied.contains(" ok "), "{denied}");
    let stats: Value = serde_json::from_str(&ground.call(&["trace", "stats", "--json"]).exits(0).stdout).unwrap();
    let of = |plugin: &str, call: &str| {
        let lines = stats["calls"].as_array().unwrap();
        lines.iter().find(|line| line["plugin"] == plugin && line["call"] == call).unwrap().clone()
    };
    assert!(of("report-csv", "files.write")["denied"].as_u64().unwrap() > 0, "{stats:#}");
    assert_eq!(of("target-process", "process.launch")["calls"], 1);
}

#[test]
fn bodies_are_what_was_asked_and_answered() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    let words = ["trace", "show", "--bodies", "--call", "process.child.next-event"];
    ground.call(&words).exits(0).says(&["target-process target.watch job 0-m", "ask", "performance: 5 things"]);
}
