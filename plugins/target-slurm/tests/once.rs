//! Scripts that run once: what is handed in, as golden files, and run by a real bash.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{HOSTILE, once, variable};
use maddock_sdk::target::Job;
use maddock_sdk::types::{ErrorKind, Image};
use target_slurm::allocation::Allocation;
use target_slurm::once::{is, prepare};

fn check(name: &str, job: &Job, allocation: Option<Allocation>) {
    let plan = prepare(job, &["common-data".to_owned()], allocation).unwrap().plan();
    let mut now = String::new();
    for artefact in plan.artefacts.iter().filter(|artefact| artefact.name != "entry.sh") {
        now.push_str(&format!("===== {}\n{}", artefact.name, artefact.content));
    }
    for step in &plan.steps {
        now.push_str(&format!("===== step: {} ({})\n", step.summary, step.call));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &now).unwrap();
        return;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(now == before, "{} differs; look at it, and write it anew with UPDATE_GOLDEN=1\n{now}", file.display());
}

fn image(local: bool) -> Option<Image> {
    let registry_reference = Some("registry.example/team/m:1".to_owned());
    Some(Image { reference: "ci-m".into(), digest: None, registry_reference, local })
}

#[test]
fn two_nodes_with_an_image_of_a_registry() {
    let mut job = once("/runs/r1/jobs/0-m", 2, r#"{"partition": "gpu", "results_dir": "out", "modules": ["rocm"]}"#);
    job.image = image(false);
    check("once", &job, None);
}

#[test]
fn within_an_allocation_nothing_is_handed_in_and_its_size_counts() {
    let job = once("/runs/r1/jobs/0-m", 2, "{}");
    check("once-allocation", &job, Some(Allocation { id: "7".into(), nodes: Some(2) }));
    let small = Some(Allocation { id: "7".into(), nodes: Some(1) });
    assert_eq!(prepare(&job, &[], small).unwrap_err().kind, ErrorKind::InvalidInput);
}

#[test]
fn hostile_values() {
    let directory = format!("/runs/{}/jobs/0-m", HOSTILE.replace('/', "_"));
    let line = HOSTILE.replace(['\n', '\t'], " ");
    let section = serde_json::json!({"partition": line, "results_dir": HOSTILE, "modules": [HOSTILE]});
    let mut job = once(&directory, 2, &section.to_string());
    job.env.push(variable("DOCKER_IMAGE_NAME", &format!("a.b/{HOSTILE}")));
    check("once-hostile", &job, None);
}

#[test]
fn which_image_the_nodes_pull_is_as_the_user_says_and_nothing_that_was_built_here() {
    let pulls = |job: &Job| {
        let work = prepare(job, &[], None).unwrap();
        let line = work.batch.script.lines().find_map(|line| line.split_once("docker pull -- "));
        line.map(|(_, rest)| rest.trim_end_matches(" ||").to_owned())
    };
    let mut job = once("/r", 1, r#"{"partition": "p"}"#);
    assert!(is(&job));
    assert_eq!(pulls(&job), None);
    job.image = image(true);
    assert_eq!(pulls(&job), None, "it is there already");
    job.image = image(false);
    assert_eq!(pulls(&job).as_deref(), Some("registry.example/team/m:1"));
    job.env.push(variable("DOCKER_IMAGE_NAME", "ci-own/x"));
    assert_eq!(pulls(&job), None);
    job.env.push(variable("DOCKER_IMAGE_NAME", "other/m"));
    assert_eq!(pulls(&job).as_deref(), Some("other/m"));
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("once {name}-it's here"));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("job/workspace/run_directory")).unwrap();
        Self(root)
    }

    fn job(&self, section: &str) -> Job {
        once(&self.0.join("job").display().to_string(), 2, section)
    }

    fn run(&self, job: &Job, model: &str) -> Output {
        for (path, content, _) in prepare(job, &[], None).unwrap().files {
            std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::write(self.0.join("job/workspace/run_directory/run.sh"), model).unwrap();
        Command::new("bash")
            .arg(self.0.join("job/job.sbatch"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SLURM_JOB_ID", "39")
            .env("SLURMD_NODENAME", "node0")
            .env("USER", "nobody-of-that-name")
            .output()
            .unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join("job").join(name)).unwrap_or_default()
    }
}

#[test]
fn the_script_runs_once_where_all_nodes_see_it_and_everything_it_is_told_is_literal() {
    let place = Place::new("literal");
    let mut job = place.job(r#"{"partition": "p"}"#);
    job.script.arguments = vec!["$(id)".into(), HOSTILE.into(), "--x=$MADDOCK_NODES".into()];
    job.env.push(variable("HOSTILE", HOSTILE));
    let output = place.run(&job, "pwd; printf '<%s>\\n' \"$@\" \"$HOSTILE\" \"$MASTER_ADDR\"\nexit 3\n");
    assert_eq!(output.status.code(), Some(3), "{}", place.read("nodes/0/output.log"));
    let log = place.read("nodes/0/output.log");
    let expected = format!("<$(id)>\n<{HOSTILE}>\n<--x=$MADDOCK_NODES>\n<{HOSTILE}>\n<node0>\n");
    assert!(log.contains("/job/workspace/run_directory\n") && log.contains(&expected), "{log}");
    assert_eq!(place.read("nodes/0/ended"), "exit=3\nhost=node0\n");
    assert!(place.read("nodes/0/result").contains("exit=3\nstage=model\n"));
    assert!(place.read("complete").starts_with("exit_code=3\ntimestamp=2"), "{}", place.read("complete"));
}

#[test]
fn rows_come_from_the_first_place_that_has_new_ones() {
    for (name, section, model, expected) in [
        ("own", "", "echo own > perf.csv; mkdir out; echo out > out/perf_1.csv", "own\n"),
        (
            "named",
            r#", "results_dir": "o u"#,
            "mkdir 'o u'; echo named > 'o u/perf_x.csv'; echo own > perf.csv",
            "named\n",
        ),
        (
            "tool",
            "",
            "mkdir -p slurm_output/perf_csv; echo t > slurm_output/perf_csv/x39.csv; echo o > perf.csv",
            "t\n",
        ),
        ("none", "", "true", ""),
    ] {
        let place = Place::new(name);
        let section = if section.is_empty() {
            r#"{"partition": "p"}"#.to_owned()
        } else {
            format!(r#"{{"partition": "p"{section}"}}"#)
        };
        let output = place.run(&place.job(&section), model);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(place.read("nodes/0/files/slurm_multi.csv"), expected, "{name}");
        assert_eq!(place.read("nodes/0/results").is_empty(), expected.is_empty(), "{name}");
    }
    let place = Place::new("stale");
    std::fs::write(place.0.join("job/workspace/run_directory/perf.csv"), "of the tree").unwrap();
    let old = std::process::Command::new("touch")
        .args(["-d", "2001-01-01"])
        .arg(place.0.join("job/workspace/run_directory/perf.csv"))
        .status();
    assert!(old.unwrap().success());
    let mut job = place.job(r#"{"partition": "p"}"#);
    job.collect.clear();
    place.run(&job, "true");
    assert_eq!(place.read("nodes/0/results"), "", "rows of another day are not this job's");
}
