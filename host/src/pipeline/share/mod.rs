//! One node's share of a job that several machines run: the file that says what to do, and doing it.
//!
//! The file is data on a file system that the nodes share. The kernel writes the job into it, the target adds how its nodes
//! are told apart and where each leaves its outcome; `maddock __node FILE` reads it on every node. Secrets are in it by
//! their names only; their values come as variables. docs/plugins.md has the format.

mod devices;
mod file;
mod node;
mod report;
mod stage;

pub use file::{Share, ShareError, text_of};
pub use node::{Node, attend, secrets};
pub use report::{Desk, Outcome};
pub use stage::{Linkage, Program, program};
