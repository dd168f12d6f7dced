//! `maddock __node FILE` without a cluster: what a node does with its share, and what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::playground::{Playground, names};

/// Everything that a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(240);

/// A job file and the directories that it speaks of.
struct Scene {
    playground: Playground,
    file: Value,
}

impl Scene {
    /// A job of `nodes` nodes whose script is `script`, by the target that runs programs.
    fn new(nodes: u32, script: &str) -> Self {
        let playground = Playground::new();
        playground.write("work/job/workspace/run_directory/run.sh", script);
        fs::create_dir(playground.note("local")).unwrap();
        let role = |node: u32| {
            json!({"node": node, "name": "worker", "command": null,
                "env": [{"name": "NODE_RANK", "value": node.to_string()},
                    {"name": "MASTER_ADDR", "value": "$MADDOCK_MAIN_NODE"},
                    {"name": "PRICE", "value": "5$$"}, {"name": "ALL", "value": "$MADDOCK_NODES@$MADDOCK_NODE_ADDRESS"}]})
        };
        let job = playground.work().join("job");
        let file = json!({
            "version": 1,
            "output": playground.work(),
            "policies": [],
            "job": {
                "run_id": "20260101-000000-aaaa", "id": "0-m", "model": "m", "card": {}, "image": null,
                "nodes": nodes, "processes_per_node": 1, "gpus_per_node": 0, "launcher": "none", "main_port": 29500,
                "roles": (0..nodes).map(role).collect::<Vec<_>>(),
                "script": {"interpreter": ["bash"], "file": "run.sh", "arguments": [], "encapsulate": "", "before": [],
                    "after": [], "clone_url": null},
                "env": [{"name": "MINE", "value": "$MADDOCK_MAIN_NODE"}, {"name": "KEY", "secret": "env/KEY"}],
                "time_limit": 600, "workspace": job.join("workspace"), "work_directory": "run_directory",
                "profile": "", "skip_model": false, "collect": ["*_output.csv"], "config": {},
            },
            "node": {
                "target": "process", "rank": "TOY_RANK", "host": ["TOY_HOST"], "directory": job.join("nodes"),
                "failed": (nodes > 1).then(|| job.join("failed")), "scratch": ["TOY_LOCAL"], "check": true,
                "variables": [{"name": "TOY_JOB", "variable": "TOY_ID"}, {"name": "TOY", "value": "all"}],
                "by_node": (0..nodes).map(|node| json!([{"name": "TOY_OWN", "value": format!("own{node}")}]))
                    .collect::<Vec<_>>(),
            },
        });
        Self { playground, file }
    }

    fn command(&self, rank: u32) -> Command {
        let path = self.playground.write("work/node.json", &self.file.to_string());
        let mut command = self.playground.command();
        command
            .arg("__node")
            .arg(path)
            .env("TOY_RANK", rank.to_string())
            .env("TOY_HOST", format!("host{rank}"))
            .env("TOY_LOCAL", self.playground.note("local"))
            .env("TOY_ID", "39")
            .env("MADDOCK_MAIN_NODE", "host0")
            .env("MADDOCK_NODES", "host0,host1")
            .env("MADDOCK_NODE_ADDRESS", "192.0.2.7")
            .env("KEY", "very-secret-value");
        command
    }

    fn run(&self, rank: u32) -> Output {
        self.command(rank).output().unwrap()
    }

    fn start(&self, rank: u32) -> Child {
        self.command(rank).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn path(&self, rank: u32, file: &str) -> PathBuf {
        self.playground.work().join(format!("job/nodes/{rank}/{file}"))
    }

    fn read(&self, rank: u32, file: &str) -> String {
        fs::read_to_string(self.path(rank, file)).unwrap_or_default()
    }

    fn wait_for(&self, rank: u32, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read(rank, "output.log").contains(words) {
            assert!(Instant::now() < deadline, "waited in vain for `{words}`: {}", self.read(rank, "output.log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(names(&self.playground.note("local")), [""; 0]);
    }
}

#[test]
fn a_node_runs_its_share_and_brings_its_outcome_back() {
    let scene = Scene::new(
        2,
        "echo \"$NODE_RANK $MASTER_ADDR $MINE $TOY $TOY_OWN $TOY_JOB\"\necho \"$PRICE $ALL\"\necho \"key $KEY\"\npwd\necho x > a_output.csv\n\
         echo y > other.bin\n",
    );
    let output = scene.run(1);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = scene.read(1, "output.log");
    assert!(log.contains("1 host0 $MADDOCK_MAIN_NODE all own1 39\n"), "a user's value means itself: {log}");
    assert!(log.contains("\n5$ host0,host1@192.0.2.7\n"), "a launcher's value speaks of the nodes: {log}");
    assert!(log.contains("key ") && !log.contains("very-secret-value"), "{log}");
    assert!(log.contains(&scene.playground.note("local").display().to_string()), "on the node's own disk: {log}");
    assert_eq!(scene.read(1, "started"), "host=host1\n");
    let ended = scene.read(1, "ended");
    assert!(ended.starts_with("exit=0\nhost=host1\npeer=0\ncause=exited\nseconds="), "{ended}");
    assert_eq!(scene.read(1, "files/a_output.csv"), "x\n");
    assert!(!scene.path(1, "files/other.bin").exists());
    let workspace = scene.playground.work().join("job/workspace/run_directory");
    assert_eq!(names(&workspace), ["run.sh"], "the shared workspace is not worked in");
    assert!(!scene.playground.work().join("job/failed").exists());
    scene.nothing_is_left();
}

#[test]
fn a_share_that_fails_ends_with_the_model_s_code_and_tells_the_others() {
    let scene = Scene::new(2, "echo x > a_output.csv\necho last words\nexit 7\n");
    assert_eq!(scene.run(0).status.code(), Some(7));
    assert!(scene.read(0, "ended").starts_with("exit=7\n"));
    assert_eq!(scene.read(0, "files/a_output.csv"), "x\n");
    assert!(scene.read(0, "output.log").contains("last words"));
    assert!(scene.playground.work().join("job/failed").exists());
    scene.nothing_is_left();
}

#[test]
fn a_node_whose_peer_failed_ends_and_says_so() {
    let scene = Scene::new(2, "echo here\nsleep 600\n");
    let mut node = scene.start(0);
    scene.wait_for(0, "here");
    fs::write(scene.playground.work().join("job/failed"), "").unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(143));
    let ended = scene.read(0, "ended");
    assert!(ended.contains("\npeer=1\n") && ended.contains("\ncause=cancelled\n"), "{ended}");
    scene.nothing_is_left();
}

#[test]
fn a_node_that_never_begins_is_named_and_ends_the_others() {
    let mut scene = Scene::new(2, "echo here\nsleep 600\n");
    scene.file["node"]["begin_within"] = json!(1);
    scene.file["node"]["machines"] = json!("MADDOCK_NODES");
    assert_eq!(scene.run(0).status.code(), Some(125));
    let ended = scene.read(0, "ended");
    assert!(ended.starts_with("exit=125\nhost=host0\npeer=0\ncause=lost\n"), "{ended}");
    assert!(ended.contains("message=node 1 (host1) did not begin within 1 s"), "{ended}");
    assert!(scene.playground.work().join("job/failed").exists(), "the others hear of it");
    scene.nothing_is_left();
}

#[test]
fn a_node_that_is_asked_to_end_more_than_once_still_tidies_up() {
    let scene = Scene::new(1, "echo here\nsleep 600\n");
    let mut node = scene.start(0);
    scene.wait_for(0, "here");
    let status = loop {
        if let Some(status) = node.try_wait().unwrap() {
            break status;
        }
        kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
        // Signals that come at once count as one.
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(143));
    assert!(scene.read(0, "ended").starts_with("exit=143\nhost=host0\npeer=0\ncause=cancelled\n"));
    scene.nothing_is_left();
}

#[test]
fn what_keeps_a_share_from_beginning_is_its_outcome() {
    let broken = |change: &dyn Fn(&mut Value), words: &str| {
        let mut scene = Scene::new(1, "echo the model ran\n");
        change(&mut scene.file);
        assert_eq!(scene.run(0).status.code(), Some(125));
        let ended = scene.read(0, "ended");
        assert!(ended.contains("cause=never-started\n") && ended.contains(words), "{words}: {ended}");
        assert!(scene.read(0, "output.log").contains(words), "it is in the output, too");
        assert!(!scene.read(0, "output.log").contains("the model ran"));
        scene.nothing_is_left();
    };
    broken(&|file| file["node"]["target"] = json!("nowhere"), "no target `nowhere`");
    broken(&|file| file["job"]["workspace"] = json!("/nonexistent"), "the workspace cannot be copied");
    if !Path::new("/sys/class/kfd").exists() && !Path::new("/proc/driver/nvidia").exists() {
        broken(&|file| file["job"]["gpus_per_node"] = json!(2), "no accelerator answers on this node");
    }
}

#[test]
fn a_node_allows_no_more_than_the_invocation_did() {
    let mut scene = Scene::new(1, "echo here\n");
    let policy = scene.playground.write(
        "work/elsewhere.toml",
        "schema = 1\n[[deny]]\nplugin = \"target-process\"\ncalls = [\"process.launch\"]\n",
    );
    scene.file["policies"] = json!([policy]);
    assert_eq!(scene.run(0).status.code(), Some(125));
    assert!(scene.read(0, "ended").contains("cause=never-started\n"), "{}", scene.read(0, "ended"));
    assert!(scene.read(0, "output.log").contains("elsewhere.toml"), "{}", scene.read(0, "output.log"));
    scene.nothing_is_left();

    let mut scene = Scene::new(1, "echo here\n");
    scene.file["policies"] = json!([scene.playground.note("gone.toml")]);
    assert_eq!(scene.run(0).status.code(), Some(125));
    assert!(scene.read(0, "output.log").contains("gone.toml"), "{}", scene.read(0, "output.log"));
    scene.nothing_is_left();
}

#[test]
fn a_file_that_is_none_of_this_version_and_a_node_that_is_none_of_the_job_are_refused() {
    let refused = |change: &dyn Fn(&mut Value), rank: &str, words: &str| {
        let mut scene = Scene::new(2, "echo here\n");
        change(&mut scene.file);
        let output = scene.command(0).env("TOY_RANK", rank).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(names(&scene.playground.work().join("job")), ["workspace"], "nothing is written");
    };
    refused(&|file| file["version"] = json!(2), "0", "version 2");
    refused(&|file| file["more"] = json!(1), "0", "unknown field `more`");
    refused(&|_| {}, "2", "no node 2 in a job of 2");
    refused(&|_| {}, "-1", "no number of a node");
    Playground::new()
        .call(&["__node", "/nonexistent/node.json"])
        .exits(125)
        .says(&["cannot read the job file", "file system that all nodes share"]);
}
