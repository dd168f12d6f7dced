//! What plugins for accelerators share, whoever made the device: how a finding is told, and which devices are meant.
//!
//! It knows no vendor: names of device nodes, drivers and variables stay in the plugins.

use crate::events::{self, Level};
use crate::gpu::{Device, Inventory};
use crate::types::{Attachment, Entry};
use crate::{Result, invalid};

/// What was found.
#[derive(Debug)]
pub enum Finding {
    /// No accelerator of this vendor.
    Absent,
    /// The driver or its tool is there, and nobody names a device.
    Unanswered(String),
    /// At least one.
    Present(Inventory),
}

impl Finding {
    /// The answer to `gpu.detect`. A driver without devices is worth a warning, but it is no error: the job may not need
    /// any.
    pub fn told(self) -> Option<Inventory> {
        match self {
            Self::Absent => None,
            Self::Unanswered(reason) => {
                events::log(Level::Warning, &reason, &[]);
                None
            }
            Self::Present(inventory) => Some(inventory),
        }
    }
}

/// The devices at `indices`, in that order; one that is named twice is given once.
pub fn chosen<'a>(inventory: &'a Inventory, indices: &[u32]) -> Result<Vec<&'a Device>> {
    let mut chosen = Vec::new();
    for &index in indices {
        let device = inventory.devices.iter().find(|device| device.index == index).ok_or_else(|| {
            let has = inventory.devices.len();
            invalid(format!("too many gpus requested (index {index}, and this machine has {has})"))
                .hint("ask for fewer by `n_gpus`, or name other devices by `docker_gpus`")
        })?;
        if !chosen.contains(&device) {
            chosen.push(device);
        }
    }
    Ok(chosen)
}

/// What every vendor's attachment says of the chosen devices: how many there are, and nothing yet of how to reach them.
#[must_use]
pub fn attachment(vendor: &str, resource: &str, chosen: &[&Device]) -> Attachment {
    Attachment {
        vendor: vendor.to_owned(),
        devices: Vec::new(),
        requests: Vec::new(),
        groups: Vec::new(),
        env: vec![Entry { name: "MAD_RUNTIME_NGPUS".to_owned(), value: chosen.len().to_string() }],
        capabilities: Vec::new(),
        resource_name: resource.to_owned(),
        count: u32::try_from(chosen.len()).unwrap_or(u32::MAX),
        extra: Vec::new(),
    }
}
