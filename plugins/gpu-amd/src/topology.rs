//! Devices as the driver's files tell them: `<sysfs>/class/kfd/kfd/topology/nodes/<n>/properties`.
//!
//! Nothing is started. Nodes that may not be read belong to devices that this process may not use.

use maddock_sdk::machine::Machine;

/// What is known of one device, whoever told it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Such as `gfx942`; empty where unknown.
    pub architecture: String,
    /// As ROCm spells it, `GPU-` and 16 hexadecimal digits; empty where unknown.
    pub uuid: String,
    /// The minor number of the render node.
    pub render: Option<u32>,
    /// The number of the node in the driver's topology.
    pub node: Option<u32>,
    /// `0000:05:00.0`; empty where unknown.
    pub bus: String,
    /// The name on the market; empty where unknown.
    pub product: String,
}

/// What the topology holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// In the order of the bus, as ROCm's tools count.
    pub devices: Vec<Found>,
    /// Nodes that could not be read.
    pub unreadable: usize,
}

/// Reads the topology below `sysfs`.
pub fn read(machine: &impl Machine, sysfs: &str) -> Topology {
    let nodes = format!("{sysfs}/class/kfd/kfd/topology/nodes");
    let mut numbers: Vec<u32> = machine.names(&nodes).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let mut unreadable = 0;
    let mut found = Vec::new();
    for node in numbers {
        match machine.text(&format!("{nodes}/{node}/properties")) {
            Some(text) => found.extend(device(node, &text)),
            None => unreadable += 1,
        }
    }
    // Partitions of one device share its place on the bus and are told apart by their node.
    found.sort_by_key(|(place, device)| (*place, device.node));
    let mut devices: Vec<Found> = found.into_iter().map(|(_, device)| device).collect();
    for device in &mut devices {
        if let Some(minor) = device.render {
            let name = machine.text(&format!("{sysfs}/class/drm/renderD{minor}/device/product_name"));
            device.product = name.map(|name| name.trim().to_owned()).unwrap_or_default();
        }
    }
    Topology { devices, unreadable }
}

/// A device and its place on the bus; none for a processor.
fn device(node: u32, properties: &str) -> Option<((u64, u64), Found)> {
    let value = |key: &str| {
        properties.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(key)).then(|| words.next()?.parse::<u64>().ok()).flatten()
        })
    };
    let minor = value("drm_render_minor").filter(|minor| *minor != 0);
    if value("simd_count").unwrap_or(0) == 0 && minor.is_none() {
        return None;
    }
    let (domain, location) = (value("domain").unwrap_or(0), value("location_id").unwrap_or(0));
    let found = Found {
        architecture: value("gfx_target_version").and_then(architecture).unwrap_or_default(),
        uuid: value("unique_id").filter(|id| *id != 0).map(|id| format!("GPU-{id:016x}")).unwrap_or_default(),
        render: minor.and_then(|minor| u32::try_from(minor).ok()),
        node: Some(node),
        bus: bus(domain, location),
        product: String::new(),
    };
    Some(((domain, location), found))
}

/// `90402` → `gfx942`: major, minor and stepping, two decimal digits each, the last two in hexadecimal.
fn architecture(version: u64) -> Option<String> {
    let (major, minor, stepping) = (version / 10_000, version / 100 % 100, version % 100);
    (major > 0).then(|| format!("gfx{major}{minor:x}{stepping:x}"))
}

fn bus(domain: u64, location: u64) -> String {
    format!("{domain:04x}:{:02x}:{:02x}.{:x}", location >> 8 & 0xff, location >> 3 & 0x1f, location & 7)
}

#[cfg(test)]
mod tests {
    use maddock_sdk::fixture::Fixture;

    use super::*;

    const CPU: &str = "cpu_cores_count 96\nsimd_count 0\nmem_banks_count 1\nvendor_id 0\ndrm_render_minor 0\n";

    fn properties(location: u32, minor: u32, unique: u64) -> String {
        format!(
            "cpu_cores_count 0\nsimd_count 1216\nmem_banks_count 1\ngfx_target_version 90402\nvendor_id 4098\n\
             device_id 29857\nlocation_id {location}\ndomain 0\ndrm_render_minor {minor}\nunique_id {unique}\n"
        )
    }

    #[test]
    fn versions_of_the_driver_become_the_names_of_the_compiler() {
        for (version, name) in [
            (90_402, "gfx942"),
            (90_010, "gfx90a"),
            (90_008, "gfx908"),
            (90_500, "gfx950"),
            (100_300, "gfx1030"),
            (110_000, "gfx1100"),
            (120_001, "gfx1201"),
        ] {
            assert_eq!(architecture(version).as_deref(), Some(name));
        }
        assert_eq!(architecture(0), None);
    }

    #[test]
    fn devices_are_counted_in_the_order_of_the_bus_and_processors_are_left_out() {
        let nodes = "/sys/class/kfd/kfd/topology/nodes";
        let machine = Fixture::default()
            .file(&format!("{nodes}/0/properties"), CPU)
            .file(&format!("{nodes}/10/properties"), &properties(0x0500, 128, 0xa1))
            .file(&format!("{nodes}/2/properties"), &properties(0x1500, 136, 0))
            .file("/sys/class/drm/renderD128/device/product_name", "AMD Instinct MI300X OAM\n");
        let topology = read(&machine, "/sys");
        assert_eq!(topology.unreadable, 0);
        assert_eq!(
            topology.devices,
            [
                Found {
                    architecture: "gfx942".into(),
                    uuid: "GPU-00000000000000a1".into(),
                    render: Some(128),
                    node: Some(10),
                    bus: "0000:05:00.0".into(),
                    product: "AMD Instinct MI300X OAM".into(),
                },
                Found {
                    architecture: "gfx942".into(),
                    render: Some(136),
                    node: Some(2),
                    bus: "0000:15:00.0".into(),
                    ..Found::default()
                },
            ]
        );
        assert!(machine.runs().is_empty());
    }

    #[test]
    fn partitions_of_one_device_keep_the_order_of_their_nodes() {
        let nodes = "/sys/class/kfd/kfd/topology/nodes";
        let machine = Fixture::default()
            .file(&format!("{nodes}/3/properties"), &properties(0x0500, 129, 1))
            .file(&format!("{nodes}/2/properties"), &properties(0x0500, 128, 1));
        let minors: Vec<_> = read(&machine, "/sys").devices.iter().map(|device| device.render).collect();
        assert_eq!(minors, [Some(128), Some(129)]);
    }

    #[test]
    fn nodes_that_may_not_be_read_are_counted_and_odd_lines_passed_over() {
        let nodes = "/sys/class/kfd/kfd/topology/nodes";
        let machine = Fixture::default()
            .file(
                &format!("{nodes}/1/properties"),
                "\n\nsimd_count\nsimd_count 4\ndrm_render_minor N/A\nlocation_id x\n",
            )
            .file(&format!("{nodes}/4/name"), "");
        let topology = read(&machine, "/sys");
        assert_eq!(topology.unreadable, 1);
        let device = topology.devices.first().unwrap();
        assert_eq!((device.render, device.node, device.bus.as_str()), (None, Some(1), "0000:00:00.0"));
    }
}
