//! What a refusal says, and the lines that would allow it.
//!
//! Values come from plugins and from files: nothing of them may reach a terminal as anything but text.

use super::matcher::{Kind, Matcher, is_image_name, number};
use super::rule::{Asked, Rule};
use super::suggest::named;
use super::vocabulary::Words;
use super::{Denial, Layer, Level, Obstacle, Policy, Roots, SITE_FILE};
use crate::capability::events::printable;
use crate::capability::gate::Identity;

/// Values of one kind that a sentence has room for.
const SAID: usize = 3;

impl Policy {
    pub(super) fn denial(
        &self,
        who: &Identity,
        call: &str,
        words: Option<&'static Words>,
        asked: Asked<'_>,
        obstacle: &Obstacle<'_>,
    ) -> Denial {
        let (because, rule) = match obstacle {
            Obstacle::Wordless => ("this version has no words for it".to_owned(), "default (deny)".into()),
            Obstacle::Denied(layer, rule) => {
                let reason = rule.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                (format!("the {} policy denies it{reason}", layer.level.word()), rule.place.clone())
            }
            Obstacle::Narrowed(layer, rule) => {
                (format!("the {} policy narrows it to something else", layer.level.word()), rule.place.clone())
            }
            Obstacle::NotGranted(Some(rule)) => ("the rule does not cover it".to_owned(), rule.place.clone()),
            Obstacle::NotGranted(None) => ("no rule allows it".to_owned(), "default (deny)".into()),
            Obstacle::NotListed(layer, near) => (
                format!("the {} policy allows only what it lists", layer.level.word()),
                near.map_or_else(|| layer.name.as_str().into(), |rule| rule.place.clone()),
            ),
        };
        let deciding = match obstacle {
            Obstacle::Narrowed(_, rule) | Obstacle::NotGranted(Some(rule)) | Obstacle::NotListed(_, Some(rule)) => {
                words.map(|words| rule.misses(words, asked))
            }
            Obstacle::Denied(_, rule) if !rule.scopes.is_empty() => words.map(|words| denied(rule, words, asked)),
            _ => None,
        };
        // A container has dozens of scopes: where some decided, they are the ones to talk about. The trace has them all.
        let said: Vec<String> = match deciding {
            Some(misses) => misses.iter().take(SAID).map(|(name, value)| format!("{name} `{value}`")).collect(),
            None => asked.iter().take(SAID).map(|(name, value)| format!("{name} `{value}`")).collect(),
        };
        let on = if said.is_empty() { String::new() } else { format!(" on {}", said.join(", ")) };
        let message = format!("policy refuses plugin `{}` the call `{call}`{on}: {because} ({rule})", who.name);
        let (remedy, lines) = self.remedy(who, call, words, asked, obstacle);
        Denial { message: printable(&message), rule, remedy, lines }
    }

    fn remedy(
        &self,
        who: &Identity,
        call: &str,
        words: Option<&'static Words>,
        asked: Asked<'_>,
        obstacle: &Obstacle<'_>,
    ) -> (String, Option<String>) {
        let Some(words) = words else { return ("please report this".to_owned(), None) };
        match obstacle {
            Obstacle::Wordless => ("please report this".to_owned(), None),
            Obstacle::Denied(layer, rule) => (
                format!("a denial beats every grant: {} the rule at {}", edit(layer, "remove or narrow"), rule.place),
                None,
            ),
            Obstacle::Narrowed(layer, rule) => {
                let widened = scope_lines(Some(rule), words, asked, &self.roots);
                let verb = edit(layer, "widen");
                (format!("to allow it, {verb} the rule at {} to:\n{}", rule.place, widened.trim_end()), None)
            }
            Obstacle::NotGranted(near) => {
                let lines = lines(who, call, *near, words, asked, &self.roots);
                let user = self.homes.user.as_ref().map_or_else(|| "the policy".to_owned(), |path| super::shown(path));
                let may = vocabulary_place(call)
                    .is_some_and(|at| self.site().is_none_or(|site| self.left_to_users(site, who).has(at)));
                let there = |level: Level| self.layers.iter().any(|layer| layer.level == level);
                let (place, new) = if may {
                    (format!("add to {user}"), !there(Level::User))
                } else {
                    (format!("the site's administrator adds to {SITE_FILE}"), false)
                };
                (told(&place, new, &lines), Some(lines))
            }
            Obstacle::NotListed(layer, near) => {
                let lines = lines(who, call, *near, words, asked, &self.roots);
                (
                    told(&format!("{} {}", edit(layer, "add to"), super::shown(layer.name.as_ref())), false, &lines),
                    Some(lines),
                )
            }
        }
    }
}

fn vocabulary_place(call: &str) -> Option<usize> {
    super::vocabulary::find(call).map(|(at, _)| at)
}

fn edit(layer: &Layer, verb: &str) -> String {
    match (layer.level, verb.strip_suffix(" to")) {
        (Level::Site, Some(verb)) => format!("the site's administrator {verb}s to"),
        (Level::Site, None) => format!("the site's administrator may {verb}"),
        _ => verb.to_owned(),
    }
}

/// `new`: the file is not there yet, and begins with its version.
fn told(place: &str, new: bool, lines: &str) -> String {
    let head = if new { "schema = 1\n" } else { "" };
    format!("to allow it, {place}:\n{head}{}", lines.trim_end())
}

/// The values that a denial speaks of.
fn denied<'a>(rule: &Rule, words: &Words, asked: Asked<'a>) -> Vec<(&'static str, &'a str)> {
    let touched = |name: &str, value: &str| {
        rule.matcher(name).zip(words.scope(name)).is_some_and(|(matcher, scope)| matcher.touches(scope.kind, value))
    };
    asked.iter().filter(|(name, value)| touched(name, value)).map(|(name, value)| (*name, value.as_str())).collect()
}

/// A rule that allows the call: the nearest one, widened by what was asked, or a new one for exactly that.
fn lines(who: &Identity, call: &str, near: Option<&Rule>, words: &Words, asked: Asked<'_>, roots: &Roots) -> String {
    let mut text = String::from("[[allow]]\n");
    text.push_str(&format!("plugin = {}\n", quoted(&who.name)));
    if !who.built_in {
        text.push_str(&format!("digest = {}\n", quoted(&who.digest)));
    }
    text.push_str(&format!("calls = [{}]\n", quoted(call)));
    text.push_str(&scope_lines(near, words, asked, roots));
    text
}

fn scope_lines(near: Option<&Rule>, words: &Words, asked: Asked<'_>, roots: &Roots) -> String {
    let mut text = String::new();
    for scope in words.scopes {
        let values = || asked.iter().filter(|(name, _)| *name == scope.name).map(|(_, value)| value.as_str());
        let matcher = near.and_then(|rule| rule.matcher(scope.name));
        let spoken_of = matcher.is_some() || near.is_none() || (scope.guarded && values().next().is_some());
        if !spoken_of || (matcher.is_none() && values().next().is_none()) {
            continue;
        }
        if scope.kind.is_number() {
            let known = match matcher {
                Some(Matcher::Max(max)) => *max,
                _ => 0.0,
            };
            // No ceiling covers what has none.
            let most = values().map(|value| number(value).unwrap_or(f64::INFINITY)).fold(known, f64::max);
            if most.is_finite() {
                text.push_str(&format!("scope.{} = {{ max = {most} }}\n", scope.name));
            }
            continue;
        }
        // What belongs to the run has new names in the next one.
        if matcher.is_none() && scope.kind == Kind::Own {
            continue;
        }
        let mut patterns: Vec<String> = match matcher {
            Some(Matcher::Patterns(patterns)) => patterns.iter().map(|pattern| quoted(pattern.text())).collect(),
            _ => Vec::new(),
        };
        let outside = values().filter(|value| matcher.is_none_or(|matcher| !matcher.covers(scope.kind, value)));
        let path = matches!(scope.kind, Kind::Path | Kind::Tree);
        let pattern = |value: &str| match scope.kind {
            _ if path => named(value, roots),
            // No pattern speaks of what nobody knows, but the one for all.
            Kind::Image if !is_image_name(value) => "**".to_owned(),
            _ => literal(value),
        };
        patterns.extend(outside.map(|value| quoted(&pattern(value))));
        patterns.dedup();
        text.push_str(&format!("scope.{} = [{}]\n", scope.name, patterns.join(", ")));
    }
    text
}

/// A value as a pattern that matches it and nothing else.
pub(super) fn literal(value: &str) -> String {
    let special = value.starts_with(['=', '@']) || value.contains(['*', '$']);
    if special { format!("={value}") } else { value.to_owned() }
}

/// A text as TOML, in which nothing drives a terminal.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if printable(letter.encode_utf8(&mut [0; 4])) != letter.to_string() => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(letter)));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
