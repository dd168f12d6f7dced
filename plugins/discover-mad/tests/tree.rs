//! Discovery on real directories, with the real python3: this test is the host.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failing test helper is a failing test")]

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use discover_mad::host::Host;
use discover_mad::listing;
use maddock_sdk::Result;
use maddock_sdk::events::Level;
use maddock_sdk::files::{DirectoryEntry, FileKind};
use maddock_sdk::process::{Command, ExitStatus, Finished};
use maddock_sdk::serde_json::{Map, Value, from_str};
use maddock_sdk::types::{Card, Error, ErrorKind};

/// This machine, with what it was asked for.
#[derive(Default)]
struct Machine {
    refuses_programs: Option<ErrorKind>,
    started: RefCell<Vec<Vec<String>>>,
    said: RefCell<Vec<String>>,
}

fn host_error(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => maddock_sdk::not_found(error.to_string()),
        _ => maddock_sdk::failed(error.to_string()),
    }
}

impl Host for Machine {
    fn list(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        // The order of the file system, so that the plugin's own order shows.
        fs::read_dir(path)
            .map_err(|error| host_error(&error))?
            .map(|entry| {
                let entry = entry.map_err(|error| host_error(&error))?;
                let kind = if entry.path().is_dir() { FileKind::Directory } else { FileKind::File };
                Ok(DirectoryEntry { name: entry.file_name().into_string().unwrap(), kind })
            })
            .collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(path).map_err(|error| host_error(&error))
    }

    fn run(&self, command: &Command) -> Result<Finished> {
        self.started.borrow_mut().push(command.argv.clone());
        if let Some(kind) = &self.refuses_programs {
            return Err(maddock_sdk::of(kind.clone(), "policy refuses plugin `discover-mad` the call `process.run`")
                .detail("remedy", "to allow it: [[allow]]"));
        }
        let mut child = std::process::Command::new(&command.argv[0])
            .args(&command.argv[1..])
            .current_dir(command.directory.as_ref().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| host_error(&error))?;
        child.stdin.take().unwrap().write_all(command.stdin.as_ref().unwrap()).map_err(|error| host_error(&error))?;
        let output = child.wait_with_output().map_err(|error| host_error(&error))?;
        let status = match output.status.code() {
            Some(code) => ExitStatus::Exited(code),
            None => ExitStatus::Signalled(9),
        };
        Ok(Finished { status, stdout: output.stdout, stderr: output.stderr })
    }

    fn log(&self, _level: Level, message: &str) {
        self.said.borrow_mut().push(message.to_owned());
    }
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn of(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            let path = tree.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        tree
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no python3");
    }
    found
}

fn names(cards: &[Card]) -> Vec<&str> {
    cards.iter().map(|card| card.name.as_str()).collect()
}

fn model(card: &Card) -> Map<String, Value> {
    from_str(&card.model).unwrap()
}

fn detail<'a>(error: &'a Error, name: &str) -> Option<&'a str> {
    error.details.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
}

const DYNAMIC: &str = r#"
from madengine.utils.discover_models import CustomModel
import sibling
import subprocess

class Mine(CustomModel):
    def update_model(self):
        self.args = "--computed " + sibling.VALUE
        self.timeout = self.timeout + 1
        subprocess.run(["echo", "updating"])

def list_models():
    print("listing on standard output")
    return [Mine(name="a", scripts="run.sh", dockerfile="../../docker/a", tags=["x"]), CustomModel(name="b")]
"#;

fn dynamic_tree(file: &str) -> Tree {
    Tree::of(&[
        ("models.json", "[]"),
        ("scripts/dyn/get_models_json.py", file),
        ("scripts/dyn/sibling.py", "VALUE = 'deep'\n"),
    ])
}

#[test]
fn cards_come_in_the_order_root_then_scoped_then_dynamic_and_directories_by_name() {
    if !has_python() {
        return;
    }
    let dynamic =
        "from madengine.utils.discover_models import CustomModel\ndef list_models(): return [CustomModel(name='m')]\n";
    let tree = Tree::of(&[
        ("models.json", r#"[{"name": "root"}]"#),
        ("scripts/z/models.json", r#"[{"name": "m"}]"#),
        ("scripts/c/models.json", r#"[{"name": "m"}]"#),
        ("scripts/b/get_models_json.py", dynamic),
        ("scripts/a/get_models_json.py", dynamic),
        ("scripts/none/run.sh", ""),
        ("scripts/file.json", ""),
    ]);
    let machine = Machine::default();
    let listing = listing::list_models(&machine, tree.path()).unwrap();
    assert_eq!(names(&listing.cards), ["root", "c/m", "z/m", "a/m", "b/m"]);
    assert_eq!(listing.cards[3].source, "scripts/a/get_models_json.py");
    assert_eq!(machine.started.borrow().len(), 2, "one call for each directory");
}

#[test]
fn a_tree_without_a_models_file_is_not_found() {
    let tree = Tree::of(&[("scripts/x/models.json", "[]")]);
    let error = listing::list_models(&Machine::default(), tree.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains(tree.path()) && error.hint.is_some());
}

#[test]
fn a_tree_without_scripts_has_its_own_models() {
    let tree = Tree::of(&[("models.json", r#"[{"name": "root"}]"#)]);
    let with_slash = format!("{}/", tree.path());
    let listing = listing::list_models(&Machine::default(), &with_slash).unwrap();
    assert_eq!(names(&listing.cards), ["root"]);
}

#[test]
fn a_directory_with_both_files_is_an_error() {
    let tree =
        Tree::of(&[("models.json", "[]"), ("scripts/x/models.json", "[]"), ("scripts/x/get_models_json.py", "")]);
    let error = listing::list_models(&Machine::default(), tree.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert!(error.message.contains("`scripts/x` has both"));
}

#[test]
fn a_listed_python_model_shows_what_is_known_before_it_is_selected() {
    if !has_python() {
        return;
    }
    let tree = dynamic_tree(DYNAMIC);
    let machine = Machine::default();
    let listing = listing::list_models(&machine, tree.path()).unwrap();
    assert_eq!(names(&listing.cards), ["dyn/a", "dyn/b"]);
    assert_eq!(listing.cards[0].tags, ["x"]);
    let card = model(&listing.cards[0]);
    assert_eq!(card.len(), 15, "exactly the fields of the contract: {card:?}");
    assert_eq!((&card["name"], &card["args"]), (&Value::from("dyn/a"), &Value::from("")));
    assert_eq!((&card["n_gpus"], &card["timeout"]), (&Value::from("-1"), &Value::from(7200)));
    assert!(machine.said.borrow().iter().any(|line| line.contains("listing on standard output")));
    assert!(!tree.0.path().join("scripts/dyn/__pycache__").exists(), "nothing is written into the tree");
}

#[test]
fn a_model_selected_twice_is_completed_once_and_keeps_the_arguments_of_each_selection() {
    if !has_python() {
        return;
    }
    let tree = dynamic_tree(DYNAMIC);
    let machine = Machine::default();
    let listed = listing::list_models(&machine, tree.path()).unwrap().cards;
    let mut second = listed[0].clone();
    second.model = second.model.replace(r#""args":"""#, r#""args":" --in 7""#);
    let static_card =
        Card { name: "s".to_owned(), tags: Vec::new(), source: "models.json".to_owned(), model: "{}".to_owned() };
    let selected = vec![listed[0].clone(), static_card.clone(), second];
    let finalised = listing::finalise(&machine, tree.path(), selected).unwrap();

    assert_eq!(names(&finalised), ["dyn/a", "s", "dyn/a"]);
    assert_eq!(finalised[1], static_card);
    let (first, second) = (model(&finalised[0]), model(&finalised[2]));
    assert_eq!(first["args"], "--computed deep");
    assert_eq!(second["args"], "--computed deep --in 7");
    for card in [&first, &second] {
        assert_eq!(card["scripts"], "scripts/dyn/run.sh");
        assert_eq!(card["dockerfile"], "docker/a");
        assert_eq!(card["timeout"], 7201);
    }
    assert_eq!(machine.started.borrow().len(), 2, "one call to list, one to complete");
}

#[test]
fn update_model_cannot_change_name_or_tags() {
    if !has_python() {
        return;
    }
    let tree = dynamic_tree(&DYNAMIC.replace("self.timeout =", "self.name = 'other'; self.timeout ="));
    let machine = Machine::default();
    let listed = listing::list_models(&machine, tree.path()).unwrap().cards;
    let again = vec![listed[0].clone(), listed[0].clone()];
    let finalised = listing::finalise(&machine, tree.path(), again).unwrap();
    assert_eq!(names(&finalised), ["dyn/a", "dyn/a"]);
    assert_eq!(model(&finalised[1])["name"], "dyn/a");
    assert!(machine.said.borrow().iter().any(|line| line.contains("changed its `name`")));
}

#[test]
fn a_wrong_python_file_is_told_with_file_and_line() {
    if !has_python() {
        return;
    }
    let import = "from madengine.utils.discover_models import CustomModel\n";
    for (file, line, word) in [
        ("x = 1\n", None, "no function `list_models`"),
        ("def list_models():\n    return None\n", None, "`NoneType`, which is no list"),
        ("def list_models():\n    return [{'name': 'a'}]\n", None, "entry 1 of `list_models()` is a `dict`"),
        ("\n\nraise ValueError('boom')\n", Some("3"), "ValueError: boom"),
        ("def list_models():\n    return (\n", Some("2"), "SyntaxError"),
        ("import sys\nsys.exit(0)\n", Some("2"), "SystemExit"),
        ("import not_there\n", Some("1"), "No module named 'not_there'"),
        ("def list_models():\n    return [CustomModel()]\n", Some("3"), "TypeError"),
        ("def list_models():\n    return [CustomModel(name='')]\n", None, "`name` is empty"),
        ("def list_models():\n    return [CustomModel(name='a', data={1})]\n", None, "`data` of a model"),
    ] {
        let file = if file.contains("CustomModel") { format!("{import}{file}") } else { file.to_owned() };
        let tree = dynamic_tree(&file);
        let error = listing::list_models(&Machine::default(), tree.path()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{file}: {}", error.message);
        assert_eq!(detail(&error, "file"), Some("scripts/dyn/get_models_json.py"), "{file}");
        assert_eq!(detail(&error, "line"), line, "{file}: {}", error.message);
        assert!(error.message.contains(word), "{}", error.message);
        assert!(error.hint.is_some());
    }
}

#[test]
fn a_python_that_dies_is_a_failure_with_its_last_words() {
    if !has_python() {
        return;
    }
    let tree = dynamic_tree("import os, sys\nsys.stderr.write('going down\\n')\nsys.stderr.flush()\nos._exit(5)\n");
    let error = listing::list_models(&Machine::default(), tree.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Failed);
    assert!(error.message.contains("exit code 5"), "{}", error.message);
    assert_eq!(detail(&error, "output"), Some("going down"));
}

#[test]
fn a_refused_python_skips_its_directory_and_lists_the_rest() {
    let tree = Tree::of(&[
        ("models.json", r#"[{"name": "root"}]"#),
        ("scripts/dyn/get_models_json.py", DYNAMIC),
        ("scripts/static/models.json", r#"[{"name": "m"}]"#),
    ]);
    for kind in [ErrorKind::Denied, ErrorKind::NotFound] {
        let machine = Machine { refuses_programs: Some(kind), ..Machine::default() };
        let listing = listing::list_models(&machine, tree.path()).unwrap();
        assert_eq!(names(&listing.cards), ["root", "static/m"]);
        assert_eq!(listing.skipped.len(), 1);
        assert_eq!(listing.skipped[0].path, "scripts/dyn/get_models_json.py");
        assert!(listing.skipped[0].reason.contains("policy refuses"));
        assert_eq!(listing.skipped[0].hint.as_deref(), Some("to allow it: [[allow]]"));
    }
}

#[test]
fn names_that_look_like_code_stay_names() {
    if !has_python() {
        return;
    }
    let name = "'\\\"); import os; os._exit(9) #\\n";
    let file = format!(
        "from madengine.utils.discover_models import CustomModel\ndef list_models():\n    return [CustomModel(name=\"{name}\")]\n"
    );
    let tree = dynamic_tree(&file);
    let machine = Machine::default();
    let listed = listing::list_models(&machine, tree.path()).unwrap().cards;
    let finalised = listing::finalise(&machine, tree.path(), listed.clone()).unwrap();
    assert_eq!(finalised[0].name, listed[0].name);
    assert!(finalised[0].name.contains("os._exit(9)"));
}

#[test]
fn the_example_tree_lists_and_completes() {
    if !has_python() {
        return;
    }
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mad").canonicalize().unwrap();
    let tree = tree.to_str().unwrap();
    let machine = Machine::default();
    let cards = listing::list_models(&machine, tree).unwrap().cards;
    assert_eq!(
        names(&cards),
        [
            "dummy",
            "dummy-multi",
            "dummy-args",
            "dummy-cpu",
            "dummy-fail",
            "dummy-silent",
            "dummy-scan",
            "dummy-slow",
            "scoped/small",
            "scoped/large",
            "dynamic/sequence-128",
            "dynamic/sequence-512",
        ]
    );
    for card in listing::finalise(&machine, tree, cards).unwrap() {
        let model = model(&card);
        let scripts = Path::new(tree).join(model["scripts"].as_str().unwrap());
        assert!(scripts.is_file() || scripts.join("run.sh").is_file(), "{}", card.name);
        let dockerfile = format!("{}.ubuntu.amd.Dockerfile", model["dockerfile"].as_str().unwrap());
        assert!(Path::new(tree).join(dockerfile).is_file(), "{}", card.name);
        assert!(card.tags.contains(&"all-outcomes".to_owned()));
        assert_ne!(card.tags.contains(&"quick".to_owned()), card.tags.contains(&"failing".to_owned()));
    }
}
