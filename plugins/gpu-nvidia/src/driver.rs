//! Devices as the driver's files tell them: `/proc/driver/nvidia/gpus/<bus>/information`. Nothing is started.

use maddock_sdk::Result;
use maddock_sdk::machine::Machine;

const FILES: &str = "/proc/driver/nvidia";
/// Without this node no device can be used, whatever the files say: they show through into containers.
const CONTROL_NODE: &str = "/dev/nvidiactl";

/// What is known of one device, whoever told it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// `0000:1b:00.0`; empty where unknown.
    pub bus: String,
}

/// The devices in the order of the bus, as the vendor's tools count; none where the files do not say everything.
pub fn read(machine: &impl Machine) -> Result<Option<Vec<Found>>> {
    if !machine.exists(CONTROL_NODE)? {
        return Ok(None);
    }
    let gpus = format!("{FILES}/gpus");
    let mut found = Vec::new();
    for bus in machine.names(&gpus) {
        let Some(text) = machine.text(&format!("{gpus}/{bus}/information")) else { return Ok(None) };
        let Some((minor, device)) = device(&bus, &text) else { return Ok(None) };
        if machine.exists(&format!("/dev/nvidia{minor}"))? {
            found.push(device);
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

/// The version of the driver, empty where unknown.
pub fn version(machine: &impl Machine) -> String {
    // NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024
    let text = machine.text(&format!("{FILES}/version")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("NVRM version:")).unwrap_or_default();
    let dotted = |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    line.split_whitespace().find(dotted).unwrap_or_default().to_owned()
}

/// A device and its minor number; none where the driver has not looked at it yet, which it does on first use.
fn device(bus: &str, information: &str) -> Option<(u32, Found)> {
    let value = |key: &str| {
        information.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.trim() == key).then(|| value.trim())
        })
    };
    let name = value("Model").filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("unknown"))?;
    let uuid = value("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))?;
    let minor = value("Device Minor")?.parse().ok()?;
    Some((minor, Found { name: name.to_owned(), uuid: uuid.to_owned(), bus: bus.to_owned() }))
}

#[cfg(test)]
mod tests {
    use maddock_sdk::fixture::Fixture;

    use super::*;

    fn information(model: &str, uuid: &str, minor: &str) -> String {
        format!(
            "Model: \t\t {model}\nIRQ:   \t\t 321\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.74.00.01\nBus Type: \t PCIe\n\
             DMA Size: \t 52 bits\nBus Location: \t 0000:1b:00.0\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    }

    fn host() -> Fixture {
        Fixture::default()
            .file("/dev/nvidiactl", "")
            .file("/dev/nvidia0", "")
            .file("/dev/nvidia3", "")
            .file("/proc/driver/nvidia/gpus/0000:1b:00.0/information", &information("NVIDIA H200", "GPU-b1", "3"))
            .file("/proc/driver/nvidia/gpus/0000:0a:00.0/information", &information("NVIDIA H200", "GPU-a0", "0"))
    }

    #[test]
    fn devices_are_counted_in_the_order_of_the_bus() {
        let found = read(&host()).unwrap().unwrap();
        assert_eq!(found.iter().map(|device| device.uuid.as_str()).collect::<Vec<_>>(), ["GPU-a0", "GPU-b1"]);
        assert_eq!(found[0].name, "NVIDIA H200");
        assert_eq!(found[1].bus, "0000:1b:00.0");
    }

    #[test]
    fn devices_whose_node_is_not_here_are_left_out() {
        let machine = host()
            .file("/proc/driver/nvidia/gpus/0000:2c:00.0/information", &information("NVIDIA H200", "GPU-c2", "2"));
        assert_eq!(read(&machine).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn files_that_do_not_say_everything_say_nothing() {
        for text in [
            information("NVIDIA H200", "GPU-????????-????-????-????-????????????", "3"),
            information("Unknown", "GPU-b1", "3"),
            information("NVIDIA H200", "GPU-b1", ""),
            String::new(),
        ] {
            let machine = host().file("/proc/driver/nvidia/gpus/0000:1b:00.0/information", &text);
            assert_eq!(read(&machine).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn files_without_the_control_node_belong_to_the_host_of_this_container() {
        let machine = Fixture::default()
            .file("/proc/driver/nvidia/gpus/0000:0a:00.0/information", &information("NVIDIA H200", "GPU-a0", "0"));
        assert_eq!(read(&machine).unwrap(), None);
    }

    #[test]
    fn the_drivers_version_is_found_in_both_of_its_spellings() {
        for (text, expected) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc 11.4.0\n",
                "550.54.15",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (root@x)\n",
                "570.86.15",
            ),
            ("GCC version: gcc 11.4.0\n", ""),
        ] {
            assert_eq!(version(&Fixture::default().file("/proc/driver/nvidia/version", text)), expected);
        }
    }
}
