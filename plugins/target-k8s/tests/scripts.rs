//! The scripts of a pod run by a real `sh`, without a cluster: what they leave, and that values mean themselves. Their places
//! in a pod stand for places below a directory of the test's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{HOSTILE, job, surroundings, variable};
use maddock_sdk::target::Job;
use serde_json::json;
use target_k8s::plan::prepare;

struct Pod {
    root: PathBuf,
    name: String,
}

impl Pod {
    /// What the cluster would mount, and what the init container makes of it.
    fn new(test: &str, job: &Job, model: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pod-{test}"));
        let _ = std::fs::remove_dir_all(&root);
        let mut here = surroundings();
        here.files.retain(|file| !file.path.ends_with("run.sh"));
        here.files.push(target_k8s::bundle::File {
            path: format!("w/{}/run.sh", job.paths.work_directory),
            bytes: model.into(),
            mode: 0o755,
        });
        let work = prepare(job, here).unwrap();
        let (data, volume) = (&work.objects[0]["data"], &work.objects.last().unwrap());
        let volume = &volume["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"][0]["configMap"]["items"];
        for item in volume.as_array().unwrap() {
            let text = data[item["key"].as_str().unwrap()].as_str().unwrap();
            let path = root.join("maddock").join(item["path"].as_str().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, Self::moved(&root, text)).unwrap();
        }
        for directory in ["workspace", "results"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let pod = Self { root, name: work.name };
        assert!(pod.script("prepare.sh").status().unwrap().success());
        pod
    }

    fn moved(root: &Path, text: &str) -> String {
        let mut text = text.replace("/dev/termination-log", &root.join("last-words").display().to_string());
        for place in ["/maddock/", "/workspace", "/results/"] {
            text = text.replace(place, &format!("{}{place}", root.display()));
        }
        // What the entry script says of its own state is relative.
        text.replace(&format!("$workspace{}/", root.display()), "$workspace/")
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .arg(self.root.join("maddock").join(name))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, index: u32) -> (Option<i32>, String) {
        let output = self.script("node.sh").env("JOB_COMPLETION_INDEX", index.to_string()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn keeper(&self) -> Child {
        self.script("keeper.sh").spawn().unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }

    fn result(&self, index: u32, name: &str) -> String {
        self.read(&format!("results/{}/{index}/{name}", self.name))
    }
}

const MODEL: &str = "echo \"rank $NODE_RANK at $MASTER_ADDR\"\necho x > a_output.csv\necho y > other.bin\n";

#[test]
fn a_pod_runs_its_part_and_keeps_what_is_brought_back() {
    let pod = Pod::new("good", &job(2, json!({})), MODEL);
    let (code, said) = pod.run(1);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("rank 1 at {0}-0.{0}\n", pod.name)), "{said}");
    assert_eq!(pod.result(1, "a_output.csv"), "x\n");
    assert_eq!(pod.result(1, "other.bin"), "");
    assert!(pod.read("last-words").starts_with("exit=0\nstage=model\n"), "{}", pod.read("last-words"));
}

#[test]
fn a_model_that_fails_keeps_its_code_and_its_files() {
    let pod = Pod::new("bad", &job(1, json!({})), "echo x > a_output.csv\nexit 7\n");
    assert_eq!(pod.run(0).0, Some(7));
    assert_eq!(pod.result(0, "a_output.csv"), "x\n");
    assert!(pod.read("last-words").contains("exit=7\n"));
}

#[test]
fn a_pod_that_has_no_part_says_so() {
    let pod = Pod::new("part", &job(1, json!({})), MODEL);
    let (code, said) = pod.run(5);
    assert_eq!(code, Some(125));
    assert!(said.contains("no part"), "{said}");
}

#[test]
fn hostile_values_are_taken_as_they_are() {
    let mut job = job(1, json!({}));
    job.script.arguments = vec![HOSTILE.into(), "-rf".into()];
    job.paths.work_directory = "-w $(id) 'x'".into();
    job.collect = vec!["-o $(id)*.csv".into(), "a b".into()];
    job.topology.roles[0].env.push(maddock_sdk::types::Entry { name: "ROLE".into(), value: HOSTILE.into() });
    job.env.push(variable("X", "x"));
    let model = "printf '<%s>' \"$@\" \"$ROLE\"\necho 1 > './-o $(id)1.csv'\necho 2 > 'a b'\n";
    let pod = Pod::new("hostile", &job, model);
    let (code, said) = pod.run(0);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("<{HOSTILE}><-rf><{HOSTILE}>")), "{said}");
    assert_eq!(pod.result(0, "-o $(id)1.csv"), "1\n");
    assert_eq!(pod.result(0, "a b"), "2\n");
    assert!(!pod.root.join("workspace/pwned").exists());
}

#[test]
fn a_request_to_end_reaches_the_model_and_its_files_are_kept() {
    let model = "trap 'echo x > a_output.csv; exit 3' TERM\ntouch ready\nwhile :; do sleep 0.05; done\n";
    let pod = Pod::new("term", &job(1, json!({})), model);
    let mut run = pod.script("node.sh").spawn().unwrap();
    while !pod.root.join("workspace/run_directory/ready").exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3));
    assert_eq!(pod.result(0, "a_output.csv"), "x\n");
}

#[test]
fn results_wait_until_they_are_fetched() {
    let pod = Pod::new("keeper", &job(1, json!({"results_wait": 600})), MODEL);
    let mut keeper = pod.keeper();
    assert_eq!(pod.run(0).0, Some(0));
    assert!(keeper.try_wait().unwrap().is_none(), "nobody has fetched them");
    std::fs::write(pod.root.join("workspace/.maddock/fetched"), "").unwrap();
    assert!(keeper.wait().unwrap().success());
}

/// A `sleep` that takes no time, counts its calls, and does something at some of them.
fn naps(pod: &Pod, at: &[(u32, &str)]) -> (std::path::PathBuf, impl Fn() -> u32 + use<>) {
    let tools = pod.root.join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    let (count, state) = (pod.root.join("naps"), pod.root.join("workspace/.maddock"));
    let steps: String = at.iter().map(|(nap, what)| format!("[ $n -ne {nap} ] || {what}\n")).collect();
    let script = format!(
        "#!/bin/sh\nstate='{}' count='{}' n=0\n[ ! -e \"$count\" ] || read -r n < \"$count\"\nn=$((n + 1))\n\
         echo $n > \"$count\"\n{steps}",
        state.display(),
        count.display()
    );
    let sleep = tools.join("sleep");
    std::fs::write(&sleep, script).unwrap();
    std::fs::set_permissions(&sleep, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let read = move || std::fs::read_to_string(&count).map_or(0, |text| text.trim().parse().unwrap());
    (tools, read)
}

/// What keeps results, with no other program than its `sleep`: an end that none of these cases comes to is at nap 3000.
fn kept(name: &str, wait: u64, before: &str, at: &[(u32, &str)]) -> u32 {
    let pod = Pod::new(name, &job(1, json!({"results_wait": wait})), MODEL);
    let (tools, naps) = naps(&pod, &[at, &[(3000, "kill -TERM $PPID")]].concat());
    for file in before.split_whitespace() {
        std::fs::write(pod.root.join("workspace/.maddock").join(file), "").unwrap();
    }
    let sh = std::env::split_paths("/usr/bin:/bin").map(|place| place.join("sh")).find(|place| place.exists()).unwrap();
    let mut keeper = Command::new(sh);
    keeper.arg(pod.root.join("maddock/keeper.sh")).env_clear().env("PATH", tools).stdin(Stdio::null());
    assert!(keeper.status().unwrap().success());
    naps()
}

#[test]
fn results_that_are_being_fetched_are_kept_until_they_are_or_cannot_be() {
    assert_eq!(kept("unheld", 120, "done", &[]), 120, "nobody is there");
    assert_eq!(kept("held", 120, "done held", &[(500, ": > $state/fetched")]), 500);
    assert_eq!(kept("held-late", 120, "done", &[(50, ": > $state/held"), (500, ": > $state/fetched")]), 500);
    // What cannot be brought goes when it would have gone by itself.
    assert_eq!(kept("let-go", 120, "done held", &[(500, ": > $state/let-go")]), 620);
    assert_eq!(kept("unwanted", 0, "done held", &[]), 0, "results that are not to wait");
}

#[test]
fn a_pod_without_flock_whose_model_was_killed_goes_when_its_results_are_fetched_or_cannot_be() {
    assert_eq!(kept("no-flock", 120, "started lock", &[(7, ": > $state/fetched")]), 7);
    assert_eq!(kept("no-flock-failed", 120, "started lock held", &[(7, ": > $state/let-go")]), 127);
}

#[test]
fn what_keeps_results_goes_when_the_cluster_wants_the_pod_away() {
    let pod = Pod::new("leaving", &job(1, json!({"results_wait": 600})), MODEL);
    let mut keeper = pod.keeper();
    assert_eq!(pod.run(0).0, Some(0));
    Command::new("kill").args(["-TERM", &keeper.id().to_string()]).status().unwrap();
    let end = keeper.wait().unwrap();
    assert_eq!((end.code(), end.signal()), (Some(0), None));
}

#[test]
fn results_do_not_wait_for_ever_whether_the_model_left_a_word_or_was_killed() {
    let pod = Pod::new("patience", &job(1, json!({"results_wait": 0})), MODEL);
    let mut keeper = pod.keeper();
    assert_eq!(pod.run(0).0, Some(0));
    assert!(keeper.wait().unwrap().success());

    let pod = Pod::new("killed", &job(1, json!({"results_wait": 0})), "touch ready\nsleep 600\n");
    let mut run = pod.script("node.sh").process_group().spawn().unwrap();
    while !pod.root.join("workspace/run_directory/ready").exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    let mut keeper = pod.keeper();
    Command::new("kill").args(["-KILL", "--", &format!("-{}", run.id())]).status().unwrap();
    run.wait().unwrap();
    assert!(keeper.wait().unwrap().success());
    assert!(!pod.root.join("workspace/.maddock/done").exists());
}

trait OwnGroup {
    fn process_group(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}
