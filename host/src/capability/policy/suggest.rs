//! From what a run has asked for to the policy that allows this and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Roots;
use super::denial::{literal, quoted};
use super::matcher::{Kind, is_image_name, number};
use super::vocabulary::{self, Words};

/// One allowed call of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The plugin's name.
    pub plugin: String,
    /// Its digest.
    pub digest: String,
    /// The call.
    pub call: &'static str,
    /// What it asked for.
    pub scope: Vec<(&'static str, String)>,
}

/// Children of one directory beyond which the directory itself is named.
const CHILDREN: usize = 3;

/// What ends something, for each call that begins it: a run that came to its end did not need it, one that is
/// interrupted does.
const ENDINGS: &[(&str, &[&str])] = &[
    (
        "docker.create-container",
        &["docker.find-containers", "docker.inspect-container", "docker.stop-container", "docker.remove-container"],
    ),
    ("kube.create", &["kube.list-owned", "kube.get", "kube.next-change", "kube.delete"]),
    ("process.launch", &["process.attach", "process.stop"]),
    ("slurm.submit", &["slurm.cancel", "slurm.find", "slurm.query", "slurm.next-change"]),
];

/// Reads one line of a trace; none for calls that were refused, and for lines that are something else.
#[must_use]
pub fn seen(line: &str) -> Option<Seen> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line.get("v")?.as_u64()? != u64::from(crate::capability::trace::VERSION)
        || line.get("verdict")?.as_str()? != "allowed"
    {
        return None;
    }
    let text = |name: &str| Some(line.get(name)?.as_str()?.to_owned());
    let (_, words) = vocabulary::find(line.get("call")?.as_str()?)?;
    let mut scope = Vec::new();
    for (name, value) in line.get("scope")?.as_object()? {
        let name = words.scope(name)?.name;
        match value {
            Value::Array(values) => {
                let values = values.iter().filter_map(Value::as_str).filter(|value| !is_rest(value));
                scope.extend(values.map(|value| (name, value.to_owned())));
            }
            value => scope.push((name, value.as_str()?.to_owned())),
        }
    }
    Some(Seen { plugin: text("plugin")?, digest: text("digest")?, call: words.call, scope })
}

/// What stands for values that were not recorded.
fn is_rest(value: &str) -> bool {
    value.starts_with("… (") && value.ends_with(" more)")
}

/// What a trace does not have: for whoever takes it for all that was done.
#[must_use]
pub fn gaps(trace: &str) -> Vec<String> {
    let lines = || trace.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut gaps = Vec::new();
    if lines().any(|line| line.get("dropped").is_some()) {
        gaps.push("older lines of the trace were dropped: what stood in them is not allowed by this".to_owned());
    }
    let has_rest = |line: &Value| {
        let scopes = line.get("scope").and_then(Value::as_object).into_iter().flat_map(|scopes| scopes.values());
        let values = scopes.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
        values.filter_map(Value::as_str).any(is_rest)
    };
    let mut cut: Vec<String> = lines()
        .filter(has_rest)
        .filter_map(|line| line.get("call").and_then(Value::as_str).map(crate::capability::events::printable))
        .collect();
    cut.sort();
    cut.dedup();
    if !cut.is_empty() {
        gaps.push(format!(
            "calls with too many values were recorded in part, and are not allowed by this: {}",
            cut.join(", ")
        ));
    }
    gaps
}

/// Scopes and their values, of all calls of one function.
type Values<'a> = Vec<(&'static str, &'a str)>;

/// What one plugin asked for by one call: lines of a rule.
type Lines = Vec<String>;

/// The policy for what was seen. `what`: a word for the run, for the head of the file.
#[must_use]
pub fn suggest(what: &str, calls: &[Seen], roots: &Roots, built_in: &[&str]) -> String {
    let mut asked: BTreeMap<(&str, &str), BTreeMap<&str, Values<'_>>> = BTreeMap::new();
    for call in calls {
        let digest = if built_in.contains(&call.plugin.as_str()) { "" } else { call.digest.as_str() };
        let of_plugin = asked.entry((&call.plugin, digest)).or_default();
        of_plugin.entry(call.call).or_default().extend(call.scope.iter().map(|(name, value)| (*name, value.as_str())));
    }
    let mut text = format!(
        "# What {} needed, and nothing more. `maddock run --policy FILE` runs it again under this.\n\
         schema = 1\nonly_listed = true\n",
        crate::capability::events::printable(what)
    );
    if asked.keys().any(|(_, digest)| !digest.is_empty()) {
        text.push_str("# Third parties' plugins are granted something by the site's or the user's file only.\n");
    }
    for ((plugin, digest), calls) in asked {
        // Calls that ask for the same are one rule.
        let mut rules: BTreeMap<Lines, Vec<&str>> = BTreeMap::new();
        let mut there: BTreeSet<&str> = BTreeSet::new();
        for (call, values) in &calls {
            let Some((_, words)) = vocabulary::find(call) else { continue };
            there.insert(call);
            rules.entry(lines(words, values, roots)).or_default().push(call);
        }
        let ends: Vec<&str> = ENDINGS
            .iter()
            .filter(|(begins, _)| there.contains(begins))
            .flat_map(|(_, ends)| ends.iter().copied().filter(|end| !there.contains(end)))
            .collect();
        if !ends.is_empty() {
            rules.entry(Vec::new()).or_default().extend(ends);
        }
        for (lines, calls) in rules {
            text.push_str(&format!("\n[[allow]]\nplugin = {}\n", quoted(plugin)));
            if !digest.is_empty() {
                text.push_str(&format!("digest = {}\n", quoted(digest)));
            }
            text.push_str(&list("calls", calls.iter().map(|call| quoted(call)).collect()));
            for line in lines {
                text.push_str(&line);
            }
        }
    }
    text
}

fn lines(words: &Words, asked: &[(&str, &str)], roots: &Roots) -> Lines {
    let is_own = |name: &str| words.scope(name).is_some_and(|scope| scope.kind == Kind::Own);
    let own: Vec<&str> = asked.iter().filter(|(name, _)| is_own(name)).map(|(_, value)| *value).collect();
    let mut lines = Vec::new();
    for scope in words.scopes {
        let values: BTreeSet<&str> =
            asked.iter().filter(|(name, _)| *name == scope.name).map(|(_, value)| *value).collect();
        if scope.kind.is_number() {
            let most = values.iter().map(|value| number(value).unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
            if !values.is_empty() && most.is_finite() {
                lines.push(format!("scope.{} = {{ max = {most} }}\n", scope.name));
            }
            continue;
        }
        // Asked for only where a rule already speaks of it.
        if values.is_empty() && scope.name == "program-digest" {
            continue;
        }
        let patterns: BTreeSet<String> = match scope.kind {
            // Of this run only, under names that the next one does not have: the host sees to that.
            Kind::Own => continue,
            Kind::Path | Kind::Tree => {
                let pattern = |value: &&str| match named(value, roots) {
                    below if below.starts_with('$') => below,
                    elsewhere => nameless(value, &own).unwrap_or(elsewhere),
                };
                collapsed(values.iter().map(pattern).collect())
            }
            Kind::Arguments => values.iter().map(|value| arguments(value, roots)).collect(),
            // No pattern speaks of what nobody knows, but the one for all.
            Kind::Image if !values.iter().all(|value| is_image_name(value)) => BTreeSet::from(["**".to_owned()]),
            _ => values.iter().map(|value| literal(value)).collect(),
        };
        // An empty list lets no value be: what was not asked for is not allowed.
        lines.push(list(&format!("scope.{}", scope.name), patterns.iter().map(|pattern| quoted(pattern)).collect()));
    }
    lines
}

/// One line, or one for each where they are too many.
fn list(name: &str, values: Vec<String>) -> String {
    let line = format!("{name} = [{}]\n", values.join(", "));
    if line.len() <= 121 { line } else { format!("{name} = [\n    {},\n]\n", values.join(",\n    ")) }
}

/// A path by the directory of the invocation that it lies in. Below a run's own directory every name is new each time.
pub(super) fn named(path: &str, roots: &Roots) -> String {
    let below = |root: &std::path::Path| {
        let root = root.to_string_lossy();
        path.strip_prefix(root.as_ref())
            .filter(|rest| !root.is_empty() && (rest.is_empty() || rest.starts_with('/')))
            .map(str::to_owned)
    };
    if below(&roots.run).is_some() {
        return "$run/**".to_owned();
    }
    for (name, root) in [("$tree", &roots.tree), ("$output", &roots.output), ("$results", &roots.results)] {
        match below(root) {
            // Another spelling of a text with a wildcard in it cannot begin with a directory's name.
            Some(rest) if !rest.contains('*') => return format!("{name}{rest}"),
            _ => {}
        }
    }
    literal(path)
}

/// A path with the name of something of this run in it, as a pattern: the next run has another name. None where there is none in it.
fn nameless(path: &str, own: &[&str]) -> Option<String> {
    // What runs for a job is called as the job, with more behind it.
    let is_of_run = |segment: &str| {
        let begins =
            |name: &&str| name.strip_prefix(segment).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        !segment.is_empty() && own.iter().any(begins)
    };
    let segments: Vec<&str> = path.split('/').map(|segment| if is_of_run(segment) { "*" } else { segment }).collect();
    let pattern = segments.join("/");
    (pattern != path && !path.contains(['*', '$']) && !path.starts_with('=')).then_some(pattern)
}

/// Directories in place of many of their entries.
fn collapsed(paths: BTreeSet<String>) -> BTreeSet<String> {
    let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|p| !p.is_empty());
    let mut children: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        if let Some(parent) = parent(path) {
            *children.entry(parent).or_default() += 1;
        }
    }
    let large = |path: &str| !path.starts_with('=') && children.get(path).is_some_and(|count| *count > CHILDREN);
    let mut kept = BTreeSet::new();
    for path in paths {
        // The highest directory above that is named in full.
        let mut at = Some(path.clone());
        let mut top = None;
        while let Some(here) = at {
            if large(&here) {
                top = Some(format!("{here}/**"));
            }
            at = parent(&here);
        }
        kept.insert(top.unwrap_or(path));
    }
    kept
}

/// A command line's words, with paths by their directories.
fn arguments(value: &str, roots: &Roots) -> String {
    let words = shlex::split(value).unwrap_or_default();
    let special = |word: &str| word.contains(['*', '$']) || word.starts_with('=');
    let words = words.iter().map(|word| {
        let named = if word.starts_with('/') { named(word, roots) } else { word.clone() };
        // One word cannot be literal while another is a pattern.
        if named == *word && special(word) || named.starts_with('=') { "*".to_owned() } else { named }
    });
    let words: Vec<String> = words.collect();
    match shlex::try_join(words.iter().map(String::as_str)) {
        Ok(text) => text,
        Err(_) => literal(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;

    fn roots() -> Roots {
        Roots { tree: "/mad".into(), run: "/w/.maddock/runs/r1".into(), output: "/w".into(), ..Roots::default() }
    }

    fn call(name: &str, scope: &[(&'static str, &str)]) -> Seen {
        let (_, words) = vocabulary::find(name).unwrap();
        let scope = scope.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Seen { plugin: "p".to_owned(), digest: "sha256:0".to_owned(), call: words.call, scope }
    }

    #[test]
    fn a_suggestion_names_directories_by_their_words_and_loads() {
        let calls = [
            call("files.read", &[("path", "/mad/models.json")]),
            call("files.write", &[("path", "/w/.maddock/runs/r1/jobs/0/entry.sh")]),
            call("files.lock", &[("path", "/w/perf.csv")]),
            call("process.run", &[("program", "x"), ("arguments", "-i '/mad/a b' '*'"), ("time", "30")]),
            call("slurm.submit", &[("partition", "gpu"), ("node-count", "2"), ("time", "unlimited")]),
        ];
        let text = suggest("run r1", &calls, &roots(), &["p"]);
        for expected in [
            "scope.path = [\"$tree/models.json\"]",
            "scope.path = [\"$run/**\"]",
            "scope.path = [\"$output/perf.csv\"]",
            "scope.arguments = [\"-i '$tree/a b' '*'\"]",
            "scope.time = { max = 30 }",
            "scope.inline-code = []",
            "scope.node-count = { max = 2 }",
            "\"slurm.cancel\"",
        ] {
            assert!(text.contains(expected), "{expected} in:\n{text}");
        }
        read("x", &text, &roots(), None).unwrap();
    }

    #[test]
    fn a_name_that_the_next_run_does_not_have_is_no_part_of_a_rule() {
        let copy = call(
            "kube.copy-out",
            &[
                ("name", "job-1a2b-xyz"),
                ("source", "/results/job-1a2b/0"),
                ("path", "/w/.maddock/runs/r1/n/job-1a2b-xyz"),
            ],
        );
        let text = suggest("run r1", &[copy], &roots(), &["p"]);
        assert!(
            text.contains("scope.source = [\"/results/*/0\"]") && text.contains("scope.path = [\"$run/**\"]"),
            "{text}"
        );
        read("x", &text, &roots(), None).unwrap();
        assert_eq!(nameless("/results/job-1a/0", &["job-1a2b-xyz"]), None, "a part of a name is none");
        assert_eq!(nameless("/a/*/job", &["job"]), None);
    }

    #[test]
    fn what_a_trace_does_not_have_is_said() {
        let whole =
            r#"{"v":1,"plugin":"p","digest":"d","call":"files.read","scope":{"path":"/a"},"verdict":"allowed"}"#;
        assert!(gaps(whole).is_empty());
        let part = r#"{"v":1,"plugin":"p","digest":"d","call":"files.read","scope":{"path":["/a","… (7 more)"]},"verdict":"allowed"}"#;
        let text = format!("{{\"v\":1,\"dropped\":9}}\n{whole}\n{part}\n");
        let gaps = gaps(&text);
        assert!(gaps.len() == 2 && gaps[0].contains("dropped") && gaps[1].contains("files.read"), "{gaps:?}");
        assert_eq!(seen(part).unwrap().scope, [("path", "/a".to_owned())]);
    }

    #[test]
    fn many_entries_of_a_directory_become_the_directory() {
        let paths = ["$tree/a/1", "$tree/a/2", "$tree/a/3", "$tree/a/4", "$tree/a/4/x", "$tree/b"].map(str::to_owned);
        let collapsed = collapsed(paths.into());
        assert_eq!(collapsed.into_iter().collect::<Vec<_>>(), ["$tree/a/**", "$tree/b"]);
    }

    #[test]
    fn only_allowed_calls_of_this_version_are_taken_from_a_trace() {
        let line = |verdict: &str, v: u32| {
            format!(
                r#"{{"v":{v},"plugin":"p","digest":"d","call":"files.read","scope":{{"path":["/a","/b"]}},"verdict":"{verdict}"}}"#
            )
        };
        assert_eq!(seen(&line("allowed", 1)).unwrap().scope.len(), 2);
        assert!(
            seen(&line("denied", 1)).is_none() && seen(&line("allowed", 9)).is_none() && seen("half a li").is_none()
        );
    }
}
