//! From a model tree to rows, in order; the only place that knows the order.
//!
//! `card` is a model as discovery found it, `select` picks cards by tags, `manifest` reads and writes what a build leaves
//! for a run. It must never know a vendor, a target or a launcher by name: those words come with plugins and presets.

pub mod card;
pub mod manifest;
pub mod select;

pub use card::Card;
pub use manifest::{Manifest, ManifestBuilder, ManifestError};
pub use select::{SelectError, Selected, select, split_tags};
