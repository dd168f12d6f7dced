//! The scripts run by a real bash, without a cluster: what they leave, and that values mean themselves.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{HOSTILE, job, variable};
use maddock_sdk::target::Job;
use target_slurm::plan::prepare;

struct Place {
    root: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        // With a blank and a quote: directories have them, too.
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-it's here"));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("job/workspace/run_directory")).unwrap();
        std::fs::create_dir_all(root.join("local")).unwrap();
        Self { root }
    }

    fn directory(&self) -> String {
        self.root.join("job").display().to_string()
    }

    fn write(&self, job: &Job) {
        for (path, content, _) in prepare(job, &[]).unwrap().files {
            std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    fn model(&self, script: &str) {
        std::fs::write(self.root.join("job/workspace/run_directory/run.sh"), script).unwrap();
    }

    /// What one node does.
    fn node(&self, rank: u32) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(self.root.join("job/node.sh"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SLURM_PROCID", rank.to_string())
            .env("SLURM_JOB_ID", "39")
            .env("SLURMD_NODENAME", format!("node{rank}"))
            .env("MADDOCK_MAIN_NODE", "node0")
            .env("MADDOCK_NODES", "node0,node1")
            .env("TMPDIR", self.root.join("local"));
        command
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join("job").join(name)).unwrap_or_default()
    }

    fn nothing_is_left(&self) -> bool {
        std::fs::read_dir(self.root.join("local")).unwrap().next().is_none()
    }
}

fn code(output: Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_node_runs_the_model_in_a_copy_and_brings_its_files_back() {
    let place = Place::new("good");
    place.write(&job(&place.directory(), 1, r#"{"partition": "p"}"#));
    place.model("pwd\necho \"main $MASTER_ADDR rank $NODE_RANK\"\necho x > a_output.csv\necho y > other.bin\n");
    assert_eq!(code(place.node(0).output().unwrap()), 0);
    let log = place.read("nodes/0/output.log");
    assert!(log.contains("main node0 rank 0") && log.contains("/local/maddock-39-0-"), "{log}");
    assert_eq!(place.read("nodes/0/files/a_output.csv"), "x\n");
    assert!(!place.root.join("job/nodes/0/files/other.bin").exists());
    assert!(place.read("nodes/0/ended").starts_with("exit=0\nhost=node0\n"));
    assert!(place.read("nodes/0/result").contains("exit=0\nstage=model\n"));
    assert!(place.nothing_is_left());
    assert!(
        !place.root.join("job/workspace/run_directory/a_output.csv").exists(),
        "the shared workspace is not worked in"
    );
}

#[test]
fn a_failing_node_still_brings_its_log_and_files_back() {
    let place = Place::new("bad");
    place.write(&job(&place.directory(), 2, r#"{"partition": "p"}"#));
    place.model("echo x > a_output.csv\necho last words\nexit 7\n");
    assert_eq!(code(place.node(1).output().unwrap()), 7);
    assert!(place.read("nodes/1/ended").starts_with("exit=7\n"));
    assert_eq!(place.read("nodes/1/files/a_output.csv"), "x\n");
    assert!(place.read("nodes/1/output.log").contains("last words"));
    assert!(place.root.join("job/failed").exists(), "the others hear of it");
    assert!(place.nothing_is_left());
}

#[test]
fn a_node_whose_peer_failed_ends_and_says_so() {
    let place = Place::new("peer");
    place.write(&job(&place.directory(), 2, r#"{"partition": "p"}"#));
    std::fs::write(place.root.join("job/failed"), "").unwrap();
    place.model("sleep 300\n");
    assert_ne!(code(place.node(0).output().unwrap()), 0);
    assert!(place.read("nodes/0/ended").contains("peer=1"), "{}", place.read("nodes/0/ended"));
    assert!(place.nothing_is_left());
}

#[test]
fn a_node_that_never_begins_is_named_and_ends_the_others() {
    let place = Place::new("absent");
    place.write(&job(&place.directory(), 2, r#"{"partition": "p", "start_timeout": 1}"#));
    place.model("echo here\nsleep 300\n");
    assert_eq!(code(place.node(0).output().unwrap()), 125);
    let ended = place.read("nodes/0/ended");
    assert!(
        ended.starts_with("exit=125\nhost=node0\npeer=0\ncause=lost\nmessage=node 1 (node1) did not begin"),
        "{ended}"
    );
    assert!(place.read("nodes/0/output.log").contains("here\n"), "it did not wait with its own part");
    assert!(place.root.join("job/failed").exists(), "the others hear of it");
    assert!(place.nothing_is_left());
}

#[test]
fn nodes_that_all_began_are_left_alone() {
    let place = Place::new("present");
    place.write(&job(&place.directory(), 2, r#"{"partition": "p", "start_timeout": 1}"#));
    std::fs::write(place.root.join("job/nodes/1/started"), "host=node1\n").unwrap();
    // Over the moment in which the roll is called.
    place.model("until [ \"$SECONDS\" -ge 4 ]; do sleep 0.1; done\n");
    assert_eq!(code(place.node(0).output().unwrap()), 0, "{}", place.read("nodes/0/output.log"));
}

#[test]
fn a_node_on_which_the_program_does_not_start_says_so_itself() {
    let place = Place::new("no start");
    let program = place.root.join("maddock");
    std::fs::write(&program, "#!/bin/bash\necho \"$1: lib x\"\necho not found\nexit 1\n").unwrap();
    std::fs::write(place.root.join("job/node.sh"), target_slurm::script::start()).unwrap();
    Command::new("chmod").arg("+x").arg(&program).status().unwrap();
    assert_eq!(code(place.node(1).arg(&program).output().unwrap()), 125);
    let ended = place.read("nodes/1/ended");
    assert!(ended.starts_with("exit=125\nhost=node1\npeer=0\ncause=never-started\nmessage="), "{ended}");
    assert!(ended.ends_with("maddock does not start: --version: lib x not found\n"), "{ended}");
    assert!(place.root.join("job/failed").exists(), "the others hear of it");
}

#[test]
fn hostile_values_mean_themselves() {
    let place = Place::new("hostile");
    let mut job = job(&place.directory(), 1, r#"{"partition": "p"}"#);
    job.env.push(variable("HOSTILE", HOSTILE));
    job.env.push(variable("MINE", "$MADDOCK_MAIN_NODE"));
    // Names that the script uses itself.
    for name in ["place", "node", "code", "rank", "directory"] {
        job.env.push(variable(name, "/nonexistent"));
    }
    job.script.arguments = vec![HOSTILE.into(), "--x=$(id)".into()];
    job.collect.push("odd $(touch pwned) [name]*.csv".into());
    place.write(&job);
    place.model(
        "printf '%s' \"$HOSTILE\" > h_output.csv\nprintf '%s' \"$1\" > g_output.csv\nprintf '%s' \"$MINE\" > m_output.csv\n\
         echo z > 'odd $(touch pwned) [name]1.csv'\n",
    );
    assert_eq!(code(place.node(0).output().unwrap()), 0, "{}", place.read("nodes/0/output.log"));
    assert_eq!(place.read("nodes/0/files/h_output.csv"), HOSTILE);
    assert_eq!(place.read("nodes/0/files/g_output.csv"), HOSTILE);
    assert_eq!(place.read("nodes/0/files/m_output.csv"), "$MADDOCK_MAIN_NODE");
    assert_eq!(place.read("nodes/0/files/odd $(touch pwned) [name]1.csv"), "z\n");
    let pwned = Command::new("find").arg(&place.root).args(["-name", "pwned"]).output().unwrap();
    assert!(pwned.stdout.is_empty());
}

#[test]
fn the_batch_script_starts_each_node_once_and_says_where_runs_belong() {
    let place = Place::new("batch");
    place.write(&job(&place.directory(), 2, r#"{"partition": "p", "modules": ["a b", "-x"]}"#));
    let bin = place.root.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let srun = bin.join("srun");
    std::fs::write(&srun, "#!/bin/bash\nprintf '%s\\n' \"$@\" \"$MADDOCK_MAIN_NODE\"\nexit 9\n").unwrap();
    Command::new("chmod").arg("+x").arg(&srun).status().unwrap();
    let run = || {
        Command::new("bash")
            .args(["-c", "module() { echo \"module $*\"; }; export -f module; exec bash \"$0\""])
            .arg(place.root.join("job/job.sbatch"))
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("SLURMD_NODENAME", "node7")
            .output()
            .unwrap()
    };
    let output = run();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert!(said.starts_with("module load -- a b\nmodule load -- -x\n--nodes=2\n--ntasks=2\n"), "{said}");
    assert!(said.ends_with("/job/node.sh\nnode7\n"), "{said}");
    std::fs::remove_file(place.root.join("job/node.sh")).unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8(output.stderr).unwrap().contains("file system that all nodes share"));
}
