//! `maddock plugin new|vendor|pack`

use std::path::Path;

use super::failed;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::plugin::manifest::Kind;
use crate::plugin::package::project::{self, Language};

/// Writes a project.
///
/// # Errors
/// A name or kind that cannot be, or a directory that is there already: exit 1.
pub fn new(kind: Kind, name: &str, language: &str, place: &Path) -> Outcome {
    let language = match language {
        "python" => Language::Python,
        "rust" => Language::Rust,
        other => return Err(Failure::new(Exit::Arguments, format!("there is no language `{other}`"))),
    };
    let directory = project::make(place, kind, name, language).map_err(|error| failed(&error))?;
    println!("made {}; its README.md says how to build it", directory.display());
    Ok(Exit::Success)
}

/// Puts interface and SDK into a project.
///
/// # Errors
/// There is no project: exit 1.
pub fn vendor(directory: &Path) -> Outcome {
    let (count, language) = project::vendor(directory).map_err(|error| failed(&error))?;
    let what = if language == Language::Rust { "the interface and the SDK" } else { "the interface" };
    println!("wrote {count} files: {what} of maddock {}", env!("CARGO_PKG_VERSION"));
    Ok(Exit::Success)
}

/// Puts a manifest into a component.
///
/// # Errors
/// The manifest is wrong, or the component has one already: exit 1.
pub fn pack(file: &Path, manifest: &Path, output: Option<&Path>) -> Outcome {
    let output = output.unwrap_or(file);
    let manifest = project::pack(file, manifest, output).map_err(|error| failed(&error))?;
    println!("packed: {} {} in {}", manifest.name, manifest.version, output.display());
    Ok(Exit::Success)
}
