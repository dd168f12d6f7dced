//! Documents whose blocks are executed word for word, one after the other, in one shell session.
//!
//! - ```` ```console ````: lines after `$ ` are commands (a last `\` goes on in the next line, which begins with `> `); the
//!   lines after them are what they print. In these, `…` stands for any characters, and alone in a line for any number of
//!   lines. A command after which nothing is shown may print anything. Each has to succeed, but where the next command is
//!   `echo $?`.
//! - ```` ```LANGUAGE FILE ````: the content of a file.
//! - ```` ```diff ````: a change of the file that its head names.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::Signal;

use crate::workshop::turn;

/// A command that takes longer will never end.
const LONG: Duration = Duration::from_secs(900);

/// A piece of a document that is executed.
#[derive(Debug)]
enum Block {
    Commands(Vec<Step>),
    File { path: String, text: String },
    Change { path: String, old: String, new: String },
}

/// A command and what is shown of its output.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    shown: Vec<String>,
}

/// The blocks of a document, from the heading `from` on, up to the heading `to` where one is given.
fn blocks(text: &str, from: Option<&str>, to: Option<&str>) -> Vec<(usize, Block)> {
    let mut blocks = Vec::new();
    let mut inside = from.is_none();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.starts_with("## ") {
            let heading = line.trim_start_matches("## ");
            inside |= Some(heading) == from;
            if Some(heading) == to {
                return blocks;
            }
        }
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if !inside {
            continue;
        }
        let (language, file) = info.split_once(' ').unwrap_or((info, ""));
        match (language, file) {
            ("console", _) => blocks.push((at + 1, Block::Commands(steps(&body, at + 2)))),
            ("diff", _) => blocks.push((at + 1, change(&body))),
            (_, "") => {}
            (_, file) => {
                blocks.push((at + 1, Block::File { path: file.to_owned(), text: body.join("\n") + "\n" }));
            }
        }
    }
    assert!(inside, "there is no heading `{}`", from.unwrap_or_default());
    blocks
}

fn steps(body: &[&str], first: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in body.iter().enumerate() {
        let goes_on = steps.last().is_some_and(|step| step.command.ends_with('\\'));
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { line: first + at, command: command.to_owned(), shown: Vec::new() });
            }
            (None, Some(step)) if goes_on => {
                step.command.push('\n');
                step.command.push_str(line.strip_prefix("> ").expect("a command goes on after `> `"));
            }
            (None, Some(step)) => step.shown.push((*line).to_owned()),
            (None, None) => panic!("line {}: output of no command", first + at),
        }
    }
    steps
}

fn change(body: &[&str]) -> Block {
    let path = body.iter().find_map(|line| line.strip_prefix("+++ ")).expect("a change names its file").to_owned();
    let (mut old, mut new) = (String::new(), String::new());
    for line in body.iter().filter(|line| !["+++", "---", "@@"].iter().any(|head| line.starts_with(head))) {
        let (sign, rest) = line.split_at(line.chars().next().map_or(0, char::len_utf8));
        if sign != "+" {
            old += &format!("{rest}\n");
        }
        if sign != "-" {
            new += &format!("{rest}\n");
        }
    }
    Block::Change { path, old, new }
}

/// Whether an output is as it is shown.
fn is_as_shown(shown: &[String], output: &str) -> bool {
    let mut pattern = String::from("^");
    for line in shown {
        if line == "…" {
            pattern.push_str("(?:.*\n)*?");
        } else {
            pattern.push_str(&line.split('…').map(regex::escape).collect::<Vec<_>>().join(".*"));
            pattern.push_str("\\s*?\n");
        }
    }
    pattern.push('$');
    Regex::new(&pattern).unwrap().is_match(output)
}

/// A shell session of a newcomer: an empty home, this binary, a toolchain, and nothing else of ours.
pub struct Session {
    place: PathBuf,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    /// Where `target` of a cargo project leads, so that nothing is built twice.
    target: PathBuf,
    code: i32,
}

impl Session {
    /// Below `place`, which is empty, with this environment alone.
    pub fn new(place: &Path, environment: Vec<(String, String)>, target: &Path) -> Self {
        let (home, directory) = (place.join("home"), place.join("work"));
        for made in [&home, &directory] {
            fs::create_dir_all(made).unwrap();
        }
        let mut session = Self { place: place.to_owned(), directory, environment, target: target.to_owned(), code: 0 };
        session.environment.push(("HOME".to_owned(), home.display().to_string()));
        session
    }

    /// Goes elsewhere.
    pub fn enter(&mut self, directory: &Path) {
        directory.clone_into(&mut self.directory);
    }

    /// Executes a document from a heading on, up to another.
    #[track_caller]
    pub fn follow(&mut self, document: &Path, from: Option<&str>, to: Option<&str>) {
        let text = fs::read_to_string(document).unwrap();
        let name = document.display();
        for (line, block) in blocks(&text, from, to) {
            match block {
                Block::File { path, text } => {
                    let path = self.directory.join(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, text).unwrap();
                }
                Block::Change { path, old, new } => {
                    let path = self.directory.join(path);
                    let text = fs::read_to_string(&path).unwrap();
                    assert_eq!(
                        text.matches(&old).count(),
                        1,
                        "{name}:{line}: what is changed is not there once:\n{old}"
                    );
                    fs::write(path, text.replacen(&old, &new, 1)).unwrap();
                }
                Block::Commands(steps) => {
                    for (at, step) in steps.iter().enumerate() {
                        let next = steps.get(at + 1);
                        let output = self.run(&step.command);
                        let allowed = next.is_some_and(|next| next.command == "echo $?");
                        let said = format!("{name}:{}: `{}`", step.line, step.command);
                        assert!(self.code == 0 || allowed, "{said} ended with {}:\n{output}", self.code);
                        let as_shown = step.shown.is_empty() || is_as_shown(&step.shown, &output);
                        assert!(as_shown, "{said} printed\n{output}\nand is shown with\n{}", step.shown.join("\n"));
                    }
                }
            }
        }
    }

    /// Runs one command as the shell would that the reader sits at; answers what it printed.
    fn run(&mut self, command: &str) -> String {
        let _turn = command.starts_with("cargo ").then(turn);
        let (output, state) = (self.place.join("output"), self.place.join("state"));
        let link = self.directory.join("target");
        if self.directory.join("Cargo.toml").is_file() && !link.exists() {
            std::os::unix::fs::symlink(&self.target, link).unwrap();
        }
        // What the command leaves behind in the background must not be waited for: hence a file and no pipe.
        let file = fs::File::create(&output).unwrap();
        let script = format!(
            "[ ! -e \"$STATE\" ] || . \"$STATE\"\n(exit {})\n{command}\ncode=$?\n{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > \"$STATE\"\nexit $code\n",
            self.code
        );
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .env_clear()
            .envs(self.environment.iter().cloned())
            .env("STATE", &state)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LONG {
                rustix::process::kill_process_group(rustix::process::Pid::from_child(&shell), Signal::KILL).unwrap();
                panic!("`{command}` goes on and on:\n{}", fs::read_to_string(&output).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.code = status.code().unwrap_or(-1);
        let saved = fs::read_to_string(&state).unwrap();
        let directory = saved.lines().last().and_then(|line| line.strip_prefix("cd ")).unwrap();
        self.directory = PathBuf::from(directory);
        fs::read_to_string(output).unwrap()
    }
}

#[test]
fn what_is_shown_is_compared() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(is_as_shown(&shown("a …\n…\nz"), "a b\n1\n2\nz\n"));
    assert!(is_as_shown(&shown("…\nz"), "z\n"));
    assert!(!is_as_shown(&shown("a …\nz"), "a b\n1\nz\n"));
    assert!(!is_as_shown(&shown("a.c"), "abc\n"));
    assert!(!is_as_shown(&shown("a"), "a\nb\n"));
}

#[test]
fn a_document_is_read_as_it_is_written() {
    let text = "# x\n```console\n$ skipped\n```\n## here\n```console\n$ one \\\n> two\nout\n$ three\n```\n```json a/b.json\n{}\n```\n\
                ```diff\n--- f\n+++ f\n a\n-b\n+c\n```\n```text\nno block\n```\n## end\n```console\n$ skipped\n```\n";
    let found = blocks(text, Some("here"), Some("end"));
    let shape = format!("{:?}", found.iter().map(|(_, block)| block).collect::<Vec<_>>());
    assert_eq!(
        shape,
        "[Commands([Step { line: 7, command: \"one \\\\\\ntwo\", shown: [\"out\"] }, Step { line: 10, command: \"three\", shown: \
         [] }]), File { path: \"a/b.json\", text: \"{}\\n\" }, Change { path: \"f\", old: \"a\\nb\\n\", new: \"a\\nc\\n\" }]"
    );
}
