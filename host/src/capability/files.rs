//! `files`: files, scoped by roots.

use super::gate::Capability;

/// The `files` interface.
#[derive(Debug)]
pub enum Files {}

impl Capability for Files {
    const NAME: &'static str = "files";
}
