//! Which keys a context may have: their types, allowed values and other spellings. The table is data, in
//! `presets/context-schema.json`; what is here reads it and compares. It must never know a key by name, except `deploy`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{ConfigError, ConfigErrorKind, Place};
use super::nearest::{listed, nearest, suggestion};
use super::path::KeyPath;
use super::scalar_text;
use super::secret::SecretReference;

const SHIPPED: &str = include_str!("../../../presets/context-schema.json");

/// The version of the table's format that is read here.
const SCHEMA: u32 = 1;

/// The key that names a target instead of configuring one.
pub const DEPLOY: &str = "deploy";

/// The names that one target answers to; the first is the one that counts, the others become it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetKeys(pub Vec<String>);

impl TargetKeys {
    /// The name that counts.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Whether the target answers to `name`; case, hyphen and underscore do not matter.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        let plain = |name: &str| name.trim().to_lowercase().replace('-', "_");
        self.0.iter().any(|own| plain(own) == plain(name))
    }
}

/// Finds the target of a name.
///
/// # Errors
/// Nobody answers to it; the message lists who there is.
pub fn find_target<'a>(name: &str, targets: &'a [TargetKeys]) -> Result<&'a TargetKeys, ConfigError> {
    targets.iter().find(|target| target.answers_to(name)).ok_or_else(|| {
        let known: Vec<&str> = targets.iter().flat_map(|target| &target.0).map(String::as_str).collect();
        let near = suggestion(name, known.iter().copied()).map_or(String::new(), |near| format!("; {near}"));
        ConfigError::new(ConfigErrorKind::UnknownName, format!("there is no target `{name}`"))
            .on_key(DEPLOY)
            .hint(format!("targets here are {}{near}", listed(&known, "and")))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Number => "a number",
            Self::String => "a text",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }
}

/// What a key may hold. All empty: anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    types: Vec<Type>,
    /// Upper case; values are compared without case and written so.
    allowed: Vec<String>,
    /// A map of names to values: members are free, those that begin with `_` are comments.
    environment: bool,
    /// Types of the members of such a map.
    values: Vec<Type>,
    /// Members become texts.
    as_text: bool,
    /// A whole number, or a text of one, from this one on; another text is refused.
    least: Option<i64>,
    /// The largest one, beside `least`.
    most: Option<i64>,
    /// A text that is no number is somebody else's to judge.
    lenient: bool,
    /// Types of a list's items.
    items: Vec<Type>,
    non_empty: bool,
    members: BTreeMap<String, Rule>,
    /// There are no other members than those.
    closed: bool,
    /// It is known, and nothing reads it: why, or what to do instead.
    no_effect: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias {
    from: String,
    to: String,
    /// The other spelling stays as well.
    #[serde(default)]
    keep: bool,
}

/// The table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    schema: u32,
    keys: BTreeMap<String, Rule>,
    aliases: Vec<Alias>,
}

/// Where the keys of one source stand.
pub type Places = BTreeMap<KeyPath, Place>;

/// A key that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where.
    pub path: KeyPath,
    /// One sentence.
    pub message: String,
    /// The nearest known ones.
    pub hint: Option<String>,
}

impl Schema {
    /// The shipped table, with further allowed values (by key) that plugins bring.
    ///
    /// # Errors
    /// The table is broken: a fault of the build.
    pub fn shipped(more_allowed: &BTreeMap<String, Vec<String>>) -> Result<Self, ConfigError> {
        let broken =
            |message: String| ConfigError::new(ConfigErrorKind::Preset, format!("context-schema.json: {message}"));
        let mut schema: Self = serde_json::from_str(SHIPPED).map_err(|error| broken(error.to_string()))?;
        if schema.schema != SCHEMA {
            return Err(broken(format!("schema {} is not known here", schema.schema)));
        }
        for (key, values) in more_allowed {
            let allowed = &mut schema.keys.entry(key.clone()).or_default().allowed;
            for value in values.iter().map(|value| value.to_uppercase()) {
                if !allowed.contains(&value) {
                    allowed.push(value);
                }
            }
        }
        Ok(schema)
    }

    /// The keys of the table.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Other spellings become the one that counts; `places` moves with them. Answers warnings.
    pub fn canonical(
        &self,
        value: &mut Map<String, Value>,
        places: &mut Places,
        targets: &[TargetKeys],
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        let of_targets = targets.iter().flat_map(|target| {
            target.0.iter().skip(1).map(|alias| Alias {
                from: alias.clone(),
                to: target.name().to_owned(),
                keep: false,
            })
        });
        for alias in self.aliases.iter().cloned().chain(of_targets) {
            let (from, to) = (KeyPath::from(&alias.from), KeyPath::from(&alias.to));
            let Some(moved) =
                (if alias.keep { look_up(value, from.keys()).cloned() } else { take(value, from.keys()) })
            else {
                continue;
            };
            for (old, place) in places.clone() {
                if old.lies_in(&from) {
                    places.entry(old.moved(&from, &to)).or_insert(place);
                }
            }
            if !settle(value, to.keys(), moved) {
                warnings.push(format!("`{from}` is another name of `{to}`; both are given, and `{to}` counts"));
            }
        }
        warnings
    }

    /// Compares every known key with its rule, writes enumerated values in upper case, build arguments as texts, and takes
    /// comments out of maps of variables.
    ///
    /// # Errors
    /// The first key that does not fit.
    pub fn check(&self, value: &mut Map<String, Value>, places: &Places) -> Result<(), ConfigError> {
        for (key, member) in value.iter_mut() {
            if let Some(rule) = self.keys.get(key) {
                rule.check(&KeyPath::default().child(key), member, places)?;
            }
        }
        Ok(())
    }

    /// What is said of keys that are known and have no effect.
    #[must_use]
    pub fn without_effect(&self, value: &Map<String, Value>) -> Vec<String> {
        let said = value.iter().filter(|(_, member)| !member.is_null());
        said.filter_map(|(key, _)| {
            let why = self.keys.get(key).map(|rule| rule.no_effect.as_str()).filter(|why| !why.is_empty())?;
            Some(format!("`{key}` has no effect: {why}"))
        })
        .collect()
    }

    /// Keys that are neither in the table nor in `known`. Sections are a target's own: in them only a name that looks like
    /// a slip of the pen counts, unless the table has all of them.
    #[must_use]
    pub fn unknown(&self, value: &Map<String, Value>, known: &BTreeSet<String>) -> Vec<Unknown> {
        let mut unknown = Vec::new();
        for (key, member) in value {
            let path = KeyPath::default().child(key);
            match self.keys.get(key) {
                Some(rule) => rule.unknown_members(&path, member, &mut unknown),
                None if is_comment(key) || known.contains(key) => {}
                None => unknown.push(Unknown {
                    path,
                    message: format!("`{key}` is not a known key, and no build file's header names it"),
                    hint: suggestion(key, self.keys().chain(known.iter().map(String::as_str))),
                }),
            }
        }
        unknown
    }
}

impl Rule {
    fn check(&self, path: &KeyPath, value: &mut Value, places: &Places) -> Result<(), ConfigError> {
        fits(&self.types, value).map_err(|message| wrong_type(path, places, &format!("`{path}` {message}")))?;
        self.check_number(path, value, places)?;
        match value {
            Value::String(text) => self.check_allowed(path, text, places)?,
            Value::Array(items) => {
                if self.non_empty && items.is_empty() {
                    let error = ConfigError::new(ConfigErrorKind::NotAllowed, format!("`{path}` is an empty list"));
                    return Err(error
                        .on_key(path)
                        .at(places.get(path))
                        .hint("leave the key out, or give at least one item"));
                }
                for (index, item) in items.iter().enumerate() {
                    fits(&self.items, item).map_err(|message| {
                        wrong_type(path, places, &format!("item {} of `{path}` {message}", index + 1))
                    })?;
                }
            }
            Value::Object(members) => self.check_members(path, members, places)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    fn check_number(&self, path: &KeyPath, value: &Value, places: &Places) -> Result<(), ConfigError> {
        let Some(least) = self.least else { return Ok(()) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.trim().is_empty() => return Ok(()),
            Value::String(text) => text.trim().parse::<i64>().ok().and_then(|number| number.to_string().parse().ok()),
            _ => return Ok(()),
        };
        if number.is_none() && self.lenient {
            return Ok(());
        }
        let (lowest, highest) = (exact(least), self.most.map_or(f64::INFINITY, exact));
        if number.is_some_and(|number| number.fract() == 0.0 && number >= lowest && number <= highest) {
            return Ok(());
        }
        let wanted = match self.most {
            Some(most) => format!("a whole number from {least} to {most}"),
            None => format!("a whole number from {least} on"),
        };
        Err(ConfigError::new(ConfigErrorKind::NotAllowed, format!("`{path}` is {value}, which is not {wanted}"))
            .on_key(path)
            .at(places.get(path))
            .hint(format!("write {wanted}, or leave `{path}` out")))
    }

    fn check_allowed(&self, path: &KeyPath, text: &mut String, places: &Places) -> Result<(), ConfigError> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        let upper = text.trim().to_uppercase();
        if !self.allowed.contains(&upper) {
            let known = listed(&self.allowed, "or");
            return Err(ConfigError::new(
                ConfigErrorKind::NotAllowed,
                format!("`{path}` is `{text}`, which is not one of {known}"),
            )
            .on_key(path)
            .at(places.get(path))
            .hint(suggestion(&upper, self.allowed.iter().map(String::as_str)).unwrap_or(format!("write {known}"))));
        }
        *text = upper;
        Ok(())
    }

    fn check_members(
        &self,
        path: &KeyPath,
        members: &mut Map<String, Value>,
        places: &Places,
    ) -> Result<(), ConfigError> {
        if self.environment {
            members.retain(|name, _| !is_comment(name));
        }
        for (name, member) in members.iter_mut() {
            if self.environment && SecretReference::read(member).is_some() {
                continue;
            }
            let inner = path.child(name);
            fits(&self.values, member)
                .map_err(|message| wrong_type(&inner, places, &format!("`{inner}` {message}")))?;
            if let Some(rule) = self.members.get(name) {
                rule.check(&inner, member, places)?;
            }
            if let Some(text) = scalar_text(member).filter(|_| self.as_text) {
                *member = Value::String(text);
            }
        }
        Ok(())
    }

    fn unknown_members(&self, path: &KeyPath, value: &Value, unknown: &mut Vec<Unknown>) {
        let Some(members) = value.as_object().filter(|_| !self.environment && !self.members.is_empty()) else { return };
        for (name, member) in members {
            if let Some(rule) = self.members.get(name) {
                rule.unknown_members(&path.child(name), member, unknown);
            } else if !is_comment(name) {
                let known = || self.members.keys().map(String::as_str);
                // Stricter than for whole keys: `cpu_limits` is a slip, `scheduler` somebody's own.
                let slip = nearest(name, known()).first().is_some_and(|near| strsim::levenshtein(near, name) <= 2);
                if slip || self.closed {
                    let path = path.child(name);
                    let message = format!("`{path}` is not a known key");
                    unknown.push(Unknown { path, message, hint: suggestion(name, known()) });
                }
            }
        }
    }
}

/// Keys that begin with an underscore are remarks of the author.
#[must_use]
pub fn is_comment(key: &str) -> bool {
    key.starts_with('_')
}

/// The bounds of the table are small: they are floats exactly.
fn exact(bound: i64) -> f64 {
    i32::try_from(bound).map_or(f64::MAX, f64::from)
}

fn fits(types: &[Type], value: &Value) -> Result<(), String> {
    let found = Type::of(value);
    if types.is_empty() || types.contains(&found) {
        return Ok(());
    }
    let wanted: Vec<&str> = types.iter().map(|wanted| wanted.phrase()).collect();
    Err(format!("must be {}, and is {}", wanted.join(" or "), found.phrase()))
}

fn wrong_type(path: &KeyPath, places: &Places, message: &str) -> ConfigError {
    ConfigError::new(ConfigErrorKind::WrongType, message).on_key(path).at(places.get(path))
}

/// The value at a place.
pub(super) fn look_up<'a>(value: &'a Map<String, Value>, keys: &[String]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    let member = value.get(first)?;
    if rest.is_empty() { Some(member) } else { look_up(member.as_object()?, rest) }
}

/// Puts a value at a place; what is no object on the way there stays as it is.
pub(crate) fn put(into: &mut Map<String, Value>, path: &KeyPath, value: Value) {
    let mut object = into;
    let Some((last, outer)) = path.keys().split_last() else { return };
    for key in outer {
        let Value::Object(inner) = object.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())) else {
            return;
        };
        object = inner;
    }
    object.insert(last.clone(), value);
}

/// Takes the value at a place out, and objects that become empty by that.
fn take(value: &mut Map<String, Value>, keys: &[String]) -> Option<Value> {
    let (first, rest) = keys.split_first()?;
    if rest.is_empty() {
        return value.shift_remove(first);
    }
    let inner = value.get_mut(first)?.as_object_mut()?;
    let taken = take(inner, rest)?;
    if inner.is_empty() {
        value.shift_remove(first);
    }
    Some(taken)
}

/// Puts a value where it belongs unless another one is there; answers whether nothing was lost.
fn settle(value: &mut Map<String, Value>, keys: &[String], moved: Value) -> bool {
    let Some((first, rest)) = keys.split_first() else { return false };
    if rest.is_empty() {
        return match (value.get_mut(first), moved) {
            (None, moved) => {
                value.insert(first.clone(), moved);
                true
            }
            (Some(Value::Object(there)), Value::Object(moved)) => {
                let lost =
                    moved.into_iter().filter(|(key, member)| !settle(there, std::slice::from_ref(key), member.clone()));
                lost.count() == 0
            }
            (Some(there), moved) => *there == moved,
        };
    }
    match value.entry(first.clone()).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => settle(inner, rest, moved),
        _ => false,
    }
}
