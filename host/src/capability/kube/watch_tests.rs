//! The watch against a small server of the API, on a real connection, which forgets and goes away at a word.

use std::net::SocketAddr;
use std::sync::PoisonError;

use maddock_bindings::api::kube::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::cluster::Clusters;
use super::*;
use crate::plugin::Environment;

const SECOND: Duration = Duration::from_secs(1);
/// Everything that a test waits for comes long before this.
const LONG: Duration = Duration::from_secs(60);

/// How a server says that it has forgotten what came after a version.
#[derive(Debug, Clone, Copy)]
enum Forgets {
    ByStatus,
    ByEvent,
}

#[derive(Debug)]
struct World {
    jobs: Vec<Value>,
    version: u64,
    /// Nothing is known of what was before.
    oldest: u64,
    forgets: Forgets,
    lists: usize,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    /// Ends all connections and, where it is false, takes no more of them.
    there: watch::Sender<(u64, bool)>,
}

fn job(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "labels": {RUN: "r"}}, "status": {"active": 1}})
}

fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version"})
}

impl Server {
    async fn start(forgets: Forgets, jobs: Vec<Value>) -> Self {
        let world = World { jobs, version: 5, oldest: 1, forgets, lists: 0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (there, _) = watch::channel((0, true));
        let server = Self { address, world: Arc::new(Mutex::new(world)), there };
        tokio::spawn(server.clone().listen(listener));
        server
    }

    async fn listen(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let mut there = self.there.subscribe();
            if !there.borrow_and_update().1 {
                continue;
            }
            let server = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = server.answer(stream) => {}
                    _ = there.changed() => {}
                }
            });
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One question of one connection. A watch that holds is never told anything.
    async fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        stream.read_line(&mut request).await?;
        let mut header = String::new();
        while stream.read_line(&mut header).await? > 2 {
            header.clear();
        }
        let about_jobs = request.contains("/jobs?");
        let watched = request.contains("watch=true");
        let from = request.split(['?', '&', ' ']).find_map(|word| word.strip_prefix("resourceVersion="));
        let from = from.and_then(|version| version.parse().ok()).unwrap_or(0);
        let (status, body) = {
            let mut world = self.world();
            let forgotten = watched && about_jobs && from < world.oldest;
            match (forgotten, watched, world.forgets) {
                (true, _, Forgets::ByStatus) => ("410 Gone", Some(expired())),
                (true, _, Forgets::ByEvent) => ("200 OK", Some(json!({"type": "ERROR", "object": expired()}))),
                (false, true, _) => ("200 OK", None),
                (false, false, _) => {
                    world.lists += usize::from(about_jobs);
                    let items = if about_jobs { world.jobs.clone() } else { Vec::new() };
                    let version = world.version.to_string();
                    ("200 OK", Some(json!({"metadata": {"resourceVersion": version}, "items": items})))
                }
            }
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        match body {
            Some(body) => stream.write_all(format!("{body}\n").as_bytes()).await?,
            None => {
                stream.flush().await?;
                std::future::pending::<()>().await;
            }
        }
        stream.shutdown().await
    }

    fn breaks(&self, there: bool) {
        self.there.send_modify(|state| *state = (state.0 + 1, there));
    }

    fn client(&self) -> Client {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("connections");
        let connections = json!({"current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "n"}}]});
        std::fs::write(&file, connections.to_string()).unwrap();
        let connection =
            Connection { kubeconfig: file.display().to_string(), context: String::new(), namespace: String::new() };
        let place = Clusters::default().place(&connection, &Environment::default()).unwrap();
        let api = kube::Client::try_from(kube::Config::new(format!("http://{}", self.address).parse().unwrap()));
        Client { api: api.unwrap(), place }
    }
}

/// The first snapshot that is so.
async fn until(watch: &Watch, client: &Client, name: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut seen = 0;
    let looking = async {
        loop {
            if let Some(snapshot) = watch.next_change(client, name, seen, SECOND).await.unwrap() {
                seen = snapshot.change;
                if holds(&snapshot) {
                    return snapshot;
                }
            }
        }
    };
    tokio::time::timeout(LONG, looking).await.unwrap()
}

#[tokio::test]
async fn a_server_that_has_forgotten_where_a_watch_was_is_asked_for_all_again() {
    for forgets in [Forgets::ByStatus, Forgets::ByEvent] {
        let server = Server::start(forgets, vec![job("stays", 3), job("goes", 4)]).await;
        let client = server.client();
        let watch = Watch::begin(&client, "r");
        for name in ["stays", "goes"] {
            until(&watch, &client, name, |seen| matches!(seen.state, JobState::Active)).await;
        }
        {
            let mut world = server.world();
            world.jobs = vec![job("stays", 3), job("comes", 9)];
            (world.version, world.oldest) = (9, 8);
        }
        server.breaks(true);
        // Nobody tells of an end that was between: it is not in the list any more.
        until(&watch, &client, "goes", |seen| matches!(seen.state, JobState::Gone)).await;
        until(&watch, &client, "comes", |seen| matches!(seen.state, JobState::Active)).await;
        let stays = until(&watch, &client, "stays", |_| true).await;
        assert!(matches!(stays.state, JobState::Active), "{forgets:?}: {stays:?}");
        assert_eq!(server.world().lists, 2, "{forgets:?}: listed again, once");
    }
}

#[tokio::test]
async fn a_server_that_is_away_for_too_long_is_lost_sight_of_until_it_is_back() {
    let server = Server::start(Forgets::ByEvent, vec![job("a", 3)]).await;
    let client = server.client();
    let watch = Watch::with(&client, "r", SECOND);
    until(&watch, &client, "a", |seen| matches!(seen.state, JobState::Active)).await;
    server.breaks(false);
    let lost = until(&watch, &client, "a", |seen| matches!(seen.state, JobState::LostSight)).await;
    server.breaks(true);
    let back = until(&watch, &client, "a", |seen| !matches!(seen.state, JobState::LostSight)).await;
    assert!(matches!(back.state, JobState::Active) && back.uid == lost.uid, "{back:?}");
}

#[tokio::test]
async fn a_job_that_goes_after_its_end_has_ended() {
    let server = Server::start(Forgets::ByEvent, vec![job("a", 3), job("b", 4)]).await;
    let client = server.client();
    let watch = Watch::begin(&client, "r");
    until(&watch, &client, "a", |seen| matches!(seen.state, JobState::Active)).await;
    let of = |name: &str, condition: Option<&str>| -> v1::Job {
        let mut value = job(name, 5);
        if let Some(condition) = condition {
            value["status"] = json!({"conditions": [{"type": condition, "status": "True", "reason": "R"}]});
        }
        serde_json::from_value(value).unwrap()
    };
    let state = |name: &str| {
        let snapshot = watch.known().snapshot(name, PATIENCE).unwrap();
        snapshot.state
    };
    // Its end and its going are both heard before anybody asks.
    watch.known().jobs(Heard::Changed(of("a", Some("Complete"))));
    watch.known().jobs(Heard::Gone(of("a", Some("Complete"))));
    assert_eq!([state("a"), state("a")], [JobState::Complete, JobState::Gone]);
    // Or its end is in the last word about it only.
    watch.known().jobs(Heard::Gone(of("b", Some("Failed"))));
    watch.known().jobs(Heard::All(Vec::new()));
    assert!(matches!([state("b"), state("b")], [JobState::Failed(_), JobState::Gone]));
    assert_eq!(state("a"), JobState::Gone);
    watch.known().jobs(Heard::Changed(of("c", None)));
    watch.known().jobs(Heard::All(Vec::new()));
    assert!(matches!(state("c"), JobState::Gone), "{:?}", state("c"));
}

#[tokio::test]
async fn what_has_ended_is_not_lost_sight_of() {
    let mut ended = job("a", 3);
    ended["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let server = Server::start(Forgets::ByEvent, vec![ended, job("b", 4)]).await;
    let client = server.client();
    let watch = Watch::with(&client, "r", SECOND);
    until(&watch, &client, "a", |seen| matches!(seen.state, JobState::Complete)).await;
    server.breaks(false);
    until(&watch, &client, "b", |seen| matches!(seen.state, JobState::LostSight)).await;
    let seen = until(&watch, &client, "a", |_| true).await;
    assert!(matches!(seen.state, JobState::Complete), "{seen:?}");
}
