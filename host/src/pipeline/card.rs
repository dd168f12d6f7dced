//! One model of the tree, as discovery found it. The card is the author's: fields that nobody here knows stay as they are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{ConfigError, scalar_text, words};

/// One model card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Unique; `directory/name` where a directory of the scripts declared it.
    pub name: String,
    /// What selection looks at, besides the name.
    pub tags: Vec<String>,
    /// The file that declared it, relative to the tree.
    pub source: String,
    /// The discovery plugin that found it.
    pub plugin: String,
    /// The whole card.
    pub model: Value,
}

impl Card {
    /// A field as text: texts, numbers and booleans; none where it is absent, null or blank.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        self.model.get(field).and_then(scalar_text).filter(|text| !text.trim().is_empty())
    }

    /// A field as a number, also when it is written as text.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        match self.model.get(field)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// A field as a list: a list of scalars, or a text with commas. Blank pieces are dropped.
    #[must_use]
    pub fn list(&self, field: &str) -> Vec<String> {
        let pieces: Vec<String> = match self.model.get(field) {
            Some(Value::Array(items)) => items.iter().filter_map(scalar_text).collect(),
            Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        pieces.iter().map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
    }

    /// Whether a field is true; the text `true` counts, whatever its case.
    #[must_use]
    pub fn flag(&self, field: &str) -> bool {
        match self.model.get(field) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text.trim().eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    /// `args` as the text that is reported; absent is empty, a list becomes a text that splits into it again.
    #[must_use]
    pub fn args(&self) -> String {
        match self.model.get("args") {
            Some(Value::Array(items)) => words::join(&items.iter().filter_map(scalar_text).collect::<Vec<_>>()),
            Some(value) => scalar_text(value).unwrap_or_default(),
            None => String::new(),
        }
    }

    /// `args` as words.
    ///
    /// # Errors
    /// A quote in it is not closed.
    pub fn arguments(&self) -> Result<words::Words, ConfigError> {
        words::split(&self.args(), &format!("args of model `{}`", self.name))
            .map_err(|error| error.on_key(format!("{}.args", self.name)))
    }

    /// Replaces `args`.
    pub fn set_args(&mut self, args: String) {
        if let Value::Object(model) = &mut self.model {
            model.insert("args".to_owned(), Value::String(args));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card(model: Value) -> Card {
        Card { name: "m".into(), tags: vec![], source: "models.json".into(), plugin: "p".into(), model }
    }

    #[test]
    fn fields_are_read_in_every_spelling_that_authors_use() {
        let card = card(
            json!({"n": "-1", "t": 7200, "b": true, "s": "True", "l": " a, ,b", "m": ["a ", 1], "z": "", "x": null}),
        );
        assert_eq!(
            (card.text("n").as_deref(), card.text("t").as_deref(), card.text("z")),
            (Some("-1"), Some("7200"), None)
        );
        assert_eq!(
            (card.number("n"), card.number("t"), card.number("l"), card.number("x")),
            (Some(-1.0), Some(7200.0), None, None)
        );
        assert_eq!(
            (card.list("l"), card.list("m"), card.list("x")),
            (vec!["a".into(), "b".into()], vec!["a".into(), "1".into()], vec![])
        );
        assert!(card.flag("b") && card.flag("s") && !card.flag("n"));
    }

    #[test]
    fn args_are_words_and_missing_ones_are_none() {
        assert_eq!(card(json!({})).arguments().unwrap().words, [""; 0]);
        assert_eq!(card(json!({"args": "--a 'b c'"})).arguments().unwrap().words, ["--a", "b c"]);
        assert_eq!(card(json!({"args": ["--a", "b c"]})).arguments().unwrap().words, ["--a", "b c"]);
        let error = card(json!({"args": "--a 'b"})).arguments().unwrap_err();
        assert!(error.to_string().starts_with("args of model `m`: "), "{error}");
    }
}
