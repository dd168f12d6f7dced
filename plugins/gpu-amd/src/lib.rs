//! Knows AMD accelerators: what this machine has, and what a container or process needs in order to use them.
//!
//! Reads files of the driver and asks ROCm's tools. It never writes, and never changes a device.

pub mod attach;
pub mod detect;
pub mod root;
pub mod tools;
pub mod topology;

use maddock_sdk::accelerators::Finding;
use maddock_sdk::gpu::{Guest, Inventory};
use maddock_sdk::machine::Here;
use maddock_sdk::serde_json;
use maddock_sdk::types::Attachment;
use maddock_sdk::{Result, invalid};

/// ROCm's tools look for their libraries below their own root.
const HERE: Here = Here { inherit: &["ROCM_PATH"] };

/// The component's exports.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn detect(config: String) -> Result<Option<Inventory>> {
        let config = serde_json::from_str(&config)
            .map_err(|error| invalid(format!("the configuration is not valid JSON: {error}")))?;
        detect::detect(&HERE, &config).map(Finding::told)
    }

    fn attach(inventory: Inventory, indices: Vec<u32>) -> Result<Attachment> {
        attach::attach(&inventory, &indices)
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are no names for a native linker, so tests on the host build without them.
#[cfg(target_arch = "wasm32")]
maddock_sdk::gpu::export!(Plugin with_types_in maddock_sdk::gpu);
