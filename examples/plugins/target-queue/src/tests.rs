//! What can be tested without a host: plans, handles, and what the queue's words mean.

use maddock_sdk::events::Phase;
use maddock_sdk::job_result::{JobResult, Stage};
use maddock_sdk::local::Place;
use maddock_sdk::serde_json::{self, Value, json};
use maddock_sdk::target::{Cause, Job, JobOptions, JobPaths, Script, Topology};
use maddock_sdk::types::{Entry, EnvValue, EnvVar, ErrorKind, Image};

use crate::queue::{self, How, State};
use crate::{Handle, ending, plan};

fn job() -> Job {
    Job {
        run_id: "r1".into(),
        id: "0-m".into(),
        model: "m".into(),
        card: "{}".into(),
        image: None,
        topology: Topology {
            nodes: 1,
            processes_per_node: 1,
            gpus_per_node: 0,
            launcher: "native".into(),
            main_port: 29500,
            roles: Vec::new(),
        },
        script: Script {
            interpreter: vec!["bash".into()],
            file: "run.sh".into(),
            arguments: Vec::new(),
            encapsulate: String::new(),
            before: Vec::new(),
            after: Vec::new(),
            clone_url: None,
        },
        env: vec![EnvVar { name: "A".into(), value: EnvValue::Text("it's".into()) }],
        accelerators: None,
        time_limit: Some(60),
        paths: JobPaths {
            directory: "/r/0-m".into(),
            workspace: "/r/0-m/workspace".into(),
            work_directory: "run_directory".into(),
            tree: "/mad".into(),
        },
        profile: String::new(),
        options: JobOptions::empty(),
        collect: Vec::new(),
        config: "{}".into(),
        extra: Vec::new(),
    }
}

#[test]
fn a_plan_says_every_effect_in_the_words_of_the_policy() {
    let plan = plan::prepare(&job(), &["other".to_owned()]).unwrap().plan();
    let calls: Vec<&str> = plan.steps.iter().map(|step| step.call.as_str()).collect();
    assert_eq!(calls, ["files.copy", "files.write", "process.run"]);
    let unquoted = |entry: &Entry| (entry.name.clone(), entry.value.replace('\'', ""));
    let words: Vec<(String, String)> = plan.steps[2].scope.iter().take(2).map(unquoted).collect();
    let submission = "submit --owner r1/0-m --time 60 --directory /r/0-m/workspace --output /r/0-m/queue.log -- bash \
                      /r/0-m/workspace/.maddock/entry.sh";
    assert_eq!(words, [("program".into(), "toyq".into()), ("arguments".into(), submission.into())]);
}

#[test]
fn the_words_of_a_submission_are_those_that_the_manifest_asks_for() {
    let manifest: Value = serde_json::from_str(include_str!("../plugin.json")).unwrap();
    let asked = manifest["requests"][0]["scope"]["arguments"][0].as_str().unwrap();
    let words = queue::submission("r/j", None, "/r/w", "/r/o", "/r/s");
    assert_eq!(asked.split(' ').count(), words.len());
    for (asked, word) in asked.split(' ').zip(&words) {
        assert!(matches!(asked, "*" | "$run/**") || asked == word, "{asked} {word}");
    }
}

#[test]
fn a_secret_is_refused_because_the_queue_would_write_it_down() {
    let mut job = job();
    job.env.push(EnvVar { name: "TOKEN".into(), value: EnvValue::Secret("env/TOKEN".into()) });
    let error = plan::prepare(&job, &[]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("`TOKEN` is a secret"), "{}", error.message);
}

#[test]
fn what_the_queue_cannot_do_is_refused_and_what_it_does_not_use_is_told() {
    let mut many = job();
    many.topology.nodes = 2;
    assert_eq!(plan::prepare(&many, &[]).unwrap_err().kind, ErrorKind::Unsupported);
    for name in ["", "..", "a/../.."] {
        let mut outside = job();
        outside.paths.work_directory = name.into();
        assert!(plan::prepare(&outside, &[]).is_err(), "{name}");
    }
    let mut told = job();
    told.image = Some(Image { reference: "i".into(), digest: None, registry_reference: None, local: true });
    told.options = JobOptions::KEEP_ALIVE;
    let work = plan::prepare(&told, &[]).unwrap();
    assert_eq!(work.warnings.len(), 2);
    assert!(!work.script.contains("Kept alive"));
}

#[test]
fn the_configuration_may_name_the_queue() {
    let with = |section: Value| {
        let mut job = job();
        job.config = json!({"queue": section}).to_string();
        plan::prepare(&job, &[])
    };
    let work = with(json!({"spool": "/var/spool/toyq"})).unwrap();
    let spool = work.env.iter().find(|variable| variable.name == queue::SPOOL).unwrap();
    assert_eq!(spool.value, EnvValue::Text("/var/spool/toyq".into()));
    for wrong in [json!({"spool": "relative"}), json!({"spool": 1}), json!({"spol": "/x"})] {
        let error = with(wrong.clone()).unwrap_err();
        assert!(error.kind == ErrorKind::InvalidInput && error.hint.is_some(), "{wrong}");
    }
}

#[test]
fn a_handle_is_plain_text_and_read_back() {
    let entry = queue::Entry { id: "7".into(), owner: "r1/0-m".into(), spool: "/q".into() };
    let handle = Handle { entry, place: Place::of(&job()) };
    let text = serde_json::to_string(&handle).unwrap();
    assert_eq!(Handle::read(&text).unwrap(), handle);
    for nonsense in ["", "{}", "nonsense"] {
        assert_eq!(Handle::read(nonsense).unwrap_err().kind, ErrorKind::InvalidInput);
    }
}

fn shown(state: &str, how: &str, code: i32) -> queue::Shown {
    let answer = json!({
        "id": "7", "owner": "r1/0-m", "spool": "/q", "state": state, "how": how, "code": code, "reason": "so", "host": "h",
        "bytes": 3,
    });
    queue::read(answer.to_string().as_bytes()).unwrap()
}

#[test]
fn every_word_of_the_queue_has_a_meaning() {
    let ended = |how: &str, code| {
        let result = JobResult { exit: code, stage: Stage::Model, model: None, seconds: Some(1.5), git_commit: None };
        ending::ending(&shown("ended", how, code), None, Some(&result), true).unwrap()
    };
    assert_eq!(ended("exited", 3).cause, Cause::Exited(3));
    assert_eq!(ended("exited", 0).duration, Some(1.5));
    assert_eq!(ended("signalled", 9).cause, Cause::Signalled(9));
    assert_eq!(ended("timed-out", 0).cause, Cause::TimedOut);
    assert_eq!(ended("never-started", 0).cause, Cause::NeverStarted);
    assert_eq!(ended("lost", 0).cause, Cause::Lost);
    assert_eq!(ended("evicted by a later queue", 0).cause, Cause::Unknown);
    let cancelled = ending::ending(&shown("ended", "cancelled", 0), Some("by me".into()), None, true).unwrap();
    assert_eq!((cancelled.cause, cancelled.message.as_str()), (Cause::Cancelled, "by me"));
    assert_eq!(ending::ending(&shown("gone", "", 0), None, None, true).unwrap().cause, Cause::Unknown);
    for goes_on in ["queued", "running", "thawing"] {
        assert_eq!(ending::ending(&shown(goes_on, "", 0), None, None, true), None, "{goes_on}");
    }
    assert_eq!(shown("thawing", "", 0).state, State::Unknown);
    assert_eq!(shown("ended", "", 0).how, How::NotYet);
    assert_eq!(ending::phase(State::Queued), Phase::Queued);
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    for nonsense in ["", "null", "{\"id\": 7}", "\u{1b}[2J"] {
        assert_eq!(queue::read(nonsense.as_bytes()).unwrap_err().kind, ErrorKind::Failed);
    }
}
