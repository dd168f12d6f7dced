//! From one declared model to a card: names get their scope, paths are taken from the tree, defaults are filled in.
//!
//! Members that discovery does not know are kept as they are written, in their order.

use maddock_sdk::serde_json::{self, Map, Value};
use maddock_sdk::types::{Card, Error};
use maddock_sdk::{Result, invalid};

/// One model as it is declared.
pub type Model = Map<String, Value>;

/// The file that declares models, relative to the tree, and the scope that it gives them.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Relative to the tree.
    pub source: &'a str,
    /// The directory of `scripts` whose models these are; none for the tree's own `models.json`.
    pub scope: Option<&'a str>,
}

impl Place<'_> {
    /// An error in this file, about entry `position` counted from 1.
    fn error(&self, position: usize, key: &str, message: String, hint: &str) -> Error {
        invalid(format!("`{}`, entry {position}: {message}", self.source))
            .hint(hint)
            .detail("file", self.source)
            .detail("entry", position.to_string())
            .detail("key", key)
    }
}

/// The cards of a `models.json`.
pub fn from_json(bytes: &[u8], place: Place<'_>) -> Result<Vec<Card>> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        invalid(format!("`{}` is not valid JSON: {error}", place.source))
            .hint("correct the file at that line and column")
            .detail("file", place.source)
            .detail("line", error.line().to_string())
            .detail("column", error.column().to_string())
    })?;
    let Value::Array(entries) = value else {
        return Err(invalid(format!("`{}` holds {}, not a list of models", place.source, kind(&value)))
            .hint("put the models into `[` and `]`")
            .detail("file", place.source));
    };
    let mut cards = Vec::with_capacity(entries.len());
    for (position, entry) in (1..).zip(entries) {
        let Value::Object(model) = entry else {
            let message = format!("this is {}, not a model", kind(&entry));
            return Err(place.error(position, "", message, "a model is an object with at least a `name`"));
        };
        let mut card = declared(model, place, position)?;
        if place.scope.is_some() {
            place_paths(&mut card.model, place);
        }
        cards.push(card.finish()?);
    }
    Ok(cards)
}

/// A card whose model is still data.
#[derive(Debug)]
pub struct Draft {
    name: String,
    tags: Vec<String>,
    source: String,
    model: Model,
}

impl Draft {
    /// The card.
    pub fn finish(self) -> Result<Card> {
        let Self { name, tags, source, model } = self;
        let model = write(&model)?;
        Ok(Card { name, tags, source, model })
    }
}

/// A model as JSON text.
pub fn write(model: &Model) -> Result<String> {
    serde_json::to_string(model).map_err(|error| maddock_sdk::failed(format!("a model cannot be written: {error}")))
}

/// Checks a model, scopes its name and fills in defaults. Paths stay as they are.
pub fn declared(mut model: Model, place: Place<'_>, position: usize) -> Result<Draft> {
    let name = match model.get_mut("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => {
            if let Some(scope) = place.scope {
                *name = format!("{scope}/{name}");
            }
            name.clone()
        }
        None => {
            return Err(place.error(position, "name", "the model has no `name`".to_owned(), "give it a `name`"));
        }
        Some(other) => {
            let message = format!("`name` is {}", if other.is_string() { "empty" } else { kind(other) });
            return Err(place.error(position, "name", message, "a name is a text that is not empty"));
        }
    };
    for key in ["dockerfile", "scripts"] {
        match model.get(key) {
            None | Some(Value::String(_)) => {}
            Some(other) => {
                let message = format!("`{key}` of model `{name}` is {}", kind(other));
                return Err(place.error(position, key, message, "write a path as text"));
            }
        }
    }
    match model.get("args") {
        Some(Value::String(_)) => {}
        None | Some(Value::Null) => {
            model.insert("args".to_owned(), Value::String(String::new()));
        }
        Some(other) => {
            let message = format!("`args` of model `{name}` is {}", kind(other));
            return Err(place.error(position, "args", message, "write the arguments as one text"));
        }
    }
    let tags = tags(model.get("tags")).map_err(|found| {
        let message = format!("`tags` of model `{name}` holds {found}");
        place.error(position, "tags", message, "write a list of texts, or one text with commas")
    })?;
    Ok(Draft { name, tags, source: place.source.to_owned(), model })
}

/// Tags as a list: a text is split at commas. The error says what was found instead.
fn tags(value: Option<&Value>) -> std::result::Result<Vec<String>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => {
            Ok(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        }
        Some(Value::Array(list)) => list
            .iter()
            .map(|tag| match tag {
                Value::String(tag) => Ok(tag.clone()),
                Value::Number(tag) => Ok(tag.to_string()),
                other => Err(kind(other)),
            })
            .collect(),
        Some(other) => Err(kind(other)),
    }
}

/// Takes the paths of a scoped model, which are relative to its directory, from the tree.
///
/// Empty `scripts` mean the directory itself, whose `run.sh` is run; an empty `dockerfile` means none.
pub fn place_paths(model: &mut Model, place: Place<'_>) {
    let Some(scope) = place.scope else { return };
    for key in ["dockerfile", "scripts"] {
        if let Some(Value::String(path)) = model.get_mut(key)
            && !(path.is_empty() && key == "dockerfile")
        {
            *path = normalised(scope, path);
        }
    }
}

/// `scripts/<scope>/<path>` without `.`, `..` and empty segments. A path that leads out of the tree keeps its leading
/// `..`, and an absolute one stays absolute: whoever opens it refuses it with its name.
fn normalised(scope: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("scripts/{scope}/{path}") };
    let mut segments: Vec<&str> = Vec::new();
    for segment in joined.split('/') {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_some_and(|last| *last != "..") => {
                segments.pop();
            }
            ".." if joined.starts_with('/') => {}
            other => segments.push(other),
        }
    }
    match (joined.starts_with('/'), segments.is_empty()) {
        (true, _) => format!("/{}", segments.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => segments.join("/"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use maddock_sdk::types::ErrorKind;

    use super::*;

    const ROOT: Place<'static> = Place { source: "models.json", scope: None };
    const SCOPED: Place<'static> = Place { source: "scripts/bert/models.json", scope: Some("bert") };

    fn detail<'a>(error: &'a Error, name: &str) -> Option<&'a str> {
        error.details.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
    }

    #[test]
    fn paths_of_a_scoped_model_are_taken_from_the_tree() {
        for (path, expected) in [
            ("run.sh", "scripts/bert/run.sh"),
            ("../../docker/dummy", "docker/dummy"),
            ("./a//b/../run.sh", "scripts/bert/a/run.sh"),
            ("", "scripts/bert"),
            ("..", "scripts"),
            ("../..", "."),
            ("../../../outside", "../outside"),
            ("../../../../x", "../../x"),
            ("/abs/../file", "/file"),
            ("/../../etc", "/etc"),
        ] {
            assert_eq!(normalised("bert", path), expected, "{path}");
        }
    }

    #[test]
    fn a_model_of_the_root_stays_as_it_is_written_but_for_defaults() {
        let cards = from_json(
            br#"[{"name": "dummy", "scripts": "scripts/../x/run.sh", "zebra": {"b": 1, "a": 2}, "tags": " a, b ,,c"}]"#,
            ROOT,
        )
        .unwrap();
        assert_eq!(cards.len(), 1);
        assert_eq!(cards[0].tags, ["a", "b", "c"]);
        assert_eq!(
            cards[0].model,
            r#"{"name":"dummy","scripts":"scripts/../x/run.sh","zebra":{"b":1,"a":2},"tags":" a, b ,,c","args":""}"#
        );
    }

    #[test]
    fn a_scoped_model_bears_its_directory_in_its_name() {
        let cards = from_json(
            br#"[{"name": "base", "dockerfile": "../../docker/bert", "scripts": "run.sh", "tags": ["x", 7]}]"#,
            SCOPED,
        )
        .unwrap();
        assert_eq!(cards[0].name, "bert/base");
        assert_eq!(cards[0].tags, ["x", "7"]);
        assert_eq!(cards[0].source, "scripts/bert/models.json");
        let model: Model = serde_json::from_str(&cards[0].model).unwrap();
        assert_eq!(model["name"], "bert/base");
        assert_eq!(model["dockerfile"], "docker/bert");
        assert_eq!(model["scripts"], "scripts/bert/run.sh");
    }

    #[test]
    fn an_empty_dockerfile_stays_empty() {
        let cards = from_json(br#"[{"name": "m", "dockerfile": "", "scripts": ""}]"#, SCOPED).unwrap();
        let model: Model = serde_json::from_str(&cards[0].model).unwrap();
        assert_eq!(model["dockerfile"], "");
        assert_eq!(model["scripts"], "scripts/bert");
    }

    #[test]
    fn malformed_json_is_told_with_file_line_and_column() {
        let error = from_json(b"[\n  {\"name\": \"a\"},\n  {\"name\": oops}\n]", ROOT).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert_eq!(detail(&error, "file"), Some("models.json"));
        assert_eq!(detail(&error, "line"), Some("3"));
        assert_eq!(detail(&error, "column"), Some("12"));
        assert!(error.message.contains("line 3 column 12"), "{}", error.message);
    }

    #[test]
    fn a_model_that_is_none_is_told_by_its_position_and_key() {
        for (text, key, word) in [
            (r#"[{"name": "a"}, 7]"#, "", "a number, not a model"),
            (r#"[{"name": "a"}, {}]"#, "name", "has no `name`"),
            (r#"[{"name": "a"}, {"name": " "}]"#, "name", "is empty"),
            (r#"[{"name": "a"}, {"name": 5}]"#, "name", "a number"),
            (r#"[{"name": "a"}, {"name": "b", "args": 5}]"#, "args", "`args` of model `b` is a number"),
            (r#"[{"name": "a"}, {"name": "b", "scripts": []}]"#, "scripts", "a list"),
            (r#"[{"name": "a"}, {"name": "b", "tags": {"x": 1}}]"#, "tags", "an object"),
            (r#"[{"name": "a"}, {"name": "b", "tags": [null]}]"#, "tags", "null"),
        ] {
            let error = from_json(text.as_bytes(), ROOT).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidInput, "{text}");
            assert_eq!(detail(&error, "entry"), Some("2"), "{text}");
            assert_eq!(detail(&error, "key"), Some(key), "{text}");
            assert!(error.message.contains(word), "{}", error.message);
            assert!(error.hint.is_some());
        }
        let error = from_json(b"{}", ROOT).unwrap_err();
        assert!(error.message.contains("an object, not a list"), "{}", error.message);
    }

    #[test]
    fn a_byte_order_mark_and_an_empty_list_are_fine() {
        assert!(from_json(b"\xef\xbb\xbf[]", ROOT).unwrap().is_empty());
    }
}
