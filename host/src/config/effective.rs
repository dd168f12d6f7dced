//! The effective configuration: defaults, then the file overlaid by the command line, then what was found on the machine,
//! in one object, and the origin of every leaf beside it.
//!
//! The command line replaces top-level keys of the file whole; the result is merged recursively over the defaults. Lists
//! and scalars replace, objects merge. It must never hold the bytes of a secret: variables that are secrets by contract
//! appear as references.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{ConfigError, ConfigErrorKind, Place};
use super::literal::{self, LiteralError, Located};
use super::origin::Origin;
use super::path::KeyPath;
use super::presets::{PRESETS, absolute, without_comments};
use super::schema::{DEPLOY, Places, Schema, TargetKeys, Unknown, find_target, is_comment, look_up, put};
use super::secret::{SecretReference, is_secret_name};

const DEFAULTS: &str = include_str!("../../../presets/defaults.json");
const DEFAULTS_NAME: &str = "defaults.json";

/// What an effective configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Inputs<'a> {
    /// `-f`.
    pub file: Option<&'a Path>,
    /// `-c`.
    pub text: Option<&'a str>,
    /// The names of the variables of the invoking shell.
    pub environment: Vec<String>,
    /// The targets there are; their keys exclude each other.
    pub targets: Vec<TargetKeys>,
    /// Further keys that mean something, such as those that headers of build files name. None: not known yet, and
    /// [`Effective::check_keys`] is called later.
    pub known_keys: Option<BTreeSet<String>>,
    /// Further allowed values that plugins bring, by key.
    pub allowed: BTreeMap<String, Vec<String>>,
    /// The target that an option names: it counts more than the configuration's.
    pub target: Option<&'a str>,
    /// Presets that options name, added to those of the configuration.
    pub presets: &'a [String],
    /// Where relative paths of presets begin.
    pub directory: PathBuf,
    /// Unknown keys are errors.
    pub strict: bool,
    /// Add what a build needs to be chosen. A run looks at the machine first.
    pub build_defaults: bool,
}

/// The preset file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    #[serde(rename = "schema")]
    _schema: u32,
    always: Map<String, Value>,
    build: Map<String, Value>,
    /// The maps that get a reference to every secret of the environment.
    secrets_into: Vec<String>,
}

impl Defaults {
    fn shipped() -> Result<Self, ConfigError> {
        serde_json::from_str(DEFAULTS)
            .map_err(|error| ConfigError::new(ConfigErrorKind::Preset, format!("{DEFAULTS_NAME}: {error}")))
    }
}

/// One configuration, with origins.
#[derive(Debug, Clone)]
pub struct Effective {
    value: Value,
    origins: BTreeMap<KeyPath, Origin>,
    places: Places,
    warnings: Vec<String>,
    schema: Schema,
    targets: Vec<TargetKeys>,
}

/// The target that a configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name that counts.
    pub target: String,
    /// The key that decided.
    pub key: String,
    /// Whether there is a section for it.
    pub section: bool,
}

impl Effective {
    /// Reads all layers, checks them and lays them over each other.
    ///
    /// # Errors
    /// A layer cannot be read, or says something that cannot be used.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let defaults = Defaults::shipped()?;
        let mut effective = Self {
            value: Value::Object(Map::new()),
            origins: BTreeMap::new(),
            places: Places::new(),
            warnings: Vec::new(),
            schema: Schema::shipped(&inputs.allowed)?,
            targets: inputs.targets.clone(),
        };
        let default = || Origin::Default { preset: DEFAULTS_NAME.to_owned() };
        effective.overlay(Value::Object(defaults.always), default());
        if inputs.build_defaults {
            effective.overlay(Value::Object(defaults.build), default());
        }
        for name in inputs.environment.iter().filter(|name| is_secret_name(name)) {
            for map in &defaults.secrets_into {
                let path = KeyPath::from(map).child(name);
                let reference = SecretReference::of_variable(name).to_value();
                effective.set_if_absent(path, reference, Origin::Environment { name: name.clone() });
            }
        }
        let file = inputs.file.map(read_file).transpose()?;
        let text = inputs.text.filter(|text| !text.trim().is_empty()).map(read_text).transpose()?;
        effective.add_given(inputs.file, file, text)?;
        effective.choose(inputs.target)?;
        effective.name_presets(inputs);
        effective.chosen_target()?;
        if let Some(known) = &inputs.known_keys {
            effective.check_keys(known, inputs.strict)?;
        }
        Ok(effective)
    }

    fn add_given(&mut self, path: Option<&Path>, file: Option<Layer>, text: Option<Layer>) -> Result<(), ConfigError> {
        let mut text = text.unwrap_or_default();
        let mut file = file.unwrap_or_default();
        for layer in [&mut file, &mut text] {
            layer.value.retain(|key, _| !is_comment(key));
            layer.value.values_mut().for_each(without_comments);
            let warnings = self.schema.canonical(&mut layer.value, &mut layer.places, &self.targets);
            self.warnings.extend(warnings);
        }
        // Whole keys: what the command line speaks of, the file does not.
        file.value.retain(|key, _| !text.value.contains_key(key));
        file.places.retain(|place, _| place.keys().first().is_none_or(|key| !text.value.contains_key(key)));
        for layer in [&mut file, &mut text] {
            self.schema.check(&mut layer.value, &layer.places)?;
        }
        self.places = file.places;
        self.places.extend(text.places);
        if let Some(path) = path {
            self.overlay(Value::Object(file.value), Origin::File { path: path.to_owned() });
        }
        self.overlay(Value::Object(text.value), Origin::CommandLine);
        Ok(())
    }

    /// The target of an option counts: what is said of others is not for this job.
    fn choose(&mut self, target: Option<&str>) -> Result<(), ConfigError> {
        let Some(name) = target else { return Ok(()) };
        let chosen = find_target(name, &self.targets)?.name().to_owned();
        let others: Vec<String> = self.targets.iter().map(|target| target.name().to_owned()).collect();
        for other in others.into_iter().filter(|other| *other != chosen) {
            if self.get([other.as_str()]).is_none() {
                continue;
            }
            self.warn(format!("the section `{other}` is left out: the target is `{chosen}`"));
            self.remove([other.as_str()]);
        }
        let named =
            self.text(DEPLOY).filter(|named| find_target(named, &self.targets).is_ok_and(|it| it.name() != chosen));
        if let Some(named) = named.map(str::to_owned) {
            self.warn(format!("`{DEPLOY}` says `{named}`, and the target is `{chosen}`"));
        }
        self.remove(DEPLOY);
        self.overlay(serde_json::json!({ DEPLOY: chosen }), Origin::CommandLine);
        Ok(())
    }

    /// Presets of options come after those of the configuration. Paths become absolute, so that a manifest finds them.
    fn name_presets(&mut self, inputs: &Inputs<'_>) {
        let mut names: Vec<String> = match self.get(PRESETS) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if names.is_empty() && inputs.presets.is_empty() {
            return;
        }
        let origin = if inputs.presets.is_empty() { self.origin(PRESETS) } else { None };
        names.extend(inputs.presets.iter().cloned());
        let names: Vec<String> = names.iter().map(|name| absolute(name, &inputs.directory)).collect();
        self.remove(PRESETS);
        self.overlay(serde_json::json!({ PRESETS: names }), origin.unwrap_or(Origin::CommandLine));
    }

    /// The names that a target answers to, the one that counts first.
    #[must_use]
    pub fn target_names(&self, target: &str) -> Vec<String> {
        find_target(target, &self.targets).map_or_else(|_| vec![target.to_owned()], |keys| keys.0.clone())
    }

    /// Adds what a build needs to be chosen, where nothing else says it.
    ///
    /// # Errors
    /// The shipped preset is broken.
    pub fn add_build_defaults(&mut self) -> Result<(), ConfigError> {
        let defaults = Defaults::shipped()?;
        self.underlay(Value::Object(defaults.build), Origin::Default { preset: DEFAULTS_NAME.to_owned() });
        Ok(())
    }

    /// The whole object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value at a place, such as `a.b`.
    #[must_use]
    pub fn get(&self, path: impl Into<KeyPath>) -> Option<&Value> {
        look_up(self.value.as_object()?, path.into().keys())
    }

    /// The text at a place, where there is one that is not blank.
    #[must_use]
    pub fn text(&self, path: impl Into<KeyPath>) -> Option<&str> {
        self.get(path)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// Where the value at a place came from. An object whose leaves come from different places has no origin.
    #[must_use]
    pub fn origin(&self, path: impl Into<KeyPath>) -> Option<Origin> {
        let path = path.into();
        let mut inside = self.origins_in(&path).map(|(_, origin)| origin);
        let first = inside.next()?;
        inside.all(|origin| origin == first).then(|| first.clone())
    }

    /// Where a key stands in the file or text that was given: its own place, or that of what it lies in.
    #[must_use]
    pub fn place(&self, path: &KeyPath) -> Option<&Place> {
        let keys = path.keys();
        (1..=keys.len()).rev().find_map(|length| self.places.get(&KeyPath::from(keys.get(..length)?)))
    }

    /// Where a leaf came from, with the line where that is known.
    #[must_use]
    pub fn source(&self, path: &KeyPath, origin: &Origin) -> String {
        match (origin, self.place(path)) {
            (Origin::File { path: file }, Some(place)) if place.file.as_deref() == Some(file) => {
                format!("{origin}:{}", place.line)
            }
            _ => origin.to_string(),
        }
    }

    /// What somebody said or a machine told: everything but presets.
    #[must_use]
    pub fn said(&self) -> Value {
        self.part(|origin| !origin.is_preset())
    }

    /// What only presets say.
    #[must_use]
    pub fn preset(&self) -> Value {
        self.part(Origin::is_preset)
    }

    fn part(&self, wanted: impl Fn(&Origin) -> bool) -> Value {
        let mut part = Map::new();
        for (path, value, _) in self.leaves().filter(|(_, _, origin)| wanted(origin)) {
            put(&mut part, path, value.clone());
        }
        Value::Object(part)
    }

    /// Every leaf with its origin. Lists, secret references and empty objects are leaves.
    pub fn leaves(&self) -> impl Iterator<Item = (&KeyPath, &Value, &Origin)> {
        self.origins
            .iter()
            .filter_map(|(path, origin)| Some((path, look_up(self.value.as_object()?, path.keys())?, origin)))
    }

    /// Sentences for the user, once each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds a sentence for the user, unless it was said.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Puts a value where nothing is yet; answers whether it did. An explicit null is something.
    pub fn set_if_absent(&mut self, path: impl Into<KeyPath>, value: Value, origin: Origin) -> bool {
        let path = path.into();
        if self.get(&path).is_some() {
            return false;
        }
        let nested =
            path.keys().iter().rev().fold(value, |inner, key| Value::Object(Map::from_iter([(key.clone(), inner)])));
        self.merge(nested, &origin, |_| false);
        self.get(&path).is_some()
    }

    /// Lays a value over what is there: objects merge, everything else replaces.
    pub fn overlay(&mut self, value: Value, origin: Origin) {
        self.merge(value, &origin, |_| true);
    }

    /// Lays a value under what is there: only what is absent is taken.
    pub fn underlay(&mut self, value: Value, origin: Origin) {
        self.merge(value, &origin, |_| false);
    }

    /// Lays a value over what `yields` and under everything else.
    pub fn overlay_where(&mut self, value: Value, origin: Origin, yields: impl Fn(&Origin) -> bool) {
        self.merge(value, &origin, yields);
    }

    /// Takes a value away.
    pub fn remove(&mut self, path: impl Into<KeyPath>) {
        let path = path.into();
        let Some((last, outer)) = path.keys().split_last() else { return };
        let mut inner = self.value.as_object_mut();
        for key in outer {
            inner = inner.and_then(|object| object.get_mut(key)).and_then(Value::as_object_mut);
        }
        if let Some(object) = inner {
            object.shift_remove(last);
        }
        self.origins.retain(|leaf, _| !leaf.lies_in(&path));
    }

    /// Checks what another file says, such as a manifest, and writes its keys in the spelling that counts.
    ///
    /// # Errors
    /// A value does not fit its key.
    pub fn admit(&mut self, value: &mut Map<String, Value>, file: &Path) -> Result<(), ConfigError> {
        value.retain(|key, _| !is_comment(key));
        value.values_mut().for_each(without_comments);
        for warning in self.schema.canonical(value, &mut Places::new(), &self.targets) {
            self.warn(format!("{}: {warning}", file.display()));
        }
        self.schema.check(value, &Places::new()).map_err(|error| ConfigError { file: Some(file.to_owned()), ..error })
    }

    /// The targets that exclude each other.
    #[must_use]
    pub fn targets(&self) -> &[TargetKeys] {
        &self.targets
    }

    /// The target that is asked for: by its section, even an empty one, or by name.
    ///
    /// # Errors
    /// Two targets are asked for, or one that is not there.
    pub fn chosen_target(&self) -> Result<Option<Chosen>, ConfigError> {
        let sections: Vec<&TargetKeys> =
            self.targets.iter().filter(|target| self.get([target.name()]).is_some()).collect();
        if let [first, second, ..] = sections.as_slice() {
            let (first, second) = (first.name(), second.name());
            return Err(self.conflict(
                second,
                format!("`{first}` and `{second}` are both there, and a job has one target"),
                format!("take `{first}` or `{second}` out"),
            ));
        }
        let section = sections.first().map(|target| target.name().to_owned());
        let Some(deploy) = self.text(DEPLOY) else {
            return Ok(section.map(|name| Chosen { key: name.clone(), target: name, section: true }));
        };
        let named =
            find_target(deploy, &self.targets).map_err(|error| error.at(self.places.get(&KeyPath::from(DEPLOY))))?;
        match section {
            Some(section) if section != named.name() => Err(self.conflict(
                DEPLOY,
                format!("`{DEPLOY}` says `{deploy}`, and there is a section `{section}`"),
                format!("take the section `{section}` out, or write `{section}` as the value of `{DEPLOY}`"),
            )),
            section => {
                Ok(Some(Chosen { target: named.name().to_owned(), key: DEPLOY.to_owned(), section: section.is_some() }))
            }
        }
    }

    fn conflict(&self, key: &str, message: String, hint: String) -> ConfigError {
        ConfigError::new(ConfigErrorKind::Conflict, message)
            .on_key(key)
            .at(self.places.get(&KeyPath::from([key])))
            .hint(hint)
    }

    /// Looks for keys that nobody knows; `known` are those that something outside the table gives a meaning.
    ///
    /// # Errors
    /// There is one, and `strict` is set.
    pub fn check_keys(&mut self, known: &BTreeSet<String>, strict: bool) -> Result<(), ConfigError> {
        let mut known = known.clone();
        known.extend(self.targets.iter().flat_map(|target| target.0.iter().cloned()));
        let Some(value) = self.value.as_object() else { return Ok(()) };
        for Unknown { path, message, hint } in self.schema.unknown(value, &known) {
            if strict {
                let error =
                    ConfigError::new(ConfigErrorKind::UnknownKey, message).on_key(&path).at(self.places.get(&path));
                return Err(ConfigError { hint: hint.or_else(|| Some("take it out".to_owned())), ..error });
            }
            self.warn(hint.map_or(message.clone(), |hint| format!("{message}; {hint}")));
        }
        let value = self.value.as_object();
        for warning in value.map(|value| self.schema.without_effect(value)).unwrap_or_default() {
            self.warn(warning);
        }
        Ok(())
    }

    fn origins_in<'a>(&'a self, path: &'a KeyPath) -> impl Iterator<Item = (&'a KeyPath, &'a Origin)> {
        self.origins.range(path..).take_while(move |(leaf, _)| leaf.lies_in(path))
    }

    fn merge(&mut self, value: Value, origin: &Origin, yields: impl Fn(&Origin) -> bool) {
        let Value::Object(from) = value else { return };
        let Self { value: Value::Object(into), origins, .. } = self else { return };
        merge_objects(into, from, &KeyPath::default(), &mut Merge { origins, origin, yields: &yields });
    }
}

struct Merge<'a> {
    origins: &'a mut BTreeMap<KeyPath, Origin>,
    origin: &'a Origin,
    yields: &'a dyn Fn(&Origin) -> bool,
}

impl Merge<'_> {
    fn may_replace(&self, path: &KeyPath) -> bool {
        self.origins.range(path..).take_while(|(leaf, _)| leaf.lies_in(path)).all(|(_, origin)| (self.yields)(origin))
    }

    fn forget(&mut self, path: &KeyPath) {
        let gone: Vec<KeyPath> = self
            .origins
            .range(path..)
            .take_while(|(leaf, _)| leaf.lies_in(path))
            .map(|(leaf, _)| leaf.clone())
            .collect();
        for leaf in gone {
            self.origins.remove(&leaf);
        }
    }

    fn record(&mut self, path: &KeyPath, value: &Value) {
        match inner_object(value).filter(|members| !members.is_empty()) {
            Some(members) => members.iter().for_each(|(key, member)| self.record(&path.child(key), member)),
            None => {
                self.origins.insert(path.clone(), self.origin.clone());
            }
        }
    }
}

/// The members of an object that merges; a reference to a secret is a leaf.
fn inner_object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|_| SecretReference::read(value).is_none())
}

fn merge_objects(into: &mut Map<String, Value>, from: Map<String, Value>, outer: &KeyPath, merge: &mut Merge<'_>) {
    for (key, value) in from {
        let path = outer.child(&key);
        let both_objects = into.get(&key).and_then(inner_object).is_some() && inner_object(&value).is_some();
        match (into.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(members)) if both_objects => {
                if members.is_empty() {
                    // An empty object over an empty object: the latter word counts as the origin.
                    if there.is_empty() && merge.may_replace(&path) {
                        merge.origins.insert(path, merge.origin.clone());
                    }
                } else {
                    if there.is_empty() {
                        merge.origins.remove(&path);
                    }
                    merge_objects(there, members, &path, merge);
                }
            }
            (Some(there), value) => {
                if merge.may_replace(&path) {
                    merge.forget(&path);
                    merge.record(&path, &value);
                    *there = value;
                }
            }
            (None, value) => {
                merge.record(&path, &value);
                into.insert(key, value);
            }
        }
    }
}

/// What one source says.
#[derive(Debug, Default)]
struct Layer {
    value: Map<String, Value>,
    places: Places,
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError {
        file: Some(path.to_owned()),
        ..ConfigError::new(ConfigErrorKind::Unreadable, format!("cannot read the additional context: {error}"))
            .hint("`-f` takes the name of a JSON file")
    })?;
    layer(literal::parse_json_located(&bytes), Some(path))
}

fn read_text(text: &str) -> Result<Layer, ConfigError> {
    layer(literal::parse_located(text), None)
}

fn layer(located: Result<Located, LiteralError>, file: Option<&Path>) -> Result<Layer, ConfigError> {
    let place = |line, column| Place { file: file.map(Path::to_owned), line, column };
    let Located { value, keys } = located.map_err(|LiteralError { line, column, message }| {
        let hint =
            if file.is_some() { "the file must be a JSON object" } else { "write a JSON object or a Python dict" };
        ConfigError::new(ConfigErrorKind::Syntax, message).at(Some(&place(line, column))).hint(hint)
    })?;
    let Value::Object(value) = value else {
        return Err(ConfigError::new(ConfigErrorKind::WrongType, "the additional context must be an object")
            .at(Some(&place(1, 1)))
            .hint("write it as `{\"key\": value}`"));
    };
    Ok(Layer { value, places: keys.into_iter().map(|(path, line, column)| (path, place(line, column))).collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn targets() -> Vec<TargetKeys> {
        let keys = |names: &[&str]| TargetKeys(names.iter().map(|name| (*name).to_owned()).collect());
        vec![keys(&["here", "local"]), keys(&["farm"]), keys(&["cloud", "the-cloud"])]
    }

    fn inputs(text: &str) -> Inputs<'_> {
        Inputs { text: Some(text), targets: targets(), known_keys: Some(BTreeSet::new()), ..Inputs::default() }
    }

    fn load(text: &str) -> Result<Effective, ConfigError> {
        Effective::load(&inputs(text))
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn the_command_line_replaces_whole_keys_of_the_file_and_merges_over_defaults() {
        let file =
            file(r#"{"docker_env_vars": {"A": "file"}, "distributed": {"nnodes": 2, "port": 1}, "debug": true}"#);
        let effective =
            Effective::load(&Inputs { file: Some(file.path()), ..inputs("{'distributed': {'nnodes': 4}}") }).unwrap();
        assert_eq!(effective.get("distributed"), Some(&json!({"nnodes": 4})));
        assert_eq!(effective.get("docker_env_vars"), Some(&json!({"A": "file"})));
        assert_eq!(effective.get("docker_build_arg"), Some(&json!({})));
        assert_eq!(effective.origin("distributed.nnodes"), Some(Origin::CommandLine));
        assert_eq!(effective.origin("debug"), Some(Origin::File { path: file.path().to_owned() }));
        assert_eq!(effective.origin("docker_build_arg"), Some(Origin::Default { preset: "defaults.json".to_owned() }));
        assert_eq!(effective.origin("absent"), None);
        assert!(effective.warnings().is_empty());
    }

    #[test]
    fn nothing_and_an_empty_object_mean_the_same() {
        let nothing = Effective::load(&Inputs::default()).unwrap();
        for text in ["", "  \n", "{}", " { } "] {
            assert_eq!(load(text).unwrap().value(), nothing.value());
        }
        assert_eq!(nothing.get("gpu_vendor"), None, "a run looks at the machine first");
        let build = Effective::load(&Inputs { build_defaults: true, ..Inputs::default() }).unwrap();
        assert!(matches!(build.origin("gpu_vendor"), Some(Origin::Default { .. })));
        assert!(build.text("guest_os").is_some());
    }

    #[test]
    fn enumerated_values_are_written_in_upper_case() {
        let build = Effective::load(&Inputs { build_defaults: true, ..Inputs::default() }).unwrap();
        for key in ["gpu_vendor", "guest_os"] {
            let default = build.text(key).unwrap();
            let given = load(&json!({ key: default.to_lowercase() }).to_string()).unwrap();
            assert_eq!(given.text(key), Some(default));
        }
        let error = load("{\n 'guest_os': 'plan9'}").unwrap_err();
        assert_eq!((error.kind, error.line, error.column), (ConfigErrorKind::NotAllowed, Some(2), Some(2)));
        assert!(error.hint.is_some());
        let more = BTreeMap::from([("gpu_vendor".to_owned(), vec!["acme".to_owned()])]);
        let effective = Effective::load(&Inputs { allowed: more, ..inputs("{'gpu_vendor': 'Acme'}") }).unwrap();
        assert_eq!(effective.text("gpu_vendor"), Some("ACME"));
    }

    /// The examples of the contract; the words in them are data.
    #[derive(Deserialize)]
    struct Cases {
        targets: Vec<Vec<String>>,
        accepted: Vec<Accepted>,
        refused: Vec<Refused>,
    }

    #[derive(Deserialize)]
    struct Accepted {
        because: String,
        context: Value,
        expect: BTreeMap<String, Value>,
        #[serde(default)]
        target: Option<String>,
        #[serde(default)]
        warning: Option<String>,
    }

    #[derive(Deserialize)]
    struct Refused {
        because: String,
        context: Value,
        key: Option<String>,
        message: String,
    }

    #[test]
    fn the_contract_s_examples_are_accepted_and_refused_as_it_says() {
        let cases: Cases = serde_json::from_str(include_str!("../../../tests/fixtures/config/contexts.json")).unwrap();
        let targets: Vec<TargetKeys> = cases.targets.into_iter().map(TargetKeys).collect();
        let load =
            |context: &Value| Effective::load(&Inputs { targets: targets.clone(), ..inputs(&context.to_string()) });
        for case in cases.accepted {
            let effective = load(&case.context).unwrap_or_else(|error| panic!("{}: {error}", case.because));
            for (path, expected) in case.expect {
                assert_eq!(effective.get(&path).unwrap_or(&Value::Null), &expected, "{}: {path}", case.because);
            }
            let target = effective.chosen_target().unwrap().map(|chosen| chosen.target);
            assert_eq!(target, case.target, "{}", case.because);
            let said = effective.warnings().join("\n");
            match case.warning {
                Some(warning) => assert!(said.contains(&warning), "{}: {said}", case.because),
                None => assert_eq!(said, "", "{}", case.because),
            }
        }
        for case in cases.refused {
            let Err(error) = load(&case.context) else { panic!("{}: accepted", case.because) };
            assert_eq!(error.key, case.key, "{}", case.because);
            assert!(error.to_string().contains(&case.message), "{}: {error}", case.because);
        }
    }

    #[test]
    fn two_targets_are_refused_and_aliases_become_one() {
        let error = load("{'farm': {}, 'cloud': {}}").unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::Conflict, Some("cloud")));
        let both = load("{'the-cloud': {'a': 1, 'b': 2}, 'cloud': {'a': 3}}").unwrap();
        assert_eq!(both.get("cloud"), Some(&json!({"a": 3, "b": 2})));
        assert_eq!(both.get("the-cloud"), None);
        assert_eq!(both.warnings().len(), 1, "{:?}", both.warnings());
        assert_eq!(load("{'deploy': 'Local'}").unwrap().chosen_target().unwrap().unwrap().target, "here");
        assert_eq!(load("{'deploy': 'farm', 'cloud': {}}").unwrap_err().kind, ConfigErrorKind::Conflict);
        let unknown = load("{'deploy': 'clowd'}").unwrap_err();
        assert!(unknown.hint.unwrap().contains("did you mean `cloud`"));
        assert_eq!(load("{}").unwrap().chosen_target().unwrap(), None);
    }

    #[test]
    fn an_unknown_key_warns_and_strict_refuses_it_unless_a_header_names_it() {
        let effective =
            load("{'guest_oss': 'x', '_comment': 'y', 'distributed': {'nnode': 1, 'own': 2, '_c': 3}}").unwrap();
        let [first, second] = effective.warnings() else { panic!("{:?}", effective.warnings()) };
        assert!(first.contains("`guest_oss`") && first.contains("did you mean `guest_os`"), "{first}");
        assert!(second.contains("`distributed.nnode`") && second.contains("`nnodes`"), "{second}");
        // A section of which all members are known has no others, however little they look like one of them.
        let effective = load("{'slurm': {'cpus_per_task': 4, '_c': 1}}").unwrap();
        let [only] = effective.warnings() else { panic!("{:?}", effective.warnings()) };
        assert!(only.contains("`slurm.cpus_per_task` is not a known key"), "{only}");
        let error = Effective::load(&Inputs { strict: true, ..inputs("{'slurm': {'licenses': 'x'}}") }).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::UnknownKey, Some("slurm.licenses")));
        let error = Effective::load(&Inputs { strict: true, ..inputs("{'flavour': 'x'}") }).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::UnknownKey, Some("flavour")));
        let known = Some(BTreeSet::from(["flavour".to_owned()]));
        assert!(Effective::load(&Inputs { strict: true, known_keys: known, ..inputs("{'flavour': 'x'}") }).is_ok());
        let mut later =
            Effective::load(&Inputs { known_keys: None, strict: true, ..inputs("{'flavour': 'x'}") }).unwrap();
        assert!(later.check_keys(&BTreeSet::new(), true).is_err());
    }

    #[test]
    fn a_key_that_nothing_reads_says_so_and_is_no_error() {
        let config = "{'monitor': False, 'live_output': None, 'timeout': 5, 'tools': []}";
        let effective = Effective::load(&Inputs { strict: true, ..inputs(config) }).unwrap();
        let [first, second] = effective.warnings() else { panic!("{:?}", effective.warnings()) };
        assert!(first.starts_with("`monitor` has no effect: "), "{first}");
        assert!(second.contains("`timeout`") && second.contains("`--timeout`"), "{second}");
    }

    #[test]
    fn secrets_of_the_environment_are_references_and_the_user_s_values_win() {
        let environment = vec!["PATH".to_owned(), "MAD_SECRETS_A".to_owned(), "MY_MAD_SECRETS".to_owned()];
        let effective =
            Effective::load(&Inputs { environment, ..inputs("{'docker_env_vars': {'MY_MAD_SECRETS': 'own'}}") })
                .unwrap();
        let reference = json!({"secret": "env/MAD_SECRETS_A"});
        assert_eq!(effective.get("docker_env_vars.MAD_SECRETS_A"), Some(&reference));
        assert_eq!(effective.get("docker_build_arg.MAD_SECRETS_A"), Some(&reference));
        assert_eq!(effective.get("docker_env_vars.MY_MAD_SECRETS"), Some(&json!("own")));
        assert_eq!(effective.get("docker_env_vars.PATH"), None);
        assert_eq!(
            effective.origin("docker_env_vars.MAD_SECRETS_A"),
            Some(Origin::Environment { name: "MAD_SECRETS_A".to_owned() })
        );
        assert_eq!(effective.origin("docker_env_vars.MY_MAD_SECRETS"), Some(Origin::CommandLine));
    }

    #[test]
    fn what_is_detected_never_replaces_what_is_given() {
        let mut effective = load("{'docker_env_vars': {'A': 'given', 'N': None}}").unwrap();
        let found = || Origin::Detected { plugin: "gpu".to_owned() };
        assert!(!effective.set_if_absent("docker_env_vars.A", json!("found"), found()));
        assert!(!effective.set_if_absent("docker_env_vars.N", json!("found"), found()));
        assert!(effective.set_if_absent("docker_env_vars.B", json!("found"), found()));
        assert!(effective.set_if_absent(["docker_mounts", "/a.b"], json!("/c"), found()));
        assert!(!effective.set_if_absent("docker_env_vars.A.deeper", json!(1), found()));
        assert_eq!(effective.get("docker_env_vars"), Some(&json!({"A": "given", "N": null, "B": "found"})));
        assert_eq!(effective.get(["docker_mounts", "/a.b"]), Some(&json!("/c")));
        assert_eq!(effective.origin("docker_env_vars"), None, "two origins");
        assert_eq!(effective.origin("docker_env_vars.B"), Some(found()));
        effective.overlay(json!({"docker_env_vars": {"A": {"now": "object"}}}), Origin::CommandLine);
        assert_eq!(effective.get("docker_env_vars.A.now"), Some(&json!("object")));
        effective.remove("docker_env_vars.A");
        assert_eq!((effective.get("docker_env_vars.A"), effective.origin("docker_env_vars.A")), (None, None));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_place() {
        let missing =
            Effective::load(&Inputs { file: Some(Path::new("/nowhere/c.json")), ..Inputs::default() }).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/c.json: cannot read"), "{missing}");
        for (content, kind, line) in [
            ("{\n  'a': 1}", ConfigErrorKind::Syntax, 2),
            ("[]", ConfigErrorKind::WrongType, 1),
            ("{\n\n  \"tools\": 1}", ConfigErrorKind::WrongType, 3),
        ] {
            let file = file(content);
            let error = Effective::load(&Inputs { file: Some(file.path()), ..Inputs::default() }).unwrap_err();
            assert_eq!(
                (error.kind, error.line, error.file.as_deref()),
                (kind, Some(line), Some(file.path())),
                "{content}"
            );
        }
        assert_eq!(load("{'a': ").unwrap_err().kind, ConfigErrorKind::Syntax);
        assert_eq!(load("[1]").unwrap_err().kind, ConfigErrorKind::WrongType);
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<u8>().prop_map(Value::from), Just(json!([])), Just(json!({}))];
        let tree = leaf.prop_recursive(3, 24, 4, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        });
        prop::collection::btree_map("[abc]", tree, 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    fn leaves_of(value: &Value, path: &KeyPath, leaves: &mut Vec<KeyPath>) {
        match inner_object(value).filter(|members| !members.is_empty()) {
            Some(members) => members.iter().for_each(|(key, member)| leaves_of(member, &path.child(key), leaves)),
            None => leaves.push(path.clone()),
        }
    }

    proptest! {
        #[test]
        fn after_any_layers_every_leaf_has_an_origin_and_nothing_else_has(
            layers in prop::collection::vec((any_object(), 0_u8..3), 0..5)
        ) {
            let mut effective = Effective::load(&Inputs::default()).unwrap();
            for (value, how) in layers {
                match how {
                    0 => effective.overlay(value, Origin::CommandLine),
                    1 => effective.underlay(value, Origin::Detected { plugin: "p".to_owned() }),
                    _ => effective.overlay_where(value, Origin::Manifest { path: "m".into() }, |origin| !origin.is_given()),
                }
            }
            let mut leaves = Vec::new();
            leaves_of(effective.value(), &KeyPath::default(), &mut leaves);
            leaves.sort();
            let known: Vec<KeyPath> = effective.origins.keys().cloned().collect();
            prop_assert_eq!(leaves, known);
        }
    }
}
