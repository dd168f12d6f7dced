//! Policy: what the gate allows. Deny is the default.
//!
//! A policy is layers: the rules shipped for the built-ins, then those of the site, the user, the project, the command line.
//! Something is allowed where a layer that may grant does so, no layer denies it, every `[[narrow]]` that speaks of it
//! covers it, and every layer that says `only_listed` lists it. So a lower layer can only tighten.
//!
//! Nothing here acts, and nothing here may depend on who asks but by the identity.

mod ceilings;
mod denial;
mod layers;
pub mod matcher;
pub mod read;
pub mod rule;
pub mod step;
pub mod suggest;
pub mod vocabulary;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gate::Identity;
pub use layers::{Homes, PROJECT_FILE, SITE_FILE};
use read::Content;
pub use read::Fault;
use rule::{Asked, Effect, Rule, UserGrants};
use vocabulary::{CallSet, Words};

/// The rules that grant the built-ins what they need.
const SHIPPED: &str = include_str!("../../../presets/policy.toml");
const SHIPPED_NAME: &str = "<built-in>/policy.toml";

/// Directories that rules speak of by name.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// `$tree`: the model tree.
    pub tree: PathBuf,
    /// `$run`: the run's own directory.
    pub run: PathBuf,
    /// `$output`: where the compatible files go.
    pub output: PathBuf,
    /// `$results`: the directory of the results file, where it is another than `$output`.
    pub results: PathBuf,
}

impl Roots {
    /// A value in which a directory stands by its name, as in `$run/jobs`.
    #[must_use]
    pub fn expanded(&self, value: &str) -> String {
        let named =
            [("$tree", &self.tree), ("$run", &self.run), ("$output", &self.output), ("$results", &self.results)];
        for (name, root) in named {
            match value.strip_prefix(name) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => return format!("{}{rest}", root.display()),
                _ => {}
            }
        }
        value.to_owned()
    }
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Plugin, call and scope.
    pub message: String,
    /// The deciding rule as file:line, or that none speaks of the call.
    pub rule: Arc<str>,
    /// What would allow it, for a person: a sentence, and below it the lines.
    pub remedy: String,
    /// The lines alone, where lines would allow it.
    pub lines: Option<String>,
}

/// What the policy says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// By the rule at file:line.
    Allowed {
        /// file:line.
        rule: Arc<str>,
    },
    /// With the reason.
    Denied(Box<Denial>),
}

impl Verdict {
    /// The deciding rule as file:line.
    #[must_use]
    pub fn rule(&self) -> &Arc<str> {
        match self {
            Self::Allowed { rule } => rule,
            Self::Denied(denial) => &denial.rule,
        }
    }

    /// Whether it may be.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or not of the schema.
    #[error("policy {name}:{}: {}{}", .first.line, .first.message, more(.faults))]
    Malformed {
        /// The file.
        name: String,
        /// The first thing that is wrong.
        first: Fault,
        /// All of them.
        faults: Vec<Fault>,
    },
    /// Not there, not readable, or in a place where others could have written it.
    #[error("policy `{name}`: {message}")]
    Untrusted {
        /// The file.
        name: String,
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

impl PolicyError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { first, .. } => first.hint.clone(),
            Self::Untrusted { hint, .. } => Some(hint.clone()),
        }
    }

    /// All that is wrong with a file.
    fn malformed(name: &str, faults: Vec<Fault>) -> Self {
        let nothing = Fault { line: 0, message: "it cannot be read".to_owned(), hint: None };
        let first = faults.first().cloned().unwrap_or(nothing);
        Self::Malformed { name: super::events::printable(name), first, faults }
    }
}

fn more(faults: &[Fault]) -> String {
    match faults.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more: `maddock policy check FILE` lists them)", count - 1),
    }
}

/// Whose a layer is, from the top down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Part of this binary.
    Shipped,
    /// The administrator's.
    Site,
    /// The user's.
    User,
    /// The working directory's.
    Project,
    /// Of this command.
    Command,
}

impl Level {
    /// For a person.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Shipped => "built-in",
            Self::Site => "site",
            Self::User => "user",
            Self::Project => "project",
            Self::Command => "command line",
        }
    }
}

/// One file's rules.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Whose.
    pub level: Level,
    /// The file, for a person.
    pub name: String,
    /// What it says.
    pub content: Content,
}

impl Layer {
    fn rules(&self, effect: Effect) -> impl Iterator<Item = &Rule> {
        self.content.rules.iter().filter(move |rule| rule.effect == effect)
    }
}

/// Rules in force.
#[derive(Debug, Default)]
pub struct Policy {
    layers: Vec<Layer>,
    roots: Roots,
    homes: Homes,
    given: Vec<PathBuf>,
}

/// What keeps a call from being allowed.
#[derive(Debug)]
enum Obstacle<'a> {
    /// A call or a kind of scope that the table of words does not have: a fault of this build.
    Wordless,
    Denied(&'a Layer, &'a Rule),
    Narrowed(&'a Layer, &'a Rule),
    /// No layer that may grant does; the rule that came nearest.
    NotGranted(Option<&'a Rule>),
    /// A layer that lists everything does not list it; the rule of it that came nearest.
    NotListed(&'a Layer, Option<&'a Rule>),
}

/// What one layer says of a call, for `policy explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose layer.
    pub level: Level,
    /// Its file.
    pub name: String,
    /// None: it leaves the call as it is.
    pub allows: Option<bool>,
    /// Why, with the rule.
    pub why: String,
}

impl Policy {
    /// The shipped rules, with the roots of this invocation.
    ///
    /// # Errors
    /// The shipped file is malformed: a fault of the build.
    pub fn shipped(roots: Roots) -> Result<Self, PolicyError> {
        let mut policy = Self { layers: Vec::new(), roots, homes: Homes::default(), given: Vec::new() };
        policy.add(Level::Shipped, SHIPPED_NAME, SHIPPED, false)?;
        Ok(policy)
    }

    /// One layer from a text, in place of the shipped rules: for tests.
    ///
    /// # Errors
    /// The text is not a policy.
    #[doc(hidden)]
    pub fn of_text(roots: Roots, name: &str, text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self { layers: Vec::new(), roots, homes: Homes::default(), given: Vec::new() };
        policy.add(Level::Shipped, name, text, false)?;
        Ok(policy)
    }

    /// Allows one plugin everything of one family. Exists in tests only.
    #[cfg(test)]
    pub(crate) fn permissive(plugin: &str, family: &str, roots: Roots) -> Self {
        let text = format!("schema = 1\n[[allow]]\nplugin = \"{plugin}\"\ncalls = [\"{family}.*\"]\n");
        Self::of_text(roots, "test", &text).unwrap()
    }

    /// Adds a layer below those that there are. `whole`: names of built-in plugins are looked at, too.
    fn add(&mut self, level: Level, name: &str, text: &str, whole: bool) -> Result<(), PolicyError> {
        let built_in = crate::plugin::catalog::built_in_names();
        let content = read::read(name, text, &self.roots, whole.then_some(built_in.as_slice()))
            .map_err(|faults| PolicyError::malformed(name, faults))?;
        if content.users_may_grant.is_some() && level != Level::Site {
            let line =
                text.lines().position(|line| line.trim_start().starts_with("users_may_grant")).map_or(1, |at| at + 1);
            let fault = Fault {
                line,
                message: "`users_may_grant` is for a site to say".to_owned(),
                hint: Some(format!("it belongs into `{SITE_FILE}`")),
            };
            return Err(PolicyError::malformed(name, vec![fault]));
        }
        self.layers.push(Layer { level, name: name.to_owned(), content });
        Ok(())
    }

    /// From the top down.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Files that the command line names, absolute: for those who do a part of the same job elsewhere.
    #[must_use]
    pub fn given(&self) -> &[PathBuf] {
        &self.given
    }

    /// Directories that rules speak of by name.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a rule speaks of that kind of scope: what costs time to find out is found out only where somebody wants to know.
    #[must_use]
    pub fn speaks_of(&self, scope: &str) -> bool {
        self.layers.iter().flat_map(|layer| &layer.content.rules).any(|rule| rule.matcher(scope).is_some())
    }

    /// Decides one call.
    #[must_use]
    pub fn decide(&self, who: &Identity, call: &str, asked: Asked<'_>) -> Verdict {
        self.decide_found(who, call, vocabulary::find(call), asked)
    }

    /// As [`Policy::decide`], for a call that was looked up already.
    #[must_use]
    pub fn decide_found(
        &self,
        who: &Identity,
        call: &str,
        found: Option<(usize, &'static Words)>,
        asked: Asked<'_>,
    ) -> Verdict {
        let decided = match found {
            Some((at, words)) => self.evaluate(who, at, words, asked),
            None => Err(Obstacle::Wordless),
        };
        match decided {
            Ok(rule) => Verdict::Allowed { rule: rule.place.clone() },
            Err(obstacle) => {
                Verdict::Denied(Box::new(self.denial(who, call, found.map(|(_, words)| words), asked, &obstacle)))
            }
        }
    }

    fn evaluate(&self, who: &Identity, at: usize, words: &Words, asked: Asked<'_>) -> Result<&Rule, Obstacle<'_>> {
        if asked.iter().any(|(name, _)| words.scope(name).is_none()) {
            return Err(Obstacle::Wordless);
        }
        for layer in &self.layers {
            for rule in &layer.content.rules {
                let speaks = rule.effect != Effect::Allow && rule.calls.has(at) && rule.who.is_meant(who);
                match rule.effect {
                    Effect::Deny if speaks && rule.touches(words, asked) => return Err(Obstacle::Denied(layer, rule)),
                    Effect::Narrow if speaks && !rule.covers(words, asked) => {
                        return Err(Obstacle::Narrowed(layer, rule));
                    }
                    _ => {}
                }
            }
        }
        let mut granted = None;
        for layer in self.layers.iter().filter(|layer| self.may_grant(layer, who, at)) {
            granted = covering(layer, who, at, words, asked).map(|rule| (layer, rule));
            if granted.is_some() {
                break;
            }
        }
        let Some((granting, granted)) = granted else {
            let rules = self
                .layers
                .iter()
                .filter(|layer| self.may_grant(layer, who, at))
                .flat_map(|layer| &layer.content.rules);
            return Err(Obstacle::NotGranted(nearest(rules, who, at, words, asked)));
        };
        for layer in self.layers.iter().filter(|layer| layer.content.only_listed) {
            // What a site leaves to its users it need not list.
            let left_to_users = layer.level == Level::Site && granting.level == Level::User;
            if !left_to_users && covering(layer, who, at, words, asked).is_none() {
                return Err(Obstacle::NotListed(layer, nearest(layer.content.rules.iter(), who, at, words, asked)));
            }
        }
        Ok(granted)
    }

    fn site(&self) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.level == Level::Site)
    }

    /// What the site leaves to users, where there is a site: of third parties' plugins only.
    fn left_to_users(&self, site: &Layer, who: &Identity) -> CallSet {
        match &site.content.users_may_grant {
            Some(UserGrants::Calls(calls)) if !who.built_in => *calls,
            _ => CallSet::default(),
        }
    }

    /// Whether what a layer allows is a grant, and not only a list of what it lets be.
    fn may_grant(&self, layer: &Layer, who: &Identity, at: usize) -> bool {
        match (layer.level, self.site()) {
            (Level::Shipped | Level::Site, _) | (Level::User, None) => true,
            (Level::User, Some(site)) => self.left_to_users(site, who).has(at),
            (Level::Project | Level::Command, _) => false,
        }
    }

    /// What each layer says of a call.
    #[must_use]
    pub fn explain(&self, who: &Identity, call: &'static Words, asked: Asked<'_>) -> Vec<Said> {
        let Some((at, words)) = vocabulary::find(call.call) else { return Vec::new() };
        self.layers.iter().map(|layer| self.said(layer, who, at, words, asked)).collect()
    }

    fn said(&self, layer: &Layer, who: &Identity, at: usize, words: &Words, asked: Asked<'_>) -> Said {
        let say = |allows, why: String| Said { level: layer.level, name: layer.name.clone(), allows, why };
        let meant = |rule: &&Rule| rule.calls.has(at) && rule.who.is_meant(who);
        if let Some(rule) = layer.rules(Effect::Deny).filter(meant).find(|rule| rule.touches(words, asked)) {
            return say(Some(false), format!("denied at {}", rule.place));
        }
        if let Some(rule) = layer.rules(Effect::Narrow).filter(meant).find(|rule| !rule.covers(words, asked)) {
            return say(Some(false), format!("not within what {} narrows it to", rule.place));
        }
        let covering = covering(layer, who, at, words, asked);
        let grants = self.may_grant(layer, who, at);
        match covering {
            Some(rule) if grants => say(Some(true), format!("allowed at {}", rule.place)),
            Some(rule) if layer.content.only_listed => say(None, format!("listed at {}", rule.place)),
            Some(rule) => say(None, format!("the rule at {} has no effect: this layer only tightens", rule.place)),
            None if layer.content.only_listed => {
                let near = nearest(layer.content.rules.iter(), who, at, words, asked);
                let near = near.map(|rule| format!("; {} comes nearest", rule.place)).unwrap_or_default();
                say(Some(false), format!("not among what it lists{near}"))
            }
            None => {
                let near = nearest(layer.content.rules.iter(), who, at, words, asked).filter(|_| grants);
                say(
                    None,
                    near.map_or_else(
                        || "says nothing of it".to_owned(),
                        |rule| format!("{} does not cover it", rule.place),
                    ),
                )
            }
        }
    }

    /// Adds what this file says as a layer. Nobody but tests and `policy test` needs one from a text.
    ///
    /// # Errors
    /// The text is not a policy.
    pub fn with_layer(mut self, level: Level, name: &str, text: &str) -> Result<Self, PolicyError> {
        self.add(level, name, text, true)?;
        Ok(self)
    }

    /// The shipped rules and every layer that there is, with the roots of this invocation.
    ///
    /// # Errors
    /// A file that is malformed, or in a place where others could have written it.
    pub fn load(roots: Roots, homes: Homes, given: &[PathBuf]) -> Result<Self, PolicyError> {
        let mut policy = Self::shipped(roots)?;
        for (level, path, text) in layers::texts(&homes, given)? {
            policy.add(level, &shown(&path), &text, true)?;
        }
        policy.homes = homes;
        // One that cannot be made absolute was not read above.
        policy.given = given.iter().filter_map(|path| std::path::absolute(path).ok()).collect();
        Ok(policy)
    }
}

/// A file's name for a person, and for the trace.
fn shown(path: &Path) -> String {
    super::events::printable(&path.to_string_lossy())
}

fn covering<'a>(layer: &'a Layer, who: &Identity, at: usize, words: &Words, asked: Asked<'_>) -> Option<&'a Rule> {
    layer
        .content
        .rules
        .iter()
        .filter(|rule| rule.effect == Effect::Allow && rule.calls.has(at) && rule.who.is_granted(who))
        .find(|rule| rule.covers(words, asked))
}

/// The rule for that call with the fewest values outside.
fn nearest<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    who: &Identity,
    at: usize,
    words: &Words,
    asked: Asked<'_>,
) -> Option<&'a Rule> {
    rules
        .filter(|rule| rule.effect == Effect::Allow && rule.calls.has(at) && rule.who.is_granted(who))
        .min_by_key(|rule| rule.misses(words, asked).len())
}
