//! A whole run with the attacker as its target, its discoverer or its reporter, by the program itself.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::ground::{Answer, Ground};
use crate::guest;

/// What jobs and the attacker must not let out. It is a variable that jobs get.
pub const SECRET: &str = "run-secret-never-to-be-seen";

/// The secret as orders have it.
pub fn backwards() -> String {
    format!("rev:{}", SECRET.chars().rev().collect::<String>())
}

/// See the module.
pub struct Stage {
    pub ground: Ground,
    plugin: PathBuf,
    kind: &'static str,
}

impl Stage {
    /// The attacker as a target that carries out the lists of this script.
    pub fn target(script: Value) -> Self {
        Self::new(json!({"hostile": script}), "target")
    }

    /// With the attacker as a plugin of that kind, and what the model's card says beyond the usual.
    pub fn new(card: Value, kind: &'static str) -> Self {
        let ground = Ground::new(card, "echo 'performance: 5 things'\n").with("MAD_SECRETS_TOKEN", SECRET);
        let plugin = ground.path("attacker.wasm");
        std::fs::write(&plugin, guest::as_kind("hostile", kind)).unwrap();
        Self { ground, plugin, kind }
    }

    /// The same below a site's policy.
    pub fn below(self, policy: &str) -> Self {
        Self { ground: self.ground.below(policy), ..self }
    }

    /// The lines that grant the attacker calls, for the user's policy.
    pub fn granted(&self, calls: &[&str], scopes: &str) -> String {
        use sha2::{Digest, Sha256};
        let digest: String =
            Sha256::digest(std::fs::read(&self.plugin).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[allow]]\nplugin = \"hostile\"\ndigest = \"sha256:{digest}\"\ncalls = {calls:?}\n{scopes}\n")
    }

    /// `maddock run` with the attacker.
    pub fn run(&self, words: &[&str]) -> Answer {
        let plugin = self.plugin.display().to_string();
        let target = if self.kind == "target" { "hostile" } else { "process" };
        self.ground.run(target, &[&["--plugin", &plugin], words].concat())
    }

    /// Any command with the attacker.
    pub fn call(&self, words: &[&str]) -> Answer {
        let plugin = self.plugin.display().to_string();
        self.ground.call(&[words, &["--plugin", &plugin]].concat())
    }

    /// Every file that the run has left in the working directory, with its content.
    pub fn left(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        gather(&self.ground.work(), &mut files);
        files
    }

    /// Neither what was said nor what was left holds the secret.
    #[track_caller]
    pub fn hides(&self, answer: &Answer) {
        assert!(!format!("{answer:?}").contains(SECRET), "{answer:#?}");
        for (path, content) in self.left() {
            assert!(!content.contains(SECRET), "{}: {content}", path.display());
        }
    }
}

fn gather(directory: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, into);
        } else {
            into.push((path.clone(), String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned()));
        }
    }
}
