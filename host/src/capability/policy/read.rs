//! Reads a policy file. All that is wrong with it is found at once, each with its line.

use std::sync::Arc;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Roots;
use super::matcher::{Kind, Matcher, Pattern};
use super::rule::{Amounts, Case, Effect, Grantee, LimitRule, Rule, UserGrants};
use super::vocabulary::{self, CALLS, CallSet, Scope};
use crate::config::nearest;
use crate::plugin::package::signature::is_public_key;

/// The version of the file format this binary reads.
pub const SCHEMA: i64 = 1;

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// A lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a file says.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Nothing but what it lists is allowed.
    pub only_listed: bool,
    /// What a site leaves to users; none where the file does not say.
    pub users_may_grant: Option<UserGrants>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// Limits of plugin calls.
    pub limits: Vec<LimitRule>,
    /// Cases that should come out as they say.
    pub tests: Vec<Case>,
}

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads a text. `built_in` are the names that need no digest.
///
/// # Errors
/// All that is wrong, in the order of the lines.
pub fn read(name: &str, text: &str, roots: &Roots, built_in: Option<&[&str]>) -> Result<Content, Vec<Fault>> {
    let mut reader = Reader { name, text, roots, built_in, faults: Vec::new(), sets: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.fault(error.span().map_or(0, |span| span.start), error.message().to_owned(), None);
    }
    // What could be recovered of a broken text says nothing about what was meant.
    let content = if reader.faults.is_empty() { reader.content(document.get_ref()) } else { Content::default() };
    if reader.faults.is_empty() {
        return Ok(content);
    }
    reader.faults.sort_by_key(|fault| fault.line);
    Err(reader.faults)
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    roots: &'a Roots,
    built_in: Option<&'a [&'a str]>,
    faults: Vec<Fault>,
    sets: Vec<(String, Vec<(usize, String)>)>,
}

impl<'a> Reader<'a> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1
    }

    fn place(&self, at: usize) -> Arc<str> {
        format!("{}:{}", self.name, self.line(at)).into()
    }

    fn fault(&mut self, at: usize, message: impl Into<String>, hint: Option<String>) {
        let line = self.line(at);
        self.faults.push(Fault { line, message: message.into(), hint });
    }

    fn unknown_key(&mut self, at: usize, key: &str, known: &[&str]) {
        let message = match nearest::suggestion(key, known.iter().copied()) {
            Some(suggestion) => format!("`{}` means nothing here; {suggestion}", key.escape_debug()),
            None => format!("`{}` means nothing here", key.escape_debug()),
        };
        self.fault(at, message, Some(format!("here may stand {}", nearest::listed(known, "and"))));
    }

    fn content(&mut self, document: &DeTable<'_>) -> Content {
        const KEYS: [&str; 9] =
            ["schema", "only_listed", "users_may_grant", "sets", "allow", "deny", "narrow", "limits", "test"];
        let mut content = Content::default();
        match document.get("schema") {
            None => self.fault(0, "`schema` is missing", Some(format!("begin the file with `schema = {SCHEMA}`"))),
            Some(value) if integer(value) != Some(SCHEMA) => self.fault(
                value.span().start,
                "this schema is not known here",
                Some(format!("this version reads `schema = {SCHEMA}`")),
            ),
            Some(_) => {}
        }
        if let Some(sets) = document.get("sets") {
            self.read_sets(sets);
        }
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "schema" | "sets" => {}
                "only_listed" => content.only_listed = self.truth(value, "only_listed").unwrap_or_default(),
                "users_may_grant" => content.users_may_grant = self.user_grants(value),
                "allow" => self.rules(value, Effect::Allow, &mut content.rules),
                "deny" => self.rules(value, Effect::Deny, &mut content.rules),
                "narrow" => self.rules(value, Effect::Narrow, &mut content.rules),
                "limits" => {
                    for (at, table) in self.tables(value, "limits") {
                        content.limits.extend(self.limit(at, table));
                    }
                }
                "test" => {
                    for (at, table) in self.tables(value, "test") {
                        content.tests.extend(self.case(at, table));
                    }
                }
                other => self.unknown_key(key.span().start, other, &KEYS),
            }
        }
        content
    }

    fn read_sets(&mut self, value: &Value<'_>) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.fault(value.span().start, "`sets` is a table of lists", None);
        };
        for (name, value) in table {
            let values = self.texts(value, name.get_ref());
            if let Some((at, _)) = values.iter().find(|(_, text)| text.starts_with('@')) {
                self.fault(*at, "a set holds values, not other sets", None);
            }
            self.sets.push((name.get_ref().to_string(), values));
        }
    }

    fn user_grants(&mut self, value: &Value<'_>) -> Option<UserGrants> {
        match value.get_ref() {
            DeValue::Boolean(false) => Some(UserGrants::None),
            DeValue::Boolean(true) => {
                let mut all = CallSet::default();
                let _ = all.add("*");
                Some(UserGrants::Calls(all))
            }
            DeValue::Array(_) => {
                let texts = self.texts(value, "users_may_grant");
                Some(UserGrants::Calls(self.calls(&texts)))
            }
            _ => {
                self.fault(value.span().start, "`users_may_grant` is `true`, `false`, or a list of calls", None);
                None
            }
        }
    }

    fn rules(&mut self, value: &Value<'_>, effect: Effect, into: &mut Vec<Rule>) {
        for (at, table) in self.tables(value, effect.word()) {
            into.extend(self.rule(at, table, effect));
        }
    }

    fn rule(&mut self, at: usize, table: &DeTable<'_>, effect: Effect) -> Option<Rule> {
        const KEYS: [&str; 6] = ["plugin", "digest", "signer", "calls", "scope", "reason"];
        let before = self.faults.len();
        let mut who = Grantee::default();
        let mut all_plugins = false;
        let (mut call_texts, mut calls) = (Vec::new(), CallSet::default());
        let mut reason = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "plugin" => who.name = self.word(value, "plugin"),
                "digest" => who.digest = self.digest(value),
                "signer" => who.signers = self.signers(value),
                "calls" => {
                    let texts = self.texts(value, "calls");
                    calls = self.calls(&texts);
                    call_texts = texts.into_iter().map(|(_, text)| text).collect();
                    if call_texts.is_empty() {
                        self.fault(
                            value.span().start,
                            "`calls` is empty",
                            Some("name calls, or `*` for all".to_owned()),
                        );
                    }
                }
                "reason" => reason = self.word(value, "reason"),
                "scope" => {}
                other => self.unknown_key(key.span().start, other, &KEYS),
            }
        }
        if who.name.as_deref() == Some("*") {
            (who.name, all_plugins) = (None, true);
        }
        let broken = (table.contains_key("digest") && who.digest.is_none())
            || (table.contains_key("signer") && who.signers.is_empty());
        if !broken {
            self.check_grantee(at, &who, all_plugins, effect);
        }
        if !table.contains_key("calls") {
            self.fault(at, "`calls` is missing", Some("such as `calls = [\"files.read\"]`".to_owned()));
        }
        let scopes = match table.get("scope") {
            // Without calls there is no telling which scopes there are.
            Some(scope) if self.faults.len() == before => self.scopes(scope, calls, effect),
            _ => Vec::new(),
        };
        if effect == Effect::Narrow && scopes.is_empty() && self.faults.len() == before {
            self.fault(
                at,
                "a `[[narrow]]` without `scope` narrows nothing",
                Some("`[[deny]]` refuses a call".to_owned()),
            );
        }
        let place = self.place(at);
        (self.faults.len() == before).then_some(Rule { effect, who, calls, call_texts, scopes, reason, place })
    }

    fn check_grantee(&mut self, at: usize, who: &Grantee, all_plugins: bool, effect: Effect) {
        let nobody = who.name.is_none() && who.digest.is_none() && who.signers.is_empty();
        if nobody && !(all_plugins && effect != Effect::Allow) {
            let (message, hint) = if effect == Effect::Allow && all_plugins {
                (
                    "nothing is granted to every plugin".to_owned(),
                    "name plugins; a third party's by its `digest` or `signer`",
                )
            } else {
                ("`plugin` is missing".to_owned(), "name the plugin; `*` is all of them in `[[deny]]` and `[[narrow]]`")
            };
            return self.fault(at, message, Some(hint.to_owned()));
        }
        let (Some(known), Some(name)) = (self.built_in, &who.name) else { return };
        if effect == Effect::Allow && who.digest.is_none() && who.signers.is_empty() && !known.contains(&name.as_str())
        {
            let mut message = format!("`{}` is not built in, and a name is no grant", name.escape_debug());
            if let Some(suggestion) = nearest::suggestion(name, known.iter().copied()) {
                message.push_str(&format!("; {suggestion}"));
            }
            let hint = "a third party's plugin needs `digest = \"sha256:…\"` or `signer = \"RW…\"`, which `maddock plugin inspect FILE` tells";
            self.fault(at, message, Some(hint.to_owned()));
        }
    }

    fn scopes(&mut self, value: &Value<'_>, calls: CallSet, effect: Effect) -> Vec<(&'static str, Matcher)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.fault(value.span().start, "`scope` is a table, such as `scope.path = [\"$tree/**\"]`", None);
            return Vec::new();
        };
        let mut scopes = Vec::new();
        for (key, value) in table {
            let Some(scope) = self.scope(key.span().start, key.get_ref(), calls) else { continue };
            let matcher = if scope.kind.is_number() {
                self.ceiling(value, scope, effect)
            } else {
                Some(Matcher::Patterns(self.patterns(value, scope)))
            };
            scopes.extend(matcher.map(|matcher| (scope.name, matcher)));
        }
        scopes
    }

    /// The scope of that name that one of the calls has.
    fn scope(&mut self, at: usize, name: &str, calls: CallSet) -> Option<&'static Scope> {
        let found = calls.words().find_map(|words| words.scope(name));
        if found.is_none() {
            let mut known: Vec<&str> = calls.words().flat_map(|words| words.scopes).map(|scope| scope.name).collect();
            known.sort_unstable();
            known.dedup();
            let mut message = format!("none of these calls has a scope `{}`", name.escape_debug());
            if let Some(suggestion) = nearest::suggestion(name, known.iter().copied()) {
                message.push_str(&format!("; {suggestion}"));
            }
            let hint = if known.is_empty() {
                "these calls touch nothing that could be named".to_owned()
            } else {
                format!("they have {}", nearest::listed(&known, "and"))
            };
            self.fault(at, message, Some(hint));
        }
        found
    }

    fn ceiling(&mut self, value: &Value<'_>, scope: &Scope, effect: Effect) -> Option<Matcher> {
        let at = value.span().start;
        let name = scope.name;
        if effect == Effect::Deny {
            let hint = format!("`[[narrow]]` with `scope.{name} = {{ max = … }}` sets a ceiling");
            self.fault(at, format!("`{name}` is a number, of which nothing is denied"), Some(hint));
            return None;
        }
        let max = match value.get_ref() {
            DeValue::Table(table) if table.len() == 1 => table.get("max"),
            _ => None,
        };
        let number = max.and_then(|max| amount(max, scope.kind == Kind::Bytes)).filter(|number| *number >= 0.0);
        if number.is_none() {
            let example = if scope.kind == Kind::Bytes { "\"64 GiB\"" } else { "4" };
            self.fault(
                at,
                format!("`{name}` is a number"),
                Some(format!("write `scope.{name} = {{ max = {example} }}`")),
            );
        }
        number.map(Matcher::Max)
    }

    fn patterns(&mut self, value: &Value<'_>, scope: &Scope) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (at, text) in self.texts(value, scope.name) {
            for (at, text) in self.unfolded(at, text) {
                if let Kind::Choice(options) = scope.kind
                    && !options.contains(&text.as_str())
                    && !matches!(text.as_str(), "*" | "**")
                {
                    let mut message = format!("`{}` is no value of `{}`", text.escape_debug(), scope.name);
                    if let Some(suggestion) = nearest::suggestion(&text, options.iter().copied()) {
                        message.push_str(&format!("; {suggestion}"));
                    }
                    self.fault(at, message, Some(format!("it may be {}", nearest::listed(options, "or"))));
                    continue;
                }
                match Pattern::new(&text, scope.kind, self.roots) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(message) => {
                        let hint = "`*` is one segment, `**` the rest; `$tree`, `$run`, `$output`, `$results` are directories; a text after `=` is taken literally";
                        self.fault(at, message, Some(hint.to_owned()));
                    }
                }
            }
        }
        patterns
    }

    /// The values of a set, where a text names one; else the text.
    fn unfolded(&mut self, at: usize, text: String) -> Vec<(usize, String)> {
        let Some(set) = text.strip_prefix('@') else { return vec![(at, text)] };
        if let Some((_, values)) = self.sets.iter().find(|(name, _)| name == set) {
            return values.clone();
        }
        let known: Vec<&str> = self.sets.iter().map(|(name, _)| name.as_str()).collect();
        let mut message = format!("there is no set `{}` in this file", set.escape_debug());
        if let Some(suggestion) = nearest::suggestion(set, known) {
            message.push_str(&format!("; {suggestion}"));
        }
        self.fault(at, message, Some("sets are lists below `[sets]`; `=@x` is the text `@x`".to_owned()));
        Vec::new()
    }

    /// Public keys: one, several, or a set of them. An empty list would be everybody, and is a fault.
    fn signers(&mut self, value: &Value<'_>) -> Vec<String> {
        let at = value.span().start;
        let before = self.faults.len();
        let texts = match value.get_ref() {
            DeValue::Array(_) => self.texts(value, "signer"),
            _ => self.word(value, "signer").into_iter().map(|text| (at, text)).collect(),
        };
        let texts: Vec<_> = texts.into_iter().flat_map(|(at, text)| self.unfolded(at, text)).collect();
        if texts.is_empty() && self.faults.len() == before {
            self.fault(at, "`signer` names nobody", Some("name a public key, which begins with `RW`".to_owned()));
        }
        texts.into_iter().filter_map(|(at, text)| self.signer(at, text)).collect()
    }

    fn signer(&mut self, at: usize, text: String) -> Option<String> {
        if !is_public_key(&text) {
            let hint =
                "the text of a minisign key, `RW` and 54 characters more, as `maddock plugin inspect FILE` tells";
            self.fault(at, "this is no public key", Some(hint.to_owned()));
            return None;
        }
        Some(text)
    }

    fn limit(&mut self, at: usize, table: &DeTable<'_>) -> Option<LimitRule> {
        const KEYS: [&str; 11] = [
            "plugin",
            "digest",
            "signer",
            "memory",
            "processor",
            "time",
            "log",
            "transfer",
            "host-calls",
            "instances",
            "handles",
        ];
        let before = self.faults.len();
        let (mut who, mut amounts) = (Grantee::default(), Amounts::default());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "plugin" => who.name = self.word(value, "plugin").filter(|name| name != "*"),
                "digest" => who.digest = self.digest(value),
                "signer" => who.signers = self.signers(value),
                "memory" => amounts.memory = self.whole(value, name, true),
                "log" => amounts.log = self.whole(value, name, true),
                "transfer" => amounts.transfer = self.whole(value, name, true),
                "host-calls" => amounts.host_calls = self.whole(value, name, false),
                "instances" => amounts.instances = self.whole(value, name, false),
                "handles" => amounts.handles = self.whole(value, name, false),
                "processor" | "time" => {
                    let seconds = amount(value, false).filter(|seconds| *seconds > 0.0 && *seconds <= 1e9);
                    if seconds.is_none() {
                        self.fault(value.span().start, format!("`{name}` is a number of seconds"), None);
                    }
                    if name == "time" { amounts.time = seconds } else { amounts.processor = seconds }
                }
                other => self.unknown_key(key.span().start, other, &KEYS),
            }
        }
        let place = self.place(at);
        (self.faults.len() == before).then_some(LimitRule { who, amounts, place })
    }

    fn case(&mut self, at: usize, table: &DeTable<'_>) -> Option<Case> {
        const KEYS: [&str; 6] = ["plugin", "digest", "signer", "call", "scope", "expect"];
        let before = self.faults.len();
        let (mut plugin, mut digest, mut signer, mut call, mut allowed) = (None, None, None, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "plugin" => plugin = self.word(value, "plugin"),
                "digest" => digest = self.digest(value),
                "signer" => {
                    let text = self.word(value, "signer");
                    signer = text.and_then(|text| self.signer(value.span().start, text));
                }
                "call" => {
                    call = self.word(value, "call").and_then(|text| {
                        let found = vocabulary::find(&text).map(|(_, words)| words);
                        if found.is_none() {
                            let mut message = format!("there is no call `{}`", text.escape_debug());
                            if let Some(near) = nearest::suggestion(&text, CALLS.iter().map(|words| words.call)) {
                                message.push_str(&format!("; {near}"));
                            }
                            self.fault(value.span().start, message, None);
                        }
                        found
                    });
                }
                "expect" => {
                    allowed = self.word(value, "expect").and_then(|text| match text.as_str() {
                        "allow" => Some(true),
                        "deny" => Some(false),
                        _ => {
                            self.fault(value.span().start, "`expect` is `allow` or `deny`", None);
                            None
                        }
                    });
                }
                "scope" => {}
                other => self.unknown_key(key.span().start, other, &KEYS),
            }
        }
        if self.faults.len() == before {
            for (key, missing) in
                [("plugin", plugin.is_none()), ("call", call.is_none()), ("expect", allowed.is_none())]
            {
                if missing {
                    self.fault(at, format!("`{key}` is missing"), None);
                }
            }
        }
        let call = call?;
        let scope = table.get("scope").map(|scope| self.case_scope(scope, call)).unwrap_or_default();
        let place = self.place(at);
        let case = Case { plugin: plugin?, digest, signer, call, scope, allowed: allowed?, place };
        (self.faults.len() == before).then_some(case)
    }

    fn case_scope(&mut self, value: &Value<'_>, call: &'static vocabulary::Words) -> Vec<(&'static str, String)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.fault(value.span().start, "`scope` is a table, such as `scope.path = \"$tree/x\"`", None);
            return Vec::new();
        };
        let mut calls = CallSet::default();
        let _ = calls.add(call.call);
        let mut scope = Vec::new();
        for (key, value) in table {
            let Some(found) = self.scope(key.span().start, key.get_ref(), calls) else { continue };
            let texts = match value.get_ref() {
                DeValue::Array(_) => self.texts(value, found.name).into_iter().map(|(_, text)| text).collect(),
                DeValue::Integer(number) => vec![number.to_string()],
                _ => self.word(value, found.name).into_iter().collect(),
            };
            scope.extend(texts.into_iter().map(|text| (found.name, self.roots.expanded(&text))));
        }
        scope
    }

    fn calls(&mut self, texts: &[(usize, String)]) -> CallSet {
        let mut calls = CallSet::default();
        for (at, text) in texts {
            if let Err((message, hint)) = calls.add(text) {
                self.fault(*at, message, Some(hint));
            }
        }
        calls
    }

    fn tables<'v, 'i>(&mut self, value: &'v Value<'i>, name: &str) -> Vec<(usize, &'v DeTable<'i>)> {
        let wrong = |reader: &mut Self, at: usize| {
            reader.fault(at, format!("`{name}` is a list of tables"), Some(format!("begin each with `[[{name}]]`")));
        };
        let DeValue::Array(array) = value.get_ref() else {
            wrong(self, value.span().start);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for entry in array.iter() {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push((entry.span().start, table)),
                _ => wrong(self, entry.span().start),
            }
        }
        tables
    }

    fn texts(&mut self, value: &Value<'_>, name: &str) -> Vec<(usize, String)> {
        let DeValue::Array(array) = value.get_ref() else {
            self.fault(value.span().start, format!("`{name}` is a list of texts"), Some("write `[\"…\"]`".to_owned()));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for entry in array.iter() {
            match entry.get_ref() {
                DeValue::String(text) => texts.push((entry.span().start, text.to_string())),
                _ => self.fault(entry.span().start, format!("`{name}` is a list of texts"), None),
            }
        }
        texts
    }

    fn word(&mut self, value: &Value<'_>, name: &str) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() || name != "plugin" => Some(text.to_string()),
            _ => {
                self.fault(value.span().start, format!("`{name}` is a text"), None);
                None
            }
        }
    }

    fn truth(&mut self, value: &Value<'_>, name: &str) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            _ => {
                self.fault(value.span().start, format!("`{name}` is `true` or `false`"), None);
                None
            }
        }
    }

    fn digest(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.word(value, "digest")?;
        let good = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        if !good {
            let hint = "`sha256:` and 64 hexadecimal digits, as `maddock plugin inspect FILE` tells";
            self.fault(value.span().start, "this is no digest", Some(hint.to_owned()));
        }
        good.then_some(text)
    }

    fn whole(&mut self, value: &Value<'_>, name: &str, bytes: bool) -> Option<u64> {
        // Exact up to 2^53, which no ceiling needs to exceed.
        let number = amount(value, bytes).filter(|number| (1.0..=9e15).contains(number));
        let Some(number) = number else {
            let example = if bytes { "\"256 MiB\"" } else { "100000" };
            self.fault(
                value.span().start,
                format!("`{name}` is an amount"),
                Some(format!("such as `{name} = {example}`")),
            );
            return None;
        };
        format!("{number:.0}").parse().ok()
    }
}

fn integer(value: &Value<'_>) -> Option<i64> {
    match value.get_ref() {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// A number, or for bytes a text with a unit.
fn amount(value: &Value<'_>, bytes: bool) -> Option<f64> {
    match value.get_ref() {
        DeValue::Integer(_) => integer(value)?.to_string().parse().ok(),
        DeValue::Float(number) => {
            number.as_str().replace('_', "").parse().ok().filter(|number: &f64| number.is_finite())
        }
        DeValue::String(text) if bytes => size(text),
        _ => None,
    }
}

/// `64 GiB`, `1.5MB`, `4096`.
fn size(text: &str) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
