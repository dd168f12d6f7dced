use maddock_sdk::launcher::Program;
use maddock_sdk::references;
use maddock_sdk::types::ErrorKind;

use super::*;
use crate::names::LAUNCHERS;

fn topology(launcher: &str, nodes: u32, processes: u32) -> Topology {
    Topology {
        launcher: launcher.to_owned(),
        nodes,
        processes_per_node: processes,
        gpus_per_node: processes,
        main_address: if nodes == 1 { "localhost".to_owned() } else { "$MADDOCK_MAIN_NODE".to_owned() },
        main_port: 29500,
        model: "primus_pretrain/megatron_bridge_llama3".to_owned(),
        job: "0-dummy".to_owned(),
        config: "{}".to_owned(),
        program: Program { interpreter: vec!["bash".to_owned()], file: "run.sh".to_owned() },
        env: Vec::new(),
        extra: Vec::new(),
    }
}

fn python(mut topology: Topology) -> Topology {
    topology.program = Program { interpreter: vec!["python3".to_owned()], file: "train.py".to_owned() };
    topology
}

fn with(mut topology: Topology, config: &str) -> Topology {
    topology.config = config.to_owned();
    topology
}

fn value(arrangement: &Arrangement, node: usize, name: &str) -> Option<String> {
    let found: Vec<_> = arrangement.roles[node].env.iter().filter(|entry| entry.name == name).collect();
    assert!(found.len() <= 1, "{name} is set twice");
    found.first().map(|entry| entry.value.clone())
}

/// A role as text. What all nodes have in common is said once, by the first.
fn text(arrangement: &Arrangement) -> String {
    let mut text = String::new();
    let first: Vec<String> = lines(&arrangement.roles[0]);
    for role in &arrangement.roles {
        text.push_str(&format!("  node {} {}\n", role.node, role.name));
        for line in lines(role).iter().filter(|line| role.node == 0 || !first.contains(line)) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    for warning in &arrangement.warnings {
        text.push_str(&format!("  warning: {warning}\n"));
    }
    text
}

fn lines(role: &Role) -> Vec<String> {
    let env = role.env.iter().map(|entry| format!("{}={}", entry.name, entry.value));
    env.chain(role.command.iter().map(|command| format!("command: {}", command.join(" ")))).collect()
}

/// `UPDATE_GOLDEN=1 cargo test` writes the tables anew.
#[test]
fn every_launcher_answers_one_two_and_four_nodes_as_its_table_says() {
    for launcher in LAUNCHERS {
        let mut all = String::new();
        for nodes in [1, 2, 4] {
            let shell = topology(launcher.name, nodes, 8);
            for (kind, topology) in [("shell script", shell.clone()), ("Python script", python(shell))] {
                all.push_str(&format!("{} on {nodes}, {kind}\n", launcher.name));
                match arrange(&topology) {
                    Ok(arrangement) => {
                        assert_eq!(arrangement.name, launcher.name);
                        all.push_str(&text(&arrangement));
                    }
                    Err(error) => {
                        assert_eq!(error.kind, ErrorKind::InvalidInput);
                        all.push_str(&format!("  {}\n  hint: {}\n", error.message, error.hint.unwrap()));
                    }
                }
            }
        }
        let file = format!("{}/tests/golden/{}.txt", env!("CARGO_MANIFEST_DIR"), launcher.name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &all).unwrap();
        }
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(before == all, "{file} differs; look at it, and write it anew with UPDATE_GOLDEN=1\n{all}");
    }
}

#[test]
fn every_spelling_gets_the_same_answer() {
    for (spelling, name) in [
        ("megatron", "megatron-lm"),
        ("MEGATRON_LM", "megatron-lm"),
        ("sglang_disagg", "sglang-disagg"),
        ("slurm-multi", "slurm_multi"),
        ("native", "none"),
        ("docker", "none"),
        ("TorchRun", "torchrun"),
    ] {
        let (one, other) = (arrange(&topology(spelling, 4, 8)).unwrap(), arrange(&topology(name, 4, 8)).unwrap());
        assert_eq!(one.name, name);
        assert_eq!(text(&one), text(&other), "{spelling}");
    }
}

#[test]
fn one_node_gets_the_runner_that_the_contract_names() {
    let torchrun = Some("torchrun --standalone --nproc_per_node=8");
    for (launcher, runner) in [
        ("torchrun", torchrun),
        ("none", torchrun),
        ("megatron", torchrun),
        ("torchtitan", torchrun),
        ("deepspeed", Some("deepspeed --num_gpus=8")),
        ("vllm", Some("")),
        ("sglang", Some("")),
        ("sglang_disagg", Some("")),
        ("primus", Some("")),
        ("slurm_multi", Some("")),
    ] {
        let arrangement = arrange(&topology(launcher, 1, 8)).unwrap();
        assert_eq!(value(&arrangement, 0, "MAD_MULTI_NODE_RUNNER").as_deref(), runner, "{launcher}");
        assert_eq!(value(&arrangement, 0, "WORLD_SIZE"), None, "{launcher}");
    }
}

#[test]
fn a_name_that_nobody_has_is_refused_with_those_there_are_and_the_nearest() {
    for nodes in [1, 4] {
        let error = arrange(&topology("torch-rum", nodes, 2)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert_eq!(error.message, "launcher `torch-rum` is not known");
        let hint = error.hint.unwrap();
        assert!(hint.starts_with("did you mean `torchrun`? ") && hint.contains("`slurm_multi`"), "{hint}");
    }
    let hint = arrange(&topology("horovod", 1, 1)).unwrap_err().hint.unwrap();
    assert!(hint.starts_with("known launchers are "), "{hint}");
}

#[test]
fn a_machine_without_accelerators_runs_one_process() {
    let arrangement = arrange(&topology("torchrun", 1, 0)).unwrap();
    assert_eq!(value(&arrangement, 0, "NPROC_PER_NODE").as_deref(), Some("1"));
}

#[test]
fn on_one_node_the_number_of_devices_that_the_user_says_counts() {
    let given = |nodes| {
        let mut topology = topology("torchrun", nodes, 8);
        topology.env.push(entry("MAD_RUNTIME_NGPUS", 3));
        value(&arrange(&topology).unwrap(), 0, "NPROC_PER_NODE").unwrap()
    };
    assert_eq!((given(1).as_str(), given(2).as_str()), ("3", "8"));
}

#[test]
fn numbers_that_cannot_be_are_refused_with_key_and_remedy() {
    for (config, key) in [
        (r#"{"nproc_per_node": 0}"#, "distributed.nproc_per_node"),
        (r#"{"nproc_per_node": -1}"#, "distributed.nproc_per_node"),
        (r#"{"nproc_per_node": "many"}"#, "distributed.nproc_per_node"),
        (r#"{"nproc_per_node": 1.5}"#, "distributed.nproc_per_node"),
        (r#"{"port": 0}"#, "distributed.port"),
        (r#"{"nnodes": {}}"#, "distributed.nnodes"),
        (r#"{"backend": {}}"#, "distributed.backend"),
    ] {
        let error = arrange(&with(topology("torchrun", 2, 8), config)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{config}");
        assert!(error.hint.is_some() && error.details.iter().any(|detail| detail.value == key), "{error:?}");
    }
    assert_eq!(arrange(&topology("torchrun", 0, 1)).unwrap_err().kind, ErrorKind::InvalidInput);
    assert_eq!(arrange(&with(topology("torchrun", 1, 1), "[]")).unwrap_err().kind, ErrorKind::InvalidInput);
}

#[test]
fn servers_that_share_the_work_are_started_by_the_job_only_where_it_is_asked_for() {
    let asked = |config: &str| arrange(&with(topology("sglang-disagg", 4, 8), config));
    assert!(asked("{}").unwrap().roles.iter().all(|role| role.command.is_none()));
    let error = asked(r#"{"sglang_disagg": {"servers": true}}"#).unwrap_err();
    assert!(error.hint.unwrap().contains("MODEL_PATH"));
    assert_eq!(error.details[0].value, "distributed.sglang_disagg.model_path");
    let servers = asked(r#"{"sglang_disagg": {"servers": true, "model_path": "/data/a $MADDOCK_NODES"}}"#).unwrap();
    let command = |node: usize| servers.roles[node].command.clone().unwrap();
    assert_eq!(
        command(0)[2..],
        [
            "sglang.srt.disaggregation.mini_lb",
            "--prefill",
            "http://$MADDOCK_NODE_1:30000",
            "--decode",
            "http://$MADDOCK_NODE_2:30000",
            "http://$MADDOCK_NODE_3:30000",
            "--host",
            "0.0.0.0",
            "--port",
            "29500",
        ]
    );
    assert_eq!(references::plain(&command(1)[4]).as_deref(), Some("/data/a $MADDOCK_NODES"));
    assert!(command(1).contains(&"prefill".to_owned()) && command(3).contains(&"decode".to_owned()));
    let mut by_variable = with(topology("sglang-disagg", 4, 8), r#"{"sglang_disagg": {"servers": true}}"#);
    by_variable.env.push(entry("MODEL_PATH", "/m"));
    assert_eq!(arrange(&by_variable).unwrap().roles[2].command.as_ref().unwrap()[4], "/m");
}

#[test]
fn what_the_section_of_primus_says_comes_first() {
    let config = r#"{"primus": {"config_path": "examples/maxtext/x.yaml", "cli_extra": ["--a", "b c"], "root": "/p"}}"#;
    let arrangement = arrange(&with(topology("primus", 2, 8), config)).unwrap();
    for (name, expected) in [
        ("PRIMUS_CONFIG_PATH", "examples/maxtext/x.yaml"),
        ("PRIMUS_CLI_EXTRA", "--a b c"),
        ("PRIMUS_ROOT", "/p"),
        ("BACKEND", "MaxText"),
        ("GPUS_PER_NODE", "8"),
    ] {
        assert_eq!(value(&arrangement, 1, name).as_deref(), Some(expected), "{name}");
    }
    let explicit = arrange(&with(topology("primus", 1, 8), r#"{"primus": {"backend": "own"}}"#)).unwrap();
    assert_eq!(value(&explicit, 0, "BACKEND").as_deref(), Some("own"));
    assert!(explicit.warnings[0].contains("distributed.primus.config_path"), "{:?}", explicit.warnings);
}

#[test]
fn the_split_of_slurm_multi_is_told_to_its_script() {
    let config = r#"{"sglang_disagg": {"prefill_nodes": 2, "decode_nodes": 3}}"#;
    let arrangement = arrange(&with(topology("slurm_multi", 6, 8), config)).unwrap();
    assert_eq!(arrangement.roles.len(), 1);
    assert_eq!(value(&arrangement, 0, "xP").as_deref(), Some("2"));
    assert_eq!(value(&arrangement, 0, "yD").as_deref(), Some("3"));
}

/// Texts over an alphabet of what shells and references care about, the same at every run.
fn arbitrary(count: usize) -> Vec<String> {
    const PIECES: [&str; 16] = [
        "$MADDOCK_NODES",
        "$MADDOCK_MAIN_NODE",
        "$MADDOCK_NODE_1",
        "$MADDOCK_SCRIPT",
        "$",
        "$$",
        "`id`",
        "$(id)",
        "'",
        "\"",
        "\\",
        " ",
        "\n",
        "a",
        "é",
        "{}",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    (0..count)
        .map(|_| {
            let length = next(6) + 1;
            (0..length).map(|_| PIECES[next(PIECES.len())]).collect()
        })
        .collect()
}

#[test]
fn no_text_of_a_user_is_lost_or_expanded() {
    for text in arbitrary(2000) {
        let quoted = maddock_sdk::serde_json::to_string(&text).unwrap();
        let section = format!(
            r#"{{"backend": {quoted}, "primus": {{"config_path": {quoted}, "cli_extra": {quoted}, "backend": {quoted},
                "root": {quoted}}}, "sglang_disagg": {{"servers": true, "model_path": {quoted}}}}}"#
        );
        let primus = arrange(&with(topology("primus", 3, 8), &section)).unwrap();
        for name in ["PRIMUS_CONFIG_PATH", "PRIMUS_CLI_EXTRA", "PRIMUS_ROOT", "BACKEND", "DISTRIBUTED_BACKEND"] {
            let value = value(&primus, 2, name).unwrap();
            assert_eq!(references::plain(&value).as_deref(), Some(text.as_str()), "{name}");
        }
        let servers = arrange(&with(topology("sglang-disagg", 3, 8), &section)).unwrap();
        let path = servers.roles[1].command.as_ref().unwrap()[4].clone();
        assert_eq!(references::plain(&path).as_deref(), Some(text.as_str()));
    }
}
