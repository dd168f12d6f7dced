//! Builds the plugins and embeds them, so that an ordinary `cargo build` is all it takes.
//!
//! The plugins are a cargo workspace of their own for `wasm32-wasip2`. They are built by a nested cargo with its own
//! target directory: sharing the outer one would wait for a lock that the outer build holds. A directory of components
//! built elsewhere replaces the step: `MADDOCK_PLUGIN_DIR=DIR cargo build`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

const TARGET: &str = "wasm32-wasip2";

type Failure = Box<dyn std::error::Error>;

fn main() {
    if let Err(failure) = embed().and_then(|()| presets()) {
        for line in failure.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn embed() -> Result<(), Failure> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let plugins = root.join("plugins");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let names = plugin_names(&plugins)?;

    println!("cargo::rerun-if-env-changed=MADDOCK_PLUGIN_DIR");
    // A new plugin changes the lock file of its workspace, so the directory itself need not be watched.
    for watched in ["Cargo.toml", "Cargo.lock", "sdk"].map(|name| plugins.join(name)).iter().chain([&root.join("wit")])
    {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    for name in &names {
        for part in ["src", "Cargo.toml", "plugin.json"] {
            println!("cargo::rerun-if-changed={}", plugins.join(name).join(part).display());
        }
    }

    let components = match env::var_os("MADDOCK_PLUGIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build(&plugins, &names, &target_directory(&out))?,
    };

    let mut list = String::from("[\n");
    for name in &names {
        let file = components.join(format!("{}.wasm", name.replace('-', "_")));
        println!("cargo::rerun-if-changed={}", file.display());
        let bytes =
            fs::read(&file).map_err(|error| format!("cannot read the component {}: {error}", file.display()))?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // A copy of this build's own: the nested target directory may be rebuilt by another profile meanwhile.
        let kept = out.join(format!("{name}.wasm"));
        fs::write(&kept, &bytes)?;
        let manifest = plugins.join(name).join("plugin.json");
        list.push_str(&format!(
            "    Embedded {{ name: {name:?}, digest: \"sha256:{digest}\", manifest: include_str!({manifest:?}), component: include_bytes!({kept:?}) }},\n",
        ));
    }
    list.push(']');
    fs::write(out.join("embedded.rs"), list)?;
    fs::write(out.join("shipped.rs"), shipped(&root)?)?;
    Ok(())
}

/// What a new plugin project gets from this binary: the interface and the source of the SDK, by their paths in it.
fn shipped(root: &Path) -> Result<String, Failure> {
    let mut list = String::from("[\n");
    for (from, to, extension) in [("wit", "wit", "wit"), ("plugins/sdk/src", "vendor/maddock-sdk/src", "rs")] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(root.join(from))?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        for file in files {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            list.push_str(&format!("    ({:?}, include_str!({file:?})),\n", format!("{to}/{name}")));
        }
    }
    list.push(']');
    Ok(list)
}

/// Lists the presets of targets and sites: a new file needs no line in any source.
fn presets() -> Result<(), Failure> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../presets").canonicalize()?;
    let mut files = Vec::new();
    let mut left = vec![root.join("targets"), root.join("sites")];
    while let Some(directory) = left.pop() {
        println!("cargo::rerun-if-changed={}", directory.display());
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut list = String::from("[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&root)?.display().to_string();
        list.push_str(&format!("    ({name:?}, include_str!({file:?})),\n"));
    }
    list.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("presets.rs"), list)?;
    Ok(())
}

/// Every directory with a manifest is a plugin.
fn plugin_names(plugins: &Path) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = fs::read_dir(plugins)?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("plugin.json").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// A fixed place under the outer target directory, whatever the profile and features, so that nothing is built twice.
fn target_directory(out: &Path) -> PathBuf {
    let outer = out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).unwrap_or(out);
    outer.join("plugins-build")
}

fn build(plugins: &Path, names: &[String], target: &Path) -> Result<PathBuf, Failure> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let answer = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let library = PathBuf::from(String::from_utf8(answer.stdout)?.trim());
    if !library.is_dir() {
        return Err(format!(
            "the plugins are built for {TARGET}, and this toolchain lacks it\nrun: rustup target add {TARGET}"
        )
        .into());
    }

    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(plugins.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(target);
    for name in names {
        cargo.args(["-p", name]);
    }
    // What the outer cargo says to its compilers is not meant for the inner one.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let foreign = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_"].iter().any(|prefix| name.starts_with(prefix));
        let named = [
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
        ];
        if foreign || named.contains(&name.as_ref()) {
            cargo.env_remove(name.as_ref());
        }
    }
    let answer = cargo.output()?;
    if !answer.status.success() {
        return Err(format!("building the plugins failed\n{}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    Ok(target.join(TARGET).join("release"))
}
