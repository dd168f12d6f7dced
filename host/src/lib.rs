//! maddock: a small kernel that hosts WebAssembly plugins and runs AI models anywhere.
//!
//! The kernel knows no vendor and no scheduler. It parses the command line (`cli`), computes one effective
//! configuration (`config`), loads plugins (`plugin`), lets them act through one gate (`capability`), and runs the
//! pipeline (`pipeline`) from a model tree to rows (`results`).

pub mod capability;
pub mod cli;
pub mod config;
pub mod pipeline;
pub mod plugin;
pub mod results;
