//! The pipeline: discover → select → plan → build → run → record. The only place that knows the order.

pub mod discover;
pub mod event;
pub mod execute;
pub mod stage;
