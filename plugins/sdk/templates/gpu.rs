//! Knows the accelerators whose driver makes `/dev/accel/accel0`, `accel1`, … on this machine.

use maddock_sdk::gpu::{Device, Guest, Inventory};
use maddock_sdk::types::{Attachment, Entry, ErrorKind};
use maddock_sdk::{Result, accelerators, files};

/// As reports and configurations call the vendor.
const VENDOR: &str = "NAME";
/// Extended resource name on clusters.
const RESOURCE: &str = "example.com/NAME";
/// Where the driver's device nodes are.
const NODES: &str = "/dev/accel";

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn detect(_config: String) -> Result<Option<Inventory>> {
        match files::list_directory(NODES) {
            Ok(entries) => Ok(inventory(
                &entries
                    .into_iter()
                    .map(|entry| entry.name)
                    .collect::<Vec<_>>(),
            )),
            // No driver, hence no device: that is no error.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.during("looking for devices")),
        }
    }

    fn attach(inventory: Inventory, indices: Vec<u32>) -> Result<Attachment> {
        let chosen = accelerators::chosen(&inventory, &indices)?;
        let visible: Vec<String> = chosen
            .iter()
            .map(|device| device.index.to_string())
            .collect();
        let mut attachment = accelerators::attachment(VENDOR, RESOURCE, &chosen);
        attachment.devices = chosen.iter().map(|device| device.node.clone()).collect();
        attachment.env.push(Entry {
            name: "ACCEL_VISIBLE_DEVICES".to_owned(),
            value: visible.join(","),
        });
        Ok(attachment)
    }
}

/// What the driver's nodes say; none where there is no device.
fn inventory(names: &[String]) -> Option<Inventory> {
    let mut indices: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix("accel")?.parse().ok())
        .collect();
    indices.sort_unstable();
    let device = |index: u32| Device {
        index,
        name: VENDOR.to_owned(),
        architecture: VENDOR.to_owned(),
        uuid: String::new(),
        node: format!("{NODES}/accel{index}"),
        extra: Vec::new(),
    };
    (!indices.is_empty()).then(|| Inventory {
        vendor: VENDOR.to_owned(),
        devices: indices.iter().copied().map(device).collect(),
        runtime_version: String::new(),
        root: String::new(),
        variables: Vec::new(),
        warnings: Vec::new(),
        extra: Vec::new(),
    })
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::gpu::export!(Plugin with_types_in maddock_sdk::gpu);

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn devices_are_counted_by_their_nodes() {
        let found = inventory(&names(&["accel10", "accel2", "control"])).unwrap();
        let indices: Vec<u32> = found.devices.iter().map(|device| device.index).collect();
        assert_eq!(indices, [2, 10]);
        assert!(inventory(&names(&["control"])).is_none());
    }

    #[test]
    fn a_job_gets_the_devices_that_it_was_given_and_no_others() {
        let inventory = inventory(&names(&["accel0", "accel1"])).unwrap();
        let attachment = Plugin::attach(inventory.clone(), vec![1]).unwrap();
        assert_eq!(
            (attachment.devices, attachment.count),
            (vec!["/dev/accel/accel1".to_owned()], 1)
        );
        assert!(Plugin::attach(inventory, vec![2]).is_err());
    }
}
