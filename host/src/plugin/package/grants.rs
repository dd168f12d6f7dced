//! What a plugin asks for, as lines of a policy, and whether the policy in force allows it. Installing grants nothing:
//! these are what a person pastes, or tells `install --grant` to write, after having read the reasons.

use std::path::{Path, PathBuf};

use super::{PackageError, Result, replace};
use crate::capability::gate::Identity;
use crate::capability::policy::matcher::{Kind, Matcher};
use crate::capability::policy::rule::{Effect, Rule};
use crate::capability::policy::vocabulary::{self, CallSet, Words};
use crate::capability::policy::{Level, Policy, PolicyError, Roots, Verdict, read};
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
    Refused {
        /// The call and the deciding rule.
        why: String,
        /// What would allow it; none where nothing can.
        remedy: Option<String>,
    },
}

/// What is wrong with a request, and what may stand there.
pub type Unspeakable = (String, Option<String>);

/// The lines that grant a component all that it asks for. A text before each says why it asks.
#[must_use]
pub fn lines(manifest: &Manifest, digest: &str) -> String {
    manifest.requests.iter().map(|request| format!("{}\n", lines_of(manifest, digest, request))).collect()
}

fn lines_of(manifest: &Manifest, digest: &str, request: &Request) -> String {
    let mut text = String::new();
    let why = format!("{} {}: {}", manifest.name, manifest.version, request.reason);
    folded(&why, WIDTH).iter().for_each(|line| text.push_str(&format!("# {line}\n")));
    text.push_str("[[allow]]\n");
    text.push_str(&format!("plugin = {}\ndigest = {}\n", quoted(&manifest.name), quoted(digest)));
    text.push_str(&format!("calls = {}\n", list(&request.calls)));
    let calls = calls_of(request);
    for (name, values) in &request.scope {
        let value = match values.as_slice() {
            [value] if is_number(calls, name) => format!("{{ max = {} }}", amount(value)),
            _ => list(values),
        };
        text.push_str(&format!("scope.{} = {value}\n", key(name)));
    }
    text
}

/// The calls of a request that there are.
fn calls_of(request: &Request) -> CallSet {
    let mut calls = CallSet::default();
    request.calls.iter().for_each(|pattern| drop(calls.add(pattern)));
    calls
}

/// Whether a scope of one of these calls is a number, of which policy has a ceiling in the place of patterns.
fn is_number(calls: CallSet, name: &str) -> bool {
    calls.words().find_map(|words| words.scope(name)).is_some_and(|scope| scope.kind.is_number())
}

/// A number as it stands; a text such as `64 GiB` as one.
fn amount(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => number.to_string(),
        _ => quoted(value),
    }
}

/// Whether policy has words for what a component asks for: what none can say, none can grant.
///
/// # Errors
/// The first request that is not so.
pub fn check(manifest: &Manifest) -> std::result::Result<(), Unspeakable> {
    let nobody = format!("sha256:{}", "0".repeat(64));
    for request in &manifest.requests {
        rule_of(manifest, &nobody, request).map_err(|(message, hint)| {
            (format!("it asks for `{}` as no policy can say it: {message}", request.calls.join("`, `")), hint)
        })?;
    }
    Ok(())
}

/// A request as the policy's own reader understands the lines that grant it.
fn rule_of(manifest: &Manifest, digest: &str, request: &Request) -> std::result::Result<Rule, Unspeakable> {
    let calls = calls_of(request);
    let several = |(name, values): &(&String, &Vec<String>)| values.len() != 1 && is_number(calls, name);
    if let Some((name, _)) = request.scope.iter().find(several) {
        return Err((format!("`{name}` is a ceiling: one number"), None));
    }
    let text = format!("schema = {}\n{}", read::SCHEMA, lines_of(manifest, digest, request));
    let content = read::read("requests", &text, &roots(), None).map_err(|faults| match faults.into_iter().next() {
        // That hint is about the file of a policy.
        Some(fault) if fault.hint.as_ref().is_some_and(|hint| hint.contains("{ max")) => (fault.message, None),
        Some(fault) => (fault.message, fault.hint),
        None => ("it cannot be read".to_owned(), None),
    })?;
    content.rules.into_iter().next().ok_or_else(|| ("it grants nothing".to_owned(), None))
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
    let policy = load(roots())?;
    Ok(manifest.requests.iter().map(|request| of_request(&policy, identity, manifest, request)).collect())
}

fn roots() -> Roots {
    let root = |name: &str| {
        ROOTS.iter().find(|(own, _)| *own == name).map(|(_, path)| PathBuf::from(path)).unwrap_or_default()
    };
    Roots { tree: root("$tree"), run: root("$run"), output: root("$output"), results: root("$results") }
}

fn of_request(policy: &Policy, identity: &Identity, manifest: &Manifest, request: &Request) -> Judged {
    let wanted = match rule_of(manifest, &identity.digest, request) {
        Ok(wanted) => wanted,
        Err((why, _)) => return Judged::Refused { why, remedy: None },
    };
    let mut rules = Vec::new();
    for words in wanted.calls.words() {
        match policy.decide(identity, words.call, &asked(words, request, &wanted)) {
            Verdict::Allowed { rule } => rules.push(rule.to_string()),
            Verdict::Denied(denial) => {
                let remedy = denial.remedy.lines().next().map(|line| line.trim_end_matches(':').to_owned());
                return Judged::Refused { why: format!("`{}`: {}", words.call, denial.rule), remedy };
            }
        }
    }
    rules.sort();
    rules.dedup();
    Judged::Allowed(rules)
}

/// Values of a call that only rules as wide as the request cover.
fn asked(words: &Words, request: &Request, wanted: &Rule) -> Vec<(&'static str, String)> {
    let scopes = request.scope.iter().filter_map(|(name, values)| Some((words.scope(name)?, values)));
    scopes
        .flat_map(|(scope, values)| match (wanted.matcher(scope.name), scope.kind) {
            (Some(Matcher::Max(max)), _) => vec![(scope.name, max.to_string())],
            (_, Kind::Arguments) => values.iter().map(|value| (scope.name, example_of_words(value))).collect(),
            _ => values.iter().map(|value| (scope.name, example(value))).collect(),
        })
        .collect()
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

/// The same of a command line, word by word.
fn example_of_words(pattern: &str) -> String {
    let words = shlex::split(pattern).unwrap_or_default();
    let words = words.iter().flat_map(|word| match word.as_str() {
        "**" => vec![ANYTHING.to_owned(); 3],
        word => vec![example(word)],
    });
    let words: Vec<String> = words.collect();
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default()
}

/// The policy file of this user.
#[must_use]
pub fn user_policy(environment: &Environment) -> Option<PathBuf> {
    super::signature::configuration(environment).map(|directory| directory.join("policy.toml"))
}

/// The user's policy with what components ask for: read, and not written yet.
#[derive(Debug)]
pub struct Granting {
    path: PathBuf,
    text: String,
    /// How many rules are new.
    rules: usize,
}

impl Granting {
    /// Adds a rule for each request that no rule of the file grants already.
    ///
    /// # Errors
    /// There is no place for the file; it, or what it would become, is no policy.
    pub fn of(environment: &Environment, components: &[(&Identity, &Manifest)]) -> Result<Self> {
        let Some(path) = user_policy(environment) else {
            return Err(PackageError::new(
                "there is no place for a policy of yours: neither XDG_CONFIG_HOME nor HOME is set",
            ));
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("schema = {}\n", read::SCHEMA),
            Err(error) => return Err(PackageError::of_file("read", &path, &error)),
        };
        let mut granting = Self { path, text, rules: 0 };
        let mut policy = granting.policy(&granting.text)?;
        for (who, manifest) in components {
            for request in &manifest.requests {
                if !grants(&policy, who, manifest, request)? {
                    let rule = lines_of(manifest, &who.digest, request);
                    let text = format!("{}\n\n{rule}", granting.text.trim_end());
                    policy = granting.policy(&text)?;
                    granting.text = text;
                    granting.rules += 1;
                }
            }
        }
        Ok(granting)
    }

    /// The file as the gate would read it.
    fn policy(&self, text: &str) -> Result<Policy> {
        let name = self.path.display().to_string();
        let read = Policy::shipped(roots()).and_then(|policy| policy.with_layer(Level::User, &name, text));
        read.map_err(|error: PolicyError| {
            let hint = error.hint();
            let error = PackageError::new(format!("nothing was granted, as it would not be a policy: {error}"));
            hint.into_iter().fold(error, PackageError::hint)
        })
    }

    /// Writes the file, where there is something new; answers where.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self) -> Result<Option<&Path>> {
        if self.rules == 0 {
            return Ok(None);
        }
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| PackageError::of_file("make", directory, &error))?;
        }
        replace(&self.path, self.text.as_bytes(), 0o600)?;
        Ok(Some(&self.path))
    }
}

/// Whether rules of the user's file grant all of a request. What takes it away again is another matter.
fn grants(policy: &Policy, who: &Identity, manifest: &Manifest, request: &Request) -> Result<bool> {
    let wanted = rule_of(manifest, &who.digest, request).map_err(|(message, _)| PackageError::new(message))?;
    let own =
        || policy.layers().iter().filter(|layer| layer.level == Level::User).flat_map(|layer| &layer.content.rules);
    Ok(wanted.calls.words().all(|words| {
        let asked = asked(words, request, &wanted);
        own().any(|rule| {
            rule.effect == Effect::Allow
                && rule.who.is_granted(who)
                && vocabulary::find(words.call).is_some_and(|(at, _)| rule.calls.has(at))
                && rule.covers(words, &asked)
        })
    }))
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

    const READ: &str = r#"{"calls":["files.read"],"scope":{"path":["$run/**"]},"reason":"reads \"it\""}"#;
    const READS: &str = r#"[{"calls":["files.read"],"scope":{"path":["$run/**"]},"reason":"reads \"it\""}]"#;

    fn digest() -> String {
        super::super::digest_of(b"a")
    }

    fn built_in() -> Identity {
        Identity { name: "a".to_owned(), digest: digest(), built_in: true, signer: None }
    }

    #[test]
    fn the_lines_are_a_policy() {
        let text = format!("schema = 1\n{}", lines(&manifest(READS), "sha256:0"));
        let policy: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(policy["allow"][0]["digest"].as_str(), Some("sha256:0"));
        assert_eq!(policy["allow"][0]["scope"]["path"][0].as_str(), Some("$run/**"));
    }

    #[test]
    fn a_grant_of_command_lines_is_seen_to_hold_and_a_narrower_one_not() {
        let requests = r#"[{"calls":["process.run"],"scope":{"program":["q"],"arguments":["put -o * -- bash $run/**","show **"]},"reason":""}]"#;
        let asks = manifest(requests);
        let judged = |arguments: &str| {
            let text = format!(
                "schema = 1\n[[allow]]\nplugin = \"a\"\ncalls = [\"process.run\"]\nscope.program = [\"q\"]\nscope.arguments = {arguments}\n"
            );
            let load = |roots| Ok(Policy::of_text(roots, "p.toml", &text).unwrap());
            judge(&built_in(), &asks, load).unwrap().remove(0)
        };
        assert!(matches!(judged(r#"["put -o * -- bash $run/**", "show **"]"#), Judged::Allowed(_)));
        for narrower in [
            r#"["put -o * -- bash $run/**"]"#,
            r#"["put -o * -- bash $run/x", "show **"]"#,
            r#"["put -o * -- bash $run/**", "show *"]"#,
        ] {
            assert!(matches!(judged(narrower), Judged::Refused { .. }), "{narrower}");
        }
    }

    #[test]
    fn what_is_a_number_is_granted_as_a_ceiling() {
        let requests = r#"[{"calls":["process.run"],"scope":{"time":["60"],"program":["id"]},"reason":""},
            {"calls":["docker.create-container"],"scope":{"memory":["64 GiB"],"pids-limit":["100"]},"reason":""}]"#;
        let text = lines(&manifest(requests), &digest());
        for line in
            ["scope.time = { max = 60 }", "scope.memory = { max = \"64 GiB\" }", "scope.pids-limit = { max = 100 }"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(check(&manifest(requests)), Ok(()));
        let judged = |time: &str| {
            let rules = format!(
                "schema = 1\n[[allow]]\nplugin = \"a\"\ncalls = [\"process.run\"]\nscope.time = {{ max = {time} }}"
            );
            let load = |roots| Ok(Policy::of_text(roots, "p.toml", &rules).unwrap());
            let requests = r#"[{"calls":["process.run"],"scope":{"time":["60"]},"reason":""}]"#;
            judge(&built_in(), &manifest(requests), load).unwrap().remove(0)
        };
        assert_eq!(judged("60"), Judged::Allowed(vec!["p.toml:2".to_owned()]));
        assert!(matches!(judged("59"), Judged::Refused { .. }));
    }

    #[test]
    fn what_no_policy_can_say_is_told() {
        let table = [
            (r#"{"calls":["files.raed"],"reason":""}"#, "there is no call `files.raed`"),
            (r#"{"calls":[],"reason":""}"#, "`calls` is empty"),
            (
                r#"{"calls":["files.read"],"scope":{"image":["x"]},"reason":""}"#,
                "none of these calls has a scope `image`",
            ),
            (r#"{"calls":["files.read"],"scope":{"path":["$run/*.csv"]},"reason":""}"#, "a whole segment"),
            (r#"{"calls":["files.read"],"scope":{"path":["@mine"]},"reason":""}"#, "there is no set `mine`"),
            (r#"{"calls":["files.read"],"scope":{"path":["$home/x"]},"reason":""}"#, "there is no directory `$home`"),
            (r#"{"calls":["process.run"],"scope":{"time":["soon"]},"reason":""}"#, "`time` is a number"),
            (r#"{"calls":["process.run"],"scope":{"time":["1","2"]},"reason":""}"#, "`time` is a ceiling: one number"),
        ];
        for (request, words) in table {
            let (message, _) = check(&manifest(&format!("[{READ},{request}]"))).unwrap_err();
            assert!(message.contains(words), "{words}: {message}");
        }
        assert_eq!(check(&manifest(READS)), Ok(()));
    }

    #[test]
    fn what_built_in_plugins_ask_for_can_be_said() {
        for entry in crate::plugin::catalog::Catalog::new(&[]).unwrap().entries() {
            assert_eq!(check(&entry.manifest), Ok(()), "{}", entry.identity.name);
        }
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
        let identity = built_in();
        let judged = |values: &str| {
            let requests = format!(r#"[{{"calls":["files.read"],"scope":{{"path":[{values}]}},"reason":""}}]"#);
            let load = |roots| Ok(Policy::of_text(roots, "p.toml", rules).unwrap());
            judge(&identity, &manifest(&requests), load).unwrap().remove(0)
        };
        assert_eq!(judged(r#""$run/*""#), Judged::Allowed(vec!["p.toml:2".to_owned()]));
        assert_eq!(judged(r#""/etc/x""#), Judged::Allowed(vec!["p.toml:2".to_owned()]));
        assert!(matches!(judged(r#""$run/**""#), Judged::Refused { .. }));
        assert!(matches!(judged(r#""/etc/*""#), Judged::Refused { .. }));
        assert!(matches!(judged(r#""$tree/*""#), Judged::Refused { .. }));
    }

    fn configured(place: &Path) -> Environment {
        [("XDG_CONFIG_HOME".to_owned(), place.display().to_string())].into_iter().collect()
    }

    fn grant(environment: &Environment, manifest: &Manifest) -> Result<Option<PathBuf>> {
        let who = Identity { built_in: false, ..built_in() };
        Granting::of(environment, &[(&who, manifest)])?.write().map(|path| path.map(Path::to_owned))
    }

    #[test]
    fn grants_are_written_once_and_never_into_a_broken_file() {
        let place = tempfile::tempdir().unwrap();
        let environment = configured(place.path());
        let path = grant(&environment, &manifest(READS)).unwrap().unwrap();
        assert_eq!(grant(&environment, &manifest(READS)).unwrap(), None);
        for broken in ["schema = [", "schema = 1\nallowed = []\n", "schema = 1\nallow = []\n"] {
            std::fs::write(&path, broken).unwrap();
            let error = grant(&environment, &manifest(READS)).unwrap_err();
            assert!(error.message.contains("nothing was granted"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
        }
    }

    #[test]
    fn what_is_granted_already_is_judged_by_rules_and_not_by_the_look_of_the_file() {
        let place = tempfile::tempdir().unwrap();
        let environment = configured(place.path());
        let path = user_policy(&environment).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let granted = |before: &str| {
            std::fs::write(&path, format!("schema = 1\n{before}")).unwrap();
            grant(&environment, &manifest(READS)).unwrap();
            std::fs::read_to_string(&path).unwrap().matches("[[allow]]").count()
        };
        let digest = digest();
        let rule = |rest: &str| format!("[[allow]]\nplugin = \"a\"\ndigest = \"{digest}\"\n{rest}\n");
        assert_eq!(granted(&format!("# {digest} is to be looked at\n")), 1);
        assert_eq!(granted(&format!("[[deny]]\ndigest = \"{digest}\"\ncalls = [\"files.write\"]\n")), 1);
        assert_eq!(granted(&rule("calls = [\"files.stat\"]")), 2);
        assert_eq!(granted(&rule("calls = [\"files.read\"]\nscope.path = [\"$run/x\"]")), 2);
        assert_eq!(granted(&rule("calls = [\"files.read\"]\nscope.path = [\"$run/**\"]")), 1);
        assert_eq!(granted(&rule("calls = [\"files.*\"]")), 1);
    }
}
