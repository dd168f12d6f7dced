//! x
use maddock_sdk::launcher::{self, Arrangement, Guest, Topology};

struct Plugin;

impl Guest for Plugin {
    fn arrange(topology: Topology) -> maddock_sdk::Result<Arrangement> {
        Ok(Arrangement { name: topology.launcher, roles: Vec::new(), warnings: Vec::new() })
    }
}

maddock_sdk::manifest!("plugin.json");
launcher::export!(Plugin with_types_in maddock_sdk::launcher);
