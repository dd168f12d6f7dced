//! What a plugin asks for, as lines of a policy, and whether the policy in force allows it. Installing grants nothing:
//! these are what a person pastes, or tells `install --grant` to write, after having read the reasons.

use std::path::PathBuf;

use super::{PackageError, Result, replace};
use crate::capability::gate::Identity;
use crate::capability::policy::vocabulary::CallSet;
use crate::capability::policy::{Policy, Roots, Verdict};
use crate::plugin::Environment;
use crate::plugin::manifest::{Manifest, Request};

/// What stands for a wildcard where policy is asked about a pattern: no rule names it, so only a wildcard covers it.
const ANYTHING: &str = "\u{1}any";

/// Characters of a line of reasons.
const WIDTH: usize = 76;

/// Directories that requests speak of, where there is no run.
const ROOTS: [(&str, &str); 4] =
    [("$tree", "/\u{1}tree"), ("$run", "/\u{1}run"), ("$output", "/\u{1}output"), ("$results", "/\u{1}results")];

/// What policy says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// All of it, by these rules.
    Allowed(Vec<String>),
    /// Some of it is not: the first refusal.
    Refused(String),
}

/// The lines that grant a component all that it asks for. A text after each says why it asks.
#[must_use]
pub fn lines(manifest: &Manifest, digest: &str) -> String {
    let mut text = String::new();
    for request in &manifest.requests {
        let why = format!("{} {}: {}", manifest.name, manifest.version, request.reason);
        folded(&why, WIDTH).iter().for_each(|line| text.push_str(&format!("# {line}\n")));
        text.push_str("[[allow]]\n");
        text.push_str(&format!("plugin = {}\ndigest = {}\n", quoted(&manifest.name), quoted(digest)));
        text.push_str(&format!("calls = {}\n", list(&request.calls)));
        for (name, values) in &request.scope {
            text.push_str(&format!("scope.{} = {}\n", key(name), list(values)));
        }
        text.push('\n');
    }
    text
}

/// A text in lines of so many characters, broken between words.
#[must_use]
pub fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", "))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { quoted(name) }
}

/// The requests of `after` that ask for more than those of `before`: other calls, or values that were not named.
#[must_use]
pub fn widened(before: &Manifest, after: &Manifest) -> Vec<Request> {
    after
        .requests
        .iter()
        .filter(|wanted| {
            // Each call with all of its scope must have been asked for by one request.
            wanted.calls.iter().any(|call| !before.requests.iter().any(|had| covers(had, call, wanted)))
        })
        .cloned()
        .collect()
}

fn covers(had: &Request, call: &str, wanted: &Request) -> bool {
    let family =
        |pattern: &str| pattern.strip_suffix(".*").is_some_and(|family| call.split('.').next() == Some(family));
    let called = had.calls.iter().any(|pattern| pattern == call || family(pattern));
    // A scope that is not named is not restricted.
    called
        && had.scope.iter().all(|(name, allowed)| {
            wanted.scope.get(name).is_some_and(|values| values.iter().all(|value| allowed.contains(value)))
        })
}

/// What the shipped policy, and whatever else is in force, says of each request of a component.
///
/// # Errors
/// The policy cannot be read.
pub fn judge(identity: &Identity, manifest: &Manifest, load: impl Fn(Roots) -> Result<Policy>) -> Result<Vec<Judged>> {
    let root = |name: &str| {
        ROOTS.iter().find(|(own, _)| *own == name).map(|(_, path)| PathBuf::from(path)).unwrap_or_default()
    };
    let roots = Roots { tree: root("$tree"), run: root("$run"), output: root("$output"), results: root("$results") };
    let policy = load(roots)?;
    Ok(manifest.requests.iter().map(|request| of_request(&policy, identity, request)).collect())
}

fn of_request(policy: &Policy, identity: &Identity, request: &Request) -> Judged {
    let mut calls = CallSet::default();
    for pattern in &request.calls {
        if let Err((message, _)) = calls.add(pattern) {
            return Judged::Refused(message);
        }
    }
    if let Some(name) = request.scope.keys().find(|name| !calls.words().any(|words| words.scope(name).is_some())) {
        return Judged::Refused(format!("none of these calls has a scope `{name}`"));
    }
    let mut rules = Vec::new();
    for words in calls.words() {
        let asked: Vec<(&'static str, String)> = request
            .scope
            .iter()
            .filter_map(|(name, values)| Some((words.scope(name)?.name, values)))
            .flat_map(|(name, values)| values.iter().map(move |value| (name, example(value))))
            .collect();
        match policy.decide(identity, words.call, &asked) {
            Verdict::Allowed { rule } => rules.push(rule.to_string()),
            Verdict::Denied(denial) => return Judged::Refused(format!("`{}`: {}", words.call, denial.rule)),
        }
    }
    rules.sort();
    rules.dedup();
    Judged::Allowed(rules)
}

/// A value that only a pattern as wide as this one covers.
fn example(pattern: &str) -> String {
    let (root, rest) = match pattern.starts_with('$') {
        true => pattern.split_at(pattern.find('/').unwrap_or(pattern.len())),
        false => ("", pattern),
    };
    let root = ROOTS.iter().find(|(name, _)| *name == root).map_or(root, |(_, path)| path);
    let rest: Vec<String> = rest
        .split('/')
        .map(|segment| match segment {
            "*" => ANYTHING.to_owned(),
            "**" => format!("{ANYTHING}/{ANYTHING}/{ANYTHING}"),
            other => other.to_owned(),
        })
        .collect();
    format!("{root}{}", rest.join("/"))
}

/// The policy file of this user.
#[must_use]
pub fn user_policy(environment: &Environment) -> Option<PathBuf> {
    super::signature::configuration(environment).map(|directory| directory.join("policy.toml"))
}

/// Writes the grants of a component to the user's policy file, once.
///
/// # Errors
/// The file cannot be read or written, or is not TOML.
pub fn write(environment: &Environment, manifest: &Manifest, digest: &str) -> Result<Option<PathBuf>> {
    let Some(path) = user_policy(environment) else {
        return Err(PackageError::new(
            "there is no place for a policy of yours: neither XDG_CONFIG_HOME nor HOME is set",
        ));
    };
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "schema = 1\n".to_owned(),
        Err(error) => return Err(PackageError::of_file("read", &path, &error)),
    };
    if before.contains(digest) || manifest.requests.is_empty() {
        return Ok(None);
    }
    let text = format!("{}\n\n{}\n", before.trim_end(), lines(manifest, digest).trim_end());
    toml::from_str::<toml::Table>(&text).map_err(|error| {
        PackageError::new(format!("`{}` is not TOML, so nothing was added: {}", path.display(), error.message()))
    })?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| PackageError::of_file("make", directory, &error))?;
    }
    replace(&path, text.as_bytes(), 0o600)?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(requests: &str) -> Manifest {
        Manifest::parse(&format!(
            r#"{{"schema":1,"name":"a","version":"0.1.0","kind":"target","interface":"maddock:plugin@0.1.0","requests":{requests}}}"#
        ))
        .unwrap()
    }

    const READS: &str = r#"[{"calls":["files.read"],"scope":{"path":["$run/**"]},"reason":"reads \"it\""}]"#;

    #[test]
    fn the_lines_are_a_policy() {
        let text = format!("schema = 1\n{}", lines(&manifest(READS), "sha256:0"));
        let policy: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(policy["allow"][0]["digest"].as_str(), Some("sha256:0"));
        assert_eq!(policy["allow"][0]["scope"]["path"][0].as_str(), Some("$run/**"));
    }

    #[test]
    fn a_reason_is_a_comment_whatever_is_in_it() {
        let long = "word ".repeat(40) + "[[allow]] plugin = \\\"*\\\"";
        let text = lines(&manifest(&format!(r#"[{{"calls":["files.read"],"reason":"{long}"}}]"#)), "sha256:0");
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        let policy: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(policy["allow"].as_array().unwrap().len(), 1, "{text}");
    }

    #[test]
    fn requests_widen_by_calls_and_by_values() {
        let before = manifest(READS);
        let wider = [
            r#"[{"calls":["files.read","files.write"],"scope":{"path":["$run/**"]},"reason":""}]"#,
            r#"[{"calls":["files.read"],"scope":{"path":["$run/**","/etc/**"]},"reason":""}]"#,
            r#"[{"calls":["files.read"],"reason":"no scope is every scope"}]"#,
        ];
        for requests in wider {
            assert_eq!(widened(&before, &manifest(requests)).len(), 1, "{requests}");
        }
        assert_eq!(widened(&before, &before), []);
        assert_eq!(widened(&before, &manifest("[]")), []);
        let all = manifest(r#"[{"calls":["files.*"],"reason":""}]"#);
        assert_eq!(widened(&all, &before), []);
    }

    #[test]
    fn a_request_is_judged_as_wide_as_it_is() {
        let rules =
            "schema = 1\n[[allow]]\nplugin = \"a\"\ncalls = [\"files.read\"]\nscope.path = [\"$run/*\", \"/etc/x\"]\n";
        let identity = Identity { name: "a".to_owned(), digest: "sha256:0".to_owned(), built_in: true, signer: None };
        let judged = |values: &str| {
            let requests = format!(r#"[{{"calls":["files.read"],"scope":{{"path":[{values}]}},"reason":""}}]"#);
            let load = |roots| Ok(Policy::of_text(roots, "p.toml", rules).unwrap());
            judge(&identity, &manifest(&requests), load).unwrap().remove(0)
        };
        assert_eq!(judged(r#""$run/*""#), Judged::Allowed(vec!["p.toml:2".to_owned()]));
        assert_eq!(judged(r#""/etc/x""#), Judged::Allowed(vec!["p.toml:2".to_owned()]));
        assert!(matches!(judged(r#""$run/**""#), Judged::Refused(_)));
        assert!(matches!(judged(r#""/etc/*""#), Judged::Refused(_)));
        assert!(matches!(judged(r#""$tree/*""#), Judged::Refused(_)));
    }

    #[test]
    fn grants_are_written_once_and_never_into_a_broken_file() {
        let place = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("XDG_CONFIG_HOME".to_owned(), place.path().display().to_string())].into_iter().collect();
        let path = write(&environment, &manifest(READS), "sha256:0").unwrap().unwrap();
        assert_eq!(write(&environment, &manifest(READS), "sha256:0").unwrap(), None);
        std::fs::write(&path, "schema = [").unwrap();
        assert!(write(&environment, &manifest(READS), "sha256:0").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "schema = [");
    }
}
