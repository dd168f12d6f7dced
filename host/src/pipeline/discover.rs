//! Asking the discovery plugins what models a tree has, and completing the ones that were selected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use maddock_bindings::api::types;

use super::card::Card;
use super::select::Selected;
use crate::capability::events::{is_hostile, printable};
use crate::plugin::manifest::Kind;
use crate::plugin::{PluginError, Plugins, Session};

/// Names become parts of file names and cells of tables.
const LONGEST_NAME: usize = 1000;

/// A place that could not be read although the rest of the tree could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Relative to the tree.
    pub path: String,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a tree has.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order to be shown.
    pub cards: Vec<Card>,
    /// Places that were left out.
    pub skipped: Vec<Skipped>,
}

/// Why there is nothing to select from.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A plugin failed, or the tree is not one of its kind.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A plugin told something that is no model card.
    #[error("plugin `{plugin}` described the model `{model}` in a way that no card can be: {message}")]
    Nonsense {
        /// The plugin.
        plugin: String,
        /// The model.
        model: String,
        /// What is wrong.
        message: String,
    },
    /// No plugin finds models.
    #[error("no discovery plugin is loaded")]
    NoPlugin,
}

/// Every model of a tree, by all discovery plugins. A tree that one of them does not know is the others' business.
///
/// # Errors
/// Every plugin failed or does not know the tree; or one of them knows it and finds it broken.
pub async fn models(plugins: &Plugins, session: &Session, tree: &Path) -> Result<Found, DiscoverError> {
    let tree = tree.display().to_string();
    let mut found = Found::default();
    let mut strange: Option<PluginError> = None;
    let mut known = false;
    for plugin in plugins.all(Kind::Discovery)? {
        let listing = match plugin.list_models(session, &tree).await {
            Ok(listing) => listing,
            Err(PluginError::Answered { plugin, function, error })
                if matches!(error.kind, types::ErrorKind::NotFound) =>
            {
                strange.get_or_insert(PluginError::Answered { plugin, function, error });
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        known = true;
        for card in listing.cards {
            found.cards.push(read_card(plugin.name(), card)?);
        }
        found.skipped.extend(listing.skipped.into_iter().map(|s| Skipped {
            path: s.path,
            reason: s.reason,
            hint: s.hint,
        }));
    }
    match strange {
        Some(error) if !known => Err(error.into()),
        None if !known => Err(DiscoverError::NoPlugin),
        _ => Ok(found),
    }
}

/// Completes selected cards, each name once and by the plugin that found it, and appends what the tags added to their
/// arguments. The order is kept.
///
/// # Errors
/// A plugin failed.
pub async fn finalise(
    plugins: &Plugins,
    session: &Session,
    tree: &Path,
    selected: Vec<Selected>,
) -> Result<Vec<Card>, DiscoverError> {
    let tree = tree.display().to_string();
    let mut finished: BTreeMap<String, Card> = BTreeMap::new();
    for plugin in plugins.all(Kind::Discovery)? {
        let mut names = BTreeSet::new();
        let own = selected.iter().map(|selected| &selected.card).filter(|card| card.plugin == plugin.name());
        let cards: Vec<types::Card> = own.filter(|card| names.insert(card.name.clone())).map(write_card).collect();
        if cards.is_empty() {
            continue;
        }
        let answer = plugin.finalise(session, &tree, &cards).await?;
        if answer.len() != cards.len() {
            let message = format!("it was given {} cards and answered {}", cards.len(), answer.len());
            return Err(DiscoverError::Nonsense { plugin: plugin.name().to_owned(), model: String::new(), message });
        }
        for card in answer {
            let card = read_card(plugin.name(), card)?;
            finished.insert(card.name.clone(), card);
        }
    }
    let complete = |selected: Selected| match finished.get(&selected.card.name) {
        Some(card) => Selected { card: card.clone(), ..selected }.into_card(),
        None => selected.into_card(),
    };
    Ok(selected.into_iter().map(complete).collect())
}

fn read_card(plugin: &str, card: types::Card) -> Result<Card, DiscoverError> {
    let nonsense =
        |message: String| DiscoverError::Nonsense { plugin: plugin.to_owned(), model: card.name.clone(), message };
    if card.name.is_empty() || card.name.len() > LONGEST_NAME || card.name.contains(is_hostile) {
        let shown = printable(card.name.get(..card.name.len().min(80)).unwrap_or_default());
        let message =
            format!("`{shown}` is no name: it is empty, longer than {LONGEST_NAME} bytes, or has control characters");
        return Err(DiscoverError::Nonsense { plugin: plugin.to_owned(), model: shown, message });
    }
    let model: serde_json::Value = serde_json::from_str(&card.model).map_err(|error| nonsense(error.to_string()))?;
    if !model.is_object() {
        return Err(nonsense("not an object".to_owned()));
    }
    Ok(Card { name: card.name, tags: card.tags, source: card.source, plugin: plugin.to_owned(), model })
}

/// A card as plugins see it.
#[must_use]
pub fn write_card(card: &Card) -> types::Card {
    types::Card {
        name: card.name.clone(),
        tags: card.tags.clone(),
        source: card.source.clone(),
        model: card.model.to_string(),
    }
}
