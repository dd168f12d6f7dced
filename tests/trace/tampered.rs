//! Recordings that are not what they were.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::ground::{Ground, until};

fn recorded() -> Ground {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    ground
}

fn is(line: &Value, host: &str) -> bool {
    line["host"] == host
}

#[test]
fn a_changed_answer_is_named_by_the_call_that_it_changes() {
    let ground = recorded();
    ground.tamper(|mut line| {
        if is(&line, "process.launch") {
            let handle = line["answer"]["ok"].as_str().unwrap().replace("\"pid\":", "\"pid\":1");
            line["answer"]["ok"] = json!(handle);
        }
        Some(line)
    });
    let answer = ground.replay().exits(7);
    let answer =
        answer.says(&["the replay differs from the recording", "`target.launch` of target-process, job 0-m: its end"]);
    for line in answer.stderr.lines().filter(|line| !line.contains("recorded ") && !line.contains("replayed ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn output_that_was_changed_changes_what_the_plugin_tells() {
    let ground = recorded();
    ground.tamper(|mut line| {
        if is(&line, "process.child.next-event") {
            let text = line["answer"].to_string().replace("5 things", "6 things");
            line["answer"] = serde_json::from_str(&text).unwrap();
        }
        Some(line)
    });
    ground.replay().exits(7).says(&[
        "`target.watch` of target-process, job 0-m: host call",
        "recorded events.output",
        "at /2/$text",
        "performance: 5 things",
        "performance: 6 things",
    ]);
}

#[test]
fn a_call_that_was_taken_out_is_missing() {
    let ground = recorded();
    let mut taken = 0;
    ground.tamper(|line| {
        let this = is(&line, "process.launch");
        taken += usize::from(this);
        (!this).then_some(line)
    });
    assert_eq!(taken, 1);
    let says = ["`target.launch` of target-process", "this host call is missing from the recording", "process.launch"];
    ground.replay().exits(7).says(&says);
}

#[test]
fn a_result_that_was_changed_is_not_what_the_replay_comes_to() {
    let ground = recorded();
    let path = ground.directory().join("jobs/0-m/job.json");
    let job = std::fs::read_to_string(&path).unwrap().replace("\"5\"", "\"50\"");
    std::fs::write(&path, job).unwrap();
    ground.replay().exits(7).says(&["not as recorded", "rows/0/performance", "what was made of them is not"]);
}

#[test]
fn another_build_of_a_plugin_is_said() {
    let ground = recorded();
    ground.tamper(|mut line| {
        if line["plugin"] == "target-process" {
            line["digest"] = json!("sha256:1234");
        }
        Some(line)
    });
    let says = ["plugin `target-process` is another build than the recorded one", "recorded sha256:1234"];
    ground.replay().exits(0).says(&says);
    ground.tamper(|mut line| {
        if line["plugin"] == "target-process" {
            line["plugin"] = json!("target-elsewhere");
        }
        Some(line)
    });
    ground.replay().exits(1).says(&["plugin `target-elsewhere` of the recording is not here", "--plugin FILE"]);
}

#[test]
fn another_version_of_the_recording_is_refused() {
    let ground = recorded();
    ground.tamper(|mut line| {
        if line.get("v").is_some() {
            line["v"] = json!(99);
        }
        Some(line)
    });
    ground.replay().exits(1).says(&["has version 99, this maddock reads 1"]);
}

#[test]
fn a_last_line_that_is_cut_off_is_said_and_the_rest_is_played() {
    let ground = recorded();
    let text = ground.recording();
    // In the middle of the call that follows the job.
    let place = text.find("process.child.next-event").unwrap();
    std::fs::write(ground.directory().join("recording.jsonl"), &text[..place]).unwrap();
    ground.replay().says(&["the last line of the recording is cut off", "go as far as recorded"]);
    ground.call(&["trace", "show", "--bodies"]).exits(0).says(&["process.launch", "its end is not in the recording"]);
}

#[test]
fn a_line_in_the_middle_that_is_none_is_an_error() {
    let ground = recorded();
    let text = ground.recording().replacen("{\"call\"", "{call", 1);
    std::fs::write(ground.directory().join("recording.jsonl"), text).unwrap();
    let says = ["lines of the recording cannot be read: 2"];
    let answer = ground.replay().says(&says);
    assert_ne!(answer.code, Some(0));
}

#[test]
fn a_run_that_is_killed_leaves_all_that_was_answered() {
    let ground = Ground::new("echo begun\ntouch \"$BEGUN\"\nexec sleep 100\n");
    let begun = ground.path("begun");
    let script = format!("echo begun\ntouch '{}'\nexec sleep 100\n", begun.display());
    ground.write("tree/scripts/m/run.sh", &script);
    let words = ground.words("process");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut run = ground.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the job", || begun.exists() && ground.recording().contains("begun\\n"));
    run.kill().unwrap();
    run.wait().unwrap();
    ground.call(&["trace", "show", "--call", "process.*"]).exits(0).says(&["process.launch", "process.attach"]);
    ground.replay().exits(0).says(&["has no verdict to compare with", "go as far as recorded"]);
}
