//! What a run is configured with, and where each value came from.
//!
//! `literal` reads text, `schema` knows keys and their types (as data, from `presets/`), `effective` lays the layers over
//! each other and remembers the origin of every leaf, `presets` lays under them what a target's jobs start from. `gpus`, `words` and `tools` turn configured values into what a job
//! needs. Nothing here acts: the only effect is reading the file that the user named. It must never hold the bytes of a
//! secret and never name a vendor or a scheduler; those are words of the presets.

pub mod condition;
pub mod effective;
pub mod error;
pub mod gpus;
pub mod literal;
pub mod nearest;
pub mod origin;
pub mod path;
pub mod presets;
pub mod schema;
pub mod secret;
pub mod tools;
pub mod words;

pub use effective::{Effective, Inputs};
pub use error::{ConfigError, ConfigErrorKind};
pub use origin::Origin;
pub use path::KeyPath;
pub use schema::TargetKeys;
pub use secret::SecretReference;

use serde_json::Value;

/// A scalar as the text that an environment variable or build argument gets; none for objects, lists and null.
///
/// Booleans are `True` and `False`: what build files and scripts written for the predecessor compare with.
#[must_use]
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
