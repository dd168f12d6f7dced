//! Where outsiders' plugins are built: one target directory for all of them, and one place for componentize-py.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::document::Session;
use crate::playground::MADDOCK;

/// Of componentize-py, as the templates name it.
const COMPONENTIZE: &str = "componentize-py==0.25.1";

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Where everything of these tests is built.
pub fn ground() -> PathBuf {
    let ground = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../outsiders");
    fs::create_dir_all(&ground).unwrap();
    ground.canonicalize().unwrap()
}

/// The target directory of all cargo projects.
pub fn target() -> PathBuf {
    let target = ground().join("target");
    fs::create_dir_all(&target).unwrap();
    target
}

/// The component of a crate.
pub fn component(name: &str) -> PathBuf {
    target().join("wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")))
}

/// Why a test cannot be: says so.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("this test").to_owned();
    eprintln!("skipped: {test} ({why})");
}

fn home(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(name)))
}

/// The environment of somebody with this binary, a toolchain and Python, and nothing else.
fn environment(place: &Path) -> Vec<(String, String)> {
    let programs = place.join("bin");
    fs::create_dir_all(&programs).unwrap();
    std::os::unix::fs::symlink(MADDOCK, programs.join("maddock")).unwrap();
    let mut path = vec![programs];
    let mut environment = BTreeMap::new();
    for (variable, name) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if let Some(found) = home(variable, name).filter(|found| found.is_dir()) {
            path.push(found.join("bin"));
            environment.insert(variable.to_owned(), found.display().to_string());
        }
    }
    path.extend(python().and_then(|python| python.parent().map(Path::to_owned)));
    path.extend(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from));
    let path = std::env::join_paths(path).unwrap().into_string().unwrap();
    for (name, value) in [("PATH", path.as_str()), ("LANG", "C.UTF-8"), ("COLUMNS", "80"), ("TERM", "dumb")] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    // How this machine reaches the registries is the machine's affair.
    let reach = |name: &str| {
        name.starts_with("PIP_") || name.to_ascii_lowercase().ends_with("_proxy") || name.starts_with("SSL_")
    };
    environment.extend(std::env::vars().filter(|(name, _)| reach(name)));
    // Fetched once for all sessions: each call of a registry is one that may fail.
    if componentize_lacks().is_none() {
        environment.insert("PIP_NO_INDEX".to_owned(), "1".to_owned());
        environment.insert("PIP_FIND_LINKS".to_owned(), wheels().display().to_string());
    }
    environment.into_iter().collect()
}

/// A session of a newcomer. `place` is empty.
pub fn newcomer(place: &Path) -> Session {
    Session::new(place, environment(place), &target())
}

/// cargo, as somebody calls it who has nothing to do with this build.
pub fn cargo(project: &Path) -> Command {
    let mut command = Command::new("cargo");
    let foreign = |name: &str| name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("RUSTFLAGS");
    for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)) {
        command.env_remove(name);
    }
    command.current_dir(project).env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
    command
}

/// Calls cargo, which has to succeed.
#[track_caller]
pub fn build(project: &Path, words: &[&str]) {
    let _turn = turn();
    let output = cargo(project).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} in {}:\n{said}{}",
        words.join(" "),
        project.display(),
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Whose turn it is to call cargo. Its own lock is not enough: `cargo test` lets go of it before the tests, and the projects'
/// vendored SDKs, which have one name and one path in each, replace each other in the one target directory.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy of an example, always at the same place, so that it is built once.
pub fn copy(example: &str) -> PathBuf {
    let (from, to) = (repository().join("examples/plugins").join(example), ground().join(example));
    let _ = fs::remove_dir_all(to.join("home"));
    take_over(&from, &to);
    to
}

/// Copies what has changed, without what was built there.
fn take_over(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        if ["target", "vendor", "wit", "venv", "__pycache__"].iter().any(|left| name == *left) {
            continue;
        }
        if source.is_dir() {
            take_over(&source, &copy);
        } else if fs::read(&source).ok() != fs::read(&copy).ok() {
            fs::copy(&source, &copy).unwrap();
        }
    }
}

/// The real interpreter, not what a version manager puts in its place, which needs a home.
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    });
    found.clone()
}

/// Where componentize-py and what it needs are kept once they were fetched.
fn wheels() -> PathBuf {
    ground().join("wheels")
}

/// Whether componentize-py can be had here: python3 with venv, and a registry or wheels. Says why not.
pub fn has_componentize() -> bool {
    let lacks = componentize_lacks();
    if let Some(why) = lacks {
        skipped(why);
    }
    lacks.is_none()
}

fn componentize_lacks() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    let lacks = LACKS.get_or_init(|| {
        let Some(python) = python() else { return Some("there is no python3".to_owned()) };
        let (venv, wheels) = (ground().join("probe"), wheels());
        let of = |output: std::io::Result<std::process::Output>, what: &str| match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
                Some(format!("{what}: {said}"))
            }
            Err(error) => Some(format!("{what}: {error}")),
        };
        of(Command::new(python).args(["-m", "venv"]).arg(&venv).output(), "python3 cannot make a venv").or_else(|| {
            let mut pip = Command::new(venv.join("bin/pip"));
            pip.args(["download", "-q", "-d"]).arg(&wheels).arg(COMPONENTIZE);
            of(pip.output(), "componentize-py cannot be had")
        })
    });
    lacks.as_deref()
}
