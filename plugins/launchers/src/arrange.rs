//! From a topology to what each node is told.
//!
//! A shell script is run as it is: it finds `MAD_MULTI_NODE_RUNNER` and puts it in front of its own program. Another script is
//! started by the launcher's own command. Nothing here depends on the target, and nothing is read from the machine.

use maddock_sdk::launcher::{Arrangement, Role, Topology};
use maddock_sdk::references::literal;
use maddock_sdk::types::Entry;
use maddock_sdk::{Result, invalid};

use crate::disagg::{self, Split};
use crate::names::{self, Kind};
use crate::settings::Settings;
use crate::{primus, runner};

/// Seconds that a rendezvous may take when nodes come up one after the other.
const RENDEZVOUS_SECONDS: &str = "3600";
/// One replica of a model is split over this many accelerators at most where nothing else is said.
const LARGEST_TENSOR_SPLIT: u32 = 8;

/// What the roles of one job have in common.
struct Scene<'a> {
    topology: &'a Topology,
    kind: Kind,
    settings: Settings,
    processes: u32,
    /// Of `sglang-disagg`.
    split: Option<Split>,
    /// Of `primus`.
    primus: Vec<Entry>,
}

/// Answers the roles of all nodes.
///
/// # Errors
/// The launcher is not known, or the topology is none for it.
pub fn arrange(topology: &Topology) -> Result<Arrangement> {
    if topology.nodes == 0 {
        return Err(invalid(format!("the job `{}` has a topology of no nodes", topology.job))
            .hint("set `distributed.nnodes` to 1 or more")
            .detail("key", "distributed.nnodes"));
    }
    let Some(launcher) = names::find(&topology.launcher) else {
        let error =
            invalid(format!("launcher `{}` is not known", topology.launcher)).detail("key", "distributed.launcher");
        let meant = names::nearest(&topology.launcher).map(|name| format!("did you mean `{name}`? "));
        return Err(error.hint(format!("{}known launchers are {}", meant.unwrap_or_default(), names::known())));
    };
    let settings = Settings::read(&topology.config)?;
    for key in ["nnodes", "nproc_per_node", "port", "master_port"] {
        settings.count(key)?;
    }
    let mut scene = Scene {
        topology,
        kind: launcher.kind,
        settings,
        processes: processes(topology),
        split: None,
        primus: Vec::new(),
    };
    let mut warnings = Vec::new();
    match launcher.kind {
        Kind::Primus => {
            let (env, said) = primus::variables(topology, &scene.settings.section("primus")?)?;
            scene.primus = env;
            warnings.extend(said);
        }
        // On one machine the model's script starts all servers by itself, as it always did.
        Kind::SglangDisagg if topology.nodes > 1 => {
            scene.split = Some(Split::of(&scene.settings.section("sglang_disagg")?, topology.nodes)?);
        }
        _ => {}
    }
    // The script of `slurm_multi` runs once.
    let nodes = if launcher.kind == Kind::SlurmMulti { 1 } else { topology.nodes };
    let roles = (0..nodes).map(|node| scene.role(node)).collect::<Result<_>>()?;
    Ok(Arrangement { name: launcher.name.to_owned(), roles, warnings })
}

/// A machine without accelerators still runs one process. On one node the user's own word counts.
fn processes(topology: &Topology) -> u32 {
    let given = topology.env.iter().rev().find(|entry| entry.name == "MAD_RUNTIME_NGPUS");
    let given = given.and_then(|entry| entry.value.trim().parse().ok()).filter(|_| topology.nodes == 1);
    given.unwrap_or(topology.processes_per_node).max(1)
}

impl Scene<'_> {
    fn role(&self, node: u32) -> Result<Role> {
        let name = match (self.kind, self.split) {
            (Kind::SlurmMulti, _) => "batch",
            (_, Some(split)) => split.role(node),
            // A server of its own on each node: what one of them measured is not what the others did.
            (Kind::Vllm, _) if self.topology.nodes > 1 => "replica",
            _ => "worker",
        };
        Ok(Role { node, name: name.to_owned(), env: self.variables(node)?, command: self.command(node)? })
    }

    /// The command that starts the model, where the script is not one that does so by itself.
    fn command(&self, node: u32) -> Result<Option<Vec<String>>> {
        let (topology, processes) = (self.topology, self.processes);
        if let Some(split) = self.split {
            let section = self.settings.section("sglang_disagg")?;
            return if section.flag("servers")? {
                disagg::command(topology, &section, split, processes, node).map(Some)
            } else {
                Ok(None)
            };
        }
        let shell = |program: &String| matches!(program.rsplit('/').next(), Some("bash" | "sh"));
        if topology.program.interpreter.first().is_none_or(shell) {
            return Ok(None);
        }
        Ok(match self.kind {
            Kind::Torchrun | Kind::Torchtitan => Some(runner::torchrun_script(topology, processes)),
            Kind::Megatron => Some(runner::with_script(runner::torchrun(topology, processes, node))),
            Kind::Deepspeed => Some(runner::deepspeed_script(topology, processes, node)),
            Kind::None | Kind::Primus | Kind::Vllm | Kind::Sglang | Kind::SglangDisagg | Kind::SlurmMulti => None,
        })
    }

    fn variables(&self, node: u32) -> Result<Vec<Entry>> {
        let Self { topology, processes, .. } = self;
        let nodes = topology.nodes;
        let mut env = vec![
            entry("MAD_MULTI_NODE_RUNNER", self.runner(node)),
            entry("NNODES", nodes),
            entry("NPROC_PER_NODE", processes),
            entry("MASTER_ADDR", &topology.main_address),
            entry("MASTER_PORT", topology.main_port),
        ];
        // A script that starts what runs on the nodes by itself would hand a number of its own on to all of them.
        if self.kind != Kind::SlurmMulti {
            env.push(entry("NODE_RANK", node));
            if nodes > 1 {
                // These count nodes, for every launcher: upstream's pods of `deepspeed` counted processes in WORLD_SIZE
                // and nodes in RANK, with which nobody could meet. Runners give their workers their own. On one node they
                // stay unset, so that a program without a runner does not take itself for one rank of many.
                env.push(entry("WORLD_SIZE", nodes));
                env.push(entry("RANK", node));
                env.push(entry("LOCAL_RANK", 0));
                env.push(entry("TORCH_ELASTIC_RDZV_TIMEOUT", RENDEZVOUS_SECONDS));
            }
        }
        if let Some(backend) = self.settings.text("backend")? {
            env.push(entry("DISTRIBUTED_BACKEND", literal(&backend)));
        }
        env.extend(self.own_variables(node)?);
        Ok(env)
    }

    fn runner(&self, node: u32) -> String {
        let (topology, processes) = (self.topology, self.processes);
        match self.kind {
            Kind::None | Kind::Torchrun | Kind::Megatron | Kind::Torchtitan => {
                runner::torchrun(topology, processes, node)
            }
            Kind::Deepspeed => runner::deepspeed(topology, processes, node),
            // Defined and empty: a script with `set -u` goes on, and the model starts its processes by itself.
            Kind::Primus | Kind::Vllm | Kind::Sglang | Kind::SglangDisagg | Kind::SlurmMulti => Vec::new(),
        }
        .join(" ")
    }

    /// What only this launcher's models read.
    fn own_variables(&self, node: u32) -> Result<Vec<Entry>> {
        let (topology, processes) = (self.topology, self.processes);
        let nodes = topology.nodes;
        let several = nodes > 1;
        Ok(match self.kind {
            Kind::None | Kind::Torchrun | Kind::Deepspeed => Vec::new(),
            Kind::Megatron => {
                let tensor = if several { processes } else { processes.min(LARGEST_TENSOR_SPLIT) };
                vec![
                    entry("TENSOR_MODEL_PARALLEL_SIZE", tensor),
                    entry("PIPELINE_MODEL_PARALLEL_SIZE", nodes),
                    entry("CONTEXT_PARALLEL_SIZE", 1),
                ]
            }
            Kind::Torchtitan => vec![
                entry("TORCHTITAN_TENSOR_PARALLEL_SIZE", processes),
                entry("TORCHTITAN_PIPELINE_PARALLEL_SIZE", nodes),
                entry("TORCHTITAN_FSDP_ENABLED", u8::from(several)),
                entry("TORCHTITAN_CONTEXT_PARALLEL_SIZE", 1),
            ],
            Kind::Vllm => {
                let mut env = vec![
                    entry("VLLM_TENSOR_PARALLEL_SIZE", processes),
                    entry("VLLM_PIPELINE_PARALLEL_SIZE", 1),
                    // Each node is a replica of its own: Ray is started by the server, for its node. Upstream's `none`
                    // of a scheduler's nodes is no backend that the server knows.
                    entry("VLLM_DISTRIBUTED_BACKEND", if several { "ray" } else { "auto" }),
                ];
                if several {
                    env.push(entry("VLLM_HOST_IP", "$MADDOCK_NODE_ADDRESS"));
                }
                env
            }
            Kind::Sglang => {
                let mut env =
                    vec![entry("SGLANG_TENSOR_PARALLEL_SIZE", processes), entry("SGLANG_PIPELINE_PARALLEL_SIZE", 1)];
                if several {
                    env.push(entry("SGLANG_HOST_IP", "$MADDOCK_NODE_ADDRESS"));
                    env.push(entry("NCCL_INIT_ADDR", format!("{}:{}", topology.main_address, topology.main_port)));
                }
                env
            }
            Kind::SglangDisagg => self.split.map(|split| self.shared_servers(split, node)).unwrap_or_default(),
            Kind::Primus => {
                let mut env = self.primus.clone();
                env.push(entry("GPUS_PER_NODE", processes));
                env
            }
            Kind::SlurmMulti => {
                let section = self.settings.section("sglang_disagg")?;
                let asked = [("xP", section.count("prefill_nodes")?), ("yD", section.count("decode_nodes")?)];
                asked.into_iter().filter_map(|(name, count)| Some(entry(name, count?))).collect()
            }
        })
    }

    fn shared_servers(&self, split: Split, node: u32) -> Vec<Entry> {
        vec![
            entry("SGLANG_DISAGG_MODE", "enabled"),
            entry("SGLANG_DISAGG_ROLE", split.role(node)),
            entry("SGLANG_DISAGG_PREFILL_NODES", split.prefill),
            entry("SGLANG_DISAGG_DECODE_NODES", split.decode),
            entry("SGLANG_DISAGG_TOTAL_NODES", self.topology.nodes),
            entry("SGLANG_TP_SIZE", self.processes),
            entry("SGLANG_NODE_IPS", "$MADDOCK_NODES"),
            entry("SGLANG_NODE_RANK", node),
            entry("SGLANG_HOST_IP", "$MADDOCK_NODE_ADDRESS"),
        ]
    }
}

fn entry(name: &str, value: impl ToString) -> Entry {
    Entry { name: name.to_owned(), value: value.to_string() }
}

#[cfg(test)]
#[path = "arrange_tests.rs"]
mod tests;
