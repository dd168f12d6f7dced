//! Plugins: the engine that compiles and runs components, the catalogue of what there is, manifests, and instances.

mod context;
mod error;
mod instance;

pub use context::{Environment, RunContext};
pub use error::PluginError;
pub use instance::{Ceilings, State};
