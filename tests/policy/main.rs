//! Policy from outside: files of a site, a user, a project and the command line, and what the program then does and says.
//!
//! A site's policy needs a `/etc` of the test's own: a mount namespace. Where none can be made, those tests say that they were
//! skipped; so do those that need a container engine (`MADDOCK_TEST_IMAGE`) or a cluster (`SLURM_CONF`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod commands;
mod ground;
mod plans;
mod site;
mod suggest;
