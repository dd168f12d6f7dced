//! A model tree and a working directory of one test's own, and the program run in them. Everything goes away with it: the
//! directories, the images that were built of its models, and containers that a failing test has left.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::engine;

/// A test that waits this long for something has failed.
const PATIENCE: Duration = Duration::from_secs(240);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A variable that tests depend on. Prints what is skipped where it is not set.
pub fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let test = std::thread::current().name().unwrap_or("this test").to_owned();
        eprintln!("skipped: {test} ({name} is not set)");
    }
    value
}

/// Asks until the answer is there.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// See the module.
pub struct Scene {
    /// What models, images and containers of this test have in their names. Fit for all of them.
    pub name: String,
    /// The image that the engine can pull.
    pub image: String,
    /// The model tree.
    pub tree: PathBuf,
    /// The working directory.
    pub work: PathBuf,
    /// A directory that containers may see as `/shared`.
    pub shared: PathBuf,
    models: Vec<Value>,
    variables: Vec<(String, String)>,
    _root: tempfile::TempDir,
}

impl Scene {
    /// An empty tree; none where there is no engine to test with.
    pub fn new() -> Option<Self> {
        let image = needed("MADDOCK_TEST_IMAGE")?;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let [tree, work, shared] = ["tree", "work", "shared"].map(|name| path.join(name));
        for directory in [&tree.join("scripts"), &tree.join("docker"), &work, &shared] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let name = format!("mt{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Some(Self { name, image, tree, work, shared, models: Vec::new(), variables: Vec::new(), _root: root })
    }

    /// The full name of a model.
    pub fn model_name(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Adds a model with a script, and what its card says beyond that. It wants no accelerator unless the card says so.
    pub fn model(&mut self, part: &str, script: &str, card: &Value) -> String {
        let name = self.model_name(part);
        let directory = self.tree.join("scripts").join(part);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("run.sh"), script).unwrap();
        let mut model = json!({
            "name": name,
            "dockerfile": format!("docker/{part}"),
            "scripts": format!("scripts/{part}/run.sh"),
            "n_gpus": "0",
            "tags": [self.name],
            "args": "",
        });
        model.as_object_mut().unwrap().extend(card.as_object().cloned().unwrap_or_default());
        self.models.push(model);
        std::fs::write(self.tree.join("models.json"), Value::from(self.models.clone()).to_string()).unwrap();
        name
    }

    /// Adds a Dockerfile below `docker/`. `FROM` the image that there is: `BASE_DOCKER` is an argument already.
    pub fn dockerfile(&self, file: &str, header: &str, rest: &str) {
        // Builders give one id to equal images, and a test that removes its own would remove those of another.
        let own = format!("LABEL maddock.test={}", self.name);
        let text = format!("{header}\nARG BASE_DOCKER={}\nFROM $BASE_DOCKER\n{rest}\n{own}\n", self.image);
        let path = self.tree.join("docker").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Sets a variable for every command from here on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The program, in the working directory, with no more of this environment than it needs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maddock"));
        command.args(arguments).current_dir(&self.work).env_clear().stdin(Stdio::null());
        for name in ["PATH", "DOCKER_HOST"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.work)
            .env("MODEL_DIR", &self.tree)
            .env("MADDOCK_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program to its end.
    pub fn maddock(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> Going {
        started(self.command(arguments))
    }

    /// `build` of all models of the test.
    pub fn build(&self, more: &[&str]) -> Ended {
        self.maddock(&[&["build", "--tags", &self.name], more].concat())
    }

    /// `run` of all models of the test in the image that there is.
    pub fn run(&self, context: &Value, more: &[&str]) -> Ended {
        self.start_run(context, more).wait()
    }

    /// As `run`, without waiting.
    pub fn start_run(&self, context: &Value, more: &[&str]) -> Going {
        let context = self.context(context);
        self.start(&[&["run", "--tags", &self.name, "-c", &context], more].concat())
    }

    /// A context with the image that there is and the shared directory.
    pub fn context(&self, more: &Value) -> String {
        let mut context = json!({"MAD_CONTAINER_IMAGE": self.image, "docker_mounts": {"/shared": self.shared}});
        context.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        context.to_string()
    }

    /// Directories of all runs and builds so far, by when they last wrote of themselves.
    pub fn run_directories(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.work.join(".maddock/runs"))
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        let written = |run: &PathBuf| run.join("run.json").metadata().and_then(|file| file.modified()).ok();
        found.sort_by_key(written);
        found
    }

    /// Containers of all runs so far that the engine still has.
    pub fn containers(&self) -> Vec<String> {
        let runs = self.run_directories();
        let ids = runs.iter().map(|run| run.file_name().unwrap().to_str().unwrap());
        ids.flat_map(|id| engine::labelled(&format!("maddock.run={id}"))).collect()
    }

    /// A file of the working directory.
    pub fn text(&self, file: &str) -> String {
        let path = self.work.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A JSON file of the working directory.
    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.text(file)).unwrap()
    }

    /// What a container wrote into the shared directory; empty where it did not.
    pub fn left(&self, file: &str) -> String {
        std::fs::read_to_string(self.shared.join(file)).unwrap_or_default()
    }

    /// The rows of `perf.csv`, by column.
    pub fn rows(&self) -> Vec<BTreeMap<String, String>> {
        let mut reader = csv::Reader::from_path(self.work.join("perf.csv")).unwrap();
        reader.deserialize().collect::<Result<_, _>>().unwrap()
    }

    /// The log of a model that ran in the image that there is.
    pub fn run_log(&self, model: &str) -> String {
        let image = self.image.replace(['/', ':'], "_");
        self.text(&format!("{model}_{image}.run.live.log"))
    }

    /// Waits until the log of the only job of the only run has some words.
    pub fn heard(&self, words: &str) -> String {
        until(words, || {
            let job = std::fs::read_dir(self.run_directories().pop()?.join("jobs")).ok()?.next()?.ok()?.path();
            std::fs::read_to_string(job.join("run.log")).ok().filter(|log| log.contains(words))
        })
    }

    /// `job.json` of the last run's jobs.
    pub fn jobs(&self) -> Vec<Value> {
        let last = self.run_directories().pop().expect("there is a run");
        let mut jobs: Vec<PathBuf> =
            std::fs::read_dir(last.join("jobs")).unwrap().map(|entry| entry.unwrap().path().join("job.json")).collect();
        jobs.sort();
        jobs.iter().map(|job| serde_json::from_str(&std::fs::read_to_string(job).unwrap()).unwrap()).collect()
    }

    /// The images that the engine has of this test's models.
    pub fn images(&self) -> Vec<String> {
        let listed = engine::said(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        listed.lines().filter(|image| image.contains(&self.name)).map(str::to_owned).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for container in self.containers() {
            engine::docker(&["rm", "--force", "--volumes", &container]);
        }
        for image in self.images() {
            engine::docker(&["rmi", "--force", &image]);
        }
    }
}

/// Starts a command, gathering its output.
pub fn started(mut command: Command) -> Going {
    let (output, error) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(output.try_clone().unwrap()).stderr(error.try_clone().unwrap());
    Going { child: command.spawn().unwrap(), output, error }
}

/// The program while it runs. It is killed with the test.
pub struct Going {
    child: Child,
    output: std::fs::File,
    error: std::fs::File,
}

impl Going {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What it has said so far, on the side of talk.
    pub fn said(&self) -> String {
        whole(&self.error)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, which must come.
    pub fn wait(mut self) -> Ended {
        let status = until("the end of the program", || self.child.try_wait().unwrap());
        Ended { status, stdout: whole(&self.output), stderr: whole(&self.error) }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn whole(file: &std::fs::File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How the program ended, and all that it said.
pub struct Ended {
    status: ExitStatus,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code, and shows all that was said where it is another one.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        let said = || format!("\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        assert_eq!(self.status.code(), Some(code), "signal {:?}{}", self.status.signal(), said());
        self
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks that something was said.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.all().contains(words), "no `{words}` in:\n{}", self.all());
        self
    }
}
