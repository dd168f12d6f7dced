//! A cluster of the tests' own, which they may disturb: made by the scripts that `MADDOCK_TEST_K8S_SCRIPTS` names, one for the
//! whole of this program, and gone with it however it ends.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ground::{Ground, until};

pub struct Cluster {
    directory: PathBuf,
    image: String,
    /// Several of them may be on a machine, each with a number; who listens here has it.
    instance: u16,
    _claim: TcpListener,
    /// Tests that take a part of it away are alone; the others get on with each other.
    turn: RwLock<()>,
    /// Parts that were started anew, from here.
    parts: Mutex<Vec<(String, Child)>>,
    /// The system closes its input when this program ends, however: that is the sign to stop the cluster.
    _watcher: Child,
}

static CLUSTER: OnceLock<Result<Cluster, &'static str>> = OnceLock::new();

/// None, with a line, where there can be none.
pub fn cluster(test: &str) -> Option<&'static Cluster> {
    match CLUSTER.get_or_init(Cluster::start) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            println!("skipped: {test} ({why})");
            None
        }
    }
}

/// The ports that the scripts take for an instance begin here; they use the first ten.
fn port(instance: u16) -> u16 {
    16_440 + instance * 20
}

/// A number that nobody has: neither another of these programs nor a cluster that was started by hand.
fn claim() -> (u16, TcpListener) {
    let free = |instance: &u16| {
        TcpListener::bind(("127.0.0.1", port(*instance))).is_ok()
            && !Path::new(&format!("/sys/class/net/kt{instance}h")).exists()
    };
    let claimed = (1..10)
        .rev()
        .filter_map(|instance| Some((instance, TcpListener::bind(("127.0.0.1", port(instance) + 15)).ok()?)));
    let mut claimed = claimed.filter(|(instance, _)| free(instance));
    claimed.next().unwrap()
}

impl Cluster {
    fn start() -> Result<Self, &'static str> {
        let scripts = std::env::var_os("MADDOCK_TEST_K8S_SCRIPTS").ok_or("MADDOCK_TEST_K8S_SCRIPTS is not set")?;
        let image = std::env::var("MADDOCK_TEST_KUBE_IMAGE").map_err(|_| "MADDOCK_TEST_KUBE_IMAGE is not set")?;
        if !rustix::process::geteuid().is_root() {
            return Err("a node of one's own needs root");
        }
        let scripts = PathBuf::from(scripts).canonicalize().unwrap();
        let root = tempfile::Builder::new().prefix("maddock-k8s-").tempdir().unwrap();
        // Its nodes pull nothing.
        let archive = root.path().join("image.tar");
        let saved = Command::new("docker").args(["save", "--output"]).arg(&archive).arg(&image).output();
        if !saved.is_ok_and(|output| output.status.success()) {
            return Err("no engine has MADDOCK_TEST_KUBE_IMAGE to save");
        }
        let root = root.keep();
        let directory = root.join("cluster");
        let watch = root.join("watch.sh");
        std::fs::write(&watch, "read -r _\n\"$1\"\nrm -rf \"$2\"\n").unwrap();
        // In a group of its own: an interruption of the tests is none of it.
        let watcher = Command::new("bash")
            .arg(watch)
            .arg(scripts.join("down.sh"))
            .arg(&root)
            .env("K8S_STATE", &directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (instance, claim) = claim();
        // What it starts keeps the error output open: a file does not make this wait for its end.
        let mut said = tempfile::tempfile().unwrap();
        let status = Command::new(scripts.join("up.sh"))
            .env("K8S_STATE", &directory)
            .env("K8S_INSTANCE", instance.to_string())
            .env("K8S_NODE", "1")
            .env("K8S_IMAGES", &archive)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone().unwrap())
            .status()
            .unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut said).unwrap();
        said.read_to_string(&mut text).unwrap();
        assert!(status.success(), "{text}");
        std::fs::remove_file(archive).unwrap();
        Ok(Self {
            directory,
            image,
            instance,
            _claim: claim,
            turn: RwLock::new(()),
            parts: Mutex::default(),
            _watcher: watcher,
        })
    }

    /// With others, none of which takes anything away.
    pub fn with_others(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ground in it.
    pub fn ground(&self, card: Value, script: &str) -> Ground {
        Ground::in_cluster(Some(&self.directory.join("kubeconfig")), self.image.clone(), card, script)
    }

    /// This machine, as pods know it.
    pub fn here(&self) -> String {
        format!("10.250.{}.1", self.instance)
    }

    pub fn node(&self) -> String {
        format!("node-{}", self.instance)
    }

    fn pid_file(&self, part: &str) -> PathBuf {
        self.directory.join(format!("pids/{part}.pid"))
    }

    fn pid(&self, part: &str) -> u32 {
        std::fs::read_to_string(self.pid_file(part)).unwrap().trim().parse().unwrap()
    }

    /// Ends a part of the control plane without a word, and answers how to start it again.
    pub fn kill(&self, part: &str) -> Vec<String> {
        let pid = self.pid(part);
        let line = command_line(pid).unwrap();
        assert!(line.iter().any(|word| word.contains(&*self.directory.to_string_lossy())), "{line:?}");
        signal(pid, Signal::KILL);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, child) in parts.iter_mut().filter(|(name, _)| name == part) {
            child.wait().unwrap();
        }
        parts.retain(|(name, _)| name != part);
        until("the end of it", || command_line(pid).is_none_or(|now| now != line).then_some(()));
        line
    }

    /// Starts a part again, whose end is then that of the cluster.
    pub fn revive(&self, part: &str, line: &[String]) {
        let log = std::fs::File::options().append(true).open(self.directory.join(format!("logs/{part}.log"))).unwrap();
        let (program, arguments) = line.split_first().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        std::fs::write(self.pid_file(part), child.id().to_string()).unwrap();
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push((part.to_owned(), child));
    }

    /// Stops what keeps the node in touch with its cluster, as if the machine had been cut off, until this is dropped.
    pub fn cut_off(&self) -> CutOff {
        let init = self.pid("node-init");
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        let is_kubelet = |pid: &u32| command_line(*pid).is_some_and(|line| line[0].ends_with("/kubelet"));
        let kubelet = children.into_iter().find(is_kubelet).unwrap();
        signal(kubelet, Signal::STOP);
        CutOff { kubelet }
    }
}

/// A node that nothing is heard of.
pub struct CutOff {
    kubelet: u32,
}

impl Drop for CutOff {
    fn drop(&mut self) {
        signal(self.kubelet, Signal::CONT);
    }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// None for a process that is not there, or has ended.
fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
    Some(words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect())
}
