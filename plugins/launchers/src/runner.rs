//! Programs that start a model's processes, as words: for `MAD_MULTI_NODE_RUNNER`, which a model's shell script puts in
//! front of its own program, and for commands that start another kind of script directly.

use maddock_sdk::launcher::Topology;
use maddock_sdk::references::literal;

/// Stands for the model's script and its arguments in a command.
const SCRIPT: &str = "$MADDOCK_SCRIPT";

/// `torchrun` for one node's part. Nodes have numbers and meet at the first.
#[must_use]
pub fn torchrun(topology: &Topology, processes: u32, node: u32) -> Vec<String> {
    let mut words = vec!["torchrun".to_owned()];
    if topology.nodes == 1 {
        words.extend(["--standalone".to_owned(), format!("--nproc_per_node={processes}")]);
    } else {
        words.extend([
            format!("--nnodes={}", topology.nodes),
            format!("--nproc_per_node={processes}"),
            format!("--node_rank={node}"),
            format!("--master_addr={}", topology.main_address),
            format!("--master_port={}", topology.main_port),
        ]);
    }
    words
}

/// `torchrun` in front of the script. On several nodes the agents agree on their numbers by themselves, under the job's
/// name, so that one of an earlier try cannot join.
#[must_use]
pub fn torchrun_script(topology: &Topology, processes: u32) -> Vec<String> {
    let mut words = vec!["torchrun".to_owned()];
    if topology.nodes == 1 {
        words.extend(["--standalone".to_owned(), "--nnodes=1".to_owned(), format!("--nproc_per_node={processes}")]);
    } else {
        words.extend([
            format!("--nnodes={}", topology.nodes),
            format!("--nproc_per_node={processes}"),
            "--rdzv_backend=c10d".to_owned(),
            format!("--rdzv_endpoint={}:{}", topology.main_address, topology.main_port),
            format!("--rdzv_id={}", literal(&topology.job)),
            "--role=worker".to_owned(),
            "--tee=3".to_owned(),
        ]);
    }
    with_script(words)
}

/// `deepspeed` for one node's part. With `--no_ssh` each node starts its own processes. Without it, every node would log
/// in to every other one by ssh and start all processes once more: the script runs on each node already, in pods as on
/// nodes of a scheduler.
#[must_use]
pub fn deepspeed(topology: &Topology, processes: u32, node: u32) -> Vec<String> {
    let mut words = vec!["deepspeed".to_owned()];
    if topology.nodes == 1 {
        words.push(format!("--num_gpus={processes}"));
    } else {
        words.extend([
            "--hostfile=$MADDOCK_HOSTFILE".to_owned(),
            "--no_ssh".to_owned(),
            format!("--node_rank={node}"),
            format!("--master_addr={}", topology.main_address),
            format!("--master_port={}", topology.main_port),
        ]);
    }
    words
}

/// `deepspeed` in front of the script.
#[must_use]
pub fn deepspeed_script(topology: &Topology, processes: u32, node: u32) -> Vec<String> {
    let mut words = deepspeed(topology, processes, node);
    if topology.nodes == 1 {
        words.push(format!("--master_port={}", topology.main_port));
    }
    with_script(words)
}

/// A runner in front of the script.
#[must_use]
pub fn with_script(mut words: Vec<String>) -> Vec<String> {
    words.push(SCRIPT.to_owned());
    words
}
