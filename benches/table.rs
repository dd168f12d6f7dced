//! Measures what `docs/performance.md` reports, and prints it as a table: `cargo bench -p maddock`.
//!
//! Each figure is the median of several runs, beside the fastest. Nothing here asserts a time. The container figures need
//! an engine and an image: `MADDOCK_TEST_IMAGE=NAME`; the same image is run by a bare `docker run` in the same session.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot run has nothing to say"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maddock::capability::tape::{Recorder, Taped};
use maddock::capability::testing::Setting;
use maddock::capability::trace::Trace;
use maddock::plugin::catalog::Catalog;
use maddock::plugin::manifest::Kind;
use maddock::plugin::{Environment, Plugins, Session, launch};
use maddock::results::redact::Redactor;
use maddock_bindings::api::{facts, files};

/// One line of the table.
struct Figure {
    what: &'static str,
    median: Duration,
    fastest: Duration,
    aim: &'static str,
}

impl Figure {
    fn of((what, aim): (&'static str, &'static str), mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self { what, median: samples[samples.len() / 2], fastest: samples[0], aim }
    }
}

fn timed(mut once: impl FnMut()) -> Duration {
    let began = Instant::now();
    once();
    began.elapsed()
}

fn measure(what: &'static str, aim: &'static str, times: usize, mut once: impl FnMut()) -> Figure {
    // The first one warms caches and is not counted.
    once();
    Figure::of((what, aim), (0..times).map(|_| timed(&mut once)).collect())
}

/// Two things by turns, so that what else the machine does befalls both alike.
fn measure_in_turns(
    one: (&'static str, &'static str),
    other: (&'static str, &'static str),
    times: usize,
    both: [&dyn Fn(); 2],
) -> [Figure; 2] {
    both.iter().for_each(|once| once());
    let (first, second) = (0..times).map(|_| (timed(both[0]), timed(both[1]))).unzip();
    [Figure::of(one, first), Figure::of(other, second)]
}

fn maddock() -> Command {
    Command::new(env!("CARGO_BIN_EXE_maddock"))
}

fn quietly(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
    assert!(status.success(), "{command:?} failed");
}

/// A model tree with so many models.
fn tree(place: &Path, models: usize) -> PathBuf {
    let tree = place.join(format!("tree-{models}"));
    std::fs::create_dir_all(tree.join("scripts/m")).expect("a directory");
    std::fs::write(tree.join("scripts/m/run.sh"), "echo 'performance: 1 x'\n").expect("a script");
    let mut list = String::from("[");
    for number in 0..models {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(
            list,
            r#"{comma}{{"name":"model-{number}","dockerfile":"docker/m","scripts":"scripts/m/run.sh","n_gpus":"1","owner":"o@example.com","training_precision":"fp16","tags":["t{}","all-of-them"],"args":"--n {number}"}}"#,
            number % 10
        );
    }
    list.push(']');
    std::fs::write(tree.join("models.json"), list).expect("models");
    tree
}

fn commands(place: &Path, figures: &mut Vec<Figure>) {
    figures.push(measure("maddock --version", "5 ms", 30, || quietly(maddock().arg("--version"))));
    for (models, what, aim) in [
        (20, "discover, 20 models", ""),
        (1_000, "discover, 1,000 models", "50 ms"),
        (10_000, "discover, 10,000 models", ""),
    ] {
        let tree = tree(place, models);
        figures.push(measure(what, aim, 15, || quietly(maddock().args(["discover", "--model-dir"]).arg(&tree))));
    }
}

fn jobs(place: &Path, figures: &mut Vec<Figure>) {
    let tree = tree(place, 1);
    let work = place.join("work");
    std::fs::create_dir_all(&work).expect("a directory");
    figures.push(measure("bash running the trivial script", "", 15, || {
        quietly(Command::new("bash").arg(tree.join("scripts/m/run.sh")))
    }));
    let process = |recording: &str| {
        quietly(
            maddock()
                .env("MADDOCK_RECORDING", recording)
                .current_dir(&work)
                .args(["run", "--target", "process", "--tags", "all", "--model-dir"])
                .arg(&tree),
        );
    };
    figures.extend(measure_in_turns(
        ("maddock run of it, --target process", ""),
        ("the same without a recording", "recording < 2 %"),
        60,
        [&|| process("64M"), &|| process("off")],
    ));
    let Ok(image) = std::env::var("MADDOCK_TEST_IMAGE") else {
        println!("skipped: jobs in containers (MADDOCK_TEST_IMAGE is not set)");
        return;
    };
    let context = format!(r#"{{"MAD_CONTAINER_IMAGE": "{image}"}}"#);
    let script = tree.join("scripts/m");
    figures.push(measure("docker run --rm of it", "", 11, || {
        let mount = format!("{}:/m:ro", script.display());
        quietly(Command::new("docker").args(["run", "--rm", "-v", &mount, &image, "bash", "/m/run.sh"]));
    }));
    let container = |recording: &str| {
        let run = ["run", "--tags", "all", "-c", &context, "--model-dir"];
        quietly(maddock().env("MADDOCK_RECORDING", recording).current_dir(&work).args(run).arg(&tree));
    };
    figures.extend(measure_in_turns(
        ("maddock run of it, in a container", "bare + 15 ms"),
        ("the same without a recording", "recording < 2 %"),
        25,
        [&|| container("64M"), &|| container("off")],
    ));
}

fn interface(place: &Path, figures: &mut Vec<Figure>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let environment = Environment::of_process();
    let catalog = Catalog::new(&[]).expect("built-ins");
    figures.push(measure("engine, and one plugin from the cache", "", 15, || {
        let plugins = Plugins::new(catalog.clone(), &environment).expect("an engine");
        plugins.providing(Kind::Launcher, "none").expect("it loads").expect("it is there");
    }));
    let plugins = Plugins::new(catalog, &environment).expect("an engine");
    let mut state = Setting::in_directory(place).state().expect("a policy");
    let session = Session::quiet(Arc::clone(&state.context));
    let launcher = plugins.providing(Kind::Launcher, "none").expect("it loads").expect("it is there");
    let topology = launch::Topology {
        launcher: "none".to_owned(),
        nodes: 1,
        processes_per_node: 8,
        gpus_per_node: 8,
        main_address: "localhost".to_owned(),
        main_port: 29500,
        model: "m".to_owned(),
        job: "0-m".to_owned(),
        config: "{}".to_owned(),
        program: launch::Program { interpreter: vec!["bash".to_owned()], file: "run.sh".to_owned() },
        env: Vec::new(),
        extra: Vec::new(),
    };
    figures.push(measure("instantiate a plugin and call it", "1 ms", 200, || {
        runtime.block_on(launcher.arrange(&session, &topology)).expect("an arrangement");
    }));
    let big = launch::Topology { config: format!(r#"{{"x":"{}"}}"#, "y".repeat(10 << 20)), ..topology.clone() };
    figures.push(measure("the same with 10 MB of text as an argument", "", 15, || {
        runtime.block_on(launcher.arrange(&session, &big)).expect("an arrangement");
    }));

    figures.push(measure("10,000 host calls (facts.hostname), gate and no trace", "", 11, || {
        runtime.block_on(async {
            for _ in 0..10_000 {
                let _ = facts::Host::hostname(&mut state).await;
            }
        });
    }));
    for (what, recorded) in [("the same with the trace", false), ("the same with trace and recording", true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let trace = Trace::to_file(&directory.path().join("trace.jsonl"), "r").expect("a trace");
        let recorder = Recorder::open(directory.path(), "r", Redactor::default(), u64::MAX).expect("a recording");
        let trace = trace.recording(recorded.then_some(recorder));
        let mut state = Setting { trace, ..Setting::in_directory(place) }.state().expect("a policy");
        figures.push(measure(what, "", 11, || {
            runtime.block_on(async {
                for _ in 0..10_000 {
                    let _ = facts::Host::hostname(&mut Taped(&mut state)).await;
                }
            });
        }));
    }
    let file = place.join("ten-megabytes");
    std::fs::write(&file, vec![b'x'; 10 << 20]).expect("a file");
    let path = file.display().to_string();
    figures.push(measure("10 MB by files.read", "", 15, || {
        let _ = runtime.block_on(files::Host::read(&mut state, path.clone(), 16 << 20));
    }));
}

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let mut figures = Vec::new();
    commands(place.path(), &mut figures);
    jobs(place.path(), &mut figures);
    interface(place.path(), &mut figures);
    println!("{:<56} {:>10} {:>10}  aim", "what", "median", "fastest");
    for Figure { what, median, fastest, aim } in figures {
        println!("{what:<56} {:>7.2} ms {:>7.2} ms  {aim}", median.as_secs_f64() * 1e3, fastest.as_secs_f64() * 1e3);
    }
}
