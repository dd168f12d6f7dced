//! Out of a partition, an account, a set of nodes and a time; jobs of others. What is refused before the scheduler hears of it
//! needs none; what is somebody else's needs a cluster (`SLURM_CONF`).

use std::process::Command;

use serde_json::{Value, json};

use crate::lair::{Lair, SECRET, needed};

/// A lair that may hand in jobs of two nodes to one partition of one account.
fn narrow() -> Lair {
    Lair::new().grant(
        &["slurm.*"],
        "scope.partition = [\"cpu\"]\nscope.account = [\"team\"]\nscope.qos = [\"normal\"]\nscope.reservation = [\"\"]\n\
         scope.nodes = [\"\", \"node1\"]\nscope.node-count = { max = 2 }\nscope.gpus-per-node = { max = 1 }\n\
         scope.gres = []\nscope.time = { max = 60 }\nscope.path = [\"$run/**\"]\nscope.env = []\nscope.secret = []\nscope.mail = []",
    )
}

fn submit(lair: &Lair, change: Value) -> Value {
    let mut order = json!({"do": "slurm.submit", "partition": "cpu", "account": "team", "qos": "normal", "time": 5,
        "directory": lair.at("run"), "output": lair.at("run/out.log")});
    order.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    order
}

/// No search path leads to the scheduler, so what is allowed is `unavailable`.
#[track_caller]
fn refused(change: Value, word: &str) {
    let lair = narrow().set("PATH", "/nowhere");
    lair.order(submit(&lair, json!({}))).is("unavailable");
    lair.order(submit(&lair, change)).denied().says(word);
}

#[track_caller]
fn senseless(change: Value) {
    let lair = Lair::new().grant(&["slurm.*"], "").set("PATH", "/nowhere");
    lair.order(submit(&lair, change)).is("invalid-input");
}

#[test]
fn another_partition_is_refused() {
    refused(json!({"partition": "gpu"}), "partition `gpu`");
}

#[test]
fn a_second_partition_beside_the_allowed_one_is_refused() {
    refused(json!({"partition": "cpu,gpu"}), "partition `gpu`");
    refused(json!({"partition": "cpu, gpu"}), "partition");
}

#[test]
fn the_scheduler_s_default_is_no_partition_that_a_rule_names() {
    refused(json!({"partition": ""}), "partition");
}

#[test]
fn another_account_is_refused_and_so_is_whichever_is_the_default() {
    refused(json!({"account": "other"}), "account");
    refused(json!({"account": "team,other"}), "account `other`");
    refused(json!({"account": ""}), "account");
}

#[test]
fn another_quality_of_service_and_reservation_are_refused() {
    refused(json!({"qos": "urgent"}), "qos");
    refused(json!({"reservation": "maintenance"}), "reservation");
}

#[test]
fn another_node_is_refused_also_within_a_range() {
    refused(json!({"nodelist": ["node2"]}), "node2");
    refused(json!({"nodelist": ["node[1-3]"]}), "node2");
    refused(json!({"nodelist": ["node1", "node3"]}), "node3");
}

#[test]
fn a_list_of_nodes_is_not_smuggled_in_as_one() {
    senseless(json!({"nodelist": ["node1,node2"]}));
    senseless(json!({"nodelist": ["/etc/nodes"]}));
    senseless(json!({"nodelist": [""]}));
    senseless(json!({"exclude": ["node1,node2"]}));
}

#[test]
fn more_nodes_devices_and_time_than_a_ceiling_are_refused() {
    refused(json!({"nodes": 3}), "node-count");
    refused(json!({"gpus": 2}), "gpus-per-node");
    refused(json!({"gres": "gpu:8"}), "gres");
    refused(json!({"time": 61}), "time");
    let lair = narrow().set("PATH", "/nowhere");
    let mut unlimited = submit(&lair, json!({}));
    unlimited.as_object_mut().unwrap().remove("time");
    lair.order(unlimited).denied().says("time `unlimited`");
    senseless(json!({"time": 0}));
}

#[test]
fn a_directive_in_a_script_is_not_handed_on() {
    for directive in [
        "#SBATCH --partition=gpu",
        "  #SBATCH -A other",
        "#sbatch --time=0",
        "#PBS -q gpu",
        "#BSUB -q gpu",
        "\t#SBATCH --uid=0",
    ] {
        senseless(json!({"script": format!("#!/bin/bash\n# a comment\n\n{directive}\nexit 0\n")}));
    }
}

#[test]
fn a_script_is_a_script_and_not_another_file() {
    senseless(json!({"script": "echo pwned\n"}));
    senseless(json!({"script": "#!/bin/bash\n\0"}));
}

#[test]
fn a_value_cannot_be_an_option_or_a_second_line() {
    for name in ["partition", "account", "qos", "reservation", "constraint", "gres", "name"] {
        senseless(json!({name: "cpu\n--uid=0"}));
    }
    // A value that begins as an option is one argument all the same, and of its own name.
    refused(json!({"partition": "--uid=0"}), "partition `--uid=0`");
}

#[test]
fn an_amount_of_memory_is_nothing_else() {
    for memory in ["1G --uid=0", "-1", "1G,2G", "$(id)", "1GB"] {
        senseless(json!({"memory": memory}));
    }
}

#[test]
fn output_goes_nowhere_but_below_the_run() {
    let lair = Lair::new().grant(&["slurm.*"], "").set("PATH", "/nowhere");
    let link = lair.link("run/way", &lair.at("outside"));
    for path in ["/etc/cron.d/x".to_owned(), lair.at("outside/x"), format!("{link}/x")] {
        lair.order(submit(&lair, json!({"output": path}))).denied();
        lair.order(submit(&lair, json!({"directory": path}))).denied();
        lair.order(submit(&lair, json!({"error-output": path}))).denied();
    }
    senseless(json!({"output": lair.at("run/../outside/x")}));
}

#[test]
fn variables_that_the_clients_read_are_not_set() {
    for name in ["SBATCH_PARTITION", "SLURM_CONF", "SALLOC_X", "LD_PRELOAD", "PATH", "BASH_ENV", "A=B"] {
        senseless(json!({"env": [[name, {"secret": "env/TOKEN"}]]}));
    }
}

#[test]
fn a_secret_that_no_rule_names_is_put_into_no_job() {
    refused(json!({"env": [["TOKEN", {"secret": "env/TOKEN"}]]}), "TOKEN");
}

#[test]
fn mail_goes_to_nobody_that_a_rule_does_not_name() {
    refused(json!({"mail-user": "thief@evil.example", "mail-type": ["END"], "name": "what was stolen"}), "mail");
}

#[test]
fn what_the_shell_s_variables_ask_of_the_clients_is_not_asked() {
    // The scheduler's own client is an impostor that tells what it got.
    let lair = narrow();
    let out = lair.at("run/told");
    let fake = lair.write("bin/sbatch", &format!("#!/bin/sh\n/usr/bin/env > {out}\necho \"$@\" >> {out}\necho 7\n"));
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bin = lair.at("bin");
    let lair =
        lair.set("PATH", &bin).set("SBATCH_PARTITION", "gpu").set("SBATCH_WRAP", "id").set("LD_PRELOAD", "/x.so");
    lair.order(submit(&lair, json!({"name": "-p gpu $(id)"}))).ok();
    let told = std::fs::read_to_string(&out).unwrap();
    assert!(told.contains("--job-name=-p gpu $(id)") && told.contains("--partition=cpu"), "{told}");
    for word in ["SBATCH_PARTITION", "SBATCH_WRAP", "LD_PRELOAD", SECRET] {
        assert!(!told.contains(word), "{told}");
    }
}

#[test]
fn an_id_that_is_none_ends_nothing() {
    let lair = Lair::new().grant(&["slurm.*"], "");
    for id in ["", " ", "-u", "--user=root", "1,2", "1_0", "all", "1;2", "$(id)"] {
        lair.order(json!({"do": "slurm.cancel", "id": id})).is("invalid-input");
        lair.order(json!({"do": "slurm.query", "ids": [id]})).is("invalid-input");
    }
}

/// A job that somebody else handed in, with that comment; it goes away with this.
struct Stranger(String);

impl Stranger {
    fn new(comment: &str) -> Option<Self> {
        needed("SLURM_CONF")?;
        let output = Command::new("sbatch")
            .args(["--parsable", "--output=/dev/null", "--mem=50", "--hold", "--wrap=sleep 600"])
            .arg(format!("--comment={comment}"))
            .output()
            .unwrap();
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(!id.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self(id))
    }

    fn is_there(&self) -> bool {
        let output = Command::new("squeue").args(["--noheader", "--format=%i", "--jobs", &self.0]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim() == self.0
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = Command::new("scancel").arg(&self.0).status();
    }
}

fn on_cluster() -> Lair {
    Lair::new().grant(&["slurm.*"], "").in_this_environment()
}

#[test]
fn a_job_that_is_nobody_s_is_not_ended() {
    let lair = on_cluster();
    let Some(stranger) = Stranger::new("mine") else { return };
    lair.order(json!({"do": "slurm.cancel", "id": stranger.0})).is("conflict");
    assert!(stranger.is_there());
}

#[test]
fn a_job_of_another_run_is_not_ended() {
    let lair = on_cluster();
    // Its run's name begins as this one's does.
    let Some(stranger) = Stranger::new(&format!("maddock:{}x/job", lair.run)) else { return };
    lair.order(json!({"do": "slurm.cancel", "id": stranger.0})).is("conflict");
    assert!(stranger.is_there());
}

#[test]
fn jobs_of_another_run_are_not_found() {
    let lair = on_cluster();
    let Some(stranger) = Stranger::new("maddock:another/job") else { return };
    for job in [json!(null), json!("job"), json!("../another/job"), json!("")] {
        let told = lair.order(json!({"do": "slurm.find", "job": job})).ok();
        assert!(!told.contains(&format!("\"{}\"", stranger.0)), "{told}");
    }
}

#[test]
fn a_run_without_a_name_ends_no_job() {
    let mut lair = on_cluster();
    lair.run = String::new();
    let Some(stranger) = Stranger::new("maddock:/job") else { return };
    lair.order(json!({"do": "slurm.cancel", "id": stranger.0})).is("unsupported");
    assert!(stranger.is_there());
}
