//! `process` with real programs, and the built binary as their supervisor.

// What clippy.toml allows in tests does not reach the functions that tests share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use maddock::capability::ApiError;
use maddock::capability::testing::Setting;
use maddock::capability::trace::Trace;
use maddock::plugin::State;
use maddock_bindings::api::process::{Child, Command, Event, ExitStatus, Finished, Host, HostChild};
use maddock_bindings::api::types::{EnvValue, EnvVar, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wasmtime::component::Resource;

/// A test that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(240);

fn supervisor() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_maddock"))
}

struct Run {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Run {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        Self { _directory: directory, root }
    }

    fn state(&self) -> State {
        Setting::in_directory(&self.root).state().unwrap()
    }

    fn detached(&self) -> State {
        Setting { detached: true, ..Setting::in_directory(&self.root) }.state().unwrap()
    }

    fn output(&self) -> PathBuf {
        self.root.join("jobs/one")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: Vec::new(),
        inherit: Vec::new(),
        directory: None,
        stdin: None,
        time_limit_ms: None,
        extra: Vec::new(),
    }
}

/// The program under test is bash, as a program: no string of this test is assembled for it.
fn script(text: &str) -> Command {
    command(&["bash", "-c", text])
}

fn variable(name: &str, value: EnvValue) -> EnvVar {
    EnvVar { name: name.to_owned(), value }
}

async fn run(state: &mut State, command: Command) -> Result<Finished, ApiError> {
    Host::run(state, command, 1 << 20).await.unwrap()
}

async fn launch(state: &mut State, run: &Run, command: Command) -> Result<String, ApiError> {
    state.launch_supervised_by(supervisor(), command, run.output().to_str().unwrap().to_owned()).await.unwrap()
}

async fn attach(state: &mut State, handle: &str) -> Result<Resource<Child>, ApiError> {
    state.attach(handle.to_owned()).await.unwrap()
}

fn again(child: &Resource<Child>) -> Resource<Child> {
    Resource::new_own(child.rep())
}

/// Follows to the end.
async fn follow(state: &mut State, child: &Resource<Child>) -> (Vec<u8>, ExitStatus) {
    let mut output = Vec::new();
    loop {
        match state.next_event(again(child), 60_000).await.unwrap().unwrap() {
            Event::Output((_, bytes)) => {
                assert!(!bytes.is_empty() && bytes.len() <= 64 << 10);
                output.extend(bytes);
            }
            Event::Exited(status) => return (output, status),
            Event::Timeout => panic!("nothing happened for a minute"),
        }
    }
}

/// Follows until the output has a whole first line.
async fn first_line(state: &mut State, child: &Resource<Child>) -> String {
    let mut output = Vec::new();
    while !output.contains(&b'\n') {
        match state.next_event(again(child), 60_000).await.unwrap().unwrap() {
            Event::Output((_, bytes)) => output.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    String::from_utf8(output).unwrap().lines().next().unwrap().to_owned()
}

/// A descriptor of a process, none where it is gone already.
fn watch(pid: &str) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), PidfdFlags::empty()).ok()
}

fn wait_gone(process: Option<OwnedFd>) {
    let Some(process) = process else { return };
    let timeout = Timespec::try_from(PATIENCE).unwrap();
    let ready = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "the process is still alive");
}

fn exited(finished: &Finished) -> i32 {
    match finished.status {
        ExitStatus::Exited(code) => code,
        ref other => panic!("{other:?}"),
    }
}

fn kind(answer: Result<impl Sized, ApiError>) -> ErrorKind {
    answer.err().expect("an error").kind
}

#[tokio::test]
async fn run_answers_the_exit_code_both_streams_and_feeds_stdin() {
    let place = Run::new();
    let mut asked = script("cat; echo problem >&2; exit 7");
    asked.stdin = Some(b"fed".to_vec());
    let finished = run(&mut place.state(), asked).await.unwrap();
    assert_eq!((exited(&finished), finished.stdout, finished.stderr), (7, b"fed".to_vec(), b"problem\n".to_vec()));
}

#[tokio::test]
async fn run_moves_more_than_a_pipe_holds_in_both_directions_at_once() {
    let place = Run::new();
    let mut asked = command(&["cat"]);
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(|n| (n % 251) as u8..=(n % 251) as u8).collect();
    asked.stdin = Some(bytes.clone());
    assert_eq!(run(&mut place.state(), asked).await.unwrap().stdout, bytes);
}

#[tokio::test]
async fn run_answers_the_signal() {
    let place = Run::new();
    let finished = run(&mut place.state(), script("kill -SEGV $$")).await.unwrap();
    assert!(matches!(finished.status, ExitStatus::Signalled(11)), "{:?}", finished.status);
}

#[tokio::test]
async fn run_ends_a_program_that_writes_too_much() {
    let place = Run::new();
    let mut state = place.state();
    let error = Host::run(&mut state, command(&["yes"]), 4096).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Failed) && error.message.contains("more than 4096 bytes"), "{error:?}");
}

#[tokio::test]
async fn run_ends_the_group_and_who_left_it_when_time_is_up_and_keeps_what_was_written() {
    let place = Run::new();
    let mut asked = script("setsid sleep 1000 & echo $!; exec sleep 1000");
    asked.time_limit_ms = Some(5000);
    let finished = run(&mut place.state(), asked).await.unwrap();
    assert!(matches!(finished.status, ExitStatus::TimedOut));
    wait_gone(watch(std::str::from_utf8(&finished.stdout).unwrap()));
}

#[tokio::test]
async fn run_does_not_wait_for_what_a_program_left_behind() {
    let place = Run::new();
    let finished = run(&mut place.state(), script("sleep 1000 & echo $!")).await.unwrap();
    assert_eq!(exited(&finished), 0);
    wait_gone(watch(std::str::from_utf8(&finished.stdout).unwrap()));
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_nothing() {
    let place = Run::new();
    let fifo = place.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0).unwrap();
    let mut state = place.state();
    let asked = script("sleep 1000 & echo $! $$ > fifo; wait");
    let reader = tokio::task::spawn_blocking(move || std::fs::read_to_string(fifo).unwrap());
    let pids = tokio::select! {
        finished = run(&mut state, asked) => panic!("{finished:?}"),
        pids = reader => pids.unwrap(),
    };
    for pid in pids.split_whitespace() {
        wait_gone(watch(pid));
    }
}

#[tokio::test]
async fn a_child_gets_path_home_and_what_was_asked_for_and_nothing_else() {
    let place = Run::new();
    let environment =
        [("PATH", "/usr/bin:/bin"), ("HOME", "/h"), ("KEPT", "k"), ("OTHER", "o"), ("LD_PRELOAD", "/x.so")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let mut state = Setting { environment, ..Setting::in_directory(&place.root) }.state().unwrap();
    let mut asked = command(&["env"]);
    asked.inherit = vec!["KEPT".to_owned(), "NOT_SET".to_owned()];
    asked.env = vec![variable("MINE", EnvValue::Text("a b\n'$x".to_owned()))];
    let output = String::from_utf8(run(&mut state, asked).await.unwrap().stdout).unwrap();
    assert_eq!(output, "HOME=/h\nKEPT=k\nMINE=a b\n'$x\nPATH=/usr/bin:/bin\n");
}

#[tokio::test]
async fn variables_of_the_loader_are_always_refused() {
    let place = Run::new();
    let mut by_env = command(&["true"]);
    by_env.env = vec![variable("LD_PRELOAD", EnvValue::Text("/x.so".to_owned()))];
    let mut by_inherit = command(&["true"]);
    by_inherit.inherit = vec!["LD_LIBRARY_PATH".to_owned()];
    for asked in [by_env, by_inherit] {
        assert!(matches!(kind(run(&mut place.state(), asked.clone()).await), ErrorKind::Denied));
        assert!(matches!(kind(launch(&mut place.state(), &place, asked).await), ErrorKind::Denied));
    }
}

#[tokio::test]
async fn odd_commands_are_invalid_input() {
    let place = Run::new();
    let mut bad_name = command(&["true"]);
    bad_name.env = vec![variable("A=B", EnvValue::Text(String::new()))];
    let mut bad_value = command(&["true"]);
    bad_value.env = vec![variable("A", EnvValue::Text("a\0b".to_owned()))];
    let odd = [
        command(&[]),
        command(&[""]),
        command(&["./true"]),
        command(&["bin/true"]),
        command(&["/bin/../bin/true"]),
        command(&["true", "a\0b"]),
        bad_name,
        bad_value,
    ];
    for asked in odd {
        let argv = asked.argv.clone();
        assert!(matches!(kind(run(&mut place.state(), asked).await), ErrorKind::InvalidInput), "{argv:?}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let place = Run::new();
    for name in ["no-such-program-at-all", "/no/such/program"] {
        let error = run(&mut place.state(), command(&[name])).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::NotFound) && error.message.contains(name), "{error:?}");
        assert!(matches!(kind(launch(&mut place.state(), &place, command(&[name])).await), ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn the_gate_decides_by_program_path_and_environment() {
    let place = Run::new();
    let rule = "schema = 1\n[[allow]]\nplugin = \"test\"\ncalls = [\"process.run\"]\n";
    let allowed = [
        ("scope.program = [\"true\"]", true),
        ("scope.program = [\"false\"]", false),
        ("scope.path = [\"/usr/bin/*\", \"/bin/*\"]", true),
        ("scope.path = [\"/opt/**\"]", false),
        ("scope.env = [\"A\"]", true),
        ("scope.env = [\"B\"]", false),
        ("scope.directory = [\"$run/**\"]", true),
        ("scope.directory = [\"$tree/**\"]", false),
    ];
    for (scope, expected) in allowed {
        let mut state =
            Setting { rules: format!("{rule}{scope}\n"), ..Setting::in_directory(&place.root) }.state().unwrap();
        let mut asked = command(&["true"]);
        asked.env = vec![variable("A", EnvValue::Text(String::new()))];
        assert_eq!(run(&mut state, asked).await.is_ok(), expected, "{scope}");
    }
}

#[tokio::test]
async fn a_secret_reaches_the_child_and_no_trace_argv_or_file() {
    let place = Run::new();
    let trace_file = place.path("trace.jsonl");
    let mut secrets = maddock::capability::secrets::SecretStore::default();
    secrets.add("credential/hub/token", "s3cr3t-bytes");
    let trace = Trace::to_file(&trace_file, "r").unwrap();
    let mut state = Setting { secrets, trace, ..Setting::in_directory(&place.root) }.state().unwrap();
    // The child shows that it has the secret without writing it, and shows its supervisor's command line.
    let mut asked = script("echo ${#TOKEN}; tr '\\0' ' ' < /proc/$PPID/cmdline; tr '\\0' '\\n' < /proc/$PPID/environ");
    asked.env = vec![variable("TOKEN", EnvValue::Secret("credential/hub/token".to_owned()))];
    let finished = run(&mut state, asked.clone()).await.unwrap();
    assert!(finished.stdout.starts_with(b"12\n"), "{finished:?}");
    let handle = launch(&mut state, &place, asked).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    let (output, _) = follow(&mut state, &child).await;
    let output = String::from_utf8(output).unwrap();
    assert!(output.starts_with("12\n") && output.contains("__supervise"), "{output}");
    let trace = std::fs::read_to_string(trace_file).unwrap();
    assert!(trace.contains("credential/hub/token") && trace.contains("process.launch"), "{trace}");
    let mut everything = vec![trace, output, handle];
    for entry in std::fs::read_dir(place.output()).unwrap() {
        everything.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert!(everything.iter().all(|text| !text.contains("s3cr3t-bytes")), "{everything:?}");

    let mut missing = command(&["true"]);
    missing.env = vec![variable("TOKEN", EnvValue::Secret("credential/hub/none".to_owned()))];
    let error = run(&mut state, missing).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound) && error.message.contains("credential/hub/none"));
}

#[tokio::test]
async fn a_launched_program_tells_its_output_in_order_and_complete_and_then_its_exit_once() {
    let place = Run::new();
    let mut state = place.state();
    // One megabyte and more, the streams alternating line by line.
    let text = "for ((i = 0; i < 40000; i++)); do echo \"line $i of out\"; i=$((i + 1)); echo \"line $i of err\" >&2; done; \
                head -c 1000000 /dev/zero; exit 3";
    let handle = launch(&mut state, &place, script(text)).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    let (output, status) = follow(&mut state, &child).await;
    assert!(matches!(status, ExitStatus::Exited(3)), "{status:?}");
    let lines: String =
        (0..40000).map(|i| format!("line {i} of {}\n", if i % 2 == 0 { "out" } else { "err" })).collect();
    assert!(output.starts_with(lines.as_bytes()));
    assert_eq!(output.len(), lines.len() + 1_000_000);
    assert!(state.next_event(again(&child), 0).await.unwrap().is_err());

    let log = std::fs::metadata(place.output().join("output.log")).unwrap();
    assert_eq!(log.permissions().mode() & 0o777, 0o600);
    let record = std::fs::read_to_string(place.output().join("exit.json")).unwrap();
    assert!(record.starts_with("{\"exited\":3,\"seconds\":"), "{record}");

    // Whoever comes later, in another instance, sees the same.
    let mut other = place.state();
    let child = attach(&mut other, &handle).await.unwrap();
    let (later, status) = follow(&mut other, &child).await;
    assert!(later == output && matches!(status, ExitStatus::Exited(3)));
    // A second program may not write into the same log.
    assert!(matches!(kind(launch(&mut other, &place, script("true")).await), ErrorKind::Conflict));
}

#[tokio::test]
async fn two_instances_follow_a_running_program_and_nothing_happening_is_a_timeout() {
    let place = Run::new();
    let (mut one, mut two) = (place.state(), place.state());
    let handle =
        launch(&mut one, &place, script("echo ready; until test -e go; do sleep 0.01; done; echo gone")).await.unwrap();
    let (a, b) = (attach(&mut one, &handle).await.unwrap(), attach(&mut two, &handle).await.unwrap());
    assert_eq!(first_line(&mut one, &a).await, "ready");
    assert_eq!(first_line(&mut two, &b).await, "ready");
    assert!(matches!(one.next_event(again(&a), 0).await.unwrap().unwrap(), Event::Timeout));
    assert!(matches!(two.next_event(again(&b), 50).await.unwrap().unwrap(), Event::Timeout));
    std::fs::write(place.path("go"), "").unwrap();
    for (state, child) in [(&mut one, &a), (&mut two, &b)] {
        let (rest, status) = follow(state, child).await;
        assert_eq!(rest, b"gone\n");
        assert!(matches!(status, ExitStatus::Exited(0)));
    }
}

#[tokio::test]
async fn the_signal_that_ended_a_launched_program_is_told() {
    let place = Run::new();
    let mut state = place.state();
    let handle = launch(&mut state, &place, script("kill -KILL $$")).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Signalled(9)));
}

/// A program with a background process in its own session, whose number is the first line of output.
const WITH_A_RUNAWAY: &str = "setsid bash -c 'trap \"\" TERM HUP; echo $$; exec sleep 1000' & ";

#[tokio::test]
async fn the_time_limit_ends_grandchildren_that_left_the_session() {
    let place = Run::new();
    let mut state = place.state();
    let mut asked = script(&format!("{WITH_A_RUNAWAY} sleep 1000"));
    asked.time_limit_ms = Some(5000);
    let handle = launch(&mut state, &place, asked).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    let (output, status) = follow(&mut state, &child).await;
    assert!(matches!(status, ExitStatus::TimedOut), "{status:?}");
    // Already gone when the end is told: the supervisor has waited for it.
    assert!(watch(std::str::from_utf8(&output).unwrap()).is_none());
}

#[tokio::test]
async fn the_end_of_a_program_is_the_end_of_all_it_started() {
    let place = Run::new();
    let mut state = place.state();
    // The runaway opens the pipe, so the program ends only after it is there.
    let text = format!("mkfifo p; {{ {WITH_A_RUNAWAY} }} > p; read pid < p; echo $pid; exit 0");
    let text = text.replace("} > p;", "} > p &");
    let handle = launch(&mut state, &place, script(&text)).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    let (output, status) = follow(&mut state, &child).await;
    assert!(matches!(status, ExitStatus::Exited(0)), "{status:?}");
    assert!(watch(std::str::from_utf8(&output).unwrap()).is_none());
}

#[tokio::test]
async fn stop_gives_the_grace_asked_for_and_then_ends_everything() {
    let place = Run::new();
    let mut state = place.state();
    let text = "trap 'echo asked' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let handle = launch(&mut state, &place, script(text)).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    assert_eq!(first_line(&mut state, &child).await, "ready");
    state.stop(again(&child), 3000).await.unwrap().unwrap();
    let (output, status) = follow(&mut state, &child).await;
    assert_eq!(output, b"asked\n");
    assert!(matches!(status, ExitStatus::Signalled(9)), "{status:?}");
    let record = std::fs::read_to_string(place.output().join("exit.json")).unwrap();
    assert!(record.contains("\"cancelled\":{\"signalled\":9}"), "{record}");
    // One that has ended is fine.
    state.stop(again(&child), 300).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_program_that_ends_by_itself_within_the_grace_is_not_killed() {
    let place = Run::new();
    let mut state = place.state();
    let text = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let handle = launch(&mut state, &place, script(text)).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    assert_eq!(first_line(&mut state, &child).await, "ready");
    state.stop(again(&child), 50_000).await.unwrap().unwrap();
    let (output, status) = follow(&mut state, &child).await;
    assert!(output == b"bye\n" && matches!(status, ExitStatus::Exited(5)), "{status:?}");
}

#[tokio::test]
async fn a_supervisor_that_was_killed_takes_the_program_along_and_the_end_is_lost() {
    let place = Run::new();
    let mut state = place.state();
    let handle = launch(&mut state, &place, script("echo $$; exec sleep 1000")).await.unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    let program = watch(&first_line(&mut state, &child).await);
    let pid = Pid::from_raw(field(&handle, "pid").parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Lost));
    wait_gone(program);
}

fn field(handle: &str, name: &str) -> String {
    serde_json::from_str::<serde_json::Value>(handle).unwrap()[name].to_string()
}

fn with(handle: &str, name: &str, value: impl Into<serde_json::Value>) -> String {
    let mut changed: serde_json::Value = serde_json::from_str(handle).unwrap();
    changed[name] = value.into();
    changed.to_string()
}

#[tokio::test]
async fn a_process_that_merely_has_the_number_is_neither_followed_nor_stopped() {
    let place = Run::new();
    let mut state = place.state();
    let handle = launch(&mut state, &place, script("echo ready; until test -e go; do sleep 0.01; done")).await.unwrap();
    // It ends with this test, however the test ends.
    let mut stranger = std::process::Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let started: u64 = {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
    };
    // The number was reused; or somebody made up a handle with the time of the stranger's start, too.
    let reused = with(&handle, "pid", stranger.id());
    let made_up = with(&reused, "starttime", started);
    let other_time = with(&handle, "starttime", started + 1_000_000);
    let other_boot = with(&handle, "boot", "another");
    for wrong in [reused, made_up, other_time, other_boot] {
        let child = attach(&mut state, &wrong).await.unwrap();
        state.stop(again(&child), 0).await.unwrap().unwrap();
        assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Lost), "{wrong}");
    }
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let elsewhere = with(&with(&handle, "boot", "another"), "machine", "elsewhere");
    assert!(matches!(kind(attach(&mut state, &elsewhere).await), ErrorKind::Unavailable));

    std::fs::write(place.path("go"), "").unwrap();
    let child = attach(&mut state, &handle).await.unwrap();
    assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Exited(0)));
}

#[tokio::test]
async fn handles_and_directories_outside_the_run_are_refused() {
    let (place, other) = (Run::new(), Run::new());
    let mut state = place.state();
    let handle = launch(&mut state, &place, script("exit 0")).await.unwrap();
    assert!(matches!(kind(attach(&mut other.state(), &handle).await), ErrorKind::Denied));
    assert!(matches!(kind(attach(&mut state, "{}").await), ErrorKind::InvalidInput));
    assert!(matches!(kind(launch(&mut other.state(), &place, script("true")).await), ErrorKind::Denied));
    // By a link, too; and nothing is made there.
    std::os::unix::fs::symlink(&other.root, place.path("way-out")).unwrap();
    let out = place.path("way-out/new").to_str().unwrap().to_owned();
    let refused = state.launch_supervised_by(supervisor(), script("true"), out).await.unwrap();
    assert!(matches!(kind(refused), ErrorKind::Denied));
    assert!(!other.path("new").exists());
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_fails_the_launch_and_leaves_the_place_free() {
    let place = Run::new();
    let broken = place.path("broken");
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut state = place.state();
    let error = launch(&mut state, &place, command(&[broken.to_str().unwrap()])).await.unwrap_err();
    assert!(error.message.contains("cannot start") && error.message.contains("broken"), "{error:?}");
    launch(&mut state, &place, script("true")).await.unwrap();
}

#[test]
fn the_end_of_the_runtime_ends_programs_of_a_run_that_is_not_detached() {
    let place = Run::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (program, runaway) = runtime.block_on(async {
        let mut state = place.state();
        let text = format!("{WITH_A_RUNAWAY} until test -s output; do sleep 0.01; done; echo $$ >&2; sleep 1000");
        let text = text.replace("& ", "> output & ");
        let handle = launch(&mut state, &place, script(&text)).await.unwrap();
        let child = attach(&mut state, &handle).await.unwrap();
        let program = first_line(&mut state, &child).await;
        (watch(&program), watch(&std::fs::read_to_string(place.path("output")).unwrap()))
    });
    assert!(program.is_some() && runaway.is_some());
    drop(runtime);
    wait_gone(program);
    wait_gone(runaway);
}

#[test]
fn a_detached_program_outlives_the_runtime_and_is_stopped_from_another() {
    let place = Run::new();
    let launching = tokio::runtime::Runtime::new().unwrap();
    let handle = launching
        .block_on(async { launch(&mut place.detached(), &place, script("echo $$; exec sleep 1000")).await.unwrap() });
    drop(launching);
    let stopping = tokio::runtime::Runtime::new().unwrap();
    stopping.block_on(async {
        let mut state = place.detached();
        let child = attach(&mut state, &handle).await.unwrap();
        let program = watch(&first_line(&mut state, &child).await);
        assert!(program.is_some());
        assert!(matches!(state.next_event(again(&child), 100).await.unwrap().unwrap(), Event::Timeout));
        state.stop(again(&child), 1000).await.unwrap().unwrap();
        assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Signalled(15)));
        wait_gone(program);
    });
}

/// Where the other process of a test below launches its program; unset, the next test is that process's and does nothing.
const LAUNCHER: &str = "MADDOCK_TEST_LAUNCHER";

#[test]
fn launcher_for_the_tests_below() {
    let Some(how) = std::env::var_os(LAUNCHER) else { return };
    let how = how.into_string().unwrap();
    let (mode, root) = how.split_once(':').unwrap();
    let setting = Setting { detached: mode == "detached", ..Setting::in_directory(Path::new(root)) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut state = setting.state().unwrap();
        let output = Path::new(root).join("jobs/one").to_str().unwrap().to_owned();
        let text = format!("{WITH_A_RUNAWAY} sleep 1000");
        let handle = state.launch_supervised_by(supervisor(), script(&text), output).await.unwrap().unwrap();
        println!("\nHANDLE {handle}");
        // Until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    });
}

/// Launches in another process, kills that one outright, and answers the handle and the runaway.
async fn launch_and_kill(place: &Run, mode: &str) -> (String, Option<OwnedFd>) {
    let mut launcher = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launcher_for_the_tests_below", "--nocapture"])
        .env(LAUNCHER, format!("{mode}:{}", place.root.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(launcher.stdout.take().unwrap()).lines();
    let handle = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("HANDLE ").map(str::to_owned)).unwrap();
    let mut state = place.state();
    let child = attach(&mut state, &handle).await.unwrap();
    let runaway = watch(&first_line(&mut state, &child).await);
    assert!(runaway.is_some());
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    (handle, runaway)
}

#[tokio::test]
async fn killing_maddock_outright_leaves_no_process() {
    let place = Run::new();
    let (handle, runaway) = launch_and_kill(&place, "attached").await;
    let mut state = place.state();
    let child = attach(&mut state, &handle).await.unwrap();
    assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Signalled(15)));
    wait_gone(runaway);
}

#[tokio::test]
async fn a_detached_program_is_followed_and_stopped_by_another_process_than_launched_it() {
    let place = Run::new();
    let (handle, runaway) = launch_and_kill(&place, "detached").await;
    let mut state = place.state();
    let child = attach(&mut state, &handle).await.unwrap();
    first_line(&mut state, &child).await;
    assert!(matches!(state.next_event(again(&child), 200).await.unwrap().unwrap(), Event::Timeout));
    state.stop(again(&child), 1000).await.unwrap().unwrap();
    assert!(matches!(follow(&mut state, &child).await.1, ExitStatus::Signalled(15)));
    wait_gone(runaway);
}
