//! From a model card, an image and the effective configuration to one job for one target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use maddock_bindings::api::types::{self, Entry, EnvValue, EnvVar};
use serde_json::{Map, Value};

use super::card::Card;
use super::image::Image;
use super::stage::Script;
use crate::config::{SecretReference, scalar_text};
use crate::plugin::accelerators::Inventory;
use crate::plugin::jobs::{Hook, Job, JobOptions, JobPaths, NodeRole, Script as JobScript, Topology};
use crate::plugin::{Environment, launch};

/// Variables of the invoking shell that jobs get where they are set: `everywhere`, or only `here`, on this machine, where they say
/// something of this machine or of a place within a job.
const PASSTHROUGH: &str = include_str!("../../../presets/passthrough.json");
/// Variables that go with one of those, where the shell does not set them itself.
const IMPLIED: &str = include_str!("../../../presets/implied.json");
/// Where jobs meet on node 0 unless the configuration says otherwise: the default of the field's launchers.
const MAIN_PORT: u16 = 29500;
/// Node 0 of several, as the launcher interface lets it be said: targets know it by this name.
const MAIN_ADDRESS: &str = "$MADDOCK_MAIN_NODE";
/// The role that runs once for the whole job, in the words of the launcher interface.
pub(crate) const ROLE_OF_ALL: &str = "batch";
/// The role of nodes that work each for itself, in the same words.
pub(crate) const ROLE_OF_REPLICAS: &str = "replica";
/// Results that are brought back from the work directory besides the model's own results file.
const RESULT_PATTERNS: [&str; 5] =
    ["*_profiler_output.csv", "*_output.csv", "*_trace.csv", "library_trace.csv", "*_env.csv"];
/// The work directory where the model has no repository.
pub const WORK_DIRECTORY: &str = "run_directory";

/// The hooks, shell fragment and variables that tools and context add to one model.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// Before the model.
    pub before: Vec<Hook>,
    /// After the model.
    pub after: Vec<Hook>,
    /// In front of its command.
    pub encapsulate: String,
    /// Variables.
    pub env: Vec<(String, String)>,
}

/// What one job is made from.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The run's id.
    pub run_id: &'a str,
    /// The job's id.
    pub id: &'a str,
    /// The model.
    pub card: &'a Card,
    /// Its image.
    pub image: Option<&'a Image>,
    /// The effective configuration.
    pub config: &'a Value,
    /// What of it somebody said.
    pub said: &'a Value,
    /// What of it only presets say.
    pub presets: &'a Value,
    /// The invoking shell's.
    pub environment: &'a Environment,
    /// Names of secrets that the job gets as variables.
    pub secret_names: &'a [String],
    /// This machine's accelerators, where the target uses them.
    pub inventory: Option<&'a Inventory>,
    /// What the selected ones need.
    pub attachment: Option<types::Attachment>,
    /// How the launcher arranges it.
    pub arrangement: &'a launch::Arrangement,
    /// Its topology.
    pub topology: &'a launch::Topology,
    /// The script.
    pub script: &'a Script,
    /// The script's arguments.
    pub arguments: Vec<String>,
    /// Of tools and context.
    pub additions: Additions,
    /// The model tree.
    pub tree: &'a Path,
    /// The job's directory.
    pub directory: &'a Path,
    /// Seconds.
    pub time_limit: Option<u64>,
    /// Container profile, empty for the target's default.
    pub profile: &'a str,
    /// What the command line asked for.
    pub options: JobOptions,
    /// Whether the job is deployed to another place, by its target or by its own script.
    pub elsewhere: bool,
}

/// A text member of a card or context; numbers and booleans count as their text.
#[must_use]
pub fn text(object: &Value, name: &str) -> String {
    match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => String::new(),
    }
}

/// The work directory's name: the last segment of the model's repository, without a slash at its end.
#[must_use]
pub fn work_directory(card: &Card) -> String {
    let url = text(&card.model, "url");
    let last = url.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." { WORK_DIRECTORY.to_owned() } else { last.to_owned() }
}

/// The launcher that was asked for, by context, card, variable or preset; none where nobody did.
#[must_use]
pub fn launcher(card: &Card, said: &Value, presets: &Value, environment: &Environment) -> Option<String> {
    let named = |object: &Value| {
        object.get("distributed").map(|section| text(section, "launcher")).filter(|name| !name.is_empty())
    };
    named(said)
        .or_else(|| named(&card.model))
        .or_else(|| environment.get("MAD_LAUNCHER").filter(|name| !name.is_empty()).map(str::to_owned))
        .or_else(|| named(presets))
}

/// How many nodes a job on a target with several gets: by `distributed.nnodes`, else by the target's own section; as the
/// configuration says, else the card, else a preset.
///
/// # Errors
/// The number is none.
pub fn nodes(said: &Value, card: &Card, presets: &Value, sections: &[&str]) -> Result<u32, String> {
    let keys = || std::iter::once(("distributed", "nnodes")).chain(sections.iter().map(|section| (*section, "nodes")));
    let places = [said, &card.model, presets].into_iter().flat_map(|object| keys().map(move |key| (object, key)));
    for (object, (section, key)) in places {
        let value = match object.get(section).and_then(|section| section.get(key)) {
            None | Some(Value::Null) => continue,
            Some(value) => value,
        };
        return whole(value)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("`{section}.{key}` is {value}, which is no number of nodes"));
    }
    Ok(1)
}

/// What a topology is made from besides the card and the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The launcher's name, as it was given.
    pub launcher: &'a str,
    /// The job's id.
    pub job: &'a str,
    /// How many nodes.
    pub nodes: u32,
    /// Devices on each.
    pub devices: u32,
    /// Whether the configuration says how many processes a node has. On this machine there are as many as devices.
    pub elsewhere: bool,
}

/// The topology of a job. A node has as many processes as the configuration says, else as it has devices, 1 where it has
/// none. Where several nodes meet is not known before they are chosen: a reference stands for it.
#[must_use]
pub fn topology(card: &Card, said: &Value, presets: &Value, script: &Script, asked: Asked<'_>) -> launch::Topology {
    let mut section = Value::Object(serde_json::Map::new());
    for object in [presets, &card.model, said] {
        if let Some(own @ Value::Object(_)) = object.get("distributed") {
            overlay(&mut section, own);
        }
    }
    let processes = section
        .get("nproc_per_node")
        .and_then(whole)
        .and_then(|processes| u32::try_from(processes).ok())
        .filter(|processes| *processes > 0 && asked.elsewhere);
    let plain = |(name, value): (&String, &Value)| {
        let text = SecretReference::read(value).is_none().then(|| scalar_text(value)).flatten()?;
        Some(Entry { name: name.clone(), value: text })
    };
    launch::Topology {
        launcher: asked.launcher.to_owned(),
        nodes: asked.nodes,
        processes_per_node: processes.unwrap_or(asked.devices.max(1)),
        gpus_per_node: asked.devices,
        main_address: if asked.nodes > 1 { MAIN_ADDRESS.to_owned() } else { "localhost".to_owned() },
        main_port: port(said, card, presets).unwrap_or(MAIN_PORT),
        model: card.name.clone(),
        job: asked.job.to_owned(),
        config: section.to_string(),
        program: launch::Program { interpreter: script.interpreter.clone(), file: script.file.clone() },
        env: given(&card.model, said, asked.elsewhere).flatten().filter_map(plain).collect(),
        extra: Vec::new(),
    }
}

/// Where nodes meet, by either name: as the configuration says, else the card, else a preset.
fn port(said: &Value, card: &Card, presets: &Value) -> Option<u16> {
    let sections = [said, &card.model, presets].into_iter().filter_map(|object| object.get("distributed"));
    let named = sections.flat_map(|section| ["port", "master_port"].map(|name| section.get(name))).flatten();
    named.filter_map(whole).find_map(|port| u16::try_from(port).ok().filter(|port| *port > 0))
}

/// A whole number, also one that is written as a text.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Lays one object over another: objects in it are laid over each other, everything else replaces.
fn overlay(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (name, value) in above.iter().filter(|(_, value)| !value.is_null()) {
                overlay(below.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => above.clone_into(below),
    }
}

/// The maps of variables that the card and whoever made the configuration give a job: a later one wins. By contract
/// `env_vars` are for jobs that run `elsewhere`, not for those of this machine.
fn given<'a>(model: &'a Value, said: &'a Value, elsewhere: bool) -> impl Iterator<Item = &'a Map<String, Value>> {
    let deployed = [model.get("env_vars"), said.get("env_vars")].into_iter().filter(move |_| elsewhere);
    deployed.chain([said.get("docker_env_vars")]).flatten().filter_map(Value::as_object)
}

/// Puts a job together.
#[must_use]
pub fn assemble(ingredients: Ingredients<'_>) -> Job {
    let env = environment(&ingredients);
    let settled: Vec<&str> = settled_names(&ingredients);
    let Ingredients { card, arrangement, topology, script, directory, .. } = ingredients;
    let roles = arrangement
        .roles
        .iter()
        .map(|role| NodeRole {
            node: role.node,
            name: role.name.clone(),
            env: role.env.iter().filter(|entry| !settled.contains(&entry.name.as_str())).cloned().collect(),
            command: role.command.clone(),
        })
        .collect();
    let results = text(&card.model, "multiple_results");
    let collect = RESULT_PATTERNS
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .chain(Some(results).filter(|name| !name.is_empty()))
        .collect();
    Job {
        run_id: ingredients.run_id.to_owned(),
        id: ingredients.id.to_owned(),
        model: card.name.clone(),
        card: card.model.to_string(),
        image: ingredients.image.map(|image| types::Image {
            reference: image.docker_image.clone(),
            digest: image.image_digest.clone(),
            registry_reference: image.registry_image.clone(),
            local: image.local_image,
        }),
        topology: Topology {
            nodes: topology.nodes,
            processes_per_node: topology.processes_per_node,
            gpus_per_node: topology.gpus_per_node,
            launcher: arrangement.name.clone(),
            main_port: topology.main_port,
            roles,
        },
        script: JobScript {
            interpreter: script.interpreter.clone(),
            file: script.file.clone(),
            arguments: ingredients.arguments,
            encapsulate: ingredients.additions.encapsulate,
            before: ingredients.additions.before,
            after: ingredients.additions.after,
            clone_url: Some(text(&card.model, "url")).filter(|url| !url.is_empty()),
        },
        env,
        accelerators: ingredients.attachment,
        time_limit: ingredients.time_limit,
        paths: JobPaths {
            directory: directory.display().to_string(),
            workspace: workspace(directory).display().to_string(),
            work_directory: work_directory(card),
            tree: ingredients.tree.display().to_string(),
        },
        profile: ingredients.profile.to_owned(),
        options: ingredients.options,
        collect,
        config: ingredients.config.to_string(),
        extra: Vec::new(),
    }
}

/// Where a job has a NUL character: it ends a text for every program, and what is behind it would be lost in silence.
#[must_use]
pub fn nul(job: &Job) -> Option<String> {
    let has = |variable: &&EnvVar| {
        variable.name.contains('\0') || matches!(&variable.value, EnvValue::Text(text) if text.contains('\0'))
    };
    if let Some(variable) = job.env.iter().find(has) {
        return Some(format!("the variable `{}`", variable.name.escape_debug()));
    }
    let arguments = job.script.arguments.iter().chain(job.script.before.iter().flat_map(|hook| &hook.arguments));
    let place = arguments.into_iter().any(|argument| argument.contains('\0'));
    place.then(|| "`args`".to_owned())
}

/// How many nodes report an outcome: those that have a role, of which there may be one for the whole job.
#[must_use]
pub fn reporting_nodes(job: &Job) -> u32 {
    let of_all = job.topology.roles.iter().any(|role| role.name == ROLE_OF_ALL);
    if of_all { 1 } else { job.topology.nodes }
}

/// Whether its nodes work each for itself, as the launcher says by their roles.
#[must_use]
pub fn is_replicated(job: &Job) -> bool {
    let roles = &job.topology.roles;
    job.topology.nodes > 1 && !roles.is_empty() && roles.iter().all(|role| role.name == ROLE_OF_REPLICAS)
}

/// Whether the job's own script deploys it.
#[must_use]
pub fn deploys_itself(arrangement: &launch::Arrangement) -> bool {
    arrangement.roles.iter().any(|role| role.name == ROLE_OF_ALL)
}

/// The workspace in a job's directory.
#[must_use]
pub fn workspace(directory: &Path) -> PathBuf {
    directory.join("workspace")
}

/// What the invoking shell gives the job, in its order.
fn passed<'a>(ingredients: &Ingredients<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut known: BTreeMap<String, Vec<String>> = serde_json::from_str(PASSTHROUGH).unwrap_or_default();
    if ingredients.elsewhere {
        known.remove("here");
    }
    let environment = ingredients.environment;
    environment.iter().filter(move |(name, _)| known.values().flatten().any(|known| known == name))
}

fn implied() -> BTreeMap<String, BTreeMap<String, String>> {
    serde_json::from_str(IMPLIED).unwrap_or_default()
}

/// Names that the user has settled: a launcher does not override them.
fn settled_names<'a>(ingredients: &Ingredients<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = given(&ingredients.card.model, ingredients.said, ingredients.elsewhere)
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    names.extend(passed(ingredients).map(|(name, _)| name));
    names
}

/// The variables of a job, in order: a later one of the same name wins.
fn environment(ingredients: &Ingredients<'_>) -> Vec<EnvVar> {
    let Ingredients { card, config, said, presets, environment, .. } = ingredients;
    // What only presets say comes first: everything else wins over it.
    let mut env: Vec<EnvVar> = given(&Value::Null, presets, ingredients.elsewhere).flat_map(variables).collect();
    let mut add = |name: &str, value: String| env.push(EnvVar { name: name.to_owned(), value: EnvValue::Text(value) });

    add("MAD_MODEL_NAME", card.name.clone());
    let results = text(&card.model, "multiple_results");
    if !results.is_empty() {
        add("MAD_OUTPUT_CSV", results);
    }
    add("JENKINS_BUILD_NUMBER", environment.get("BUILD_NUMBER").unwrap_or("0").to_owned());
    let implied = implied();
    for (name, value) in passed(ingredients) {
        for (name, value) in implied.get(name).into_iter().flatten() {
            add(name, value.clone());
        }
        add(name, value.to_owned());
    }
    for variable in ingredients.inventory.map(|inventory| inventory.variables.as_slice()).unwrap_or_default() {
        add(&variable.name, variable.value.clone());
    }
    let attachment = ingredients.attachment.as_ref();
    for variable in attachment.map(|attachment| attachment.env.as_slice()).unwrap_or_default() {
        add(&variable.name, variable.value.clone());
    }
    add("MAD_RUNTIME_NGPUS", ingredients.topology.gpus_per_node.to_string());
    let guest = text(config, "guest_os");
    if !guest.is_empty() {
        add("MAD_GUEST_OS", guest.to_ascii_uppercase());
    }
    for (name, value) in &ingredients.additions.env {
        add(name, value.clone());
    }
    for name in ingredients.secret_names {
        env.push(EnvVar { name: secret_variable(name), value: EnvValue::Secret(name.clone()) });
    }
    env.extend(given(&card.model, said, ingredients.elsewhere).flat_map(variables));
    env
}

/// Variables of a map, in its order; null is none, and what begins with `_` is talk beside them.
fn variables(map: &Map<String, Value>) -> impl Iterator<Item = EnvVar> {
    map.iter().filter(|(name, _)| !name.starts_with('_')).filter_map(|(name, value)| {
        let value = match (SecretReference::read(value), scalar_text(value)) {
            (Some(reference), _) => EnvValue::Secret(reference.name),
            (None, Some(text)) => EnvValue::Text(text),
            (None, None) => return None,
        };
        Some(EnvVar { name: name.clone(), value })
    })
}

/// The variable in which jobs find a secret: `env/NAME` as `NAME`, `credential/GROUP/MEMBER` as `GROUP_MEMBER`, upper case
/// after the group.
fn secret_variable(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["credential", group, member] => format!("{group}_{}", member.to_uppercase()),
        parts => parts.last().copied().unwrap_or(name).to_owned(),
    }
}

/// One variable of the detected inventory.
#[must_use]
pub fn variable<'a>(inventory: Option<&'a Inventory>, name: &str) -> Option<&'a str> {
    inventory?.variables.iter().find(|entry: &&Entry| entry.name == name).map(|entry| entry.value.as_str())
}
