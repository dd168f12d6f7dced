//! Tells every node its rank.

use maddock_sdk::launcher::{Arrangement, Guest, Role, Topology};
use maddock_sdk::types::Entry;
use maddock_sdk::{Result, invalid};

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn arrange(topology: Topology) -> Result<Arrangement> {
        if topology.nodes == 0 {
            return Err(invalid("a job needs at least one node").hint("set `distributed.nnodes`"));
        }
        let variable = |name: &str, value: String| Entry {
            name: name.to_owned(),
            value,
        };
        let role = |node: u32| Role {
            node,
            name: "worker".to_owned(),
            env: vec![
                variable("NODE_RANK", node.to_string()),
                variable("NNODES", topology.nodes.to_string()),
                variable("MAD_MULTI_NODE_RUNNER", "NAME-run".to_owned()),
            ],
            command: None,
        };
        Ok(Arrangement {
            name: "NAME".to_owned(),
            roles: (0..topology.nodes).map(role).collect(),
            warnings: Vec::new(),
        })
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::launcher::export!(Plugin with_types_in maddock_sdk::launcher);

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_sdk::launcher::Program;

    #[test]
    fn every_node_has_its_rank() {
        let topology = Topology {
            launcher: "NAME".into(),
            nodes: 2,
            processes_per_node: 1,
            gpus_per_node: 0,
            main_address: "localhost".into(),
            main_port: 29500,
            model: "m".into(),
            job: "0-m".into(),
            config: "{}".into(),
            program: Program {
                interpreter: vec!["bash".into()],
                file: "run.sh".into(),
            },
            env: Vec::new(),
            extra: Vec::new(),
        };
        let arrangement = Plugin::arrange(topology).unwrap();
        assert_eq!(arrangement.roles.len(), 2);
        assert_eq!(arrangement.roles[1].env[0].value, "1");
    }
}
