//! From a topology to what each node is told.
//!
//! Models read the variable `MAD_MULTI_NODE_RUNNER` and put it in front of their own program. It is recomputed for every
//! job. Nothing here depends on the target, and nothing is ever read from the machine.

use maddock_sdk::launcher::{Arrangement, Role, Topology};
use maddock_sdk::types::Entry;
use maddock_sdk::{Result, invalid, unsupported};

use crate::names::{self, Family};

/// Seconds that a rendezvous may take when nodes come up one after the other.
const RENDEZVOUS_SECONDS: &str = "3600";
/// One replica of a model is split over this many accelerators at most where nothing else is said.
const LARGEST_TENSOR_SPLIT: u32 = 8;

/// Answers the roles of all nodes.
pub fn arrange(topology: &Topology) -> Result<Arrangement> {
    if topology.nodes == 0 {
        return Err(invalid(format!("the job `{}` has a topology of no nodes", topology.job))
            .hint("set `distributed.nnodes` to 1 or more"));
    }
    let mut warnings = Vec::new();
    let (name, family) = match names::find(&topology.launcher) {
        Some(launcher) => (launcher.name.to_owned(), launcher.family),
        None if topology.nodes == 1 => {
            warnings.push(format!(
                "launcher `{}` is not known; the model gets the runner of `torchrun` (known: {})",
                topology.launcher,
                names::known()
            ));
            (topology.launcher.clone(), Family::Torchrun)
        }
        None => {
            return Err(unsupported(format!("launcher `{}` is not known", topology.launcher))
                .hint(format!("on several nodes the launcher must be one of {}", names::known())));
        }
    };
    if topology.nodes > 1 && family != Family::Torchrun {
        return Err(unsupported(format!(
            "launcher `{name}` runs on one node here, and {} were asked for",
            topology.nodes
        ))
        .hint("set `distributed.nnodes` to 1, or use `torchrun`, `megatron-lm` or `torchtitan`"));
    }
    let roles = (0..topology.nodes)
        .map(|node| Role {
            node,
            name: "worker".to_owned(),
            env: variables(topology, &name, family, node),
            command: None,
        })
        .collect();
    Ok(Arrangement { name, roles, warnings })
}

fn variables(topology: &Topology, name: &str, family: Family, node: u32) -> Vec<Entry> {
    let nodes = topology.nodes;
    let processes = processes(topology);
    let mut env = vec![
        entry("MAD_MULTI_NODE_RUNNER", runner(topology, family, node)),
        entry("NNODES", nodes),
        entry("NPROC_PER_NODE", processes),
        entry("NODE_RANK", node),
        entry("MASTER_ADDR", &topology.main_address),
        entry("MASTER_PORT", topology.main_port),
    ];
    if nodes > 1 {
        // These count nodes, by contract; torchrun gives its workers their own. On one node they stay unset, so that
        // a program which is not started by a runner does not take itself for one rank of many.
        env.push(entry("WORLD_SIZE", nodes));
        env.push(entry("RANK", node));
        env.push(entry("TORCH_ELASTIC_RDZV_TIMEOUT", RENDEZVOUS_SECONDS));
    }
    match name {
        "megatron-lm" => {
            let tensor = if nodes > 1 { processes } else { processes.min(LARGEST_TENSOR_SPLIT) };
            env.push(entry("TENSOR_MODEL_PARALLEL_SIZE", tensor));
            env.push(entry("PIPELINE_MODEL_PARALLEL_SIZE", nodes));
            env.push(entry("CONTEXT_PARALLEL_SIZE", 1));
        }
        "torchtitan" => {
            env.push(entry("TORCHTITAN_TENSOR_PARALLEL_SIZE", processes));
            env.push(entry("TORCHTITAN_PIPELINE_PARALLEL_SIZE", nodes));
            env.push(entry("TORCHTITAN_FSDP_ENABLED", u8::from(nodes > 1)));
            env.push(entry("TORCHTITAN_CONTEXT_PARALLEL_SIZE", 1));
        }
        "vllm" => {
            env.push(entry("VLLM_TENSOR_PARALLEL_SIZE", processes));
            env.push(entry("VLLM_PIPELINE_PARALLEL_SIZE", 1));
            env.push(entry("VLLM_DISTRIBUTED_BACKEND", "auto"));
        }
        "sglang" => {
            env.push(entry("SGLANG_TENSOR_PARALLEL_SIZE", processes));
            env.push(entry("SGLANG_PIPELINE_PARALLEL_SIZE", 1));
        }
        "primus" => env.push(entry("GPUS_PER_NODE", processes)),
        _ => {}
    }
    env
}

/// A machine without accelerators still runs one process.
fn processes(topology: &Topology) -> u32 {
    topology.processes_per_node.max(1)
}

fn runner(topology: &Topology, family: Family, node: u32) -> String {
    let processes = processes(topology);
    match family {
        Family::SelfManaged => String::new(),
        Family::Deepspeed => format!("deepspeed --num_gpus={processes}"),
        Family::Torchrun if topology.nodes == 1 => format!("torchrun --standalone --nproc_per_node={processes}"),
        Family::Torchrun => format!(
            "torchrun --nnodes={} --nproc_per_node={processes} --node_rank={node} --master_addr={} --master_port={}",
            topology.nodes, topology.main_address, topology.main_port
        ),
    }
}

fn entry(name: &str, value: impl ToString) -> Entry {
    Entry { name: name.to_owned(), value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use maddock_sdk::types::ErrorKind;

    use super::*;

    fn topology(launcher: &str, nodes: u32, processes: u32) -> Topology {
        Topology {
            launcher: launcher.to_owned(),
            nodes,
            processes_per_node: processes,
            gpus_per_node: processes,
            main_address: if nodes == 1 { "localhost".to_owned() } else { "node0.example".to_owned() },
            main_port: 29500,
            model: "dummy".to_owned(),
            job: "dummy-1".to_owned(),
            config: "{}".to_owned(),
        }
    }

    fn value(arrangement: &Arrangement, node: usize, name: &str) -> Option<String> {
        let found: Vec<_> = arrangement.roles[node].env.iter().filter(|entry| entry.name == name).collect();
        assert!(found.len() <= 1, "{name} is set twice");
        found.first().map(|entry| entry.value.clone())
    }

    #[test]
    fn one_node_gets_the_runner_that_the_contract_names() {
        let torchrun = Some("torchrun --standalone --nproc_per_node=8");
        for (launcher, reported, runner) in [
            ("torchrun", "torchrun", torchrun),
            ("none", "none", torchrun),
            ("megatron", "megatron-lm", torchrun),
            ("torchtitan", "torchtitan", torchrun),
            ("deepspeed", "deepspeed", Some("deepspeed --num_gpus=8")),
            ("vllm", "vllm", Some("")),
            ("sglang", "sglang", Some("")),
            ("sglang_disagg", "sglang-disagg", Some("")),
            ("primus", "primus", Some("")),
        ] {
            let arrangement = arrange(&topology(launcher, 1, 8)).unwrap();
            assert_eq!(arrangement.name, reported);
            assert_eq!(arrangement.roles.len(), 1);
            assert_eq!(value(&arrangement, 0, "MAD_MULTI_NODE_RUNNER").as_deref(), runner, "{launcher}");
            assert_eq!(value(&arrangement, 0, "WORLD_SIZE"), None);
            assert!(arrangement.warnings.is_empty());
        }
    }

    #[test]
    fn an_unknown_launcher_on_one_node_gets_torchrun_and_a_warning() {
        let arrangement = arrange(&topology("mpirun", 1, 2)).unwrap();
        assert_eq!(arrangement.name, "mpirun");
        assert_eq!(
            value(&arrangement, 0, "MAD_MULTI_NODE_RUNNER").as_deref(),
            Some("torchrun --standalone --nproc_per_node=2")
        );
        assert_eq!(arrangement.warnings.len(), 1);
        assert!(arrangement.warnings[0].contains("`mpirun` is not known"));
    }

    #[test]
    fn several_nodes_meet_at_the_first() {
        let arrangement = arrange(&topology("torchrun", 2, 8)).unwrap();
        assert_eq!(arrangement.roles.iter().map(|role| role.node).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            value(&arrangement, 1, "MAD_MULTI_NODE_RUNNER").as_deref(),
            Some(
                "torchrun --nnodes=2 --nproc_per_node=8 --node_rank=1 --master_addr=node0.example --master_port=29500"
            )
        );
        for (name, expected) in [
            ("NNODES", "2"),
            ("NPROC_PER_NODE", "8"),
            ("NODE_RANK", "1"),
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node0.example"),
            ("MASTER_PORT", "29500"),
        ] {
            assert_eq!(value(&arrangement, 1, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn megatron_splits_over_nodes_and_processes() {
        let one = arrange(&topology("megatron-lm", 1, 16)).unwrap();
        assert_eq!(value(&one, 0, "TENSOR_MODEL_PARALLEL_SIZE").as_deref(), Some("8"));
        assert_eq!(value(&one, 0, "PIPELINE_MODEL_PARALLEL_SIZE").as_deref(), Some("1"));
        let two = arrange(&topology("megatron-lm", 2, 16)).unwrap();
        assert_eq!(value(&two, 0, "TENSOR_MODEL_PARALLEL_SIZE").as_deref(), Some("16"));
        assert_eq!(value(&two, 0, "PIPELINE_MODEL_PARALLEL_SIZE").as_deref(), Some("2"));
    }

    #[test]
    fn launchers_of_one_node_refuse_several_with_a_hint() {
        for launcher in ["deepspeed", "vllm", "sglang", "sglang-disagg", "primus", "mpirun"] {
            let error = arrange(&topology(launcher, 4, 8)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported, "{launcher}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn a_machine_without_accelerators_runs_one_process() {
        let arrangement = arrange(&topology("torchrun", 1, 0)).unwrap();
        assert_eq!(
            value(&arrangement, 0, "MAD_MULTI_NODE_RUNNER").as_deref(),
            Some("torchrun --standalone --nproc_per_node=1")
        );
    }

    #[test]
    fn a_topology_of_no_nodes_is_refused() {
        assert_eq!(arrange(&topology("torchrun", 0, 1)).unwrap_err().kind, ErrorKind::InvalidInput);
    }
}
