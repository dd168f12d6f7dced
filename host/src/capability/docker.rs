//! `docker`: a container engine by the Docker Engine API.

use super::gate::Capability;

/// The `docker` interface.
#[derive(Debug)]
pub enum Docker {}

impl Capability for Docker {
    const NAME: &'static str = "docker";
}

/// The engine, connected to on first use.
#[derive(Debug, Default)]
pub struct Connection {}
pub(super) async fn version(_: &crate::plugin::RunContext) -> Result<String, super::ApiError> {
    Ok(String::new())
}
pub(super) async fn sweep(_: &crate::plugin::RunContext) -> Vec<String> {
    Vec::new()
}
