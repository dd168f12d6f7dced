//! What a container or process needs in order to use some of the devices.

use maddock_sdk::gpu::Inventory;
use maddock_sdk::types::{Attachment, Entry};
use maddock_sdk::{Result, accelerators, failed};

use crate::detect::{DRIVER_NODE, VENDOR};

/// Extended resource name on clusters.
const RESOURCE: &str = "amd.com/gpu";
/// The group that owns the device nodes.
const GROUP: &str = "video";

/// The attachment for the devices at `indices`; one that is named twice is given once.
///
/// `env` holds in every surrounding. A process on this machine sees all devices and needs more: the entries of `extra`
/// that begin with `process.env.`; in a container, which has its own devices only, they would be wrong.
pub fn attach(inventory: &Inventory, indices: &[u32]) -> Result<Attachment> {
    let chosen = accelerators::chosen(inventory, indices)?;
    let mut devices = Vec::new();
    for device in &chosen {
        if device.node.is_empty() {
            return Err(failed(format!("the render node of device {} is not known", device.index)).hint(
                "see whether `/dev/dri` has a `renderD…` for each device, and whether `amd-smi list -e` names it",
            ));
        }
        if devices.is_empty() {
            devices.push(DRIVER_NODE.to_owned());
        }
        devices.push(device.node.clone());
    }
    // Identifiers do not depend on who counts; partitions of one device may share one.
    let distinct = |uuid: &str| inventory.devices.iter().filter(|device| device.uuid == uuid).count() == 1;
    let by_uuid = chosen.iter().all(|device| device.uuid.starts_with("GPU-") && distinct(&device.uuid));
    let visible: Vec<String> =
        chosen.iter().map(|device| if by_uuid { device.uuid.clone() } else { device.index.to_string() }).collect();
    Ok(Attachment {
        devices,
        groups: if chosen.is_empty() { Vec::new() } else { vec![GROUP.to_owned()] },
        extra: vec![Entry { name: "process.env.ROCR_VISIBLE_DEVICES".to_owned(), value: visible.join(",") }],
        ..accelerators::attachment(VENDOR, RESOURCE, &chosen)
    })
}

#[cfg(test)]
mod tests {
    use maddock_sdk::gpu::Device;
    use maddock_sdk::types::ErrorKind;

    use super::*;

    fn inventory(devices: &[(&str, &str)]) -> Inventory {
        let device = |(index, (node, uuid)): (u32, &(&str, &str))| Device {
            index,
            name: String::new(),
            architecture: "gfx942".to_owned(),
            uuid: (*uuid).to_owned(),
            node: (*node).to_owned(),
            extra: Vec::new(),
        };
        Inventory {
            vendor: VENDOR.to_owned(),
            devices: (0..).zip(devices).map(device).collect(),
            runtime_version: String::new(),
            root: String::new(),
            variables: Vec::new(),
            warnings: Vec::new(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn each_device_brings_its_node_and_the_drivers_comes_once() {
        let inventory = inventory(&[("/dev/dri/renderD128", "GPU-a"), ("/dev/dri/renderD136", "GPU-b")]);
        let attachment = attach(&inventory, &[1, 0, 1]).unwrap();
        assert_eq!(attachment.devices, ["/dev/kfd", "/dev/dri/renderD136", "/dev/dri/renderD128"]);
        assert_eq!(attachment.groups, ["video"]);
        assert_eq!((attachment.count, attachment.resource_name.as_str()), (2, "amd.com/gpu"));
        assert_eq!(attachment.env[0].value, "2");
        assert_eq!(attachment.extra[0].value, "GPU-b,GPU-a");
    }

    #[test]
    fn devices_with_one_identifier_are_told_apart_by_index() {
        let inventory = inventory(&[("/dev/dri/renderD128", "GPU-a"), ("/dev/dri/renderD129", "GPU-a")]);
        assert_eq!(attach(&inventory, &[1]).unwrap().extra[0].value, "1");
    }

    #[test]
    fn no_device_asked_for_is_no_device_given() {
        let attachment = attach(&inventory(&[("/dev/dri/renderD128", "")]), &[]).unwrap();
        assert!(attachment.devices.is_empty() && attachment.groups.is_empty());
        assert_eq!(attachment.count, 0);
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let error = attach(&inventory(&[("/dev/dri/renderD128", "")]), &[0, 1]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert_eq!(error.message, "too many gpus requested (index 1, and this machine has 1)");
    }

    #[test]
    fn a_device_without_a_node_cannot_be_given() {
        let error = attach(&inventory(&[("", "")]), &[0]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Failed);
        assert!(error.hint.is_some());
    }
}
