//! What a run on this machine leaves: rows, logs, and the run's own directory.

use std::fs;

use serde_json::{Value, json};

use crate::playground::{Playground, contents, example_tree, names};

const COLUMNS: &str = "model,n_gpus,nnodes,gpus_per_node,training_precision,pipeline,args,tags,docker_file,base_docker,\
                       docker_sha,docker_image,git_commit,machine_name,deployment_type,launcher,gpu_architecture,\
                       performance,metric,relative_change,status,build_duration,test_duration,dataname,\
                       data_provider_type,data_size,data_download_duration,build_number,additional_docker_run_options";

/// The performance table with what differs from run to run replaced.
fn filtered(csv: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let column = |name: &str| COLUMNS.split(',').position(|column| column == name).unwrap();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv.as_bytes());
    for (number, row) in reader.records().skip(1).enumerate() {
        let row = row.unwrap();
        assert_eq!(row.get(column("machine_name")), Some(host.as_str()), "row {number}");
        let seconds: f64 = row.get(column("test_duration")).unwrap().parse().unwrap();
        assert!((0.0..60.0).contains(&seconds), "row {number}: {seconds}");
    }
    let mut lines = csv.split_inclusive('\n');
    let mut text = lines.next().unwrap().to_owned();
    for line in lines {
        let line = line.replace(&format!(",{host},"), ",[HOST],");
        // The duration stands after the status and the empty duration of the build.
        let (before, after) = line.split_once("SUCCESS,,").map(|(a, b)| (format!("{a}SUCCESS,,"), b)).unwrap();
        let (_, after) = after.split_once(',').unwrap();
        text += &format!("{before}[SECONDS],{after}");
    }
    text
}

fn run_example(playground: &Playground, tags: &str) -> crate::playground::Answer {
    let tree = example_tree();
    playground.call(&["run", "--target", "process", "--model-dir", tree.to_str().unwrap(), "--tags", tags])
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn the_row_of_a_success_is_written_byte_for_byte() {
    let playground = Playground::new();
    run_example(&playground, "dummy").exits(0);
    let expected = format!(
        "{COLUMNS}\ndummy,0,1,0,fp32,,,\"quick,all-outcomes\",,,,,,[HOST],local,native,,14164,samples_per_second,,\
         SUCCESS,,[SECONDS],,,,,0,\n"
    );
    assert_eq!(filtered(&playground.read("perf.csv")), expected);
}

#[test]
fn rows_that_reach_no_reporter_are_no_success_and_are_kept() {
    let playground = Playground::with("echo 'performance: 7 x'");
    let rules = "schema = 1\n[[deny]]\nplugin = \"report-csv\"\ncalls = [\"files.*\"]\n";
    let policy = playground.write("no-rows.toml", rules);
    let refused = playground.run(&["--tags", "m", "--policy", policy.to_str().unwrap()]);
    refused.exits(5).says(&["report-csv", "its rows are in"]);
    let job: Value = serde_json::from_str(&playground.job_file("0-m", "job.json")).unwrap();
    assert_eq!((&job["verdict"], &job["reported"]), (&json!("SUCCESS"), &json!(false)));
    assert_eq!(job["rows"][0]["performance"], "7");
    assert!(!playground.work().join("perf.csv").exists());

    fs::create_dir(playground.work().join("perf_entry.json")).unwrap();
    playground.run(&["--tags", "m"]).exits(1).says(&["perf_entry.json", "its rows are in"]);
}

#[test]
fn variables_of_the_pipeline_are_in_the_row() {
    let mut playground = Playground::new();
    playground.model("m", json!({"training_precision": "fp8"}), "echo 'performance: 1e3 x/s'");
    let mut command = playground.run_command();
    command.args(["--tags", "m:a=b"]).env("BUILD_NUMBER", "77").env("pipeline", "nightly, \"odd\"");
    crate::playground::answer(&mut command).exits(0);
    let row = &playground.rows()[0];
    let expected = [
        ("build_number", "77"),
        ("pipeline", "nightly, \"odd\""),
        ("args", "--a b"),
        ("training_precision", "fp8"),
        ("performance", "1e3"),
        ("metric", "x/s"),
    ];
    for (column, value) in expected {
        assert_eq!(row[column].trim(), value, "{column}");
    }
}

#[test]
fn rows_are_appended_and_foreign_columns_stay() {
    let playground = Playground::with("echo 'performance: 5 things'");
    playground.run(&["--tags", "m"]).exits(0);
    // Somebody adds a column, and a row of an older time.
    let text = playground.read("perf.csv");
    let mut changed: Vec<String> = text.lines().map(|line| format!("{line},kept")).collect();
    changed[0] = format!("{COLUMNS},remark");
    changed.push(format!("old{},\"a, b\"", ",".repeat(28)));
    playground.write("work/perf.csv", &format!("{}\n", changed.join("\n")));
    playground.run(&["--tags", "m"]).exits(0);
    let after = playground.read("perf.csv");
    let after: Vec<&str> = after.lines().collect();
    assert_eq!(after[..3], changed[..], "what was there stays as it was");
    assert_eq!(after.len(), 4);
    assert!(after[3].starts_with("m,") && after[3].ends_with(",0,,"), "{}", after[3]);
    assert_eq!(playground.rows()[3 - 1]["remark"], "");
}

#[test]
fn several_results_are_several_rows() {
    let playground = Playground::new();
    run_example(&playground, "dummy-multi").exits(0);
    let rows = playground.rows();
    let of = |column: &str| rows.iter().map(|row| row[column].as_str()).collect::<Vec<_>>();
    assert_eq!(of("model"), ["dummy-multi_train", "dummy-multi_train", "dummy-multi_infer"]);
    assert_eq!(of("performance"), ["1200.5", "2210.25", "8.5"], "as measured");
    assert_eq!(of("metric"), ["samples_per_second", "samples_per_second", "latency_ms"]);
    assert_eq!(of("status"), ["SUCCESS"; 3]);
    assert_eq!(of("batch_size"), ["32", "64", "1"]);
    let text = playground.read("perf.csv");
    assert_eq!(text.lines().next().unwrap(), format!("{COLUMNS},batch_size"));
    assert!(playground.read("dummy_multi.csv").starts_with("model,performance,metric,batch_size\n"));
    assert!(playground.read("common_info.json").starts_with('{'));
}

#[test]
fn a_row_of_several_results_without_a_number_is_a_failure_of_its_own() {
    let mut playground = Playground::new();
    playground.model(
        "m",
        json!({"multiple_results": "r.csv"}),
        "printf ' model , performance,metric\\na,1,x\\nb,,x\\n' > r.csv",
    );
    playground.run(&["--tags", "m"]).exits(0);
    let rows = playground.rows();
    let seen: Vec<(&str, &str)> = rows.iter().map(|row| (row["model"].as_str(), row["status"].as_str())).collect();
    assert_eq!(seen, [("m_a", "SUCCESS"), ("m_b", "FAILURE")]);
}

#[test]
fn a_results_file_that_is_missing_or_broken_is_a_failure_that_says_so() {
    let cases =
        [("true", "r.csv"), ("echo nothing > r.csv", "performance"), ("printf 'performance\\n' > r.csv", "r.csv")];
    for (script, expected) in cases {
        let mut playground = Playground::new();
        playground.model("m", json!({"multiple_results": "r.csv"}), script);
        playground.run(&["--tags", "m"]).exits(3).says(&["FAILURE m", expected]);
        assert_eq!(playground.rows()[0]["status"], "FAILURE");
    }
}

#[test]
fn failures_have_rows_and_reasons() {
    let playground = Playground::new();
    let answer = run_example(&playground, "dummy-fail,dummy-silent,dummy-scan").exits(3).says(&[
        "FAILURE dummy-fail",
        "exit code 3",
        "no performance line",
        "`HIP out of memory`",
    ]);
    assert!(answer.stdout.contains("3 total runs, 0 successful, 3 failed"), "{answer:#?}");
    let rows = playground.rows();
    let of = |column: &str| rows.iter().map(|row| row[column].as_str()).collect::<Vec<_>>();
    assert_eq!(of("model"), ["dummy-fail", "dummy-silent", "dummy-scan"]);
    assert_eq!(of("status"), ["FAILURE"; 3]);
    assert_eq!(of("performance"), ["", "", "12"], "what was measured is kept");
}

#[test]
fn the_output_of_a_script_that_fails_is_in_the_run_log() {
    let playground = Playground::new();
    let answer = run_example(&playground, "dummy-fail").exits(3);
    let log = playground.read("dummy-fail_process.run.live.log");
    for line in [
        "⏰ Setting timeout to 7200 seconds.",
        "loading the data set",
        "the data set has no shard 7",
        "test_duration: ",
    ] {
        assert!(log.lines().any(|there| there.starts_with(line)), "`{line}` is not in {log}");
    }
    assert_eq!(log, playground.job_file("0-dummy-fail", "run.log"));
    assert!(!answer.stdout.contains("shard 7"), "stdout is not for the model's output: {answer:#?}");
}

#[test]
fn live_output_shows_what_the_model_prints() {
    let playground = Playground::with("echo 'to stdout'; echo 'to stderr' >&2; echo 'performance: 1 x'");
    let answer = playground.run(&["--tags", "m", "--live-output"]).exits(0);
    answer.prints(&["to stdout\n", "to stderr\n", "performance: 1 x\n"]);
}

#[test]
fn the_log_ends_with_the_lines_that_tools_look_for() {
    let playground = Playground::with("printf 'performance: 5 things'");
    playground.run(&["--tags", "m"]).exits(0);
    let log = playground.read("m_process.run.live.log");
    let ending: Vec<&str> = log.lines().rev().take(2).collect();
    assert_eq!(ending[0], "m performance is 5 things");
    assert!(ending[1].starts_with("test_duration: ") && ending[1].ends_with('s'), "{log}");
}

#[test]
fn job_json_has_the_three_answers() {
    let playground = Playground::new();
    run_example(&playground, "all-outcomes").exits(3);
    let answers = |job: &str| {
        let job: Value = serde_json::from_str(&playground.job_file(job, "job.json")).unwrap();
        (job["execution"]["state"].clone(), job["evidence"]["measurement"].clone(), job["verdict"].clone())
    };
    let expected = [
        ("0-dummy", "exited", "metric", "SUCCESS"),
        ("1-dummy-multi", "exited", "rows", "SUCCESS"),
        ("4-dummy-fail", "exited", "missing", "FAILURE"),
        ("5-dummy-silent", "exited", "missing", "FAILURE"),
        ("6-dummy-scan", "exited", "metric", "FAILURE"),
        ("7-dummy-slow", "timed-out", "missing", "FAILURE"),
    ];
    for (job, state, measurement, verdict) in expected {
        assert_eq!(answers(job), (json!(state), json!(measurement), json!(verdict)), "{job}");
    }
    let failed: Value = serde_json::from_str(&playground.job_file("4-dummy-fail", "job.json")).unwrap();
    assert_eq!(failed["execution"]["code"], 3);
    let scanned: Value = serde_json::from_str(&playground.job_file("6-dummy-scan", "job.json")).unwrap();
    assert_eq!(scanned["evidence"]["log"], json!({"error_pattern": "HIP out of memory", "line": 2}));
    assert_eq!(scanned["rows"][0]["performance"], "12");
    assert_eq!(playground.rows().len(), 14);
}

#[test]
fn run_json_has_the_effective_configuration_and_where_it_comes_from() {
    let playground = Playground::with("echo 'performance: 1 x'");
    let file = playground.write("context.json", r#"{"docker_env_vars": {"A": "1"}, "debug": true}"#);
    let text = "{'log_error_patterns': ['BAD']}";
    playground.run(&["--tags", "m", "-f", file.to_str().unwrap(), "-c", text]).exits(0);
    let run: Value =
        serde_json::from_str(&fs::read_to_string(playground.only_run().join("run.json")).unwrap()).unwrap();
    assert_eq!((&run["v"], &run["state"], &run["command"]), (&json!(1), &json!("ended"), &json!("run")));
    assert_eq!(run["models"], json!(["m"]));
    assert_eq!(run["run"], json!(playground.only_run().file_name().unwrap().to_str().unwrap()));
    assert_eq!(run["configuration"]["docker_env_vars"], json!({"A": "1"}));
    assert_eq!(run["configuration"]["rocenv_mode"], "lite");
    let origin = |key: &str| run["origins"][key].as_str().unwrap_or_else(|| panic!("{key} in {run:#}")).to_owned();
    assert!(origin("docker_env_vars.A").contains("context.json"), "{}", origin("docker_env_vars.A"));
    assert!(origin("debug").contains("context.json"));
    assert!(origin("rocenv_mode").starts_with("default"));
    let by_text: Vec<&String> =
        run["origins"].as_object().unwrap().keys().filter(|key| key.starts_with("log_error_patterns")).collect();
    assert_eq!(by_text.len(), 1, "{:#}", run["origins"]);
    assert!(!origin(by_text[0]).starts_with("default"));
    assert_eq!(run["summary"]["total_runs"], 1);
}

#[test]
fn the_trace_names_plugin_digest_call_and_rule() {
    let playground = Playground::with("echo 'performance: 1 x'");
    playground.run(&["--tags", "m"]).exits(0);
    let run = playground.only_run();
    let id = run.file_name().unwrap().to_str().unwrap();
    let records = lines(&fs::read_to_string(run.join("trace.jsonl")).unwrap());
    for record in &records {
        let text = |name: &str| record[name].as_str().unwrap_or_else(|| panic!("{name} in {record}"));
        assert_eq!((&record["v"], text("run"), text("verdict")), (&json!(1), id, "allowed"));
        assert!(text("digest").starts_with("sha256:") && text("digest").len() == 71, "{record}");
        assert!(text("call").contains('.') && text("rule").contains(".toml:"), "{record}");
        assert!(record["scope"].is_object() && record["us"].is_u64(), "{record}");
    }
    let calls = |plugin: &str| -> Vec<&str> {
        records
            .iter()
            .filter(|record| record["plugin"] == plugin)
            .map(|record| record["call"].as_str().unwrap())
            .collect()
    };
    assert!(calls("discover-mad").contains(&"files.read"));
    assert!(calls("target-process").contains(&"process.launch"), "{:?}", calls("target-process"));
    assert!(!calls("report-csv").is_empty());
}

#[test]
fn events_tell_the_story_in_order() {
    let playground = Playground::new();
    run_example(&playground, "dummy,dummy-fail").exits(3);
    let events = lines(&fs::read_to_string(playground.only_run().join("events.jsonl")).unwrap());
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    // What plugins say of this machine may come before.
    let names: Vec<&str> = names.into_iter().filter(|name| *name != "message").collect();
    assert_eq!((names.first(), names.last()), (Some(&"run-started"), Some(&"run-ended")));
    assert!(events.iter().all(|event| event["v"] == 1 && event["time"].is_string()));
    let of = |job: &str| -> Vec<&str> {
        events.iter().filter(|event| event["job"] == job).map(|event| event["event"].as_str().unwrap()).collect()
    };
    for job in ["0-dummy", "1-dummy-fail"] {
        assert_eq!((of(job).first(), of(job).last()), (Some(&"job-started"), Some(&"job-ended")), "{job}");
    }
    let last = events.last().unwrap();
    assert_eq!((&last["succeeded"], &last["failed"]), (&json!(1), &json!(1)));
}

#[test]
fn the_tree_is_not_touched_and_the_work_directory_is_gone() {
    let tree = example_tree();
    let before = contents(&tree);
    let playground = Playground::new();
    run_example(&playground, "quick").exits(0);
    assert!(contents(&tree) == before, "the tree has changed");
    let job = playground.only_run().join("jobs/0-dummy");
    assert!(!names(&job).contains(&"workspace".to_owned()), "{:?}", names(&job));
}

#[test]
fn results_of_the_script_come_to_the_working_directory() {
    let playground = Playground::with("echo a > x_output.csv; echo b > other.txt; echo 'performance: 1 x'");
    playground.run(&["--tags", "m"]).exits(0);
    assert_eq!(playground.read("x_output.csv"), "a\n");
    assert!(!playground.work().join("other.txt").exists());
}

#[test]
fn the_work_directory_stays_where_that_is_asked_for() {
    let playground = Playground::with("echo b > other.txt; echo 'performance: 1 x'");
    playground.run(&["--tags", "m", "--keep-model-dir"]).exits(0);
    assert_eq!(playground.job_file("0-m", "workspace/run_directory/other.txt"), "b\n");
}

#[test]
fn the_results_file_may_be_named_and_its_directory_is_made() {
    let playground = Playground::with("echo 'performance: 1 x'");
    playground.run(&["--tags", "m", "-o", "deep/er/my.csv"]).exits(0);
    assert!(playground.read("deep/er/my.csv").starts_with(COLUMNS));
    assert!(!playground.work().join("perf.csv").exists());
    assert!(playground.work().join("perf_entry.csv").exists(), "the others stay in the working directory");
}

#[test]
fn the_intermediate_files_go_where_that_is_asked_for() {
    let playground = Playground::with("echo 'performance: 1 x'");
    playground.run(&["--tags", "m", "--cleanup-perf"]).exits(0);
    let left: Vec<String> = names(&playground.work()).into_iter().filter(|name| name.starts_with("perf")).collect();
    assert_eq!(left, ["perf.csv", "perf_super.csv", "perf_super.json"]);
}

#[test]
fn results_are_not_written_where_the_context_says_so() {
    let playground = Playground::with("echo 'performance: 1 x'");
    playground.run(&["--tags", "m", "-c", "{'skip_perf_collection': True}"]).exits(0);
    let left: Vec<String> = names(&playground.work()).into_iter().filter(|name| name.starts_with("perf")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn perf_super_grows_and_perf_entry_is_the_latest() {
    let playground = Playground::with("echo 'performance: 5 things'");
    playground.run(&["--tags", "m"]).exits(0);
    playground.run(&["--tags", "m"]).exits(0);
    let read = |name: &str| -> Value { serde_json::from_str(&playground.read(name)).unwrap() };
    assert_eq!(read("perf_super.json").as_array().unwrap().len(), 2);
    assert_eq!(read("perf_entry_super.json").as_array().unwrap().len(), 1);
    let entry = read("perf_entry.json");
    let keys: Vec<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.join(","), format!("{COLUMNS},configs"));
    assert_eq!(playground.read("perf_entry.csv").lines().count(), 2);
}

#[test]
fn the_summary_says_what_succeeded_and_what_failed() {
    let playground = Playground::new();
    let tree = example_tree();
    let answer = playground
        .call(&[
            "run",
            "--target",
            "process",
            "--model-dir",
            tree.to_str().unwrap(),
            "--tags",
            "dummy",
            "dummy-fail",
            "-s",
            "out/summary.json",
            "--format",
            "json",
        ])
        .exits(3);
    let summary: Value = serde_json::from_str(&playground.read("out/summary.json")).unwrap();
    assert_eq!(answer.json(), summary, "stdout has the same object and nothing else");
    assert_eq!(summary["successful_runs"][0]["model"], "dummy");
    assert_eq!(summary["failed_runs"][0]["error"], "it ended with exit code 3");
    assert_eq!((&summary["total_runs"], &summary["session_row_count"]), (&json!(2), &json!(2)));
}

#[test]
fn a_model_may_be_python_or_a_directory() {
    let playground = Playground::new();
    run_example(&playground, "dummy-cpu,dummy-args").exits(0);
    let rows = playground.rows();
    assert_eq!((rows[0]["metric"].as_str(), rows[1]["performance"].as_str()), ("rounds_per_second", "4"));
}
