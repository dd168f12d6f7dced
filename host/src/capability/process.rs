//! `process`: programs on this machine.

use super::gate::Capability;

/// The `process` interface.
#[derive(Debug)]
pub enum Process {}

impl Capability for Process {
    const NAME: &'static str = "process";
}
