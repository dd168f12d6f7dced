//! Runs that outlive the command that began them: found, followed, ended and recorded by other processes, each job once.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::playground::{Answer, Playground, Started, alive, line_of, until};

/// A model that tells its number, and ends well once its test says so.
struct Waits {
    playground: Playground,
    begun: PathBuf,
    go: PathBuf,
}

impl Waits {
    fn new() -> Self {
        let mut playground = Playground::new();
        let (begun, go) = (playground.note("begun"), playground.note("go"));
        playground.model("m", json!({}), &script(&begun, &go));
        Self { playground, begun, go }
    }

    /// The run's id and the number of its model's process.
    fn detach(&self, more: &[&str]) -> (String, String) {
        let answer = self.playground.run(&[&["--tags", "m", "--detach"], more].concat()).exits(0);
        (answer.stdout.trim().to_owned(), line_of(&self.begun))
    }

    fn go(&self) {
        std::fs::write(&self.go, "").unwrap();
    }

    fn call(&self, words: &[&str]) -> Answer {
        self.playground.call(words)
    }

    fn status(&self, id: &str) -> Value {
        self.call(&["status", id, "--json"]).exits(0).json()
    }

    /// Ends the attendant without a chance to clean up, and waits until nobody attends the run.
    fn kill_attendant(&self, id: &str) {
        let pid = self.status(id)["attendant"]["process"]["pid"].as_i64().unwrap();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        // Its last thread lets go of the lock, which may be after the first has ended.
        until("the end of the attendant", || !alive(&pid.to_string()) && self.status(id)["state"] != "attended");
    }

    fn rows(&self) -> Vec<(String, String)> {
        let rows = self.playground.rows();
        rows.iter().map(|row| (row["model"].clone(), row["status"].clone())).collect()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // A test that failed leaves no attendant waiting.
        let _ = std::fs::write(&self.go, "");
    }
}

/// It ends with the test's directory, too: what a test leaves behind must not wait for ever.
fn script(begun: &Path, go: &Path) -> String {
    format!(
        "echo hello\necho $$ > {begun}\nuntil [ -e {go} ] || [ ! -e {begun} ]; do sleep 0.02; done\necho 'performance: 42 x'\n",
        begun = begun.display(),
        go = go.display()
    )
}

/// Whether a program has a file of this name open.
fn reads(program: &Started, name: &str) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", program.pid().as_raw_nonzero())).unwrap();
    open.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.ends_with(name)))
}

fn pair(model: &str, status: &str) -> (String, String) {
    (model.to_owned(), status.to_owned())
}

#[test]
fn a_detached_run_prints_its_id_and_another_process_follows_it_to_its_row() {
    let waits = Waits::new();
    let (id, pid) = waits.detach(&[]);
    assert!(alive(&pid), "it goes on");
    let status = waits.status(&id);
    assert_eq!((status["state"].as_str(), status["jobs"][0]["state"].as_str()), (Some("attended"), Some("running")));
    let runs = waits.call(&["runs", "--json"]).exits(0).json();
    assert_eq!((&runs[0]["run"], &runs[0]["jobs"]), (&json!(id), &json!({"launched": 1})));
    // The attendant takes over what the model has written.
    until("its output", || waits.call(&["logs", "last"]).exits(0).stdout.contains("hello\n"));

    let attached = Started::new(waits.playground.command().args(["attach", &id[..id.len() - 1]]));
    until("who attaches to listen", || reads(&attached, "events.jsonl"));
    let followed = Started::new(waits.playground.command().args(["logs", &id, "m", "--follow"]));
    waits.go();
    let answer = attached.ended().exits(0).says(&["SUCCESS m"]).prints(&["Success", "42 x", &id]);
    assert_eq!(answer.stdout.matches("42 x").count(), 1);
    let log = followed.ended().exits(0).prints(&["hello\n", "performance: 42 x\n"]).stdout;
    assert_eq!(log.matches("hello\n").count(), 1, "{log}");
    assert_eq!(waits.rows(), [pair("m", "SUCCESS")]);
    // Long after its end all of them still answer.
    waits.call(&["attach", "last"]).exits(0).prints(&["42 x"]);
    waits.call(&["collect", "last"]).exits(0);
    waits.call(&["logs", "last", "m"]).exits(0).prints(&["performance: 42 x\n"]);
    waits.call(&["cancel", "last"]).exits(0).says(&["nothing to cancel"]);
    assert_eq!(waits.status(&id)["jobs"][0]["state"], "SUCCESS");
    assert_eq!(waits.rows().len(), 1);
}

#[test]
fn the_exit_code_of_attach_is_the_runs() {
    let playground = Playground::with("echo nothing measured");
    let answer = playground.run(&["--tags", "m", "--detach"]);
    assert!(matches!(answer.code, Some(0 | 3)), "it may have ended before its command left: {answer:#?}");
    playground.call(&["attach", "last"]).exits(3).prints(&["it measured nothing"]);
    assert_eq!(playground.rows().len(), 1);
}

#[test]
fn when_the_attendant_is_killed_its_job_goes_on_and_is_collected_by_its_handle() {
    let waits = Waits::new();
    let (id, pid) = waits.detach(&[]);
    waits.kill_attendant(&id);
    assert!(alive(&pid), "the job goes on");
    let status = waits.status(&id);
    assert_eq!((status["state"].as_str(), status["jobs"][0]["state"].as_str()), (Some("detached"), Some("running")));
    // Nothing of it has ended.
    waits.call(&["collect", &id]).exits(0).says(&["0-m: running", "1 job of run"]);
    assert!(!waits.playground.work().join("perf.csv").exists());
    waits.call(&["logs", &id]).exits(0).prints(&["hello\n"]);
    let followed = Started::new(waits.playground.command().args(["logs", &id, "--follow"]));
    waits.go();
    let log = followed.ended().exits(0).prints(&["performance: 42 x\n"]).stdout;
    assert_eq!(log.matches("hello\n").count(), 1, "{log}");
    until("the end of the job", || waits.status(&id)["jobs"][0]["state"] == "ended");
    waits.call(&["collect", &id]).exits(0).prints(&["42 x"]);
    assert_eq!(waits.rows(), [pair("m", "SUCCESS")]);
    let log = waits.playground.job_file("0-m", "run.log");
    assert_eq!(log.matches("hello\n").count(), 1, "written anew, not doubled: {log}");
    let run: Value =
        serde_json::from_str(&std::fs::read_to_string(waits.playground.only_run().join("run.json")).unwrap()).unwrap();
    assert_eq!(run["state"], "ended");
    let commands: Vec<&str> =
        run["attendants"].as_array().unwrap().iter().map(|one| one["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["run", "run --detach", "collect", "collect"]);
}

#[test]
fn jobs_that_their_attendant_never_launched_are_failures_that_say_so() {
    let mut waits = Waits::new();
    waits.playground.model("next", json!({}), "echo 'performance: 1 x'");
    let answer = waits.playground.run(&["--tags", "every", "--detach"]).exits(0);
    let id = answer.stdout.trim().to_owned();
    line_of(&waits.begun);
    waits.kill_attendant(&id);
    waits.go();
    let status = waits.status(&id);
    assert_eq!(status["jobs"][1]["state"], "never launched", "{status:#}");
    waits.call(&["attach", &id]).exits(3).prints(&["cancelled: never launched", "42 x"]);
    let mut rows = waits.rows();
    rows.sort();
    assert_eq!(rows, [pair("m", "SUCCESS"), pair("next", "FAILURE")]);
}

#[test]
fn two_that_attach_at_once_record_one_row() {
    let waits = Waits::new();
    let (id, _) = waits.detach(&[]);
    waits.kill_attendant(&id);
    let both: Vec<Started> = (0..2).map(|_| Started::new(waits.playground.command().args(["attach", &id]))).collect();
    until("somebody attends", || waits.status(&id)["state"] == "attended");
    waits.go();
    for one in both {
        one.ended().exits(0).prints(&["42 x"]);
    }
    assert_eq!(waits.rows(), [pair("m", "SUCCESS")]);
}

#[test]
fn ctrl_c_at_attach_leaves_the_job_to_itself() {
    let waits = Waits::new();
    let (id, pid) = waits.detach(&[]);
    let follower = Started::new(waits.playground.command().args(["attach", &id, "--live-output"]));
    // It has read where the run is once it says whom it follows.
    until("the follower", || waits.status(&id)["state"] == "attended");
    follower.signal(Signal::INT);
    assert!(matches!(follower.ended().code, Some(130) | None), "before or after it listens to signals");
    assert!(alive(&pid));
    waits.kill_attendant(&id);
    let attendant = Started::new(waits.playground.command().args(["attach", &id]));
    until("the attendant", || waits.status(&id)["attendant"]["command"] == "attach");
    until("it follows the job", || {
        let events = std::fs::read_to_string(waits.playground.only_run().join("events.jsonl")).unwrap();
        events.contains("run-resumed") && events.matches("job-started").count() == 2
    });
    attendant.signal(Signal::INT);
    attendant.ended().exits(130).says(&["the jobs go on", "1 job of run"]);
    assert!(alive(&pid));
    waits.go();
    waits.call(&["attach", &id]).exits(0);
    assert_eq!(waits.rows(), [pair("m", "SUCCESS")]);
}

#[test]
fn cancel_ends_the_jobs_whether_somebody_attends_them_or_not() {
    for kill in [false, true] {
        let mut waits = Waits::new();
        waits.playground.model("next", json!({}), "echo 'performance: 1 x'");
        let id = waits.playground.run(&["--tags", "every", "--detach"]).exits(0).stdout.trim().to_owned();
        let pid = line_of(&waits.begun);
        if kill {
            waits.kill_attendant(&id);
        }
        waits.call(&["cancel", &id]).exits(0).says(&["cancelled"]);
        until("the end of the process", || !alive(&pid));
        until("the end of the run", || waits.status(&id)["state"] == "cancelled");
        let mut rows = waits.rows();
        rows.sort();
        assert_eq!(rows, [pair("m", "FAILURE"), pair("next", "FAILURE")], "kill: {kill}");
        let job: Value = serde_json::from_str(&waits.playground.job_file("0-m", "job.json")).unwrap();
        assert_eq!(job["execution"]["state"], "cancelled", "{job:#}");
        waits.call(&["attach", &id]).exits(3);
    }
}

#[test]
fn one_job_is_cancelled_and_the_others_go_on() {
    let mut waits = Waits::new();
    waits.playground.model("next", json!({}), "echo 'performance: 1 x'");
    let id = waits.playground.run(&["--tags", "every", "--detach"]).exits(0).stdout.trim().to_owned();
    line_of(&waits.begun);
    waits.call(&["cancel", &id, "m"]).exits(0);
    waits.call(&["attach", &id]).exits(3).prints(&["1 x"]);
    assert_eq!(waits.rows(), [pair("m", "FAILURE"), pair("next", "SUCCESS")]);
    waits.call(&["cancel", &id, "nobody"]).exits(4).says(&["no job `nobody`", "`0-m`"]);
}

#[test]
fn ctrl_c_on_an_attached_run_detaches_where_that_was_asked_for() {
    let mut waits = Waits::new();
    waits.playground.model("next", json!({}), "echo 'performance: 1 x'");
    let run = Started::new(waits.playground.run_command().args(["--tags", "every", "--on-interrupt", "detach"]));
    let pid = line_of(&waits.begun);
    until("the handle", || {
        waits.playground.only_run().join("resume/0-m.json").exists()
            && waits.status("last")["jobs"][0]["state"] == "running"
    });
    run.signal(Signal::INT);
    let answer = run.ended().exits(130).says(&["maddock attach", "next was never launched"]);
    let id = answer.stdout.trim().to_owned();
    assert!(alive(&pid), "it goes on");
    assert_eq!(waits.status(&id)["state"], "detached");
    waits.go();
    waits.call(&["attach", &id]).exits(3).prints(&["42 x", "never launched"]);
    let mut rows = waits.rows();
    rows.sort();
    assert_eq!(rows, [pair("m", "SUCCESS"), pair("next", "FAILURE")]);
}

#[test]
fn cancel_ends_an_attached_run_too_also_one_that_ctrl_c_would_detach() {
    let waits = Waits::new();
    let run = Started::new(waits.playground.run_command().args(["--tags", "m", "--on-interrupt", "detach"]));
    let pid = line_of(&waits.begun);
    until("the job", || waits.status("last")["jobs"][0]["state"] == "running");
    waits.call(&["cancel", "last"]).exits(0);
    run.ended().exits(130);
    until("the end of the process", || !alive(&pid));
    assert_eq!(waits.rows(), [pair("m", "FAILURE")]);
}

#[test]
fn the_sudden_death_of_an_attached_run_is_told_and_its_job_recorded_by_collect() {
    let waits = Waits::new();
    let run = Started::new(waits.playground.run_command().args(["--tags", "m"]));
    let pid = line_of(&waits.begun);
    until("the job", || waits.status("last")["jobs"][0]["state"] == "running");
    run.signal(Signal::KILL);
    assert_eq!(run.ended().code, None);
    until("the end of the process", || !alive(&pid));
    assert_eq!(waits.status("last")["state"], "abandoned");
    waits.call(&["collect", "last"]).exits(3);
    assert_eq!(waits.rows(), [pair("m", "FAILURE")]);
}

#[test]
fn secrets_of_a_job_are_kept_out_of_what_is_left_and_its_output_is_not_shown_unmasked() {
    let mut waits = Waits::new();
    let text = format!("echo \"it is $MAD_SECRETS_TOKEN\"\n{}", script(&waits.begun, &waits.go));
    waits.playground.model("loud", json!({}), &text);
    let mut command = waits.playground.run_command();
    command.args(["--tags", "loud", "--detach"]).env("MAD_SECRETS_TOKEN", "hunter2-hunter2");
    let id = crate::playground::answer(&mut command).exits(0).stdout.trim().to_owned();
    line_of(&waits.begun);
    waits.kill_attendant(&id);
    for (path, bytes) in crate::playground::contents(&waits.playground.only_run()) {
        let raw = path.ends_with("output.log");
        assert!(raw || !String::from_utf8_lossy(&bytes).contains("hunter2"), "{}", path.display());
    }
    for words in [&["logs", &id][..], &["collect", &id], &["attach", &id]] {
        waits.call(words).exits(4).says(&["env/MAD_SECRETS_TOKEN", "--unredacted"]);
    }
    let mut logs = waits.playground.command();
    let answer = crate::playground::answer(logs.args(["logs", &id]).env("MAD_SECRETS_TOKEN", "hunter2-hunter2"));
    answer.exits(0).prints(&["it is ***\n"]);
    waits.go();
}

#[test]
fn a_run_that_is_not_there_is_refused_with_what_is() {
    let playground = Playground::with("echo 'performance: 1 x'");
    playground.call(&["status", "last"]).exits(4).says(&["there are no runs"]);
    playground.run(&["--tags", "m"]).exits(0);
    playground.run(&["--tags", "m"]).exits(0);
    let id = playground.run_id(1);
    for command in ["status", "logs", "cancel", "attach", "collect"] {
        playground.call(&[command, "nonsense"]).exits(4).says(&["there is no run `nonsense`", &id]);
        playground.call(&[command, "2"]).exits(4).says(&["2 runs begin with `2`"]);
        playground.call(&[command, &id]).exits(0);
    }
    let runs = playground.call(&["runs", "--json"]).exits(0).json();
    assert_eq!((runs.as_array().unwrap().len(), &runs[0]["run"]), (2, &json!(id)));
}

#[test]
fn handles_and_records_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let waits = Waits::new();
    waits.detach(&[]);
    let resume = waits.playground.only_run().join("resume");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&resume), mode(&resume.join("0-m.json")), mode(&resume.join(".run.json"))), (0o700, 0o600, 0o600));
    waits.go();
    waits.call(&["attach", "last"]).exits(0);
}
