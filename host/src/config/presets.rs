//! Presets: what a target's jobs start from where nobody says anything else. They are data, in `presets/targets` and, for
//! those that a user asks for by name, in `presets/sites` or a file of the user's own. Each says itself when it applies.
//!
//! They lie below everything that is said, and are applied once, when the target is known. What is here must never know a
//! target, a vendor or a key by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::condition::{Condition, Facts, same};
use super::effective::Effective;
use super::error::{ConfigError, ConfigErrorKind};
use super::gpus;
use super::literal;
use super::nearest::{listed, suggestion};
use super::origin::Origin;
use super::path::KeyPath;
use super::schema::{is_comment, look_up, put};

/// Names and contents of the shipped files.
const SHIPPED: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/presets.rs"));
/// Presets in this directory apply by themselves.
const BY_THEMSELVES: &str = "targets/";
/// Presets in this directory are for one site only: a user asks for them.
const ON_REQUEST: &str = "sites/";
/// The version of the format that is read here.
const SCHEMA: u64 = 1;
/// The key that asks for presets by name.
pub const PRESETS: &str = "presets";

/// What cards say of it, where all say the same, counts for conditions.
const DISTRIBUTED: &str = "distributed";

/// A file's content.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(rename = "schema")]
    _schema: u64,
    #[serde(default)]
    summary: String,
    /// Later ones lie over earlier ones.
    #[serde(default)]
    order: u32,
    when: Option<Condition>,
    /// Pairs of keys that mean the same: one that is said is said for both.
    #[serde(default)]
    same: Vec<(String, String)>,
    /// A key that has a meaning only beside another one of the same preset: it is left out where that one is said.
    #[serde(default)]
    goes_with: BTreeMap<String, String>,
    values: Map<String, Value>,
}

/// One preset.
#[derive(Debug, Clone)]
pub struct Preset {
    /// How a user names it, and messages do.
    pub name: String,
    /// Whether it applies only where it is asked for.
    pub on_request: bool,
    origin: Origin,
    content: Content,
}

impl Preset {
    /// Where it stands: directory by directory, in the order that each says.
    fn place(&self) -> (bool, &str, u32, &str) {
        let directory = self.name.rsplit_once('/').map_or("", |(directory, _)| directory);
        (self.on_request, directory, self.content.order, &self.name)
    }

    /// What it is for.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.content.summary
    }

    /// The targets that it is for.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        self.content.when.as_ref().map(Condition::targets).unwrap_or_default()
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.content.when.as_ref().is_none_or(|when| when.holds(facts))
    }
}

/// The shipped presets.
#[derive(Debug, Clone)]
pub struct Shelf(Vec<Preset>);

impl Shelf {
    /// Reads the shipped ones, those that apply by themselves in their order.
    ///
    /// # Errors
    /// One is broken: a fault of the build.
    pub fn shipped() -> Result<Self, ConfigError> {
        let mut presets = SHIPPED.iter().map(|(file, text)| shipped(file, text)).collect::<Result<Vec<_>, _>>()?;
        presets.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(Self(presets))
    }

    /// All of them.
    pub fn presets(&self) -> impl Iterator<Item = &Preset> {
        self.0.iter()
    }

    /// Those that were asked for: by name, or by the path of a file.
    fn requested(&self, config: &mut Effective) -> Result<Vec<Preset>, ConfigError> {
        let asked = match config.get(PRESETS) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(one)) => vec![one.clone()],
            Some(value) => {
                value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            }
        };
        let mut found: Vec<Preset> = Vec::new();
        for name in asked {
            let place = config.place(&KeyPath::from(PRESETS)).cloned();
            let preset = self.named(&name, config).map_err(|error| match error.file {
                None => error.at(place.as_ref()),
                Some(_) => error,
            })?;
            found.retain(|there| there.name != preset.name);
            found.push(preset);
        }
        Ok(found)
    }

    fn named(&self, name: &str, config: &mut Effective) -> Result<Preset, ConfigError> {
        let plain = name.trim();
        if let Some(preset) = self.0.iter().find(|preset| preset.on_request && preset.name == plain) {
            return Ok(preset.clone());
        }
        if is_path(plain) {
            return own(Path::new(plain), config);
        }
        let known: Vec<&str> =
            self.0.iter().filter(|preset| preset.on_request).map(|preset| preset.name.as_str()).collect();
        let near = suggestion(plain, known.iter().copied()).map_or(String::new(), |near| format!("; {near}"));
        Err(ConfigError::new(ConfigErrorKind::UnknownName, format!("there is no preset `{plain}`"))
            .on_key(PRESETS)
            .hint(format!("presets to ask for are {}, or the path of a JSON file{near}", listed(&known, "and"))))
    }
}

/// A card that speaks for all of these: what every one says of the number of GPUs and of how it is distributed.
#[must_use]
pub fn common<'a>(models: impl IntoIterator<Item = &'a Value>) -> Value {
    let models: Vec<&Value> = models.into_iter().collect();
    let mut card = Map::new();
    card.extend(gpus::common(models.iter().copied()).as_object().cloned().unwrap_or_default());
    if let Some((first, others)) = models.split_first() {
        let of = |model: &Value| model.get(DISTRIBUTED).filter(|section| section.is_object()).cloned();
        if let Some(section) =
            of(first).filter(|section| others.iter().all(|other| of(other).as_ref() == Some(section)))
        {
            card.insert(DISTRIBUTED.to_owned(), section);
        }
    }
    Value::Object(card)
}

/// Whether a name of a preset is the path of a file.
#[must_use]
pub fn is_path(name: &str) -> bool {
    name.contains('/') || Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn shipped(file: &str, text: &str) -> Result<Preset, ConfigError> {
    let broken = |message: String| ConfigError::new(ConfigErrorKind::Preset, format!("presets/{file}: {message}"));
    let value = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
    let content = read(value).map_err(broken)?;
    let on_request = file.starts_with(ON_REQUEST);
    let short = file.strip_prefix(BY_THEMSELVES).unwrap_or(file);
    let name = short.strip_prefix(ON_REQUEST).unwrap_or(short).trim_end_matches(".json");
    let origin = Origin::Default { preset: short.to_owned() };
    Ok(Preset { name: name.to_owned(), on_request, origin, content })
}

/// A preset of the user's own.
fn own(path: &Path, config: &mut Effective) -> Result<Preset, ConfigError> {
    let wrong = |kind: ConfigErrorKind, message: String| ConfigError {
        file: Some(path.to_owned()),
        ..ConfigError::new(kind, message).on_key(PRESETS)
    };
    let bytes = std::fs::read(path).map_err(|error| {
        wrong(ConfigErrorKind::Unreadable, format!("cannot read the preset: {error}"))
            .hint("a preset is named, or is the path of a JSON file; `maddock config presets` lists the names")
    })?;
    let located = literal::parse_json_located(&bytes).map_err(|error| ConfigError {
        line: Some(error.line),
        column: Some(error.column),
        ..wrong(ConfigErrorKind::Syntax, error.message)
    })?;
    let mut content = read(located.value).map_err(|message| {
        wrong(ConfigErrorKind::Invalid, message)
            .hint("a preset is `{\"schema\": 1, \"values\": {…}}`, with `summary` and `when` if you like")
    })?;
    config.admit(&mut content.values, path)?;
    let origin = Origin::Preset { path: path.to_owned() };
    Ok(Preset { name: path.display().to_string(), on_request: true, origin, content })
}

fn read(mut value: Value) -> Result<Content, String> {
    without_comments(&mut value);
    match value.get("schema").map(Value::as_u64) {
        Some(Some(SCHEMA)) => serde_json::from_value(value).map_err(|error| error.to_string()),
        Some(_) => Err(format!(
            "this preset is of schema {}, and this version reads schema {SCHEMA}",
            value.get("schema").unwrap_or(&Value::Null)
        )),
        None => Err(format!("this preset does not say its `schema`; the one that is read here is {SCHEMA}")),
    }
}

/// Takes out what authors remark in keys that begin with an underscore.
pub(super) fn without_comments(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !is_comment(key));
            members.values_mut().for_each(without_comments);
        }
        Value::Array(items) => items.iter_mut().for_each(without_comments),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Effective {
    /// Lays the presets that apply under what is said. `target` is where the job goes, and `model` a card that speaks for
    /// all models, or null.
    ///
    /// # Errors
    /// A preset that was asked for is not there, or what is said cannot be together.
    pub fn apply_presets(&mut self, shelf: &Shelf, target: &str, model: &Value) -> Result<(), ConfigError> {
        let names = self.target_names(target);
        let name = names.first().map_or(target, String::as_str).to_owned();
        let sections: Vec<&str> = names.iter().map(String::as_str).collect();
        let said = self.said();

        let requested = self.requested_for(shelf, &name, &sections, model)?;
        let mut asked_for = Value::Object(Map::new());
        for preset in &requested {
            lay_over(&mut asked_for, &Value::Object(preset.content.values.clone()));
        }
        let gpus = gpus::resolve(&said, &sections, model, &asked_for);
        self.refuse_contradiction(&said, &gpus)?;

        let mut below = Value::Object(Map::new());
        let mut applying: Vec<&Preset> = Vec::new();
        for preset in shelf.0.iter().filter(|preset| !preset.on_request) {
            let mut config = below.clone();
            lay_over(&mut config, &asked_for);
            if let Some(of_models) = model.get(DISTRIBUTED) {
                lay_over(&mut config, &serde_json::json!({ DISTRIBUTED: of_models }));
            }
            lay_over(&mut config, self.value());
            if preset.holds(&Facts { target: &name, config: &config, gpus: gpus.count }) {
                for (one, other) in &preset.content.same {
                    self.say_both(&KeyPath::from(one), &KeyPath::from(other))?;
                }
                lay_over(&mut below, &Value::Object(preset.content.values.clone()));
                applying.push(preset);
            }
        }
        // From the top down: what lies higher is there already when the next one is laid under it.
        let said = self.value().clone();
        for preset in requested.iter().rev().chain(applying.into_iter().rev()) {
            self.underlay(Value::Object(preset.beside(&said)), preset.origin.clone());
        }
        Ok(())
    }

    fn requested_for(
        &mut self,
        shelf: &Shelf,
        target: &str,
        sections: &[&str],
        model: &Value,
    ) -> Result<Vec<Preset>, ConfigError> {
        let requested = shelf.requested(self)?;
        let gpus = gpus::resolve(self.value(), sections, model, &Value::Null).count;
        let (fitting, others): (Vec<Preset>, Vec<Preset>) =
            requested.into_iter().partition(|preset| preset.holds(&Facts { target, config: self.value(), gpus }));
        for preset in others {
            let of = preset.targets();
            let why = if of.is_empty() || of.contains(&target) {
                "its condition does not hold".to_owned()
            } else {
                format!("it is for {}, and the target is `{target}`", listed(&of, "or"))
            };
            self.warn(format!("the preset `{}` has no effect: {why}", preset.name));
        }
        Ok(fitting)
    }

    /// A configuration that says there are no accelerators cannot ask for some.
    fn refuse_contradiction(&self, said: &Value, gpus: &gpus::Resolved) -> Result<(), ConfigError> {
        if !gpus::without(said) || matches!(gpus.count, gpus::Count::Exactly(0)) {
            return Ok(());
        }
        let key = KeyPath::from(&gpus.source);
        Err(ConfigError::new(
            ConfigErrorKind::Conflict,
            format!("`{key}` asks for GPUs, and `{}` says that there are none", gpus::VENDOR),
        )
        .on_key(&key)
        .at(self.place(&key))
        .hint(format!("take `{key}` out, or name the vendor in `{}`", gpus::VENDOR)))
    }

    /// Two keys that mean the same: what is said for one is said for the other. The word for this invocation counts more
    /// than a manifest's.
    fn say_both(&mut self, one: &KeyPath, other: &KeyPath) -> Result<(), ConfigError> {
        let here = |path: &KeyPath| {
            let value = self.get(path).filter(|value| !value.is_null())?.clone();
            self.origin(path).filter(|origin| !origin.is_preset()).map(|origin| (value, origin))
        };
        match (here(one), here(other)) {
            (Some((value, origin)), None) => self.overlay(nested(other, value), origin),
            (None, Some((value, origin))) => self.overlay(nested(one, value), origin),
            (Some((a, of_a)), Some((b, of_b))) if !same(&a, &b) => match (of_a.is_given(), of_b.is_given()) {
                (true, false) => self.overlay(nested(other, a), of_a),
                (false, true) => self.overlay(nested(one, b), of_b),
                _ => {
                    return Err(ConfigError::new(
                        ConfigErrorKind::Conflict,
                        format!("`{one}` is {a}, and `{other}` is {b}, and they must be the same"),
                    )
                    .on_key(one)
                    .at(self.place(one))
                    .hint(format!("give `{one}` and `{other}` the same value, or only one of them")));
                }
            },
            _ => {}
        }
        Ok(())
    }
}

impl Preset {
    /// Its values beside what is said.
    fn beside(&self, said: &Value) -> Map<String, Value> {
        let mut values = self.content.values.clone();
        for (key, partner) in &self.content.goes_with {
            let partner_said = said
                .as_object()
                .and_then(|said| look_up(said, KeyPath::from(partner).keys()))
                .is_some_and(|value| !value.is_null());
            if partner_said {
                let path = KeyPath::from(key);
                if let Some((last, outer)) = path.keys().split_last() {
                    let mut inner = Some(&mut values);
                    for key in outer {
                        inner = inner.and_then(|object| object.get_mut(key)).and_then(Value::as_object_mut);
                    }
                    inner.map(|object| object.shift_remove(last));
                }
            }
        }
        values
    }
}

fn nested(path: &KeyPath, value: Value) -> Value {
    let mut object = Map::new();
    put(&mut object, path, value);
    Value::Object(object)
}

/// Lays a value over another: objects merge, everything else replaces.
fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => below.clone_from(above),
    }
}

/// The names of presets as options and keys give them; paths become absolute, so that a manifest finds them again.
pub(super) fn absolute(name: &str, directory: &Path) -> String {
    let name = name.trim();
    if is_path(name) { PathBuf::from(directory).join(name).display().to_string() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use serde_json::json;

    use super::*;
    use crate::config::{Inputs, TargetKeys};

    #[derive(Deserialize)]
    struct Cases {
        targets: Vec<Vec<String>>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        target: String,
        context: Value,
        #[serde(default)]
        model: Value,
    }

    fn cases() -> Cases {
        serde_json::from_str(include_str!("../../../tests/fixtures/config/presets.json")).unwrap()
    }

    fn load(context: &Value) -> Result<Effective, ConfigError> {
        let targets = cases().targets.into_iter().map(TargetKeys).collect();
        Effective::load(&Inputs { text: Some(&context.to_string()), targets, ..Inputs::default() })
    }

    fn applied(target: &str, context: &Value) -> Result<Effective, ConfigError> {
        let mut effective = load(context)?;
        effective.apply_presets(&Shelf::shipped()?, target, &Value::Null)?;
        Ok(effective)
    }

    fn get(target: &str, context: Value, key: &str) -> Value {
        applied(target, &context).unwrap().get(key).cloned().unwrap_or(Value::Null)
    }

    #[test]
    fn the_examples_have_the_values_of_the_contract() {
        for case in cases().cases {
            let mut effective = load(&case.context).unwrap();
            effective.apply_presets(&Shelf::shipped().unwrap(), &case.target, &case.model).unwrap();
            let mut text = String::new();
            for (path, value, origin) in effective.leaves() {
                writeln!(text, "{path} = {value}  [{origin}]").unwrap();
            }
            insta::with_settings!({ description => case.context.to_string(), omit_expression => true }, {
                insta::assert_snapshot!(case.name, text);
            });
        }
    }

    #[test]
    fn applying_presets_twice_changes_nothing() {
        for case in cases().cases {
            let shelf = Shelf::shipped().unwrap();
            let mut effective = load(&case.context).unwrap();
            effective.apply_presets(&shelf, &case.target, &case.model).unwrap();
            let once = effective.value().clone();
            effective.apply_presets(&shelf, &case.target, &case.model).unwrap();
            assert_eq!(effective.value(), &once, "{}", case.name);
        }
    }

    #[test]
    fn the_profile_follows_what_is_said_as_the_contract_has_it() {
        let memory = |context: Value| get("k8s", context, "k8s.memory");
        for (context, expected) in [
            (json!({}), json!("16Gi")),
            (json!({"k8s": {"gpu_count": 1}}), json!("16Gi")),
            (json!({"k8s": {"gpu_count": "1"}}), json!("16Gi")),
            (json!({"k8s": {"gpu_count": 2}}), json!("64Gi")),
            (json!({"k8s": {"gpu_count": "2"}}), json!("64Gi")),
            (json!({"n_gpus": 2}), json!("64Gi")),
            (json!({"distributed": {"enabled": true}}), json!("64Gi")),
            (json!({"distributed": {"enabled": false}}), json!("16Gi")),
            (json!({"distributed": {"launcher": "vllm"}}), json!("64Gi")),
            (json!({"distributed": {"nnodes": 2}}), json!("64Gi")),
            (json!({"k8s": {"gpu_count": 0}}), Value::Null),
            (json!({"gpu_vendor": "none"}), Value::Null),
        ] {
            assert_eq!(memory(context.clone()), expected, "{context}");
        }
        for (context, expected) in [
            (json!({}), json!("12:00:00")),
            (json!({"slurm": {"nodes": 1}}), json!("12:00:00")),
            (json!({"slurm": {"nodes": 2}}), json!("24:00:00")),
            (json!({"slurm": {"nodes": "2"}}), json!("24:00:00")),
            (json!({"distributed": {"nnodes": 4}}), json!("24:00:00")),
            (json!({"slurm": {"nodes": null}}), json!("12:00:00")),
        ] {
            assert_eq!(get("slurm", context.clone(), "slurm.time"), expected, "{context}");
        }
        assert_eq!(get("kubernetes", json!({}), "k8s.memory"), json!("16Gi"), "by another of its names");
    }

    #[test]
    fn what_all_models_say_of_their_nodes_chooses_the_profile_and_presets_say_no_number_of_nodes() {
        let card = |nodes: u32| json!({"n_gpus": "8", "distributed": {"launcher": "torchrun", "nnodes": nodes}});
        let profile = |cards: &[Value], context: Value| {
            let mut effective = load(&context).unwrap();
            effective.apply_presets(&Shelf::shipped().unwrap(), "slurm", &common(cards)).unwrap();
            assert_eq!(effective.get("distributed.launcher"), None, "a card is no configuration");
            (effective.get("slurm.time").cloned().unwrap(), effective.get("slurm.nodes").cloned())
        };
        assert_eq!(profile(&[card(2), card(2)], json!({})), (json!("24:00:00"), None));
        assert_eq!(profile(&[card(2), card(4)], json!({})), (json!("12:00:00"), None), "they do not agree");
        assert_eq!(profile(&[card(2)], json!({"slurm": {"nodes": 1}})), (json!("12:00:00"), Some(json!(1))));
        assert_eq!(common(&[]), json!({}));
    }

    #[test]
    fn what_the_user_says_wins_and_a_limit_does_not_stay_without_its_request() {
        let user = json!({"k8s": {"gpu_count": 2, "memory": "512Gi", "cpu": null}, "env_vars": {"NCCL_DEBUG": null}});
        let effective = applied("k8s", &user).unwrap();
        assert_eq!(effective.get("k8s.memory"), Some(&json!("512Gi")));
        assert_eq!(effective.get("k8s.memory_limit"), None);
        assert_eq!(effective.get("k8s.cpu"), Some(&Value::Null), "null takes a preset's value away");
        assert_eq!(effective.get("env_vars.NCCL_DEBUG"), Some(&Value::Null));
        assert_eq!(effective.origin("k8s.memory"), Some(Origin::CommandLine));
        let preset = Origin::Default { preset: "k8s/multi-gpu.json".to_owned() };
        assert_eq!(effective.origin("k8s.cpu_limit"), Some(preset));
    }

    #[test]
    fn two_words_for_the_nodes_must_agree() {
        for (slurm, nnodes) in [(json!(2), json!(2)), (json!("2"), json!(2)), (json!(null), json!(2))] {
            let context = json!({"slurm": {"nodes": slurm}, "distributed": {"nnodes": nnodes}});
            assert_eq!(get("slurm", context, "distributed.nnodes"), json!(2));
        }
        let context = json!({"slurm": {"nodes": 2}, "distributed": {"nnodes": 4}});
        let error = applied("slurm", &context).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::Conflict, Some("slurm.nodes")));
        assert!(error.line.is_some() && error.hint.is_some(), "{error:?}");
        assert!(applied("process", &context).is_ok(), "it is a rule of one target");
    }

    #[test]
    fn a_network_that_somebody_names_is_not_overruled_by_a_preset_s_variable() {
        let of = |section: Value| {
            let effective = applied("slurm", &json!({"gpu_vendor": "AMD", "slurm": section})).unwrap();
            effective.get("env_vars.NCCL_SOCKET_IFNAME").cloned()
        };
        assert_eq!(of(json!({"nodes": 2, "network_interface": "ib0"})), None);
        assert_eq!(of(json!({"nodes": 2})), Some(json!("eth0")));
    }

    #[test]
    fn no_vendor_and_a_number_of_gpus_contradict_each_other() {
        let error = applied("slurm", &json!({"gpu_vendor": "NONE", "slurm": {"gpus_per_node": 4}})).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::Conflict, Some("slurm.gpus_per_node")));
        assert!(applied("slurm", &json!({"gpu_vendor": "NONE", "slurm": {"gpus_per_node": 0}})).is_ok());
    }

    #[test]
    fn a_site_s_values_come_only_where_they_are_asked_for() {
        for target in ["k8s", "slurm"] {
            let text = applied(target, &json!({})).unwrap().value().to_string();
            assert!(!text.contains("banff") && !text.contains("amd-rccl"), "{text}");
        }
        assert_eq!(get("slurm", json!({"presets": ["amd-rccl"]}), "slurm.partition"), json!("amd-rccl"));
        let own = json!({"presets": ["amd-rccl"], "slurm": {"partition": "mine"}});
        assert_eq!(get("slurm", own, "slurm.partition"), json!("mine"));
        let elsewhere = applied("k8s", &json!({"presets": "amd-rccl"})).unwrap();
        assert!(elsewhere.warnings().iter().any(|said| said.contains("it is for `slurm`")), "{elsewhere:?}");
        let error = applied("slurm", &json!({"presets": ["amd-rcll"]})).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (ConfigErrorKind::UnknownName, Some("presets")));
        let hint = error.hint.unwrap();
        assert!(hint.contains("`nfs-banff`") && hint.contains("did you mean `amd-rccl`"), "{hint}");
        assert!(applied("slurm", &json!({"presets": ["slurm/defaults"]})).is_err(), "that one applies by itself");
    }

    #[test]
    fn a_preset_of_the_user_s_own_is_a_file_that_is_checked_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            let path = directory.path().join("own.json");
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let apply = |text: &str, more: Value| {
            let mut context = json!({"presets": [write(text)]});
            context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            applied("slurm", &context)
        };
        let good =
            r#"{"_about": "us", "schema": 1, "values": {"slurm": {"gpus_per_node": 4, "_c": 1, "time": "1:00:00"}}}"#;
        let effective = apply(good, json!({})).unwrap();
        assert_eq!(effective.get("slurm.gpus_per_node"), Some(&json!(4)));
        assert_eq!(effective.get("slurm._c"), None);
        assert!(effective.origin("slurm.time").unwrap().to_string().starts_with("preset /"));
        let said = apply(good, json!({"slurm": {"time": "2:00:00"}})).unwrap();
        assert_eq!(said.get("slurm.time"), Some(&json!("2:00:00")));
        for (text, part) in [
            (r#"{"schema": 2, "values": {}}"#, "schema 2, and this version reads schema 1"),
            (r#"{"schema": "1", "values": {}}"#, "of schema \"1\""),
            (r#"{"values": {}}"#, "does not say its `schema`"),
            (r#"{"schema": 1, "value": {}}"#, "unknown field `value`"),
            (r#"{"schema": 1, "when": {"weekday": 1}, "values": {}}"#, "unknown variant `weekday`"),
            (r#"{"schema": 1, "values": {"slurm": {"nodes": 0}}}"#, "`slurm.nodes` is 0"),
            ("[1,", "own.json:1:"),
        ] {
            let error = apply(text, json!({})).unwrap_err();
            assert!(error.to_string().contains(part) && error.to_string().contains("own.json"), "{text}: {error}");
        }
        assert!(
            applied("slurm", &json!({"presets": ["/nowhere/own.json"]})).unwrap_err().to_string().contains("/nowhere")
        );
    }

    #[test]
    fn every_shipped_preset_is_read_and_says_what_it_is_for() {
        let shelf = Shelf::shipped().unwrap();
        assert!(shelf.presets().count() >= 13);
        for preset in shelf.presets() {
            assert!(!preset.summary().is_empty() && !preset.targets().is_empty(), "{}", preset.name);
            let mut values = preset.content.values.clone();
            load(&json!({})).unwrap().admit(&mut values, Path::new(&preset.name)).unwrap();
            assert_eq!(values, preset.content.values, "{}: in the spelling that counts", preset.name);
        }
    }
}
