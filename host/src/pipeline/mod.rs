//! The pipeline: discover → select → plan → build → run → record. The only place that knows the order.
//!
//! It must never know a vendor, a target or a launcher by name: those words come with plugins and presets.

pub mod build;
pub mod card;
pub mod collected;
pub mod devices;
pub mod discover;
pub mod event;
pub mod execute;
pub mod image;
pub mod job;
pub mod keeper;
pub mod manifest;
pub mod record;
pub mod recorded;
pub mod replay;
pub mod resume;
pub mod run;
pub mod select;
pub mod share;
pub mod stage;

pub use card::Card;
pub use select::Selected;
