//! The API server goes away while a job runs, and comes back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::ground::{Ground, NOTHING, WAITS, interrupt, kubectl, said, until};

/// A way to the server that can be cut; it counts who tries it meanwhile.
pub struct Way {
    pub address: SocketAddr,
    /// What the server's certificate calls it.
    pub name: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    /// So many bytes come from the server before all connections break, once; 0: they do not.
    until_break: AtomicUsize,
    refused: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Way {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let name = target.rsplit_once(':').unwrap().0.to_owned();
        let shared = state.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut open = shared.open.lock().unwrap();
                if shared.cut.load(Ordering::SeqCst) {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to, counts) in [(&near, &far, false), (&far, &near, true)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = shared.clone();
                    std::thread::spawn(move || hand_on(from, to, |bytes| !counts || state.lets_by(bytes)));
                }
                open.extend([near, far]);
            }
        });
        Self { address, name, state }
    }

    fn cut(&self) {
        let mut open = self.state.open.lock().unwrap();
        self.state.cut.store(true, Ordering::SeqCst);
        shut(&mut open);
    }

    fn break_after(&self, bytes: usize) {
        self.state.until_break.store(bytes, Ordering::SeqCst);
    }

    fn has_broken(&self) -> bool {
        self.state.until_break.load(Ordering::SeqCst) == 0
    }

    fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }
}

impl State {
    /// Counts what comes from the server; false: everything breaks now.
    fn lets_by(&self, bytes: usize) -> bool {
        let mut open = self.open.lock().unwrap();
        let left = self.until_break.load(Ordering::SeqCst);
        if left == 0 || left > bytes {
            self.until_break.store(left.saturating_sub(bytes), Ordering::SeqCst);
            return true;
        }
        self.until_break.store(0, Ordering::SeqCst);
        shut(&mut open);
        false
    }
}

fn shut(open: &mut Vec<TcpStream>) {
    for stream in open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, lets_by: impl Fn(usize) -> bool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !lets_by(read) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn connections() -> Value {
    serde_json::from_slice(&kubectl(&["config", "view", "--raw", "--minify", "--output=json"]).stdout).unwrap()
}

/// A way to the cluster under another address.
pub fn way_to_the_cluster() -> Way {
    let file = connections();
    let server = file["clusters"][0]["cluster"]["server"].as_str().unwrap();
    Way::to(server.trim_start_matches("https://").trim_end_matches('/').to_owned())
}

/// A way to the cluster, and connections that take it.
fn way(ground: &Ground) -> (Way, std::path::PathBuf) {
    let mut file = connections();
    let way = way_to_the_cluster();
    let cluster = &mut file["clusters"][0]["cluster"];
    cluster["server"] = json!(format!("https://{}", way.address));
    cluster["tls-server-name"] = json!(way.name);
    let path = ground.root.path().join("connections by another way");
    std::fs::write(&path, file.to_string()).unwrap();
    (way, path)
}

#[test]
fn a_job_that_ends_while_the_server_is_away_is_judged_when_it_is_back() {
    let script = format!("{WAITS}for i in $(seq 200); do echo \"line $i.\"; done\n");
    let Some(ground) = Ground::new("server away", json!({}), &script) else { return };
    ground.bystander();
    let (way, connections) = way(&ground);
    let mut command = ground.command(json!({}), json!({}));
    command.env("KUBECONFIG", &connections).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = command.spawn().unwrap();
    ground.wait_for("\"running\"");
    until("the first line", || ground.log_so_far().contains("hello").then_some(()));
    way.cut();
    ground.go();
    until("the end of the model", || ground.model_has_ended().then_some(()));
    // Who watches and who reads output have noticed, and tried more than once.
    until("tries while there is no way", || (way.refused() > 6).then_some(()));
    way.mend();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    assert_eq!(
        (job["rows"][0]["performance"].as_str(), job["execution"]["state"].as_str()),
        (Some("42"), Some("exited")),
        "{job:#}"
    );
    let log = ground.log();
    let missing: Vec<u32> = (1..=200).filter(|line| log.matches(&format!("line {line}.\n")).count() != 1).collect();
    assert!(missing.is_empty() && log.matches("hello\n").count() == 1, "whole and once: {missing:?}\n{log}");
    assert!(ground.work().join("a_output.csv").exists());
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn an_interruption_while_the_server_is_away_ends_the_job_when_it_is_back() {
    let Some(ground) = Ground::new("interrupted while away", json!({}), WAITS) else { return };
    ground.bystander();
    let (way, connections) = way(&ground);
    let mut command = ground.command(json!({}), json!({}));
    command.env("KUBECONFIG", &connections).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut run = command.spawn().unwrap();
    ground.wait_for("\"running\"");
    way.cut();
    let before = way.refused();
    interrupt(&run);
    // Who watches tries, too; who gives up ends.
    let gave_up = until("tries while there is no way", || match run.try_wait().unwrap() {
        Some(_) => Some(true),
        None => (way.refused() > before + 10).then_some(false),
    });
    assert!(!gave_up, "it waits for the server, so that nothing is left");
    way.mend();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("cancelled"));
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn a_copy_of_results_that_breaks_off_is_made_again_and_costs_nothing() {
    // More than all else that comes from the server in such a run.
    let script =
        "head -c 16M /dev/zero > big_output.csv\necho x,1 > a_output.csv\necho 'performance: 42 things_per_second'\n";
    let Some(ground) = Ground::new("copy breaks off", json!({}), script) else { return };
    let (way, connections) = way(&ground);
    way.break_after(8 << 20);
    let mut command = ground.command(json!({}), json!({}));
    let output = command.env("KUBECONFIG", &connections).output().unwrap();
    assert!(way.has_broken());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("it is tried again"), "{}", said(&output));
    assert_eq!(std::fs::metadata(ground.work().join("big_output.csv")).unwrap().len(), 16 << 20);
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left(), NOTHING);
}
