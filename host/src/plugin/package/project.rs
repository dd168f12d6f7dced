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
    let filled =
        |text: &str| text.replace("NAME", name).replace("KIND", kind.word()).replace("FILE", &name.replace('-', "_"));
    let mut add = |path: &str, text: String| files.push((path.to_owned(), text));
    match (language, kind) {
        (Language::Rust, _) => {
            // A target keeps what it needs in a handle of its own making.
            let serde = kind == Kind::Target;
            add("src/lib.rs", filled(rust(kind)));
            let more = if serde { "serde = { version = \"1\", features = [\"derive\"] }\n" } else { "" };
            add("Cargo.toml", filled(template!("new_cargo.toml")).replace("DEPENDENCIES\n", more));
            add("Cargo.lock", lock_file(name, serde)?);
            let more = if kind == Kind::Builder { template!("readme_builder.md") } else { "" };
            add("README.md", filled(&format!("{}{more}", template!("readme_rust.md"))));
            add(".gitignore", "/target/\n".to_owned());
        }
        (Language::Python, Kind::Reporter) => {
            add("app.py", template!("reporter.py").to_owned());
            add("table.py", template!("table.py").to_owned());
            add("test_table.py", template!("test_table.py").to_owned());
            add("README.md", filled(template!("readme_python.md")));
            add(".gitignore", "/venv/\n/*.wasm\n/*.sig\n__pycache__/\n".to_owned());
        }
        (Language::Python, kind) => {
            return Err(PackageError::new(format!("there is no template of a {} in Python", kind.word()))
                .hint("`--lang rust` has one of every kind; in Python there is `reporter`, and what the others export is in its `wit/`"));
        }
    }
    let directory = place.join(name);
    if directory.exists() {
        return Err(PackageError::new(format!("`{}` is there already", directory.display())));
    }
    files.extend(vendored(language));
    write(&directory, &files)?;
    Ok(directory)
}

/// Puts the interface, and beside a `Cargo.toml` the source of the SDK, into a project: what lies there of an earlier maddock
/// is replaced. Answers how many files these are, and in which language the project is.
///
/// # Errors
/// There is no project, or what would be replaced is somebody's own.
pub fn vendor(project: &Path) -> Result<(usize, Language)> {
    if !project.join("plugin.json").is_file() {
        return Err(PackageError::new(format!(
            "`{}` is no plugin's project: it has no `plugin.json`",
            project.display()
        ))
        .hint("`maddock plugin new KIND NAME` makes one"));
    }
    let language = if project.join("Cargo.toml").is_file() { Language::Rust } else { Language::Python };
    let own = project.join(SDK_CARGO);
    let files = vendored(language);
    if language == Language::Rust
        && let Ok(text) = std::fs::read_to_string(&own)
        && text.lines().next() != template!("sdk_cargo.toml").lines().next()
    {
        return Err(PackageError::new(format!("`{}` was not written by maddock, and is left alone", own.display()))
            .hint("move it away, and name the SDK as `maddock-sdk = { path = \"vendor/maddock-sdk\" }`"));
    }
    write(project, &files)?;
    Ok((files.len(), language))
}

/// The manifest of the SDK's source in a project.
const SDK_CARGO: &str = "vendor/maddock-sdk/Cargo.toml";

/// What a project has of this maddock.
fn vendored(language: Language) -> Vec<(String, String)> {
    let shipped = SHIPPED.iter().filter(|(path, _)| language == Language::Rust || path.starts_with("wit/"));
    let mut files: Vec<(String, String)> =
        shipped.map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    if language == Language::Rust {
        files.push((SDK_CARGO.to_owned(), template!("sdk_cargo.toml").replace("VERSION", env!("CARGO_PKG_VERSION"))));
    }
    files
}

fn write(directory: &Path, files: &[(String, String)]) -> Result<()> {
    for (path, text) in files {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| PackageError::of_file("make", parent, &error))?;
        }
        // What is as it should be keeps its time: nobody has to build it anew.
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        std::fs::write(&path, text).map_err(|error| PackageError::of_file("write", &path, &error))?;
    }
    Ok(())
}

/// The source of a kind.
fn rust(kind: Kind) -> &'static str {
    match kind {
        Kind::Discovery => template!("discovery.rs"),
        Kind::Builder => template!("builder.rs"),
        Kind::Target => template!("target.rs"),
        Kind::Launcher => template!("launcher.rs"),
        Kind::Gpu => template!("gpu.rs"),
        Kind::Reporter => template!("reporter.rs"),
    }
}

/// The lock file of a new project: the same crates, in the same versions, as the built-in plugins have.
fn lock_file(name: &str, serde: bool) -> Result<String> {
    let broken = |what: &str| PackageError::new(format!("the lock file of the built-in plugins has no {what}"));
    let lock: toml::Table = include_str!("../../../../plugins/Cargo.lock").parse().map_err(|_| broken("sense"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or_else(|| broken("packages"))?;
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    // A dependency is written as a name, with a version where there are several of it.
    let named = |package: &toml::Value, wanted: &str| {
        let (name, version) = wanted.split_once(' ').map_or((wanted, None), |(name, rest)| (name, Some(rest)));
        text(package, "name").as_deref() == Some(name)
            && version.is_none_or(|v| text(package, "version").as_deref() == Some(v))
    };
    let mut kept: Vec<&toml::Value> = Vec::new();
    let mut left = vec![SDK.to_owned()];
    while let Some(wanted) = left.pop() {
        let found = packages.iter().find(|package| named(package, &wanted)).ok_or_else(|| broken(&wanted))?;
        if !kept.contains(&found) {
            kept.push(found);
            let needs = found.get("dependencies").and_then(toml::Value::as_array);
            left.extend(needs.into_iter().flatten().filter_map(toml::Value::as_str).map(str::to_owned));
        }
    }
    let needs: Vec<&str> = [SDK].into_iter().chain(serde.then_some("serde")).collect();
    let mut own = toml::Table::new();
    own.insert("name".to_owned(), name.into());
    own.insert("version".to_owned(), "0.1.0".into());
    own.insert("dependencies".to_owned(), needs.into());
    let own = toml::Value::Table(own);
    kept.push(&own);
    kept.sort_by_key(|package| text(package, "name"));
    let version = lock.get("version").ok_or_else(|| broken("version"))?;
    let mut written = format!("# This file is automatically @generated by Cargo.\nversion = {version}\n");
    for package in kept {
        written.push_str("\n[[package]]\n");
        // In cargo's own order.
        for key in ["name", "version", "source", "checksum", "dependencies"] {
            if let Some(value) = package.get(key) {
                written.push_str(&format!("{key} = {value}\n"));
            }
        }
    }
    Ok(written)
}

/// The crate that plugins depend on.
const SDK: &str = "maddock-sdk";

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
        Kind::Target => (
            "runs jobs as programs on this machine",
            name,
            serde_json::json!([
                {
                    "calls": ["files.read", "files.write", "files.stat", "files.list-directory", "files.copy"],
                    "scope": {"path": ["$run/**"]},
                    "reason": "writes the job's entry script, reads its outcome, and brings back what it left",
                },
                {
                    "calls": ["process.launch"],
                    "scope": {"program": ["bash"], "arguments": ["$run/**"]},
                    "reason": "runs the entry script",
                },
                {
                    "calls": ["process.attach", "process.stop"],
                    "scope": {"output": ["$run/**"]},
                    "reason": "follows the entry script, and ends it",
                },
            ]),
        ),
        Kind::Gpu => (
            "knows the accelerators below /dev/accel",
            name,
            serde_json::json!([{
                "calls": ["files.list-directory"],
                "scope": {"path": ["/dev/accel"]},
                "reason": "the driver's device nodes are counted",
            }]),
        ),
        Kind::Builder => ("uses the images that models name", name, serde_json::json!([])),
        Kind::Launcher => ("starts as many ranks as there are nodes", name, serde_json::json!([])),
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
    if Manifest::of_component(&bytes).is_ok() {
        return Err(PackageError::new(format!("`{}` has its manifest already", component.display()))
            .hint("build the component anew to change it"));
    }
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
    fn what_templates_and_examples_ask_for_can_be_granted() {
        let examples = [
            include_str!("../../../../examples/plugins/target-queue/plugin.json"),
            include_str!("../../../../examples/plugins/report-markdown/plugin.json"),
        ];
        let templates = Kind::ALL.map(|kind| manifest(kind, "a"));
        for text in templates.iter().map(String::as_str).chain(examples) {
            let manifest = Manifest::parse(text).unwrap();
            assert_eq!(super::super::grants::check(&manifest), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_builders_project_says_in_whose_place_it_is_put() {
        let place = tempfile::tempdir().unwrap();
        let project = make(place.path(), Kind::Builder, "mine", Language::Rust).unwrap();
        let text = std::fs::read_to_string(project.join("README.md")).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("maddock plugin lock mine --override "));
        let (built_in, name) = line.unwrap().split_once('=').unwrap();
        assert_eq!(crate::plugin::catalog::Catalog::built_in_kind(built_in), Some(Kind::Builder));
        assert_eq!(name, "mine");
        let other = make(place.path(), Kind::Launcher, "other", Language::Rust).unwrap();
        assert!(!std::fs::read_to_string(other.join("README.md")).unwrap().contains("--override"));
    }

    #[test]
    fn what_a_project_has_of_maddock_is_replaced_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        assert!(vendor(place.path()).unwrap_err().message.contains("no `plugin.json`"));
        let project = make(place.path(), Kind::Launcher, "hello", Language::Rust).unwrap();
        let (ours, own) = (project.join("wit/types.wit"), project.join("src/lib.rs"));
        for file in [&ours, &own] {
            std::fs::write(file, "mine").unwrap();
        }
        vendor(&project).unwrap();
        assert_ne!(std::fs::read_to_string(&ours).unwrap(), "mine");
        assert_eq!(std::fs::read_to_string(&own).unwrap(), "mine");
        std::fs::write(project.join(SDK_CARGO), "[package]").unwrap();
        assert!(vendor(&project).unwrap_err().message.contains("left alone"));
    }

    #[test]
    fn a_python_project_gets_the_interface_alone() {
        let place = tempfile::tempdir().unwrap();
        let project = make(place.path(), Kind::Reporter, "table", Language::Python).unwrap();
        vendor(&project).unwrap();
        assert!(project.join("wit/reporter.wit").is_file() && !project.join("vendor").exists());
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
        assert!(pack(&component, &json, &component).unwrap_err().message.contains("already"));
    }
}
