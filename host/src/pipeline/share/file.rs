//! The file's format, version 1. A member that is not known is an error: a newer program wrote it.

use std::path::{Path, PathBuf};

use maddock_bindings::api::types::{self, Entry, EnvValue, EnvVar};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::plugin::jobs;

/// The version that this program writes and reads.
const VERSION: u64 = 1;

/// A file that is none.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Another program's.
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(String),
    /// Not JSON, or not of the format.
    #[error("it is no job file: {0}")]
    Malformed(String),
}

/// What a node reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    #[serde(rename = "version")]
    _version: u64,
    /// The working directory of the invocation that the job belongs to.
    pub output: PathBuf,
    /// Policy files of its command line: a node allows no more than the invocation did.
    pub policies: Vec<PathBuf>,
    /// The job.
    pub job: Job,
    /// How nodes take part.
    pub node: Orders,
}

/// What the target adds: nothing in it is known to the kernel by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// The target that runs each node's share.
    pub target: String,
    /// The variable that holds the node's number.
    pub rank: String,
    /// Variables of which the first that is set holds the machine's name.
    #[serde(default)]
    pub host: Vec<String>,
    /// Each node's own directory is in it, under its number.
    pub directory: PathBuf,
    /// A file that a node makes when it fails, which ends the others.
    #[serde(default)]
    pub failed: Option<PathBuf>,
    /// Seconds within which every node has to have begun; none: nobody looks.
    #[serde(default)]
    pub begin_within: Option<u64>,
    /// The variable that holds the machines' names in the order of their numbers, with commas; empty: they have only numbers.
    #[serde(default)]
    pub machines: String,
    /// Variables of which the first that names a directory says where a node's own disk is.
    #[serde(default)]
    pub scratch: Vec<String>,
    /// Variables of which the first that is set lists the devices that this job may use on the node.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Whether a node looks at itself first.
    #[serde(default)]
    pub check: bool,
    /// Variables for the job, each with a `value` or with the `variable` that holds it on the node.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// The same for single nodes, by number.
    #[serde(default)]
    pub by_node: Vec<Vec<Variable>>,
    /// Names of secrets, with the variables that hold them.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Container profile, where the job names none.
    #[serde(default)]
    pub profile: String,
    /// The image as nodes find it, in the place of the job's own.
    #[serde(default)]
    pub image: Option<Image>,
    /// More for the inner target.
    #[serde(default)]
    pub extra: Vec<Pair>,
}

/// A variable of the job.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Variable {
    /// Known already.
    Known {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Known on the node.
    There {
        /// Its name.
        name: String,
        /// The node's variable that holds the value; empty where that is not set.
        variable: String,
    },
}

/// Where a secret's value is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The secret's name.
    pub name: String,
    /// The variable that holds it.
    pub variable: String,
}

/// A named text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// See `types.image`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the interface")]
pub struct Image {
    pub reference: String,
    pub digest: Option<String>,
    pub registry_reference: Option<String>,
    pub local: bool,
}

/// See `target.job`; what does not go along is left out: devices are each node's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the interface")]
pub struct Job {
    pub run_id: String,
    pub id: String,
    pub model: String,
    pub card: Value,
    pub image: Option<Image>,
    pub nodes: u32,
    pub processes_per_node: u32,
    pub gpus_per_node: u32,
    pub launcher: String,
    pub main_port: u16,
    pub roles: Vec<Role>,
    pub script: Script,
    pub env: Vec<Env>,
    pub time_limit: Option<u64>,
    pub workspace: PathBuf,
    pub work_directory: String,
    pub profile: String,
    pub skip_model: bool,
    pub collect: Vec<String>,
    pub config: Value,
}

/// See `target.node-role`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the interface")]
pub struct Role {
    pub node: u32,
    pub name: String,
    pub env: Vec<Pair>,
    pub command: Option<Vec<String>>,
}

/// See `target.script`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the interface")]
pub struct Script {
    pub interpreter: Vec<String>,
    pub file: String,
    pub arguments: Vec<String>,
    pub encapsulate: String,
    pub before: Vec<Hook>,
    pub after: Vec<Hook>,
    pub clone_url: Option<String>,
}

/// See `target.hook`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the interface")]
pub struct Hook {
    pub file: String,
    pub arguments: Vec<String>,
}

/// A variable of the job: its value, or the name of a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Env {
    /// A plain value.
    Text {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A secret by its name.
    Secret {
        /// Its name.
        name: String,
        /// The secret's.
        secret: String,
    },
}

impl Share {
    /// Reads a file's text.
    ///
    /// # Errors
    /// It is of another version, or no job file at all.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let value: Value = serde_json::from_str(text).map_err(|error| ShareError::Malformed(error.to_string()))?;
        match value.get("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(version) => return Err(ShareError::Version(version.to_string())),
            None => return Err(ShareError::Malformed("it says no version".to_owned())),
        }
        serde_json::from_value(value).map_err(|error| ShareError::Malformed(error.to_string()))
    }
}

/// The file's text as the kernel begins it.
#[must_use]
pub fn text_of(job: &jobs::Job, output: &Path, policies: &[PathBuf]) -> String {
    // What was JSON text is JSON here: a person reads this file, too.
    let inner = |text: &str| serde_json::from_str(text).unwrap_or(Value::Object(Map::new()));
    let described = Job {
        run_id: job.run_id.clone(),
        id: job.id.clone(),
        model: job.model.clone(),
        card: inner(&job.card),
        image: job.image.clone().map(Image::from),
        nodes: job.topology.nodes,
        processes_per_node: job.topology.processes_per_node,
        gpus_per_node: job.topology.gpus_per_node,
        launcher: job.topology.launcher.clone(),
        main_port: job.topology.main_port,
        roles: job.topology.roles.iter().cloned().map(Role::from).collect(),
        script: Script::from(job.script.clone()),
        env: job.env.iter().cloned().map(Env::from).collect(),
        time_limit: job.time_limit,
        workspace: PathBuf::from(&job.paths.workspace),
        work_directory: job.paths.work_directory.clone(),
        profile: job.profile.clone(),
        skip_model: job.options.contains(jobs::JobOptions::SKIP_MODEL),
        collect: job.collect.clone(),
        config: inner(&job.config),
    };
    json!({"version": VERSION, "output": output, "policies": policies, "job": described}).to_string()
}

impl From<types::Image> for Image {
    fn from(image: types::Image) -> Self {
        let types::Image { reference, digest, registry_reference, local } = image;
        Self { reference, digest, registry_reference, local }
    }
}

impl From<Image> for types::Image {
    fn from(image: Image) -> Self {
        let Image { reference, digest, registry_reference, local } = image;
        Self { reference, digest, registry_reference, local }
    }
}

impl From<Entry> for Pair {
    fn from(entry: Entry) -> Self {
        Self { name: entry.name, value: entry.value }
    }
}

impl From<Pair> for Entry {
    fn from(pair: Pair) -> Self {
        Self { name: pair.name, value: pair.value }
    }
}

impl From<jobs::NodeRole> for Role {
    fn from(role: jobs::NodeRole) -> Self {
        let jobs::NodeRole { node, name, env, command } = role;
        Self { node, name, env: env.into_iter().map(Pair::from).collect(), command }
    }
}

impl From<Role> for jobs::NodeRole {
    fn from(role: Role) -> Self {
        let Role { node, name, env, command } = role;
        Self { node, name, env: env.into_iter().map(Entry::from).collect(), command }
    }
}

impl From<jobs::Script> for Script {
    fn from(script: jobs::Script) -> Self {
        let hook = |hook: jobs::Hook| Hook { file: hook.file, arguments: hook.arguments };
        Self {
            interpreter: script.interpreter,
            file: script.file,
            arguments: script.arguments,
            encapsulate: script.encapsulate,
            before: script.before.into_iter().map(hook).collect(),
            after: script.after.into_iter().map(hook).collect(),
            clone_url: script.clone_url,
        }
    }
}

impl From<Script> for jobs::Script {
    fn from(script: Script) -> Self {
        let hook = |hook: Hook| jobs::Hook { file: hook.file, arguments: hook.arguments };
        Self {
            interpreter: script.interpreter,
            file: script.file,
            arguments: script.arguments,
            encapsulate: script.encapsulate,
            before: script.before.into_iter().map(hook).collect(),
            after: script.after.into_iter().map(hook).collect(),
            clone_url: script.clone_url,
        }
    }
}

impl From<EnvVar> for Env {
    fn from(variable: EnvVar) -> Self {
        let EnvVar { name, value } = variable;
        match value {
            EnvValue::Text(value) => Self::Text { name, value },
            EnvValue::Secret(secret) => Self::Secret { name, secret },
        }
    }
}

impl From<Env> for EnvVar {
    fn from(variable: Env) -> Self {
        match variable {
            Env::Text { name, value } => Self { name, value: EnvValue::Text(value) },
            Env::Secret { name, secret } => Self { name, value: EnvValue::Secret(secret) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_version_is_told_from_one_that_is_none() {
        assert!(matches!(Share::parse(r#"{"version": 2}"#), Err(ShareError::Version(_))));
        for text in ["", "[]", "{}", r#"{"version": 1}"#, r#"{"version": 1, "output": "/", "job": {}, "node": {}}"#] {
            assert!(matches!(Share::parse(text), Err(ShareError::Malformed(_))), "{text}");
        }
    }
}
