//! Jobs with an image: each node runs its share in a container. The nodes of the test cluster share one engine with this
//! machine, so that what is left on any of them is seen here. Needs `MADDOCK_TEST_IMAGE` besides the cluster, and for some
//! `MADDOCK_TEST_REGISTRY`; `MADDOCK_TEST_STATIC` names a static maddock, which nodes then run.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{Ground, PATIENCE, interrupt, said, with};

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn variable(name: &str, test: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        println!("skipped: {test} ({name} is not set)");
    }
    value
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A ground whose model has an image; what was built for it goes with the test.
struct Scene {
    ground: Ground,
    image: String,
    model: String,
}

impl Scene {
    fn new(test: &str, card: Value, script: &str) -> Option<Self> {
        let image = variable("MADDOCK_TEST_IMAGE", test)?;
        let model = format!("ms{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let card = with(json!({"name": model, "dockerfile": "docker/m"}), card);
        let ground = Ground::new(test, card, script)?;
        let docker_directory = ground.root.path().join("tree/docker");
        std::fs::create_dir(&docker_directory).unwrap();
        let text = format!("# CONTEXT {{}}\nFROM {image}\nRUN echo {model} > /built\nLABEL maddock.test={model}\n");
        std::fs::write(docker_directory.join("m.ubuntu.amd.Dockerfile"), text).unwrap();
        Some(Self { ground, image, model })
    }

    fn section(&self) -> Value {
        let mut section = json!({"partition": "cpu", "exclusive": false, "mem": "100M"});
        if let Ok(path) = std::env::var("MADDOCK_TEST_STATIC") {
            section["maddock"] = json!(path);
        }
        section
    }

    /// In the image that there is, with this in the section.
    fn command(&self, more: Value) -> Command {
        let section = with(self.section(), more);
        self.ground.command_with(&json!({"MAD_CONTAINER_IMAGE": self.image, "slurm": section}))
    }

    fn run(&self, more: Value) -> Output {
        self.command(more).output().unwrap()
    }

    fn start(&self, more: Value) -> Child {
        self.command(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// In an image that is built for the model.
    fn build_and_run(&self, more: Value, options: &[&str]) -> Output {
        let section = with(self.section(), more);
        self.ground.command_with(&json!({"slurm": section})).args(options).output().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.ground.job_directory().join("run.log")).unwrap()
    }

    /// A file of one node's own directory.
    fn node(&self, rank: u32, file: &str) -> String {
        let path = self.ground.job_directory().join(format!("nodes/{rank}/{file}"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn run_id(&self) -> String {
        self.ground.directory().file_name().unwrap().to_string_lossy().into_owned()
    }

    fn containers(&self) -> String {
        docker(&["ps", "--all", "--quiet", "--filter", &format!("label=maddock.run={}", self.run_id())])
    }

    /// Waits for the number of this run's containers that run.
    fn wait_for_containers(&self, count: usize) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let filter = format!("label=maddock.run={}", self.run_id());
        while docker(&["ps", "--quiet", "--filter", &filter]).lines().count() != count {
            assert!(std::time::Instant::now() < deadline, "waited in vain for {count} containers");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// On no node and not beside the job.
    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.containers(), "", "containers are left");
        assert_eq!(self.ground.queue(), "");
        let left = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let start = format!("maddock-{}-", self.run_id());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(&start)).collect();
        assert!(left.is_empty(), "{left:?}");
        for file in ["bin", "image.tar"] {
            assert!(!self.ground.job_directory().join(file).exists(), "`{file}` is left beside the job");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() && self.ground.work().join(".maddock/runs").exists() {
            println!("{}", self.log());
        }
        let listed = docker(&["images", "--quiet", "--filter", &format!("label=maddock.test={}", self.model)]);
        for image in listed.lines() {
            docker(&["rmi", "--force", image]);
        }
    }
}

const GOOD: &str = "echo \"rank $NODE_RANK of $NNODES in job $MAD_SLURM_JOB_ID of $MAD_TOTAL_NODES\"\ncat /built || true\n\
    echo \"n,$NODE_RANK\" > x_output.csv\necho \"performance: 1$NODE_RANK things_per_second\"\n";

#[test]
fn a_built_image_is_pulled_from_its_registry_by_its_digest() {
    let Some(registry) = variable("MADDOCK_TEST_REGISTRY", "registry") else { return };
    let Some(scene) = Scene::new("registry", json!({}), GOOD) else { return };
    let output = scene.build_and_run(json!({}), &["--registry", &registry]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = scene.log();
    assert!(log.contains(&scene.model), "the image's own file is there: {log}");
    assert!(log.contains("rank 0 of 1 in job ") && log.contains(" of 1\n"), "{log}");
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(scene.ground.job_directory().join("node.json")).unwrap())
            .unwrap();
    let name = file["node"]["image"]["registry_reference"].as_str().unwrap();
    assert!(name.starts_with(&registry) && name.contains("@sha256:"), "{name}");
    let trace = scene.node(0, "trace.jsonl");
    assert!(trace.contains("docker.pull-image") && trace.contains(&format!("\"image\":\"{name}\"")), "{trace}");
    let created = trace.lines().find(|line| line.contains("docker.create-container")).unwrap();
    assert!(created.contains("_node0\""), "{created}");
    let job = scene.ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("10"), "{job:#}");
    assert!(job["image_digest"].as_str().unwrap().starts_with("sha256:"), "{job:#}");
    scene.nothing_is_left();
}

#[test]
fn two_nodes_run_an_image_that_was_sent_as_an_archive() {
    // They meet through the network of their machines: one listens, the other calls.
    let script = "if [ \"$NODE_RANK\" = 0 ]; then\n  python3 -c 'import socket,os; s=socket.socket(); \
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((\"\", int(os.environ[\"MASTER_PORT\"]))); \
        s.listen(); s.settimeout(300); print(\"heard\", s.accept()[0].recv(9).decode())'\nelse\n  for _ in $(seq 1500); do python3 -c 'import socket,os; \
        s=socket.create_connection((os.environ[\"MASTER_ADDR\"], int(os.environ[\"MASTER_PORT\"]))); s.send(b\"rank1\")' \
        && break; sleep 0.2; done 2>/dev/null\nfi\n";
    let Some(scene) = Scene::new("archive", json!({}), &format!("{GOOD}{script}")) else { return };
    let section = with(scene.section(), json!({"nodes": 2}));
    // The engine of a container does not know the nodes of a pretended cluster by name.
    let hosts = Command::new("scontrol").args(["show", "node", "--oneliner"]).output().unwrap();
    let hosts = String::from_utf8(hosts.stdout).unwrap();
    let options: Vec<String> = hosts
        .lines()
        .filter_map(|line| {
            let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            Some(format!("--add-host {}:{}", word("NodeName=")?, word("NodeAddr=")?))
        })
        .collect();
    let context = json!({"slurm": section, "distributed": {"port": 29571},
        "additional_docker_run_options": options.join(" ")});
    let output = scene.ground.command_with(&context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", said(&output), scene.log());
    let log = scene.log();
    assert!(log.contains("rank 0 of 2") && log.contains("rank 1 of 2") && log.contains("heard rank1"), "{log}");
    for rank in 0..2 {
        assert!(scene.node(rank, "trace.jsonl").contains("docker.load-image"));
        assert_eq!(scene.node(rank, "files/x_output.csv"), format!("n,{rank}\n"));
        assert!(scene.node(rank, "trace.jsonl").contains("\"network\":\"host\""));
    }
    let job = scene.ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("21"), "{job:#}");
    assert_eq!(job["evidence"]["nodes"], json!({"expected": 2, "reported": 2}));
    scene.nothing_is_left();
}

#[test]
fn a_model_that_fails_in_a_container_ends_the_others_with_its_code() {
    let script = "if [ \"$NODE_RANK\" = 1 ]; then echo x > x_output.csv; echo last words; exit 7; fi\nsleep 600\n";
    let Some(scene) = Scene::new("a failing container", json!({}), script) else { return };
    let output = scene.run(json!({"nodes": 2}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("node 1"), "{job:#}");
    assert!(scene.log().contains("last words"));
    assert_eq!(scene.node(1, "files/x_output.csv"), "x\n", "a failing node's files come back");
    assert!(scene.node(0, "ended").contains("\npeer=1\n"), "{}", scene.node(0, "ended"));
    scene.nothing_is_left();
}

#[test]
fn a_job_that_somebody_else_ends_leaves_no_container() {
    // It does not end when it is asked to.
    let script = "trap '' TERM\necho here\nwhile :; do sleep 1; done\n";
    let Some(scene) = Scene::new("scancel with containers", json!({}), script) else { return };
    let mut run = scene.start(json!({"nodes": 2}));
    let id = scene.ground.wait_for("running on node");
    scene.wait_for_containers(2);
    assert!(Command::new("scancel").arg(id).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(3));
    assert_eq!(scene.ground.job()["execution"]["state"].as_str(), Some("cancelled"));
    assert!(scene.node(0, "ended").contains("\ncause=cancelled\n"), "{}", scene.node(0, "ended"));
    scene.nothing_is_left();
}

#[test]
fn ctrl_c_ends_the_containers_on_the_nodes() {
    let Some(scene) = Scene::new("ctrl-c with containers", json!({}), "echo here\nsleep 600\n") else { return };
    let mut run = scene.start(json!({}));
    scene.ground.wait_for("running on node");
    scene.wait_for_containers(1);
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    // The controller forgets the job before the node has tidied up.
    scene.wait_for_containers(0);
    assert_eq!(scene.ground.queue(), "");
}

#[test]
fn a_model_s_own_time_limit_ends_its_container() {
    let Some(scene) = Scene::new("time limit", json!({"timeout": 2}), "echo here\nsleep 600\n") else { return };
    let output = scene.run(json!({}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    scene.nothing_is_left();
}

#[test]
fn the_scheduler_s_time_limit_ends_the_containers_of_all_nodes() {
    // A minute is the shortest that there is.
    let script = "trap '' TERM\necho here\nwhile :; do sleep 1; done\n";
    let Some(scene) = Scene::new("the scheduler's limit", json!({}), script) else { return };
    let output = scene.run(json!({"nodes": 2, "time": 1}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    for rank in 0..2 {
        assert!(scene.node(rank, "ended").contains("\ncause=cancelled\n"), "{}", scene.node(rank, "ended"));
    }
    scene.nothing_is_left();
}

#[test]
fn another_image_than_the_one_that_was_built_is_not_run() {
    let Some(scene) = Scene::new("another image", json!({}), GOOD) else { return };
    let wrong = format!("sha256:{}", "0".repeat(64));
    let refused = |transfer: &str| {
        let section = with(scene.section(), json!({"image_transfer": transfer}));
        let manifest = json!({
            "built_images": {"k": {"docker_image": scene.image, "local_image": scene.image, "image_digest": wrong}},
            "built_models": {"k": {"name": scene.model, "scripts": "scripts/m/run.sh", "n_gpus": "0", "tags": ["t"]}},
            "context": {},
        });
        let file = scene.ground.root.path().join("manifest.json");
        std::fs::write(&file, manifest.to_string()).unwrap();
        let mut command = scene.ground.command_with(&json!({"slurm": section}));
        let output = command.arg("--manifest-file").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let job = scene.ground.job();
        assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
        assert!(job["reason"].as_str().unwrap().contains(&wrong), "{job:#}");
        scene.nothing_is_left();
        std::fs::remove_dir_all(scene.ground.directory()).unwrap();
    };
    // Here, where it is packed; and there, where it is looked for.
    refused("tar");
    refused("present");
    // The test's end shows a log where there is one.
    std::fs::remove_dir_all(scene.ground.work().join(".maddock")).unwrap();
}

#[test]
fn the_accelerators_that_the_nodes_found_stand_in_the_row() {
    let script = "echo \"performance: 1 things_per_second\"\n";
    let Some(root) = variable("MADDOCK_FAKE_ROCM", "what the nodes found") else { return };
    if !std::path::Path::new("/dev/kfd").exists() {
        println!("skipped: what the nodes found (the pretended host has no `/dev/kfd`)");
        return;
    }
    let Some(scene) = Scene::new("what the nodes found", json!({"n_gpus": "1"}), script) else { return };
    let section = with(scene.section(), json!({"partition": "gpu"}));
    let context = json!({"MAD_CONTAINER_IMAGE": scene.image, "MAD_ROCM_PATH": root, "slurm": section});
    let output = scene.ground.command_with(&context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let found =
        scene.node(0, "ended").lines().find_map(|line| line.strip_prefix("gpu_architecture=").map(str::to_owned));
    let found = found.unwrap();
    assert!(found.starts_with("gfx"), "{found}");
    assert_eq!(scene.ground.job()["rows"][0]["gpu_architecture"], found);
    scene.nothing_is_left();
}

#[test]
fn a_node_without_the_devices_that_were_asked_for_says_so_unless_it_is_not_to_look() {
    let script = "echo \"gpus $MAD_RUNTIME_NGPUS\"\necho \"performance: 1 things_per_second\"\n";
    let Some(scene) = Scene::new("devices", json!({"n_gpus": "1"}), script) else { return };
    if ["/sys/class/kfd", "/proc/driver/nvidia"].iter().any(|driver| std::path::Path::new(driver).exists()) {
        println!("skipped: devices (this machine has some)");
        // The test's end shows a log where there is one; here is none.
        return;
    }
    let output = scene.run(json!({"partition": "gpu"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("no accelerator answers on this node"), "{job:#}");
    scene.nothing_is_left();
    std::fs::remove_dir_all(scene.ground.directory()).unwrap();
    let output = scene.run(json!({"partition": "gpu", "enable_node_check": false}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.log().contains("the job gets none of 1"), "{}", scene.log());
}

#[test]
fn a_program_that_is_not_on_the_nodes_is_named() {
    let Some(scene) = Scene::new("no program", json!({}), GOOD) else { return };
    let output = scene.run(json!({"maddock": "/nonexistent/maddock"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    let log = scene.log();
    assert!(log.contains("/nonexistent/maddock does not start on node") && log.contains("slurm.maddock"), "{log}");
}

#[test]
fn a_node_on_which_the_program_does_not_start_is_named_and_ends_the_others() {
    // A directory that every node of the test cluster has for itself: the program is there on the first node only.
    let Some(cluster) = variable("SLURM_CLUSTER_DIR", "no program on one node") else { return };
    let Some(scene) = Scene::new("no program on one node", json!({}), "echo here\nsleep 600\n") else { return };
    let sinfo =
        Command::new("sinfo").args(["--noheader", "--Node", "--partition=cpu", "--format=%N"]).output().unwrap();
    let names = String::from_utf8(sinfo.stdout).unwrap();
    let names: Vec<&str> = names.lines().collect();
    let (first, second) = (names[0], names[1]);
    let own = format!("{cluster}/scratch/{}", scene.model);
    let program = std::env::var("MADDOCK_TEST_STATIC").unwrap_or_else(|_| crate::MADDOCK.to_owned());
    let on_first = |words: &[&str]| {
        let mut srun = Command::new("srun");
        srun.args(["--mem=10M", "--nodes=1", "--ntasks=1", "--nodelist", first]).args(words).env_remove("SLURM_JOB_ID");
        assert!(srun.status().unwrap().success(), "{words:?}");
    };
    on_first(&["cp", &program, &own]);
    let output = scene.run(json!({"nodes": 2, "nodelist": format!("{first},{second}"), "maddock": own}));
    on_first(&["rm", &own]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = scene.ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("node 1 ({second}) failed")) && reason.contains("does not start"), "{reason}");
    assert!(scene.node(0, "ended").contains("\npeer=1\n"), "{}", scene.node(0, "ended"));
    scene.nothing_is_left();
}

#[test]
fn a_detached_job_keeps_the_nodes_program_until_it_has_its_verdict() {
    let script = "until [ -e /go ]; do sleep 0.1; done\necho 'performance: 42 things_per_second'\n";
    let Some(scene) = Scene::new("detached with an image", json!({}), script) else { return };
    // The nodes run the copy beside the job.
    let output = scene.command(json!({"maddock": null})).arg("--detach").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.ground.job_directory().join("bin/maddock").exists(), "the process that left it has taken it along");
    scene.wait_for_containers(1);
    docker(&["exec", &scene.containers(), "touch", "/go"]);
    let attached = crate::later(&scene.ground, &["attach", "last"]);
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
    assert_eq!(scene.ground.job()["rows"][0]["performance"].as_str(), Some("42"));
    scene.nothing_is_left();
}

#[test]
fn secrets_and_hostile_values_reach_the_container_and_no_file() {
    let hostile = "a b'c\"d$(touch pwned)`id`\\n;&|<>*?[x]{1,2}~!#$HOME ünï";
    let script = "printf 'value <%s>\\n' \"$HOSTILE\"\nprintf '%s' \"$MAD_SECRETS_TEST\" | wc -c > n_output.csv\n\
        echo \"performance: 1 things_per_second\"\n";
    let Some(scene) = Scene::new("secrets", json!({}), script) else { return };
    let context = json!({"MAD_CONTAINER_IMAGE": scene.image, "slurm": scene.section(),
        "docker_env_vars": {"HOSTILE": hostile}});
    let secret = "very-secret-value-7";
    let output = scene.ground.command_with(&context).env("MAD_SECRETS_TEST", secret).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.log().contains(&format!("value <{hostile}>")), "{}", scene.log());
    assert_eq!(scene.node(0, "files/n_output.csv").trim(), secret.len().to_string());
    let found = Command::new("grep").args(["-rl", secret]).arg(scene.ground.directory()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}
