//! Hostile and broken plugins: each fails with a sentence that names it, and nothing else fails.
//!
//! The components are made by the tests themselves, from text: no compiler of another language is needed, and none could
//! be talked into most of these.

// What clippy.toml allows in tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod ceilings;
mod component;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "../policy/ground.rs"]
mod ground;
mod lifecycle;
mod loading;
mod manifests;
mod place;
mod refusals;
mod registry;
mod signers;
mod stderr;
