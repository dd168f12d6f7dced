//! What NVIDIA's tools say, read with distrust: warnings before the answer, lines that are no devices, `N/A`.

use maddock_sdk::serde_json::{self, Value};

use crate::driver::Found;

/// The devices of `nvidia-smi -L`, by the tool's own index, and whether any of them is partitioned.
///
/// `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-…)`
pub fn listed(output: &str) -> (Vec<Found>, bool) {
    let mut found: Vec<(u32, Found)> = output
        .lines()
        .filter_map(|line| {
            let (index, rest) = line.strip_prefix("GPU ")?.split_once(':')?;
            let (name, uuid) = match rest.rsplit_once("(UUID:") {
                Some((name, uuid)) => (name, uuid.trim().trim_end_matches(')')),
                None => (rest, ""),
            };
            let found = Found { name: name.trim().to_owned(), uuid: uuid.to_owned(), bus: String::new() };
            Some((index.trim().parse().ok()?, found))
        })
        .filter(|(_, found)| !found.name.is_empty())
        .collect();
    found.sort_by_key(|(index, _)| *index);
    let partitioned = output.lines().any(|line| line.trim_start().starts_with("MIG "));
    (found.into_iter().map(|(_, device)| device).collect(), partitioned)
}

/// `12.4` of `version.json` in a CUDA root.
pub fn toolkit_file(text: &str) -> Option<String> {
    let file: Value = serde_json::from_str(text).ok()?;
    major_minor(file.get("cuda")?.get("version")?.as_str()?)
}

/// `12.4` of `nvcc --version`: `Cuda compilation tools, release 12.4, V12.4.131`.
pub fn nvcc(output: &str) -> Option<String> {
    major_minor(output.split_once("release ")?.1)
}

/// `12.4` of the head of `nvidia-smi`: `| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |`.
pub fn smi(output: &str) -> Option<String> {
    major_minor(output.split_once("CUDA Version:")?.1)
}

fn major_minor(text: &str) -> Option<String> {
    let word = text.trim_start().split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = word.split('.');
    let (major, minor) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    Some(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_past_noise_and_partitions() {
        let output = "Warning: persistence mode is disabled\r\n\
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b1)\n\
  MIG 1g.5gb     Device  0: (UUID: MIG-0)\n\
GPU 0: NVIDIA RTX A6000 (Ada) (UUID: GPU-a0)\n\
GPU x: nonsense\n\
GPU 2: \n";
        let (found, partitioned) = listed(output);
        assert!(partitioned);
        assert_eq!(
            found,
            [
                Found { name: "NVIDIA RTX A6000 (Ada)".into(), uuid: "GPU-a0".into(), bus: String::new() },
                Found { name: "NVIDIA A100-SXM4-40GB".into(), uuid: "GPU-b1".into(), bus: String::new() },
            ]
        );
        assert_eq!(listed("No devices found.\n"), (Vec::new(), false));
        assert_eq!(listed("GPU 0: Tesla T4\n").0.first().unwrap().name, "Tesla T4");
    }

    #[test]
    fn versions_are_two_numbers_wherever_they_stand() {
        assert_eq!(toolkit_file(r#"{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}}"#).as_deref(), Some("12.4"));
        assert_eq!(toolkit_file("{}"), None);
        assert_eq!(toolkit_file("12.4"), None);
        let output = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 11.8, V11.8.89\n";
        assert_eq!(nvcc(output).as_deref(), Some("11.8"));
        assert_eq!(nvcc("command not found"), None);
        let output = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |\n";
        assert_eq!(smi(output).as_deref(), Some("12.4"));
        assert_eq!(smi("| NVIDIA-SMI 550   Driver Version: 550   CUDA Version: N/A |"), None);
        assert_eq!(smi("CUDA Version: 12"), None);
    }
}
