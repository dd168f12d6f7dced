//! The queue as its users meet it: every end that a job can have, and whose jobs are whose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A queue, and whoever serves it. Both go away with the test.
struct Queue {
    place: TempDir,
    server: Option<Child>,
}

impl Queue {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap(), server: None }
    }

    fn served() -> Self {
        let mut queue = Self::new();
        queue.server = Some(queue.command(&["serve"]).spawn().unwrap());
        queue
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toyq"));
        command.args(words).env("TOYQ_SPOOL", self.path("spool")).stdin(Stdio::null());
        command
    }

    fn call(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn ask(&self, words: &[&str]) -> Value {
        let output = self.call(words);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Hands a script of bash in; answers its id.
    fn submit(&self, time: &str, script: &str) -> String {
        let (directory, output) = (self.place.path().display().to_string(), self.path("out").display().to_string());
        let options = ["submit", "--owner", "me", "--time", time, "--directory", &directory, "--output", &output];
        let shown = self.ask(&[options.as_slice(), &["--", "bash", "-c", script]].concat());
        shown["id"].as_str().unwrap().to_owned()
    }

    fn show(&self, id: &str) -> Value {
        self.ask(&["show", id, "--owner", "me"])
    }

    fn until(&self, id: &str, state: &str) -> Value {
        let start = Instant::now();
        loop {
            let shown = self.show(id);
            if shown["state"] == state {
                return shown;
            }
            assert!(start.elapsed() < Duration::from_secs(240), "never `{state}`: {shown}");
            let now = shown["state"].as_str().unwrap().to_owned();
            let bytes = shown["bytes"].to_string();
            self.ask(&["wait", id, "--owner", "me", "--state", &now, "--seen", &bytes, "--seconds", "5"]);
        }
    }

    fn written(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.path("spool").exists() {
            self.call(&["remove", "--owner", "me"]);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn exists(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(240), "{} is never there", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_job_runs_with_the_environment_that_it_was_handed_in_with() {
    let queue = Queue::new();
    let id = queue.submit("0", "echo \"spool $TOYQ_SPOOL\"; echo oh >&2; exit 3");
    assert_eq!(queue.show(&id)["state"], "queued");
    assert!(queue.call(&["serve", "--idle", "0"]).status.success());
    let shown = queue.show(&id);
    assert_eq!((&shown["how"], &shown["code"]), (&"exited".into(), &3.into()));
    assert_eq!(queue.written(), format!("spool {}\noh\n", queue.path("spool").display()));
    assert_eq!(shown["bytes"], queue.written().len());
}

#[test]
fn a_job_that_nobody_serves_says_so_and_can_be_cancelled() {
    let queue = Queue::new();
    let id = queue.submit("0", "true");
    assert_eq!(queue.show(&id)["reason"], "no `toyq serve` runs here");
    let shown = queue.ask(&["cancel", &id, "--owner", "me"]);
    assert_eq!((&shown["state"], &shown["how"]), (&"ended".into(), &"cancelled".into()));
    assert!(queue.call(&["serve", "--idle", "0"]).status.success());
    assert!(!queue.path("out").exists(), "it was started all the same");
}

#[test]
fn a_running_job_is_cancelled_with_all_that_it_has_started() {
    let queue = Queue::served();
    let started = queue.path("started");
    let id = queue.submit("0", &format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", started.display()));
    exists(&started);
    queue.ask(&["cancel", &id, "--owner", "me"]);
    assert_eq!(queue.until(&id, "ended")["how"], "cancelled");
    let child = fs::read_to_string(started).unwrap();
    let start = Instant::now();
    // What is killed is there until somebody has reaped it.
    while fs::read_to_string(format!("/proc/{}/stat", child.trim())).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(240), "its child is there yet");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn time_is_limited() {
    let queue = Queue::served();
    let id = queue.submit("1", "exec sleep 600");
    assert_eq!(queue.until(&id, "ended")["how"], "timed-out");
}

#[test]
fn a_signal_and_a_program_that_is_not_there_are_told_apart() {
    let queue = Queue::served();
    let id = queue.submit("0", "kill -9 $$");
    let shown = queue.until(&id, "ended");
    assert_eq!((&shown["how"], &shown["code"]), (&"signalled".into(), &9.into()));
    let (directory, output) = (queue.place.path().display().to_string(), queue.path("none").display().to_string());
    let options = ["submit", "--owner", "me", "--time", "0", "--directory", &directory, "--output", &output];
    let shown = queue.ask(&[options.as_slice(), &["--", "/no/such/program"]].concat());
    assert_eq!(queue.until(shown["id"].as_str().unwrap(), "ended")["how"], "never-started");
}

#[test]
fn a_job_whose_runner_has_died_runs_on_and_is_lost_then() {
    let mut queue = Queue::served();
    let (started, go) = (queue.path("started"), queue.path("go"));
    let id =
        queue.submit("0", &format!("touch {}; until [ -e {} ]; do sleep 0.01; done", started.display(), go.display()));
    exists(&started);
    let mut server = queue.server.take().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(queue.show(&id)["state"], "running");
    fs::write(go, "").unwrap();
    assert_eq!(queue.until(&id, "ended")["how"], "lost");
}

#[test]
fn jobs_of_others_are_not_there() {
    let queue = Queue::new();
    let id = queue.submit("0", "true");
    for command in ["show", "cancel"] {
        assert_eq!(queue.ask(&[command, &id, "--owner", "you"])["state"], "gone", "{command}");
    }
    assert_eq!(queue.ask(&["remove", "--owner", "you"]), 0);
    assert_eq!(queue.show(&id)["state"], "queued");
    assert_eq!(queue.ask(&["remove", "--owner", "me"]), 1);
    assert_eq!(queue.show(&id)["state"], "gone");
    // A number is never given twice.
    assert_ne!(queue.submit("0", "true"), id);
}

#[test]
fn the_environment_of_a_job_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let queue = Queue::new();
    let id = queue.submit("0", "true");
    let file = queue.path("spool/jobs").join(id).join("job.json");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_word_without_a_meaning_is_refused() {
    let queue = Queue::new();
    for words in
        [&["show"][..], &["dance"], &["show", "x", "--owner", "me"], &["remove", "--owner"], &["list", "all"], &[]]
    {
        let output = queue.call(words);
        assert!(!output.status.success() && output.stderr.starts_with(b"toyq: "), "{words:?}: {output:?}");
    }
}
