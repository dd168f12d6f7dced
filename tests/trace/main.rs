//! Traces, recordings and replays from outside: runs of every target, replayed where nothing of it is, and recordings that
//! somebody has changed. Tests that need an engine (`MADDOCK_TEST_IMAGE`), a scheduler (`SLURM_CONF`) or a cluster
//! (`KUBECONFIG`, `MADDOCK_TEST_KUBE_IMAGE`) say that they were skipped where there is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod ground;
mod limits;
mod replay;
mod show;
mod tampered;
