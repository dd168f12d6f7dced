//! Finds the models of a MAD tree.
//!
//! Reads the tree and never writes to it. The one thing it starts is `python3`, for directories that declare their
//! models by a Python file; where that is not allowed or not there, those directories are skipped and said so.

pub mod cards;
pub mod dynamic;
pub mod host;
pub mod listing;

use maddock_sdk::Result;
use maddock_sdk::discovery::{Guest, Listing};
use maddock_sdk::types::Card;

/// The component's exports.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn list_models(tree: String) -> Result<Listing> {
        listing::list_models(&host::Imports, &tree)
    }

    fn finalise(tree: String, cards: Vec<Card>) -> Result<Vec<Card>> {
        listing::finalise(&host::Imports, &tree, cards)
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are no names for a native linker, so tests on the host build without them.
#[cfg(target_arch = "wasm32")]
maddock_sdk::discovery::export!(Plugin with_types_in maddock_sdk::discovery);
