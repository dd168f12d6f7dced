//! New plugin projects. A project stands alone: the interface and the SDK's source are in it, from this binary, so that a
//! machine with cargo and nothing else of maddock builds it.

use std::path::{Path, PathBuf};

use super::{PackageError, Result, read_at_most, replace};
use crate::plugin::manifest::{INTERFACE, Kind, Manifest, PACKAGE, SCHEMA, SECTION};

/// Interface and SDK: path in the project, and text.
static SHIPPED: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../../plugins/sdk/templates/", $name))
    };
}

/// In which language a project is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Built by cargo.
    Rust,
    /// Built by componentize-py.
    Python,
}

/// Writes a project into a directory of its name below `place`; answers that directory.
///
/// # Errors
/// A name that no plugin can have, a kind that has no template in this language, or a directory that is there already.
pub fn make(place: &Path, kind: Kind, name: &str, language: Language) -> Result<PathBuf> {
    let manifest = manifest(kind, name);
    Manifest::parse(&manifest).map_err(PackageError::new)?;
    let mut files: Vec<(String, String)> = vec![("plugin.json".to_owned(), manifest)];
    let interface = |path: &str| path.starts_with("wit/");
    let filled =
        |text: &str| text.replace("NAME", name).replace("KIND", kind.word()).replace("FILE", &name.replace('-', "_"));
    let mut add = |path: &str, text: String| files.push((path.to_owned(), text));
    match (language, kind) {
        (Language::Rust, Kind::Launcher | Kind::Reporter | Kind::Discovery) => {
            let source = match kind {
                Kind::Launcher => template!("launcher.rs"),
                Kind::Reporter => template!("reporter.rs"),
                _ => template!("discovery.rs"),
            };
            add("src/lib.rs", filled(source));
            add("Cargo.toml", filled(template!("new_cargo.toml")));
            add("README.md", filled(template!("readme_rust.md")));
            add(".gitignore", "/target/\n".to_owned());
            let sdk = template!("sdk_cargo.toml").replace("VERSION", env!("CARGO_PKG_VERSION"));
            add("vendor/maddock-sdk/Cargo.toml", sdk);
            SHIPPED.iter().for_each(|(path, text)| add(path, (*text).to_owned()));
        }
        (Language::Python, Kind::Reporter) => {
            add("app.py", template!("reporter.py").to_owned());
            add("table.py", template!("table.py").to_owned());
            add("test_table.py", template!("test_table.py").to_owned());
            add("README.md", filled(template!("readme_python.md")));
            add(".gitignore", "/venv/\n/*.wasm\n__pycache__/\n".to_owned());
            SHIPPED.iter().filter(|(path, _)| interface(path)).for_each(|(path, text)| add(path, (*text).to_owned()));
        }
        (language, kind) => {
            return Err(PackageError::new(format!("there is no template of a {} in {language:?}", kind.word()))
                .hint("Rust has launcher, reporter and discovery; Python has reporter; docs/plugins.md says what others export"));
        }
    }
    let directory = place.join(name);
    if directory.exists() {
        return Err(PackageError::new(format!("`{}` is there already", directory.display())));
    }
    for (path, text) in files {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| PackageError::of_file("make", parent, &error))?;
        }
        std::fs::write(&path, text).map_err(|error| PackageError::of_file("write", &path, &error))?;
    }
    Ok(directory)
}

fn manifest(kind: Kind, name: &str) -> String {
    let (major, minor, patch) = INTERFACE;
    let (description, provides, requests) = match kind {
        Kind::Reporter => (
            "writes the rows of a run as a Markdown table",
            "run",
            serde_json::json!([{
                "calls": ["files.write"],
                "scope": {"path": ["$output/**", "$results/**"]},
                "reason": "writes the table beside the results file",
            }]),
        ),
        Kind::Discovery => (
            "finds models that have a file each",
            name,
            serde_json::json!([{
                "calls": ["files.list-directory", "files.read"],
                "scope": {"path": ["$tree", "$tree/**"]},
                "reason": "reads the models of the tree",
            }]),
        ),
        _ => ("starts as many ranks as there are nodes", name, serde_json::json!([])),
    };
    let manifest = serde_json::json!({
        "schema": SCHEMA,
        "name": name,
        "version": "0.1.0",
        "kind": kind,
        "interface": format!("{PACKAGE}@{major}.{minor}.{patch}"),
        "description": description,
        "provides": [provides],
        "requests": requests,
    });
    format!("{manifest:#}\n")
}

/// Puts a manifest into a component that has none, for languages whose tools cannot.
///
/// # Errors
/// The manifest is wrong, or the component has one already or is none.
pub fn pack(component: &Path, manifest: &Path, output: &Path) -> Result<Manifest> {
    let mut bytes = read_at_most(component, super::LARGEST_COMPONENT)?;
    let text = read_at_most(manifest, 1 << 20)?;
    let named = |message: String| PackageError::new(format!("`{}`: {message}", manifest.display()));
    let plain = std::str::from_utf8(&text).map_err(|error| named(error.to_string()))?;
    Manifest::parse(plain).map_err(named)?;
    // A custom section: its id, its size, the length of its name, the name, the content.
    let size = SECTION.len() + 1 + text.len();
    bytes.push(0);
    leb(&mut bytes, size);
    leb(&mut bytes, SECTION.len());
    bytes.extend_from_slice(SECTION.as_bytes());
    bytes.extend_from_slice(&text);
    let packed = Manifest::of_component(&bytes)
        .map_err(|message| PackageError::new(format!("`{}`: {message}", component.display())))?;
    replace(output, &bytes, 0o644)?;
    Ok(packed)
}

/// A number as WebAssembly writes it: seven bits a byte.
fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_all_that_it_needs() {
        let place = tempfile::tempdir().unwrap();
        let project = make(place.path(), Kind::Launcher, "hello", Language::Rust).unwrap();
        for file in ["Cargo.toml", "src/lib.rs", "wit/launcher.wit", "vendor/maddock-sdk/src/lib.rs", "README.md"] {
            assert!(project.join(file).is_file(), "{file}");
        }
        assert!(make(place.path(), Kind::Launcher, "hello", Language::Rust).is_err());
        assert!(make(place.path(), Kind::Launcher, "../x", Language::Rust).is_err());
        assert!(make(place.path(), Kind::Gpu, "g", Language::Python).is_err());
    }

    #[test]
    fn the_shipped_sdk_needs_what_the_built_in_plugins_need() {
        let workspace: toml::Table = toml::from_str(include_str!("../../../../plugins/Cargo.toml")).unwrap();
        let shipped: toml::Table = toml::from_str(template!("sdk_cargo.toml")).unwrap();
        for (name, wanted) in shipped["dependencies"].as_table().unwrap() {
            assert_eq!(&workspace["workspace"]["dependencies"][name], wanted, "{name}");
        }
    }

    #[test]
    fn a_packed_component_has_its_manifest_and_only_one() {
        let place = tempfile::tempdir().unwrap();
        let (component, json) = (place.path().join("x.wasm"), place.path().join("plugin.json"));
        std::fs::write(&component, b"\0asm\x0d\0\x01\0").unwrap();
        std::fs::write(&json, manifest(Kind::Reporter, "long-name")).unwrap();
        assert_eq!(pack(&component, &json, &component).unwrap().name, "long-name");
        assert!(pack(&component, &json, &component).unwrap_err().message.contains("more than one"));
    }
}
