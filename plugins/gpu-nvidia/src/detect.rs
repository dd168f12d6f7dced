//! What accelerators this machine has: the driver's files first, NVIDIA's tools for what those do not say.
//!
//! A machine without the driver and without `nvidia-smi` costs three questions and starts nothing.

use maddock_sdk::Result;
use maddock_sdk::accelerators::Finding;
use maddock_sdk::gpu::{Device, Inventory};
use maddock_sdk::machine::Machine;
use maddock_sdk::types::Entry;

use crate::driver::{self, Found};
use crate::tools;

/// The vendor, as models and reports spell it.
pub const VENDOR: &str = "NVIDIA";
const USUAL_SMI: &str = "/usr/bin/nvidia-smi";
const CUDA: &str = "/usr/local/cuda";
const TOOL_SECONDS: u64 = 60;

/// Looks for accelerators.
pub fn detect(machine: &impl Machine) -> Result<Finding> {
    let by_driver = driver::read(machine)?;
    let smi = if machine.exists(USUAL_SMI)? { Some(USUAL_SMI.to_owned()) } else { machine.program("nvidia-smi") };
    let mut warnings = Vec::new();
    let devices = match (by_driver, &smi) {
        (Some(devices), _) => devices,
        (None, None) => return Ok(Finding::Absent),
        (None, Some(smi)) => {
            let output = match machine.run(&[smi, "-L"], TOOL_SECONDS) {
                Ok(output) => output,
                Err(error) => return Ok(Finding::Unanswered(error.message)),
            };
            let (devices, partitioned) = tools::listed(&output);
            if partitioned {
                warnings.push("some devices are partitioned; they are given as a whole".to_owned());
            }
            if devices.is_empty() {
                return Ok(Finding::Unanswered(format!("`{smi} -L` names no device")));
            }
            devices
        }
    };
    let root = if machine.exists(CUDA)? { CUDA.to_owned() } else { String::new() };
    let version = version(machine, smi.as_deref()).unwrap_or_default();
    Ok(Finding::Present(inventory(&devices, root, version, driver::version(machine), warnings)))
}

/// The toolkit's version or, without a toolkit, the newest that the driver can serve.
fn version(machine: &impl Machine, smi: Option<&str>) -> Option<String> {
    let file = machine.text(&format!("{CUDA}/version.json"));
    if let Some(version) = file.and_then(|text| tools::toolkit_file(&text)) {
        return Some(version);
    }
    let own = format!("{CUDA}/bin/nvcc");
    let compiler = if machine.exists(&own).unwrap_or(false) { Some(own) } else { machine.program("nvcc") };
    let ask = |tool: &str, arguments: &[&str]| {
        let mut argv = vec![tool];
        argv.extend(arguments);
        machine.run(&argv, TOOL_SECONDS).ok()
    };
    compiler.and_then(|nvcc| tools::nvcc(&ask(&nvcc, &["--version"])?)).or_else(|| tools::smi(&ask(smi?, &[])?))
}

fn inventory(devices: &[Found], root: String, version: String, driver: String, warnings: Vec<String>) -> Inventory {
    let first = devices.first().map(|device| device.name.clone()).unwrap_or_default();
    let variables = [
        ("MAD_GPU_VENDOR", VENDOR.to_owned()),
        ("MAD_SYSTEM_NGPUS", devices.len().to_string()),
        ("MAD_SYSTEM_GPU_ARCHITECTURE", first.clone()),
        ("MAD_SYSTEM_HIP_VERSION", version.clone()),
        ("MAD_SYSTEM_GPU_PRODUCT_NAME", first),
    ];
    let extra = [("docker_gpus", format!("0-{}", devices.len().saturating_sub(1))), ("driver_version", driver)];
    Inventory {
        vendor: VENDOR.to_owned(),
        devices: (0..).zip(devices).map(|(index, found)| device(index, found)).collect(),
        runtime_version: version,
        root,
        variables: entries(variables),
        warnings,
        extra: entries(extra),
    }
}

fn device(index: u32, found: &Found) -> Device {
    Device {
        index,
        name: found.name.clone(),
        architecture: found.name.clone(),
        uuid: found.uuid.clone(),
        node: String::new(),
        extra: entries([("bus", found.bus.clone())]),
    }
}

fn entries<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Vec<Entry> {
    let known = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| Entry { name: name.to_owned(), value }).collect()
}

#[cfg(test)]
mod tests {
    use maddock_sdk::fixture::Fixture;
    use maddock_sdk::types::ErrorKind;

    use super::*;

    const LISTED: &str = "GPU 0: NVIDIA H200 (UUID: GPU-a0)\nGPU 1: NVIDIA H200 (UUID: GPU-b1)\n";

    fn present(machine: &Fixture) -> Inventory {
        match detect(machine).unwrap() {
            Finding::Present(inventory) => inventory,
            other => panic!("{other:?}"),
        }
    }

    fn variable<'a>(inventory: &'a Inventory, name: &str) -> Option<&'a str> {
        let all = inventory.variables.iter().chain(&inventory.extra);
        all.filter(|entry| entry.name == name).map(|entry| entry.value.as_str()).next()
    }

    #[test]
    fn a_machine_without_driver_and_tool_starts_nothing() {
        let machine = Fixture::default().file("/usr/local/cuda/bin/nvcc", "").program("nvcc", "/usr/bin/nvcc");
        assert!(matches!(detect(&machine).unwrap(), Finding::Absent));
        assert!(machine.runs().is_empty());
    }

    #[test]
    fn a_refused_look_is_an_error_and_not_an_empty_machine() {
        assert_eq!(detect(&Fixture::default().refusing()).unwrap_err().kind, ErrorKind::Denied);
    }

    #[test]
    fn the_drivers_files_and_the_toolkits_suffice_and_nothing_is_started() {
        let machine = Fixture::default()
            .file("/dev/nvidiactl", "")
            .file("/dev/nvidia0", "")
            .file(
                "/proc/driver/nvidia/gpus/0000:0a:00.0/information",
                "Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-a0\nDevice Minor: \t 0\n",
            )
            .file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
            .file("/usr/local/cuda/version.json", r#"{"cuda": {"version": "12.4.1"}}"#);
        let inventory = present(&machine);
        assert!(machine.runs().is_empty(), "{:?}", machine.runs());
        assert_eq!((inventory.root.as_str(), inventory.runtime_version.as_str()), ("/usr/local/cuda", "12.4"));
        for (name, value) in [
            ("MAD_GPU_VENDOR", "NVIDIA"),
            ("MAD_SYSTEM_NGPUS", "1"),
            ("MAD_SYSTEM_GPU_ARCHITECTURE", "NVIDIA H200"),
            ("MAD_SYSTEM_HIP_VERSION", "12.4"),
            ("MAD_SYSTEM_GPU_PRODUCT_NAME", "NVIDIA H200"),
            ("docker_gpus", "0-0"),
            ("driver_version", "550.54.15"),
        ] {
            assert_eq!(variable(&inventory, name), Some(value), "{name}");
        }
    }

    #[test]
    fn the_tool_is_asked_where_the_files_are_silent() {
        let machine = Fixture::default()
            .program("nvidia-smi", "/fake/nvidia-smi")
            .output("/fake/nvidia-smi -L", LISTED)
            .output("/fake/nvidia-smi", "| NVIDIA-SMI 550  Driver Version: 550  CUDA Version: 12.8  |");
        let inventory = present(&machine);
        assert_eq!(
            inventory.devices.iter().map(|d| (d.index, d.uuid.as_str())).collect::<Vec<_>>(),
            [(0, "GPU-a0"), (1, "GPU-b1")]
        );
        assert_eq!(inventory.runtime_version, "12.8");
        assert_eq!(inventory.root, "");
        assert_eq!(variable(&inventory, "docker_gpus"), Some("0-1"));
    }

    #[test]
    fn the_usual_tool_comes_before_one_on_the_search_path() {
        let machine = Fixture::default()
            .program("nvidia-smi", "/other/nvidia-smi")
            .output("/usr/bin/nvidia-smi -L", LISTED)
            .output("/usr/local/cuda/bin/nvcc --version", "Cuda compilation tools, release 12.2, V12.2.140\n");
        let inventory = present(&machine);
        assert_eq!(inventory.runtime_version, "12.2");
        assert!(machine.runs().iter().all(|run| !run.starts_with("/other")));
    }

    #[test]
    fn a_tool_without_devices_is_said_so() {
        let failing = Fixture::default().file("/usr/bin/nvidia-smi", "");
        let Finding::Unanswered(reason) = detect(&failing).unwrap() else { panic!() };
        assert!(reason.contains("nvidia-smi -L"), "{reason}");
        let empty = Fixture::default().output("/usr/bin/nvidia-smi -L", "No devices found.\n");
        assert!(matches!(detect(&empty).unwrap(), Finding::Unanswered(_)));
    }

    #[test]
    fn partitions_are_warned_about() {
        let machine = Fixture::default().output(
            "/usr/bin/nvidia-smi -L",
            "GPU 0: NVIDIA A100 (UUID: GPU-a)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\n",
        );
        assert_eq!(present(&machine).warnings.len(), 1);
    }
}
