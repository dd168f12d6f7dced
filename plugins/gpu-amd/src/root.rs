//! Where ROCm lies on this host. The path is never carried into a container.

use maddock_sdk::machine::Machine;

/// The place where ROCm is looked for when nothing says otherwise.
pub const USUAL: &str = "/opt/rocm";
/// How far up from `ROCM_PATH` and its like a root is looked for.
const PARENTS: usize = 4;
const SDK_SECONDS: u64 = 8;

/// A ROCm root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Absolute.
    pub path: String,
    /// Whether it has the marks of one.
    pub valid: bool,
}

/// Finds the root: what the configuration names, then what looks like one, then `ROCM_PATH`, then the usual place.
pub fn resolve(machine: &impl Machine, named: Option<&str>) -> Root {
    if let Some(path) = named {
        return Root { path: path.to_owned(), valid: is_root(machine, path) };
    }
    if machine.variable("MAD_AUTO_ROCM_PATH").as_deref() != Some("0")
        && let Some(path) = found(machine)
    {
        return Root { path, valid: true };
    }
    let path = machine.variable("ROCM_PATH").unwrap_or_else(|| USUAL.to_owned());
    Root { valid: is_root(machine, &path), path }
}

fn found(machine: &impl Machine) -> Option<String> {
    let good = |path: &String| is_root(machine, path);
    let usual = USUAL.to_owned();
    if good(&usual) {
        return Some(usual);
    }
    if let Some(path) = versioned(machine).into_iter().find(good) {
        return Some(path);
    }
    if let Some(sdk) = machine.program("rocm-sdk")
        && let Ok(output) = machine.run(&[&sdk, "path", "--root"], SDK_SECONDS)
        && let Some(path) = output.lines().map(str::trim).rfind(|line| line.starts_with('/')).map(str::to_owned)
        && good(&path)
    {
        return Some(path);
    }
    for name in ["ROCM_PATH", "ROCM_HOME", "HIP_PATH"] {
        if let Some(path) = machine.variable(name)
            && let Some(path) = ancestors(&path).into_iter().find(good)
        {
            return Some(path);
        }
    }
    let home = machine.variable("HOME");
    let homes = home.iter().flat_map(|home| [format!("{home}/rocm"), format!("{home}/therock")]);
    if let Some(path) = std::iter::once("/usr/local/rocm".to_owned()).chain(homes).find(good) {
        return Some(path);
    }
    ["rocminfo", "amd-smi", "rocm-smi"]
        .iter()
        .filter_map(|name| machine.program(name)?.strip_suffix(&format!("/bin/{name}")).map(str::to_owned))
        .find(good)
}

/// `/opt/rocm-*`, the highest version first.
fn versioned(machine: &impl Machine) -> Vec<String> {
    let mut named: Vec<(Vec<u32>, String)> = machine
        .names("/opt")
        .into_iter()
        .filter_map(|name| {
            let version = name.strip_prefix("rocm-")?;
            Some((version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect(), name))
        })
        .collect();
    named.sort();
    named.into_iter().rev().map(|(_, name)| format!("/opt/{name}")).collect()
}

fn ancestors(path: &str) -> Vec<String> {
    let all = std::path::Path::new(path).ancestors().take(PARENTS + 1);
    all.map(|path| path.display().to_string()).filter(|path| path.starts_with('/') && path != "/").collect()
}

fn is_root(machine: &impl Machine, path: &str) -> bool {
    let has = |file: &str| machine.exists(&format!("{path}/{file}")).unwrap_or(false);
    has(".info/version")
        || has("bin/rocminfo")
        || (has("bin/amd-smi") && has("bin/rocm-smi"))
        || has("share/therock/therock_manifest.json")
        || has("share/therock/dist_info.json")
}

#[cfg(test)]
mod tests {
    use maddock_sdk::fixture::Fixture;

    use super::*;

    fn path(machine: &Fixture) -> String {
        resolve(machine, None).path
    }

    #[test]
    fn the_configuration_comes_first_even_where_nothing_is() {
        let machine = Fixture::default().file("/opt/rocm/.info/version", "6.4.1");
        assert_eq!(resolve(&machine, Some("/somewhere")), Root { path: "/somewhere".into(), valid: false });
    }

    #[test]
    fn the_usual_place_comes_before_versions_and_the_highest_version_before_lower_ones() {
        let versions = Fixture::default()
            .file("/opt/rocm-6.9.0/bin/rocminfo", "")
            .file("/opt/rocm-6.10.1/bin/rocminfo", "")
            .file("/opt/rocm-7.0.0/README", "");
        assert_eq!(path(&versions), "/opt/rocm-6.10.1");
        assert_eq!(path(&versions.file("/opt/rocm/bin/rocminfo", "")), "/opt/rocm");
    }

    #[test]
    fn the_sdk_is_asked_where_it_is_installed() {
        let machine = Fixture::default()
            .program("rocm-sdk", "/venv/bin/rocm-sdk")
            .output("/venv/bin/rocm-sdk path --root", "warning: something\n/venv/rocm\n")
            .file("/venv/rocm/share/therock/dist_info.json", "{}");
        assert_eq!(path(&machine), "/venv/rocm");
    }

    #[test]
    fn variables_lead_to_a_root_above_them() {
        let machine = Fixture::default()
            .variable("HIP_PATH", "/apps/rocm/6.4/lib/hip")
            .file("/apps/rocm/6.4/.info/version", "6.4.0");
        assert_eq!(path(&machine), "/apps/rocm/6.4");
    }

    #[test]
    fn a_tool_on_the_search_path_lies_in_a_root() {
        let machine = Fixture::default().program("rocminfo", "/r/bin/rocminfo").file("/r/bin/rocminfo", "");
        assert_eq!(path(&machine), "/r");
    }

    #[test]
    fn looking_around_can_be_switched_off() {
        let machine = Fixture::default()
            .file("/opt/rocm-7.0.0/bin/rocminfo", "")
            .variable("MAD_AUTO_ROCM_PATH", "0")
            .variable("ROCM_PATH", "/mine");
        assert_eq!(resolve(&machine, None), Root { path: "/mine".into(), valid: false });
    }

    #[test]
    fn without_any_sign_the_usual_place_is_named() {
        assert_eq!(resolve(&Fixture::default(), None), Root { path: USUAL.into(), valid: false });
    }
}
