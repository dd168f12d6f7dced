//! Policy: what the gate allows. Deny is the default.
//!
//! A policy is a list of rules. A rule names a plugin, calls, and for each kind of scope the patterns that every value
//! asked for must match. `*` stands for one whole `/`-separated segment, `**` for the rest; `$tree`, `$run`, `$output`,
//! `$results` are the roots of the invocation. Today there is one layer, the rules shipped for the built-ins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_spanned::Spanned;

use super::gate::Identity;

/// The rules that grant the built-ins what they need.
const SHIPPED: &str = include_str!("../../../presets/policy.toml");
const SHIPPED_NAME: &str = "<built-in>/policy.toml";

/// The version of the file format this binary reads.
pub const SCHEMA: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    #[serde(default)]
    allow: Vec<Spanned<RuleText>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    plugin: String,
    calls: Vec<String>,
    #[serde(default)]
    scope: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Rule {
    plugin: String,
    calls: Vec<String>,
    scope: BTreeMap<String, Vec<String>>,
    place: String,
}

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

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Plugin, call and scope.
    pub message: String,
    /// The deciding rule as file:line, or that none speaks of the call.
    pub rule: String,
    /// The lines that would allow it.
    pub remedy: String,
}

/// What the policy says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// By the rule at file:line.
    Allowed {
        /// file:line.
        rule: String,
    },
    /// With the reason.
    Denied(Denial),
}

impl Verdict {
    /// The deciding rule as file:line.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Allowed { rule } => rule,
            Self::Denied(denial) => &denial.rule,
        }
    }
}

/// A policy file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or not of the schema.
    #[error("policy `{name}`: {message}")]
    Malformed {
        /// The file.
        name: String,
        /// What is wrong and where.
        message: String,
    },
}

/// Rules in force.
#[derive(Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    roots: Roots,
}

impl Policy {
    /// The shipped rules, with the roots of this invocation.
    ///
    /// # Errors
    /// The shipped file is malformed: a fault of the build.
    pub fn shipped(roots: Roots) -> Result<Self, PolicyError> {
        let mut policy = Self { rules: Vec::new(), roots };
        policy.add(SHIPPED_NAME, SHIPPED)?;
        Ok(policy)
    }

    /// One layer from a text, in place of the shipped rules: for tests.
    ///
    /// # Errors
    /// The text is not a policy.
    #[doc(hidden)]
    pub fn of_text(roots: Roots, name: &str, text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self { rules: Vec::new(), roots };
        policy.add(name, text)?;
        Ok(policy)
    }

    /// Allows one plugin everything of one family. Exists in tests only.
    #[cfg(test)]
    pub(crate) fn permissive(plugin: &str, family: &str, roots: Roots) -> Self {
        let rule = Rule {
            plugin: plugin.to_owned(),
            calls: vec![format!("{family}.*")],
            scope: BTreeMap::new(),
            place: "test".to_owned(),
        };
        Self { rules: vec![rule], roots }
    }

    fn add(&mut self, name: &str, text: &str) -> Result<(), PolicyError> {
        let malformed = |message: String| PolicyError::Malformed { name: name.to_owned(), message };
        let file: File = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if file.schema != SCHEMA {
            return Err(malformed(format!(
                "schema {} is not known here; this version reads schema {SCHEMA}",
                file.schema
            )));
        }
        for rule in file.allow {
            let line = text.get(..rule.span().start).map_or(0, |before| before.matches('\n').count() + 1);
            let RuleText { plugin, calls, scope } = rule.into_inner();
            self.rules.push(Rule { plugin, calls, scope, place: format!("{name}:{line}") });
        }
        Ok(())
    }

    /// Decides one call. Built-in rules are for built-in components only, whatever name another component bears.
    #[must_use]
    pub fn decide(&self, who: &Identity, call: &str, scope: &[(&'static str, String)]) -> Verdict {
        let mut nearest: Option<(&Rule, &'static str, &str)> = None;
        if who.built_in {
            for rule in self
                .rules
                .iter()
                .filter(|rule| rule.plugin == who.name && rule.calls.iter().any(|c| call_matches(c, call)))
            {
                match self.first_outside(rule, scope) {
                    None => return Verdict::Allowed { rule: rule.place.clone() },
                    Some((name, value)) => nearest = Some((rule, name, value)),
                }
            }
        }
        Verdict::Denied(self.denial(who, call, scope, nearest))
    }

    fn first_outside<'a>(&self, rule: &Rule, scope: &'a [(&'static str, String)]) -> Option<(&'static str, &'a str)> {
        scope
            .iter()
            .find(|(name, value)| match rule.scope.get(*name) {
                // A rule that does not speak of a kind of scope does not restrict it.
                None => false,
                Some(patterns) => !patterns.iter().any(|pattern| self.value_matches(pattern, value)),
            })
            .map(|(name, value)| (*name, value.as_str()))
    }

    fn value_matches(&self, pattern: &str, value: &str) -> bool {
        let expand = |root: &Path, rest: &str| format!("{}{rest}", root.display());
        let split = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let pattern = match pattern.strip_prefix('$') {
            None => pattern.to_owned(),
            Some(named) => {
                let (name, rest) = named.split_at(named.find('/').unwrap_or(named.len()));
                let root = match name {
                    "tree" => &self.roots.tree,
                    "run" => &self.roots.run,
                    "output" => &self.roots.output,
                    "results" => &self.roots.results,
                    _ => return false,
                };
                // A root that this invocation does not have allows nothing.
                if root.as_os_str().is_empty() {
                    return false;
                }
                expand(root, rest)
            }
        };
        segments_match(&split(&pattern), &split(value))
    }

    fn denial(
        &self,
        who: &Identity,
        call: &str,
        scope: &[(&'static str, String)],
        nearest: Option<(&Rule, &'static str, &str)>,
    ) -> Denial {
        // A container has dozens of scopes: where one decided, it is the one to talk about. The trace has them all.
        let asked = match nearest {
            Some((_, name, value)) => format!("{name} `{value}`"),
            None => {
                scope.iter().take(3).map(|(name, value)| format!("{name} `{value}`")).collect::<Vec<_>>().join(", ")
            }
        };
        let on = if asked.is_empty() { String::new() } else { format!(" on {asked}") };
        let (because, rule) = match nearest {
            Some((rule, _, _)) => ("the rule does not cover it".to_owned(), rule.place.clone()),
            None => ("no rule allows it".to_owned(), "default (deny)".to_owned()),
        };
        let mut remedy = format!("to allow it: [[allow]] plugin = \"{}\" calls = [\"{call}\"]", who.name);
        if let Some((_, name, value)) = nearest {
            remedy.push_str(&format!(" scope.{name} = [\"{value}\"]"));
        }
        Denial {
            message: format!("policy refuses plugin `{}` the call `{call}`{on}: {because} ({rule})", who.name),
            rule,
            remedy,
        }
    }
}

fn call_matches(pattern: &str, call: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(family) => call.split('.').next() == Some(family),
        None => pattern == call,
    }
}

fn segments_match(pattern: &[String], value: &[String]) -> bool {
    match (pattern.split_first(), value.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" && rest.is_empty() => true,
        (Some((first, rest)), Some((segment, others))) => {
            (first == "*" || first == segment) && segments_match(rest, others)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        let roots = Roots { tree: "/mad".into(), run: "/w/.maddock/runs/1".into(), ..Roots::default() };
        let mut policy = Policy { rules: Vec::new(), roots };
        policy.add("test.toml", text).unwrap();
        policy
    }

    fn built_in(name: &str) -> Identity {
        Identity { name: name.to_owned(), digest: "sha256:0".to_owned(), built_in: true }
    }

    const RULES: &str = "schema = 1\n\n[[allow]]\nplugin = \"p\"\ncalls = [\"files.read\"]\nscope.path = [\"$tree/**\", \"/sys/*/x\"]\n";

    #[test]
    fn a_call_inside_the_scope_is_allowed_and_names_its_rule() {
        let verdict = policy(RULES).decide(&built_in("p"), "files.read", &[("path", "/mad/a/b".to_owned())]);
        assert_eq!(verdict, Verdict::Allowed { rule: "test.toml:3".to_owned() });
    }

    #[test]
    fn a_wildcard_stands_for_whole_segments_only() {
        let policy = policy(RULES);
        let asks = |path: &str| {
            matches!(policy.decide(&built_in("p"), "files.read", &[("path", path.to_owned())]), Verdict::Allowed { .. })
        };
        assert!(asks("/sys/one/x"));
        assert!(!asks("/sys/one/two/x"));
        assert!(!asks("/madness/a"));
        assert!(!asks("/sys/one"));
    }

    #[test]
    fn every_value_asked_for_must_be_covered() {
        let scope = [("path", "/mad/a".to_owned()), ("path", "/etc/shadow".to_owned())];
        let Verdict::Denied(denial) = policy(RULES).decide(&built_in("p"), "files.read", &scope) else {
            panic!("allowed")
        };
        assert!(
            denial.message.contains("on path `/etc/shadow`: the rule does not cover it (test.toml:3)"),
            "{}",
            denial.message
        );
    }

    #[test]
    fn a_stranger_with_the_name_of_a_built_in_gets_nothing() {
        let stranger = Identity { built_in: false, ..built_in("p") };
        let Verdict::Denied(denial) = policy(RULES).decide(&stranger, "files.read", &[("path", "/mad/a".to_owned())])
        else {
            panic!("allowed")
        };
        assert_eq!(denial.rule, "default (deny)");
        assert!(denial.remedy.contains("calls = [\"files.read\"]"));
    }

    #[test]
    fn a_root_that_is_not_set_allows_nothing() {
        let text = "schema = 1\n[[allow]]\nplugin = \"p\"\ncalls = [\"files.write\"]\nscope.path = [\"$output/**\"]\n";
        assert!(matches!(
            policy(text).decide(&built_in("p"), "files.write", &[("path", "/etc/passwd".to_owned())]),
            Verdict::Denied(_)
        ));
    }

    #[test]
    fn the_shipped_rules_are_well_formed() {
        Policy::shipped(Roots::default()).unwrap();
    }
}
