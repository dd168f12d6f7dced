//! A plugin's manifest: what it is and what it asks for, readable without running it.
//!
//! It is JSON in the custom section [`SECTION`] of the component, or of a module inside it (where a Rust plugin's linker
//! puts it). Requests are wishes: policy decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capability::events::printable;

/// The name of the custom section.
pub const SECTION: &str = "maddock:manifest";
/// The version of the manifest's format that this host reads.
pub const SCHEMA: u32 = 1;
/// The interface package, without its version.
pub const PACKAGE: &str = "maddock:plugin";
/// The interface version that this host offers.
pub const INTERFACE: (u64, u64, u64) = (0, 1, 0);

/// Who the kernel is where it asks at the gate itself. No plugin bears that name.
pub const KERNEL: &str = "kernel";

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Finds models.
    Discovery,
    /// Makes images.
    Builder,
    /// Runs jobs.
    Target,
    /// Arranges topologies.
    Launcher,
    /// Knows accelerators.
    Gpu,
    /// Writes reports.
    Reporter,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Discovery, Self::Builder, Self::Target, Self::Launcher, Self::Gpu, Self::Reporter];

    /// The word used in manifests and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Builder => "builder",
            Self::Target => "target",
            Self::Launcher => "launcher",
            Self::Gpu => "gpu",
            Self::Reporter => "reporter",
        }
    }
}

/// Host calls that a plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Such as `files.read`, or `files.*`.
    pub calls: Vec<String>,
    /// What they touch, in the words of the job.
    #[serde(default)]
    pub scope: BTreeMap<String, Vec<String>>,
    /// Why, for the person who decides.
    pub reason: String,
}

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `[a-z][a-z0-9-]*`.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// What it does.
    pub kind: Kind,
    /// `maddock:plugin@X.Y.Z`.
    pub interface: String,
    /// One line.
    #[serde(default)]
    pub description: String,
    /// Targets: context keys and aliases; launchers: names and aliases; gpu: the vendor; reporters: formats.
    #[serde(default)]
    pub provides: Vec<String>,
    /// What it asks for.
    #[serde(default)]
    pub requests: Vec<Request>,
}

impl Manifest {
    /// Parses and checks a manifest's text.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str::<Self>(text).map_err(|error| error.to_string())?.checked()
    }

    /// Checks what was read from elsewhere.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn checked(self) -> Result<Self, String> {
        let manifest = self;
        if manifest.schema != SCHEMA {
            return Err(format!("schema {} is not known here; this version reads schema {SCHEMA}", manifest.schema));
        }
        let well_named = manifest.name.starts_with(|c: char| c.is_ascii_lowercase())
            && manifest.name.len() <= 64
            && manifest.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !well_named {
            let name = manifest.name.escape_debug();
            return Err(format!("a name has the form [a-z][a-z0-9-]* and 64 characters at most, and not `{name}`"));
        }
        if manifest.name == KERNEL {
            return Err(format!("no plugin is called `{KERNEL}`: policy and trace know this program by that name"));
        }
        manifest.check_interface()?;
        manifest.check_texts()?;
        Ok(manifest)
    }

    /// Finds the manifest in a component's bytes. Nothing is compiled or run.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the component or its manifest.
    pub fn of_component(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(b"\0asm") {
            return Err("the file is not WebAssembly".to_owned());
        }
        let mut sections = Vec::new();
        for payload in wasmparser::Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| format!("broken WebAssembly: {error}"))? {
                wasmparser::Payload::Version { encoding: wasmparser::Encoding::Module, range, .. }
                    if range.start == 0 =>
                {
                    return Err("it is a core module, not a component; build it for wasm32-wasip2".to_owned());
                }
                wasmparser::Payload::CustomSection(section) if section.name() == SECTION => {
                    sections.push(section.data())
                }
                _ => {}
            }
        }
        let data = match sections.as_slice() {
            [data] => *data,
            [] => return Err(format!("it has no section `{SECTION}`")),
            _ => return Err(format!("it has more than one section `{SECTION}`")),
        };
        let text = std::str::from_utf8(data).map_err(|error| format!("the manifest is not UTF-8: {error}"))?;
        Self::parse(text)
    }

    fn check_interface(&self) -> Result<(), String> {
        let (major, minor, patch) = INTERFACE;
        let offered = format!("this host offers {PACKAGE}@{major}.{minor}.{patch}");
        let Some((PACKAGE, version)) = self.interface.split_once('@') else {
            return Err(format!(
                "the interface `{}` is not of the form {PACKAGE}@X.Y.Z; {offered}",
                self.interface.escape_debug()
            ));
        };
        let numbers: Option<Vec<u64>> = version.split('.').map(number).collect();
        // Below 1.0 the minor version is the one that breaks.
        match numbers.as_deref() {
            Some([a, b, c]) if (*a, *b) == (major, minor) && *c <= patch => Ok(()),
            Some([_, _, _]) => Err(format!("it was made for {}, and {offered}", self.interface)),
            _ => Err(format!("the interface version `{}` is not of the form X.Y.Z; {offered}", version.escape_debug())),
        }
    }

    /// People and terminals read these, as they are or as JSON.
    fn check_texts(&self) -> Result<(), String> {
        let requests = self.requests.iter().flat_map(|request| {
            let scope = request.scope.iter().flat_map(|(name, values)| std::iter::once(name).chain(values));
            request.calls.iter().chain(scope).chain([&request.reason]).map(|text| ("requests", text))
        });
        [("version", &self.version), ("description", &self.description)]
            .into_iter()
            .chain(self.provides.iter().map(|text| ("provides", text)))
            .chain(requests)
            .find(|(_, text)| text.contains('\t') || printable(text) != **text)
            .map_or(Ok(()), |(member, _)| {
                Err(format!("`{member}` has control characters in it; it must be plain text"))
            })
    }
}

/// A number as semantic versions write it: digits, and no zero in front.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(interface: &str) -> String {
        format!(r#"{{"schema":1,"name":"a","version":"0.1.0","kind":"target","interface":"{interface}"}}"#)
    }

    #[test]
    fn a_plugin_for_this_interface_is_accepted() {
        assert_eq!(Manifest::parse(&text("maddock:plugin@0.1.0")).unwrap().kind, Kind::Target);
    }

    #[test]
    fn a_plugin_for_a_later_interface_is_refused_with_a_sentence() {
        for later in ["0.1.1", "0.2.0", "1.0.0"] {
            let error = Manifest::parse(&text(&format!("maddock:plugin@{later}"))).unwrap_err();
            assert!(error.contains("this host offers maddock:plugin@0.1.0"), "{error}");
        }
        assert!(Manifest::parse(&text("other:thing@0.1.0")).is_err());
    }

    #[test]
    fn a_core_module_is_told_from_a_component() {
        let error = Manifest::of_component(b"\0asm\x01\0\0\0").unwrap_err();
        assert!(error.contains("core module"), "{error}");
        assert!(Manifest::of_component(b"hello").is_err());
    }
}
