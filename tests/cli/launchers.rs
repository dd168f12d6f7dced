//! Launchers on this machine: which one it is, what a model gets, and whose word counts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::playground::Playground;

const TELL: &str = "echo \"$MAD_MULTI_NODE_RUNNER|$A|$B|$C\" > told_output.csv; echo 'performance: 1 x'";

#[test]
fn one_spelling_is_reported_however_it_was_written() {
    for (asked, reported) in
        [("MEGATRON", "megatron-lm"), ("sglang_disagg", "sglang-disagg"), ("slurm-multi", "slurm_multi")]
    {
        let playground = Playground::with(TELL);
        let context = json!({"distributed": {"launcher": asked}}).to_string();
        playground.run(&["--tags", "m", "-c", &context]).exits(0);
        assert_eq!(playground.rows()[0]["launcher"], reported);
    }
}

#[test]
fn the_user_s_own_variables_win_over_the_launcher_s_and_env_vars_are_for_jobs_that_are_deployed() {
    for (launcher, told) in
        [("torchrun", "mine --x|docker_env_vars||\n"), ("slurm_multi", "mine --x|docker_env_vars|env_vars|card $x\n")]
    {
        let mut playground = Playground::new();
        let card =
            json!({"env_vars": {"A": "card", "B": "card", "C": "card $x"}, "distributed": {"launcher": launcher}});
        playground.model("m", card, TELL);
        let own = json!({"A": "docker_env_vars", "MAD_MULTI_NODE_RUNNER": "mine --x"});
        let context = json!({"env_vars": {"A": "env_vars", "B": "env_vars"}, "docker_env_vars": own});
        playground.run(&["--tags", "m", "-c", &context.to_string()]).exits(0);
        assert_eq!(playground.read("told_output.csv"), told);
    }
}

#[test]
fn a_python_script_is_started_by_the_launcher_that_was_asked_for_and_by_python_where_none_was() {
    let mut playground = Playground::new();
    playground.model("m", json!({"scripts": "scripts/m/go.py", "args": "'$(id)' --x"}), "");
    let script = "import sys\nprint(sys.argv[1:], 'performance: 1 x')\n";
    fs::write(playground.tree().join("scripts/m/go.py"), script).unwrap();
    let torchrun = playground.tree().join("scripts/m/torchrun");
    fs::write(&torchrun, "#!/bin/bash\nprintf '<%s>' \"$@\"; echo; echo 'performance: 2 x'\n").unwrap();
    fs::set_permissions(&torchrun, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", torchrun.parent().unwrap().display());
    playground.run(&["--tags", "m"]).exits(0);
    let context = json!({"distributed": {"launcher": "torchrun"}, "docker_env_vars": {"PATH": path}});
    playground.run(&["--tags", "m", "-c", &context.to_string()]).exits(0);
    let rows = playground.rows();
    assert_eq!((rows[0]["performance"].as_str(), rows[1]["performance"].as_str()), ("1", "2"));
    let log = playground.read("m_process.run.live.log");
    assert!(log.contains("<--standalone><--nnodes=1><--nproc_per_node=1><go.py><$(id)><--x>\n"), "{log}");
}

#[test]
fn a_launcher_that_nobody_has_is_refused_with_the_nearest_name() {
    let playground = Playground::with(TELL);
    let answer = playground.run(&["--tags", "m", "-c", "{'distributed': {'launcher': 'deep-sped'}}"]).exits(3);
    assert!(answer.stderr.contains("did you mean `deepspeed`?"), "{}", answer.stderr);
}

#[test]
fn a_number_of_processes_that_is_none_is_refused_with_its_key() {
    let playground = Playground::with(TELL);
    let answer = playground.run(&["--tags", "m", "-c", "{'distributed': {'nproc_per_node': 0}}"]).exits(4);
    assert!(answer.stderr.contains("`distributed.nproc_per_node` is 0"), "{}", answer.stderr);
}
