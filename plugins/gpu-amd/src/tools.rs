//! What ROCm's tools say, read with distrust: warnings before the answer, members that are missing, `N/A` for a value.

use maddock_sdk::serde_json::{Deserializer, Value};

use crate::topology::Found;

/// An agent of `rocminfo` that is a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    /// Such as `gfx942`.
    pub architecture: String,
    /// `GPU-…`, empty where unknown.
    pub uuid: String,
    /// The name on the market.
    pub product: String,
    /// The number of the node in the driver's topology.
    pub node: Option<u32>,
}

/// The first JSON value in a tool's output that can be an answer: an object or a list of objects.
///
/// Lines before it are passed over, also those that begin with a bracket, such as `[WARN] …`.
pub fn answer(output: &str) -> Option<Value> {
    output.match_indices(['[', '{']).find_map(|(at, _)| {
        let value: Value = Deserializer::from_str(output.get(at..)?).into_iter().next()?.ok()?;
        let good = match &value {
            Value::Object(_) => true,
            Value::Array(items) => items.iter().all(Value::is_object),
            _ => false,
        };
        good.then_some(value)
    })
}

/// The devices of `amd-smi list [-e] --json`, by the tool's own index.
pub fn amd_smi_list(output: &str) -> Vec<Found> {
    let mut found: Vec<(u64, Found)> = answer(output)
        .as_ref()
        .and_then(items)
        .into_iter()
        .flatten()
        .filter_map(|item| {
            let index = number(item.get("gpu")?)?;
            let text = |key: &str| item.get(key).and_then(known).unwrap_or_default();
            let uuid = match text("hip_uuid") {
                uuid if uuid.is_empty() => text("uuid"),
                uuid => uuid,
            };
            let small = |key: &str| item.get(key).and_then(number).and_then(|number| u32::try_from(number).ok());
            let render = item.get("render").and_then(|value| match value {
                Value::String(text) => text.trim().trim_start_matches("renderD").parse().ok(),
                other => number(other).and_then(|number| u32::try_from(number).ok()),
            });
            Some((index, Found { uuid, render, node: small("node_id"), bus: text("bdf"), ..Found::default() }))
        })
        .collect();
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, device)| device).collect()
}

/// The list of devices: the answer itself or, in later versions, the first member that is a list.
fn items(answer: &Value) -> Option<&Vec<Value>> {
    match answer {
        Value::Array(items) => Some(items),
        Value::Object(members) => members.values().find_map(Value::as_array),
        _ => None,
    }
}

/// The market name in `amd-smi static --json`, wherever this version puts it.
pub fn amd_smi_product(output: &str) -> Option<String> {
    fn seek(value: &Value) -> Option<String> {
        match value {
            Value::Object(members) => {
                let own = members.iter().find(|(key, _)| key.eq_ignore_ascii_case("market_name"));
                own.and_then(|(_, value)| known(value)).or_else(|| members.values().find_map(seek))
            }
            Value::Array(items) => items.iter().find_map(seek),
            _ => None,
        }
    }
    seek(&answer(output)?)
}

/// How many devices `rocm-smi --showid --csv` lists.
pub fn rocm_smi_count(output: &str) -> usize {
    output.lines().filter(|line| line.trim_start().starts_with("card") && line.contains(',')).count()
}

/// The market name of device 0 in `rocm-smi --showproductname`.
pub fn rocm_smi_product(output: &str) -> Option<String> {
    labelled(output, "card series").into_iter().next().map(|(_, value)| value)
}

/// The identifiers in `rocm-smi --showuniqueid`, as ROCm spells them elsewhere, by device.
pub fn rocm_smi_uuids(output: &str) -> Vec<(usize, String)> {
    let identifier = |value: &str| u64::from_str_radix(value.trim_start_matches("0x"), 16).ok();
    labelled(output, "unique id")
        .into_iter()
        .filter_map(|(device, value)| Some((device, format!("GPU-{:016x}", identifier(&value)?))))
        .collect()
}

/// Lines such as `GPU[0]  : Card Series:  AMD Instinct MI300X`.
fn labelled(output: &str, label: &str) -> Vec<(usize, String)> {
    output
        .lines()
        .filter_map(|line| {
            let (device, rest) = line.trim().strip_prefix("GPU[")?.split_once(']')?;
            let (found, value) = rest.trim_start().strip_prefix(':')?.split_once(':')?;
            let value = sound(value)?;
            found.trim().eq_ignore_ascii_case(label).then_some((device.parse().ok()?, value))
        })
        .collect()
}

/// The devices among the agents of `rocminfo`.
pub fn rocminfo(output: &str) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut open = false;
    for line in output.lines() {
        let trimmed = line.trim();
        if trimmed.strip_prefix("Agent ").is_some_and(|number| number.trim().parse::<u32>().is_ok()) {
            agents.push(Agent::default());
            open = true;
            continue;
        }
        // What follows are memory pools and instruction sets, which have names, too.
        if trimmed.starts_with("Pool Info") || trimmed.starts_with("ISA Info") {
            open = false;
        }
        let (true, Some(agent), Some((key, value))) = (open, agents.last_mut(), trimmed.split_once(':')) else {
            continue;
        };
        let value = sound(value).unwrap_or_default();
        match key.trim() {
            "Name" if value.starts_with("gfx") => {
                agent.architecture = value.split(':').next().unwrap_or_default().to_owned();
            }
            // `GPU-XX` is how it says that there is none.
            "Uuid" if value != "GPU-XX" => agent.uuid = value,
            "Marketing Name" => agent.product = value,
            "Node" => agent.node = value.parse().ok(),
            _ => {}
        }
    }
    agents.retain(|agent| !agent.architecture.is_empty());
    agents
}

/// The numbers of a version such as `6.4.1-83` or `7.0.51831-a187df25c`; none without at least two.
pub fn version(text: &str) -> Option<Vec<u32>> {
    let word = text.split_whitespace().next()?;
    let numbers: Vec<u32> = word.split('-').next()?.split('.').map_while(|part| part.parse().ok()).collect();
    (numbers.len() >= 2).then_some(numbers)
}

/// The version of ROCm in `amd-smi version`.
pub fn amd_smi_version(output: &str) -> Option<Vec<u32>> {
    let (_, rest) = output.split_once("ROCm version:")?;
    version(rest)
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn known(value: &Value) -> Option<String> {
    value.as_str().and_then(sound)
}

fn sound(text: &str) -> Option<String> {
    let text = text.trim();
    let absent = text.is_empty() || ["n/a", "none", "unknown"].contains(&text.to_ascii_lowercase().as_str());
    (!absent).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_around_an_answer_is_passed_over() {
        let noisy = "WARNING: AMD GPU device(s) is/are in a low-power state\n[WARN] {driver} is old\n[0] x\n\
                     [{\"gpu\": 0}]\ntrailing }";
        assert_eq!(answer(noisy).unwrap()[0]["gpu"], 0);
        assert_eq!(answer("[ERROR] no such device"), None);
        assert_eq!(answer("[{\"gpu\": 0"), None);
        assert_eq!(answer(""), None);
    }

    #[test]
    fn the_list_is_read_with_members_that_are_missing_or_not_available() {
        let output = r#"[
            {"gpu": "1", "bdf": "0000:15:00.0", "uuid": "ff740001", "render": "N/A", "node_id": "3"},
            {"gpu": 0, "bdf": "N/A", "uuid": "ff740000", "hip_uuid": "GPU-00a1", "render": "renderD128", "node_id": 2},
            {"bdf": "0000:25:00.0"}]"#;
        assert_eq!(
            amd_smi_list(output),
            [
                Found { uuid: "GPU-00a1".into(), render: Some(128), node: Some(2), ..Found::default() },
                Found { uuid: "ff740001".into(), node: Some(3), bus: "0000:15:00.0".into(), ..Found::default() },
            ]
        );
    }

    #[test]
    fn later_versions_wrap_the_list() {
        assert_eq!(amd_smi_list(r#"{"gpu_data": [{"gpu": 0, "render": 129}]}"#).first().unwrap().render, Some(129));
        assert!(amd_smi_list(r#"{"error": "no GPU"}"#).is_empty());
    }

    #[test]
    fn the_market_name_is_found_at_any_depth() {
        for output in [
            r#"[{"gpu":0,"asic":{"market_name":"AMD Instinct MI300X"}}]"#,
            r#"{"gpu_data":[{"gpu":0,"asic":{"vendor_id":"0x1002","MARKET_NAME":"AMD Instinct MI300X "}}]}"#,
        ] {
            assert_eq!(amd_smi_product(output).as_deref(), Some("AMD Instinct MI300X"));
        }
        assert_eq!(amd_smi_product(r#"[{"asic":{"market_name":"N/A"}}]"#), None);
    }

    #[test]
    fn rocm_smi_is_read_with_its_frames() {
        let csv = "WARNING: something\ndevice,Device ID,GUID\ncard0,0x74a1,0x70b3\ncard1,0x74a1,0x70b4\n\n";
        assert_eq!(rocm_smi_count(csv), 2);
        assert_eq!(rocm_smi_count("WARNING: No AMD GPUs specified\n"), 0);
        let products = "====== ROCm System Management Interface ======\nGPU[0]\t\t: Card Series: \t\tAMD Instinct MI210\n\
                        GPU[0]\t\t: Card Vendor: \t\tAdvanced Micro Devices\n=== End ===\n";
        assert_eq!(rocm_smi_product(products).as_deref(), Some("AMD Instinct MI210"));
        assert_eq!(rocm_smi_product("GPU[0]\t\t: Card Series: \t\tN/A\n"), None);
        assert_eq!(
            rocm_smi_uuids("GPU[0]\t\t: Unique ID: 0xa1\nGPU[1]\t\t: Unique ID: N/A\n"),
            [(0, "GPU-00000000000000a1".to_owned())]
        );
    }

    #[test]
    fn rocminfo_tells_devices_from_processors_pools_and_instruction_sets() {
        let output = "\
ROCk module version 6.12.12 is loaded
=====================
HSA Agents
=====================
*******
Agent 1
*******
  Name:                    AMD EPYC 9654 96-Core Processor
  Uuid:                    CPU-XX
  Device Type:             CPU
*******
Agent 2
*******
  Name:                    gfx942
  Uuid:                    GPU-00000000000000a1
  Marketing Name:          AMD Instinct MI300X
  Node:                    2
  Device Type:             GPU
  Pool Info:
    Pool 1
      Name:                    gfx999
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-
*******
Agent 3
*******
  Name:                    gfx90a:sramecc+:xnack-
  Uuid:                    GPU-XX
  Marketing Name:
  Device Type:             GPU
*** Done ***
";
        assert_eq!(
            rocminfo(output),
            [
                Agent {
                    architecture: "gfx942".into(),
                    uuid: "GPU-00000000000000a1".into(),
                    product: "AMD Instinct MI300X".into(),
                    node: Some(2),
                },
                Agent { architecture: "gfx90a".into(), ..Agent::default() },
            ]
        );
        assert!(rocminfo("ROCk module is NOT loaded, possibly no GPU devices\n").is_empty());
    }

    #[test]
    fn versions_are_read_up_to_what_is_no_number() {
        assert_eq!(version("6.4.1-83\n"), Some(vec![6, 4, 1]));
        assert_eq!(version("7.0.51831-a187df25c"), Some(vec![7, 0, 51831]));
        assert_eq!(version("6.4"), Some(vec![6, 4]));
        assert_eq!(version("6.x"), None);
        assert_eq!(version("unknown"), None);
        assert_eq!(version(""), None);
        assert_eq!(
            amd_smi_version("AMDSMI Tool: 25.4.2+aca | AMDSMI Library version: 25.4.0 | ROCm version: 6.4.1\n"),
            Some(vec![6, 4, 1])
        );
        assert_eq!(amd_smi_version("ROCm version: N/A"), None);
    }
}
