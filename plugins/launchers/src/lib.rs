//! Launchers: from a topology to commands and variables.
//!
//! Pure: no host call is made, so this plugin needs no permission and answers the same on every target.

pub mod arrange;
pub mod disagg;
pub mod names;
pub mod primus;
pub mod runner;
pub mod settings;

use maddock_sdk::launcher::{Arrangement, Guest, Topology};

/// The component's exports.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn arrange(topology: Topology) -> maddock_sdk::Result<Arrangement> {
        arrange::arrange(&topology)
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are no names for a native linker, so tests on the host build without them.
#[cfg(target_arch = "wasm32")]
maddock_sdk::launcher::export!(Plugin with_types_in maddock_sdk::launcher);
