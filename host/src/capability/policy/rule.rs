//! What a policy file says, ready to be compared with calls.

use std::sync::Arc;

use super::matcher::Matcher;
use super::vocabulary::{CallSet, Words};
use crate::capability::gate::Identity;

/// Whom a rule is for. Grants belong to components or to who signed them, not to names: a name alone is enough for a
/// built-in plugin only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grantee {
    /// The name in the manifest; none: any.
    pub name: Option<String>,
    /// `sha256:…` of the component.
    pub digest: Option<String>,
    /// Public keys, one of which must have signed it; none: whoever did or did not.
    pub signers: Vec<String>,
}

impl Grantee {
    /// Whether a grant to this is one to that component.
    #[must_use]
    pub fn is_granted(&self, who: &Identity) -> bool {
        let by_name_alone = self.digest.is_none() && self.signers.is_empty();
        self.is_meant(who) && (!by_name_alone || (self.name.is_some() && who.built_in))
    }

    /// Whether what takes away speaks of that component: there a name is enough.
    #[must_use]
    pub fn is_meant(&self, who: &Identity) -> bool {
        let is_signer = |signer: &String| who.signer.as_ref() == Some(signer);
        self.name.as_ref().is_none_or(|name| *name == who.name)
            && self.digest.as_ref().is_none_or(|digest| *digest == who.digest)
            && (self.signers.is_empty() || self.signers.iter().any(is_signer))
    }

    /// For a person.
    #[must_use]
    pub fn words(&self) -> String {
        let parts = [
            Some(self.name.clone().unwrap_or_else(|| "*".to_owned())),
            self.digest.clone(),
            (!self.signers.is_empty()).then(|| format!("signed by {}", self.signers.join(" or "))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Allows.
    Allow,
    /// Refuses what it speaks of, whatever allows it.
    Deny,
    /// Refuses what it does not cover.
    Narrow,
}

impl Effect {
    /// The table's name in a file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Narrow => "narrow",
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// For whom.
    pub who: Grantee,
    /// Of which calls.
    pub calls: CallSet,
    /// The calls as written.
    pub call_texts: Vec<String>,
    /// On what, by the name of the scope.
    pub scopes: Vec<(&'static str, Matcher)>,
    /// Why, in the file's own words.
    pub reason: Option<String>,
    /// file:line.
    pub place: Arc<str>,
}

/// What a call asks for: names and values.
pub type Asked<'a> = &'a [(&'static str, String)];

impl Rule {
    /// What this rule says of that kind of scope.
    #[must_use]
    pub fn matcher(&self, name: &str) -> Option<&Matcher> {
        self.scopes.iter().find(|(own, _)| *own == name).map(|(_, matcher)| matcher)
    }

    /// Whether it lets one value be. What a call asks for and the table does not have is never covered.
    fn lets(&self, words: &Words, name: &str, value: &str) -> bool {
        let Some(scope) = words.scope(name) else { return false };
        match self.matcher(name) {
            Some(matcher) => matcher.covers(scope.kind, value),
            None => !(scope.guarded && self.effect == Effect::Allow),
        }
    }

    /// Whether every value is within.
    #[must_use]
    pub fn covers(&self, words: &Words, asked: Asked<'_>) -> bool {
        asked.iter().all(|(name, value)| self.lets(words, name, value))
    }

    /// The values that are not.
    #[must_use]
    pub fn misses<'a>(&self, words: &Words, asked: Asked<'a>) -> Vec<(&'static str, &'a str)> {
        asked
            .iter()
            .filter(|(name, value)| !self.lets(words, name, value))
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }

    /// Whether a denial speaks of the call: for each kind that it names, one value at least is of those.
    #[must_use]
    pub fn touches(&self, words: &Words, asked: Asked<'_>) -> bool {
        self.scopes.iter().all(|(name, matcher)| {
            let Some(scope) = words.scope(name) else { return false };
            asked.iter().any(|(of, value)| of == name && matcher.touches(scope.kind, value))
        })
    }
}

/// Upper limits of one plugin call; none where the file does not say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Amounts {
    /// Bytes.
    pub memory: Option<u64>,
    /// Seconds on the processor.
    pub processor: Option<f64>,
    /// Bytes.
    pub log: Option<u64>,
    /// Bytes.
    pub transfer: Option<u64>,
    /// How many.
    pub host_calls: Option<u64>,
    /// How many.
    pub instances: Option<u64>,
    /// How many.
    pub handles: Option<u64>,
    /// Seconds by the wall clock.
    pub time: Option<f64>,
}

/// `[[limits]]`
#[derive(Debug, Clone)]
pub struct LimitRule {
    /// For whom.
    pub who: Grantee,
    /// How much.
    pub amounts: Amounts,
    /// file:line.
    pub place: Arc<str>,
}

/// `[[test]]`
#[derive(Debug, Clone)]
pub struct Case {
    /// The plugin's name.
    pub plugin: String,
    /// Its digest, where it is a third party's.
    pub digest: Option<String>,
    /// The key that signed it, where it is a third party's.
    pub signer: Option<String>,
    /// The call.
    pub call: &'static Words,
    /// What it asks for.
    pub scope: Vec<(&'static str, String)>,
    /// Whether it should be allowed.
    pub allowed: bool,
    /// file:line.
    pub place: Arc<str>,
}

/// Whether users may grant something to third parties' plugins under a site's policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UserGrants {
    /// No.
    #[default]
    None,
    /// These calls.
    Calls(CallSet),
}
