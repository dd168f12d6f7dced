//! Finds the models of a tree that has one file for each, `MODEL.model.json`.

use maddock_sdk::discovery::{Guest, Listing};
use maddock_sdk::types::Card;
use maddock_sdk::{Result, files, not_found};

/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn list_models(tree: String) -> Result<Listing> {
        let mut cards = Vec::new();
        for entry in files::list_directory(&tree)? {
            let Some(name) = model(&entry.name) else {
                continue;
            };
            let bytes = files::read(&format!("{tree}/{}", entry.name), LARGEST)?;
            cards.push(Card {
                name: name.to_owned(),
                tags: Vec::new(),
                source: entry.name.clone(),
                model: String::from_utf8_lossy(&bytes).into_owned(),
            });
        }
        if cards.is_empty() {
            return Err(not_found("the tree has no `*.model.json`"));
        }
        Ok(Listing {
            cards,
            skipped: Vec::new(),
        })
    }

    fn finalise(_tree: String, cards: Vec<Card>) -> Result<Vec<Card>> {
        Ok(cards)
    }
}

/// The model that a file declares.
fn model(file: &str) -> Option<&str> {
    file.strip_suffix(".model.json")
        .filter(|name| !name.is_empty())
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::discovery::export!(Plugin with_types_in maddock_sdk::discovery);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_model_files_are_models() {
        assert_eq!(model("a.model.json"), Some("a"));
        assert_eq!(model(".model.json"), None);
        assert_eq!(model("a.json"), None);
    }
}
