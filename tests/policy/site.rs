//! Below a site's policy.

use serde_json::json;

use crate::ground::{Ground, can_have_a_site, needed};

/// What discovery, the report and the kernel need for any run, and nothing of what a job may do.
const ANY_RUN: &str = r#"
schema = 1
only_listed = true

[[allow]]
plugin = "discover-mad"
calls = ["files.stat", "files.list-directory", "files.read"]
scope.path = ["$tree/**"]

[[allow]]
plugin = "build-docker"
calls = ["files.stat", "files.list-directory", "files.read"]
scope.path = ["$tree/**"]

[[allow]]
plugin = "report-csv"
calls = ["files.lock", "files.stat", "files.write", "files.remove"]
scope.path = ["$output/**"]
"#;

/// And the scheduler on one partition.
const ONE_PARTITION: &str = r#"
[[allow]]
plugin = "kernel"
calls = ["slurm.describe-cluster", "slurm.find", "slurm.cancel"]

[[allow]]
plugin = "target-slurm"
calls = ["files.stat", "files.list-directory", "files.read", "files.read-from", "files.copy", "files.write"]
scope.path = ["$tree/scripts/**", "$run/**"]

[[allow]]
plugin = "target-slurm"
calls = ["slurm.submit"]
scope.partition = ["PARTITION"]
scope.path = ["$run/**"]
scope.node-count = { max = 1 }

[[allow]]
plugin = "target-slurm"
calls = ["slurm.describe-cluster", "slurm.query", "slurm.next-change", "slurm.find", "slurm.cancel"]
"#;

fn partition() -> Option<String> {
    needed("SLURM_CONF")?;
    let output = std::process::Command::new("sinfo").args(["--noheader", "--format=%R"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[test]
fn a_site_that_allows_one_partition_runs_jobs_there_and_nothing_else() {
    if !can_have_a_site() {
        return;
    }
    let Some(partition) = partition() else { return };
    let site = format!("{ANY_RUN}{}", ONE_PARTITION.replace("PARTITION", &partition));
    let ground = Ground::plain().below(&site);
    let section = |partition: &str, nodes: u32| {
        json!({"slurm": {"partition": partition, "nodes": nodes, "time": "00:05:00", "container": false}}).to_string()
    };
    ground.run("slurm", &["-c", &section(&partition, 1)]).exits(0);
    let site_says = "the site's administrator adds to /etc/maddock/policy.toml";
    ground.run("slurm", &["-c", &section("elsewhere", 1)]).exits(5).says(&[
        "partition `elsewhere`",
        site_says,
        "/etc/maddock/policy.toml:",
    ]);
    ground.run("slurm", &["-c", &section(&partition, 2)]).exits(5).says(&["node-count `2`", site_says]);
    for target in ["process", "docker"] {
        ground
            .run(target, &["-c", r#"{"MAD_CONTAINER_IMAGE": "localhost/none:1"}"#])
            .exits(5)
            .says(&[&format!("plugin `target-{target}`"), site_says]);
    }
    // Nothing that a user can write changes any of this.
    let all = "schema = 1\n[[allow]]\nplugin = \"target-process\"\ncalls = [\"*\"]\nscope.inline-code = [\"**\"]\n";
    ground.user(all);
    ground.write("work/maddock-policy.toml", all);
    ground.run("process", &["--policy", "maddock-policy.toml"]).exits(5).says(&["plugin `target-process`"]);
}

#[test]
fn a_site_that_allows_one_partition_does_so_where_there_is_no_container_engine() {
    if !can_have_a_site() {
        return;
    }
    let Some(partition) = partition() else { return };
    let none = "\n[[deny]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nreason = \"there is no engine here\"\n";
    let site = format!("{ANY_RUN}{}{none}", ONE_PARTITION.replace("PARTITION", &partition));
    let ground = Ground::plain().below(&site).with("DOCKER_HOST", "unix:///nowhere/engine.sock").with("COLUMNS", "80");
    let section = |partition: &str| {
        json!({"slurm": {"partition": partition, "nodes": 1, "time": "00:05:00", "container": false}}).to_string()
    };
    ground.run("slurm", &["-c", &section(&partition)]).exits(0);
    let asked = |call: &str| {
        ground
            .trace()
            .iter()
            .any(|line| line["call"].as_str().unwrap().starts_with(call) && line["verdict"] == "allowed")
    };
    assert!(!asked("docker."), "the kernel does not ask for it either");
    let refused = ground.run("slurm", &["-c", &section("elsewhere")]).exits(5);
    refused.says(&[
        "partition `elsewhere`",
        "adds to /etc/maddock/policy.toml",
        "scope.partition = [",
        "\"elsewhere\"]",
    ]);
    let image = r#"{"MAD_CONTAINER_IMAGE": "localhost/none:1"}"#;
    ground.run("docker", &["-c", image]).exits(5).says(&["plugin `target-docker`", "/etc/maddock/policy.toml"]);
    ground
        .call(&["policy", "explain", "target-docker", "docker.pull-image"])
        .exits(5)
        .says(&["the site policy denies it: there is no engine here", "a denial beats every grant"]);
    let cluster = r#"{"MAD_CONTAINER_IMAGE": "localhost/none:1", "k8s": {"namespace": "default"}}"#;
    ground
        .run("k8s", &["-c", cluster])
        .exits(5)
        .says(&["plugin `target-k8s`", "the site's administrator adds to /etc/maddock/policy.toml"]);
    ground.run("process", &[]).exits(5).says(&["plugin `target-process`"]);
}

#[test]
fn a_site_that_allows_images_of_one_registry_on_one_partition_refuses_all_others() {
    if !can_have_a_site() {
        return;
    }
    let (Some(partition), Some(image)) = (partition(), needed("MADDOCK_TEST_IMAGE")) else { return };
    let Some(registry) = needed("MADDOCK_TEST_REGISTRY").filter(|registry| image.starts_with(&format!("{registry}/")))
    else {
        return;
    };
    // Nodes run this very binary, or the one that is named for them.
    let program = std::env::var("MADDOCK_TEST_STATIC").unwrap_or_else(|_| env!("CARGO_BIN_EXE_maddock").to_owned());
    let images = format!(
        "\n[[allow]]\nplugin = \"target-slurm\"\ncalls = [\"docker.registry-digest\"]\nscope.registry = [\"{registry}\"]\n\
         scope.image = [\"{registry}/**\"]\nscope.secret = []\n"
    );
    let ground = Ground::plain().below(&format!("{ANY_RUN}{}{images}", ONE_PARTITION.replace("PARTITION", &partition)));
    let context = |partition: &str, image: &str| {
        json!({"MAD_CONTAINER_IMAGE": image, "slurm": {"partition": partition, "nodes": 1, "time": "00:05:00", "mem": "100M",
            "image_transfer": "registry", "maddock": program}})
        .to_string()
    };
    ground.run("slurm", &["-c", &context(&partition, &image)]).exits(0);
    let site_says = "the site's administrator adds to /etc/maddock/policy.toml";
    for other in [
        "evil.example/a:1",
        "docker.io/library/busybox:1",
        &image.replace(&registry, &format!("{registry}.evil.example")),
    ] {
        ground.run("slurm", &["-c", &context(&partition, other)]).exits(5).says(&["docker.registry-digest", site_says]);
    }
    ground.run("slurm", &["-c", &context("elsewhere", &image)]).exits(5).says(&["partition `elsewhere`", site_says]);
}

#[test]
fn a_site_without_containers_refuses_them_and_nothing_else() {
    if !can_have_a_site() {
        return;
    }
    let site = "schema = 1\n[[deny]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nreason = \"no containers here\"\n";
    let ground = Ground::plain().below(site);
    ground.run("process", &[]).exits(0);
    let image = r#"{"MAD_CONTAINER_IMAGE": "localhost/none:1"}"#;
    ground
        .run("docker", &["-c", image])
        .exits(5)
        .says(&["the site policy denies it: no containers here (/etc/maddock/policy.toml:2)"]);
    assert!(
        ground
            .trace()
            .iter()
            .all(|line| !line["call"].as_str().unwrap().starts_with("docker.") || line["verdict"] == "denied")
    );
    ground
        .call(&["policy", "explain", "target-docker", "docker.pull-image"])
        .exits(5)
        .says(&["site: denied at /etc/maddock/policy.toml:2"]);
}

#[test]
fn a_site_that_others_could_have_written_is_refused() {
    if !can_have_a_site() {
        return;
    }
    for (path, mode) in [("site", 0o777), ("site/policy.toml", 0o666)] {
        let ground = Ground::plain().below("schema = 1\n");
        ground.run("process", &[]).exits(0);
        ground.mode(path, mode);
        ground
            .run("process", &[])
            .exits(5)
            .says(&["nobody else may write to it", "hint: as root: `chown root:root /etc/maddock"]);
    }
    // Only root can make it somebody else's.
    let ground = Ground::plain().below("schema = 1\n");
    if std::os::unix::fs::chown(ground.path("site/policy.toml"), Some(65534), None).is_ok() {
        ground.run("process", &[]).exits(5).says(&["owner 65534"]);
    }
    std::fs::remove_file(ground.path("site/policy.toml")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", ground.path("site/policy.toml")).unwrap();
    ground.run("process", &[]).exits(5).says(&["it is a link"]);
}

#[test]
fn no_variable_leads_to_another_site() {
    if !can_have_a_site() {
        return;
    }
    let ground = Ground::plain().below("schema = 1\n[[deny]]\nplugin = \"*\"\ncalls = [\"process.*\"]\n");
    let shown = ground.call(&["policy", "show", "target-process"]).exits(0).says(&["site: /etc/maddock/policy.toml"]);
    assert!(shown.stdout.contains("users may grant nothing"), "{shown:?}");
    ground.run("process", &[]).exits(5);
}
