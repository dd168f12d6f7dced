//! A namespace for one test, and a state that plays a plugin in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::Kubeconfig;
use maddock::capability::testing::Setting;
use maddock::plugin::{Environment, State};
use maddock_bindings::api::kube::{Connection, Host, HostLogs, JobState, LogEnd, LogEvent, Logs, ObjectRef, Snapshot};
use serde_json::{Value, json};
use wasmtime::component::Resource;

use crate::proxy::Proxy;

/// Everything that a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(240);

/// A namespace of its own, deleted in the end.
pub struct Scene {
    pub namespace: String,
    pub job: String,
    pub run: PathBuf,
    pub admin: kube::Client,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// None where there is no cluster.
    pub async fn new(test: &str) -> Option<Self> {
        if std::env::var_os("KUBECONFIG").is_none() {
            println!("skipped: {test} (KUBECONFIG is not set)");
            return None;
        }
        let admin = kube::Client::try_default().await.unwrap();
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let namespace = format!("maddock-test-{test}-{}-{started}", std::process::id());
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(admin.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        // Pods are refused before their account is there.
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
        eventually(async || {
            let account = accounts.get_opt("default").await.unwrap();
            account.is_some_and(|account| account.secrets.is_some())
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().canonicalize().unwrap().join("run");
        std::fs::create_dir(&run).unwrap();
        Some(Self { namespace, job: format!("{test}-job"), run, admin, _directory: directory })
    }

    pub fn setting(&self) -> Setting {
        let mut setting = Setting::in_directory(&self.run);
        setting.environment = Environment::of_process();
        setting.rules.push_str("[[allow]]\nplugin = \"kernel\"\ncalls = [\"kube.*\"]\n");
        setting
    }

    pub fn state_of(&self, setting: Setting) -> State {
        let mut state = setting.state().unwrap();
        state.job = Some(self.job.clone());
        state
    }

    pub fn state(&self) -> State {
        self.state_of(self.setting())
    }

    pub fn connection(&self) -> Connection {
        Connection { kubeconfig: String::new(), context: String::new(), namespace: self.namespace.clone() }
    }

    fn connection_of(&self, name: &str, change: impl FnOnce(&mut Kubeconfig)) -> Connection {
        let mut file = Kubeconfig::read().unwrap();
        change(&mut file);
        // Beside the run's directory: connections in it are not used.
        let path = self.run.with_file_name(name);
        // JSON is YAML.
        std::fs::write(&path, serde_json::to_string(&file).unwrap()).unwrap();
        Connection { kubeconfig: path.display().to_string(), ..self.connection() }
    }

    /// The same cluster in the eyes of another account.
    pub fn connection_as(&self, account: &str) -> Connection {
        self.connection_of("other-account", |file| {
            file.auth_infos[0].auth_info.as_mut().unwrap().impersonate = Some(account.to_owned());
        })
    }

    /// The same cluster by another way.
    pub fn connection_by(&self, proxy: &Proxy) -> Connection {
        let (host, _) = self.address();
        self.connection_of("by-proxy", |file| {
            let cluster = file.clusters[0].cluster.as_mut().unwrap();
            cluster.server = Some(format!("https://{}", proxy.address()));
            cluster.tls_server_name = Some(host);
        })
    }

    /// The same cluster by a proxy that the file of connections names.
    pub fn connection_through(&self, proxy: &str) -> Connection {
        self.connection_of("through-proxy", |file| {
            file.clusters[0].cluster.as_mut().unwrap().proxy_url = Some(proxy.to_owned());
        })
    }

    /// Host and port of the server.
    pub fn address(&self) -> (String, u16) {
        let file = Kubeconfig::read().unwrap();
        let server = file.clusters[0].cluster.clone().unwrap().server.unwrap();
        let (host, port) = server.trim_start_matches("https://").rsplit_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(kube::Client::try_default().await.unwrap());
                let _ = namespaces.delete(&namespace, &DeleteParams::background()).await;
            });
        });
        let _ = deleting.join();
    }
}

/// Waits for something that nobody tells.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it does not come to hold");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn object_ref(kind: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: kind.into(), name: name.into() }
}

/// An Indexed Job of so many pods whose one container, `main`, runs a script.
pub fn job(name: &str, pods: u32, script: &str) -> String {
    job_with(name, pods, script, |_| {})
}

pub fn job_with(name: &str, pods: u32, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut spec = json!({
        "completions": pods, "parallelism": pods, "completionMode": "Indexed", "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script]}]}},
    });
    change(&mut spec);
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// Waits until a snapshot of a Job is as it should be.
pub async fn until(scene: &Scene, state: &mut State, job: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    let (mut change, mut last) = (0, None);
    while Instant::now() < deadline {
        let next = state.next_change(scene.connection(), job.to_owned(), change, 5_000).await.unwrap().unwrap();
        if let Some(snapshot) = next {
            change = snapshot.change;
            if holds(&snapshot) {
                return snapshot;
            }
            last = Some(snapshot);
        }
    }
    panic!("Job {job} did not become so: {last:?}");
}

pub async fn ended(scene: &Scene, state: &mut State, job: &str) -> Snapshot {
    until(scene, state, job, |snapshot| matches!(snapshot.state, JobState::Complete | JobState::Failed(_))).await
}

/// What was told of a Job's output.
#[derive(Debug, Default)]
pub struct Told {
    pub bytes: BTreeMap<u32, Vec<u8>>,
    pub ends: Vec<LogEnd>,
}

impl Told {
    pub fn text(&self, index: u32) -> String {
        String::from_utf8(self.bytes.get(&index).cloned().unwrap_or_default()).unwrap()
    }

    pub async fn until(&mut self, state: &mut State, logs: &Resource<Logs>, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "the output does not come: {self:?}");
            match state.next_event(Resource::new_borrow(logs.rep()), 5_000).await.unwrap().unwrap() {
                LogEvent::Chunk(chunk) => self.bytes.entry(chunk.index).or_default().extend(chunk.bytes),
                LogEvent::End(end) => self.ends.push(end),
                LogEvent::Idle => {}
            }
        }
    }
}

/// The whole output of a Job of so many pods.
pub async fn logs_of(scene: &Scene, state: &mut State, job: &str, pods: usize) -> (BTreeMap<u32, String>, Vec<LogEnd>) {
    let logs = state.follow_logs(scene.connection(), job.to_owned(), "main".to_owned()).await.unwrap().unwrap();
    let mut told = Told::default();
    told.until(state, &logs, |told| told.ends.len() >= pods).await;
    let texts = told.bytes.keys().map(|index| (*index, told.text(*index))).collect();
    (texts, told.ends)
}
