//! `maddock discover`

use serde_json::Value;

use super::args::{self, Discover, Format};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::render;
use super::setup::Setup;
use crate::capability::events::{printable, printable_lines};
use crate::pipeline::discover::{self, DiscoverError, Found};
use crate::pipeline::select;

/// Lists the models of a tree, or the selected ones in full.
///
/// # Errors
/// The tree is broken or a tag matches nothing: exit 1.
pub async fn run(arguments: &Discover) -> Outcome {
    let setup = Setup::new(&arguments.common)?;
    let session = setup.session()?;
    let found = discover::models(&setup.plugins, &session, &setup.tree).await.map_err(|error| failure(&error))?;
    tell_skipped(&found);
    let tags = args::pieces(&arguments.tags);
    if tags.is_empty() {
        list(&found, arguments.common.format);
        return Ok(Exit::Success);
    }
    let selected =
        select::select(&found.cards, &tags).map_err(|error| Failure::new(Exit::Failure, &error).hint(error.hint()))?;
    let cards =
        discover::finalise(&setup.plugins, &session, &setup.tree, selected).await.map_err(|error| failure(&error))?;
    let models: Value = cards.iter().map(|card| card.model.clone()).collect();
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(&models, &mut serde_json::Serializer::with_formatter(&mut text, formatter))
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    if arguments.common.format == Format::Text {
        println!("📋 Selected Models ({} models):", cards.len());
    }
    println!("{}", render::escaped(&String::from_utf8_lossy(&text)));
    Ok(Exit::Success)
}

fn list(found: &Found, format: Format) {
    if format == Format::Json {
        let models: Value = found.cards.iter().map(|card| card.model.clone()).collect();
        println!("{}", render::json(&models));
        return;
    }
    let mut text = format!("📊 Available Models ({} total):\n", found.cards.len());
    for card in &found.cards {
        text.push_str("  ");
        text.push_str(&card.name);
        text.push('\n');
    }
    print!("{text}");
}

/// Says which places were left out, and why.
pub(super) fn tell_skipped(found: &Found) {
    let palette = super::style::Palette::of_stderr();
    for skipped in &found.skipped {
        let (path, reason) = (printable(&skipped.path), printable(&skipped.reason));
        eprintln!("{}: skipped `{path}`: {reason}", palette.warn("warning"));
        if let Some(hint) = &skipped.hint {
            eprintln!("{}: {}", palette.note("hint"), printable_lines(hint));
        }
    }
}

/// Discovery's errors all end with 1, but for policy's.
pub(super) fn failure(error: &DiscoverError) -> Failure {
    match error {
        DiscoverError::Plugin(error) => Failure::of_plugin(Exit::Failure, error),
        other => Failure::new(Exit::Failure, other),
    }
}
