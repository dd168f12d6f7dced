//! `maddock doctor`: what works on this machine, and what to do about the rest. Changes nothing.

use serde_json::{Value, json};

use super::args::{Doctor, Format};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::setup::Setup;
use super::{style, table};
use crate::capability::events::printable;
use crate::capability::probe;
use crate::plugin::manifest::Kind;
use crate::plugin::{Engine, Session};

struct Finding {
    what: String,
    state: &'static str,
    details: String,
}

/// Looks at plugins, accelerators, engines and programs.
///
/// # Errors
/// Something without which nothing works: exit 1.
pub async fn run(arguments: &Doctor) -> Outcome {
    let setup = Setup::new(&arguments.common)?;
    let session = setup.session()?;
    let mut findings = plugins(&setup);
    findings.push(cache(&setup));
    findings.extend(accelerators(&setup, &session).await);
    for probe in probe::engines(&session.context).await {
        let state = if probe.answers { "ok" } else { "absent" };
        findings.push(Finding { what: probe.name.to_owned(), state, details: probe.details });
    }
    for (program, needed_for) in
        [("bash", "running models on this machine"), ("python3", "dynamic model lists"), ("git", "models with a `url`")]
    {
        let found = setup.environment.find_program(program);
        let state = if found.is_some() { "ok" } else { "absent" };
        let details = found.map_or_else(|| format!("needed for {needed_for}"), |path| path.display().to_string());
        findings.push(Finding { what: program.to_owned(), state, details });
    }
    print(&findings, arguments.common.format);
    let broken = findings.iter().any(|finding| finding.state == "broken");
    if broken {
        Err(Failure::new(Exit::Failure, "something that nothing works without is broken; see the table"))
    } else {
        Ok(Exit::Success)
    }
}

fn plugins(setup: &Setup) -> Vec<Finding> {
    let mut findings = Vec::new();
    let entries = setup.plugins.catalog().entries();
    for entry in entries {
        if let Err(error) = setup.plugins.load(entry) {
            findings.push(Finding {
                what: format!("plugin {}", entry.identity.name),
                state: "broken",
                details: error.to_string(),
            });
        }
    }
    if findings.is_empty() {
        findings.push(Finding {
            what: "plugins".to_owned(),
            state: "ok",
            details: format!("all {} load", entries.len()),
        });
    }
    findings
}

/// Where compiled plugins are kept, and why not elsewhere.
fn cache(setup: &Setup) -> Finding {
    let faults = Engine::cache_faults(&setup.environment);
    let found = setup.plugins.engine().cache_directory().map(|directory| directory.display().to_string());
    let state = if found.is_some() && faults.is_empty() { "ok" } else { "warning" };
    let found =
        found.unwrap_or_else(|| "plugins are compiled at every start, as no directory is fit to keep them".to_owned());
    let details: Vec<String> = std::iter::once(found).chain(faults).collect();
    Finding { what: "cache".to_owned(), state, details: printable(&details.join("; ")) }
}

async fn accelerators(setup: &Setup, session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(plugins) = setup.plugins.all(Kind::Gpu) else { return findings };
    for plugin in plugins {
        let (state, details) = match plugin.detect(session, &"{}".to_owned()).await {
            Ok(Some(inventory)) => {
                let names: Vec<&str> = inventory.devices.iter().map(|device| device.name.as_str()).collect();
                ("ok", format!("{} devices: {}", inventory.devices.len(), printable(&names.join(", "))))
            }
            Ok(None) => ("none", "no device of this vendor".to_owned()),
            Err(error) => ("warning", error.to_string()),
        };
        findings.push(Finding { what: plugin.name().to_owned(), state, details });
    }
    findings
}

fn print(findings: &[Finding], format: Format) {
    if format == Format::Json {
        let list: Value =
            findings.iter().map(|f| json!({"what": f.what, "state": f.state, "details": f.details})).collect();
        println!("{list:#}");
        return;
    }
    let palette = style::Palette::of_stdout();
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                "ok" => palette.good(finding.state),
                "broken" => palette.bad(finding.state),
                "warning" => palette.warn(finding.state),
                other => other.to_owned(),
            };
            vec![finding.what.clone(), state, finding.details.clone()]
        })
        .collect();
    table::print("", &["What", "State", "Details"], &rows);
}
