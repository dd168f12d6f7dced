//! `build_manifest.json`: what a build leaves for a run.
//!
//! A manifest that a user gives is input: it is read, filtered and merged in memory, and never written. What is written is
//! made anew by [`ManifestBuilder`], and holds no secret. Which keys go where is data, in `presets/manifest.json`.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::card::Card;
use crate::config::literal;
use crate::config::schema::put;
use crate::config::secret::{is_secret_name, scrub};
use crate::config::{ConfigError, Effective, Origin, scalar_text};

const SHIPPED: &str = include_str!("../../../presets/manifest.json");

/// The layout of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    #[serde(rename = "schema")]
    _schema: u32,
    /// Keys of `context` that come first, where there is something to say.
    context_first: Vec<String>,
    /// Members that `context` always has.
    context_always: Map<String, Value>,
    /// Keys that go to `deployment_config`, besides the sections of targets.
    deployment: Vec<String>,
    deployment_always: Map<String, Value>,
    deployment_variables_left_out: Vec<String>,
    /// The word for a target where nobody named one.
    default_target: String,
    /// Keys that a run finds or asks anew: they are not taken from a manifest's context.
    found_anew: Vec<String>,
    /// Those of them that a run elsewhere cannot find, and takes from the manifest.
    unseen: Vec<String>,
}

impl Layout {
    fn shipped() -> Result<Self, ManifestError> {
        serde_json::from_str(SHIPPED).map_err(|error| {
            ManifestError::new(
                Path::new("<built-in>/manifest.json"),
                format!("broken preset: {error}"),
                "this build of the program is faulty",
            )
        })
    }
}

/// A manifest that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// The key, dotted, where one is at fault.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl ManifestError {
    fn new(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), key: None, message: message.into(), hint: hint.into() }
    }

    fn on_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

const REBUILD: &str = "build again, or give the manifest that `build` wrote";

/// A manifest as it was read. Members that nobody here knows are kept, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    path: PathBuf,
    document: Map<String, Value>,
}

/// The member with the model tree that a manifest was made from.
pub const TREE: &str = "model_dir";

/// The member that says which leaves of `context` and `deployment_config` only presets gave: nobody said them, and a run
/// looks them up anew.
const PRESET_LEAVES: &str = "preset_leaves";

/// One image of a manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ManifestImage<'a> {
    /// Its key in `built_images` and `built_models`.
    pub key: &'a str,
    /// Its member of `built_images`.
    pub entry: &'a Map<String, Value>,
    /// Its member of `built_models`: the whole model card.
    pub model: &'a Value,
}

impl<'a> ManifestImage<'a> {
    fn text(&self, field: &str) -> Option<&'a str> {
        self.entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// What the image is called on this machine.
    #[must_use]
    pub fn reference(&self) -> &'a str {
        self.text("docker_image").or_else(|| self.text("image_name")).unwrap_or(self.key)
    }

    /// What it is called in a registry.
    #[must_use]
    pub fn registry_reference(&self) -> Option<&'a str> {
        self.text("registry_image")
    }

    /// It was there before, and is not looked for in a registry first. Some builds write the image's name here.
    #[must_use]
    pub fn local(&self) -> bool {
        match self.entry.get("local_image") {
            Some(Value::Bool(local)) => *local,
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        }
    }

    /// The vendor whose accelerators it is for, in upper case.
    #[must_use]
    pub fn vendor(&self) -> Option<String> {
        self.text("gpu_vendor").map(str::to_uppercase)
    }

    /// The accelerator architecture it is for.
    #[must_use]
    pub fn architecture(&self) -> Option<&'a str> {
        self.text("gpu_architecture")
    }

    /// The file it was built from.
    #[must_use]
    pub fn dockerfile(&self) -> Option<&'a str> {
        self.text("dockerfile")
    }

    /// The image it is based on.
    #[must_use]
    pub fn base(&self) -> Option<&'a str> {
        self.text("base_docker")
    }

    /// The digest of that one.
    #[must_use]
    pub fn base_digest(&self) -> Option<&'a str> {
        self.text("docker_sha")
    }

    /// The digest of the image itself (`sha256:…`).
    #[must_use]
    pub fn digest(&self) -> Option<&'a str> {
        self.text("image_digest")
    }

    /// Seconds, as written.
    #[must_use]
    pub fn build_duration(&self) -> Option<&'a serde_json::Number> {
        match self.entry.get("build_duration").or_else(|| self.entry.get("build_time")) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// The log of its build.
    #[must_use]
    pub fn log_file(&self) -> Option<&'a str> {
        self.text("log_file")
    }

    /// The name of its model.
    #[must_use]
    pub fn model_name(&self) -> &'a str {
        self.model.get("name").and_then(Value::as_str).or_else(|| self.text("model")).unwrap_or(self.key)
    }
}

impl Manifest {
    /// Reads and checks one.
    ///
    /// # Errors
    /// It cannot be read, or lacks what a run needs; the message names the key, the hint says what to do.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let bytes = std::fs::read(path)
            .map_err(|error| ManifestError::new(path, format!("cannot read the build manifest: {error}"), REBUILD))?;
        let located = literal::parse_json_located(&bytes)
            .map_err(|error| ManifestError::new(path, error.to_string(), REBUILD))?;
        Self::check(path, located.value)
    }

    fn check(path: &Path, document: Value) -> Result<Self, ManifestError> {
        let wrong =
            |key: String, message: &str| ManifestError::new(path, format!("`{key}` {message}"), REBUILD).on_key(key);
        let Value::Object(document) = document else {
            return Err(ManifestError::new(path, "a build manifest is an object, and this is not one", REBUILD));
        };
        for key in ["context", "deployment_config", "summary"] {
            if document.get(key).is_some_and(|member| !member.is_object() && !member.is_null()) {
                return Err(wrong(key.to_owned(), "must be an object"));
            }
        }
        let member = |key: &str| {
            let member = document.get(key).ok_or_else(|| wrong(key.to_owned(), "is missing"))?;
            member.as_object().ok_or_else(|| wrong(key.to_owned(), "must be an object"))
        };
        let (images, models) = (member("built_images")?, member("built_models")?);
        for (key, image) in images {
            let entry = image.as_object().ok_or_else(|| wrong(format!("built_images.{key}"), "must be an object"))?;
            for field in ["docker_image", "registry_image", "gpu_vendor", "gpu_architecture", "image_digest"] {
                if entry.get(field).is_some_and(|value| !value.is_string() && !value.is_null()) {
                    return Err(wrong(format!("built_images.{key}.{field}"), "must be a text"));
                }
            }
            match models.get(key) {
                Some(Value::Object(_)) => {}
                Some(_) => return Err(wrong(format!("built_models.{key}"), "must be an object")),
                None => {
                    return Err(wrong(format!("built_models.{key}"), "is missing, and `built_images` has that key"));
                }
            }
        }
        if let Some(key) = models.keys().find(|key| !images.contains_key(*key)) {
            return Err(wrong(format!("built_images.{key}"), "is missing, and `built_models` has that key"));
        }
        Ok(Self { path: path.to_owned(), document })
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> &Map<String, Value> {
        &self.document
    }

    /// The images in the order in which they were built.
    pub fn images(&self) -> impl Iterator<Item = ManifestImage<'_>> {
        let models = self.member("built_models");
        self.member("built_images").into_iter().flatten().filter_map(move |(key, entry)| {
            Some(ManifestImage { key, entry: entry.as_object()?, model: models?.get(key)? })
        })
    }

    /// `context`.
    #[must_use]
    pub fn context(&self) -> Option<&Map<String, Value>> {
        self.member("context")
    }

    /// `deployment_config`.
    #[must_use]
    pub fn deployment(&self) -> Option<&Map<String, Value>> {
        self.member("deployment_config")
    }

    /// The model tree that it was made from, where it says so.
    #[must_use]
    pub fn tree(&self) -> Option<&Path> {
        self.document.get(TREE).and_then(Value::as_str).map(Path::new).filter(|tree| tree.is_absolute())
    }

    /// `summary`.
    #[must_use]
    pub fn summary(&self) -> Option<&Map<String, Value>> {
        self.member("summary")
    }

    /// `credentials_required`.
    #[must_use]
    pub fn credentials_required(&self) -> Vec<&str> {
        let names = self.document.get("credentials_required").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn member(&self, key: &str) -> Option<&Map<String, Value>> {
        self.document.get(key).and_then(Value::as_object)
    }

    /// The configuration of a run of this manifest: what this invocation was given wins, what the manifest says comes
    /// next, defaults and what a plugin found come last; objects merge. When this invocation names a target, what the
    /// manifest says about other targets is left out.
    ///
    /// # Errors
    /// The result asks for two targets or an unknown one.
    pub fn merged_under(&self, runtime: &Effective) -> Result<Effective, MergeError> {
        let layout = Layout::shipped()?;
        let mut merged = runtime.clone();
        let chosen = runtime.chosen_target()?;

        let mut context = self.without_presets("context");
        context.retain(|key, value| !layout.found_anew.contains(key) && !is_blank(value));
        merged.admit(&mut context, &self.path)?;

        let mut deployment = self.without_presets("deployment_config");
        let target = deployment.shift_remove("target");
        deployment.retain(|key, value| !layout.found_anew.contains(key) && !value.is_null());
        merged.admit(&mut deployment, &self.path)?;
        match &chosen {
            Some(chosen) => {
                for other in merged.targets().iter().filter(|other| other.name() != chosen.target) {
                    deployment.shift_remove(other.name());
                    context.shift_remove(other.name());
                }
            }
            None => {
                let named = target.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty());
                if let Some(name) = named {
                    deployment.insert("deploy".to_owned(), Value::from(name));
                }
            }
        }
        for place in [&context, &deployment] {
            for name in clear_secrets(place) {
                merged.warn(format!(
                    "{}: `{name}` is written there in clear text; build again and remove the file",
                    self.path.display()
                ));
            }
        }
        let origin = Origin::Manifest { path: self.path.clone() };
        // The deployment section is the later word of the same build.
        merged.overlay_where(Value::Object(context), origin.clone(), |there| !there.is_given());
        merged.overlay_where(Value::Object(deployment), origin, |there| !there.is_given());
        merged
            .chosen_target()
            .map_err(|error| ConfigError { file: error.file.clone().or(Some(self.path.clone())), ..error })?;
        Ok(merged)
    }

    /// Adds what a run on this machine would find out by itself, and a run elsewhere cannot: which accelerators the images
    /// were made for.
    ///
    /// # Errors
    /// A value does not fit its key, or the layout is broken.
    pub fn describe_elsewhere(&self, effective: &mut Effective) -> Result<(), MergeError> {
        let layout = Layout::shipped()?;
        let mut seen = Map::new();
        for member in ["context", "deployment_config"] {
            seen.extend(self.without_presets(member).into_iter().filter(|(key, _)| layout.unseen.contains(key)));
        }
        seen.retain(|_, value| !is_blank(value));
        effective.admit(&mut seen, &self.path)?;
        for (key, value) in seen {
            effective.set_if_absent([key.as_str()], value, Origin::Manifest { path: self.path.clone() });
        }
        Ok(())
    }

    /// A member without the leaves that presets gave it: those are looked up anew, and nobody said them.
    fn without_presets(&self, member: &str) -> Map<String, Value> {
        let mut members = self.member(member).cloned().unwrap_or_default();
        let leaves = self.member(PRESET_LEAVES).and_then(|leaves| leaves.get(member)).and_then(Value::as_object);
        for pointer in leaves.into_iter().flat_map(Map::keys) {
            let keys: Vec<String> =
                pointer.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
            take_out(&mut members, &keys);
        }
        members
    }
}

/// Takes out a leaf. An object that is empty without it stays: a section that is there says something by itself.
fn take_out(members: &mut Map<String, Value>, keys: &[String]) {
    let Some((first, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        members.shift_remove(first);
    } else if let Some(Value::Object(inner)) = members.get_mut(first) {
        take_out(inner, rest);
    }
}

/// A manifest and an invocation that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The configuration that results cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The layout is broken.
    #[error(transparent)]
    Layout(#[from] ManifestError),
}

/// Nothing is said by it: an empty text, as manifests have where no devices were chosen.
fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn clear_secrets(members: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, member) in members {
        match member {
            Value::Object(inner) => found.extend(clear_secrets(inner)),
            Value::String(_) if is_secret_name(name) => found.push(name.clone()),
            _ => {}
        }
    }
    found
}

/// Assembles a manifest: images as they are built, then the rest.
#[derive(Debug, Clone, Default)]
pub struct ManifestBuilder {
    images: Map<String, Value>,
    models: Map<String, Value>,
    credentials: Vec<String>,
    successful: Vec<String>,
    failed: Vec<Value>,
    pushed: Vec<Value>,
    not_pushed: Vec<Value>,
    extra: Map<String, Value>,
}

impl ManifestBuilder {
    /// Adds an image with the members that its builder says its entry has, and the card of its model. The card is copied:
    /// what one image's model gets, no other image's has.
    pub fn image(&mut self, key: &str, entry: Value, card: &Card) {
        self.successful.push(key.to_owned());
        self.images.insert(key.to_owned(), entry);
        self.models.insert(key.to_owned(), card.model.clone());
        if let Some(credential) = card.text("cred").filter(|name| !self.credentials.contains(name)) {
            self.credentials.push(credential);
        }
    }

    /// Adds an image that was not built now: it has entries, and no part in the summary.
    pub fn image_from_before(&mut self, key: &str, entry: Value, card: &Card) {
        self.image(key, entry, card);
        self.successful.retain(|built| built != key);
    }

    /// Says that an image is in a registry now.
    pub fn pushed(&mut self, key: &str, registry: &str, reference: &str, digest: Option<&str>) {
        self.extend_entry(key, json!({"registry_image": reference, "registry": registry}));
        if let Some(digest) = digest {
            self.extend_entry(key, json!({"registry_digest": digest}));
        }
        self.pushed.push(json!({"image": key, "registry_image": reference}));
    }

    /// Says that an image could not be pushed.
    pub fn push_failed(&mut self, key: &str, error: &str) {
        self.extend_entry(key, json!({"push_error": error}));
        self.not_pushed.push(json!({"image": key, "error": error}));
    }

    fn extend_entry(&mut self, key: &str, members: Value) {
        if let (Some(Value::Object(entry)), Value::Object(members)) = (self.images.get_mut(key), members) {
            entry.extend(members);
        }
    }

    /// Says that a model has no image, and why. The architecture is named where several were asked for.
    pub fn problem(&mut self, model: &str, architecture: Option<&str>, error: &str) {
        let mut problem = Map::from_iter([("model".to_owned(), Value::from(model))]);
        if let Some(architecture) = architecture {
            problem.insert("architecture".to_owned(), Value::from(architecture));
        }
        problem.insert("error".to_owned(), Value::from(error));
        self.failed.push(Value::Object(problem));
    }

    /// Adds a member of the whole manifest.
    pub fn extra(&mut self, name: &str, value: Value) {
        self.extra.insert(name.to_owned(), value);
    }

    /// How many images were built, and how many models or images were not.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.successful.len(), self.failed.len())
    }

    /// The summary, as `--summary-output` has it.
    #[must_use]
    pub fn summary(&self) -> Value {
        let successful: Vec<&Value> = self.successful.iter().filter_map(|key| self.images.get(key)).collect();
        let total: f64 =
            successful.iter().filter_map(|entry| entry.get("build_duration").and_then(Value::as_f64)).sum();
        let mut summary = json!({
            "successful_builds": successful,
            "failed_builds": self.failed,
            "total_build_time": total,
            "successful_pushes": self.pushed,
            "failed_pushes": self.not_pushed,
        });
        scrub(&mut summary);
        summary
    }

    /// The whole manifest, without secrets.
    ///
    /// # Errors
    /// The configuration asks for two targets, or the layout is broken.
    pub fn document(&self, effective: &Effective) -> Result<Value, MergeError> {
        let layout = Layout::shipped()?;
        let mut models = self.models.clone();
        for (key, model) in &mut models {
            let pushed = self.images.get(key).and_then(|entry| entry.get("registry_image")).and_then(Value::as_str);
            if let (Some(reference), Value::Object(model)) = (pushed.filter(|reference| !reference.is_empty()), model) {
                let variables = model.entry("env_vars").or_insert_with(|| json!({}));
                if !variables.is_object() {
                    *variables = json!({});
                }
                if let Value::Object(variables) = variables {
                    variables.insert("DOCKER_IMAGE_NAME".to_owned(), Value::from(reference));
                }
            }
        }
        let mut document = json!({
            "built_images": self.images,
            "built_models": models,
            "context": context(effective, &layout),
            "credentials_required": self.credentials,
            "summary": self.summary(),
            "deployment_config": deployment(effective, &layout)?,
        });
        if let Value::Object(document) = &mut document {
            let leaves = preset_leaves(document, effective, &layout);
            if !leaves.is_empty() {
                document.insert(PRESET_LEAVES.to_owned(), Value::Object(leaves));
            }
            document.extend(self.extra.clone());
        }
        scrub(&mut document);
        Ok(document)
    }

    /// Writes it: to a temporary file beside `path`, which is then renamed.
    ///
    /// # Errors
    /// As [`Self::document`], or the file cannot be written.
    pub fn write(&self, path: &Path, effective: &Effective) -> Result<(), MergeError> {
        let document = self.document(effective)?;
        write_json(path, &document).map_err(|error| {
            let hint = "`--manifest-output` names another place";
            ManifestError::new(path, format!("cannot write the build manifest: {error}"), hint).into()
        })
    }
}

fn write_json(path: &Path, document: &Value) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".build_manifest.");
    #[cfg(unix)]
    {
        // As any file of the user's: what the umask leaves, not the privacy of a temporary file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(directory)?;
    serde_json::to_writer_pretty(&mut file, document)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The keys of the contract in their order, then everything else that was given.
fn context(effective: &Effective, layout: &Layout) -> Map<String, Value> {
    let mut all = Map::new();
    for (path, value, origin) in effective.leaves() {
        let Some(top) = path.keys().first() else { continue };
        let elsewhere = layout.deployment.contains(top)
            || top == "deploy"
            || top == "deployment_config"
            || effective.targets().iter().any(|target| target.name() == top);
        let said = origin.is_given() || matches!(origin, Origin::Manifest { .. });
        // What was found on this machine is for this machine: it is written only where no run takes it from here.
        let passes = !is_found(origin) || layout.found_anew.contains(top);
        let wanted = said || (layout.context_first.contains(top) && passes);
        if wanted && !elsewhere {
            put(&mut all, path, value.clone());
        }
    }
    let mut context = Map::new();
    for key in &layout.context_first {
        if let Some(value) = all.shift_remove(key).or_else(|| layout.context_always.get(key).cloned()) {
            context.insert(key.clone(), value);
        }
    }
    // In the order of the configuration, not of the leaves.
    for key in effective.value().as_object().into_iter().flat_map(Map::keys) {
        if let Some(value) = all.shift_remove(key) {
            context.insert(key.clone(), value);
        }
    }
    context
}

fn is_found(origin: &Origin) -> bool {
    matches!(origin, Origin::Detected { .. })
}

/// For each of the two members the leaves that only presets gave, as JSON pointers, each with its preset.
fn preset_leaves(document: &Map<String, Value>, effective: &Effective, layout: &Layout) -> Map<String, Value> {
    let mut found = Map::new();
    for member in ["context", "deployment_config"] {
        let leaves: Map<String, Value> = effective
            .leaves()
            .filter(|(path, value, origin)| {
                let top = path.keys().first();
                origin.is_preset()
                    && !value.as_object().is_some_and(Map::is_empty)
                    && !top.is_some_and(|top| layout.unseen.contains(top))
            })
            .map(|(path, _, origin)| {
                let pointer: String =
                    path.keys().iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
                (pointer, Value::from(origin.to_string()))
            })
            .filter(|(pointer, _)| document.get(member).is_some_and(|member| member.pointer(pointer).is_some()))
            .collect();
        if !leaves.is_empty() {
            found.insert(member.to_owned(), Value::Object(leaves));
        }
    }
    found
}

/// Nulls say nothing to whoever reads a manifest.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
        members.values_mut().for_each(drop_nulls);
    }
}

fn deployment(effective: &Effective, layout: &Layout) -> Result<Map<String, Value>, ConfigError> {
    let target = effective.chosen_target()?.map_or_else(|| layout.default_target.clone(), |chosen| chosen.target);
    let mut deployment = Map::from_iter([("target".to_owned(), Value::from(target))]);
    let sections = effective.targets().iter().map(|target| target.name().to_owned());
    for key in sections.chain(layout.deployment.iter().chain(&layout.unseen).cloned()) {
        let value = effective.get([key.as_str()]).or_else(|| layout.deployment_always.get(&key));
        if let Some(value) = value.filter(|value| !value.is_null()) {
            let mut value = value.clone();
            drop_nulls(&mut value);
            deployment.insert(key, value);
        }
    }
    if let Some(Value::Object(variables)) = deployment.get_mut("env_vars") {
        variables.retain(|name, value| !layout.deployment_variables_left_out.contains(name) && !value.is_null());
        for value in variables.values_mut() {
            if let Some(text) = scalar_text(value) {
                *value = Value::String(text);
            }
        }
    }
    Ok(deployment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::Shelf;
    use crate::config::{Inputs, TargetKeys};

    fn targets() -> Vec<TargetKeys> {
        let keys = |names: &[&str]| TargetKeys(names.iter().map(|name| (*name).to_owned()).collect());
        vec![keys(&["here", "local"]), keys(&["farm"]), keys(&["cloud", "the-cloud"])]
    }

    fn effective(context: &Value) -> Effective {
        let text = context.to_string();
        let environment = vec!["MAD_SECRETS_T".to_owned()];
        Effective::load(&Inputs { text: Some(&text), targets: targets(), environment, ..Inputs::default() }).unwrap()
    }

    fn card(name: &str, model: Value) -> Card {
        Card { name: name.to_owned(), tags: vec![], source: "models.json".to_owned(), plugin: "tree".to_owned(), model }
    }

    fn written(document: &Value) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("build_manifest.json");
        std::fs::write(&path, document.to_string()).unwrap();
        (directory, path)
    }

    fn read(document: &Value) -> Result<Manifest, ManifestError> {
        let (_directory, path) = written(document);
        Manifest::read(&path)
    }

    fn manifest(document: &Value) -> Manifest {
        read(document).unwrap()
    }

    #[test]
    fn a_manifest_of_the_predecessor_is_read_in_order_with_all_its_members() {
        let text = include_str!("../../../tests/fixtures/config/build_manifest.json");
        let document: Value = serde_json::from_str(text).unwrap();
        let manifest = manifest(&document);
        assert_eq!(Value::Object(manifest.document().clone()), document, "unknown members stay");
        let images: Vec<ManifestImage<'_>> = manifest.images().collect();
        let keys: Vec<&str> = images.iter().map(|image| image.key).collect();
        assert_eq!(keys, ["ci-m_m.ubuntu.x", "a-later-one", "prebuilt"]);
        let first = images[0];
        assert_eq!(first.reference(), "ci-m_m.ubuntu.x");
        assert_eq!(first.registry_reference(), Some("localhost:5000/ci-m_m.ubuntu.x"));
        assert_eq!((first.local(), first.vendor().as_deref()), (false, Some("ACME")));
        assert_eq!(first.architecture(), Some("x942"));
        assert!(first.dockerfile().unwrap().ends_with("/m.ubuntu.x.Dockerfile"));
        assert_eq!((first.base(), first.base_digest()), (Some("base/image"), Some("sha256:abc")));
        assert_eq!(first.build_duration().unwrap().to_string(), "12.3");
        assert_eq!((first.log_file(), first.digest()), (Some("m_m.ubuntu.x.build.live.log"), Some("sha256:def")));
        assert_eq!(first.model_name(), "m");
        assert_eq!(
            (images[1].registry_reference(), images[1].vendor(), images[1].reference()),
            (None, None, "a-later-one")
        );
        assert_eq!((images[2].local(), images[2].reference()), (true, "some/image:1"));
        assert_eq!(manifest.credentials_required(), ["KEY"]);
        assert!(manifest.summary().is_some() && manifest.context().is_some());
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_said_with_file_key_and_remedy() {
        let image = || json!({"docker_image": "i"});
        for (document, key, part) in [
            (json!([]), None, "is an object"),
            (json!({"built_models": {}}), Some("built_images"), "is missing"),
            (json!({"built_images": {}}), Some("built_models"), "is missing"),
            (json!({"built_images": [], "built_models": {}}), Some("built_images"), "must be an object"),
            (json!({"built_images": {"k": 1}, "built_models": {}}), Some("built_images.k"), "must be an object"),
            (json!({"built_images": {"k": image()}, "built_models": {}}), Some("built_models.k"), "is missing"),
            (json!({"built_images": {}, "built_models": {"k": {}}}), Some("built_images.k"), "is missing"),
            (
                json!({"built_images": {"k": {"docker_image": 1}}, "built_models": {"k": {}}}),
                Some("built_images.k.docker_image"),
                "must be a text",
            ),
            (json!({"built_images": {}, "built_models": {}, "context": 1}), Some("context"), "must be an object"),
        ] {
            let error = read(&document).unwrap_err();
            assert_eq!(error.key.as_deref(), key, "{error}");
            assert!(error.message.contains(part) && !error.hint.is_empty(), "{error}");
            assert!(error.to_string().contains("build_manifest.json: "), "{error}");
        }
        assert!(Manifest::read(Path::new("/nowhere/m.json")).unwrap_err().message.contains("cannot read"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.json");
        std::fs::write(&path, "{\n  'a': 1}").unwrap();
        assert!(Manifest::read(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn the_run_s_own_words_win_over_the_manifest_s_which_win_over_defaults() {
        let manifest = manifest(&json!({
            "built_images": {}, "built_models": {},
            "context": {
                "docker_env_vars": {"A": "built", "B": "built", "MAD_SECRETS_OLD": "bytes"}, "docker_mounts": {"/c": "/built"},
                "docker_build_arg": {"X": "1"}, "gpu_vendor": "BUILT", "guest_os": "BUILT", "docker_gpus": "0-3", "model_args": "x",
                "tools": [{"name": "t"}], "pre_scripts": [{"path": "p"}], "rocenv_mode": "full", "encapsulate_script": ""
            },
            "deployment_config": {
                "target": "farm", "farm": {"nodes": 2, "time": "1"}, "env_vars": {"E": "built", "F": "built"}, "debug": true,
                "distributed": {"launcher": "l", "nnodes": 2}, "vllm": null
            }
        }));
        let runtime = effective(&json!({
            "docker_env_vars": {"A": "run", "C": "run"}, "docker_mounts": {"/d": "/run"}, "farm": {"nodes": 4}, "tools": [],
            "env_vars": {"E": "run"}
        }));
        let merged = manifest.merged_under(&runtime).unwrap();
        let secret = json!({"secret": "env/MAD_SECRETS_T"});
        for (path, expected) in [
            (
                "docker_env_vars",
                json!({"A": "run", "B": "built", "C": "run", "MAD_SECRETS_OLD": "bytes", "MAD_SECRETS_T": secret}),
            ),
            ("docker_mounts", json!({"/c": "/built", "/d": "/run"})),
            ("docker_gpus", json!("0-3")),
            ("docker_build_arg", json!({"MAD_SECRETS_T": secret})),
            ("tools", json!([])),
            ("pre_scripts", json!([{"path": "p"}])),
            ("rocenv_mode", json!("full")),
            ("farm", json!({"nodes": 4, "time": "1"})),
            ("env_vars", json!({"E": "run", "F": "built"})),
            ("debug", json!(true)),
            ("distributed", json!({"launcher": "l", "nnodes": 2})),
        ] {
            assert_eq!(merged.get(path), Some(&expected), "{path}");
        }
        for path in ["gpu_vendor", "guest_os", "model_args", "vllm", "encapsulate_script", "target"] {
            assert_eq!(merged.get(path), None, "{path}");
        }
        assert_eq!(merged.origin("docker_gpus"), Some(Origin::Manifest { path: manifest.path().to_owned() }));
        assert_eq!(merged.origin("docker_env_vars.A"), Some(Origin::CommandLine));
        assert!(merged.warnings().iter().any(|said| said.contains("`MAD_SECRETS_OLD`") && said.contains("clear text")));
        assert_eq!(runtime.get("docker_gpus"), None, "the run's own configuration is not touched");
    }

    #[test]
    fn the_target_named_at_run_replaces_the_one_named_at_build() {
        let manifest = manifest(&json!({
            "built_images": {}, "built_models": {},
            "deployment_config": {"target": "farm", "farm": {"nodes": 2}, "distributed": {"nnodes": 2}}
        }));
        let broken = json!({"built_images": {}, "built_models": {}, "context": {"docker_env_vars": []}});
        let error = read(&broken).unwrap().merged_under(&effective(&json!({}))).unwrap_err();
        assert!(error.to_string().contains("build_manifest.json: `docker_env_vars` must be an object"), "{error}");
        let target = |context: Value| {
            let merged = manifest.merged_under(&effective(&context)).unwrap();
            (merged.chosen_target().unwrap().unwrap().target, merged.get("farm").is_some())
        };
        assert_eq!(target(json!({})), ("farm".to_owned(), true));
        assert_eq!(target(json!({"the-cloud": {}})), ("cloud".to_owned(), false));
        assert_eq!(target(json!({"deploy": "local"})), ("here".to_owned(), false));
    }

    #[test]
    fn what_is_built_is_written_in_the_contract_s_layout_without_secrets() {
        let mut context = json!({
            "env_vars": {"A": "1", "MIOPEN_USER_DB_PATH": "/x"}, "docker_env_vars": {"MAD_SECRETS_OWN": "bytes", "V": "1"},
            "the-cloud": {"n": 1}, "distributed": {"nnodes": 1}, "shared_data": "/s", "tools": [{"name": "t"}]
        });
        context["docker_gpus"] = json!("0");
        let mut effective = effective(&context);
        let found = || Origin::Detected { plugin: "g".to_owned() };
        effective.set_if_absent("docker_env_vars.MAD_FOUND", json!("8"), found());
        effective.set_if_absent("gpu_vendor", json!("ACME"), found());
        effective.set_if_absent("docker_build_arg.ARCHITECTURE", json!("x"), found());
        let mut builder = ManifestBuilder::default();
        let model = |name: &str| card(name, json!({"name": name, "cred": "KEY", "own": {"kept": 1}}));
        builder.image("ci-m_a", json!({"model": "m", "docker_image": "ci-m_a", "build_duration": 1.5}), &model("m"));
        builder.image("ci-m_b", json!({"model": "m", "docker_image": "ci-m_b", "build_duration": 2}), &model("m"));
        builder.image_from_before("old", json!({"docker_image": "old"}), &card("o", json!({"name": "o", "cred": ""})));
        builder.pushed("ci-m_a", "localhost:5000", "localhost:5000/ci-m_a", Some("sha256:1"));
        builder.push_failed("ci-m_b", "no route");
        builder.problem("x", Some("x90"), "no such file");
        builder.problem("y", None, "no file");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper/build_manifest.json");
        builder.write(&path, &effective).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("MAD_SECRETS") && !text.contains("bytes") && !text.contains("MAD_FOUND"), "{text}");
        insta::assert_snapshot!(text);
        assert_eq!(Manifest::read(&path).unwrap().images().count(), 3);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        assert_eq!(builder.counts(), (2, 2));
    }

    /// A configuration for a target of the shipped presets.
    fn elsewhere(context: &Value, build: bool) -> Effective {
        let text = context.to_string();
        let targets =
            vec![TargetKeys(vec!["docker".to_owned(), "local".to_owned()]), TargetKeys(vec!["slurm".to_owned()])];
        Effective::load(&Inputs { text: Some(&text), targets, build_defaults: build, ..Inputs::default() }).unwrap()
    }

    fn with_presets(mut effective: Effective) -> Effective {
        effective.apply_presets(&Shelf::shipped().unwrap(), "slurm", &Value::Null).unwrap();
        effective.remove("deploy");
        effective
    }

    fn through_a_manifest(built: &Value, run: &Value) -> Effective {
        let document = ManifestBuilder::default().document(&with_presets(elsewhere(built, true))).unwrap();
        let manifest = manifest(&document);
        let mut merged = manifest.merged_under(&elsewhere(run, false)).unwrap();
        manifest.describe_elsewhere(&mut merged).unwrap();
        with_presets(merged)
    }

    #[test]
    fn a_context_given_at_build_at_run_or_at_both_makes_the_same_configuration() {
        for context in [
            json!({"slurm": {"nodes": 2}, "gpu_vendor": "NVIDIA", "env_vars": {"A": "1"}, "distributed": {"launcher": "l"}}),
            json!({"slurm": {}, "gpu_vendor": "NONE", "guest_os": "CENTOS"}),
            json!({"slurm": {"gpus_per_node": 4, "time": "1:00:00"}, "shared_data": "/s", "monitor": false}),
        ] {
            let at_run = with_presets(elsewhere(&context, false));
            for (built, run) in [(&context, &json!({})), (&context, &context)] {
                let merged = through_a_manifest(built, run);
                let mut expected: Vec<(String, Value)> =
                    at_run.leaves().map(|(path, value, _)| (path.to_string(), value.clone())).collect();
                // The predecessor does not let this one travel; it is for one node.
                expected.retain(|(path, _)| *path != "env_vars.MIOPEN_USER_DB_PATH");
                let mut found: Vec<(String, Value)> =
                    merged.leaves().map(|(path, value, _)| (path.to_string(), value.clone())).collect();
                found.retain(|(path, _)| *path != "env_vars.MIOPEN_USER_DB_PATH");
                assert_eq!(found, expected, "{built} {run}");
            }
            let presets = |effective: &Effective| {
                let preset = effective.preset();
                ["slurm", "distributed", "env_vars"].map(|key| preset.get(key).cloned())
            };
            assert_eq!(presets(&through_a_manifest(&context, &json!({}))), presets(&at_run), "nobody said them");
        }
    }

    #[test]
    fn what_a_preset_gave_at_build_does_not_hold_at_run_against_anybody() {
        let built = json!({"slurm": {"nodes": 2}});
        let document = ManifestBuilder::default().document(&with_presets(elsewhere(&built, true))).unwrap();
        assert_eq!(document["deployment_config"]["slurm"]["time"], json!("24:00:00"), "it can be read there");
        let run = through_a_manifest(&built, &json!({"slurm": {"time": "1:00:00"}}));
        assert_eq!(
            run.get("slurm"),
            with_presets(elsewhere(&json!({"slurm": {"nodes": 2, "time": "1:00:00"}}), false)).get("slurm")
        );
        let smaller = through_a_manifest(&built, &json!({"slurm": {"nodes": 1}}));
        assert_eq!(smaller.get("slurm.time"), Some(&json!("12:00:00")), "the profile is that of the run");
        assert_eq!(smaller.get("distributed.nnodes"), Some(&json!(1)));
        assert_eq!(smaller.get("env_vars.NCCL_IB_DISABLE"), None);
        assert_eq!(smaller.said().pointer("/slurm/gpus_per_node"), None, "a model's own number still counts");
        let elsewhere_now = manifest(&document).merged_under(&elsewhere(&json!({"deploy": "local"}), false)).unwrap();
        assert_eq!(elsewhere_now.get("env_vars.NCCL_DEBUG"), None, "they belong to the other target");
        assert_eq!(elsewhere_now.get("gpu_vendor"), None, "this machine is looked at");
    }

    #[test]
    fn a_manifest_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        std::fs::create_dir_all(path.join("inside")).unwrap();
        let error = ManifestBuilder::default().write(&path, &effective(&json!({}))).unwrap_err();
        assert!(error.to_string().contains("cannot write the build manifest"), "{error}");
        assert!(path.join("inside").exists());
    }
}
