//! A cluster of the tests' own, which they may disturb: made by the scripts that `MADDOCK_TEST_SLURM_SCRIPTS` names, one for
//! the whole of this program, and gone with it however it ends.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::*;

/// Its nodes: two that are left alone, one that loses its life and its neighbour, one that is drained, two that are busy.
const NODES: u16 = 7;
/// A node is given up somewhat sooner than by default.
const CONFIGURATION: &str = "PartitionName=calm Nodes=node[1-2]\nPartitionName=doomed Nodes=node[3-4]\n\
                          PartitionName=drained Nodes=node5\nPartitionName=busy Nodes=node[6-7]\nSlurmdTimeout=20";

pub(super) struct Cluster {
    kind: Kind,
    scripts: PathBuf,
    directory: PathBuf,
    /// Tests that take the controller away are alone; the others get on with each other.
    turn: RwLock<()>,
    /// The system closes its input when this program ends, however: that is the sign to stop the cluster.
    _watcher: Child,
}

/// One with an accounting, and a controller that soon forgets jobs that have ended.
const ACCOUNTED: Kind =
    Kind { nodes: 1, accounting: "dbd", configuration: "PartitionName=calm Nodes=node1\nMinJobAge=2" };
/// One without: `sacct` ends with an error.
const PLAIN: Kind = Kind { nodes: NODES, accounting: "file", configuration: CONFIGURATION };

#[derive(Clone, Copy)]
struct Kind {
    nodes: u16,
    accounting: &'static str,
    configuration: &'static str,
}

static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
static WITH_ACCOUNTING: OnceLock<Option<Cluster>> = OnceLock::new();

/// None, with a line, where there are no scripts.
pub(super) fn cluster(test: &str) -> Option<&'static Cluster> {
    let start = || Some(Cluster::start(std::env::var_os("MADDOCK_TEST_SLURM_SCRIPTS")?.into(), PLAIN));
    let cluster = CLUSTER.get_or_init(start);
    if cluster.is_none() {
        println!("skipped: {test} (MADDOCK_TEST_SLURM_SCRIPTS is not set)");
    }
    cluster.as_ref()
}

/// The one with an accounting; none where the programs for that are not installed.
pub(super) fn with_accounting(test: &str) -> Option<&'static Cluster> {
    let start = || Some(Cluster::start(std::env::var_os("MADDOCK_TEST_SLURM_SCRIPTS")?.into(), ACCOUNTED));
    let there = ["slurmdbd", "mariadbd"].iter().all(|name| {
        ["/usr/sbin", "/usr/bin", "/sbin"].iter().any(|directory| std::path::Path::new(directory).join(name).exists())
    });
    let cluster = if there { WITH_ACCOUNTING.get_or_init(start).as_ref() } else { None };
    if cluster.is_none() {
        println!("skipped: {test} (MADDOCK_TEST_SLURM_SCRIPTS is not set, or slurmdbd and mariadbd are not installed)");
    }
    cluster
}

/// The first of the ports that the scripts count from. What they use must be free now.
fn base_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    let own = u16::try_from(std::process::id() % 100).unwrap();
    (0..100)
        .map(|step| 20_000 + (own + step) % 100 * 50)
        .find(|base| (17..=20 + NODES).all(|offset| free(base + offset)))
        .unwrap()
}

impl Cluster {
    fn start(scripts: PathBuf, kind: Kind) -> Self {
        let scripts = scripts.canonicalize().unwrap();
        let directory = tempfile::Builder::new().prefix("maddock-slurm-").tempdir().unwrap().keep();
        let watch = directory.join("watch.sh");
        std::fs::write(&watch, "read -r _\nexec \"$1\" --purge\n").unwrap();
        // In a group of its own: an interruption of the tests is none of it.
        let watcher = Command::new("bash")
            .arg(watch)
            .arg(scripts.join("down.sh"))
            .env("SLURM_CLUSTER_DIR", &directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Self { kind, scripts, directory, turn: RwLock::new(()), _watcher: watcher };
        cluster.up(&base_port().to_string());
        cluster
    }

    fn up(&self, port: &str) {
        // What it starts keeps the error output open: a file does not make this wait for its end.
        let mut said = tempfile::tempfile().unwrap();
        let status = Command::new(self.scripts.join("up.sh"))
            .env("SLURM_CLUSTER_DIR", &self.directory)
            .env("SLURM_CLUSTER_PORT", port)
            .env("SLURM_CLUSTER_NODES", self.kind.nodes.to_string())
            .env("SLURM_CLUSTER_GPUS", "0")
            .env("SLURM_CLUSTER_ACCT", self.kind.accounting)
            .env("SLURM_CLUSTER_EXTRA", self.kind.configuration)
            .env("SLURM_CLUSTER_INSTALL", "0")
            .env("SLURM_CLUSTER_WAIT", "240")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone().unwrap())
            .status()
            .unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut said).unwrap();
        said.read_to_string(&mut text).unwrap();
        assert!(status.success(), "{text}");
    }

    /// With others, none of which takes the controller away.
    pub(super) fn with_others(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.join("etc/slurm.conf")
    }

    /// Where the controller keeps what it would need after a crash.
    pub(super) fn saved_jobs(&self) -> PathBuf {
        self.directory.join("state/job_state")
    }

    /// Kills a part: a node, or the controller.
    pub(super) fn kill(&self, part: &str) {
        let mut down = Command::new(self.scripts.join("down.sh"));
        down.args(["--kill", part]).env("SLURM_CLUSTER_DIR", &self.directory).stderr(Stdio::null());
        assert!(down.status().unwrap().success(), "{part}");
    }

    /// Starts what is not there any more.
    pub(super) fn repair(&self) {
        self.up("0");
    }

    /// What one of the scheduler's own programs says, and whether it is content.
    pub(super) fn ask(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(program).args(arguments).env("SLURM_CONF", self.configuration()).output().unwrap();
        (output.status.success(), said(&output))
    }

    pub(super) fn tell(&self, arguments: &[&str]) {
        let (content, said) = self.ask("scontrol", arguments);
        assert!(content, "{said}");
    }

    /// Jobs of a ground's run that have not ended.
    pub(super) fn queue(&self, ground: &Ground) -> Vec<String> {
        let run = ground.directory().file_name().unwrap().to_string_lossy().into_owned();
        let (content, said) = self.ask("squeue", &["--noheader", "--format=%i %T %k"]);
        assert!(content, "{said}");
        said.lines().filter(|line| line.contains(&run)).map(str::to_owned).collect()
    }

    /// The command of a ground, for this cluster.
    pub(super) fn command(&self, ground: &Ground, partition: &str, more: Value) -> Command {
        let section = with(json!({"partition": partition, "container": false, "exclusive": false, "mem": "50M"}), more);
        let mut command = ground.command(&section);
        command.env("SLURM_CONF", self.configuration()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}
