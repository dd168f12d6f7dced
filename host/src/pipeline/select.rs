//! Selection: which cards the tags mean, in which order, with which further arguments.
//!
//! A tag is `selector[:key=value…]`. A selector is a name, a tag, `all`, or `scope/filter` for the models of one directory.
//! Every tag must match something. It must never guess: suggestions are for the message only.

use std::collections::HashSet;

use super::card::Card;
use crate::config::nearest::{listed, nearest};

/// The selector of everything.
const ALL: &str = "all";

/// A tag that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing stands before, between or after its colons.
    #[error("tag `{tag}` names no model")]
    Empty {
        /// As given.
        tag: String,
    },
    /// No card has that name or tag.
    #[error("no model has the name or tag `{selector}`{}", if tag == selector { String::new() } else { format!(" (of `{tag}`)") })]
    Unmatched {
        /// As given.
        tag: String,
        /// What was looked for.
        selector: String,
        /// Names and tags that are similar.
        nearest: Vec<String>,
    },
}

impl SelectError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Empty { .. } => "write `name`, `tag`, `all` or `name:option=value`".to_owned(),
            Self::Unmatched { nearest, .. } if nearest.is_empty() => {
                "`discover` lists the models that there are".to_owned()
            }
            Self::Unmatched { nearest, .. } => format!("did you mean {}?", listed(nearest, "or")),
        }
    }
}

/// A card that a tag means. Extra arguments stay apart until the card is complete: its discovery plugin may still change
/// `args` when it finalises the card, which it does once for each name.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// The card as discovered.
    pub card: Card,
    /// What the tag adds to its arguments, with a space before each piece; empty for nothing.
    pub extra: String,
    /// The tag that selected it first.
    pub tag: String,
}

impl Selected {
    /// The card with the extra arguments at the end of its own.
    #[must_use]
    pub fn into_card(self) -> Card {
        let Self { mut card, extra, .. } = self;
        card.set_args(card.args() + &extra);
        card
    }
}

/// The values of an option that may be repeated and may hold commas: pieces in order, trimmed, without blank ones.
#[must_use]
pub fn split_tags<S: AsRef<str>>(values: &[S]) -> Vec<String> {
    values
        .iter()
        .flat_map(|value| value.as_ref().split(','))
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The cards that the tags mean: tag by tag, within a tag in the order of the cards; each name with the same arguments once.
///
/// # Errors
/// The first tag that is empty or matches nothing.
pub fn select<S: AsRef<str>>(cards: &[Card], tags: &[S]) -> Result<Vec<Selected>, SelectError> {
    let mut selected = Vec::new();
    let mut seen: HashSet<(&str, String)> = HashSet::new();
    for tag in tags.iter().map(|tag| tag.as_ref().trim()) {
        let Tag { selector, extra } = Tag::read(tag)?;
        let mut matched = false;
        for card in cards.iter().filter(|card| selector.matches(card)) {
            matched = true;
            if seen.insert((&card.name, card.args() + &extra)) {
                selected.push(Selected { card: card.clone(), extra: extra.clone(), tag: tag.to_owned() });
            }
        }
        if !matched {
            let wanted = selector.text();
            let nearest = suggestions(wanted, cards);
            return Err(SelectError::Unmatched { tag: tag.to_owned(), selector: wanted.to_owned(), nearest });
        }
    }
    Ok(selected)
}

struct Tag<'a> {
    selector: Selector<'a>,
    extra: String,
}

impl<'a> Tag<'a> {
    fn read(tag: &'a str) -> Result<Self, SelectError> {
        let mut pieces = tag.split(':').map(str::trim).filter(|piece| !piece.is_empty());
        let first = pieces.next().ok_or_else(|| SelectError::Empty { tag: tag.to_owned() })?;
        let selector = if tag.contains(':') { Selector::Plain(first) } else { Selector::read(first) };
        let extra = pieces.map(|piece| format!(" --{}", piece.replace('=', " "))).collect();
        Ok(Self { selector, extra })
    }
}

enum Selector<'a> {
    /// `scope/filter`.
    Scoped { whole: &'a str, filter: &'a str },
    /// A name, a tag, or everything.
    Plain(&'a str),
}

impl<'a> Selector<'a> {
    fn read(text: &'a str) -> Self {
        match text.split_once('/') {
            Some((scope, filter)) if !scope.is_empty() && !filter.is_empty() && !filter.contains('/') => {
                Self::Scoped { whole: text, filter }
            }
            _ => Self::Plain(text),
        }
    }

    fn text(&self) -> &'a str {
        match self {
            Self::Scoped { whole, .. } => whole,
            Self::Plain(text) => text,
        }
    }

    fn matches(&self, card: &Card) -> bool {
        let tagged = |wanted: &str| card.tags.iter().any(|tag| tag.trim() == wanted);
        match self {
            Self::Plain(wanted) => *wanted == ALL || card.name == *wanted || tagged(wanted),
            Self::Scoped { whole, filter } => {
                let scope = whole.strip_suffix(filter).unwrap_or(whole);
                card.name.starts_with(scope) && (*filter == ALL || card.name == *whole || tagged(filter))
            }
        }
    }
}

/// Names and tags like the one that was looked for; first names that have it as their last part.
fn suggestions(wanted: &str, cards: &[Card]) -> Vec<String> {
    let last = wanted.rsplit('/').next().unwrap_or(wanted);
    let elsewhere = cards.iter().map(|card| card.name.as_str()).filter(|name| name.rsplit('/').next() == Some(last));
    let words =
        cards.iter().flat_map(|card| std::iter::once(card.name.as_str()).chain(card.tags.iter().map(String::as_str)));
    let mut found: Vec<String> = Vec::new();
    for name in elsewhere.chain(nearest(wanted, words)) {
        if !found.iter().any(|there| there == name) {
            found.push(name.to_owned());
        }
    }
    found.truncate(4);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn card(name: &str, tags: &[&str], args: Option<&str>) -> Card {
        let mut model = json!({"name": name, "n_gpus": "1"});
        if let Some(args) = args {
            model["args"] = json!(args);
        }
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Card { name: name.to_owned(), tags, source: "models.json".to_owned(), plugin: "tree".to_owned(), model }
    }

    fn cards() -> Vec<Card> {
        vec![
            card("m", &["quick", "vision"], Some("--a 1")),
            card("n", &["vision"], None),
            card("d/model1", &["quick", "text"], Some("")),
            card("d/model2", &["text"], Some("")),
            card("e/model1", &["quick"], Some("")),
            card("e/sub/x", &["a/b/c"], Some("")),
        ]
    }

    fn names(tags: &[&str]) -> Vec<String> {
        select(&cards(), tags).unwrap().into_iter().map(|selected| selected.card.name).collect()
    }

    #[test]
    fn selectors_are_names_tags_all_and_scopes() {
        assert_eq!(names(&["m"]), ["m"]);
        assert_eq!(names(&["vision"]), ["m", "n"]);
        assert_eq!(names(&["all"]).len(), 6);
        assert_eq!(names(&["d/all"]), ["d/model1", "d/model2"]);
        assert_eq!(names(&["d/quick"]), ["d/model1"]);
        assert_eq!(names(&["d/model2"]), ["d/model2"]);
        assert_eq!(names(&["quick"]), ["m", "d/model1", "e/model1"], "an unscoped tag finds scoped models");
        assert_eq!(names(&["e/sub/x"]), ["e/sub/x"]);
        assert_eq!(names(&["a/b/c"]), ["e/sub/x"], "with two slashes it is no scope");
        assert_eq!(names(&[]), [""; 0]);
    }

    #[test]
    fn extra_arguments_are_appended_as_options() {
        let only = |tag: &str| select(&cards(), &[tag]).unwrap().remove(0).into_card().args();
        assert_eq!(only("m:batch-size=32:in=7"), "--a 1 --batch-size 32 --in 7");
        assert_eq!(only("m: fast : :x=1=2"), "--a 1 --fast --x 1 2");
        assert_eq!(only("n:flag"), " --flag", "a card without args has empty ones");
        assert_eq!(only("n"), "");
        assert_eq!(only("d/model1:x=1"), " --x 1");
        assert_eq!(only(" :m:x"), "--a 1 --x");
    }

    #[test]
    fn a_scope_with_extras_is_an_exact_name() {
        assert!(select(&cards(), &["d/quick:x=1"]).is_err());
        assert!(select(&cards(), &["d/all:x=1"]).is_err());
    }

    #[test]
    fn the_same_model_with_the_same_arguments_is_selected_once() {
        assert_eq!(names(&["vision", "quick", "m"]), ["m", "n", "d/model1", "e/model1"]);
        let tags = ["m", "m:x=1", "m:x=2", "m:x=1"];
        let args: Vec<String> =
            select(&cards(), &tags).unwrap().into_iter().map(|one| one.into_card().args()).collect();
        assert_eq!(args, ["--a 1", "--a 1 --x 1", "--a 1 --x 2"]);
    }

    #[test]
    fn a_tag_that_matches_nothing_is_named_with_what_is_near() {
        let error = select(&cards(), &["m", "visoin:x=1"]).unwrap_err();
        assert_eq!(error.to_string(), "no model has the name or tag `visoin` (of `visoin:x=1`)");
        assert_eq!(error.hint(), "did you mean `vision`?");
        let short = select(&cards(), &["model1"]).unwrap_err();
        assert!(short.hint().starts_with("did you mean `d/model1` or `e/model1`"), "{}", short.hint());
        let far = select(&cards(), &["zzzzzz"]).unwrap_err();
        assert_eq!(
            (far.to_string().as_str(), far.hint().contains("discover")),
            ("no model has the name or tag `zzzzzz`", true)
        );
        assert!(select(&cards(), &["x/"]).is_err());
    }

    #[test]
    fn a_tag_of_colons_only_is_an_error_and_no_crash() {
        for tag in [":", "::", " : ", ""] {
            let error = select(&cards(), &[tag]).unwrap_err();
            assert!(matches!(error, SelectError::Empty { .. }) && !error.hint().is_empty(), "{tag}");
        }
    }

    #[test]
    fn values_are_split_at_commas_in_order_and_not_deduplicated() {
        assert_eq!(split_tags(&["a, b", ",,", "c", " a "]), ["a", "b", "c", "a"]);
    }

    proptest! {
        #[test]
        fn no_tag_makes_it_panic(tags in prop::collection::vec("[mnd/:=, éa-c1]{0,12}", 0..4)) {
            let _ = select(&cards(), &split_tags(&tags));
        }
    }
}
