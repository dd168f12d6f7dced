//! The order of discovery: the tree's own models, then those of the directories of `scripts` that have a `models.json`,
//! then those that Python files declare; directories by name.

use std::collections::BTreeMap;

use maddock_sdk::discovery::{Listing, Skipped};
use maddock_sdk::files::FileKind;
use maddock_sdk::types::{Card, Error, ErrorKind};
use maddock_sdk::{Result, invalid, not_found};

use crate::cards::{self, Place};
use crate::dynamic::{self, Directory, Failed};
use crate::host::Host;

const MODELS: &str = "models.json";

/// Every model under `tree`.
pub fn list_models(host: &impl Host, tree: &str) -> Result<Listing> {
    let tree = trimmed(tree);
    let own = host.read(&format!("{tree}/{MODELS}")).map_err(|error| match error.kind {
        ErrorKind::NotFound => not_found(format!("there is no `{MODELS}` in `{tree}`"))
            .hint("name a MAD tree with `--model-dir` or `MODEL_DIR`, or start in one")
            .detail("file", MODELS),
        _ => error.during(&format!("`{MODELS}` cannot be read")),
    })?;
    let mut listing =
        Listing { cards: cards::from_json(&own, Place { source: MODELS, scope: None })?, skipped: Vec::new() };
    let mut dynamic = Vec::new();
    for name in directories(host, tree)? {
        let files = match host.list(&format!("{tree}/scripts/{name}")) {
            Ok(files) => files,
            Err(error) => {
                listing.skipped.push(skipped(format!("scripts/{name}"), error));
                continue;
            }
        };
        let has = |file: &str| files.iter().any(|entry| entry.kind == FileKind::File && entry.name == file);
        match (has(MODELS), has(dynamic::FILE)) {
            (true, true) => {
                return Err(invalid(format!("`scripts/{name}` has both `{MODELS}` and `{}`", dynamic::FILE))
                    .hint("keep one of them")
                    .detail("file", format!("scripts/{name}")));
            }
            (true, false) => {
                let source = format!("scripts/{name}/{MODELS}");
                let bytes = host
                    .read(&format!("{tree}/{source}"))
                    .map_err(|error| error.during(&format!("`{source}` cannot be read")))?;
                listing.cards.extend(cards::from_json(&bytes, Place { source: &source, scope: Some(&name) })?);
            }
            (false, true) => dynamic.push(name),
            (false, false) => {}
        }
    }
    for name in &dynamic {
        match dynamic::list(host, Directory { tree, name }) {
            Ok(cards) => listing.cards.extend(cards),
            Err(Failed::Wrong(error)) => return Err(error),
            Err(Failed::Unrunnable(error)) => {
                listing.skipped.push(skipped(format!("scripts/{name}/{}", dynamic::FILE), error));
            }
        }
    }
    Ok(listing)
}

/// Completes the selected cards: those of Python files by one call for each directory, the others are complete.
pub fn finalise(host: &impl Host, tree: &str, mut selected: Vec<Card>) -> Result<Vec<Card>> {
    let tree = trimmed(tree);
    let mut by_directory: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, card) in selected.iter().enumerate() {
        if let Some(name) = dynamic_directory(&card.source) {
            by_directory.entry(name.to_owned()).or_default().push(at);
        }
    }
    for (name, places) in by_directory {
        let cards: Vec<Card> = places.iter().filter_map(|at| selected.get(*at)).cloned().collect();
        for (at, card) in places.iter().zip(dynamic::finalise(host, Directory { tree, name: &name }, &cards)?) {
            if let Some(place) = selected.get_mut(*at) {
                *place = card;
            }
        }
    }
    Ok(selected)
}

fn directories(host: &impl Host, tree: &str) -> Result<Vec<String>> {
    let entries = match host.list(&format!("{tree}/scripts")) {
        Ok(entries) => entries,
        // A tree without scripts has its own models only.
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.during("`scripts` cannot be listed")),
    };
    let mut names: Vec<String> =
        entries.into_iter().filter(|entry| entry.kind == FileKind::Directory).map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

fn dynamic_directory(source: &str) -> Option<&str> {
    source.strip_prefix("scripts/")?.strip_suffix(dynamic::FILE)?.strip_suffix('/')
}

fn skipped(path: String, error: Error) -> Skipped {
    let remedy = || error.details.into_iter().find(|entry| entry.name == "remedy").map(|entry| entry.value);
    Skipped { path, reason: error.message, hint: error.hint.or_else(remedy) }
}

fn trimmed(tree: &str) -> &str {
    match tree.trim_end_matches('/') {
        "" => tree,
        trimmed => trimmed,
    }
}
