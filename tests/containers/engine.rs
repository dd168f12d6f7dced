//! The engine as a test sees it, by the engine's own command line. Only what a test has made is ever removed.

use std::process::{Command, Output};

use serde_json::Value;

/// What `docker` answers.
pub fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("tests with containers need the `docker` command line")
}

/// What `docker` prints, where it does not fail.
pub fn said(arguments: &[&str]) -> String {
    let output = docker(arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// All that the engine knows of an image or container; none where it does not have it.
pub fn inspect(what: &str, name: &str) -> Option<Value> {
    let output = docker(&[what, "inspect", name]);
    let found: Value = serde_json::from_slice(&output.stdout).ok()?;
    found.get(0).cloned()
}

/// Ids of the containers that bear a label, ended ones included.
pub fn labelled(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    said(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).lines().map(str::to_owned).collect()
}

/// Removes a container when the test is over, however it ends.
pub struct Removed(pub String);

impl Drop for Removed {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}
