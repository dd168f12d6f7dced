//! What accelerators this machine has: the driver's files first, ROCm's tools for what those do not say.
//!
//! A machine without the driver's device node costs one question and starts nothing.

use maddock_sdk::Result;
use maddock_sdk::accelerators::Finding;
use maddock_sdk::gpu::{Device, Inventory};
use maddock_sdk::machine::Machine;
use maddock_sdk::serde_json::{Value, json};
use maddock_sdk::types::Entry;

use crate::root::{self, Root};
use crate::tools::{self, Agent};
use crate::topology::{self, Found};

/// The vendor, as models and reports spell it.
pub const VENDOR: &str = "AMD";
/// The device node that every use of an accelerator goes through.
pub const DRIVER_NODE: &str = "/dev/kfd";
const RENDER_NODES: &str = "/dev/dri";
/// Tools of this version and later are asked by `amd-smi` first.
const AMD_SMI_SINCE: [u32; 3] = [6, 4, 1];
const TOOL_SECONDS: u64 = 60;

/// Looks for accelerators. Two members of the configuration count: `MAD_ROCM_PATH`, the root of ROCm, and, for tests,
/// `sysfs_root`, read instead of `/sys`, with which the device node need not exist.
pub fn detect(machine: &impl Machine, config: &Value) -> Result<Finding> {
    let member = |name: &str| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let sysfs = match member("sysfs_root") {
        Some(given) => given.trim_end_matches('/'),
        None if machine.exists(DRIVER_NODE)? => "/sys",
        None => return Ok(Finding::Absent),
    };
    let root = root::resolve(machine, member("MAD_ROCM_PATH").map(|path| path.trim_end_matches('/')));
    let mut search = Search { machine, root, warnings: Vec::new(), agents: None };
    let version = search.version();
    let topology = topology::read(machine, sysfs);
    if topology.unreadable > 0 && !topology.devices.is_empty() {
        let message =
            format!("{} nodes of the driver's topology may not be read and are left out", topology.unreadable);
        search.warnings.push(message);
    }
    let mut devices = topology.devices;
    if devices.is_empty() {
        devices = search.ask_for_devices(version.as_deref());
    }
    if devices.is_empty() {
        let message = format!(
            "`{DRIVER_NODE}` is there, but neither the driver's files nor the tools of `{}` name a device",
            search.root.path
        );
        return Ok(Finding::Unanswered(message));
    }
    search.complete(&mut devices, version.as_deref());
    Ok(Finding::Present(inventory(search, &devices, version.as_deref())))
}

/// A search that goes on, with what it has asked already.
struct Search<'a, M> {
    machine: &'a M,
    root: Root,
    warnings: Vec<String>,
    agents: Option<Vec<Agent>>,
}

impl<M: Machine> Search<'_, M> {
    /// What a tool of the root, or else of the search path, answers.
    fn ask(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let own = format!("{}/bin/{name}", self.root.path);
        let tool = match self.machine.exists(&own) {
            Ok(true) => own,
            _ => self.machine.program(name)?,
        };
        let mut argv = vec![tool.as_str()];
        argv.extend(arguments);
        self.machine.run(&argv, TOOL_SECONDS).ok()
    }

    /// The file says in no time what `hipconfig` says; both agree in the two numbers that are used.
    fn version(&self) -> Option<Vec<u32>> {
        let file = self.machine.text(&format!("{}/.info/version", self.root.path));
        file.and_then(|text| tools::version(&text))
            .or_else(|| tools::version(&self.ask("hipconfig", &["--version"])?))
            .or_else(|| tools::amd_smi_version(&self.ask("amd-smi", &["version"])?))
    }

    fn agents(&mut self) -> Vec<Agent> {
        if self.agents.is_none() {
            self.agents = Some(self.ask("rocminfo", &[]).map(|output| tools::rocminfo(&output)).unwrap_or_default());
        }
        self.agents.clone().unwrap_or_default()
    }

    fn ask_for_devices(&mut self, version: Option<&[u32]>) -> Vec<Found> {
        let mut devices = if prefers_amd_smi(version) {
            self.ask_amd_smi().or_else(|| self.ask_rocm_smi())
        } else {
            self.ask_rocm_smi().or_else(|| self.ask_amd_smi())
        }
        .unwrap_or_else(|| self.agents().iter().map(|_| Found::default()).collect());
        self.find_render_nodes(&mut devices);
        devices
    }

    fn ask_amd_smi(&self) -> Option<Vec<Found>> {
        [&["list", "-e", "--json"][..], &["list", "--json"]]
            .iter()
            .filter_map(|arguments| self.ask("amd-smi", arguments))
            .map(|output| tools::amd_smi_list(&output))
            .find(|devices| !devices.is_empty())
    }

    fn ask_rocm_smi(&self) -> Option<Vec<Found>> {
        let count = tools::rocm_smi_count(&self.ask("rocm-smi", &["--showid", "--csv"])?);
        let mut devices = vec![Found::default(); count];
        if count > 0 {
            let output = self.ask("rocm-smi", &["--showuniqueid"]).unwrap_or_default();
            for (at, uuid) in tools::rocm_smi_uuids(&output) {
                if let Some(device) = devices.get_mut(at) {
                    device.uuid = uuid;
                }
            }
        }
        (count > 0).then_some(devices)
    }

    /// Where nobody says which render node belongs to which device, and there are as many, both are in the same order.
    fn find_render_nodes(&mut self, devices: &mut [Found]) {
        if devices.iter().all(|device| device.render.is_some()) {
            return;
        }
        let names = self.machine.names(RENDER_NODES);
        let mut minors: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("renderD")?.parse().ok()).collect();
        minors.sort_unstable();
        if minors.len() == devices.len() {
            for (device, minor) in devices.iter_mut().zip(minors) {
                device.render = Some(minor);
            }
            self.warnings.push("render nodes are matched to devices by their order".to_owned());
        } else {
            let message = format!(
                "{} devices and {} render nodes: which belong together is not known",
                devices.len(),
                minors.len()
            );
            self.warnings.push(message);
        }
    }

    /// Fills in what the first source did not say.
    fn complete(&mut self, devices: &mut [Found], version: Option<&[u32]>) {
        if devices.iter().any(|device| device.architecture.is_empty()) {
            let agents = self.agents();
            for (at, device) in devices.iter_mut().enumerate() {
                let of_node = agents.iter().find(|agent| agent.node.is_some() && agent.node == device.node);
                let of_uuid = || agents.iter().find(|agent| !agent.uuid.is_empty() && agent.uuid == device.uuid);
                if let Some(agent) = of_node.or_else(of_uuid).or_else(|| agents.get(at)).cloned() {
                    fill(&mut device.architecture, agent.architecture);
                    fill(&mut device.uuid, agent.uuid);
                    fill(&mut device.product, agent.product);
                }
            }
            if devices.iter().any(|device| device.architecture.is_empty()) {
                self.warnings.push("the architecture of some devices is not known".to_owned());
            }
        }
        if devices.first().is_some_and(|device| device.product.is_empty()) {
            let product = self.product(version).unwrap_or_default();
            let architecture = devices.first().map(|device| device.architecture.clone());
            for device in devices.iter_mut().filter(|device| Some(&device.architecture) == architecture.as_ref()) {
                fill(&mut device.product, product.clone());
            }
        }
    }

    /// The market name of device 0.
    fn product(&mut self, version: Option<&[u32]>) -> Option<String> {
        let by_amd_smi = || tools::amd_smi_product(&self.ask("amd-smi", &["static", "-g", "0", "-a", "--json"])?);
        let by_rocm_smi = || tools::rocm_smi_product(&self.ask("rocm-smi", &["--showproductname"])?);
        let asked = if prefers_amd_smi(version) {
            by_amd_smi().or_else(by_rocm_smi)
        } else {
            by_rocm_smi().or_else(by_amd_smi)
        };
        asked.or_else(|| self.agents().into_iter().next().map(|agent| agent.product).filter(|name| !name.is_empty()))
    }
}

fn prefers_amd_smi(version: Option<&[u32]>) -> bool {
    version.is_none_or(|version| version >= AMD_SMI_SINCE.as_slice())
}

fn fill(place: &mut String, value: String) {
    if place.is_empty() {
        *place = value;
    }
}

/// The path of a render node.
pub fn render_node(minor: u32) -> String {
    format!("{RENDER_NODES}/renderD{minor}")
}

fn inventory<M>(search: Search<'_, M>, devices: &[Found], version: Option<&[u32]>) -> Inventory {
    let Search { root, mut warnings, .. } = search;
    if !root.valid {
        warnings.push(format!("`{}` does not look like a ROCm root", root.path));
    }
    let runtime_version = match version {
        Some([major, minor, ..]) => format!("{major}.{minor}"),
        _ => String::new(),
    };
    let first = devices.first().cloned().unwrap_or_default();
    let minors: Vec<u32> = devices.iter().filter_map(|device| device.render).collect();
    let variables = [
        ("MAD_GPU_VENDOR", VENDOR.to_owned()),
        ("MAD_SYSTEM_NGPUS", devices.len().to_string()),
        ("MAD_SYSTEM_GPU_ARCHITECTURE", first.architecture),
        ("MAD_SYSTEM_HIP_VERSION", runtime_version.clone()),
        ("MAD_SYSTEM_GPU_PRODUCT_NAME", first.product),
    ];
    let extra = [
        ("docker_gpus", format!("0-{}", devices.len().saturating_sub(1))),
        ("gpu_renderDs", json!(minors).to_string()),
    ];
    Inventory {
        vendor: VENDOR.to_owned(),
        devices: (0..).zip(devices).map(|(index, found)| device(index, found)).collect(),
        runtime_version,
        root: if root.valid { root.path } else { String::new() },
        variables: entries(variables),
        warnings,
        extra: entries(extra),
    }
}

fn device(index: u32, found: &Found) -> Device {
    let extra = [
        ("bus", found.bus.clone()),
        ("node_id", found.node.map(|node| node.to_string()).unwrap_or_default()),
        ("render", found.render.map(|minor| minor.to_string()).unwrap_or_default()),
    ];
    Device {
        index,
        name: found.product.clone(),
        architecture: found.architecture.clone(),
        uuid: found.uuid.clone(),
        node: found.render.map(render_node).unwrap_or_default(),
        extra: entries(extra.into_iter().filter(|(_, value)| !value.is_empty())),
    }
}

fn entries<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Vec<Entry> {
    pairs.into_iter().map(|(name, value)| Entry { name: name.to_owned(), value }).collect()
}

#[cfg(test)]
mod tests {
    use maddock_sdk::fixture::Fixture;
    use maddock_sdk::types::ErrorKind;

    use super::*;

    const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";

    fn present(machine: &Fixture, config: &Value) -> Inventory {
        match detect(machine, config).unwrap() {
            Finding::Present(inventory) => inventory,
            other => panic!("{other:?}"),
        }
    }

    fn variable<'a>(inventory: &'a Inventory, name: &str) -> &'a str {
        let all = inventory.variables.iter().chain(&inventory.extra);
        all.filter(|entry| entry.name == name).map(|entry| entry.value.as_str()).next().unwrap()
    }

    fn gpu(minor: u32, location: u32) -> String {
        format!(
            "simd_count 1216\ngfx_target_version 90402\nlocation_id {location}\ndomain 0\n\
             drm_render_minor {minor}\nunique_id {minor}\n"
        )
    }

    /// A host whose files say everything.
    fn host() -> Fixture {
        Fixture::default()
            .file("/dev/kfd", "")
            .file("/opt/rocm/.info/version", "6.4.1-83\n")
            .file(&format!("{NODES}/0/properties"), "simd_count 0\n")
            .file(&format!("{NODES}/1/properties"), &gpu(128, 0x500))
            .file(&format!("{NODES}/2/properties"), &gpu(136, 0x1500))
            .file("/sys/class/drm/renderD128/device/product_name", "AMD Instinct MI300X\n")
            .file("/sys/class/drm/renderD136/device/product_name", "AMD Instinct MI300X\n")
    }

    /// A host whose files say nothing, and whose tools answer.
    fn told_by_tools(root: &str) -> Fixture {
        let bin = format!("{root}/bin");
        Fixture::default()
            .file("/dev/kfd", "")
            .file(&format!("{root}/.info/version"), "6.4.1-83\n")
            .output(
                &format!("{bin}/amd-smi list -e --json"),
                r#"warning: old firmware
                [{"gpu":0,"bdf":"0000:05:00.0","uuid":"ff74","node_id":1,"hip_uuid":"GPU-a1","render":"renderD128"},
                 {"gpu":1,"bdf":"0000:15:00.0","uuid":"ff75","node_id":2,"hip_uuid":"GPU-a2","render":"renderD136"}]"#,
            )
            .output(
                &format!("{bin}/rocminfo"),
                "Agent 1\n Name: EPYC\nAgent 2\n Name: gfx942\n Uuid: GPU-a1\n Marketing Name: AMD Instinct MI300X\n Node: 1\n\
                 Agent 3\n Name: gfx942\n Uuid: GPU-a2\n Marketing Name: AMD Instinct MI300X\n Node: 2\n",
            )
    }

    #[test]
    fn a_machine_without_the_device_node_starts_nothing() {
        let machine = Fixture::default()
            .program("amd-smi", "/opt/rocm/bin/amd-smi")
            .file("/opt/rocm/bin/rocminfo", "")
            .variable("ROCM_PATH", "/opt/rocm");
        assert!(matches!(detect(&machine, &json!({"MAD_ROCM_PATH": "/opt/rocm"})).unwrap(), Finding::Absent));
        assert!(machine.runs().is_empty());
    }

    #[test]
    fn a_refused_look_is_an_error_and_not_an_empty_machine() {
        let error = detect(&host().refusing(), &json!({})).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }

    #[test]
    fn the_drivers_files_suffice_and_nothing_is_started() {
        let machine = host();
        let inventory = present(&machine, &json!({}));
        assert!(machine.runs().is_empty(), "{:?}", machine.runs());
        assert_eq!(inventory.root, "/opt/rocm");
        assert_eq!(inventory.runtime_version, "6.4");
        assert_eq!(
            inventory.devices.iter().map(|d| d.node.as_str()).collect::<Vec<_>>(),
            ["/dev/dri/renderD128", "/dev/dri/renderD136"]
        );
        for (name, value) in [
            ("MAD_GPU_VENDOR", "AMD"),
            ("MAD_SYSTEM_NGPUS", "2"),
            ("MAD_SYSTEM_GPU_ARCHITECTURE", "gfx942"),
            ("MAD_SYSTEM_HIP_VERSION", "6.4"),
            ("MAD_SYSTEM_GPU_PRODUCT_NAME", "AMD Instinct MI300X"),
            ("docker_gpus", "0-1"),
            ("gpu_renderDs", "[128,136]"),
        ] {
            assert_eq!(variable(&inventory, name), value, "{name}");
        }
        assert!(inventory.warnings.is_empty());
    }

    #[test]
    fn tools_are_asked_where_the_files_are_silent() {
        let inventory = present(&told_by_tools("/var/rocm"), &json!({"MAD_ROCM_PATH": "/var/rocm/"}));
        assert_eq!(inventory.root, "/var/rocm");
        assert_eq!(variable(&inventory, "gpu_renderDs"), "[128,136]");
        assert_eq!(variable(&inventory, "MAD_SYSTEM_GPU_PRODUCT_NAME"), "AMD Instinct MI300X");
        let device = &inventory.devices[1];
        assert_eq!((device.index, device.architecture.as_str(), device.uuid.as_str()), (1, "gfx942", "GPU-a2"));
        assert!(inventory.warnings.is_empty());
    }

    #[test]
    fn an_old_rocm_is_asked_by_its_old_tool_and_render_nodes_are_matched_by_order() {
        let machine = Fixture::default()
            .file("/dev/kfd", "")
            .file("/dev/dri/renderD136", "")
            .file("/dev/dri/renderD128", "")
            .file("/dev/dri/card0", "")
            .file("/opt/rocm/bin/rocminfo", "")
            .output("/opt/rocm/bin/hipconfig --version", "6.2.41133-dd7f95766")
            .output("/opt/rocm/bin/rocm-smi --showid --csv", "device,Device ID,GUID\ncard0,0x1,0x2\ncard1,0x1,0x3\n")
            .output("/opt/rocm/bin/rocm-smi --showuniqueid", "GPU[0]\t\t: Unique ID: 0xa2\nGPU[1]\t\t: Unique ID: 0xa1\n")
            .output("/opt/rocm/bin/rocm-smi --showproductname", "GPU[0]\t\t: Card Series: \t\tAMD Instinct MI210\n")
            .output(
                "/opt/rocm/bin/rocminfo",
                "Agent 1\n Name: gfx908\n Uuid: GPU-00000000000000a1\nAgent 2\n Name: gfx90a\n Uuid: GPU-00000000000000a2\n",
            );
        let inventory = present(&machine, &json!({}));
        assert_eq!(inventory.runtime_version, "6.2");
        assert_eq!(variable(&inventory, "MAD_SYSTEM_GPU_ARCHITECTURE"), "gfx90a", "joined by identifier");
        assert_eq!(variable(&inventory, "MAD_SYSTEM_GPU_PRODUCT_NAME"), "AMD Instinct MI210");
        assert_eq!(variable(&inventory, "gpu_renderDs"), "[128,136]");
        assert_eq!(inventory.devices[1].name, "", "the name of device 0 is not that of another architecture");
        assert!(!machine.runs().iter().any(|run| run.contains("amd-smi")));
        assert_eq!(inventory.warnings, ["render nodes are matched to devices by their order"]);
    }

    #[test]
    fn a_tool_that_fails_is_replaced_by_the_other() {
        let machine = Fixture::default()
            .file("/dev/kfd", "")
            .file("/opt/rocm/.info/version", "7.0.0")
            .file("/opt/rocm/bin/amd-smi", "")
            .output("/opt/rocm/bin/rocm-smi --showid --csv", "card0,0x1,0x2\n");
        let inventory = present(&machine, &json!({}));
        assert_eq!(inventory.devices.len(), 1);
        assert_eq!(inventory.devices[0].node, "");
        assert!(inventory.warnings.iter().any(|warning| warning.contains("1 devices and 0 render nodes")));
        assert!(inventory.warnings.iter().any(|warning| warning.contains("architecture")));
    }

    #[test]
    fn a_driver_that_nobody_answers_for_is_said_so() {
        let machine = Fixture::default().file("/dev/kfd", "");
        let Finding::Unanswered(reason) = detect(&machine, &json!({})).unwrap() else { panic!() };
        assert!(reason.contains("/opt/rocm"), "{reason}");
    }

    #[test]
    fn a_test_can_replace_the_drivers_files() {
        let machine = Fixture::default()
            .file("/fake/class/kfd/kfd/topology/nodes/1/properties", &gpu(128, 0x500))
            .file("/opt/rocm/.info/version", "6.4.1");
        let inventory = present(&machine, &json!({"sysfs_root": "/fake/"}));
        assert_eq!(inventory.devices.len(), 1);
    }
}
