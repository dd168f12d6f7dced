//! What a hostile plugin, card or name gets: nothing. A module for each category of attack, and a test for each attack, which
//! fails when the check that stops it is taken away; `mutations/run.sh` does that for some of them.
//!
//! The attacker is a real component (`tests/fixtures/hostile`) in the real engine, before real files, programs, containers and
//! clusters. What cannot be attacked for want of an engine is skipped, and says so. `docs/security.md` counts these tests, and one
//! below sees to it that it counts right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

#[allow(dead_code, reason = "shared with tests that build more kinds of components")]
#[path = "../plugins/component.rs"]
mod component;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "../policy/ground.rs"]
mod ground;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "../plugins/place.rs"]
mod place;

mod guest;
mod lair;
mod stage;

mod addresses;
mod containers;
mod count;
mod detours;
mod exfiltration;
mod exhaustion;
mod forgery;
mod layers;
mod malformed;
mod namespaces;
mod others;
mod partitions;
mod paths;
mod races;
mod smuggling;
