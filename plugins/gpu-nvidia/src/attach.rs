//! What a container or process needs in order to use some of the devices: the container engine's own device driver
//! hands them out, so no device node is named here.

use maddock_sdk::gpu::Inventory;
use maddock_sdk::types::{Attachment, DeviceRequest, Entry};
use maddock_sdk::{Result, accelerators};

use crate::detect::VENDOR;

/// The engine's device driver.
const DRIVER: &str = "nvidia";
/// Extended resource name on clusters.
const RESOURCE: &str = "nvidia.com/gpu";
/// Models set priorities of their threads, and could before.
const CAPABILITY: &str = "SYS_NICE";

/// The attachment for the devices at `indices`; one that is named twice is given once.
///
/// `env` holds in every surrounding. A process on this machine sees all devices and needs more: the entries of `extra`
/// that begin with `process.env.`; in a container, which has its own devices only, they would be wrong.
pub fn attach(inventory: &Inventory, indices: &[u32]) -> Result<Attachment> {
    let chosen = accelerators::chosen(inventory, indices)?;
    let ids: Vec<String> = chosen.iter().map(|device| device.index.to_string()).collect();
    // Identifiers do not depend on who counts.
    let by_uuid = chosen.iter().all(|device| device.uuid.starts_with("GPU-"));
    let visible: Vec<&str> = if by_uuid {
        chosen.iter().map(|device| device.uuid.as_str()).collect()
    } else {
        ids.iter().map(String::as_str).collect()
    };
    let some = !chosen.is_empty();
    Ok(Attachment {
        requests: if some {
            vec![DeviceRequest { driver: DRIVER.to_owned(), ids: ids.clone(), capabilities: vec!["gpu".to_owned()] }]
        } else {
            Vec::new()
        },
        capabilities: if some { vec![CAPABILITY.to_owned()] } else { Vec::new() },
        extra: vec![Entry { name: "process.env.CUDA_VISIBLE_DEVICES".to_owned(), value: visible.join(",") }],
        ..accelerators::attachment(VENDOR, RESOURCE, &chosen)
    })
}

#[cfg(test)]
mod tests {
    use maddock_sdk::gpu::Device;
    use maddock_sdk::types::ErrorKind;

    use super::*;

    fn inventory(uuids: &[&str]) -> Inventory {
        let device = |(index, uuid): (u32, &&str)| Device {
            index,
            name: "NVIDIA H200".to_owned(),
            architecture: "NVIDIA H200".to_owned(),
            uuid: (*uuid).to_owned(),
            node: String::new(),
            extra: Vec::new(),
        };
        Inventory {
            vendor: VENDOR.to_owned(),
            devices: (0..).zip(uuids).map(device).collect(),
            runtime_version: String::new(),
            root: String::new(),
            variables: Vec::new(),
            warnings: Vec::new(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn the_engines_driver_is_asked_for_the_devices_by_index() {
        let attachment = attach(&inventory(&["GPU-a", "GPU-b", "GPU-c"]), &[2, 0, 2]).unwrap();
        assert!(attachment.devices.is_empty());
        let request = &attachment.requests[0];
        assert_eq!((request.driver.as_str(), request.ids.join(",")), ("nvidia", "2,0".to_owned()));
        assert_eq!(request.capabilities, ["gpu"]);
        assert_eq!((attachment.count, attachment.resource_name.as_str()), (2, "nvidia.com/gpu"));
        assert_eq!(attachment.env[0].value, "2");
        assert_eq!(attachment.extra[0].value, "GPU-c,GPU-a");
    }

    #[test]
    fn no_device_asked_for_is_no_request() {
        // An engine takes a request without identifiers for a request of all devices.
        let attachment = attach(&inventory(&["GPU-a"]), &[]).unwrap();
        assert!(attachment.requests.is_empty() && attachment.capabilities.is_empty());
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let error = attach(&inventory(&["GPU-a"]), &[0, 1]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert_eq!(error.message, "too many gpus requested (index 1, and this machine has 1)");
    }
}
