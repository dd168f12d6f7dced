//! Knows NVIDIA accelerators: what this machine has, and what a container or process needs in order to use them.
//!
//! Reads files of the driver and asks NVIDIA's tools. It never writes, and never changes a device.

pub mod attach;
pub mod detect;
pub mod driver;
pub mod tools;

use maddock_sdk::Result;
use maddock_sdk::accelerators::Finding;
use maddock_sdk::gpu::{Guest, Inventory};
use maddock_sdk::machine::Here;
use maddock_sdk::types::Attachment;

/// The component's exports.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn detect(_config: String) -> Result<Option<Inventory>> {
        detect::detect(&Here::default()).map(Finding::told)
    }

    fn attach(inventory: Inventory, indices: Vec<u32>) -> Result<Attachment> {
        attach::attach(&inventory, &indices)
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are no names for a native linker, so tests on the host build without them.
#[cfg(target_arch = "wasm32")]
maddock_sdk::gpu::export!(Plugin with_types_in maddock_sdk::gpu);
