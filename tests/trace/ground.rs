//! A tree with one model, a working directory, and the program called in it. Everything goes away with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");
/// How long anything here may take: only for a test that would hang.
const LONG: Duration = Duration::from_secs(240);

/// A variable that tests depend on.
pub fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let test = std::thread::current().name().unwrap_or("this test").to_owned();
        eprintln!("skipped: {test} ({name} is not set)");
    }
    value
}

fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trace-cache");
        let empty = tempfile::tempdir().unwrap();
        let warmed = Command::new(MADDOCK)
            .args(["doctor", "--format", "json"])
            .env("MADDOCK_CACHE_DIR", &directory)
            .current_dir(&empty)
            .output()
            .unwrap();
        assert!(warmed.status.success(), "{warmed:?}");
        directory
    })
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "still waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// See the module.
pub struct Ground {
    root: TempDir,
}

impl Ground {
    /// With a model `m` of this script.
    pub fn new(script: &str) -> Self {
        let root = tempfile::Builder::new().prefix("maddock trace ").tempdir().unwrap();
        let ground = Self { root };
        let card = json!([{"name": "m", "dockerfile": "docker/none", "scripts": "scripts/m/run.sh", "n_gpus": "0",
            "owner": "a@example.com", "training_precision": "", "tags": ["t"], "args": ""}]);
        ground.write("tree/models.json", &card.to_string());
        ground.write("tree/scripts/m/run.sh", script);
        fs::create_dir(ground.path("work")).unwrap();
        ground
    }

    /// A model that prints its metric.
    pub fn plain() -> Self {
        Self::new("echo hello\necho 'performance: 5 things'\n")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The program, with the services that there are.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.bare(words);
        for name in ["PATH", "HOME", "SLURM_CONF", "DOCKER_HOST", "KUBECONFIG"] {
            match std::env::var_os(name) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The program where there is nothing: no engine, scheduler, cluster or program to be found.
    fn bare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(MADDOCK);
        let nothing = self.path("nothing");
        command
            .args(words)
            .env_clear()
            .env("MADDOCK_CACHE_DIR", cache())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", &nothing)
            .env("DOCKER_HOST", format!("unix://{}", nothing.display()))
            .env("SLURM_CONF", &nothing)
            .env("KUBECONFIG", &nothing)
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        command
    }

    pub fn call(&self, words: &[&str]) -> Answer {
        Answer::of(self.command(words))
    }

    /// The words of a run on a target.
    pub fn words(&self, target: &str) -> Vec<String> {
        let tree = self.path("tree").display().to_string();
        ["run", "-t", "t", "--target", target, "--model-dir", &tree].map(str::to_owned).to_vec()
    }

    pub fn run(&self, target: &str, more: &[&str]) -> Answer {
        let words = self.words(target);
        self.call(&[&words.iter().map(String::as_str).collect::<Vec<_>>(), more].concat())
    }

    /// The last run once more, where there is nothing.
    pub fn replay(&self) -> Answer {
        Answer::of(self.bare(&["replay", "last"]))
    }

    /// The directory of the only run.
    pub fn directory(&self) -> PathBuf {
        let runs = fs::read_dir(self.path("work/.maddock/runs")).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "one run for each ground");
        runs.remove(0)
    }

    pub fn recording(&self) -> String {
        fs::read_to_string(self.directory().join("recording.jsonl")).unwrap()
    }

    /// Changes the recording, line by line: none leaves a line out.
    pub fn tamper(&self, change: impl FnMut(Value) -> Option<Value>) {
        let lines: Vec<Value> =
            self.recording().lines().map(|line| serde_json::from_str(line).unwrap()).filter_map(change).collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.directory().join("recording.jsonl"), text).unwrap();
    }
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// It says these, on stdout or stderr.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text) || self.stderr.contains(text), "`{text}` is not in {self:#?}");
        }
        self
    }
}
