//! An engine that goes away and comes back. The engine itself is never touched: the program speaks to it through a socket
//! that a test can cut. That an engine that stays away is given up is not shown here: the program waits for a minute.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::engine;
use crate::scene::{Scene, needed, until};

const ENGINE: &str = "/var/run/docker.sock";

/// A socket in front of the engine's.
struct Line {
    path: PathBuf,
    /// What goes through it; none while it is cut.
    streams: Arc<Mutex<Option<Vec<UnixStream>>>>,
    /// Connections that came while it was cut.
    refused: Arc<AtomicUsize>,
}

impl Line {
    fn new(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let line = Self { path, streams: Arc::new(Mutex::new(Some(Vec::new()))), refused: Arc::default() };
        let (streams, refused) = (line.streams.clone(), line.refused.clone());
        // It lives as long as the test program; nobody connects any more when the test is over.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Held until the connection is known, or a cut in between would miss it.
                let mut streams = streams.lock().unwrap();
                let Some(open) = &mut *streams else {
                    refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                };
                let Ok(server) = UnixStream::connect(ENGINE) else { continue };
                open.extend([&client, &server].map(|stream| stream.try_clone().unwrap()));
                drop(streams);
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || forward(from, to));
                std::thread::spawn(move || forward(server, client));
            }
        });
        line
    }

    /// Ends every connection, and every new one at once.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn restore(&self) {
        self.streams.lock().unwrap().get_or_insert_default();
    }

    /// Waits until the program has tried in vain, some times more.
    fn missed(&self) {
        let before = self.refused.load(Ordering::SeqCst);
        until("attempts to reach the engine", || (self.refused.load(Ordering::SeqCst) >= before + 3).then_some(()));
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A scene whose engine is behind a line; none where the engine is elsewhere.
fn scene() -> Option<(Scene, Line)> {
    needed("MADDOCK_TEST_IMAGE")?;
    if std::env::var_os("DOCKER_HOST").is_some() || !Path::new(ENGINE).exists() {
        eprintln!("skipped: the engine is not at `{ENGINE}`");
        return None;
    }
    let mut scene = Scene::new()?;
    let line = Line::new(scene.shared.join("engine.sock"));
    scene.set("DOCKER_HOST", &line.address());
    Some((scene, line))
}

/// Says something, waits for the test, says more.
const HALVES: &str = "for i in $(seq 50); do echo before-$i; done\ntouch /shared/half\nfor _ in $(seq 1200); do [ -e /shared/go ] && break; sleep 0.05; done\n\
                      for i in $(seq 50); do echo after-$i; done\necho 'performance: 7 u'\n";

#[test]
fn a_run_outlives_a_restart_of_the_engine_and_misses_and_repeats_no_line() {
    let Some((mut scene, line)) = scene() else { return };
    let model = scene.model("cut", HALVES, &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    until("the first half", || scene.shared.join("half").exists().then_some(()));
    line.cut();
    line.missed();
    // The model goes on meanwhile, and ends.
    std::fs::write(scene.shared.join("go"), "").unwrap();
    line.missed();
    line.restore();
    going.wait().with(0);
    let log = scene.run_log(&model);
    let lines: Vec<&str> =
        log.lines().filter(|line| line.starts_with("before-") || line.starts_with("after-")).collect();
    let expected: Vec<String> =
        ["before", "after"].iter().flat_map(|half| (1..=50).map(move |i| format!("{half}-{i}"))).collect();
    assert_eq!(lines, expected);
    assert_eq!(scene.rows()[0]["performance"], "7");
    assert_eq!(scene.containers(), Vec::<String>::new(), "nothing is left");
}

#[test]
fn a_job_that_is_interrupted_while_the_engine_is_away_is_ended_when_it_is_back() {
    let Some((mut scene, line)) = scene() else { return };
    scene.model("cut", HALVES, &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    until("the first half", || scene.shared.join("half").exists().then_some(()));
    let container = scene.containers().pop().unwrap();
    line.cut();
    line.missed();
    going.signal(rustix::process::Signal::INT);
    line.missed();
    line.restore();
    going.wait().with(130);
    assert_eq!(engine::inspect("container", &container), None);
}

#[test]
fn a_second_interrupt_ends_a_run_whose_engine_stays_away() {
    let Some((mut scene, line)) = scene() else { return };
    scene.model("cut", HALVES, &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    until("the first half", || scene.shared.join("half").exists().then_some(()));
    line.cut();
    line.missed();
    going.signal(rustix::process::Signal::INT);
    line.missed();
    going.signal(rustix::process::Signal::INT);
    going.wait().with(130);
}

#[test]
fn an_engine_that_is_not_there_is_named_with_another_way() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("gone", "true\n", &json!({}));
    scene.set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    scene.run(&json!({}), &[]).with(3).says("`unix:///nowhere/engine.sock`").says("--target process");
    scene.dockerfile("gone.Dockerfile", "", "");
    scene.build(&[]).with(2).says("`unix:///nowhere/engine.sock`");
}
