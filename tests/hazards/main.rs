//! What the predecessor did wrong must not come back: `docs/targets/hazards.md` says which test would notice. This reads that
//! table, and has those of the tests that need neither a cluster nor a container.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const HAZARDS: usize = 17;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// For each hazard of the table, its tests: file and name.
fn table() -> BTreeMap<usize, Vec<(String, String)>> {
    let text = std::fs::read_to_string(root().join("docs/targets/hazards.md")).unwrap();
    let mut table = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("| H")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let tests = cells[3].split("<br>").map(|test| {
            let (file, name) = test.trim().trim_matches('`').split_once("::").unwrap_or_else(|| panic!("{line}"));
            (file.to_owned(), name.to_owned())
        });
        assert!(table.insert(cells[0].parse().unwrap(), tests.collect()).is_none(), "twice: {line}");
    }
    table
}

#[test]
fn every_hazard_has_a_test_and_every_test_that_is_named_is_there() {
    let table = table();
    assert_eq!(table.keys().copied().collect::<Vec<_>>(), (1..=HAZARDS).collect::<Vec<_>>());
    for (hazard, tests) in table {
        assert!(!tests.is_empty(), "H{hazard}");
        for (file, name) in tests {
            let text =
                std::fs::read_to_string(root().join(&file)).unwrap_or_else(|why| panic!("H{hazard}: {file}: {why}"));
            let before = text.split_once(&format!("fn {name}()")).map(|(before, _)| before);
            let attributes = before.map(|before| before.rsplit("\n\n").next().unwrap_or_default());
            assert!(attributes.is_some_and(|above| above.contains("test]")), "H{hazard}: {file} has no test `{name}`");
        }
    }
}

/// A tree with one model `m`, and a place to run it from.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let scripts = root.path().join("tree/scripts/m");
        std::fs::create_dir_all(&scripts).unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        std::fs::write(scripts.join("run.sh"), "echo \"performance: 1 x\"\n").unwrap();
        let card = json!([{"name": "m", "dockerfile": "docker/none", "scripts": "scripts/m/run.sh", "n_gpus": "0",
            "owner": "a@example.com", "training_precision": "", "tags": ["t"], "args": ""}]);
        std::fs::write(root.path().join("tree/models.json"), card.to_string()).unwrap();
        Self(root)
    }

    /// A run on a machine that is connected to no cluster.
    fn run(&self, words: &[&str], context: &Value) -> Output {
        self.run_from(&[], words, context)
    }

    /// The same from a shell that has these variables.
    fn run_from(&self, shell: &[(&str, &str)], words: &[&str], context: &Value) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maddock"));
        command
            .args(["run", "--tags", "t", "--model-dir"])
            .arg(self.0.path().join("tree"))
            .args(["--additional-context", &context.to_string()])
            .args(words)
            .current_dir(self.0.path().join("work"))
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", "/nowhere")
            .env("MADDOCK_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
            .env("KUBECONFIG", self.0.path().join("no-kubeconfig"))
            .envs(shell.iter().copied())
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    fn table(&self) -> String {
        std::fs::read_to_string(self.0.path().join("work/perf.csv")).unwrap_or_default()
    }
}

/// A context that names its target by a plain text.
fn context(target: &str) -> Value {
    match target {
        "slurm" => json!({"deploy": target, "slurm": {"container": false}}),
        _ => json!({"deploy": target, "MAD_CONTAINER_IMAGE": "registry.example.com/x:1"}),
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_cannot_be_handed_in_is_a_failed_run_with_a_failed_row() {
    for target in ["slurm", "k8s"] {
        let place = Place::new();
        let output = place.run(&[], &context(target));
        assert_eq!(output.status.code(), Some(3), "{target}: {}", said(&output));
        let table = place.table();
        assert_eq!(table.matches("FAILURE").count(), 1, "{target}: {table}\n{}", said(&output));
        assert!(!table.contains("SUCCESS"), "{target}: {table}");
    }
}

#[test]
fn a_target_is_named_by_a_plain_text_in_every_spelling() {
    for (name, shows) in [("slurm", "job.sbatch"), ("k8s", "kind: Job"), ("kubernetes", "kind: Job")] {
        let place = Place::new();
        let output = place.run(&["--dry-run"], &context(name));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        assert!(said(&output).contains(shows), "{name}: {}", said(&output));
    }
}

#[test]
fn no_place_of_the_shell_that_hands_a_job_in_is_taken_for_one_of_its_nodes() {
    let shell =
        [("RANK", "31"), ("MASTER_ADDR", "here.example"), ("ROCR_VISIBLE_DEVICES", "30"), ("NCCL_DEBUG", "TRACE")];
    for target in ["slurm", "k8s"] {
        let place = Place::new();
        let mut context = context(target);
        context["distributed"] = json!({"launcher": "torchrun", "nnodes": 2, "port": "29617"});
        let output = place.run_from(&shell, &["--dry-run"], &context);
        let shown = said(&output);
        assert_eq!(output.status.code(), Some(0), "{target}: {shown}");
        for other in ["here.example", "31'", "\"31\"", "30'", "\"30\""] {
            assert!(!shown.contains(other), "{target}: {other}: {shown}");
        }
        assert!(shown.contains("29617") && !shown.contains("29500"), "{target}: a port that is a text is one: {shown}");
        assert!(shown.contains("TRACE"), "{target}: {shown}");
    }
}

#[test]
fn a_value_that_no_program_can_be_given_is_refused_by_name_before_anything_is_made() {
    for target in ["slurm", "k8s"] {
        let place = Place::new();
        let mut context = context(target);
        context["docker_env_vars"] = json!({"CUT_OFF": "a\0b"});
        let output = place.run(&["--dry-run"], &context);
        assert_ne!(output.status.code(), Some(0), "{target}: {}", said(&output));
        assert!(said(&output).contains("`CUT_OFF` has a NUL character"), "{target}: {}", said(&output));
    }
}

#[test]
fn a_timeout_of_0_is_no_limit_to_a_scheduler_and_no_word_of_python() {
    for (target, limit) in [("slurm", "maddock_limit="), ("k8s", "activeDeadlineSeconds")] {
        for (timeout, limited) in [("60", true), ("0", false)] {
            let place = Place::new();
            let output = place.run(&["--dry-run", "--timeout", timeout], &context(target));
            let text = said(&output);
            assert_eq!(output.status.code(), Some(0), "{target}: {text}");
            assert_eq!(text.contains(limit), limited, "{target} {timeout}: {text}");
            assert!(!text.contains("None"), "{target} {timeout}: {text}");
        }
    }
}
