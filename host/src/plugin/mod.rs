//! Plugins: the engine that compiles and runs components, the catalogue of what there is, manifests, and calls.

pub(crate) mod allowance;
mod cache;
mod calls;
pub mod catalog;
pub mod conformance;
mod context;
mod engine;
mod error;
mod hub;
mod instance;
pub mod manifest;
mod meter;
pub mod package;
mod stderr;

pub use calls::{Played, Plugin, Session, accelerators, build, discover, jobs, launch, report};
pub use context::{Environment, RunContext};
pub use engine::{Engine, Loaded};
pub use error::PluginError;
pub use hub::Plugins;
pub use instance::{Ceilings, State};
