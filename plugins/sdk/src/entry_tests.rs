//! The script as text (golden files) and as it runs, with bash on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;
use crate::job_result::{JobResult, Stage};
use crate::target::{Hook, JobPaths, Script, Topology};
use crate::types::Entry;

/// A directory that goes away with the test.
struct Workspace(PathBuf);

impl Workspace {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("maddock-entry-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join(STATE)).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn command(&self, job: &Job, role: Option<&NodeRole>) -> Command {
        self.put(SCRIPT, &script(job, role));
        let mut command = Command::new("bash");
        command.arg(self.0.join(SCRIPT)).current_dir("/");
        command
    }

    fn run(&self, job: &Job) -> (Output, JobResult) {
        let output = self.command(job, None).output().unwrap();
        let result = JobResult::parse(&self.read(RESULT)).unwrap();
        assert_eq!(output.status.code(), Some(result.exit), "{output:?}");
        (output, result)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn words(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn hook(file: &str, arguments: &[&str]) -> Hook {
    Hook { file: file.to_owned(), arguments: words(arguments) }
}

fn job() -> Job {
    Job {
        run_id: "20250101-000000-ab12".into(),
        id: "dummy".into(),
        model: "dummy".into(),
        card: "{}".into(),
        image: None,
        topology: Topology {
            nodes: 1,
            processes_per_node: 1,
            gpus_per_node: 0,
            launcher: "none".into(),
            main_port: 29500,
            roles: Vec::new(),
        },
        script: Script {
            interpreter: words(&["bash"]),
            file: "run.sh".into(),
            arguments: Vec::new(),
            encapsulate: String::new(),
            before: Vec::new(),
            after: Vec::new(),
            clone_url: None,
        },
        env: Vec::new(),
        accelerators: None,
        time_limit: None,
        paths: JobPaths {
            directory: "/run/jobs/dummy".into(),
            workspace: "/run/jobs/dummy/workspace".into(),
            work_directory: "run_directory".into(),
            tree: "/mad".into(),
        },
        profile: String::new(),
        options: JobOptions::empty(),
        collect: Vec::new(),
        config: "{}".into(),
        extra: Vec::new(),
    }
}

fn golden(name: &str, job: &Job, role: Option<&NodeRole>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let rendered = script(job, role);
    if std::env::var_os("MADDOCK_BLESS").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(rendered == expected, "`{name}` changed; look at it with MADDOCK_BLESS=1 and git diff");
}

#[test]
fn the_plain_script_is_the_golden_one() {
    let mut job = job();
    job.script.arguments = words(&["--batch-size", "32"]);
    golden("plain.sh", &job, None);
}

#[test]
fn the_full_script_is_the_golden_one() {
    let mut job = job();
    job.card = r#"{"cred": "PRIVATE"}"#.into();
    job.script.interpreter = words(&["python3", "-u"]);
    job.script.file = "train.py".into();
    job.script.arguments = words(&["it's", "$(id)", ""]);
    job.script.encapsulate = "echo cmd_A && ".into();
    job.script.clone_url = Some("https://example.com/a b.git".into());
    job.script.before = vec![hook("scripts/common/pre_scripts/pre_test.sh", &["1"])];
    job.script.after = vec![hook("scripts/common/post_scripts/post_test.sh", &["2"])];
    job.options = JobOptions::KEEP_ALIVE;
    job.time_limit = Some(7200);
    golden("full.sh", &job, None);
}

#[test]
fn a_role_with_a_command_of_its_own_is_the_golden_one() {
    let mut job = job();
    job.options = JobOptions::SKIP_MODEL;
    let role = NodeRole {
        node: 0,
        name: "worker".into(),
        env: Vec::new(),
        command: Some(words(&["torchrun", "--standalone", "a b.py"])),
    };
    golden("role.sh", &job, Some(&role));
}

/// Values that a careless script would expand, split, drop or obey.
fn hostile() -> Vec<String> {
    words(&[
        "",
        " ",
        "a  b",
        "it's",
        "''",
        "\"",
        "\\",
        "\\'",
        "$(id)",
        "`id`",
        "$HOME",
        "${HOME}",
        "*",
        "?",
        "[a-z]*",
        "~",
        "~root",
        "a\nb",
        "\n",
        "end\n",
        "MODEL",
        "x\nMODEL\nrm -rf /nowhere",
        "\t",
        "-rf",
        "--",
        "-e",
        "a;b",
        "a&b",
        "a|b",
        "<in",
        ">out",
        "#comment",
        "a=b",
        "{a,b}",
        "!!",
        "grüße 🚀 日本",
        "\u{202e}rtl",
        "\r\n",
        "%s",
        "\u{1}",
    ])
}

const TELL: &str = "printf '%s\\0' \"$@\" > \"$0.told\"\npwd >> where\n";

fn told(workspace: &Workspace, file: &str) -> Vec<String> {
    let mut told: Vec<String> = workspace.read(file).split('\0').map(str::to_owned).collect();
    assert_eq!(told.pop().as_deref(), Some(""));
    told
}

#[test]
fn model_and_hooks_get_hostile_arguments_literally() {
    for directory in ["run_directory", "-it's a\n$(id) 日本"] {
        let workspace = Workspace::new(&format!("hostile {}", directory.len()));
        workspace.put(&format!("{directory}/-run it's.sh"), TELL);
        workspace.put("scripts/common/-be $(id).sh", TELL);
        workspace.put("scripts/common/after\n.sh", TELL);
        let mut job = job();
        job.paths.work_directory = directory.to_owned();
        job.script.file = "-run it's.sh".into();
        job.script.arguments = hostile();
        job.script.before = vec![Hook { file: "scripts/common/-be $(id).sh".into(), arguments: hostile() }];
        job.script.after = vec![Hook { file: "scripts/common/after\n.sh".into(), arguments: hostile() }];
        let (output, result) = workspace.run(&job);
        assert_eq!((result.exit, result.model), (0, Some(0)), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        for file in ["-run it's.sh", "-be $(id).sh", "after\n.sh"] {
            assert_eq!(told(&workspace, &format!("{directory}/{file}.told")), hostile(), "{file}");
        }
        let place = format!("{}\n", workspace.0.join(directory).display());
        assert_eq!(workspace.read(&format!("{directory}/where")), place.repeat(3));
    }
}

#[test]
fn a_command_of_the_role_gets_hostile_words_literally() {
    let workspace = Workspace::new("role");
    workspace.put("run_directory/tell.sh", TELL);
    let command = words(&["bash", "tell.sh"]).into_iter().chain(hostile()).collect();
    let role = NodeRole { node: 0, name: "worker".into(), env: Vec::new(), command: Some(command) };
    let output = workspace.command(&job(), Some(&role)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(told(&workspace, "run_directory/tell.sh.told"), hostile());
}

#[test]
fn references_are_expanded_and_nothing_beside_them() {
    let workspace = Workspace::new("references");
    workspace.put("run_directory/tell.sh", TELL);
    let mut job = job();
    job.script.file = "tell.sh".into();
    job.script.arguments = hostile();
    job.script.arguments.push("$MADDOCK_NODES".into());
    job.topology.processes_per_node = 4;
    let odd = "$(id)`id` $HOME 'x' $MADDOCK_NODES";
    let entry = |name: &str, value: String| Entry { name: name.into(), value };
    let role = NodeRole {
        node: 0,
        name: "worker".into(),
        env: vec![
            entry("A", format!("{} at $MADDOCK_MAIN_NODE", references::literal(odd))),
            entry("ALL", "$MADDOCK_NODES".into()),
            entry("HOSTS", "$MADDOCK_HOSTFILE".into()),
        ],
        command: Some(words(&[
            "bash",
            "$MADDOCK_SCRIPT",
            "x$MADDOCK_NODE_1:1",
            "$MADDOCK_NODE_ADDRESS",
            "$$MADDOCK_NODES",
        ])),
    };
    workspace.put("run_directory/env.sh", "");
    job.script.before = vec![Hook { file: "scripts/look.sh".into(), arguments: Vec::new() }];
    workspace.put("scripts/look.sh", "printf '%s|%s|' \"$A\" \"$ALL\" > looked; cat \"$HOSTS\" >> looked");
    let mut command = workspace.command(&job, Some(&role));
    command.env("MADDOCK_MAIN_NODE", "m $x").env("MADDOCK_NODES", "m,n'1").env("MADDOCK_NODE_ADDRESS", "10.0.0.1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut expected = job.script.arguments.clone();
    expected.extend(words(&["xn'1:1", "10.0.0.1", "$MADDOCK_NODES"]));
    assert_eq!(told(&workspace, "run_directory/tell.sh.told"), expected);
    assert_eq!(workspace.read("run_directory/looked"), format!("{odd} at m $x|m,n'1|m slots=4\nn'1 slots=4\n"));
}

#[test]
fn a_target_that_does_not_say_where_the_nodes_are_is_named() {
    let workspace = Workspace::new("unsaid");
    workspace.put("run_directory/run.sh", "echo never");
    for (value, missing) in [
        ("$MADDOCK_MAIN_NODE", "MADDOCK_MAIN_NODE"),
        ("$MADDOCK_HOSTFILE", "MADDOCK_NODES"),
        ("$MADDOCK_NODE_2", "MADDOCK_NODE_2"),
    ] {
        let env = vec![Entry { name: "A".into(), value: value.into() }];
        let role = NodeRole { node: 0, name: "worker".into(), env, command: None };
        let mut command = workspace.command(&job(), Some(&role));
        if missing == "MADDOCK_NODE_2" {
            command.env("MADDOCK_NODES", "a,b");
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("has not set {missing} ")), "{said}");
    }
}

#[test]
fn the_exit_code_of_the_model_survives_the_scripts_after_it() {
    let workspace = Workspace::new("code");
    workspace.put("run_directory/run.sh", "echo performance: 1 x; exit 7");
    workspace.put("scripts/a.sh", "echo after $1; exit $1");
    let mut job = job();
    job.script.after = vec![hook("scripts/a.sh", &["0"]), hook("scripts/a.sh", &["9"]), hook("scripts/a.sh", &["0"])];
    let (output, result) = workspace.run(&job);
    assert_eq!((result.exit, result.model, result.stage), (7, Some(7), Stage::Model));
    assert_eq!(text(&output.stdout), "performance: 1 x\nafter 0\nafter 9\nafter 0\n");
    assert!(text(&output.stderr).contains("a.sh, ended with code 9"));
}

#[test]
fn a_failed_script_after_the_model_fails_the_job() {
    let workspace = Workspace::new("after");
    workspace.put("run_directory/run.sh", "true");
    workspace.put("scripts/a.sh", "exit 9");
    let mut job = job();
    job.script.after = vec![hook("scripts/a.sh", &[])];
    let (_, result) = workspace.run(&job);
    assert_eq!((result.exit, result.model, result.stage), (9, Some(0), Stage::After));
}

#[test]
fn a_failed_script_before_the_model_ends_the_job_with_its_code() {
    let workspace = Workspace::new("before");
    workspace.put("run_directory/run.sh", "echo model");
    workspace.put("scripts/b.sh", "exit 4");
    let mut job = job();
    job.script.before = vec![hook("scripts/b.sh", &[]), hook("scripts/b.sh", &[])];
    let (output, result) = workspace.run(&job);
    assert_eq!((result.exit, result.model, result.stage, result.seconds), (4, None, Stage::Before, None));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_script_that_is_not_there_fails_the_job() {
    let workspace = Workspace::new("absent");
    let mut job = job();
    job.script.before = vec![hook("scripts/none.sh", &[])];
    let (_, result) = workspace.run(&job);
    assert_eq!((result.exit, result.stage), (125, Stage::Before));
}

#[test]
fn the_encapsulating_fragment_is_shell() {
    let workspace = Workspace::new("encapsulate");
    workspace.put("run_directory/run.sh", "echo \"model $X $1\"; exit 5");
    let mut job = job();
    job.script.encapsulate = "echo cmd_A && echo cmd_B && X=$((1 + 1)) ".into();
    job.script.arguments = words(&["$((1 + 1))"]);
    let (output, result) = workspace.run(&job);
    assert_eq!(text(&output.stdout), "cmd_A\ncmd_B\nmodel 2 $((1 + 1))\n");
    assert_eq!(result.exit, 5);
}

#[test]
fn a_broken_fragment_does_not_take_the_result_along() {
    for fragment in ["if true; then (", "exit 3;", "MODEL\n", "'"] {
        let workspace = Workspace::new(&format!("fragment {}", fragment.len()));
        workspace.put("run_directory/run.sh", "exit 0");
        let mut job = job();
        job.script.encapsulate = fragment.into();
        let (_, result) = workspace.run(&job);
        assert_eq!(result.stage, Stage::Model, "{fragment}");
        assert_eq!(result.model, Some(result.exit), "{fragment}");
    }
}

#[test]
fn a_skipped_model_is_shown_and_not_run() {
    let workspace = Workspace::new("skip");
    workspace.put("run_directory/run.sh", "touch ran");
    workspace.put("scripts/b.sh", "echo before");
    let mut job = job();
    job.options = JobOptions::SKIP_MODEL;
    job.script.before = vec![hook("scripts/b.sh", &[])];
    job.script.arguments = words(&["a b"]);
    let (output, result) = workspace.run(&job);
    assert_eq!((result.exit, result.stage, result.model), (0, Stage::Skipped, None));
    assert!(!workspace.0.join("run_directory/ran").exists());
    let shown = text(&output.stdout);
    assert!(shown.starts_with("before\n") && shown.ends_with("exec bash run.sh 'a b'\n"), "{shown}");
}

#[test]
fn a_cloned_repository_gives_way_to_the_staged_scripts() {
    let workspace = Workspace::new("clone");
    let origin = workspace.0.join("it's an origin");
    fs::create_dir_all(&origin).unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let output = Command::new("git").current_dir(&origin).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).trim().to_owned()
    };
    git(&["init", "-q"]);
    fs::write(origin.join("run.sh"), "echo from the repository").unwrap();
    fs::write(origin.join("data"), "data of the repository").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    let head = git(&["rev-parse", "HEAD"]);
    workspace.put("run_directory/run.sh", "echo staged; cat data; git rev-parse HEAD");
    let mut job = job();
    job.card = r#"{"cred": "NAME"}"#.into();
    job.script.clone_url = Some(origin.display().to_string());
    let (output, result) = workspace.run(&job);
    assert_eq!(result.git_commit.as_deref(), Some(head.as_str()), "{output:?}");
    assert_eq!(text(&output.stdout), format!("staged\ndata of the repository{head}\n"));
}

#[test]
fn a_clone_that_fails_ends_the_job() {
    let workspace = Workspace::new("no clone");
    workspace.put("run_directory/run.sh", "echo model");
    let mut job = job();
    job.script.clone_url = Some("--upload-pack=touch /nowhere".into());
    let (output, result) = workspace.run(&job);
    assert_eq!((result.exit, result.stage), (128, Stage::Clone));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_request_to_end_reaches_the_model_and_the_result_is_written() {
    let workspace = Workspace::new("end");
    // The model itself sends the request, so that nothing has to be timed.
    let model = "trap 'kill $nap; exit 6' TERM; sleep 600 & nap=$!; kill -TERM $PPID; wait";
    workspace.put("run_directory/run.sh", model);
    workspace.put("scripts/a.sh", "echo after");
    let mut job = job();
    job.script.after = vec![hook("scripts/a.sh", &[])];
    let (output, result) = workspace.run(&job);
    assert_eq!((result.exit, result.model), (6, Some(6)), "{output:?}");
    assert_eq!(text(&output.stdout), "after\n");
}

#[test]
fn a_job_that_nobody_ends_ends_by_itself() {
    let workspace = Workspace::new("overdue");
    workspace.put("run_directory/run.sh", "exec sleep 600");
    let mut job = job();
    job.time_limit = Some(0);
    let text = script(&job, None);
    assert!(text.contains("\nmaddock_limit=5\n"));
    workspace.put(SCRIPT, &text.replace("\nmaddock_limit=5\n", "\nmaddock_limit=0.2\n"));
    let output = Command::new("bash").arg(workspace.0.join(SCRIPT)).output().unwrap();
    let result = JobResult::parse(&workspace.read(RESULT)).unwrap();
    assert_eq!((result.exit, result.stage), (143, Stage::TimedOut), "{output:?}");
}

#[test]
fn a_job_within_its_limit_leaves_nothing_running() {
    let workspace = Workspace::new("limit");
    workspace.put("run_directory/run.sh", "true");
    let mut job = job();
    job.time_limit = Some(86_400);
    let mut command = workspace.command(&job, None);
    // A program left behind would hold this pipe open, and `output` would wait for it.
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn seconds_are_those_of_the_model() {
    let workspace = Workspace::new("seconds");
    workspace.put("run_directory/run.sh", "sleep 0.1");
    let (_, result) = workspace.run(&job());
    assert!(result.seconds.is_some_and(|seconds| seconds >= 0.1), "{result:?}");
}

#[test]
fn what_the_job_made_can_be_read_and_removed_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let workspace = Workspace::new("mode");
    workspace.put("run_directory/run.sh", "umask 077; mkdir d; touch d/f");
    workspace.run(&job());
    let mode = |name: &str| fs::metadata(workspace.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run_directory/d"), mode("run_directory/d/f")), (0o777, 0o666));
    assert_eq!(mode(RESULT) & 0o444, 0o444);
}

#[test]
fn a_job_kept_alive_stays_after_its_result_until_it_is_asked_to_end() {
    let workspace = Workspace::new("keep");
    workspace.put("run_directory/run.sh", "exit 3");
    let mut job = job();
    job.options = JobOptions::KEEP_ALIVE;
    let mut child = workspace.command(&job, None).spawn().unwrap();
    while !workspace.0.join(RESULT).exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a result");
        std::thread::yield_now();
    }
    // Asked until it hears: the trap is set a moment after the result is written.
    let status = loop {
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(3));
}

#[test]
fn variables_of_a_job_reach_the_model_whatever_their_names_are() {
    let names = [
        "here",
        "workspace",
        "state",
        "work",
        "code",
        "stage",
        "model",
        "seconds",
        "commit",
        "child",
        "watchdog",
        "heard",
        "at",
        "status",
        "again",
        "before",
        "name",
        "nap",
        "limit",
        "started",
        "milliseconds",
        "git",
        "url",
        "nodes",
    ];
    let workspace = Workspace::new("names");
    workspace.put("pre.sh", "env > before.txt");
    workspace.put("run_directory/run.sh", "env > model.txt");
    let mut job = job();
    job.time_limit = Some(60);
    job.script.before = vec![hook("pre.sh", &[])];
    let env = vec![Entry { name: "LIST".into(), value: "$MADDOCK_NODE_1".into() }];
    let role = NodeRole { node: 0, name: "worker".into(), env, command: None };
    let mut command = workspace.command(&job, Some(&role));
    command.env("MADDOCK_NODES", "a,b");
    for name in names {
        command.env(name, format!("the job's {name}"));
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for file in ["before.txt", "model.txt"] {
        let seen = workspace.read(&format!("run_directory/{file}"));
        for name in names {
            assert!(seen.contains(&format!("{name}=the job's {name}\n")), "{name} in {file}: {seen}");
        }
        assert!(!seen.contains("maddock_"), "what the script knows stays in it: {seen}");
    }
}
