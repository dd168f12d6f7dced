//! A namespace of a test's own, a model to run in it, and what is asked of the cluster beside the program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");
/// Everything that a test waits for comes long before this.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A tree with one model `m`, a place to run it from, and a namespace of its own.
pub struct Ground {
    pub root: TempDir,
    pub namespace: String,
    pub image: String,
    /// Connections of a cluster that is not the one which all tests share.
    connections: Option<PathBuf>,
}

pub fn kubectl(arguments: &[&str]) -> Output {
    Command::new("kubectl").args(arguments).output().unwrap()
}

impl Ground {
    /// None, with a line, where there is no cluster.
    pub fn new(test: &str, card: Value, script: &str) -> Option<Self> {
        let image = std::env::var("MADDOCK_TEST_KUBE_IMAGE").ok();
        let (Some(image), Some(_)) = (image, std::env::var_os("KUBECONFIG")) else {
            println!("skipped: {test} (KUBECONFIG or MADDOCK_TEST_KUBE_IMAGE is not set)");
            return None;
        };
        Some(Self::in_cluster(None, image, card, script))
    }

    /// In the cluster of these connections, whose nodes have this image.
    pub fn in_cluster(connections: Option<&Path>, image: String, card: Value, script: &str) -> Self {
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
        let ground = Self { root, namespace, image, connections: connections.map(Path::to_owned) };
        assert!(ground.kubectl(&["create", "namespace", &ground.namespace]).status.success());
        // Pods are refused before their account is there.
        until("the account of the namespace", || {
            let account = ["get", "serviceaccount", "default", "--output=jsonpath={.secrets[0].name}", "--namespace"];
            (!ground.kubectl(&[&account[..], &[&ground.namespace]].concat()).stdout.is_empty()).then_some(())
        });
        ground
    }

    fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.envs(self.connections.iter().map(|file| ("KUBECONFIG", file)));
        command
    }

    /// What the ground's cluster answers.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command().args(arguments).output().unwrap()
    }

    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub fn section(&self, more: Value) -> Value {
        let mut section = json!({"namespace": self.namespace, "image_pull_policy": "IfNotPresent",
            "memory": "64Mi", "cpu": "20m", "shm_size": "8Mi"});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        section
    }

    pub fn command(&self, section: Value, more: Value) -> Command {
        let mut context = json!({"k8s": self.section(section), "MAD_CONTAINER_IMAGE": self.image});
        context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut command = Command::new(MADDOCK);
        command
            .args(["run", "--tags", "t", "--target", "k8s", "--model-dir"])
            .arg(self.root.path().join("tree"))
            .args(["--additional-context", &context.to_string()])
            .current_dir(self.work())
            .envs(self.connections.iter().map(|file| ("KUBECONFIG", file)))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, section: Value) -> Output {
        self.command(section, json!({})).output().unwrap()
    }

    pub fn start(&self, section: Value) -> Child {
        self.command(section, json!({})).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn directory(&self) -> PathBuf {
        let runs = std::fs::read_dir(self.work().join(".maddock/runs")).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "one run for each ground");
        runs.remove(0)
    }

    pub fn job(&self) -> Value {
        let jobs = std::fs::read_dir(self.directory().join("jobs")).unwrap();
        let job = jobs.map(|job| job.unwrap().path()).next().unwrap();
        serde_json::from_str(&std::fs::read_to_string(job.join("job.json")).unwrap()).unwrap()
    }

    /// Whether the job has its verdict.
    pub fn recorded(&self) -> bool {
        let jobs = std::fs::read_dir(self.directory().join("jobs")).unwrap();
        jobs.map(|job| job.unwrap().path()).any(|job| {
            std::fs::read(job.join("job.json"))
                .is_ok_and(|text| serde_json::from_slice::<Value>(&text).is_ok_and(|job| job["verdict"].is_string()))
        })
    }

    pub fn log(&self) -> String {
        let mut logs = std::fs::read_dir(self.work()).unwrap().map(|entry| entry.unwrap().path());
        let log = logs.find(|path| path.to_string_lossy().ends_with(".run.live.log")).unwrap();
        std::fs::read_to_string(log).unwrap()
    }

    /// What has come of it while the run goes on.
    pub fn log_so_far(&self) -> String {
        let mut jobs = std::fs::read_dir(self.directory().join("jobs")).unwrap();
        let log = jobs.next().unwrap().unwrap().path().join("run.log");
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// The job's own pod.
    pub fn pod(&self) -> String {
        let arguments = ["get", "pod", "--selector=maddock.dev/run", "--output=name", "--namespace", &self.namespace];
        String::from_utf8(self.kubectl(&arguments).stdout).unwrap().trim().to_owned()
    }

    /// Lets a model of [`WAITS`] go on.
    pub fn go(&self) {
        let touch = ["--container=model", "--", "touch", "/tmp/go"];
        let pod = self.pod();
        let output = self.kubectl(&[&["exec", "--namespace", &self.namespace, &pod][..], &touch].concat());
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Asked of the cluster, not of the program.
    pub fn model_has_ended(&self) -> bool {
        let path = "--output=jsonpath={.status.containerStatuses[?(@.name==\"model\")].state.terminated.exitCode}";
        !self.kubectl(&["get", &self.pod(), "--namespace", &self.namespace, path]).stdout.is_empty()
    }

    /// Objects of somebody else, called as those of a job are, with labels as the predecessor's.
    pub fn bystander(&self) {
        let metadata =
            json!({"name": BYSTANDER, "labels": {"app": "madengine", "model": "m", "madengine-job": "true"}});
        self.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
        let pod = json!({"image": self.image, "name": "c", "command": ["sleep", "600"]});
        self.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [pod]}}}}));
    }

    /// Fails where the bystander was harmed.
    pub fn left_beside_the_bystander(&self) -> Vec<String> {
        let left = self.left();
        let theirs = |kind: &str| left.iter().any(|name| name.starts_with(&format!("{kind}/{BYSTANDER}")));
        assert!(theirs("job.batch") && theirs("configmap") && theirs("pod"), "{left:?}");
        left.into_iter().filter(|name| !name.contains(BYSTANDER)).collect()
    }

    /// Waits for an event of the run that says this, and answers all events.
    pub fn wait_for(&self, words: &str) -> String {
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

    pub fn names(&self, kinds: &str) -> Vec<String> {
        let output = self.kubectl(&["get", kinds, "--namespace", &self.namespace, "--output=name"]);
        let text = String::from_utf8(output.stdout).unwrap();
        // What every namespace has.
        text.lines()
            .filter(|name| !name.contains("default-token") && !name.contains("kube-root-ca"))
            .map(str::to_owned)
            .collect()
    }

    /// All that is there of what a job is made of.
    pub fn left(&self) -> Vec<String> {
        self.names("job,pod,service,configmap,secret,pvc")
    }

    pub fn apply(&self, object: &Value) {
        self.apply_text(&object.to_string());
    }

    pub fn apply_text(&self, text: &str) {
        let mut child = self
            .kubectl_command()
            .args(["apply", "--namespace", &self.namespace, "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() && self.work().join(".maddock/runs").exists() {
            println!("{}", std::fs::read_to_string(self.directory().join("events.jsonl")).unwrap_or_default());
        }
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub const GOOD: &str =
    "echo \"rank $NODE_RANK of $NNODES\"\necho x,1 > a_output.csv\necho \"performance: 42.5 things_per_second\"\n";
pub const NOTHING: [String; 0] = [];
pub const BYSTANDER: &str = "madengine-m-0123456789";
/// Ends well once its test says so.
pub const WAITS: &str = "echo hello\nuntil [ -e /tmp/go ]; do sleep 0.05; done\necho x,1 > a_output.csv\n\
                     echo 'performance: 42 things_per_second'\n";

/// What there is once there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // Not a wait for a moment, only a rest between two looks.
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn interrupt(run: &Child) {
    let pid = rustix::process::Pid::from_child(run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}
