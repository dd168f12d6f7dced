//! The pipeline: discover → select → plan → build → run → record. The only place that knows the order.

pub mod build;
pub mod card;
pub mod devices;
pub mod discover;
pub mod event;
pub mod execute;
pub mod image;
pub mod job;
pub mod manifest;
pub mod record;
pub mod run;
pub mod select;
pub mod stage;
