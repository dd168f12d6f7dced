//! Whatever ends a run, nothing that it started is left: time limits, signals, and the sudden death of the program.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::playground::{Playground, Started, alive, line_of, until};

/// A model with a child and a grandchild that never end; each tells its number.
fn family(playground: &mut Playground, more: Value) -> Vec<PathBuf> {
    let notes: Vec<PathBuf> = ["parent", "child", "grandchild"].iter().map(|name| playground.note(name)).collect();
    let script = format!(
        "trap '' TERM\n\
         bash -c 'echo $$ > {child}; setsid bash -c \"trap \\\"\\\" TERM HUP; echo \\$\\$ > {grandchild}; while :; do sleep 600; done\" & wait' &\n\
         echo before the end\n\
         echo $$ > {parent}\n\
         wait\n\
         while :; do sleep 600; done\n",
        parent = notes[0].display(),
        child = notes[1].display(),
        grandchild = notes[2].display(),
    );
    playground.model("m", more, &script);
    notes
}

#[track_caller]
fn all_gone(notes: &[PathBuf]) {
    for note in notes {
        let pid = line_of(note);
        until(&format!("the end of {} ({pid})", note.display()), || !alive(&pid));
    }
}

fn started(playground: &Playground, more: &[&str]) -> Started {
    Started::new(playground.run_command().args(["--tags", "all"]).args(more))
}

#[test]
fn the_time_limit_of_the_card_ends_a_model_and_all_its_processes() {
    let mut playground = Playground::new();
    let notes = family(&mut playground, json!({"timeout": 5}));
    playground.run(&["--tags", "m"]).exits(3).says(&["FAILURE m", "its time was over"]);
    all_gone(&notes);
    let log = playground.read("m_process.run.live.log");
    assert!(log.contains("⏰ Setting timeout to 5 seconds.\n") && log.contains("before the end\n"), "{log}");
    assert_eq!(playground.rows()[0]["status"], "FAILURE");
}

#[test]
fn the_option_wins_over_the_card() {
    let mut playground = Playground::new();
    let notes = family(&mut playground, json!({"timeout": 7000}));
    playground.run(&["--tags", "m", "--timeout", "5"]).exits(3).says(&["its time was over"]);
    all_gone(&notes);
}

#[test]
fn a_timeout_of_0_is_no_limit() {
    let mut playground = Playground::new();
    playground.model("m", json!({"timeout": 1}), "sleep 1.5; echo 'performance: 1 x'");
    playground.run(&["--tags", "m", "--timeout", "0"]).exits(0);
    assert!(playground.read("m_process.run.live.log").contains("⏰ Setting timeout to None seconds.\n"));
}

#[test]
fn a_timeout_that_is_no_number_fails_its_model_only() {
    let mut playground = Playground::with("echo 'performance: 1 x'");
    playground.model("odd", json!({"timeout": "soon"}), "echo 'performance: 1 x'");
    playground.run(&["--tags", "all"]).exits(3).says(&["FAILURE odd", "`timeout`"]);
    assert_eq!(playground.rows()[0]["status"], "SUCCESS");
}

#[test]
fn processes_that_a_model_leaves_behind_end_with_it() {
    let mut playground = Playground::new();
    let left = playground.note("left");
    playground.model(
        "m",
        json!({}),
        &format!("setsid bash -c 'echo $$ > {}; exec sleep 600' & until [ -s {0} ]; do sleep 0.01; done; echo 'performance: 1 x'", left.display()),
    );
    playground.run(&["--tags", "m"]).exits(0);
    all_gone(&[left]);
}

fn interrupted_by(signal: Signal) {
    let mut playground = Playground::new();
    playground.model("before", json!({}), "echo 'performance: 1 x'");
    let notes = family(&mut playground, json!({}));
    let run = started(&playground, &[]);
    for note in &notes {
        line_of(note);
    }
    run.signal(signal);
    run.ended().exits(130).says(&["stopping"]);
    all_gone(&notes);
    let table = playground.read("perf.csv");
    assert!(table.ends_with('\n') && table.starts_with("model,"), "{table}");
    let rows = playground.rows();
    assert_eq!(rows[0]["performance"], "1");
    assert!(rows.iter().all(|row| row.len() == 29), "{rows:?}");
    let run: Value =
        serde_json::from_str(&std::fs::read_to_string(playground.only_run().join("run.json")).unwrap()).unwrap();
    assert_eq!(run["state"], "interrupted");
}

#[test]
fn ctrl_c_ends_with_130_and_leaves_no_process() {
    interrupted_by(Signal::INT);
}

#[test]
fn termination_ends_with_130_and_leaves_no_process() {
    interrupted_by(Signal::TERM);
}

#[test]
fn a_closed_terminal_leaves_no_process_either() {
    interrupted_by(Signal::HUP);
}

#[test]
fn what_was_measured_before_an_interruption_is_kept_and_later_models_do_not_begin() {
    let mut playground = Playground::new();
    playground.model("first", json!({}), "echo 'performance: 11 x'");
    let second = playground.note("second");
    let third = playground.note("third");
    playground.model("second", json!({}), &format!("echo $$ > {}; sleep 600", second.display()));
    playground.model("third", json!({}), &format!("echo $$ > {}", third.display()));
    let run = started(&playground, &[]);
    line_of(&second);
    run.signal(Signal::INT);
    run.ended().exits(130);
    all_gone(&[second]);
    let rows = playground.rows();
    assert_eq!((rows[0]["model"].as_str(), rows[0]["performance"].as_str()), ("first", "11"));
    assert!(rows.iter().all(|row| row["model"] != "third") && !third.exists());
    let log = playground.read("second_process.run.live.log");
    assert!(log.starts_with("⏰"), "{log}");
}

#[test]
fn a_second_signal_ends_the_program_at_once_and_still_leaves_no_process() {
    let mut playground = Playground::new();
    let notes = family(&mut playground, json!({}));
    let run = started(&playground, &[]);
    for note in &notes {
        line_of(note);
    }
    run.signal(Signal::INT);
    run.signal(Signal::TERM);
    run.ended().exits(130);
    all_gone(&notes);
}

#[test]
fn the_sudden_death_of_the_program_leaves_no_process() {
    let mut playground = Playground::new();
    let notes = family(&mut playground, json!({}));
    let run = started(&playground, &[]);
    for note in &notes {
        line_of(note);
    }
    run.signal(Signal::KILL);
    let answer = run.ended();
    assert_eq!(answer.code, None);
    all_gone(&notes);
}

#[test]
fn an_interruption_before_the_first_model_has_begun_is_130_as_well() {
    let mut playground = Playground::new();
    let python = playground.note("python");
    playground.model("m", json!({}), "echo 'performance: 1 x'");
    playground.write("tree/scripts/slow/get_models_json.py", "def list_models():\n    return []\n");
    let slow = playground.program("python3", &format!("#!/bin/bash\necho $$ > {}\nsleep 600\n", python.display()));
    let path = format!("{}:{}", slow.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let run = Started::new(playground.run_command().args(["--tags", "m"]).env("PATH", path));
    line_of(&python);
    run.signal(Signal::INT);
    run.ended().exits(130);
    all_gone(&[python]);
}

#[test]
fn an_interruption_of_discover_leaves_no_process() {
    let playground = Playground::with("echo 'performance: 1 x'");
    let python = playground.note("python");
    playground.write("tree/scripts/slow/get_models_json.py", "def list_models():\n    return []\n");
    let slow = playground.program("python3", &format!("#!/bin/bash\necho $$ > {}\nsleep 600\n", python.display()));
    let path = format!("{}:{}", slow.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let discover =
        Started::new(playground.command().args(["discover", "--model-dir"]).arg(playground.tree()).env("PATH", path));
    line_of(&python);
    discover.signal(Signal::INT);
    discover.ended().exits(130);
    all_gone(&[python]);
}

#[test]
fn two_runs_at_once_in_one_directory_do_not_collide() {
    let mut playground = Playground::new();
    let meeting = playground.note("meeting");
    std::fs::create_dir(&meeting).unwrap();
    // Each waits for the other one, so both are running at the same time.
    let script = format!(
        "touch {0}/$1; until [ -e {0}/a ] && [ -e {0}/b ]; do sleep 0.01; done; echo $1 > $1_output.csv; echo \"performance: 1 $1\"",
        meeting.display()
    );
    playground.model("m", json!({}), &script);
    playground.model("fill", json!({}), "echo 'performance: 2 x'");
    let runs: Vec<Started> = ["a", "b"]
        .iter()
        .map(|name| {
            let context = format!("{{'model_args': '{name}'}}");
            Started::new(playground.run_command().args(["--tags", "m", "fill", "-c", &context]))
        })
        .collect();
    for run in runs {
        run.ended().exits(0);
    }
    let rows = playground.rows();
    let mut metrics: Vec<&str> = rows.iter().map(|row| row["metric"].as_str()).collect();
    metrics.sort_unstable();
    assert_eq!(metrics, ["a", "b", "x", "x"]);
    assert_eq!(playground.runs().len(), 2);
    assert_eq!((playground.read("a_output.csv"), playground.read("b_output.csv")), ("a\n".into(), "b\n".into()));
    let all: Value = serde_json::from_str(&playground.read("perf_super.json")).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 4);
}

/// Three models that end only when all three have begun.
fn three_that_meet() -> Playground {
    let mut playground = Playground::new();
    let meeting = playground.note("meeting");
    std::fs::create_dir(&meeting).unwrap();
    for name in ["a", "b", "c"] {
        let script = format!(
            "touch {0}/{name}; until [ -e {0}/a ] && [ -e {0}/b ] && [ -e {0}/c ]; do sleep 0.01; done; echo 'performance: 1 x'",
            meeting.display()
        );
        playground.model(name, json!({}), &script);
    }
    playground
}

#[test]
fn jobs_run_at_once_where_that_is_asked_for() {
    let playground = three_that_meet();
    let answer = playground.run(&["--tags", "all", "--jobs", "3", "--timeout", "100"]).exits(0);
    let table: Vec<&str> = answer.stdout.lines().skip(2).take(3).collect();
    for (line, name) in table.iter().zip(["a", "b", "c"]) {
        assert!(line.contains(&format!("\t{name}\t")), "the table is in the order of the models: {answer:#?}");
    }
    assert_eq!(playground.rows().len(), 3);
}

#[test]
fn jobs_run_one_after_the_other_otherwise() {
    let mut playground = Playground::new();
    let lock = playground.note("lock");
    for name in ["a", "b", "c"] {
        let script = format!("mkdir {0} || exit 9; sleep 0.05; rmdir {0}; echo 'performance: 1 x'", lock.display());
        playground.model(name, json!({}), &script);
    }
    playground.run(&["--tags", "all"]).exits(0);
}

#[test]
fn an_interruption_ends_all_jobs_that_run_at_once() {
    let mut playground = Playground::new();
    let notes: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| playground.note(name)).collect();
    for (name, note) in ["a", "b", "c"].iter().zip(&notes) {
        playground.model(name, json!({}), &format!("echo $$ > {}; sleep 600", note.display()));
    }
    let run = started(&playground, &["--jobs", "3"]);
    for note in &notes {
        line_of(note);
    }
    run.signal(Signal::INT);
    run.ended().exits(130);
    all_gone(&notes);
}

#[test]
fn a_model_that_reads_its_input_gets_none() {
    let playground = Playground::with("if read -r line; then exit 9; fi; echo 'performance: 1 x'");
    let mut command = playground.run_command();
    let run = Started::new(command.args(["--tags", "m"]).stdin(Stdio::piped()));
    run.ended().exits(0);
}

#[test]
fn a_model_that_floods_its_log_is_recorded_whole() {
    let playground =
        Playground::with("for i in $(seq 200000); do echo \"line $i of many\"; done; echo 'performance: 1 x'");
    playground.run(&["--tags", "m"]).exits(0);
    let log = playground.read("m_process.run.live.log");
    assert_eq!(log.lines().filter(|line| line.ends_with("of many")).count(), 200_000);
}
