//! Ways out of a container: mounts, devices, modes, capabilities, names. Every one of these is refused before an engine hears of
//! it, so none is needed here.

use serde_json::{Value, json};

use crate::lair::{Lair, NAME};

/// A lair whose containers may be made of one registry's images, with one directory and no privilege that a rule can name.
fn narrow() -> Lair {
    Lair::new().grant(
        &["docker.*"],
        "scope.image = [\"registry.example.com/**\"]\nscope.mount = [\"$run/**\"]\nscope.mount-write = [\"$run/data/**\"]\n\
         scope.device = [\"/dev/null\"]\nscope.network = [\"none\", \"bridge\"]\nscope.ipc = [\"private\", \"default\"]\n\
         scope.capability = [\"NET_BIND_SERVICE\"]\nscope.security-option = [\"no-new-privileges=true\"]\nscope.pid = []\n\
         scope.userns = []\nscope.uts = []\nscope.cgroupns = [\"private\"]\nscope.runtime = [\"runc\"]\nscope.option = [\"read-only\"]\n\
         scope.publish = []\nscope.sysctl = []\nscope.device-cgroup-rule = []\nscope.device-request = [\"any/0\"]\nscope.group = []",
    )
}

/// A container that is allowed, changed by an attack.
fn with(change: Value) -> Value {
    let mut order = json!({"do": "docker.create-container", "name": "hostile-never-made", "image": "registry.example.com/a/b:1",
        "network": "none", "ipc": "private", "command": ["true"]});
    order.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    order
}

#[track_caller]
fn refused(change: Value, word: &str) {
    let lair = narrow();
    // Without the attack nothing but the engine is in its way.
    let lair = lair.set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    lair.order(with(json!({}))).is("unavailable");
    lair.order(with(change)).denied().says(word);
}

#[track_caller]
fn senseless(change: Value) {
    let lair = narrow().set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    let told = lair.order(with(change));
    assert!(matches!(told.kind(), "invalid-input" | "unsupported" | "denied"), "{}", told.0);
}

/// A mount of a place of this machine.
fn mount(source: &str, read_only: bool) -> Value {
    json!({"mounts": [{"source": source, "destination": "/x", "read-only": read_only}]})
}

#[test]
fn the_root_of_this_machine_is_not_mounted() {
    refused(mount("/", true), "mount `/`");
}

#[test]
fn the_socket_of_the_engine_is_not_mounted() {
    let lair = narrow();
    // Where there is none, another file stands for it.
    let socket = ["/var/run/docker.sock", "/run/docker.sock", "/etc/hostname"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    lair.order(with(mount(socket.unwrap(), true))).denied().says("mount");
}

#[test]
fn a_mount_through_a_link_is_judged_by_where_it_leads() {
    let lair = narrow();
    let link = lair.link("run/harmless", "/etc");
    lair.order(with(mount(&link, true))).denied().says("mount `/etc`");
}

#[test]
fn a_mount_with_two_dots_is_refused() {
    let lair = narrow();
    let told = lair.order(with(mount(&lair.at("run/../outside"), true)));
    assert!(matches!(told.kind(), "denied" | "invalid-input"), "{}", told.0);
}

#[test]
fn a_directory_that_may_be_read_is_not_mounted_for_writing() {
    let lair = narrow();
    lair.write("run/input/x", "");
    lair.order(with(mount(&lair.at("run/input"), false))).denied().says("mount-write");
}

#[test]
fn a_directory_that_holds_a_denied_one_is_not_mounted() {
    let lair = Lair::new().grant(&["docker.*"], "").rules(
        "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.create-container\"]\nscope.mount = [\"/etc/**\"]\nreason = \"no\"\n",
    );
    lair.order(with(mount("/", true))).denied();
    lair.order(with(mount("/etc/ssl", true))).denied();
}

#[test]
fn a_device_of_this_machine_is_not_handed_in() {
    refused(json!({"devices": ["/dev/zero"]}), "device");
    refused(json!({"devices": ["/dev"]}), "device");
}

#[test]
fn a_device_through_a_link_is_judged_by_where_it_leads() {
    let lair = Lair::new().grant(&["docker.*"], "scope.device = [\"$run/**\"]");
    let link = lair.link("run/harmless", "/dev/zero");
    lair.order(with(json!({"devices": [link]}))).denied().says("/dev/zero");
}

#[test]
fn a_file_is_no_device() {
    let lair = Lair::new().grant(&["docker.*"], "").set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    let told = lair.order(with(json!({"devices": ["/etc/passwd"]})));
    assert!(told.kind() != "no error" && !told.0.to_string().contains("root:"), "{}", told.0);
}

#[test]
fn all_devices_of_a_driver_are_more_than_one() {
    refused(
        json!({"device-requests": [{"driver": "", "ids": [], "capabilities": ["gpu"]}]}),
        "device-request `any/all`",
    );
    refused(
        json!({"device-requests": [{"driver": "", "ids": ["0", "1"], "capabilities": ["gpu"]}]}),
        "device-request `any/1`",
    );
}

#[test]
fn a_rule_for_devices_of_the_kernel_does_not_open_all_of_them() {
    refused(json!({"extra": [["device-cgroup-rule", "a *:* rwm"]]}), "device-cgroup-rule");
}

#[test]
fn a_privileged_container_takes_a_rule_that_says_so() {
    // Nothing is said of `privileged` here, and all else is open.
    let lair = Lair::new().grant(&["docker.*"], "");
    lair.order(with(json!({"privileged": true}))).denied().says("privileged");
}

#[test]
fn the_shipped_rules_make_nobody_privileged() {
    let lair = Lair::new();
    let told = lair.order(with(json!({"privileged": true})));
    told.denied().says(NAME);
}

#[test]
fn a_capability_is_refused_in_every_spelling() {
    for capability in
        ["SYS_ADMIN", "CAP_SYS_ADMIN", "cap_sys_admin", "sys_admin", "ALL", "all", "NET_BIND_SERVICE,SYS_ADMIN"]
    {
        refused(json!({"capabilities": [capability]}), "capability");
    }
}

#[test]
fn a_profile_is_not_switched_off_in_any_spelling() {
    for option in [
        "seccomp=unconfined",
        "seccomp:unconfined",
        "apparmor=unconfined",
        "label=disable",
        "systempaths=unconfined",
        "no-new-privileges=false",
        "no-new-privileges:false",
    ] {
        refused(json!({"security-options": [option]}), "security-option");
    }
}

#[test]
fn the_network_of_this_machine_is_not_shared() {
    refused(json!({"network": "host"}), "network");
    // Nor by leaving it to the engine, whose default may be that.
    refused(json!({"network": ""}), "network `default`");
}

#[test]
fn the_processes_of_this_machine_are_not_seen() {
    refused(json!({"extra": [["pid", "host"]]}), "pid");
}

#[test]
fn the_memory_of_other_programs_is_not_shared() {
    refused(json!({"ipc": "host"}), "ipc");
    refused(json!({"ipc": "shareable"}), "ipc");
}

#[test]
fn no_other_namespace_of_this_machine_is_shared() {
    for (option, value) in [("userns", "host"), ("uts", "host"), ("cgroupns", "host")] {
        refused(json!({"extra": [[option, value]]}), option);
    }
}

#[test]
fn another_container_is_not_joined() {
    let lair = Lair::new().grant(&["docker.*"], "").set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    for change in [
        json!({"network": "container:other"}),
        json!({"ipc": "container:other"}),
        json!({"extra": [["pid", "container:other"]]}),
    ] {
        lair.order(with(change)).is("unsupported");
    }
}

#[test]
fn another_runtime_is_not_chosen() {
    refused(json!({"extra": [["runtime", "evil"]]}), "runtime");
}

#[test]
fn settings_of_the_kernel_and_ports_are_not_taken() {
    refused(json!({"extra": [["sysctl", "kernel.msgmax=1"]]}), "sysctl");
    refused(json!({"extra": [["publish", "22:22"]]}), "publish");
}

#[test]
fn an_option_that_a_rule_does_not_list_is_refused() {
    refused(json!({"extra": [["cgroup-parent", "/"]]}), "option `cgroup-parent`");
    refused(json!({"extra": [["oom-score-adj", "-1000"]]}), "option");
}

#[test]
fn an_option_that_nobody_knows_is_not_handed_on() {
    let lair = Lair::new().grant(&["docker.*"], "");
    for option in ["Privileged", "HostConfig", "volumes-from", "mount", "volume", "device", "cap-add", ""] {
        let told = lair.order(with(json!({"extra": [[option, "x"]]})));
        assert!(matches!(told.kind(), "invalid-input" | "unsupported"), "{option}: {}", told.0);
    }
}

#[test]
fn an_image_of_another_registry_is_refused_in_every_spelling() {
    for image in [
        "evil.example/a/b:1",
        "registry.example.com.evil.example/a/b:1",
        "ubuntu",
        "registry.example.com:5000/a/b:1",
        "docker.io/registry.example.com/a",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        refused(json!({"image": image}), "image");
    }
}

#[test]
fn an_image_s_name_is_nothing_but_a_name() {
    for image in [
        "registry.example.com/../evil",
        "registry.example.com/a b",
        "registry.example.com/a?x=y",
        "registry.example.com/a#b",
        "-v",
        "",
    ] {
        senseless(json!({"image": image}));
    }
}

#[test]
fn a_container_s_name_addresses_nothing_else() {
    for name in ["", "../images/x", "a/b", "a?force=1", "-rm", "a b", "a\nb"] {
        senseless(json!({"name": name}));
    }
}

#[test]
fn no_ceiling_is_above_every_ceiling() {
    let lair = Lair::new()
        .grant(
            &["docker.*"],
            "scope.memory = { max = \"1 GiB\" }\nscope.cpus = { max = 2 }\nscope.pids-limit = { max = 100 }",
        )
        .set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    let bounded = json!({"memory": 1 << 30, "extra": [["cpus", "2"], ["pids-limit", "100"]]});
    lair.order(with(bounded)).is("unavailable");
    for change in [
        json!({"extra": [["cpus", "2"], ["pids-limit", "100"]]}),
        json!({"memory": 0, "extra": [["cpus", "2"], ["pids-limit", "100"]]}),
        json!({"memory": 1 << 30, "extra": [["cpus", "0"], ["pids-limit", "100"]]}),
        json!({"memory": 1 << 30, "extra": [["cpus", "2"], ["pids-limit", "-1"]]}),
        json!({"memory": 1 << 30, "extra": [["cpus", "nan"], ["pids-limit", "100"]]}),
        json!({"memory": (1 << 30) + 1, "extra": [["cpus", "2"], ["pids-limit", "100"]]}),
    ] {
        lair.order(with(change)).denied();
    }
}

#[test]
fn a_build_reaches_no_directory_beyond_its_rule() {
    let lair =
        Lair::new().grant(&["docker.build-image"], "scope.directory = [\"$tree/**\"]\nscope.path = [\"$tree/**\"]");
    lair.write("tree/Dockerfile", "FROM scratch\n");
    let build = |directory: String, dockerfile: String, contexts: Value| json!({"do": "docker.build-image", "directory": directory, "dockerfile": dockerfile, "contexts": contexts, "tags": ["hostile:1"]});
    let (tree, file) = (lair.at("tree"), lair.at("tree/Dockerfile"));
    lair.order(build("/etc".into(), file.clone(), json!([]))).denied();
    lair.order(build(tree.clone(), "/etc/passwd".into(), json!([]))).denied();
    lair.order(build(tree.clone(), file.clone(), json!([["more", lair.at("outside")]]))).denied();
    let link = lair.link("tree/way", &lair.at("outside"));
    lair.order(build(link, file, json!([]))).denied();
}

#[test]
fn a_build_shares_no_network_that_its_rule_does_not_name() {
    let lair = Lair::new().grant(&["docker.build-image"], "scope.network = [\"none\"]");
    let file = lair.write("tree/Dockerfile", "FROM scratch\n");
    for network in ["host", "", "container:x"] {
        let told = lair.order(json!({"do": "docker.build-image", "directory": lair.at("tree"), "dockerfile": file, "network": network, "tags": ["hostile:1"]}));
        told.denied().says("network");
    }
}

/// A build of a Dockerfile in the tree.
fn build(lair: &Lair, dockerfile: &str, more: Value) -> Value {
    let file = lair.write("tree/Dockerfile", dockerfile);
    let mut order =
        json!({"do": "docker.build-image", "directory": lair.at("tree"), "dockerfile": file, "tags": ["hostile:1"]});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

/// A lair that may build from the images of Docker Hub, and of one registry there is nothing but this one.
fn builder() -> Lair {
    Lair::new()
        .grant(&["docker.build-image"], "scope.path = [\"$tree/**\"]\nscope.image = [\"docker.io/**\"]")
        .set("DOCKER_HOST", "unix:///nowhere/engine.sock")
}

#[test]
fn a_refused_build_tells_nothing_of_a_file() {
    let lair = builder();
    lair.order(build(&lair, "FROM a\n", json!({}))).is("unavailable");
    let secret = lair.write("outside/passwords", "FROM s3cr3t.example/word:1\n");
    for lair in [&lair, &Lair::new()] {
        let told = lair.order(build(lair, "FROM a\n", json!({"dockerfile": secret})));
        told.denied().hides("s3cr3t.example");
    }
    assert!(!lair.trace().contains("s3cr3t.example"), "it was not read, either");
}

#[test]
fn an_image_whose_name_nobody_knows_is_none_of_a_registry() {
    let lair = builder();
    for dockerfile in [
        "FROM ${X-evil.example/a}\n",
        "ARG X=y\nFROM ${X:-${Z:-evil.example/a}}\n",
        "FROM $TARGETARCH\n",
        "FROM ${TARGETARCH:-ours}\n",
        "ARG #n X=evil.example/a\nFROM ${X:-ours}\n",
        "ARG X=evil.example/a\nARG X\nFROM ${X:-ours}\n",
        "FROM ev'il.example'/a\n",
        "FROM evil.ex\\ample/a\n",
    ] {
        lair.order(build(&lair, dockerfile, json!({}))).denied().says("image");
    }
    let secret = json!({"arguments": [["X", {"secret": "env/TOKEN"}]]});
    lair.order(build(&lair, "ARG X=ours\nFROM $X\n", secret)).denied().says("image");
    // Nor is it beyond a denial.
    let denied = Lair::new().grant(&["docker.build-image"], "").rules(
        "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.build-image\"]\nscope.image = [\"evil.example/**\"]\nreason = \"no\"\n",
    );
    denied.order(build(&denied, "FROM ${X-evil.example/a}\n", json!({}))).denied().says("image");
}

#[test]
fn a_stage_that_only_some_builders_see_is_an_image() {
    let lair = Lair::new()
        .grant(&["docker.build-image"], "scope.image = [\"ours\"]")
        .set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    lair.order(build(&lair, "FROM ours AS one\nRUN x <<E\nE\nFROM ours\nCOPY --from=one a b\n", json!({})))
        .is("unavailable");
    for text in ["cat << E", "cat \"<<E\"", "echo $((1<<E))", "[\"echo\", \"<<E\"]", "cat <<'E'", "cat <<E"] {
        let dockerfile = format!("FROM ours\nRUN {text}\nFROM ours AS evil\nE\nCOPY --from=evil x y\n");
        lair.order(build(&lair, &dockerfile, json!({}))).denied().says("image `evil`");
    }
    for dockerfile in [
        "FROM ours\nCOPY\\\n --from=evil x y\n",
        "FROM ours\nRUN x \\\n  # remark\nCOPY --from=evil x y\n",
        "FROM ours\nRUN x \\\n\u{feff}# y\nCOPY --from=evil x y\n",
        "FROM ours\nRUN cat <<E\nx \\\n#\nE\nCOPY --from=evil x y\n",
    ] {
        lair.order(build(&lair, dockerfile, json!({}))).denied().says("image `evil`");
    }
}

#[test]
fn an_image_is_not_taken_in_as_a_cache() {
    let lair = builder();
    let told = lair.order(build(&lair, "FROM a\n", json!({"extra": [["cache-from", "evil.example/a:1"]]})));
    told.denied().says("image `evil.example/a:1`");
}

#[test]
fn a_denied_device_is_denied_in_every_spelling() {
    let lair = Lair::new().grant(&["docker.*"], "").rules(
        "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.create-container\"]\nscope.device = [\"/dev/zero\"]\nreason = \"no\"\n",
    );
    for device in ["/dev/zero", "//dev/zero", "/dev/./zero", "/dev//zero", "/dev/zero/"] {
        let told = lair.order(with(json!({"devices": [device]})));
        told.denied().says("device `/dev/zero`");
    }
}

#[test]
fn a_version_is_what_an_engine_takes_it_for() {
    let lair = Lair::new().grant(&["docker.*"], "").rules(
        "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nscope.image = [\"r.example/a:latest\", \"r.example/a:1\"]\nreason = \"no\"\n",
    );
    let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for image in ["r.example/a", "r.example/a:latest", "r.example/a:1", &format!("r.example/a:1@{digest}")] {
        lair.order(with(json!({"image": image}))).denied().says("image");
    }
    // Who may take a tag may not take whatever is said to be of that tag.
    let lair = Lair::new().grant(&["docker.*"], "scope.image = [\"r.example/a:1\"]");
    lair.order(with(json!({"image": format!("r.example/a:1@{digest}")}))).denied().says("image");
}

#[test]
fn nothing_below_a_mount_that_is_read_only_is_written_to() {
    let lair = Lair::new().grant(&["docker.*"], "scope.mount = [\"/**\"]\nscope.mount-write = [\"$run/**\"]");
    // `/dev/pts` and more are mounted below it, which engines leave writable.
    lair.order(with(mount("/dev", true))).denied().says("mount-write `/dev/");
}
