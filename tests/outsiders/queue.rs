//! target-queue: a target that was built outside of this repository's workspaces, in runs as its users have them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::json;

use crate::playground::{Answer, Playground, Started, answer, line_of, until};
use crate::workshop::{build, component, copy, target};

/// The component and the queue's program, built once.
pub fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let project = copy("target-queue");
        Playground::new().call(&["plugin", "vendor", "--directory", project.to_str().unwrap()]).exits(0);
        build(&project, &["build", "--locked", "--release", "--target", "wasm32-wasip2"]);
        build(&project, &["build", "--locked", "-p", "toyq"]);
        // Kept for these tests: whoever builds the project again replaces what cargo has made.
        let kept = target().join("kept");
        std::fs::create_dir_all(&kept).unwrap();
        let (plugin, queue) = (kept.join("target_queue.wasm"), kept.join("toyq"));
        std::fs::copy(component("target-queue"), &plugin).unwrap();
        std::fs::copy(target().join("debug/toyq"), &queue).unwrap();
        (plugin, queue)
    })
}

/// A tree with a model `m`, the installed target with all that it asks for, and a queue of its own.
struct Site {
    playground: Playground,
}

impl Site {
    fn new(script: &str) -> Self {
        Self::with(json!({}), script)
    }

    fn with(card: serde_json::Value, script: &str) -> Self {
        let mut playground = Playground::new();
        playground.model("m", card, script);
        playground.call(&["plugin", "install", built().0.to_str().unwrap(), "--grant"]).exits(0);
        Self { playground }
    }

    fn prepared(&self, mut command: Command) -> Command {
        let mut path = vec![built().1.parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        command.env("PATH", std::env::join_paths(path).unwrap()).env("TOYQ_SPOOL", self.playground.note("spool"));
        command
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.prepared(self.playground.command());
        command.args(words);
        command
    }

    fn call(&self, words: &[&str]) -> Answer {
        answer(&mut self.command(words))
    }

    fn run_words(&self, more: &[&str]) -> Command {
        let mut command = self.command(&["run", "--target", "queue", "--tags", "m", "--model-dir"]);
        command.arg(self.playground.tree()).args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Answer {
        answer(&mut self.run_words(more))
    }

    /// The id of a detached run.
    fn detach(&self) -> String {
        self.run(&["--detach"]).exits(0).stdout.trim().to_owned()
    }

    fn queue(&self, words: &[&str]) -> String {
        let output = self.prepared(Command::new(&built().1)).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn serve(&self) -> Started {
        Started::new(self.prepared(Command::new(&built().1)).arg("serve"))
    }

    fn row(&self) -> std::collections::BTreeMap<String, String> {
        let rows = self.playground.rows();
        assert_eq!(rows.len(), 1, "{rows:#?}");
        rows.into_iter().next().unwrap()
    }
}

const GOOD: &str = "echo performance: 12.5 tokens_per_second\n";

#[test]
fn it_conforms() {
    let playground = Playground::new();
    playground.call(&["plugin", "test", built().0.to_str().unwrap()]).exits(0).prints(&["0 failed"]);
}

#[test]
fn a_job_goes_through_the_queue_to_its_row() {
    let site = Site::new(GOOD);
    let _serving = site.serve();
    site.run(&[]).exits(0).says(&["SUCCESS m"]);
    let row = site.row();
    for (column, value) in [
        ("model", "m"),
        ("status", "SUCCESS"),
        ("performance", "12.5"),
        ("metric", "tokens_per_second"),
        ("deployment_type", "queue"),
        ("launcher", "native"),
        ("nnodes", "1"),
    ] {
        assert_eq!(row[column], value, "{column} of {row:#?}");
    }
    assert_eq!(row["machine_name"], rustix::system::uname().nodename().to_str().unwrap());
    assert!(site.playground.job_file("0-m", "run.log").contains("performance: 12.5 tokens_per_second"));
    assert_eq!(site.queue(&["list"]), "", "the job is in the queue yet");
}

#[test]
fn a_model_that_fails_is_a_failure_with_its_code() {
    let site = Site::new("echo performance: 1 x\nexit 7\n");
    let _serving = site.serve();
    site.run(&[]).exits(3).says(&["7"]);
    assert_eq!(site.row()["status"], "FAILURE");
}

#[test]
fn a_detached_job_waits_and_is_recorded_by_whoever_comes_back() {
    let site = Site::new(GOOD);
    let id = site.detach();
    let status = site.call(&["status", &id]).exits(0);
    status.prints(&["queued"]);
    assert!(site.queue(&["list"]).contains("no `toyq serve` runs here"));
    site.queue(&["serve", "--idle", "0"]);
    site.call(&["logs", &id]).exits(0).prints(&["performance: 12.5 tokens_per_second"]);
    site.call(&["attach", &id]).exits(0).says(&["SUCCESS m"]);
    assert_eq!(site.row()["performance"], "12.5");
    assert_eq!(site.queue(&["list"]), "");
}

#[test]
fn a_job_is_cancelled_by_another_process_than_the_one_that_began_it() {
    let mut site = Site::new("");
    let begun = site.playground.note("begun");
    site.playground.model("m2", json!({}), "");
    site.playground.write("tree/scripts/m/run.sh", &format!("echo on >> {}\nexec sleep 600\n", begun.display()));
    let _serving = site.serve();
    let id = site.detach();
    line_of(&begun);
    site.call(&["cancel", &id]).exits(0);
    assert_eq!(site.row()["status"], "FAILURE");
    assert!(site.playground.job_file("0-m", "job.json").contains("cancelled"));
    assert_eq!(site.queue(&["list"]), "");
}

#[test]
fn an_interrupted_run_leaves_nothing_in_the_queue() {
    let site = Site::new("exec sleep 600\n");
    // Nobody serves: the job is queued, and goes with the run.
    let run = Started::new(&mut site.run_words(&[]));
    until("the job in the queue", || site.queue(&["list"]).contains("\"queued\""));
    until("the run watches it", || {
        site.playground.runs().first().is_some_and(|run| {
            std::fs::read_to_string(run.join("events.jsonl")).is_ok_and(|events| events.contains("is queued"))
        })
    });
    run.signal(Signal::INT);
    assert_ne!(run.ended().code, Some(0));
    assert_eq!(site.queue(&["list"]), "");
}

#[test]
fn a_job_that_nobody_saw_end_is_lost_and_no_success() {
    let site = Site::new("");
    let (begun, go) = (site.playground.note("begun"), site.playground.note("go"));
    site.playground.write(
        "tree/scripts/m/run.sh",
        &format!("echo on >> {}\nuntil [ -e {} ]; do sleep 0.01; done\n{GOOD}", begun.display(), go.display()),
    );
    let serving = site.serve();
    let id = site.detach();
    line_of(&begun);
    serving.signal(Signal::KILL);
    serving.ended();
    std::fs::write(go, "").unwrap();
    site.call(&["attach", &id]).exits(3).says(&["no runner was there"]);
    assert_eq!(site.row()["status"], "FAILURE");
}

#[test]
fn the_time_limit_of_a_model_is_the_queues() {
    let site = Site::with(json!({"timeout": 1}), "exec sleep 600\n");
    let _serving = site.serve();
    site.run(&[]).exits(3).says(&["time"]);
    assert!(site.playground.job_file("0-m", "job.json").contains("timed-out"));
}

#[test]
fn what_is_not_granted_is_refused_before_anything_is_handed_in() {
    let mut playground = Playground::new();
    playground.model("m", json!({}), GOOD);
    playground
        .call(&["plugin", "install", built().0.to_str().unwrap()])
        .exits(0)
        .prints(&["Installing grants nothing"]);
    let site = Site { playground };
    site.run(&[]).exits(5).says(&["policy refuses plugin `target-queue`", "[[allow]]", "digest = \"sha256:"]);
    assert_eq!(site.queue(&["list"]), "");
}

#[test]
fn a_denial_within_a_run_ends_it_with_the_deciding_rule() {
    for denied in ["submit **", "wait **", "show **"] {
        let site = Site::new("exec sleep 600\n");
        let rule = format!(
            "schema = 1\n[[deny]]\nplugin = \"target-queue\"\ncalls = [\"process.run\"]\nscope.arguments = [\"{denied}\"]\n"
        );
        site.playground.write("work/maddock-policy.toml", &rule);
        let said = site.run(&[]).exits(5);
        assert!(said.stderr.contains("maddock-policy.toml:2"), "{denied}: {said:#?}");
        assert_eq!(site.queue(&["list"]), "", "{denied}");
    }
}

#[test]
fn nothing_but_the_jobs_own_script_can_be_handed_in() {
    let site = Site::new(GOOD);
    let explain = |arguments: &str| {
        site.call(&[
            "policy",
            "explain",
            "target-queue",
            "process.run",
            "program=toyq",
            &format!("arguments={arguments}"),
        ])
        .code
    };
    let entry = "submit --owner a --time 0 --directory /x --output /x --";
    assert_eq!(explain(&format!("{entry} bash -c id")), Some(5));
    assert_eq!(explain(&format!("{entry} python3 /x/y")), Some(5));
    assert_eq!(explain("serve"), Some(5));
    assert_eq!(explain("show 1 --owner a"), Some(0));
}

#[test]
fn a_secret_never_comes_into_the_queue() {
    let site = Site::new(GOOD);
    let mut run = site.run_words(&["--dry-run"]);
    run.env("MAD_SECRETS_HFTOKEN", "s3cret");
    answer(&mut run).says(&["is a secret, and the queue writes its jobs' variables to a disk"]);
}
