//! The `distributed` section, read with the key of what is wrong in it.

use maddock_sdk::serde_json::{self, Map, Value};
use maddock_sdk::types::Error;
use maddock_sdk::{Result, invalid};

/// A section, and its name in messages.
#[derive(Debug)]
pub struct Settings {
    key: String,
    members: Map<String, Value>,
}

impl Settings {
    /// Reads a `distributed` section.
    ///
    /// # Errors
    /// It is not an object.
    pub fn read(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the section `distributed` is not JSON: {error}")))?;
        Self::of("distributed".to_owned(), Some(&value))
    }

    fn of(key: String, value: Option<&Value>) -> Result<Self> {
        match value {
            None | Some(Value::Null) => Ok(Self { key, members: Map::new() }),
            Some(Value::Object(members)) => Ok(Self { key, members: members.clone() }),
            Some(other) => Err(wrong(&key, other, "an object")),
        }
    }

    /// The name of a member, as a user writes it.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }

    /// A section in it; empty where there is none.
    ///
    /// # Errors
    /// It is not an object.
    pub fn section(&self, name: &str) -> Result<Self> {
        Self::of(self.key(name), self.members.get(name))
    }

    /// A whole number from 1 on.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&self, name: &str) -> Result<Option<u32>> {
        let value = match self.members.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(&self.key(name), value, "a whole number from 1 on")),
        }
    }

    /// A text; a list of words stands for them with blanks between.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        let text = match self.members.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(list @ Value::Array(words)) => {
                let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
                words.ok_or_else(|| wrong(&self.key(name), list, "a text"))?.join(" ")
            }
            Some(other) => return Err(wrong(&self.key(name), other, "a text")),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Yes or no; no where nothing is said.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(&self.key(name), other, "true or false")),
        }
    }
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    invalid(format!("`{key}` is {value}, and {expected} is expected"))
        .hint(format!("set `{key}` to {expected}, or leave it out"))
        .detail("key", key)
}
