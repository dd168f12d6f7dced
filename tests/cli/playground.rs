//! A tree, a working directory, and the program called in it. Everything goes away with the test.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The program.
pub const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");
/// How long anything here may take: only for a test that would hang.
const LONG: Duration = Duration::from_secs(240);

/// The tree that the repository ships.
pub fn example_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mad").canonicalize().unwrap()
}

/// Where compiled plugins are kept for all tests. Compiled once here, so that tests do not do it all at the same time.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
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

/// A tree of models and a working directory beside it.
pub struct Playground {
    root: TempDir,
    models: Vec<Value>,
}

impl Playground {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["tree", "work", "config"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        Self { root, models: Vec::new() }
    }

    /// With a model whose script is `script`.
    pub fn with(script: &str) -> Self {
        let mut playground = Self::new();
        playground.model("m", json!({}), script);
        playground
    }

    /// Where its models are.
    pub fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    /// Where the program is called.
    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// A place for what scripts tell their test.
    pub fn note(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Adds a model: its card has what it must have and `more`, its script is bash.
    pub fn model(&mut self, name: &str, more: Value, script: &str) {
        let mut card = json!({
            "name": name,
            "dockerfile": "docker/none",
            "scripts": format!("scripts/{name}/run.sh"),
            "n_gpus": "0",
            "tags": ["every"],
            "args": "",
        });
        card.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.models.push(card);
        self.write(&format!("tree/scripts/{name}/run.sh"), script);
        self.write("tree/models.json", &Value::from(self.models.clone()).to_string());
    }

    /// Writes a file, relative to the root of the playground.
    pub fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a program of its own.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.write(&format!("bin/{name}"), script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The program in the working directory, with an environment that holds no surprises.
    pub fn command(&self) -> Command {
        self.command_of(Path::new(MADDOCK))
    }

    /// The same under another path.
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("MADDOCK_CACHE_DIR", cache())
            .env("XDG_CONFIG_HOME", self.root.path().join("config"))
            .env("XDG_DATA_HOME", self.root.path().join("data"))
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.work())
            .stdin(Stdio::null());
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
    }

    /// Calls the program with these words.
    pub fn call(&self, words: &[&str]) -> Answer {
        answer(self.command().args(words))
    }

    /// `maddock run --model-dir TREE --target process` and these words.
    pub fn run(&self, words: &[&str]) -> Answer {
        answer(self.run_command().args(words))
    }

    /// The same, to be changed and started by the test.
    pub fn run_command(&self) -> Command {
        let mut command = self.command();
        command.args(["run", "--target", "process", "--model-dir"]).arg(self.tree());
        command
    }

    /// A file in the working directory.
    pub fn read(&self, name: &str) -> String {
        let path = self.work().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The rows of `perf.csv`, each by column.
    pub fn rows(&self) -> Vec<BTreeMap<String, String>> {
        let mut reader = csv::Reader::from_path(self.work().join("perf.csv")).unwrap();
        reader.deserialize().collect::<Result<_, _>>().unwrap()
    }

    /// The directories of the runs, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        names(&self.work().join(".maddock/runs"))
            .into_iter()
            .map(|name| self.work().join(".maddock/runs").join(name))
            .collect()
    }

    /// The directory of the run, where there was one.
    pub fn only_run(&self) -> PathBuf {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.into_iter().next().unwrap()
    }

    /// The id of the run of that number, the oldest is 0.
    pub fn run_id(&self, number: usize) -> String {
        self.runs()[number].file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A file of the job of a model in the run, where there was one.
    pub fn job_file(&self, job: &str, name: &str) -> String {
        let path = self.only_run().join("jobs").join(job).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file under a directory and what it holds.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(place) = left.pop() {
        for entry in fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                found.insert(path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                left.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn answer(command: &mut Command) -> Answer {
    ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Waits for a program that was started with pipes.
pub fn ended(child: Child) -> Answer {
    let output = child.wait_with_output().unwrap();
    Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Answer {
    /// It ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// It says these on stderr.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in {self:#?}");
        }
        self
    }

    /// It prints these on stdout.
    #[track_caller]
    pub fn prints(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "`{text}` is not in {self:#?}");
        }
        self
    }

    /// All that is on stdout, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A program that was started, ended with its test.
pub struct Started(Option<Child>);

impl Started {
    pub fn new(command: &mut Command) -> Self {
        Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.0.as_ref().unwrap())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub fn ended(mut self) -> Answer {
        ended(self.0.take().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
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

/// The whole line that a script writes into a file, as soon as it is there.
#[track_caller]
pub fn line_of(path: &Path) -> String {
    let mut text = String::new();
    until(&format!("a line in {}", path.display()), || {
        text.clear();
        fs::File::open(path).is_ok_and(|mut file| file.read_to_string(&mut text).is_ok()) && text.ends_with('\n')
    });
    text.trim_end().to_owned()
}

/// Whether a process is there and not only waits to be reaped.
pub fn alive(pid: &str) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}
