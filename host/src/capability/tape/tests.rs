//! From a recorder over the file to a playback, without a plugin.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use super::playback::{Finding, Seen};
use super::recorder::{FILE, KEPT};
use super::*;
use crate::capability::gate::Identity;
use crate::results::redact::Redactor;
use crate::results::run_directory::RunDirectory;

const LARGE: u64 = 1 << 20;

fn begin(recorder: &Arc<Recorder>) -> Tape {
    let identity = Identity { name: "p".to_owned(), digest: "sha256:0".to_owned(), built_in: true, signer: None };
    let take = recorder.begin(&identity, "target.status", Some("0-m"), |told| told.push("handle"));
    take.map_or(Tape::Off, Tape::Records)
}

/// A call of the host on a tape; what it answers is `answer`, or what the tape has.
fn call(tape: &Tape, path: &str, answer: &str) -> wasmtime::Result<String> {
    match Turn::of(tape, "files.read_head", |told| told.push(path))? {
        Turn::Live(pending) => {
            if let Some(pending) = pending {
                pending.answered(|writer| Ok(json!({"ok": writer.body(answer)?})));
            }
            Ok(answer.to_owned())
        }
        Turn::Played(answer) => Ok(answer["ok"].as_str().unwrap_or_default().to_owned()),
    }
}

fn recorder(directory: &Path, limit: u64) -> Arc<Recorder> {
    Recorder::open(directory, "r", Redactor::default(), limit).unwrap()
}

fn only_call(directory: &Path) -> recording::Call {
    Recording::read(directory).unwrap().calls.remove(0)
}

#[test]
fn what_was_recorded_plays_again_with_the_same_answers_and_times() {
    let place = tempfile::tempdir().unwrap();
    let tape = begin(&recorder(place.path(), LARGE));
    let (monotonic, wall) = (Monotonic::new(tape.clone()), Wall(tape.clone()));
    let seen = (monotonic.now(), wall.now(), call(&tape, "/a", "x").unwrap(), monotonic.now());
    tape.end(&End::Answered(&true));

    let playback = Arc::new(Playback::new(only_call(place.path())));
    let tape = Tape::Plays(playback.clone());
    let (monotonic, wall) = (Monotonic::new(tape.clone()), Wall(tape.clone()));
    let again = (monotonic.now(), wall.now(), call(&tape, "/a", "not asked").unwrap(), monotonic.now());
    assert_eq!(again, seen);
    assert_ne!(wall.resolution(), Duration::ZERO);
    tape.end(&End::Answered(&true));
    assert_eq!(playback.finding(), Finding::Same);
}

/// Plays a recording of two calls, `/a` and `/b`, in another way.
fn finding(play: impl FnOnce(&Tape)) -> Finding {
    let place = tempfile::tempdir().unwrap();
    let tape = begin(&recorder(place.path(), LARGE));
    call(&tape, "/a", "x").unwrap();
    call(&tape, "/b", "y").unwrap();
    tape.end(&End::Answered(&7_u32));
    let playback = Arc::new(Playback::new(only_call(place.path())));
    play(&Tape::Plays(playback.clone()));
    playback.finding()
}

#[test]
fn the_first_request_that_differs_is_the_finding() {
    let other = finding(|tape| {
        call(tape, "/a", "").unwrap();
        call(tape, "/c", "").unwrap_err();
        call(tape, "/d", "").unwrap_err();
    });
    let Finding::Differs(found) = other else { panic!("{other:?}") };
    assert_eq!(found.number, Some(1));
    assert_eq!(found.recorded, Seen::Call("files.read-head".to_owned(), json!(["/b"])));
    assert_eq!(found.replayed, Seen::Call("files.read-head".to_owned(), json!(["/c"])));
}

#[test]
fn a_request_more_or_less_and_another_end_are_found() {
    let fewer = finding(|tape| {
        call(tape, "/a", "").unwrap();
        tape.end(&End::Answered(&7_u32));
    });
    assert!(matches!(&fewer, Finding::Differs(found) if found.number == Some(1)), "{fewer:?}");
    let both = |tape: &Tape| {
        call(tape, "/a", "").unwrap();
        call(tape, "/b", "").unwrap();
    };
    let more = finding(|tape| {
        both(tape);
        call(tape, "/c", "").unwrap_err();
    });
    assert!(matches!(&more, Finding::Differs(found) if found.number == Some(2)), "{more:?}");
    let other = finding(|tape| {
        both(tape);
        tape.end(&End::Answered(&8_u32));
    });
    assert!(matches!(&other, Finding::Differs(found) if found.number.is_none()), "{other:?}");
    let looks = finding(|tape| {
        Wall(tape.clone()).now();
        call(tape, "/a", "").unwrap_err();
    });
    assert!(matches!(looks, Finding::Differs(_)), "{looks:?}");
}

#[test]
fn a_call_that_was_given_up_is_played_as_far_as_it_went() {
    let place = tempfile::tempdir().unwrap();
    let tape = begin(&recorder(place.path(), LARGE));
    call(&tape, "/a", "x").unwrap();
    let Turn::Live(pending) = Turn::of(&tape, "files.read_head", |told| told.push("/b")).unwrap() else { panic!() };
    drop(pending);
    drop(tape);
    let recorded = only_call(place.path());
    assert_eq!(recorded.end.as_ref().unwrap().body, "abandoned");
    let playback = Arc::new(Playback::new(recorded));
    let tape = Tape::Plays(playback.clone());
    call(&tape, "/a", "").unwrap();
    call(&tape, "/b", "").unwrap_err();
    assert_eq!(playback.finding(), Finding::CutOff);
}

#[test]
fn a_recording_stops_at_its_limit_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let tape = begin(&recorder(place.path(), 2000));
    for number in 0..50 {
        call(&tape, &format!("/{number}"), "x").unwrap();
    }
    tape.end(&End::Answered(&true));
    let recording = Recording::read(place.path()).unwrap();
    assert!(recording.stopped.as_ref().is_some_and(|why| why.contains("may have 2000")), "{recording:?}");
    assert!(place.path().join(FILE).metadata().unwrap().len() < 2200);
    // Nothing of another process is added after it.
    let again = begin(&recorder(place.path(), 2000));
    assert!(matches!(again, Tape::Off) || Recording::read(place.path()).unwrap().calls.len() == 1);
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", place.path().join(FILE)).unwrap();
    let tape = begin(&recorder(place.path(), LARGE));
    assert_eq!(call(&tape, "/a", "x").unwrap(), "x");
    tape.end(&End::Answered(&true));
}

#[test]
fn only_the_newest_runs_keep_their_recording() {
    let place = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..KEPT as u64 + 2)
        .map(|number| {
            RunDirectory::create(place.path(), "2026-11-23T12:00:05Z".parse().unwrap(), || number * 26).unwrap()
        })
        .collect();
    for run in &runs {
        recorder(run.path(), LARGE);
    }
    forget_older(place.path());
    let mut ids: Vec<_> =
        runs.iter().filter(|run| run.path().join(FILE).exists()).map(|run| run.id().clone()).collect();
    ids.sort();
    assert_eq!(ids.len(), KEPT);
    let all = RunDirectory::list(place.path()).unwrap();
    assert_eq!(ids, all[2..]);
}
