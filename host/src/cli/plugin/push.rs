//! `maddock plugin push`

use std::path::Path;

use super::failed;
use crate::cli::exit::Exit;
use crate::cli::failure::Outcome;
use crate::plugin::package::registry::{self, Place};
use crate::plugin::package::{LARGEST_COMPONENT, read_at_most, signature};

/// Puts a component and its signature into a registry.
///
/// # Errors
/// No plugin, no such place, or a registry that refuses: exit 1.
pub async fn push(file: &Path, place: &str, plain_http: bool) -> Outcome {
    let place = Place::parse(place).map_err(|error| failed(&error))?;
    let bytes = read_at_most(file, LARGEST_COMPONENT).map_err(|error| failed(&error))?;
    let signature = signature::beside(file).map_err(|error| failed(&error))?;
    let signed = if signature.is_some() { "with its signature" } else { "without a signature" };
    let pushed = registry::push(&place, bytes, signature, plain_http).await.map_err(|error| failed(&error))?;
    println!("pushed {signed}: {pushed}");
    Ok(Exit::Success)
}
