//! A value that is the name of a secret. The bytes never enter a configuration: the host puts them where they must appear.

use serde_json::{Value, json};

/// What the names of the variables hold that are secrets by contract.
const MARK: &str = "MAD_SECRETS";

/// The name of a secret, standing where its value would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretReference {
    /// A path into what the secret store has, such as `env/NAME`.
    pub name: String,
}

impl SecretReference {
    /// The secret that a variable of the invoking shell holds.
    #[must_use]
    pub fn of_variable(variable: &str) -> Self {
        Self { name: format!("env/{variable}") }
    }

    /// Reads `{"secret": "…"}`; any other value is not a reference.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let members = value.as_object().filter(|members| members.len() == 1)?;
        let name = members.get("secret")?.as_str()?;
        Some(Self { name: name.to_owned() })
    }

    /// As it stands in a configuration.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({ "secret": self.name })
    }
}

/// Whether a variable of that name is a secret by contract.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    name.contains(MARK)
}

/// Removes what may not be written down: members with the name of a secret, and references.
pub fn scrub(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, member| !is_secret_name(name) && SecretReference::read(member).is_none());
            members.values_mut().for_each(scrub);
        }
        Value::Array(items) => {
            items.retain(|item| SecretReference::read(item).is_none());
            items.iter_mut().for_each(scrub);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_back() {
        let reference = SecretReference::of_variable("MAD_SECRETS_TOKEN");
        assert_eq!(SecretReference::read(&reference.to_value()), Some(reference));
        assert_eq!(SecretReference::read(&json!({"secret": "a", "other": 1})), None);
    }

    #[test]
    fn secrets_are_scrubbed_wherever_they_stand() {
        let mut value = json!({
            "a": {"X_MAD_SECRETS_Y": "bytes", "kept": 1, "t": {"secret": "env/T"}},
            "l": [{"secret": "env/T"}, {"MAD_SECRETS": "bytes", "kept": 2}],
        });
        scrub(&mut value);
        assert_eq!(value, json!({"a": {"kept": 1}, "l": [{"kept": 2}]}));
    }
}
