//! `maddock plugin list|inspect`

use serde_json::json;

use super::args::{Common, Format, PluginAction};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::setup::Setup;
use super::{style, table};
use crate::capability::events::printable;
use crate::plugin::catalog::{Entry, Source};

/// Lists or inspects.
///
/// # Errors
/// A plugin that is not there or not usable: exit 1.
pub fn run(action: &PluginAction) -> Outcome {
    match action {
        PluginAction::List { common } => list(common),
        PluginAction::Inspect { plugin, common } => inspect(plugin, common),
    }
}

fn list(common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let entries = setup.plugins.catalog().entries();
    if common.format == Format::Json {
        let list: serde_json::Value = entries.iter().map(describe).collect();
        println!("{list:#}");
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let digest: String = entry.identity.digest.chars().skip("sha256:".len()).take(12).collect();
            let interface = entry.manifest.interface.rsplit('@').next().unwrap_or_default();
            vec![
                entry.manifest.kind.word().to_owned(),
                entry.identity.name.clone(),
                printable(&entry.manifest.version),
                interface.to_owned(),
                digest,
                calls(entry),
            ]
        })
        .collect();
    table::print("", &["Kind", "Name", "Version", "Interface", "Digest", "Requests"], &rows);
    Ok(Exit::Success)
}

/// The host interfaces that a plugin asks for, each once.
fn calls(entry: &Entry) -> String {
    let mut families: Vec<&str> = entry
        .manifest
        .requests
        .iter()
        .flat_map(|request| &request.calls)
        .map(|call| call.split('.').next().unwrap_or(call))
        .collect();
    families.sort_unstable();
    families.dedup();
    if families.is_empty() { "-".to_owned() } else { printable(&families.join(" ")) }
}

fn describe(entry: &Entry) -> serde_json::Value {
    let place = match &entry.source {
        Source::Embedded(_) => "built-in".to_owned(),
        Source::File(path, _) => path.display().to_string(),
    };
    json!({
        "name": entry.identity.name,
        "kind": entry.manifest.kind,
        "version": entry.manifest.version,
        "interface": entry.manifest.interface,
        "digest": entry.identity.digest,
        "source": place,
        "size": entry.bytes().len(),
        "description": entry.manifest.description,
        "provides": entry.manifest.provides,
        "requests": entry.manifest.requests,
    })
}

fn inspect(plugin: &str, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let named = setup.plugins.catalog().entries().iter().find(|entry| entry.identity.name == plugin).cloned();
    let entry = match named {
        Some(entry) => entry,
        None if std::path::Path::new(plugin).exists() => {
            Entry::of_file(std::path::Path::new(plugin)).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?
        }
        None => {
            return Err(Failure::new(Exit::Failure, format!("there is no plugin and no file `{plugin}`"))
                .hint("`maddock plugin list` shows the plugins that there are"));
        }
    };
    let imports = setup.plugins.engine().imports(&entry).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
    let capabilities: Vec<&String> = imports.iter().filter(|name| !name.starts_with("wasi:")).collect();
    let fits = setup.plugins.engine().load(&entry);
    if common.format == Format::Json {
        let mut description = describe(&entry);
        if let Some(object) = description.as_object_mut() {
            object.insert("imports".to_owned(), json!(imports));
            object.insert("usable".to_owned(), json!(fits.is_ok()));
        }
        println!("{description:#}");
    } else {
        let palette = style::Palette::of_stdout();
        let heading = |text: &str| palette.strong(text);
        println!(
            "{} {} ({})",
            heading(&entry.identity.name),
            printable(&entry.manifest.version),
            entry.manifest.kind.word()
        );
        println!("{}\n", printable(&entry.manifest.description));
        println!("{}  {}", heading("interface"), entry.manifest.interface);
        println!("{}     {}", heading("digest"), entry.identity.digest);
        println!("{}       {} bytes", heading("size"), entry.bytes().len());
        println!("{}   {}", heading("provides"), printable(&entry.manifest.provides.join(", ")));
        println!("\n{}", heading("imports (what it can use at all)"));
        for name in capabilities {
            println!("  {}", printable(name));
        }
        println!("\n{}", heading("requests (what it asks for; policy decides)"));
        for request in &entry.manifest.requests {
            println!("  {}", printable(&request.calls.join(", ")));
            for (name, values) in &request.scope {
                println!("      {}: {}", printable(name), printable(&values.join(", ")));
            }
            println!("      because: {}", printable(&request.reason));
        }
        if entry.manifest.requests.is_empty() {
            println!("  nothing");
        }
    }
    fits.map(|_| Exit::Success).map_err(|error| Failure::of_plugin(Exit::Failure, &error))
}
