//! Plugins from outside, built and used as their authors do it: with this binary, rustup's toolchain and, for Python, pip.
//! The guides are executed word for word. Where componentize-py cannot be had, what needs it says that it was skipped.
//!
//! Everything is built in one directory, `outsiders` beside this build's own, so that nothing is built twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod document;
mod guide;
#[path = "../cli/playground.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod playground;
mod queue;
mod templates;
mod workshop;
