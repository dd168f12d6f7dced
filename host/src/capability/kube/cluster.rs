//! Which cluster: from a connection and the shell to one context of one file of connections, and a client for it.
//!
//! Reading such a file starts nothing. A file may name a program that fetches credentials: it is started when a client is
//! made, which takes a permit, and the gate has been asked for it by then.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::config::{Config, ExecInteractiveMode, Kubeconfig};
use maddock_bindings::api::kube::Connection;
use maddock_bindings::api::types::ErrorKind;
use tokio::sync::OnceCell;

use super::Kube;
use super::proxy;
use super::trouble;
use super::watch::Watch;
use crate::capability::gate::{Call, Permit};
use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::Environment;

/// What the connection of a process in the cluster is called.
pub(super) const IN_CLUSTER: &str = "in-cluster";
/// For a server that takes no connection.
const CONNECTING: Duration = Duration::from_secs(10);
/// For a program that fetches credentials.
const CREDENTIALS: Duration = Duration::from_secs(60);

/// No file of connections is longer.
const LONGEST: u64 = 4 << 20;

/// The beginning of a file: one byte more than any may have. It may be anybody's, and the gate has not been asked yet.
fn head(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read =
        |file: std::fs::File| std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST + 1), &mut bytes);
    let _ = std::fs::File::open(file).and_then(read);
    bytes
}

/// Clusters that this invocation speaks to, shared by all instances.
#[derive(Debug, Clone, Default)]
pub struct Clusters {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<BTreeMap<Key, Arc<Cluster>>>,
    /// By files and context as they are asked for: what was found then.
    found: Mutex<BTreeMap<Asked, Found>>,
    #[cfg(test)]
    read: std::sync::atomic::AtomicU32,
    watches: Mutex<BTreeMap<(Key, String), Arc<Watch>>>,
    used: Mutex<BTreeSet<(Key, String)>>,
}

/// What changes with a file. Whoever follows a Job asks for its place again and again, and files of connections are long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    fn of(file: &Path) -> Option<Self> {
        let about = std::fs::metadata(file).ok()?;
        Some(Self {
            device: about.dev(),
            inode: about.ino(),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

/// Files of connections, and the context that is asked for.
type Asked = (Vec<PathBuf>, String);

/// What they led to, and how the files were then.
#[derive(Debug)]
struct Found {
    marks: Vec<Mark>,
    cluster: Arc<Cluster>,
}

/// A context of a file as it was when it was read.
type Key = (String, String, u64);

/// One context.
pub(super) struct Cluster {
    key: Key,
    /// The file, or [`IN_CLUSTER`].
    pub(super) source: String,
    pub(super) context: String,
    /// Where nobody names another.
    namespace: String,
    /// Host and port.
    pub(super) address: String,
    /// Programs that fetch credentials.
    programs: Vec<String>,
    config: Config,
    client: OnceCell<kube::Client>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("source", &self.source).field("context", &self.context).finish_non_exhaustive()
    }
}

/// A namespace of a cluster, before the gate was asked.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) cluster: Arc<Cluster>,
    pub(super) namespace: String,
}

/// A way to a namespace of a cluster, for a call that the gate allowed.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) api: kube::Client,
    pub(super) place: Place,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clusters {
    /// The place that a connection names.
    ///
    /// # Errors
    /// There is no such file, context or cluster, with the names that there are.
    pub(super) fn place(&self, connection: &Connection, environment: &Environment) -> Result<Place, ApiError> {
        if !connection.namespace.is_empty() {
            super::object::check_name("namespace", &connection.namespace)?;
        }
        let files = files(&connection.kubeconfig, environment)?;
        let cluster = match files.as_slice() {
            [] => self.within(connection, environment)?,
            files => self.of_files(files, &connection.context, environment)?,
        };
        let namespace = match connection.namespace.as_str() {
            "" => cluster.namespace.clone(),
            named => named.to_owned(),
        };
        Ok(Place { cluster, namespace })
    }

    fn within(&self, connection: &Connection, environment: &Environment) -> Result<Arc<Cluster>, ApiError> {
        if !matches!(connection.context.as_str(), "" | IN_CLUSTER) {
            return Err(error_with_hint(
                ErrorKind::NotFound,
                format!(
                    "there is no context `{}`: no file of connections was found",
                    connection.context.escape_debug()
                ),
                NO_FILE,
            ));
        }
        let key = (IN_CLUSTER.to_owned(), IN_CLUSTER.to_owned(), 0);
        if let Some(known) = locked(&self.shared.known).get(&key) {
            return Ok(known.clone());
        }
        let mut config = Config::incluster_env().map_err(|cause| {
            error(ErrorKind::Failed, format!("cannot speak to the cluster around this process: {}", chain(&cause)))
        })?;
        proxy::choose(&mut config, None, environment)?;
        Ok(self.keep(Cluster::new(key, config)))
    }

    fn of_files(&self, files: &[PathBuf], context: &str, environment: &Environment) -> Result<Arc<Cluster>, ApiError> {
        // Before they are read: what is written meanwhile is read the next time.
        let marks: Option<Vec<Mark>> = files.iter().map(|file| Mark::of(file)).collect();
        let asked = (files.to_vec(), context.to_owned());
        if let (Some(marks), Some(found)) = (&marks, locked(&self.shared.found).get(&asked))
            && *marks == found.marks
        {
            return Ok(found.cluster.clone());
        }
        let cluster = self.read_files(files, context, environment)?;
        if let Some(marks) = marks {
            locked(&self.shared.found).insert(asked, Found { marks, cluster: cluster.clone() });
        }
        Ok(cluster)
    }

    fn read_files(
        &self,
        files: &[PathBuf],
        context: &str,
        environment: &Environment,
    ) -> Result<Arc<Cluster>, ApiError> {
        #[cfg(test)]
        self.shared.read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shown: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let source = shown.join(":");
        let mut hasher = DefaultHasher::new();
        let mut merged = Kubeconfig::default();
        for file in files {
            let content = head(file);
            content.hash(&mut hasher);
            let broken = |cause: &dyn std::error::Error| {
                let mut broken = error_with_hint(
                    ErrorKind::InvalidInput,
                    format!("cannot read the connections in `{}`: {}", file.display(), chain(cause)),
                    "`kubectl config view` shows whether the file is sound",
                );
                broken.details.push(super::detail("file", file.display().to_string()));
                broken
            };
            if u64::try_from(content.len()).unwrap_or(u64::MAX) > LONGEST {
                return Err(broken(&std::io::Error::other(format!("it is longer than {LONGEST} bytes"))));
            }
            let one = Kubeconfig::read_from(file).map_err(|cause| broken(&cause))?;
            merged = merged.merge(one).map_err(|cause| broken(&cause))?;
        }
        let context = match context {
            "" => merged.current_context.clone().unwrap_or_default(),
            named => named.to_owned(),
        };
        let names: Vec<&str> = merged.contexts.iter().map(|context| context.name.as_str()).collect();
        let available = match names.as_slice() {
            [] => "it has none".to_owned(),
            names => format!("it has {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        };
        if context.is_empty() {
            return Err(error_with_hint(
                ErrorKind::InvalidInput,
                format!("no context is named, and `{source}` says of none that it is the current one"),
                format!("name a context: {available}"),
            ));
        }
        if !names.contains(&context.as_str()) {
            return Err(error_with_hint(
                ErrorKind::NotFound,
                format!("there is no context `{}` in `{source}`", context.escape_debug()),
                available,
            ));
        }
        let key = (source.clone(), context.clone(), hasher.finish());
        if let Some(known) = locked(&self.shared.known).get(&key) {
            return Ok(known.clone());
        }
        merged.current_context = Some(context.clone());
        let of_context = merged.contexts.iter().find(|named| named.name == context);
        let cluster = of_context.and_then(|named| named.context.as_ref()).map(|context| context.cluster.clone());
        let cluster = merged.clusters.iter().find(|named| Some(&named.name) == cluster.as_ref());
        let proxy = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.clone());
        let mut config = Config::try_from(merged).map_err(|cause| {
            error(
                ErrorKind::InvalidInput,
                format!("context `{context}` of `{source}` is not usable: {}", chain(&cause)),
            )
        })?;
        proxy::choose(&mut config, proxy.as_deref(), environment)?;
        Ok(self.keep(Cluster::new(key, config)))
    }

    fn keep(&self, cluster: Cluster) -> Arc<Cluster> {
        let cluster = Arc::new(cluster);
        locked(&self.shared.known).insert(cluster.key.clone(), cluster.clone());
        cluster
    }

    /// From now on there may be objects of this run in a place.
    pub(super) fn mark_used(&self, place: &Place) {
        locked(&self.shared.used).insert((place.cluster.key.clone(), place.namespace.clone()));
    }

    /// Where this invocation has made anything.
    pub(super) fn used(&self) -> Vec<Place> {
        let known = locked(&self.shared.known);
        let used = locked(&self.shared.used);
        used.iter()
            .filter_map(|(key, namespace)| {
                Some(Place { cluster: known.get(key)?.clone(), namespace: namespace.clone() })
            })
            .collect()
    }

    /// Jobs of these names are about to be made in a place.
    pub(super) fn expect<'a>(&self, place: &Place, jobs: impl Iterator<Item = &'a str>) {
        let key = (place.cluster.key.clone(), place.namespace.clone());
        if let Some(watch) = locked(&self.shared.watches).get(&key) {
            jobs.for_each(|job| watch.expect(job));
        }
    }

    /// The one watch of a run in a place, which begins with its first use.
    pub(super) fn watch(&self, client: &Client, run: &str) -> Arc<Watch> {
        let key = (client.place.cluster.key.clone(), client.place.namespace.clone());
        locked(&self.shared.watches).entry(key).or_insert_with(|| Arc::new(Watch::begin(client, run))).clone()
    }
}

impl Cluster {
    fn new(key: Key, mut config: Config) -> Self {
        config.connect_timeout = Some(CONNECTING);
        let mut programs = Vec::new();
        if let Some(exec) = &mut config.auth_info.exec {
            // It cannot ask anybody: what reads the terminal is not this.
            exec.interactive_mode = Some(ExecInteractiveMode::Never);
            programs.extend(exec.command.clone());
        }
        if let Some(provider) = &config.auth_info.auth_provider {
            programs.extend(provider.config.get("cmd-path").cloned());
        }
        let address = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        Self {
            source: key.0.clone(),
            context: key.1.clone(),
            namespace: config.default_namespace.clone(),
            address,
            programs,
            config,
            client: OnceCell::new(),
            key,
        }
    }

    async fn client(&self) -> Result<kube::Client, ApiError> {
        self.client.get_or_try_init(|| self.connect()).await.cloned()
    }

    async fn connect(&self) -> Result<kube::Client, ApiError> {
        let config = self.config.clone();
        // A program that fetches credentials is waited for here.
        let making = tokio::task::spawn_blocking(move || kube::Client::try_from(config));
        match tokio::time::timeout(CREDENTIALS, making).await {
            Ok(Ok(made)) => made.map_err(|cause| trouble::of(&format!("cannot use context `{}`", self.context), cause)),
            Ok(Err(_)) => Err(error(ErrorKind::Failed, "the client was not made")),
            Err(_) => Err(error(
                ErrorKind::TimedOut,
                format!(
                    "the credentials of context `{}` were not there within {} s",
                    self.context,
                    CREDENTIALS.as_secs()
                ),
            )),
        }
    }
}

impl Place {
    /// Says to the gate which cluster, and what fetches its credentials.
    pub(super) fn describe(&self, call: Call<Kube>) -> Call<Kube> {
        call.on("context", &self.cluster.context)
            .on("namespace", &self.namespace)
            .on("server", &self.cluster.address)
            .on("kubeconfig", &self.cluster.source)
            .on_all("program", self.cluster.programs.iter().cloned())
    }
}

impl Client {
    pub(super) async fn open(_: &Permit<Kube>, place: &Place) -> Result<Self, ApiError> {
        Ok(Self { api: place.cluster.client().await?, place: place.clone() })
    }
}

const NO_FILE: &str = "set KUBECONFIG, or name a file of connections (`kubeconfig`)";

/// The files to read; none: there is only the cluster around this process.
fn files(named: &str, environment: &Environment) -> Result<Vec<PathBuf>, ApiError> {
    let missing = |file: &Path, whence: &str| {
        let mut missing = error_with_hint(
            ErrorKind::NotFound,
            format!("{whence} names `{}`, which is not there", file.display()),
            NO_FILE,
        );
        missing.details.push(super::detail("file", file.display().to_string()));
        missing
    };
    if !named.is_empty() {
        let file = crate::capability::files::place::parse(named)?;
        return if file.is_file() { Ok(vec![file]) } else { Err(missing(&file, "the connection")) };
    }
    let listed: Vec<PathBuf> = environment
        .get("KUBECONFIG")
        .map(|list| std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if let Some(first) = listed.first() {
        let there: Vec<PathBuf> = listed.iter().filter(|file| file.is_file()).cloned().collect();
        return if there.is_empty() { Err(missing(first, "KUBECONFIG")) } else { Ok(there) };
    }
    let usual = environment.get("HOME").map(|home| Path::new(home).join(".kube/config"));
    match usual.filter(|file| file.is_file()) {
        Some(file) => Ok(vec![file]),
        None if environment.get("KUBERNETES_SERVICE_HOST").is_some() => Ok(Vec::new()),
        None => Err(error_with_hint(ErrorKind::NotFound, "no cluster is configured on this machine", NO_FILE)),
    }
}

/// Whether this machine has a cluster configured at all.
pub(super) fn is_configured(environment: &Environment) -> bool {
    environment.get("KUBECONFIG").is_some_and(|list| !list.is_empty()) || files("", environment).is_ok()
}

/// An error and what caused it, in one sentence.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    crate::capability::events::printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_of_connections_is_read_again_only_when_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("connections");
        let write = |server: &str| {
            let text = json!({"current-context": "c", "users": [{"name": "c", "user": {}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
            std::fs::write(&file, text.to_string()).unwrap();
        };
        let clusters = Clusters::default();
        let connection = |context: &str| Connection {
            kubeconfig: file.display().to_string(),
            context: context.to_owned(),
            namespace: String::new(),
        };
        let address = |context: &str| {
            let place = clusters.place(&connection(context), &Environment::default()).unwrap();
            place.cluster.address.clone()
        };
        let read = || clusters.shared.read.load(std::sync::atomic::Ordering::Relaxed);
        write("http://one.example:6443");
        for _ in 0..10 {
            assert_eq!(address(""), "one.example:6443");
        }
        assert_eq!(read(), 1);
        assert_eq!(address("c"), "one.example:6443");
        assert!(clusters.place(&connection("other"), &Environment::default()).is_err());
        assert_eq!(read(), 3);
        // Another file in its place, of the same length.
        std::fs::remove_file(&file).unwrap();
        write("http://two.example:6443");
        assert_eq!(address(""), "two.example:6443");
        assert_eq!(address(""), "two.example:6443");
        assert_eq!(read(), 4);
    }
}
