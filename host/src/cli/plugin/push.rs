//! `maddock plugin push`

use std::path::Path;

use super::failed;
use crate::capability::events::printable;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::plugin::Environment;
use crate::plugin::package::registry::{self, Place};
use crate::plugin::package::signature::{self, Signed};
use crate::plugin::package::{LARGEST_COMPONENT, read_at_most};

/// Puts a component and its signature into a registry. One of a version before would be refused by everybody who trusts its key.
///
/// # Errors
/// No plugin, a signature of other bytes, no such place, or a registry that refuses: exit 1.
pub async fn push(file: &Path, place: &str, plain_http: bool) -> Outcome {
    let place = Place::parse(place).map_err(|error| failed(&error))?;
    let bytes = read_at_most(file, LARGEST_COMPONENT).map_err(|error| failed(&error))?;
    let signature = signature::beside(file).map_err(|error| failed(&error))?;
    let keys = signature::trusted(&Environment::of_process()).map_err(|error| failed(&error))?;
    let found = signature::check(&bytes, signature.as_deref(), &keys);
    let signed = match &found {
        Signed::Not => "without a signature".to_owned(),
        Signed::By(_) => "with its signature".to_owned(),
        Signed::ByStranger(_) => format!("with a signature that was not checked, {}", found.words()),
        Signed::Wrong(why) => {
            let message = format!("`{}` is not pushed: {}", file.display(), printable(why));
            return Err(Failure::new(Exit::Failure, message)
                .hint("sign it again by `maddock plugin sign`, or remove the signature beside it"));
        }
    };
    let pushed = registry::push(&place, bytes, signature, plain_http).await.map_err(|error| failed(&error))?;
    println!("pushed {signed}: {pushed}");
    Ok(Exit::Success)
}
