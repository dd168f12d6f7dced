//! Hazards of `docs/targets/hazards.md` that show only on a real cluster.

use super::*;

#[test]
fn several_nodes_without_a_figure_are_a_failed_row() {
    let Some(ground) = Ground::new("no figure", json!({}), "echo nothing to tell\n") else { return };
    let output = ground.run(&with(cpu(), json!({"nodes": 2, "container": false})));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let table = std::fs::read_to_string(ground.work().join("perf.csv")).unwrap();
    assert_eq!((table.lines().count(), table.matches("FAILURE").count()), (2, 1), "{table}");
    assert_eq!(ground.job()["evidence"]["nodes"], json!({"expected": 2, "reported": 2}), "both ended well");
}

#[test]
fn whatever_names_arguments_and_variables_hold_arrives_on_the_node_as_it_is() {
    if Ground::new("any values", json!({}), GOOD).is_none() {
        return;
    }
    values::arrive(2, |values| {
        let ground = Ground::new("any values", values.card(), &values::script()).unwrap();
        let section = with(cpu(), json!({"container": false}));
        let context = json!({"slurm": section, "docker_env_vars": values.environment()});
        let output = ground.command_with(&context).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{values:?}: {}", said(&output));
        assert_eq!(ground.job()["rows"][0]["model"], values.model);
        let mut jobs = std::fs::read_dir(ground.directory().join("jobs")).unwrap();
        std::fs::read_to_string(jobs.next().unwrap().unwrap().path().join("run.log")).unwrap()
    });
}

#[test]
fn a_model_with_a_slash_in_its_name_runs_and_keeps_it() {
    let Some(ground) = Ground::new("a slash", json!({"name": "primus_pretrain/m"}), GOOD) else { return };
    let output = ground.run(&with(cpu(), json!({"container": false})));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(ground.job()["rows"][0]["model"], "primus_pretrain/m");
    assert!(ground.work().join("primus_pretrain_m_slurm.run.live.log").is_file(), "{}", said(&output));
}

#[test]
fn megatron_by_either_name_knows_where_its_nodes_meet() {
    let script = "echo \"at <$MASTER_ADDR> of $MAD_LAUNCHER_TYPE\"\necho \"performance: 1 things_per_second\"\n";
    for name in ["megatron", "megatron-lm"] {
        let Some(ground) = Ground::new("megatron", json!({"distributed": {"launcher": name}}), script) else { return };
        let output = ground.run(&with(cpu(), json!({"nodes": 2, "gpus_per_node": 0, "container": false})));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let log = ground.log();
        assert_eq!(log.lines().filter(|line| line.starts_with("at <node")).count(), 2, "{log}");
        assert_eq!(ground.job()["rows"][0]["launcher"], "megatron-lm");
    }
}
