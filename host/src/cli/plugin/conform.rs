//! `maddock plugin test`: one line for each check, exit 3 where one fails.

use serde_json::json;

use super::named;
use crate::capability::events::printable;
use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::setup::Setup;
use crate::plugin::conformance;

/// Runs the suite.
///
/// # Errors
/// There is no such plugin: exit 1; a check failed: exit 3.
pub async fn test(plugin: &str, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let entry = named(&setup, plugin)?;
    let session = setup.session()?;
    let checks = conformance::run(&setup.plugins.shared_engine(), &entry, &session).await;
    let failed = checks.iter().filter(|check| check.fault.is_some()).count();
    if common.format == Format::Json {
        let list: serde_json::Value =
            checks.iter().map(|check| json!({"check": check.name, "fault": check.fault})).collect();
        println!("{list:#}");
    } else {
        for check in &checks {
            let name = printable(&check.name);
            match &check.fault {
                None => println!("ok    {name}"),
                Some(fault) => println!("FAIL  {name}: {}", printable(fault)),
            }
        }
        println!("{} checks, {failed} failed", checks.len());
    }
    if failed > 0 {
        return Err(Failure::new(Exit::Run, format!("`{}` does not conform", entry.identity.name)));
    }
    Ok(Exit::Success)
}
