//! What a model finds in its container: variables, mounts, processors, options, privileges, arguments.

use std::collections::BTreeMap;

use serde_json::json;

use crate::scene::Scene;

/// Leaves the environment, NUL between variables, as values may have line ends.
const TELL: &str = "env -0 > /shared/env\ncat /proc/self/status > /shared/status\necho 'performance: 1 u'\n";

fn variables(scene: &Scene) -> BTreeMap<String, String> {
    let text = scene.left("env");
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn status(scene: &Scene, name: &str) -> String {
    let text = scene.left("status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).unwrap_or_default().to_owned()
}

#[test]
fn a_model_has_the_variables_of_the_contract_and_the_users_win() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("env", TELL, &json!({"env_vars": {"OF_CARD": "not passed, by contract"}}));
    for (name, value) in [
        ("BUILD_NUMBER", "77"),
        ("NCCL_DEBUG", "INFO"),
        ("MASTER_PORT", "1234"),
        ("HIP_VISIBLE_DEVICES", "0"),
        ("NOT_PASSED", "x"),
    ] {
        scene.set(name, value);
    }
    let tricky = "a b $HOME `id` $(id) \"q\" 'p' \\ \n second line";
    let context = json!({
        "guest_os": "ubuntu",
        "docker_env_vars": {"MASTER_PORT": "4321", "MAD_GPU_VENDOR": "MINE", "TRICKY": tricky, "NUMBER": 3},
    });
    scene.run(&context, &[]).with(0);
    let found = variables(&scene);
    for (name, value) in [
        ("MAD_MODEL_NAME", model.as_str()),
        ("JENKINS_BUILD_NUMBER", "77"),
        ("NCCL_DEBUG", "INFO"),
        ("MASTER_PORT", "4321"),
        ("MAD_GPU_VENDOR", "MINE"),
        ("MAD_GUEST_OS", "UBUNTU"),
        ("MAD_RUNTIME_NGPUS", "0"),
        ("TRICKY", tricky),
        ("NUMBER", "3"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(found.get("RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES").map(String::as_str), Some(""));
    assert!(found.contains_key("MAD_MULTI_NODE_RUNNER"));
    for name in ["NOT_PASSED", "OF_CARD", "MODEL_DIR", "MAD_OUTPUT_CSV"] {
        assert_eq!(found.get(name), None, "{name}");
    }
    assert_eq!(scene.rows()[0]["build_number"], "77");
}

#[test]
fn a_variable_that_cannot_be_one_is_refused_by_name() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("name", "touch /shared/ran\n", &json!({}));
    scene.run(&json!({"docker_env_vars": {"not-a-name": "x"}}), &[]).with(3).says("not-a-name");
    assert!(!scene.shared.join("ran").exists());
    assert_eq!(scene.rows()[0]["status"], "FAILURE");
}

#[test]
fn mounts_and_processors_are_what_the_context_says() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "echo written > /over/there/file\ngrep Cpus_allowed_list /proc/self/status > /shared/cpus\necho 'performance: 1 u'\n";
    scene.model("mount", script, &json!({}));
    let (shared, outside) = (scene.shared.clone(), scene.shared.join("out side"));
    std::fs::create_dir(&outside).unwrap();
    let context = json!({"docker_mounts": {"/shared": shared, "/over/there": outside}, "docker_cpus": " 0 "});
    scene.run(&context, &[]).with(0);
    assert_eq!(scene.left("out side/file"), "written\n");
    assert_eq!(scene.left("cpus").split_whitespace().last(), Some("0"));
    // What is not there is not made.
    let missing = scene.shared.join("missing");
    scene.run(&json!({"docker_mounts": {"/x": missing}}), &[]).with(3).says(missing.to_str().unwrap());
    assert!(!missing.exists());
}

#[test]
fn the_workspace_is_laid_out_as_scripts_expect() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "set -e\nsource ../scripts/common/lib.sh\ntest \"$(cat beside.txt)\" = beside\ntest \"$(cat ../scripts/other/data.txt)\" = other\n\
                  test \"$PWD\" = /myworkspace/run_directory\ntest -e ../scripts/common/tools.json\necho \"performance: $(value) u\"\n";
    scene.model("layout", script, &json!({}));
    for (file, text) in
        [("common/lib.sh", "value() { echo 7; }\n"), ("layout/beside.txt", "beside\n"), ("other/data.txt", "other\n")]
    {
        let file = scene.tree.join("scripts").join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    scene.run(&json!({}), &[]).with(0);
    assert_eq!(scene.rows()[0]["performance"], "7");
}

#[test]
fn run_options_of_a_card_are_applied_by_their_type() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "hostname > /shared/host\ndf -k /dev/shm | tail -n 1 > /shared/shm\nulimit -n > /shared/files\nenv -0 > /shared/env\necho 'performance: 1 u'\n";
    let options = "--shm-size=128m --ulimit nofile=777:777 -h there -e 'OPTION=two words' --cap-add SYS_NICE";
    scene.model("options", script, &json!({"additional_docker_run_options": options}));
    scene.run(&json!({}), &[]).with(0);
    assert_eq!((scene.left("host").trim(), scene.left("files").trim()), ("there", "777"));
    assert_eq!(scene.left("shm").split_whitespace().nth(1), Some("131072"));
    assert_eq!(variables(&scene).get("OPTION").map(String::as_str), Some("two words"));
    assert_eq!(scene.rows()[0]["additional_docker_run_options"], options);
}

#[test]
fn an_unknown_run_option_is_refused_by_name_before_anything_runs() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model(
        "strange",
        "touch /shared/ran\n",
        &json!({"additional_docker_run_options": "--device-write-bps /dev/sda:1mb"}),
    );
    scene.run(&json!({}), &[]).with(3).says("`--device-write-bps` is not known");
    assert!(!scene.shared.join("ran").exists());
    assert_eq!((scene.rows()[0]["status"].as_str(), scene.containers().len()), ("FAILURE", 0));
}

#[test]
fn a_privileged_container_is_refused_by_policy_which_says_how_to_allow_it() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("mighty", "touch /shared/ran\n", &json!({"additional_docker_run_options": "--privileged"}));
    scene.run(&json!({}), &[]).with(5).says("privileged").says("target-docker");
    assert!(!scene.shared.join("ran").exists());
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn the_restricted_profile_has_no_capabilities_and_no_network_of_the_host() {
    let Some(mut scene) = Scene::new() else { return };
    let script =
        format!("ls /sys/class/net > /shared/net\nreadlink /proc/self/ns/net > /shared/ns\necho mine > note\n{TELL}");
    scene.model("low", &script, &json!({}));
    scene.run(&json!({}), &["--container-profile", "restricted"]).with(0);
    assert_eq!(status(&scene, "CapEff"), "0000000000000000");
    assert_eq!(status(&scene, "CapBnd"), "0000000000000000");
    assert_eq!(status(&scene, "NoNewPrivs"), "1");
    assert_eq!(status(&scene, "Seccomp"), "2", "the engine's filter is on");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(scene.left("ns").trim(), own.to_str().unwrap(), "the network is not the host's");

    scene.run(&json!({}), &["--container-profile", "compatible"]).with(0);
    let sys_admin = 1_u64 << 21;
    let effective = u64::from_str_radix(&status(&scene, "CapEff"), 16).unwrap();
    assert_ne!(effective & sys_admin, 0, "the compatible profile has upstream's");
    assert_eq!(status(&scene, "Seccomp"), "0");
}

#[test]
fn hostile_arguments_arrive_as_words() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "printf '%s\\n' \"$@\" > /shared/args\necho 'performance: 1 u'\n";
    let args = r#"--a '$(touch /shared/hurt)' "`touch /shared/hurt`" '*' 'two  words' ';' 'touch' --quote "it's" "#;
    scene.model("args", script, &json!({"args": args}));
    scene.run(&json!({}), &[]).with(0);
    let expected =
        ["--a", "$(touch /shared/hurt)", "`touch /shared/hurt`", "*", "two  words", ";", "touch", "--quote", "it's"];
    assert_eq!(scene.left("args").lines().collect::<Vec<_>>(), expected);
    assert!(!scene.shared.join("hurt").exists());

    // Arguments of a tag, and those that replace the model's.
    let tag = format!("{}:batch=$(id):flag", scene.model_name("args"));
    let context = scene.context(&json!({"model_args": ""}));
    scene.maddock(&["run", "--tags", &tag, "-c", &context]).with(0);
    assert_eq!(scene.left("args").lines().last(), Some("--flag"));
    let context = scene.context(&json!({"model_args": "only 'this one'"}));
    scene.maddock(&["run", "--tags", &tag, "-c", &context]).with(0);
    assert_eq!(scene.left("args"), "only\nthis one\n");
}

#[test]
fn scripts_around_the_model_and_tools_run_in_their_order() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("around", "echo model\necho 'performance: 1 u'\n", &json!({}));
    let context = json!({
        "pre_scripts": [{"path": "scripts/common/pre_scripts/pre_test.sh", "args": "1"}],
        "post_scripts": [{"path": "scripts/common/post_scripts/post_test.sh", "args": "2"}],
        "tools": [{"name": "test_tools_A"}],
        "encapsulate_script": "echo wrapped &&",
        "gen_sys_env_details": false,
    });
    scene.run(&context, &[]).with(0);
    let log = scene.run_log(&scene.model_name("around"));
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("no `{words}` in {log}"));
    let order = ["Pre-Script test called 1", "cmd_A", "wrapped", "\nmodel", "Post-Script test called 2"].map(at);
    assert!(order.is_sorted(), "{order:?} in {log}");
}
