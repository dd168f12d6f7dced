//! placeholder until merged
#[derive(Debug, Clone)]
pub struct Card { pub name: String, pub tags: Vec<String>, pub source: String, pub plugin: String, pub model: serde_json::Value }
