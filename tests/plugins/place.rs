//! A directory of a test's own, where plugins lie and are loaded, called, or shown to the binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use maddock::capability::docker::Connection;
use maddock::capability::policy::{Policy, Roots};
use maddock::capability::secrets::SecretStore;
use maddock::capability::trace::Trace;
use maddock::plugin::catalog::{Catalog, Entry};
use maddock::plugin::launch::{Arrangement, Program, Topology};
use maddock::plugin::package::signature::TrustedKey;
use maddock::plugin::{Ceilings, Environment, Plugin, PluginError, Plugins, RunContext, Session};

/// The directory, and an engine with a cache inside it.
pub struct Place {
    directory: tempfile::TempDir,
    plugins: Plugins,
}

/// What the binary said.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache").display().to_string();
        let environment: Environment = [("MADDOCK_CACHE_DIR".to_owned(), cache)].into_iter().collect();
        let plugins = Plugins::new(Catalog::new(&[]).unwrap(), &environment).unwrap();
        Self { directory, plugins }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a plugin's file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Loads a component as the command line's `--plugin FILE` does.
    pub fn try_load(&self, bytes: &[u8]) -> Result<Plugin, PluginError> {
        let entry = Entry::of_file(&self.file("plugin.wasm", bytes))?;
        self.plugins.load(&entry)
    }

    /// Loads a component's file where the signatures of these keys count.
    pub fn load_trusting(&self, file: &Path, keys: Vec<TrustedKey>) -> Result<Plugin, PluginError> {
        let engine = self.plugins.shared_engine();
        let loaded = engine.load(&Entry::of_file(file)?.trusting(keys.into()))?;
        Ok(Plugin::new(engine, loaded))
    }

    pub fn load(&self, bytes: &[u8]) -> Plugin {
        self.try_load(bytes).unwrap()
    }

    /// A session under the shipped policy.
    pub fn session(&self) -> Session {
        self.session_under(Policy::shipped(self.roots()).unwrap())
    }

    /// Directories that rules speak of.
    pub fn roots(&self) -> Roots {
        Roots { tree: self.path().to_owned(), ..Roots::default() }
    }

    /// A session under another policy.
    pub fn session_under(&self, policy: Policy) -> Session {
        Session::quiet(Arc::new(RunContext {
            run_id: "test".to_owned(),
            policy: Arc::new(policy),
            roots: self.roots(),
            environment: Environment::default(),
            secrets: SecretStore::default(),
            docker: Connection::default(),
            queue: maddock::capability::Queue::default(),
            clusters: maddock::capability::Clusters::default(),
            trace: Trace::none(),
            lifelines: Default::default(),
        }))
    }

    /// A session whose calls may compute for that long.
    pub fn session_of(&self, processor: Duration) -> Session {
        Session { ceilings: Ceilings { processor, ..Ceilings::default() }, ..self.session() }
    }

    /// Loads a launcher and calls it.
    pub async fn arrange(&self, bytes: &[u8]) -> Result<Arrangement, PluginError> {
        self.load(bytes).arrange(&self.session(), &topology()).await
    }

    /// What a launcher that must fail says.
    pub async fn failure(&self, bytes: &[u8]) -> String {
        sentence(self.arrange(bytes).await)
    }

    /// Runs the binary here.
    pub fn maddock(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_maddock"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the binary writes UTF-8");
        Said {
            code: output.status.code().expect("no signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What the binary says of a file that it must refuse, which is exactly one sentence, and perhaps a hint.
    pub fn refusal(&self, bytes: &[u8]) -> String {
        self.file("refused.wasm", bytes);
        let listed = self.maddock(&["plugin", "inspect", "./refused.wasm"]);
        assert_eq!(listed.code, 1, "{}{}", listed.stdout, listed.stderr);
        assert_printable(&listed.stdout);
        let error = listed.stderr.lines().next().unwrap_or_default().to_owned();
        assert!(listed.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{}", listed.stderr);
        assert_printable(&listed.stderr);
        error.strip_prefix("error: ").unwrap_or_else(|| panic!("{error}")).to_owned()
    }
}

/// The error of a call as a person reads it: one line, without what could drive a terminal.
pub fn sentence<T: std::fmt::Debug>(answer: Result<T, PluginError>) -> String {
    let error = answer.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    assert_printable(&text);
    assert_printable(&error.hint().unwrap_or_default());
    text
}

/// No control characters but tabs and the ends of lines, and nothing that turns the direction of text.
pub fn assert_printable(text: &str) {
    let hostile = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(hostile), "{}", text.escape_debug());
}

/// Something to arrange.
pub fn topology() -> Topology {
    Topology {
        launcher: "x".to_owned(),
        nodes: 1,
        processes_per_node: 1,
        gpus_per_node: 0,
        main_address: "localhost".to_owned(),
        main_port: 29500,
        model: "m".to_owned(),
        job: "j".to_owned(),
        config: "{}".to_owned(),
        program: Program { interpreter: vec!["bash".to_owned()], file: "run.sh".to_owned() },
        env: Vec::new(),
        extra: Vec::new(),
    }
}
