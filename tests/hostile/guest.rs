//! The attacker: a component that does what it is told, built once from `tests/fixtures/hostile`. The manifest that is appended
//! decides under which name, and as which kind, a host meets it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::component::{manifest, with_manifest};

const TARGET: &str = "wasm32-wasip2";

/// Variables of the cargo that runs the tests, which mean nothing to the one that builds the attacker.
const FOREIGN: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
];

fn built() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/hostile/Cargo.toml");
        // Beside what `host/build.rs` builds, which shares most of it.
        let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../plugins-build");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"]).arg(fixture);
        cargo.arg("--target-dir").arg(&target);
        FOREIGN.iter().for_each(|name| {
            cargo.env_remove(name);
        });
        let answer = cargo.output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        std::fs::read(target.join(TARGET).join("release/hostile_guest.wasm")).unwrap()
    })
}

/// The attacker as a plugin of that name and kind.
pub fn as_kind(name: &str, kind: &str) -> Vec<u8> {
    with_manifest(built().to_vec(), &manifest(name, kind))
}

/// The attacker with a manifest of a test's own.
pub fn with(manifest: &serde_json::Value) -> Vec<u8> {
    with_manifest(built().to_vec(), manifest)
}
