//! Black-box tests of the binary: a temporary tree, a temporary working directory, and what the program leaves there. They
//! need Linux with bash, some of them python3; no container engine.
//!
//! They must never look at what is inside the program, nor use anything of this machine's user but the tools on `PATH`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod configuration;
mod detached;
mod discover;
mod ending;
mod exit_codes;
mod help;
mod launchers;
mod node;
mod outsiders;
mod playground;
mod reports;
mod results;
mod secrets;
mod surfaces;
mod words;
