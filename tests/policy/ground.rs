//! A tree with one model, a working directory, a user's configuration, and where wanted a site. Everything goes away with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

const MADDOCK: &str = env!("CARGO_BIN_EXE_maddock");

/// Gives the program an `/etc` of its own, in which the first argument's content is `/etc/maddock`.
const IN_SITE: &str = r#"set -e
root=$1; shift
cp -a /etc "$root/etc" 2>/dev/null || true
rm -rf "$root/etc/maddock"
cp -a "$root/site" "$root/etc/maddock"
mount --bind "$root/etc" /etc
exec "$@"
"#;

/// Why a test cannot be: says so.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("this test").to_owned();
    eprintln!("skipped: {test} ({why})");
}

/// A variable that tests depend on.
pub fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skipped(&format!("{name} is not set"));
    }
    value
}

/// The words that begin a mount namespace, where this machine can make one.
fn namespace() -> Option<&'static [&'static str]> {
    static WORDS: OnceLock<Option<Vec<&'static str>>> = OnceLock::new();
    let found = WORDS.get_or_init(|| {
        let forms = [vec!["unshare", "--mount"], vec!["unshare", "--user", "--map-root-user", "--mount"]];
        forms.into_iter().find(|words| {
            let (program, rest) = words.split_first().unwrap();
            let bound = Command::new(program)
                .args(rest)
                .args(["mount", "--bind", "/etc", "/etc"])
                .stderr(Stdio::null())
                .status();
            bound.is_ok_and(|status| status.success())
        })
    });
    if found.is_none() {
        skipped("no mount namespace can be made here");
    }
    found.as_deref()
}

/// Whether tests with a site can be.
pub fn can_have_a_site() -> bool {
    namespace().is_some()
}

fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy-cache");
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

/// See the module.
pub struct Ground {
    root: TempDir,
    site: bool,
    variables: Vec<(String, String)>,
}

impl Ground {
    /// With a model `m`, whose card has `more`.
    pub fn new(more: Value, script: &str) -> Self {
        let root = tempfile::Builder::new().prefix("maddock policy ").tempdir().unwrap();
        let ground = Self { root, site: false, variables: Vec::new() };
        let mut card = json!({"name": "m", "dockerfile": "docker/none", "scripts": "scripts/m/run.sh", "n_gpus": "0",
            "owner": "a@example.com", "training_precision": "", "tags": ["t"], "args": ""});
        card.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ground.write("tree/models.json", &json!([card]).to_string());
        ground.write("tree/scripts/m/run.sh", script);
        fs::create_dir(ground.work()).unwrap();
        ground
    }

    /// A model that prints its metric.
    pub fn plain() -> Self {
        Self::new(json!({}), "echo 'performance: 5 things'\n")
    }

    /// Below a site's policy. To be asked for only where [`can_have_a_site`].
    pub fn below(mut self, policy: &str) -> Self {
        let file = self.write("site/policy.toml", policy);
        self.mode("site", 0o755);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        self.site = true;
        self
    }

    /// With a variable more, `COLUMNS` for one.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Changes a mode.
    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Writes a file, relative to the root of the ground.
    pub fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The user's policy.
    pub fn user(&self, policy: &str) {
        self.write("config/maddock/policy.toml", policy);
    }

    fn command(&self) -> Command {
        let mut command = if self.site {
            let script = self.write("in-site.sh", IN_SITE);
            let (program, rest) = namespace().unwrap().split_first().unwrap();
            let mut command = Command::new(program);
            command.args(rest).arg("bash").arg(script).arg(self.root.path()).arg(MADDOCK);
            command
        } else {
            Command::new(MADDOCK)
        };
        command
            .env_clear()
            .env("MADDOCK_CACHE_DIR", cache())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.work())
            .stdin(Stdio::null());
        for name in ["PATH", "HOME", "SLURM_CONF", "DOCKER_HOST", "KUBECONFIG"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Calls the program with these words.
    pub fn call(&self, words: &[&str]) -> Answer {
        let output = self.command().args(words).output().unwrap();
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `maddock run` of the model on a target, and these words.
    pub fn run(&self, target: &str, words: &[&str]) -> Answer {
        let tree = self.path("tree").display().to_string();
        self.call(&[&["run", "-t", "t", "--target", target, "--model-dir", &tree], words].concat())
    }

    /// Ids of the runs, oldest first.
    pub fn runs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.work().join(".maddock/runs")) else { return Vec::new() };
        let mut runs: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        runs.sort();
        runs
    }

    /// Lines of the trace of all runs.
    pub fn trace(&self) -> Vec<Value> {
        let file = |run: &String| self.work().join(".maddock/runs").join(run).join("trace.jsonl");
        let text: String = self.runs().iter().map(|run| fs::read_to_string(file(run)).unwrap_or_default()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
