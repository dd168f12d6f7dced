//! The program against a real cluster, which `KUBECONFIG` names: jobs that end well, that do not, and what is left over. The
//! nodes have the image that `MADDOCK_TEST_KUBE_IMAGE` names, with bash in it. Without either, every test says that it was
//! skipped. What a test asks of the cluster beside the program, it asks by `kubectl`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");
/// Everything that a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(300);

/// A tree with one model `m`, a place to run it from, and a namespace of its own.
struct Ground {
    root: TempDir,
    namespace: String,
    image: String,
}

fn kubectl(arguments: &[&str]) -> Output {
    Command::new("kubectl").args(arguments).output().unwrap()
}

impl Ground {
    /// None, with a line, where there is no cluster.
    fn new(test: &str, card: Value, script: &str) -> Option<Self> {
        let image = std::env::var("MADDOCK_TEST_KUBE_IMAGE").ok();
        let (Some(image), Some(_)) = (image, std::env::var_os("KUBECONFIG")) else {
            println!("skipped: {test} (KUBECONFIG or MADDOCK_TEST_KUBE_IMAGE is not set)");
            return None;
        };
        let root = tempfile::Builder::new().prefix("maddock kube ").tempdir().unwrap();
        let scripts = root.path().join("tree/scripts/m");
        std::fs::create_dir_all(&scripts).unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        std::fs::write(scripts.join("run.sh"), script).unwrap();
        let mut model = json!({"name": "m", "dockerfile": "docker/none", "scripts": "scripts/m/run.sh", "n_gpus": "0",
            "owner": "a@example.com", "training_precision": "", "tags": ["t"], "args": ""});
        model.as_object_mut().unwrap().extend(card.as_object().unwrap().clone());
        std::fs::write(root.path().join("tree/models.json"), json!([model]).to_string()).unwrap();
        let unique = root.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let plain: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let namespace = format!("t-{plain}");
        assert!(kubectl(&["create", "namespace", &namespace]).status.success());
        Some(Self { root, namespace, image })
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn section(&self, more: Value) -> Value {
        let mut section = json!({"namespace": self.namespace, "image_pull_policy": "IfNotPresent",
            "memory": "64Mi", "cpu": "20m", "shm_size": "8Mi"});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        section
    }

    fn command(&self, section: Value, more: Value) -> Command {
        let mut context = json!({"k8s": self.section(section), "MAD_CONTAINER_IMAGE": self.image});
        context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut command = Command::new(MADDOCK);
        command
            .args(["run", "--tags", "t", "--target", "k8s", "--model-dir"])
            .arg(self.root.path().join("tree"))
            .args(["--additional-context", &context.to_string()])
            .current_dir(self.work())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, section: Value) -> Output {
        self.command(section, json!({})).output().unwrap()
    }

    fn start(&self, section: Value) -> Child {
        self.command(section, json!({})).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn directory(&self) -> PathBuf {
        let runs = std::fs::read_dir(self.work().join(".maddock/runs")).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "one run for each ground");
        runs.remove(0)
    }

    fn job(&self) -> Value {
        let jobs = std::fs::read_dir(self.directory().join("jobs")).unwrap();
        let job = jobs.map(|job| job.unwrap().path()).next().unwrap();
        serde_json::from_str(&std::fs::read_to_string(job.join("job.json")).unwrap()).unwrap()
    }

    fn log(&self) -> String {
        let mut logs = std::fs::read_dir(self.work()).unwrap().map(|entry| entry.unwrap().path());
        let log = logs.find(|path| path.to_string_lossy().ends_with(".run.live.log")).unwrap();
        std::fs::read_to_string(log).unwrap()
    }

    /// Waits for an event of the run that says this, and answers all events.
    fn wait_for(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let events = std::fs::read_dir(self.work().join(".maddock/runs"))
                .ok()
                .and_then(|mut runs| runs.next())
                .and_then(|run| std::fs::read_to_string(run.unwrap().path().join("events.jsonl")).ok())
                .unwrap_or_default();
            if events.contains(words) {
                return events;
            }
            // Not a wait for a moment, only a rest between two looks.
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no event says `{words}`");
    }

    fn names(&self, kinds: &str) -> Vec<String> {
        let output = kubectl(&["get", kinds, "--namespace", &self.namespace, "--output=name"]);
        let text = String::from_utf8(output.stdout).unwrap();
        // What every namespace has.
        text.lines()
            .filter(|name| !name.contains("default-token") && !name.contains("kube-root-ca"))
            .map(str::to_owned)
            .collect()
    }

    /// All that is there of what a job is made of.
    fn left(&self) -> Vec<String> {
        self.names("job,pod,service,configmap,secret,pvc")
    }

    fn apply(&self, object: &Value) {
        let mut child = Command::new("kubectl")
            .args(["apply", "--namespace", &self.namespace, "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() && self.work().join(".maddock/runs").exists() {
            println!("{}", std::fs::read_to_string(self.directory().join("events.jsonl")).unwrap_or_default());
        }
        kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const GOOD: &str =
    "echo \"rank $NODE_RANK of $NNODES\"\necho x,1 > a_output.csv\necho \"performance: 42.5 things_per_second\"\n";
const NOTHING: [String; 0] = [];

#[test]
fn a_job_of_one_pod_ends_well_has_its_row_and_leaves_nothing() {
    let Some(ground) = Ground::new("one pod", json!({}), GOOD) else { return };
    let output = ground.run(json!({}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!((row["performance"].as_str(), row["status"].as_str()), (Some("42.5"), Some("SUCCESS")), "{job:#}");
    assert_eq!(row["deployment_type"].as_str(), Some("kubernetes"));
    assert!(row["machine_name"].as_str().unwrap().starts_with("madengine-m-"), "{job:#}");
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn pods_of_a_job_find_each_other_by_name_and_know_their_ranks() {
    // The first waits for a word of the second, which it gets at the name that all know it by.
    let script = r#"echo "I am $NODE_RANK of $NNODES at $(hostname)"
if [ "$NODE_RANK" = 0 ]; then
  perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalPort => $ENV{MASTER_PORT}, Listen => 1, ReuseAddr => 1) or die $!;
    my $c = $s->accept; print "heard: ", scalar <$c>;'
else
  perl -MIO::Socket::INET -e 'for (1 .. 300) { my $s = IO::Socket::INET->new(PeerAddr => "$ENV{MASTER_ADDR}:$ENV{MASTER_PORT}");
    if ($s) { print $s "hello\n"; exit 0 } select undef, undef, undef, 0.2 } die "nobody at $ENV{MASTER_ADDR}";' || exit 9
fi
echo "n,$NODE_RANK" > x_output.csv
echo "performance: 1$NODE_RANK things_per_second"
"#;
    let Some(ground) = Ground::new("two pods", json!({}), script) else { return };
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    assert!(log.contains("heard: hello"), "{log}");
    for rank in 0..2 {
        assert!(log.lines().any(|line| line.starts_with(&format!("I am {rank} of 2 at madengine-m-"))), "{log}");
    }
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!(row["performance"].as_str(), Some("21"), "the sum of both nodes' rates: {job:#}");
    assert_eq!(job["evidence"]["nodes"], json!({"expected": 2, "reported": 2}));
    assert_eq!(std::fs::read_to_string(ground.work().join("x_output.csv")).unwrap(), "n,0\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_pod_that_fails_makes_the_job_a_failure_although_it_has_a_metric() {
    let script = "echo \"performance: 5 things_per_second\"\necho last words\necho x > a_output.csv\nexit 7\n";
    let Some(ground) = Ground::new("a failing pod", json!({}), script) else { return };
    let output = ground.run(json!({}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert_eq!(job["rows"][0]["status"].as_str(), Some("FAILURE"));
    assert!(ground.log().contains("last words"));
    assert!(ground.work().join("a_output.csv").exists(), "results come whatever became of the model");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn one_failing_pod_of_two_ends_the_other() {
    let script = "echo \"performance: 5 things_per_second\"\nif [ \"$NODE_RANK\" = 1 ]; then exit 7; fi\nsleep 600\n";
    let Some(ground) = Ground::new("one of two fails", json!({}), script) else { return };
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("node 1"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_pod_that_no_node_takes_is_told_and_never_started() {
    let Some(ground) = Ground::new("unschedulable", json!({}), GOOD) else { return };
    let output = ground.run(json!({"node_selector": {"no-such": "node"}, "active_deadline_seconds": 5}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(ground.wait_for("no node takes the pod").contains("queued"));
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn waiting_for_a_node_may_have_a_limit_of_its_own() {
    let Some(ground) = Ground::new("queue timeout", json!({}), GOOD) else { return };
    let output = ground.run(json!({"node_selector": {"no-such": "node"}, "queue_timeout": 2}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn an_image_that_is_not_there_is_never_started() {
    let Some(mut ground) = Ground::new("bad image", json!({}), GOOD) else { return };
    ground.image = "localhost/no-such-image:1".to_owned();
    let output = ground.run(json!({"start_timeout": 3}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("mage"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_model_s_own_limit_ends_it_and_its_results_come_all_the_same() {
    let script = "echo x > a_output.csv\necho \"performance: 5 things_per_second\"\nsleep 600\n";
    let Some(ground) = Ground::new("time limit", json!({}), script) else { return };
    let output = ground.command(json!({}), json!({})).args(["--timeout", "3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    assert!(ground.work().join("a_output.csv").exists());
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_cluster_s_deadline_is_a_time_that_is_over() {
    let Some(ground) = Ground::new("deadline", json!({}), "echo here\nsleep 600\n") else { return };
    let output = ground.run(json!({"active_deadline_seconds": 20}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    assert!(ground.log().contains("here"));
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_job_that_somebody_else_deletes_is_cancelled_and_no_success() {
    let script = "echo \"performance: 5 things_per_second\"\nsleep 600\n";
    let Some(ground) = Ground::new("deleted from outside", json!({}), script) else { return };
    let mut run = ground.start(json!({}));
    ground.wait_for("\"running\"");
    let jobs = ground.names("job");
    assert_eq!(jobs.len(), 1);
    assert!(kubectl(&["delete", "--namespace", &ground.namespace, &jobs[0], "--wait=false"]).status.success());
    assert_eq!(run.wait().unwrap().code(), Some(3));
    let job = ground.job();
    assert_eq!(
        (job["execution"]["state"].as_str(), job["verdict"].as_str()),
        (Some("cancelled"), Some("FAILURE")),
        "{job:#}"
    );
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn ctrl_c_takes_everything_along_and_a_bystander_of_a_like_name_survives() {
    let Some(ground) = Ground::new("ctrl-c", json!({}), "echo here\nsleep 600\n") else { return };
    let bystander = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "madengine-m-0123456789", "labels": {"app": "madengine", "model": "m", "madengine-job": "true"}}});
    ground.apply(&bystander);
    let pod = json!({"image": ground.image, "name": "c", "command": ["sleep", "600"]});
    ground.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {
        "name": "madengine-m-0123456789", "labels": {"app": "madengine", "model": "m", "madengine-job": "true"}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [pod]}}}}));
    let mut run = ground.start(json!({}));
    ground.wait_for("\"running\"");
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("cancelled"));
    let left = ground.names("job,configmap,service,secret");
    assert_eq!(left, ["job.batch/madengine-m-0123456789", "configmap/madengine-m-0123456789"], "and nothing of ours");
}

#[test]
fn hostile_values_arrive_in_the_pod_as_they_are() {
    let hostile = "a b'c\"d$(touch pwned)`id`\\n;&|<>*?[x]{1,2}~!#$HOME $(HOME) $$ ünï\nnext";
    let script = "printf 'value <%s>\\nother <%s>\\n' \"$HOSTILE\" \"$OTHER\"\nprintf 'argument <%s>\\n' \"$@\"\n\
                  echo \"performance: 1 things_per_second\"\n";
    let Some(ground) = Ground::new("hostile values", json!({"args": "--x='$(id) `id` $HOME' -rf"}), script) else {
        return;
    };
    let context = json!({"docker_env_vars": {"HOSTILE": hostile}, "env_vars": {"OTHER": hostile, "_comment": "x"}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    for expected in [
        format!("value <{hostile}>"),
        format!("other <{hostile}>"),
        "argument <--x=$(id) `id` $HOME>".to_owned(),
        "argument <-rf>".to_owned(),
    ] {
        assert!(log.contains(&expected), "{expected}: {log}");
    }
}

#[test]
fn results_on_a_claim_are_fetched_also_when_their_pod_did_not_wait() {
    let Some(ground) = Ground::new("a claim of our own", json!({}), GOOD) else { return };
    let output = ground.run(json!({"results_storage_size": "10Mi", "results_wait": 0}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_restricted_profile_runs_as_nobody_of_consequence() {
    let script = "id -u\ntouch /root/x && echo 'too much'\ngrep -h '^CapEff' /proc/self/status\necho x > a_output.csv\n\
                  echo \"performance: 1 things_per_second\"\n";
    let Some(ground) = Ground::new("restricted", json!({}), script) else { return };
    let output = ground.command(json!({}), json!({})).args(["--container-profile", "restricted"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    assert!(log.contains("1000\n") && !log.contains("too much"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(ground.work().join("a_output.csv").exists());
}

#[test]
fn a_dry_run_prints_the_objects_with_the_files_and_makes_nothing() {
    let Some(ground) = Ground::new("dry run", json!({}), GOOD) else { return };
    let output = ground.command(json!({}), json!({})).arg("--dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    for expected in ["kind: Job", "kind: ConfigMap", "activeDeadlineSeconds: ", "rank $NODE_RANK of $NNODES"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_namespace_that_is_not_there_is_a_failure_that_says_so() {
    let Some(ground) = Ground::new("no such namespace", json!({}), GOOD) else { return };
    let output = ground.run(json!({"namespace": "no-such-namespace"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("no-such-namespace"), "{}", said(&output));
}

fn interrupt(run: &Child) {
    let pid = rustix::process::Pid::from_child(run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}
