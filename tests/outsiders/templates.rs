//! What `plugin new` writes builds, passes its own tests, and conforms.

use std::fs;

use crate::playground::Playground;
use crate::workshop::{build, component, ground};

/// A project of each kind, at a place of its own that stays, so that its build does.
fn in_rust(kind: &str) {
    let playground = Playground::new();
    let (place, name) = (ground().join("templates"), format!("new-{kind}"));
    fs::create_dir_all(&place).unwrap();
    // Its author has rustfmt's own habits, and not those of the repository around.
    fs::write(place.join("rustfmt.toml"), "").unwrap();
    let project = place.join(&name);
    let _ = fs::remove_dir_all(&project);
    playground.call(&["plugin", "new", kind, &name, "--directory", place.to_str().unwrap()]).exits(0);
    // The lock file is complete: nothing is looked for in a registry.
    build(&project, &["test", "--locked"]);
    build(&project, &["build", "--locked", "--release", "--target", "wasm32-wasip2"]);
    let file = component(&name);
    let file = file.to_str().unwrap();
    playground.call(&["plugin", "test", file]).exits(0).prints(&["0 failed"]);
    let inspected = playground.call(&["plugin", "inspect", file]).exits(0);
    assert!(inspected.stdout.starts_with(&format!("{name} 0.1.0 ({kind})\n")), "{}", inspected.stdout);
    let formatted = std::process::Command::new("cargo")
        .args(["fmt", "--check"])
        .current_dir(&project)
        .env("CARGO_TARGET_DIR", ground())
        .output()
        .unwrap();
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stdout));
}

#[test]
fn a_new_discovery_conforms() {
    in_rust("discovery");
}

#[test]
fn a_new_builder_conforms() {
    in_rust("builder");
}

#[test]
fn a_new_target_conforms() {
    in_rust("target");
}

#[test]
fn a_new_launcher_conforms() {
    in_rust("launcher");
}

#[test]
fn a_new_gpu_plugin_conforms() {
    in_rust("gpu");
}

#[test]
fn a_new_reporter_conforms() {
    in_rust("reporter");
}

#[test]
fn what_python_has_no_template_of_is_said() {
    let playground = Playground::new();
    for kind in ["discovery", "builder", "target", "launcher", "gpu"] {
        let answer = playground.call(&["plugin", "new", kind, "x", "--lang", "python"]).exits(1);
        answer.says(&[&format!("there is no template of a {kind} in Python"), "`--lang rust` has one of every kind"]);
    }
    assert!(!playground.work().join("x").exists());
}
