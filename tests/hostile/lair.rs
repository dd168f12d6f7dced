//! Where an attacker is let loose: a run of its own with a directory, secrets and a trace, and a policy that grants it what a test
//! says and nothing else. What it is ordered goes through the real engine, gate and capabilities.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use maddock::capability::docker::Connection;
use maddock::capability::events::PluginEvent;
use maddock::capability::policy::{Level, Policy, Roots};
use maddock::capability::secrets::SecretStore;
use maddock::capability::trace::Trace;
use maddock::plugin::catalog::{Catalog, Entry};
use maddock::plugin::launch::{Program, Topology};
use maddock::plugin::{Ceilings, Environment, Plugin, PluginError, Plugins, RunContext, Session};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::guest;

/// What the attacker is called.
pub const NAME: &str = "hostile";
/// A secret that must never be seen.
pub const SECRET: &str = "s3cr3t-never-to-be-seen";

/// The attacker, compiled once for all tests, and its digest.
fn attacker() -> &'static (Plugin, String) {
    static ATTACKER: OnceLock<(Plugin, String)> = OnceLock::new();
    ATTACKER.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-cache").display().to_string();
        let environment: Environment = [("MADDOCK_CACHE_DIR".to_owned(), cache)].into_iter().collect();
        let plugins = Plugins::new(Catalog::new(&[]).unwrap(), &environment).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), guest::as_kind(NAME, "launcher")).unwrap();
        let entry = Entry::of_file(file.path()).unwrap();
        (plugins.load(&entry).unwrap(), entry.identity.digest.clone())
    })
}

/// A variable that tests depend on. Says what is skipped where it is not set.
pub fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let test = std::thread::current().name().unwrap_or("this test").to_owned();
        eprintln!("skipped: {test} ({name} is not set)");
    }
    value
}

/// See the module.
pub struct Lair {
    directory: tempfile::TempDir,
    root: PathBuf,
    rules: String,
    /// The shell's environment.
    pub environment: Vec<(String, String)>,
    /// What one call may use up.
    pub ceilings: Ceilings,
    /// The run's id.
    pub run: String,
    deadline: Option<Duration>,
}

impl Lair {
    /// Nothing is granted.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("maddock-hostile-").tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for name in ["run", "tree", "output", "outside"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::fs::write(root.join("outside/secret"), SECRET).unwrap();
        let unique = root.file_name().unwrap().to_string_lossy().to_lowercase();
        let run = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let environment = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/nonexistent"), ("TOKEN", SECRET)];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let ceilings = Ceilings::default();
        Self {
            directory,
            root,
            rules: String::new(),
            environment,
            ceilings,
            run,
            deadline: Some(Duration::from_secs(120)),
        }
    }

    /// Grants calls, with lines such as `scope.path = ["$run/**"]`.
    pub fn grant(mut self, calls: &[&str], scopes: &str) -> Self {
        let digest = &attacker().1;
        self.rules
            .push_str(&format!("[[allow]]\nplugin = \"{NAME}\"\ndigest = \"{digest}\"\ncalls = {calls:?}\n{scopes}\n"));
        self
    }

    /// Rules as they stand.
    pub fn rules(mut self, rules: &str) -> Self {
        self.rules.push_str(rules);
        self
    }

    /// Files below the run's directory, and nothing else.
    pub fn with_files() -> Self {
        Self::new().grant(&["files.*"], "scope.path = [\"$run/**\"]\nscope.source = [\"$run/**\"]")
    }

    /// Programs of all kinds, but no code in place of a file.
    pub fn with_programs() -> Self {
        Self::new().grant(&["process.*"], "")
    }

    /// The environment of this very process, for engines and clusters.
    pub fn in_this_environment(mut self) -> Self {
        self.environment.extend(std::env::vars());
        self
    }

    /// Sets a variable.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Changes what a call may use up.
    pub fn limited(mut self, change: impl FnOnce(&mut Ceilings)) -> Self {
        change(&mut self.ceilings);
        self
    }

    /// The root of everything: `run`, `tree`, `output`, and `outside` with a file `secret`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path of it as text.
    pub fn at(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }

    /// Writes a file of it.
    pub fn write(&self, path: &str, content: &str) -> String {
        let file = self.root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        file.display().to_string()
    }

    /// Makes a link of it.
    pub fn link(&self, path: &str, to: &str) -> String {
        std::os::unix::fs::symlink(to, self.root.join(path)).unwrap();
        self.at(path)
    }

    /// Whether something is there.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    /// What was recorded so far.
    pub fn trace(&self) -> String {
        std::fs::read_to_string(self.root.join("trace.jsonl")).unwrap_or_default()
    }

    fn session(&self) -> Session {
        let root = |name: &str| self.root.join(name);
        let roots = Roots { tree: root("tree"), run: root("run"), output: root("output"), ..Roots::default() };
        let mut secrets = SecretStore::default();
        secrets.add("credential/hub/username", "somebody");
        secrets.add("credential/hub/password", SECRET);
        secrets.add("env/TOKEN", SECRET);
        let text = format!("schema = 1\n{}", self.rules);
        let policy = Policy::shipped(roots.clone()).unwrap().with_layer(Level::User, "user.toml", &text);
        let context = RunContext {
            run_id: self.run.clone(),
            policy: Arc::new(policy.unwrap_or_else(|error| panic!("{error}: {text}"))),
            roots,
            environment: self.environment.iter().cloned().collect(),
            secrets,
            docker: Connection::default(),
            queue: maddock::capability::Queue::default(),
            clusters: maddock::capability::Clusters::default(),
            trace: Trace::to_file(&self.directory.path().join("trace.jsonl"), &self.run).unwrap(),
            lifelines: Default::default(),
        };
        let session = Session { ceilings: self.ceilings, ..Session::quiet(Arc::new(context)) };
        session.for_job("job").within(self.deadline)
    }

    /// Lets the attacker carry out orders in one call, and answers what it told meanwhile as well.
    pub fn attempt(&self, orders: Value) -> (Result<Vec<Told>, PluginError>, Vec<PluginEvent>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let topology = Topology {
            launcher: NAME.to_owned(),
            nodes: 1,
            processes_per_node: 1,
            gpus_per_node: 0,
            main_address: "localhost".to_owned(),
            main_port: 29500,
            model: "m".to_owned(),
            job: "job".to_owned(),
            config: json!({"orders": orders}).to_string(),
            program: Program { interpreter: vec!["bash".to_owned()], file: "run.sh".to_owned() },
            env: Vec::new(),
            extra: Vec::new(),
        };
        runtime.block_on(async {
            let (events, mut heard) = mpsc::channel(16);
            let session = self.session().telling(events);
            let listening = tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some(event) = heard.recv().await {
                    all.push(event);
                }
                all
            });
            let answer = attacker().0.arrange(&session, &topology).await;
            drop(session);
            let answers = answer.map(|arrangement| {
                let answers: Vec<Value> = serde_json::from_str(&arrangement.warnings[0]).unwrap();
                answers.into_iter().map(Told).collect()
            });
            (answers, listening.await.unwrap())
        })
    }

    /// Carries out orders, which the plugin survives.
    #[track_caller]
    pub fn obey(&self, orders: Value) -> Vec<Told> {
        self.attempt(orders).0.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Carries out one order, which the plugin survives.
    #[track_caller]
    pub fn order(&self, order: Value) -> Told {
        self.obey(json!([order])).remove(0)
    }

    /// What is said of a plugin that does not survive its orders.
    #[track_caller]
    pub fn end(&self, orders: Value) -> String {
        let error = self.attempt(orders).0.unwrap_err();
        crate::place::assert_printable(&error.to_string());
        error.to_string()
    }
}

/// What the attacker was told.
#[derive(Debug, Clone)]
pub struct Told(pub Value);

impl Told {
    /// The answer of a call that worked.
    #[track_caller]
    pub fn ok(&self) -> String {
        match &self.0["ok"] {
            Value::String(text) => text.clone(),
            Value::Null => panic!("{}", self.0),
            other => other.to_string(),
        }
    }

    /// The kind of the error.
    pub fn kind(&self) -> &str {
        self.0["error"].as_str().unwrap_or("no error")
    }

    /// The message of the error.
    pub fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    /// It failed by an error of that kind.
    #[track_caller]
    pub fn is(&self, kind: &str) -> &Self {
        assert_eq!(self.kind(), kind, "{}", self.0);
        self
    }

    /// Policy refused it.
    #[track_caller]
    pub fn denied(&self) -> &Self {
        self.is("denied")
    }

    /// Its message says so.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.message().contains(text), "`{text}` is not in {}", self.0);
        self
    }

    /// Nothing of it holds a secret.
    #[track_caller]
    pub fn hides(&self, secret: &str) -> &Self {
        assert!(!self.0.to_string().contains(secret), "{}", self.0);
        self
    }
}
