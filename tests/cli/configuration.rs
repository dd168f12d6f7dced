//! `config show` and `config presets`, what they say about a run, and what a configuration cannot say. No cluster and no
//! container engine is needed: nothing here gets as far as one.

use serde_json::{Value, json};

use crate::playground::{Playground, answer};

const GOOD: &str = "echo 'performance: 1 x'";

fn show(playground: &Playground, words: &[&str]) -> Value {
    playground.call(&[&["config", "show", "--json"], words].concat()).exits(0).json()
}

#[test]
fn the_presets_of_the_chosen_target_are_shown_under_what_is_said() {
    let playground = Playground::new();
    let shown =
        show(&playground, &["-c", "{'slurm': {'nodes': 2, 'time': '1:00:00'}, 'env_vars': {'NCCL_DEBUG': 'INFO'}}"]);
    assert_eq!(shown["slurm"]["time"], "1:00:00");
    assert_eq!(shown["slurm"]["gpus_per_node"], 8);
    assert_eq!(shown["slurm"].get("partition"), None, "a site's value is not for strangers");
    assert_eq!(shown["env_vars"]["NCCL_DEBUG"], "INFO");
    assert_eq!(shown["env_vars"]["NCCL_IB_DISABLE"], "1");
    let plain = show(&playground, &["--target", "process"]);
    assert_eq!(plain.get("env_vars"), None, "{plain}");
}

#[test]
fn every_origin_is_named_with_file_and_line() {
    let playground = Playground::new();
    let file = playground.write("work/context.json", "{\n  \"slurm\": {\n    \"qos\": \"high\"\n  }\n}\n");
    let file = file.to_str().unwrap();
    let words = ["config", "show", "--origin", "-f", "context.json", "-c", "{'debug': True}", "--preset", "amd-rccl"];
    let answer = playground.call(&words).exits(0);
    for line in [
        "slurm.qos\thigh\tfile context.json:3",
        "debug\ttrue\tcommand line",
        "slurm.partition\tamd-rccl\tdefault (sites/amd-rccl.json)",
        "slurm.time\t12:00:00\tdefault (slurm/single-node.json)",
        "rocenv_mode\tlite\tdefault (defaults.json)",
    ] {
        assert!(answer.stdout.lines().any(|there| there == line), "`{line}` is not in {answer:#?}");
    }
    let leaves = show(&playground, &["--origin", "-f", file, "slurm.qos"]);
    assert_eq!(leaves["target"], "slurm");
    assert_eq!(leaves["values"][0]["origin"], format!("file {file}:3"));
}

#[test]
fn one_key_is_shown_alone_and_one_that_nothing_sets_is_an_error() {
    let playground = Playground::new();
    let text = "{'slurm': {'nodes': 3}}";
    let one = playground.call(&["config", "show", "-c", text, "slurm.time"]).exits(0);
    assert_eq!(one.stdout, "24:00:00\n");
    assert_eq!(show(&playground, &["-c", text, "distributed"])["nnodes"], 3);
    playground
        .call(&["config", "show", "-c", text, "slurm.tim"])
        .exits(4)
        .says(&["`slurm.tim`", "did you mean `slurm.time`"]);
}

#[test]
fn secrets_are_shown_by_their_names_only() {
    let playground = Playground::new();
    for words in [&["--json"][..], &["--origin"], &["--origin", "--json"], &[]] {
        let text = "{'docker_env_vars': {'MAD_SECRETS_OWN': 'inline-bytes', 'TOKEN': 'the-secret-bytes'}}";
        let mut command = playground.command();
        command.args(["config", "show", "--target", "process", "-c", text]).args(words);
        let answer = answer(command.env("MAD_SECRETS_KEY", "the-secret-bytes")).exits(0);
        let all = format!("{}{}", answer.stdout, answer.stderr);
        assert!(!all.contains("the-secret-bytes") && !all.contains("inline-bytes"), "{answer:#?}");
        assert!(all.contains("env/MAD_SECRETS_KEY"), "{answer:#?}");
    }
}

#[test]
fn what_is_shown_is_what_a_run_has_and_records() {
    let playground = Playground::with(GOOD);
    let text = "{'env_vars': {'A': 1, '_note': 'x'}, 'debug': True}";
    playground.run(&["--tags", "m", "-c", text]).exits(0);
    let run: Value =
        serde_json::from_str(&std::fs::read_to_string(playground.only_run().join("run.json")).unwrap()).unwrap();
    let words = ["--target", "process", "-c", text];
    assert_eq!(show(&playground, &words), run["configuration"]);
    let leaves = show(&playground, &[&words[..], &["--origin"]].concat());
    for leaf in leaves["values"].as_array().unwrap() {
        assert_eq!(run["origins"][leaf["key"].as_str().unwrap()], leaf["origin"], "{leaf}");
    }
    assert_eq!(run["configuration"]["env_vars"], json!({"A": 1}));
}

#[test]
fn variables_for_containers_reach_a_job_of_this_machine_and_those_for_clusters_do_not() {
    let playground = Playground::with("echo \"performance: ${A:-0}$B ${_C:-none}\"");
    let text = "{'env_vars': {'A': 1, 'B': 2}, 'docker_env_vars': {'B': 3, '_C': 'comment'}}";
    playground.run(&["--tags", "m", "-c", text]).exits(0);
    let row = &playground.rows()[0];
    assert_eq!((row["performance"].as_str(), row["metric"].as_str()), ("03", "none"));
    let shown = show(&playground, &["-c", "{'context': {'env_vars': {'A': 7}}}"]);
    assert_eq!(shown["env_vars"], json!({"A": 7}), "the nested form of the examples");
}

#[test]
fn a_manifest_s_configuration_is_shown_under_what_is_said_now() {
    let playground = Playground::new();
    let manifest = json!({
        "built_images": {}, "built_models": {},
        "context": {"gpu_vendor": "NVIDIA"},
        "deployment_config": {"target": "slurm", "slurm": {"nodes": 2, "qos": "low", "time": "24:00:00"}},
        "preset_leaves": {"deployment_config": {"/slurm/time": "default (slurm/multi-node.json)"}},
    });
    playground.write("work/m.json", &manifest.to_string());
    let shown = show(&playground, &["-m", "m.json", "-c", "{'slurm': {'nodes': 1}}"]);
    assert_eq!((&shown["slurm"]["qos"], &shown["slurm"]["nodes"]), (&json!("low"), &json!(1)));
    assert_eq!(shown["slurm"]["time"], "12:00:00", "a preset's value is looked up anew");
    assert_eq!(shown["gpu_vendor"], "NVIDIA");
}

#[test]
fn the_presets_are_listed() {
    let playground = Playground::new();
    let answer = playground.call(&["config", "presets"]).exits(0);
    answer.prints(&["slurm/multi-node\tby itself\t", "k8s/nvidia\tby itself\t", "nfs-banff\ton request\t"]);
    let list = playground.call(&["config", "presets", "--format", "json"]).exits(0).json();
    assert!(list.as_array().unwrap().iter().any(|preset| preset["name"] == "amd-rccl" && preset["on_request"] == true));
}

#[test]
fn a_preset_of_the_user_s_own_is_named_by_its_path() {
    let playground = Playground::new();
    playground
        .write("work/ours.json", r#"{"schema": 1, "values": {"slurm": {"partition": "ours", "gpus_per_node": 4}}}"#);
    let shown = show(&playground, &["--target", "slurm", "--preset", "ours.json"]);
    assert_eq!((&shown["slurm"]["partition"], &shown["slurm"]["gpus_per_node"]), (&json!("ours"), &json!(4)));
    let shown = show(&playground, &["-c", "{'slurm': {'partition': 'mine'}, 'presets': ['./ours.json']}"]);
    assert_eq!(shown["slurm"]["partition"], "mine");
    playground.write("work/later.json", r#"{"schema": 9, "values": {}}"#);
    let refused = playground.call(&["config", "show", "--preset", "later.json"]).exits(4);
    refused.says(&["later.json", "schema 9", "reads schema 1"]);
}

#[test]
fn what_cannot_be_is_refused_with_key_place_and_remedy() {
    let playground = Playground::with(GOOD);
    let cases: &[(&str, &[&str])] = &[
        ("{'process': {}, 'slurm': {}}", &["`process`", "`slurm`", "are both there"]),
        ("{'deploy': 'local', 'slurm': {}}", &["`deploy`", "section `slurm`"]),
        ("{'deploy': 'clowd'}", &["no target `clowd`"]),
        (
            "{'slurm': {'nodes': 2}, 'distributed': {'nnodes': 4}}",
            &["`slurm.nodes` is 2, and `distributed.nnodes` is 4"],
        ),
        ("{'slurm': {'nodes': 2}, 'launcher': {'nnodes': 4}}", &["`distributed.nnodes` is 4"]),
        ("{'slurm': {'nodes': 0}}", &["`slurm.nodes` is 0", "a whole number from 1 on"]),
        ("{'slurm': {'nodes': 'two'}}", &["`slurm.nodes` is \"two\""]),
        ("{'slurm': {'nodes': 1.5}}", &["`slurm.nodes` is 1.5"]),
        ("{'slurm': {'gpus_per_node': -2}}", &["`slurm.gpus_per_node` is -2"]),
        ("{'n_gpus': '-2'}", &["`n_gpus` is \"-2\""]),
        ("{'slurm': {'gpus_per_node': 2}, 'gpu_vendor': 'NONE'}", &["`slurm.gpus_per_node`", "`gpu_vendor`"]),
        ("{'slurm': {'exclusive': 'yes'}}", &["`slurm.exclusive`", "true or false"]),
        ("{'distributed': {'nproc_per_node': 0}}", &["`distributed.nproc_per_node`"]),
        ("{'distributed': {'port': 70000}}", &["`distributed.port`", "from 1 to 65535"]),
        ("{'distributed': {'master_port': 'x'}}", &["`distributed.port`"]),
        ("{'launcher': {'master_port': 0}}", &["`distributed.port` is 0"]),
        ("{'timeout': -7}", &["`timeout` is -7"]),
        ("{'timeout': 'soon'}", &["`timeout` must be a number"]),
        ("{'slurm': {}, 'presets': ['amd-rcll']}", &["no preset `amd-rcll`", "did you mean `amd-rccl`", "`nfs-banff`"]),
        ("{'presets': ['nowhere.json']}", &["nowhere.json", "cannot read the preset"]),
        ("{'presets': [1]}", &["item 1 of `presets`"]),
    ];
    let tree = playground.tree();
    for (text, expected) in cases {
        for command in [&["config", "show"][..], &["run", "--tags", "m", "--model-dir", tree.to_str().unwrap()]] {
            let answer = playground.call(&[command, &["-c", text]].concat());
            assert_eq!(answer.code, Some(4), "{text}: {answer:#?}");
            for part in *expected {
                assert!(answer.stderr.contains(part), "{text}: `{part}` is not in {answer:#?}");
            }
            let named = answer.stderr.contains("line 1, column") || answer.stderr.contains(".json");
            assert!(named, "{text}: no place in {answer:#?}");
            // A wrong type says what it must be; everything else has a hint.
            let remedy = answer.stderr.contains("hint:") || answer.stderr.contains(" must be ");
            assert!(remedy, "{text}: no remedy in {answer:#?}");
        }
    }
    assert!(!playground.work().join("perf.csv").exists(), "nothing was run");
}

#[test]
fn other_spellings_are_honoured_and_a_conflict_between_them_is_told() {
    let playground = Playground::new();
    let port = |text: &str| show(&playground, &["-c", text, "distributed"])["port"].clone();
    for text in
        ["{'distributed': {'port': 7}}", "{'distributed': {'master_port': 7}}", "{'launcher': {'master_port': 7}}"]
    {
        assert_eq!(port(text), 7, "{text}");
    }
    for (text, said) in [
        (
            "{'distributed': {'port': 7, 'master_port': 8}}",
            "`distributed.master_port` is another name of `distributed.port`",
        ),
        (
            "{'distributed': {'nnodes': 2}, 'launcher': {'nnodes': 4}}",
            "`launcher.nnodes` is another name of `distributed.nnodes`",
        ),
        ("{'gen_sys_env_details': True, 'generate_sys_env_details': False}", "`generate_sys_env_details`"),
    ] {
        playground.call(&["config", "show", "-c", text]).exits(0).says(&["warning:", said]);
    }
    for (text, near) in [
        ("{'slurm': {'nodelst': 'a'}}", "did you mean `nodelist`"),
        ("{'slurm': {'reservatoin': 'a'}}", "did you mean `reservation`"),
        ("{'distributed': {'nnode': 2}}", "`nnodes`"),
        ("{'preset': 'a'}", "`presets`"),
    ] {
        playground.call(&["config", "show", "-c", text]).exits(0).says(&["warning:", near]);
    }
}

#[test]
fn the_target_of_the_option_counts_and_says_what_it_leaves_out() {
    let playground = Playground::with(GOOD);
    playground
        .run(&["--tags", "m", "-c", "{'slurm': {'nodes': 2}}"])
        .exits(0)
        .says(&["the section `slurm` is left out"]);
    for name in ["slurm", "SLURM"] {
        let text = format!("{{'deploy': '{name}'}}");
        assert_eq!(show(&playground, &["-c", &text])["slurm"]["gpus_per_node"], 8, "{name}");
    }
}
