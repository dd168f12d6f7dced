//! `maddock policy`: what plugins may do, for whoever decides it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{Common, Format, PolicyAction};
use super::earlier;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::render;
use super::setup::{Setup, of_policy};
use super::style;
use crate::capability::events::printable;
use crate::capability::gate::Identity;
use crate::capability::policy::matcher::Matcher;
use crate::capability::policy::rule::{Case, Rule, UserGrants};
use crate::capability::policy::suggest::{self, Seen};
use crate::capability::policy::vocabulary::{self, Words};
use crate::capability::policy::{Level, Policy, Roots, Verdict, read};
use crate::config::nearest;
use crate::plugin::catalog::{Catalog, built_in_names};
use crate::plugin::package::signature;
use crate::plugin::{Environment, PluginError};

/// The run's directory where no run is meant: what a value `$run/…` stands for in a question.
const SOME_RUN: &str = ".maddock/runs/RUN";

/// Does what is asked.
///
/// # Errors
/// A file cannot be read or means nothing, a case does not come out, or something asked about does not exist.
pub fn run(action: &PolicyAction) -> Outcome {
    match action {
        PolicyAction::Check { file } => check(file),
        PolicyAction::Show { plugin, common } => show(plugin.as_deref(), common),
        PolicyAction::Explain { plugin, call, scope, common } => explain(plugin, call, scope, common),
        PolicyAction::Suggest { run } => suggestion(run),
        PolicyAction::Test { file, common } => test(file.as_deref(), common),
    }
}

fn text_of(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot read `{}`: {error}", file.display())))
}

fn check(file: &Path) -> Outcome {
    let text = text_of(file)?;
    let name = printable(&file.to_string_lossy());
    match read::read(&name, &text, &Roots::default(), Some(&built_in_names())) {
        Ok(content) => {
            println!(
                "{name}: {} rules, {} limits, {} tests",
                content.rules.len(),
                content.limits.len(),
                content.tests.len()
            );
            let keys = signature::trusted(&Environment::of_process())
                .map_err(|error| Failure::of_plugin(Exit::Failure, &PluginError::Package(error)))?;
            for rule in &content.rules {
                for signer in rule.who.signers.iter().filter(|signer| !keys.iter().any(|key| key.public == **signer)) {
                    println!("{}: nobody trusts the key {signer} here: `maddock plugin trust KEY`", rule.place);
                }
                if let Some(doubt) = stranger(rule) {
                    println!("{}: {doubt}", rule.place);
                }
            }
            Ok(Exit::Success)
        }
        Err(faults) => {
            let palette = style::Palette::of_stderr();
            for fault in &faults {
                eprintln!("{name}:{}: {}", fault.line, printable(&fault.message));
                if let Some(hint) = &fault.hint {
                    eprintln!("  {}: {}", palette.note("hint"), printable(hint));
                }
            }
            let errors = if faults.len() == 1 { "error" } else { "errors" };
            Err(Failure::new(Exit::Arguments, format!("{} {errors} in policy `{name}`", faults.len())))
        }
    }
}

/// A denial of a name that is nearly one of ours denies nothing that anybody has in mind.
fn stranger(rule: &Rule) -> Option<String> {
    let name = rule.who.name.as_deref()?;
    let known = built_in_names();
    if known.contains(&name) || rule.who.digest.is_some() {
        return None;
    }
    let near = nearest::suggestion(name, known.iter().copied())?;
    Some(format!("`{}` is no built-in plugin; {near}", printable(name)))
}

/// The policy in force here, as a run would see it.
fn in_force(setup: &Setup) -> Result<Policy, Failure> {
    setup.policy(roots(setup))
}

fn roots(setup: &Setup) -> Roots {
    Roots {
        tree: setup.tree.clone(),
        run: setup.output.join(SOME_RUN),
        output: setup.output.clone(),
        results: setup.output.clone(),
    }
}

fn show(of: Option<&str>, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let policy = in_force(&setup)?;
    let meant = |rule: &&Rule| of.is_none_or(|of| rule.who.name.as_deref().is_none_or(|name| name == of));
    if common.format == Format::Json {
        let layers: Vec<Value> = policy
            .layers()
            .iter()
            .map(|layer| {
                json!({
                    "layer": layer.level.word(),
                    "file": layer.name,
                    "only_listed": layer.content.only_listed,
                    "rules": layer.content.rules.iter().filter(meant).map(rule_json).collect::<Vec<_>>(),
                    "limits": layer.content.limits.iter().map(|limit| json!({"plugin": limit.who.words(), "rule": &*limit.place, "limits": limits(limit.amounts)})).collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{}", render::json(&json!({"schema": read::SCHEMA, "layers": layers})));
        return Ok(Exit::Success);
    }
    let palette = style::Palette::of_stdout();
    for layer in policy.layers() {
        println!("{}", palette.strong(&format!("{}: {}", layer.level.word(), printable(&layer.name))));
        if layer.content.only_listed {
            println!("  nothing but what is listed here");
        }
        match &layer.content.users_may_grant {
            Some(UserGrants::Calls(calls)) => {
                let calls: Vec<&str> = calls.words().map(|words| words.call).collect();
                println!("  users may grant third parties' plugins: {}", calls.join(", "));
            }
            _ if layer.level == Level::Site => println!("  users may grant nothing"),
            _ => {}
        }
        for rule in layer.content.rules.iter().filter(meant) {
            println!(
                "  {} {} {}",
                rule.effect.word(),
                printable(&rule.who.words()),
                printable(&rule.call_texts.join(", "))
            );
            for (name, matcher) in &rule.scopes {
                println!("      {name}: {}", printable(&within(matcher)));
            }
            println!("      at {}", rule.place);
        }
        for limit in &layer.content.limits {
            println!("  limits {}", printable(&limit.who.words()));
            for (name, most) in
                limits(limit.amounts).as_object().into_iter().flatten().filter(|(_, most)| !most.is_null())
            {
                println!("      {name}: {most}");
            }
            println!("      at {}", limit.place);
        }
    }
    Ok(Exit::Success)
}

fn within(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Max(max) => format!("at most {max}"),
        Matcher::Patterns(patterns) if patterns.is_empty() => "nothing".to_owned(),
        Matcher::Patterns(patterns) => {
            patterns.iter().map(|pattern| format!("`{}`", pattern.text())).collect::<Vec<_>>().join(", ")
        }
    }
}

fn limits(amounts: crate::capability::policy::rule::Amounts) -> Value {
    json!({
        "memory": amounts.memory, "processor": amounts.processor, "log": amounts.log, "transfer": amounts.transfer,
        "host-calls": amounts.host_calls, "instances": amounts.instances, "handles": amounts.handles, "time": amounts.time,
    })
}

fn rule_json(rule: &Rule) -> Value {
    let scope: serde_json::Map<String, Value> = rule
        .scopes
        .iter()
        .map(|(name, matcher)| {
            let value = match matcher {
                Matcher::Max(max) => json!({ "max": max }),
                Matcher::Patterns(patterns) => patterns.iter().map(|pattern| Value::from(pattern.text())).collect(),
            };
            ((*name).to_owned(), value)
        })
        .collect();
    json!({
        "effect": rule.effect.word(), "plugin": rule.who.name, "digest": rule.who.digest, "signers": rule.who.signers,
        "calls": rule.call_texts, "scope": scope, "reason": rule.reason, "rule": &*rule.place,
    })
}

/// A plugin of the catalogue, or the kernel.
fn identity(catalog: &Catalog, name: &str, digest: Option<&str>, signer: Option<&str>) -> Result<Identity, Failure> {
    if name == "kernel" {
        return Ok(Identity { name: name.to_owned(), digest: String::new(), built_in: true, signer: None });
    }
    if digest.is_some() || signer.is_some() {
        return Ok(Identity {
            name: name.to_owned(),
            digest: digest.unwrap_or_default().to_owned(),
            built_in: false,
            signer: signer.map(str::to_owned),
        });
    }
    let entries = catalog.entries();
    if let Some(entry) = entries.iter().find(|entry| entry.identity.name == name) {
        let who = entry.who().map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        return Ok(Identity::clone(&who));
    }
    let known = entries.iter().map(|entry| entry.identity.name.as_str());
    Err(Failure::new(Exit::Arguments, format!("there is no plugin `{}`", printable(name)))
        .maybe_hint(nearest::suggestion(name, known))
        .hint("`--plugin FILE` loads one; `maddock plugin list` shows them"))
}

fn call_of(text: &str) -> Result<&'static Words, Failure> {
    if let Some((_, words)) = vocabulary::find(text) {
        return Ok(words);
    }
    let (message, hint) = match vocabulary::CallSet::default().add(text) {
        Err(fault) => fault,
        Ok(()) => (format!("`{}` is many calls", printable(text)), "name one".to_owned()),
    };
    Err(Failure::new(Exit::Arguments, printable(&message)).hint(hint))
}

fn asked(words: &'static Words, scope: &[String], roots: &Roots) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut asked = Vec::new();
    for pair in scope {
        let wrong = |message: String| Failure::new(Exit::Arguments, printable(&message));
        let (name, value) = pair.split_once('=').ok_or_else(|| wrong(format!("`{pair}` is not `SCOPE=VALUE`")))?;
        let Some(scope) = words.scope(name) else {
            let known: Vec<&str> = words.scopes.iter().map(|scope| scope.name).collect();
            let there_is = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", nearest::listed(&known, "and"))
            };
            return Err(wrong(format!("`{}` has no scope `{name}`", words.call))
                .maybe_hint(nearest::suggestion(name, known.iter().copied()))
                .hint(there_is));
        };
        asked.push((scope.name, roots.expanded(value)));
    }
    Ok(asked)
}

fn explain(plugin: &str, call: &str, scope: &[String], common: &Common) -> Outcome {
    let words = call_of(call)?;
    let setup = Setup::new(common)?;
    let policy = in_force(&setup)?;
    let who = identity(setup.plugins.catalog(), plugin, None, None)?;
    let asked = asked(words, scope, policy.roots())?;
    let verdict = policy.decide(&who, words.call, &asked);
    let layers = policy.explain(&who, words, &asked);
    if common.format == Format::Json {
        let layers: Vec<Value> = layers
            .iter()
            .map(|said| json!({"layer": said.level.word(), "file": said.name, "allows": said.allows, "why": said.why}))
            .collect();
        let (remedy, lines) = match &verdict {
            Verdict::Allowed { .. } => (None, None),
            Verdict::Denied(denial) => (Some(&denial.remedy), denial.lines.as_ref()),
        };
        let allowed = verdict.is_allowed();
        println!(
            "{:#}",
            json!({"allowed": allowed, "rule": &**verdict.rule(), "layers": layers, "remedy": remedy, "lines": lines})
        );
    } else {
        let palette = style::Palette::of_stdout();
        match &verdict {
            Verdict::Allowed { rule } => println!("{} by {rule}", palette.good("allowed")),
            Verdict::Denied(denial) => println!("{}: {}", palette.bad("refused"), denial.message),
        }
        for said in &layers {
            println!("  {}: {}", said.level.word(), printable(&said.why));
        }
        if let Verdict::Denied(denial) = &verdict {
            println!("{}", denial.remedy);
        }
    }
    Ok(if verdict.is_allowed() { Exit::Success } else { Exit::Refused })
}

/// A run's directory, by its path, or as every command names runs. Builds have traces, too, but are none of the runs.
fn run_directory(run: &Path) -> Result<PathBuf, Failure> {
    let places = [Path::new(".maddock/runs").join(run), run.to_owned()];
    match places.into_iter().find(|path| path.join("trace.jsonl").is_file()) {
        Some(place) => Ok(place),
        None => Ok(earlier::find_anywhere(&run.to_string_lossy())?.0.path().to_owned()),
    }
}

fn suggestion(run: &Path) -> Outcome {
    let directory = run_directory(run)?;
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("cannot read `{}`: {error}", directory.join(what).display()))
    };
    let directory_of = |path: &str| path.to_owned();
    let record = std::fs::read_to_string(directory.join("run.json")).map_err(|error| cannot("run.json", &error))?;
    let record: Value = serde_json::from_str(&record).map_err(|error| cannot("run.json", &error))?;
    let place = |name: &str| record.get(name).and_then(Value::as_str).map(directory_of).unwrap_or_default().into();
    // The words of the time of the run: its directory may have been moved since.
    let output: PathBuf = place("output");
    let id = record.get("run").and_then(Value::as_str).unwrap_or_default().to_owned();
    let roots =
        Roots { tree: place("tree"), run: output.join(".maddock/runs").join(&id), output, results: PathBuf::new() };
    let trace = crate::capability::trace::read(&directory).map_err(|error| cannot("trace.jsonl", &error))?;
    let calls: Vec<Seen> = trace.lines().filter_map(suggest::seen).collect();
    for gap in suggest::gaps(&trace) {
        eprintln!("warning: {gap}");
    }
    if calls.is_empty() {
        return Err(Failure::new(Exit::Failure, "the trace of this run has no allowed call that this version knows"));
    }
    print!("{}", suggest::suggest(&format!("run {id}"), &calls, &roots, &built_in_names()));
    Ok(Exit::Success)
}

fn test(file: Option<&Path>, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let policy = match file {
        None => in_force(&setup)?,
        Some(file) => {
            let name = printable(&file.to_string_lossy());
            let text = text_of(file)?;
            Policy::shipped(roots(&setup))
                .and_then(|policy| policy.with_layer(Level::Site, &name, &text))
                .map_err(|error| of_policy(&error))?
        }
    };
    let cases: Vec<&Case> = policy.layers().iter().flat_map(|layer| &layer.content.tests).collect();
    let palette = style::Palette::of_stdout();
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    let mut failed = 0;
    for case in &cases {
        let who = identity(setup.plugins.catalog(), &case.plugin, case.digest.as_deref(), case.signer.as_deref())?;
        let verdict = policy.decide(&who, case.call.call, &case.scope);
        if verdict.is_allowed() == case.allowed {
            println!("{} {} ({} {})", palette.good("ok"), case.place, word(case.allowed), case.call.call);
            continue;
        }
        failed += 1;
        println!(
            "{} {}: expected {}, and it is {} by {}",
            palette.bad("failed"),
            case.place,
            word(case.allowed),
            word(verdict.is_allowed()),
            verdict.rule()
        );
    }
    println!("{} cases, {failed} failed", cases.len());
    match failed {
        0 if cases.is_empty() => {
            Err(Failure::new(Exit::Arguments, "there are no cases")
                .hint("cases are `[[test]]` tables of a policy file"))
        }
        0 => Ok(Exit::Success),
        _ => Err(Failure::new(Exit::Failure, format!("{failed} of {} cases do not come out as they say", cases.len()))),
    }
}
