//! `secrets`: names in, never bytes out. The host puts a secret where a call says it must appear.
//!
//! Names are paths into what the site has: `credential/NAME/MEMBER` of `credential.json`, `env/NAME` of the environment.

use std::collections::BTreeMap;

use maddock_bindings::api::secrets;
use serde_json::Value;

use super::Answer;
use super::gate::{Call, Capability};
use crate::plugin::State;

/// The `secrets` interface.
#[derive(Debug)]
pub enum Secrets {}

impl Capability for Secrets {
    const NAME: &'static str = "secrets";
}

/// What this invocation knows. `Debug` shows names only.
#[derive(Default)]
pub struct SecretStore {
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl SecretStore {
    /// Adds every scalar of a JSON object under `prefix/…`.
    pub fn add_object(&mut self, prefix: &str, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.add_object(&format!("{prefix}/{name}"), member);
                }
            }
            Value::String(text) => {
                self.values.insert(prefix.to_owned(), text.clone());
            }
            Value::Number(_) | Value::Bool(_) => {
                self.values.insert(prefix.to_owned(), value.to_string());
            }
            Value::Null | Value::Array(_) => {}
        }
    }

    /// Adds one secret.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// The bytes, for host code that puts them where they must appear.
    #[must_use]
    pub fn reveal(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether there is such a secret, or a group of secrets of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name) || !self.members(name).is_empty()
    }

    /// The names right below a group.
    #[must_use]
    pub fn members(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name}/");
        let mut members: Vec<String> = self
            .values
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        members.dedup();
        members
    }

    /// Every value, longest first, for the redaction net.
    #[must_use]
    pub fn values(&self) -> Vec<&str> {
        let mut values: Vec<&str> = self.values.values().map(String::as_str).filter(|value| value.len() >= 6).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }
}

impl secrets::Host for State {
    async fn available(&mut self, name: String) -> Answer<bool> {
        let permit = match self.gate.permit(Call::<Secrets>::new("available").on("secret", &name)) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(permit.finish(Ok(self.context.secrets.contains(&name))))
    }

    async fn members(&mut self, name: String) -> Answer<Vec<String>> {
        let permit = match self.gate.permit(Call::<Secrets>::new("members").on("secret", &name)) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(permit.finish(Ok(self.context.secrets.members(&name))))
    }
}
