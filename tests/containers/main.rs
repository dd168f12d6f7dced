//! The built program with a real container engine: what it builds, runs, leaves behind and does not leave behind.
//!
//! `MADDOCK_TEST_IMAGE` names an image with bash that the engine can pull; without it every test says that it was skipped.
//! Each test has models, images and containers of its own name, so that tests may run at once and with other people's.

// What clippy.toml allows in tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod building;
mod detached;
mod devices;
mod engine;
mod lifetime;
mod outage;
mod running;
mod scene;
mod secrets;
mod surroundings;
