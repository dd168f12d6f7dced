//! What a recording never is: without end, or with a secret in it.

use std::fs;

use serde_json::json;

use crate::ground::{Answer, Ground};

const SECRET: &str = "verysecretvalue-1f8e";

#[test]
fn a_recording_stops_at_its_limit_and_neither_the_run_nor_the_replay_hides_it() {
    let ground = Ground::plain();
    let words = ground.words("process");
    let mut command = ground.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("MADDOCK_RECORDING", "16K");
    Answer::of(command).exits(0);
    assert!(ground.recording().len() < 17 << 10);
    ground.replay().exits(1).says(&["the recording stopped before the run did"]);
}

#[test]
fn a_run_without_a_recording_has_its_trace_all_the_same() {
    let ground = Ground::plain();
    let words = ground.words("process");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = ground.command(&words);
    command.env("MADDOCK_RECORDING", "off");
    Answer::of(command).exits(0);
    assert!(!ground.directory().join("recording.jsonl").exists());
    ground.replay().exits(1).says(&["has no recording", "MADDOCK_RECORDING=off"]);
    ground.call(&["trace", "show"]).exits(0).says(&["process.launch"]);
    let mut command = ground.command(&words);
    command.env("MADDOCK_RECORDING", "much");
    Answer::of(command).exits(4).says(&["MADDOCK_RECORDING is `much`", "such as `256M`"]);
}

#[test]
fn a_secret_that_a_job_prints_is_not_in_the_recording_and_it_replays_all_the_same() {
    let script = format!(
        "echo \"whole $MAD_SECRETS_X\"\nfor part in very secret value -1f8e; do printf %s \"$part\"; sleep 0.05; done\n\
         echo\necho 'performance: 5 things'\n# {SECRET}\n"
    );
    let ground = Ground::new(&script);
    let words = ground.words("process");
    let mut command = ground.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("MAD_SECRETS_X", SECRET);
    Answer::of(command).exits(0);
    let recording = ground.recording();
    assert!(recording.contains(&"*".repeat(SECRET.len())), "it was printed");
    for part in [SECRET, "verysecret", "secretvalue", "\"$text\":\"secret", "\"$text\":\"value"] {
        assert!(!recording.contains(part), "{part}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(ground.directory().join("recording.jsonl")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    ground.replay().exits(0).says(&["5 things: as recorded", "holds a masked secret"]);
}

#[test]
fn what_a_job_prints_drives_no_terminal_through_the_trace() {
    let ground =
        Ground::new("printf '\\033]0;owned\\007\\302\\233\\342\\200\\256x\\n'\necho 'performance: 5 things'\n");
    ground.run("process", &[]).exits(0);
    for words in [["trace", "show", "--bodies"].as_slice(), &["trace", "show", "--bodies", "--json"]] {
        let shown = ground.call(words).exits(0).says(&["owned"]).stdout;
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(hostile), "{shown:?}");
    }
    ground.replay().exits(0);
}

#[test]
fn what_a_replay_is_given_is_told_without_control_characters() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    ground.tamper(|mut line| {
        if line["host"] == "process.launch" {
            line["ask"][0]["argv"] = json!(["\u{1b}]0;owned\u{7}"]);
        }
        Some(line)
    });
    let answer = ground.replay().exits(7).says(&["owned"]);
    assert!(!answer.stderr.contains(['\u{1b}', '\u{7}']), "{answer:?}");
}
