//! Launchers on real nodes, and scripts that use the scheduler by themselves: handed in, and within an allocation.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const HOSTILE: &str = "$(id) `id` a  b'c\\";

fn metric(script: &str) -> String {
    format!("{script}\necho \"performance: 1 things_per_second\"\n")
}

/// Wherever there is room, without an image.
fn program() -> Value {
    json!({"container": false})
}

fn context(section: Value, distributed: Value) -> Value {
    json!({"slurm": section, "distributed": distributed})
}

/// Puts a file beside the model's script.
fn beside(ground: &Ground, name: &str, text: &str) -> PathBuf {
    let path = ground.root.path().join("tree/scripts/m").join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn deepspeed_finds_all_nodes_in_its_hostfile() {
    let script = metric(
        "echo \"runner $MAD_MULTI_NODE_RUNNER\"\nfile=${MAD_MULTI_NODE_RUNNER#*--hostfile=}\nsed \"s/^/host /\" \"${file%% *}\"",
    );
    let Some(ground) = Ground::new("deepspeed", json!({"n_gpus": "4"}), &script) else { return };
    let output = ground
        .command_with(&context(
            with(cpu(), json!({"nodes": 2, "gpus_per_node": 0})),
            json!({"launcher": "DeepSpeed", "nproc_per_node": 3}),
        ))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    assert_eq!(log.matches(" slots=3\n").count(), 4, "two nodes, told by each: {log}");
    for rank in 0..2 {
        assert!(log.contains(&format!(" --no_ssh --node_rank={rank} --master_addr=node")), "{log}");
    }
    assert_eq!(ground.job()["rows"][0]["launcher"], "deepspeed");
}

#[test]
fn a_python_script_is_started_by_the_launcher_with_its_arguments_as_they_are() {
    let args = "--x '$(id) $MADDOCK_NODES' \"it's\"";
    let card =
        json!({"scripts": "scripts/m/train.py", "args": args, "distributed": {"launcher": "torchrun", "nnodes": 2}});
    let Some(ground) = Ground::new("torchrun of a Python script", card, "") else { return };
    beside(&ground, "train.py", "print('never by itself')\n");
    let torchrun = beside(&ground, "torchrun", &format!("#!/bin/bash\n{}", metric("printf '<%s>\\n' \"$@\"")));
    let path = format!("{}:/usr/bin:/bin", torchrun.parent().unwrap().display());
    let context = json!({"slurm": cpu(), "docker_env_vars": {"PATH": path}});
    let output = ground.command_with(&context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), ground.log());
    let log = ground.log();
    assert!(log.contains("<train.py>\n<--x>\n<$(id) $MADDOCK_NODES>\n<it's>\n"), "{log}");
    assert!(log.contains("<--rdzv_endpoint=node") && log.contains(":29500>\n"), "{log}");
    assert!(!log.contains("never by itself"), "{log}");
    assert_eq!(ground.job()["rows"][0]["nnodes"], "2", "the card's own topology counts where the context has none");
}

#[test]
fn servers_that_share_the_work_know_their_parts_and_each_other() {
    let script = metric("echo \"part $SGLANG_NODE_RANK $SGLANG_DISAGG_ROLE of $SGLANG_NODE_IPS for <$MODEL_PATH>\"");
    let card = json!({"env_vars": {"MODEL_PATH": "/m $x"}});
    let Some(ground) = Ground::new("sglang-disagg", card, &script) else { return };
    let section = with(cpu(), json!({"nodes": 3}));
    let output = ground.command_with(&context(section, json!({"launcher": "sglang_disagg"}))).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    for part in ["part 0 proxy", "part 1 prefill", "part 2 decode"] {
        let line = log.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {log}"));
        assert!(line.ends_with(" for </m $x>") && line.matches("node").count() == 3, "{line}");
    }
    assert_eq!(ground.job()["rows"][0]["launcher"], "sglang-disagg");
}

#[test]
fn a_launcher_that_nobody_knows_is_refused_with_the_nearest() {
    let Some(ground) = Ground::new("an unknown launcher", json!({}), GOOD) else { return };
    let output = ground.command_with(&context(cpu(), json!({"launcher": "torchrn"}))).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(said(&output).contains("did you mean `torchrun`?"), "{}", said(&output));
    assert_eq!(ground.queue(), "");
}

/// Tells its arguments and variables, starts a step on each node, and leaves rows.
const ONCE: &str = "printf '<%s>\\n' \"$@\" \"$OWN\"\necho \"allocation $SLURM_JOB_ID main $MASTER_ADDR xP $xP\"\n\
     srun --nodes=2 --ntasks=2 bash -c 'echo \"step on $SLURMD_NODENAME\"; echo x > \"step.$SLURM_PROCID\"'\nls step.*\n\
     printf 'model,performance,metric\\na,1.5,things_per_second\\nb,2.5,things_per_second\\n' > perf.csv\n";

fn once_card() -> Value {
    json!({"args": "'$(id)' '`id` a  b' \"it's\"", "env_vars": {"OWN": HOSTILE},
        "distributed": {"launcher": "slurm-multi", "nnodes": 2, "sglang_disagg": {"prefill_nodes": 1, "decode_nodes": 1}}})
}

fn once_ran_well(ground: &Ground, output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    let log = ground.log();
    assert!(log.contains(&format!("<$(id)>\n<`id` a  b>\n<it's>\n<{HOSTILE}>\n")), "{log}");
    assert!(log.contains("main node") && log.contains("xP 1"), "{log}");
    assert_eq!(log.matches("<$(id)>").count(), 1, "the script runs once: {log}");
    assert_eq!(log.matches("step on node").count(), 2, "{log}");
    assert!(log.contains("step.0\nstep.1\n"), "all nodes work in one place: {log}");
    let job = ground.job();
    let rows: Vec<_> = job["rows"].as_array().unwrap().iter().map(|row| row["performance"].as_str().unwrap()).collect();
    assert_eq!(rows, ["1.5", "2.5"]);
    assert_eq!(
        (job["rows"][0]["launcher"].as_str(), job["rows"][0]["nnodes"].as_str()),
        (Some("slurm_multi"), Some("2"))
    );
}

#[test]
fn a_script_that_uses_the_scheduler_by_itself_runs_once_with_its_arguments_as_they_are() {
    let Some(ground) = Ground::new("slurm_multi", once_card(), ONCE) else { return };
    let output = ground.run(&cpu());
    once_ran_well(&ground, &output);
    assert_eq!(ground.queue(), "");
}

#[test]
fn such_a_script_that_fails_is_a_failure_with_its_code() {
    let card = json!({"distributed": {"launcher": "slurm_multi", "nnodes": 2}});
    let Some(ground) = Ground::new("slurm_multi that fails", card, "echo last words\nexit 9\n") else { return };
    let output = ground.run(&cpu());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(9)), "{job:#}");
    assert!(ground.log().contains("last words"));
}

/// An allocation of somebody who is not maddock. It ends with the test.
struct Allocation {
    id: String,
    list: String,
}

impl Allocation {
    fn of(nodes: u32) -> Self {
        let output = Command::new("salloc")
            .args(["--no-shell", "--partition=cpu", "--mem=100M", "--job-name=somebody", &format!("--nodes={nodes}")])
            .env_remove("SLURM_JOB_ID")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, after) = text.split_once("Granted job allocation ").unwrap_or_else(|| panic!("{text}"));
        let id: String = after.chars().take_while(char::is_ascii_digit).collect();
        let mut allocation = Self { id, list: String::new() };
        allocation.list = allocation.ask("%N");
        allocation
    }

    fn ask(&self, format: &str) -> String {
        let output =
            Command::new("squeue").args(["--noheader", "--jobs", &self.id, "--format", format]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// As the allocation's own shell would start it.
    fn shell(&self, mut command: Command) -> Command {
        command.env("SLURM_JOB_ID", &self.id).env("SLURM_JOB_NODELIST", &self.list);
        command
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let _ = Command::new("scancel").arg(&self.id).status();
    }
}

#[test]
fn within_an_allocation_it_runs_there_and_the_allocation_stays() {
    let Some(ground) = Ground::new("an allocation", once_card(), ONCE) else { return };
    let allocation = Allocation::of(2);
    // No partition is named: nothing is handed in.
    let output = allocation.shell(ground.command(&program())).output().unwrap();
    once_ran_well(&ground, &output);
    assert!(ground.log().contains(&format!("allocation {} ", allocation.id)), "{}", ground.log());
    assert_eq!(allocation.ask("%T"), "RUNNING");
}

#[test]
fn a_script_that_fails_or_is_too_large_or_is_interrupted_leaves_the_allocation_alone() {
    let card = json!({"distributed": {"launcher": "slurm_multi", "nnodes": 1}});
    let Some(failing) = Ground::new("failing within an allocation", card.clone(), "exit 9\n") else { return };
    let allocation = Allocation::of(1);
    let output = allocation.shell(failing.command(&program())).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(failing.job()["execution"]["code"], 9, "{}", said(&output));
    assert_eq!(allocation.ask("%T"), "RUNNING");

    let large = Ground::new("too large for it", once_card(), ONCE).unwrap();
    let output = allocation.shell(large.command(&program())).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(said(&output).contains("takes 2 nodes") && said(&output).contains("has 1"), "{}", said(&output));
    assert_eq!(allocation.ask("%T"), "RUNNING");

    let mark = tempfile::tempdir().unwrap();
    let script = format!("touch {}/begun\nsrun sleep 600\n", mark.path().display());
    let endless = Ground::new("interrupted within it", card, &script).unwrap();
    let mut run =
        allocation.shell(endless.command(&program())).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !mark.path().join("begun").exists() {
        assert!(Instant::now() < deadline, "the script did not begin");
        // Not a wait for a moment, only a rest between two looks.
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert_eq!(allocation.ask("%T"), "RUNNING");
}
