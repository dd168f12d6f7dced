//! The program against a real cluster, which `SLURM_CONF` names: jobs that end well, that do not, and what is left over.
//! Without one, every test says that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test fails by panicking, and says what it skips"
)]

mod hazards;
mod images;
mod launchers;
mod own_cluster;
mod trouble;
#[path = "../hazards/values.rs"]
mod values;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");
/// Everything that a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(240);

/// A tree with one model `m`, and a place to run it from, on a file system that the nodes share.
struct Ground {
    root: TempDir,
}

impl Ground {
    /// None, with a line, where there is no cluster.
    fn new(test: &str, card: Value, script: &str) -> Option<Self> {
        if std::env::var_os("SLURM_CONF").is_none() {
            println!("skipped: {test} (SLURM_CONF is not set)");
            return None;
        }
        let root = tempfile::Builder::new().prefix("maddock slurm ").tempdir().unwrap();
        let scripts = root.path().join("tree/scripts/m");
        std::fs::create_dir_all(&scripts).unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        std::fs::write(scripts.join("run.sh"), script).unwrap();
        let mut model = json!({"name": "m", "dockerfile": "docker/none", "scripts": "scripts/m/run.sh", "n_gpus": "0",
            "owner": "a@example.com", "training_precision": "", "tags": ["t"], "args": ""});
        model.as_object_mut().unwrap().extend(card.as_object().unwrap().clone());
        std::fs::write(root.path().join("tree/models.json"), json!([model]).to_string()).unwrap();
        Some(Self { root })
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn command(&self, section: &Value) -> Command {
        self.command_with(&json!({"slurm": section}))
    }

    fn command_with(&self, context: &Value) -> Command {
        let mut command = Command::new(MADDOCK);
        command
            .args(["run", "--tags", "t", "--target", "slurm", "--model-dir"])
            .arg(self.root.path().join("tree"))
            .args(["--additional-context", &context.to_string()])
            .current_dir(self.work())
            // Tests may run inside of an allocation themselves.
            .env_remove("SLURM_JOB_ID")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, section: &Value) -> Output {
        self.command(section).output().unwrap()
    }

    fn start(&self, section: &Value) -> Child {
        self.command(section).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn directory(&self) -> PathBuf {
        let runs = std::fs::read_dir(self.work().join(".maddock/runs")).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "one run for each ground");
        runs.remove(0)
    }

    /// The directory of the only job.
    fn job_directory(&self) -> PathBuf {
        let mut jobs = std::fs::read_dir(self.directory().join("jobs")).unwrap();
        jobs.next().unwrap().unwrap().path()
    }

    fn job(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.job_directory().join("job.json")).unwrap()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.work().join("m_slurm.run.live.log")).unwrap()
    }

    /// Waits for an event of the run that says this, and answers the batch job's id.
    fn wait_for(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let events = std::fs::read_dir(self.work().join(".maddock/runs"))
                .ok()
                .and_then(|mut runs| runs.next())
                .and_then(|run| std::fs::read_to_string(run.unwrap().path().join("events.jsonl")).ok())
                .unwrap_or_default();
            if events.contains(words) {
                let (_, after) = events.split_once("batch job ").unwrap();
                return after.chars().take_while(char::is_ascii_digit).collect();
            }
            // Not a wait for a moment, only a rest between two looks.
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no event says `{words}`");
    }

    /// Jobs of this ground's run that are in the queue.
    fn queue(&self) -> String {
        let run = self.directory().file_name().unwrap().to_string_lossy().into_owned();
        let output = Command::new("squeue").args(["--noheader", "--format=%i %T %k"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.contains(&run)).map(str::to_owned).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() && self.work().join(".maddock/runs").exists() {
            println!("{}", std::fs::read_to_string(self.directory().join("events.jsonl")).unwrap_or_default());
        }
    }
}

fn cpu() -> Value {
    json!({"partition": "cpu", "exclusive": false, "mem": "100M", "container": false})
}

fn with(section: Value, more: Value) -> Value {
    let mut section = section;
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    section
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const GOOD: &str = "echo \"rank $NODE_RANK of $NNODES\"\necho \"performance: 42.5 things_per_second\"\n";

#[test]
fn a_job_on_one_node_ends_well_and_has_its_row() {
    let Some(ground) = Ground::new("one node", json!({}), GOOD) else { return };
    let output = ground.run(&cpu());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!((row["performance"].as_str(), row["status"].as_str()), (Some("42.5"), Some("SUCCESS")));
    assert_eq!((row["nnodes"].as_str(), row["n_gpus"].as_str()), (Some("1"), Some("0")));
    assert_eq!(row["deployment_type"].as_str(), Some("slurm"));
    assert_eq!(ground.queue(), "");
}

#[test]
fn two_nodes_know_their_ranks_the_world_and_where_to_meet() {
    // The first node is the slower one: it waits for the other's last line.
    let other = tempfile::tempdir().unwrap();
    let script = format!(
        "echo \"I am $NODE_RANK of $NNODES world $WORLD_SIZE at $(hostname)\"\necho \"runner $MAD_MULTI_NODE_RUNNER\"\n\
         echo \"n,$NODE_RANK\" > x_output.csv\necho \"performance: 1$NODE_RANK things_per_second\"\n\
         if [ \"$NODE_RANK\" = 1 ]; then touch {other}/done; else until [ -e {other}/done ]; do sleep 0.1; done; fi\n",
        other = other.path().display()
    );
    let Some(ground) = Ground::new("two nodes", json!({"n_gpus": "2"}), &script) else { return };
    let output = ground.run(&with(cpu(), json!({"nodes": 2})));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    for rank in 0..2 {
        let line = log.lines().find(|line| line.starts_with(&format!("I am {rank} of 2 world 2 at "))).unwrap();
        assert!(!line.ends_with(' '), "{log}");
        assert!(log.contains(&format!("--node_rank={rank} --master_addr=node")), "{log}");
    }
    let hosts: Vec<&str> =
        log.lines().filter(|line| line.starts_with("I am ")).map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_ne!(hosts[0], hosts[1], "{log}");
    assert!(log.contains(&format!("--master_addr={} ", hosts[0])), "the first node is where they meet: {log}");
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!(
        (row["nnodes"].as_str(), row["gpus_per_node"].as_str(), row["n_gpus"].as_str()),
        (Some("2"), Some("2"), Some("4"))
    );
    assert_eq!(row["performance"].as_str(), Some("21"), "the sum of both nodes' rates");
    assert_eq!(job["evidence"]["nodes"], json!({"expected": 2, "reported": 2}));
    assert_eq!(std::fs::read_to_string(ground.work().join("x_output.csv")).unwrap(), "n,0\n");
    assert_eq!(ground.queue(), "");
}

#[test]
fn what_has_no_aggregate_is_not_made_into_one() {
    let script = "echo \"performance: 1$NODE_RANK latency_ms\"\n";
    let Some(ground) = Ground::new("latency", json!({}), script) else { return };
    let output = ground.run(&with(cpu(), json!({"nodes": 2})));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["verdict"], "FAILURE", "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("no aggregate is defined"), "{job:#}");
}

#[test]
fn a_node_that_fails_makes_the_job_a_failure_although_another_has_a_metric() {
    let script = "echo \"performance: 5 things_per_second\"\nif [ \"$NODE_RANK\" = 1 ]; then echo last words; exit 7; fi\nsleep 600\n";
    let Some(ground) = Ground::new("a failing node", json!({}), script) else { return };
    let output = ground.run(&with(cpu(), json!({"nodes": 2})));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("node 1"), "{job:#}");
    assert!(ground.log().contains("last words"), "the failing node's log came back");
    assert_eq!(ground.queue(), "", "the other node did not wait for ever");
}

#[test]
fn a_job_that_somebody_else_ends_is_cancelled_and_no_success() {
    let script = "echo \"performance: 5 things_per_second\"\nsleep 600\n";
    let Some(ground) = Ground::new("scancel from outside", json!({}), script) else { return };
    let mut run = ground.start(&cpu());
    let id = ground.wait_for("running on node");
    assert!(Command::new("scancel").arg(id).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(3));
    let job = ground.job();
    assert_eq!(
        (job["execution"]["state"].as_str(), job["verdict"].as_str()),
        (Some("cancelled"), Some("FAILURE")),
        "{job:#}"
    );
    assert_eq!(ground.queue(), "");
}

#[test]
fn a_job_that_waits_says_why_and_ctrl_c_takes_it_out_of_the_queue() {
    let Some(ground) = Ground::new("ctrl-c while it waits", json!({}), GOOD) else { return };
    // More nodes than there are: the scheduler takes the job and lets it wait.
    let mut run = ground.start(&with(cpu(), json!({"nodes": 99})));
    let id = ground.wait_for("pending: ");
    let listed = Command::new("squeue").args(["--noheader", "--format=%T", "--jobs", &id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "PENDING");
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert_eq!(ground.queue(), "");
}

#[test]
fn ctrl_c_ends_a_running_job_on_its_nodes() {
    let Some(ground) = Ground::new("ctrl-c while it runs", json!({}), "echo here\nsleep 600\n") else { return };
    let mut run = ground.start(&with(cpu(), json!({"nodes": 2})));
    ground.wait_for("running on node");
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert_eq!(ground.queue(), "");
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("cancelled"));
}

#[test]
fn a_job_that_waits_for_too_long_is_taken_out_of_the_queue() {
    let Some(ground) = Ground::new("queue timeout", json!({}), GOOD) else { return };
    // More nodes than there are.
    let output = ground.run(&with(cpu(), json!({"nodes": 99, "queue_timeout": 2})));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("slurm.queue_timeout"), "{job:#}");
    assert_eq!(ground.queue(), "");
}

#[test]
fn a_partition_that_is_not_there_is_a_failure_that_names_those_that_are() {
    let Some(ground) = Ground::new("no such partition", json!({}), GOOD) else { return };
    let output = ground.run(&json!({"partition": "no-such-partition", "container": false}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("never-started"));
    assert!(said(&output).contains("partition"), "{}", said(&output));
}

#[test]
fn without_a_partition_the_scheduler_s_default_takes_the_job() {
    let Some(ground) = Ground::new("no partition", json!({}), GOOD) else { return };
    let output = ground.run(&json!({"exclusive": false, "mem": "100M", "container": false}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(ground.job()["verdict"], "SUCCESS");
}

#[test]
fn what_the_target_cannot_do_is_refused_before_anything_is_handed_in() {
    let Some(ground) = Ground::new("impossible values", json!({}), GOOD) else { return };
    for (section, key) in [
        (json!({"time": "soon"}), "slurm.time"),
        (json!({"nodes": 0}), "slurm.nodes"),
        (json!({"gpus_per_node": -2}), "slurm.gpus_per_node"),
    ] {
        let output = ground.run(&with(cpu(), section));
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(said(&output).contains(key), "{}", said(&output));
    }
    let jobs = Command::new("squeue").args(["--noheader", "--format=%k"]).output().unwrap();
    let runs = std::fs::read_dir(ground.work().join(".maddock/runs")).unwrap();
    let queue = String::from_utf8(jobs.stdout).unwrap();
    for run in runs {
        assert!(!queue.contains(run.unwrap().file_name().to_str().unwrap()), "{queue}");
    }
}

#[test]
fn a_model_s_own_number_of_gpus_counts_more_than_the_preset_s_and_all_is_a_whole_node() {
    for (card, expected) in
        [(json!({"n_gpus": "2"}), "gpus-per-node=2\n"), (json!({"n_gpus": "-1"}), "gpus-per-node=8\n")]
    {
        let Some(ground) = Ground::new("presets and cards", card, GOOD) else { return };
        let output = ground.command(&json!({"container": false})).arg("--dry-run").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains(&format!("| {expected}")), "{expected}: {}", said(&output));
    }
}

#[test]
fn results_files_of_all_nodes_are_one_and_a_node_without_one_among_several_is_a_failure() {
    let card = json!({"multiple_results": "r.csv"});
    let file = "printf 'model,performance,metric,host\\nsmall,1%s,tokens/s,n%s\\nbig,5,tokens/s,x\\n' $NODE_RANK $NODE_RANK > r.csv\n";
    let Some(ground) = Ground::new("results of all nodes", card.clone(), file) else { return };
    let output = ground.run(&with(cpu(), json!({"nodes": 2})));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    let cells = |place: usize| {
        ["performance", "metric", "host"].map(|name| job["rows"][place][name].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(
        (cells(0), cells(1)),
        (["21", "tokens/s", "n0"].map(str::to_owned), ["10", "tokens/s", "x"].map(str::to_owned)),
        "{job:#}"
    );

    let Some(ground) = Ground::new("results of two nodes", card, &format!("[ $NODE_RANK = 2 ] || {file}")) else {
        return;
    };
    let output = ground.run(&with(cpu(), json!({"nodes": 3})));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert!(job["reason"].as_str().unwrap().contains("`r.csv`: 2 of 3 nodes left it"), "{job:#}");
}

#[test]
fn a_limit_on_the_command_line_goes_before_the_preset_s_and_none_is_the_longest_that_there_is() {
    let limit = |arguments: &[&str], card: Value, section: Value| {
        let ground = Ground::new("limits", card, GOOD)?;
        let mut command = ground.command(&with(json!({"partition": "cpu", "container": false}), section));
        let output = command.arg("--dry-run").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let said = said(&output);
        let line = said.lines().find_map(|line| line.trim().strip_prefix("| time=").map(str::to_owned));
        Some(line.unwrap_or_default())
    };
    let Some(preset) = limit(&[], json!({}), json!({})) else { return };
    assert_eq!(preset, "1440");
    assert_eq!(limit(&["--timeout", "86400"], json!({}), json!({})).unwrap(), "1450");
    assert_eq!(limit(&[], json!({"timeout": 60}), json!({})).unwrap(), "11");
    assert_eq!(limit(&["--timeout", "60"], json!({"timeout": 600}), json!({"time": "1:00:00"})).unwrap(), "60");
    assert_eq!(limit(&["--timeout", "0"], json!({}), json!({})).unwrap(), "");

    let Some((ground, signs)) = waiting("no limit") else { return };
    let output = ground.command(&cpu()).args(["--detach", "--timeout", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let id = ground.wait_for("is handed in");
    let listed = Command::new("squeue").args(["--noheader", "--format=%l", "--jobs", &id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "UNLIMITED");
    std::fs::write(signs.path().join("go"), "").unwrap();
    let attached = later(&ground, &["attach", "last"]);
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
}

#[test]
fn hostile_values_arrive_on_the_node_as_they_are() {
    let hostile = "a b'c\"d$(touch pwned)`id`\\n;&|<>*?[x]{1,2}~!#$HOME ünï";
    let script = "printf 'value <%s>\\n' \"$HOSTILE\"\necho \"performance: 1 things_per_second\"\n";
    let Some(ground) = Ground::new("hostile values", json!({}), script) else { return };
    let context = json!({"slurm": cpu(), "docker_env_vars": {"HOSTILE": hostile}});
    let mut command = Command::new(MADDOCK);
    command
        .args(["run", "--tags", "t", "--target", "slurm", "--model-dir"])
        .arg(ground.root.path().join("tree"))
        .args(["--additional-context", &context.to_string()])
        .current_dir(ground.work());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(ground.log().contains(&format!("value <{hostile}>")), "{}", ground.log());
}

/// A command about an earlier run.
fn later(ground: &Ground, words: &[&str]) -> Output {
    Command::new(MADDOCK).args(words).current_dir(ground.work()).stdin(Stdio::null()).output().unwrap()
}

/// Ends well once its test says so.
fn waiting(test: &str) -> Option<(Ground, TempDir)> {
    let signs = tempfile::tempdir().unwrap();
    let script = format!(
        "echo hello\ntouch {0}/begun\nuntil [ -e {0}/go ]; do sleep 0.1; done\necho 'performance: 42 things_per_second'\n",
        signs.path().display()
    );
    Some((Ground::new(test, json!({}), &script)?, signs))
}

fn detached(ground: &Ground) -> String {
    let mut command = ground.command(&cpu());
    let output = command.arg("--detach").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn status(ground: &Ground) -> Value {
    let output = later(ground, &["status", "last", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_detached_job_is_nobodys_until_another_process_attaches_and_records_it() {
    let Some((ground, signs)) = waiting("detach and attach") else { return };
    let id = detached(&ground);
    let runs: Value = serde_json::from_slice(&later(&ground, &["runs", "--json"]).stdout).unwrap();
    assert_eq!(
        (&runs[0]["run"], &runs[0]["state"], &runs[0]["jobs"]),
        (&json!(id), &json!("detached"), &json!({"launched": 1}))
    );
    until("the job", || signs.path().join("begun").exists());
    assert_eq!(status(&ground)["jobs"][0]["state"], "running");
    let logs = later(&ground, &["logs", "last"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("hello\n"), "{}", said(&logs));
    let early = later(&ground, &["collect", "last"]);
    assert!(early.status.code() == Some(0) && said(&early).contains("running"), "{}", said(&early));
    std::fs::write(signs.path().join("go"), "").unwrap();
    let attached = later(&ground, &["attach", &id]);
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
    let job = ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("42"), "{job:#}");
    assert_eq!(ground.log().matches("hello\n").count(), 1);
    let table = std::fs::read_to_string(ground.work().join("perf.csv")).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(ground.queue(), "");
}

#[test]
fn a_detached_job_that_has_ended_is_collected() {
    let Some((ground, signs)) = waiting("detach and collect") else { return };
    detached(&ground);
    std::fs::write(signs.path().join("go"), "").unwrap();
    until("the end of the job", || status(&ground)["jobs"][0]["state"] == "ended");
    let collected = later(&ground, &["collect", "last"]);
    assert_eq!(collected.status.code(), Some(0), "{}", said(&collected));
    assert_eq!(ground.job()["verdict"], "SUCCESS");
}

#[test]
fn a_detached_job_is_cancelled_from_another_process() {
    let Some((ground, signs)) = waiting("detach and cancel") else { return };
    detached(&ground);
    until("the job", || signs.path().join("begun").exists());
    let cancelled = later(&ground, &["cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    assert_eq!(ground.queue(), "");
    let job = ground.job();
    assert_eq!((job["execution"]["state"].as_str(), job["verdict"].as_str()), (Some("cancelled"), Some("FAILURE")));
}

#[test]
fn an_interrupted_run_leaves_its_job_where_that_was_asked_for() {
    let Some((ground, signs)) = waiting("on-interrupt detach") else { return };
    let mut command = ground.command(&cpu());
    command.args(["--on-interrupt", "detach"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    until("the job", || signs.path().join("begun").exists());
    ground.wait_for("running on node");
    interrupt(&run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(status(&ground)["state"], "detached");
    assert!(!ground.queue().is_empty(), "it goes on");
    std::fs::write(signs.path().join("go"), "").unwrap();
    let attached = later(&ground, &["attach", "last"]);
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
}

fn interrupt(run: &Child) {
    let pid = rustix::process::Pid::from_child(run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}
