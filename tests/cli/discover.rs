//! `maddock discover`: lists, the grammar of tags, and what is said about a tree that is not as it should be.

use serde_json::{Value, json};

use crate::playground::{Answer, Playground, contents, example_tree, names};

const EVERY: [&str; 12] = [
    "dummy",
    "dummy-multi",
    "dummy-args",
    "dummy-cpu",
    "dummy-fail",
    "dummy-silent",
    "dummy-scan",
    "dummy-slow",
    "scoped/small",
    "scoped/large",
    "dynamic/sequence-128",
    "dynamic/sequence-512",
];

fn discover(words: &[&str]) -> Answer {
    let tree = example_tree();
    let mut all = vec!["discover", "--model-dir", tree.to_str().unwrap()];
    all.extend(words);
    Playground::new().call(&all)
}

fn selected(tags: &[&str]) -> Vec<Value> {
    let answer = discover(&[&["--format", "json", "--tags"], tags].concat()).exits(0);
    assert_eq!(answer.stderr, "", "{answer:#?}");
    answer.json().as_array().unwrap().clone()
}

fn selected_names(tags: &[&str]) -> Vec<String> {
    selected(tags).iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_tags_all_names_are_listed_in_order() {
    let mut expected = "📊 Available Models (12 total):\n".to_owned();
    for name in EVERY {
        expected += &format!("  {name}\n");
    }
    assert_eq!(discover(&[]).exits(0).stdout, expected);
}

#[test]
fn with_tags_the_selected_models_are_printed_in_full() {
    let answer = discover(&["--tags", "dummy"]).exits(0);
    let (title, list) = answer.stdout.split_once('\n').unwrap();
    assert_eq!(title, "📋 Selected Models (1 models):");
    assert!(list.starts_with("[\n    {\n        \"name\": \"dummy\","), "indented by four: {list}");
    let models: Value = serde_json::from_str(list).unwrap();
    assert_eq!(models[0]["dockerfile"], "docker/dummy");
    assert_eq!(models[0]["tags"], json!(["quick", "all-outcomes"]));
}

#[test]
fn json_with_tags_is_one_array_and_nothing_else() {
    let answer = discover(&["--tags", "python", "--format", "json"]).exits(0);
    assert!(answer.stdout.starts_with('[') && answer.stdout.ends_with("]\n"), "{answer:#?}");
    assert_eq!(answer.json()[0]["name"], "dummy-cpu");
    assert_eq!(answer.stderr, "");
}

#[test]
fn json_without_tags_lists_every_model() {
    let list = discover(&["--format", "json"]).exits(0).json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, EVERY);
}

#[test]
fn tags_may_be_separated_by_commas_blanks_and_repetition() {
    let expected = ["dummy", "dummy-cpu", "dummy-multi"];
    assert_eq!(selected_names(&["dummy,dummy-cpu,dummy-multi"]), expected);
    assert_eq!(selected_names(&["dummy", "dummy-cpu", "dummy-multi"]), expected);
    assert_eq!(selected_names(&["dummy", "-t", "dummy-cpu", "--tags", " dummy-multi ,"]), expected);
}

#[test]
fn a_name_a_tag_all_and_a_scope_select() {
    assert_eq!(selected_names(&["dummy-scan"]), ["dummy-scan"]);
    assert_eq!(selected_names(&["failing"]), ["dummy-fail", "dummy-silent", "dummy-scan", "dummy-slow"]);
    assert_eq!(selected_names(&["all"]), EVERY);
    assert_eq!(selected_names(&["scoped/all"]), ["scoped/small", "scoped/large"]);
    assert_eq!(selected_names(&["scoped/quick"]), ["scoped/small", "scoped/large"]);
    assert_eq!(selected_names(&["scoped/large"]), ["scoped/large"]);
    assert_eq!(selected_names(&["dynamic"]), ["dynamic/sequence-128", "dynamic/sequence-512"]);
}

#[test]
fn a_model_that_two_tags_select_is_there_once() {
    assert_eq!(selected_names(&["python", "dummy-cpu", "python"]), ["dummy-cpu"]);
    assert_eq!(selected_names(&["dynamic", "dynamic/sequence-128"]), ["dynamic/sequence-128", "dynamic/sequence-512"]);
}

#[test]
fn arguments_in_a_tag_are_appended_as_options() {
    let models = selected(&["dummy:batch-size=32:in=7:flag"]);
    assert_eq!(models[0]["args"], " --batch-size 32 --in 7 --flag");
    assert_eq!(selected(&["scoped/small:x=1"])[0]["args"], "--size small --x 1");
    let both = selected(&["dummy", "dummy:x=1"]);
    assert_eq!(both.len(), 2, "other arguments make it another model");
}

#[test]
fn paths_of_scoped_models_are_relative_to_the_tree() {
    let model = &selected(&["scoped/small"])[0];
    assert_eq!((&model["dockerfile"], &model["scripts"]), (&json!("docker/dummy"), &json!("scripts/scoped/run.sh")));
}

#[test]
fn dynamic_models_are_completed_when_they_are_selected() {
    let models = selected(&["dynamic", "dynamic/all"]);
    let of = |name: &str| models.iter().map(|model| model[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("args"), ["--length 128", "--length 512"]);
    assert_eq!(of("training_precision"), ["fp16", "bf16"]);
    assert_eq!(of("scripts"), ["scripts/dynamic/run.sh", "scripts/dynamic/run.sh"], "normalised once");
    assert_eq!(models[0].as_object().unwrap().len(), 15, "{:#}", models[0]);
}

#[test]
fn an_unknown_tag_is_an_error_that_names_the_nearest() {
    discover(&["--tags", "dummy", "dumy-cpu"]).exits(1).says(&["`dumy-cpu`", "did you mean `dummy-cpu`"]);
    discover(&["--tags", "small"]).exits(1).says(&["`small`", "`scoped/small`"]);
    let nothing = discover(&["--tags", "zzz"]).exits(1).says(&["error:", "`zzz`", "hint:"]);
    assert_eq!(nothing.stdout, "");
}

#[test]
fn a_tag_of_colons_only_is_an_error() {
    let answer = discover(&["--tags", ":"]).exits(1);
    assert!(answer.stderr.starts_with("error:"), "{answer:#?}");
}

#[test]
fn a_directory_without_models_json_is_an_error_that_says_where_to_look() {
    Playground::new().call(&["discover"]).exits(1).says(&["`models.json`", "--model-dir", "MODEL_DIR"]);
    Playground::new().call(&["discover", "--model-dir", "/nowhere"]).exits(1).says(&["`/nowhere`", "--model-dir"]);
}

#[test]
fn a_tree_without_scripts_has_its_models_all_the_same() {
    let playground = Playground::new();
    playground.write("work/models.json", r#"[{"name": "a", "dockerfile": "d", "scripts": "s.sh"}]"#);
    playground.call(&["discover"]).exits(0).prints(&["(1 total)", "  a\n"]);
    assert_eq!(playground.call(&["discover", "--tags", "a", "--format", "json"]).exits(0).json()[0]["name"], "a");
}

#[test]
fn a_broken_models_json_is_named_with_line_or_entry_and_key() {
    let cases: [(&str, &[&str]); 6] = [
        ("[\n  {\"name\": \"a\",}\n]", &["`models.json`", "line 2", "column 16"]),
        ("{}", &["`models.json`", "an object", "list"]),
        ("[{\"name\": 3}]", &["`models.json`", "entry 1", "`name`", "a number"]),
        ("[{\"name\": \"a\"}, {}]", &["`models.json`", "entry 2", "`name`"]),
        ("[3]", &["`models.json`", "entry 1"]),
        ("[{\"name\": \"a\", \"scripts\": [\"x\"]}]", &["`models.json`", "entry 1", "`scripts`", "`a`", "a list"]),
    ];
    for (text, expected) in cases {
        let playground = Playground::new();
        playground.write("work/models.json", text);
        let answer = playground.call(&["discover", "--tags", "a"]).exits(1).says(expected);
        assert_eq!(answer.stdout, "", "{text}");
    }
}

#[test]
fn a_broken_file_of_a_scope_is_named_by_its_path() {
    let playground = Playground::with("true");
    playground.write("tree/scripts/deep/models.json", "[{\"name\": ]");
    let tree = playground.tree();
    playground.call(&["discover", "--model-dir", tree.to_str().unwrap()]).exits(1).says(&[
        "`scripts/deep/models.json`",
        "line 1",
        "column 11",
    ]);
}

#[test]
fn both_kinds_of_list_in_one_directory_are_an_error() {
    let playground = Playground::with("true");
    playground.write("tree/scripts/twice/models.json", "[]");
    playground.write("tree/scripts/twice/get_models_json.py", "def list_models():\n    return []\n");
    let tree = playground.tree();
    playground.call(&["discover", "--model-dir", tree.to_str().unwrap()]).exits(1).says(&[
        "scripts/twice",
        "models.json",
        "get_models_json.py",
    ]);
}

#[test]
fn a_dynamic_list_that_fails_is_named_with_its_reason() {
    let cases = [
        ("", "list_models"),
        ("def list_models():\n    return [1]\n", "CustomModel"),
        ("def list_models():\n    raise ValueError('no such thing')\n", "no such thing"),
    ];
    for (text, expected) in cases {
        let playground = Playground::with("true");
        playground.write("tree/scripts/own/get_models_json.py", text);
        let tree = playground.tree();
        playground
            .call(&["discover", "--model-dir", tree.to_str().unwrap()])
            .exits(1)
            .says(&["scripts/own/get_models_json.py", expected]);
    }
}

#[test]
fn without_python_dynamic_directories_are_skipped_with_a_reason_and_the_rest_is_listed() {
    let playground = Playground::new();
    let nothing = playground.note("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let answer = crate::playground::answer(
        playground.command().args(["discover", "--model-dir"]).arg(example_tree()).env("PATH", &nothing),
    )
    .exits(0)
    .says(&["warning: skipped `scripts/dynamic", "python3"])
    .prints(&["(10 total)", "  scoped/large\n"]);
    assert!(!answer.stdout.contains("dynamic/"), "{answer:#?}");
}

#[test]
fn a_tree_is_read_in_place_by_option_and_by_variable() {
    let tree = example_tree();
    let before = contents(&tree);
    for by_option in [true, false] {
        let playground = Playground::new();
        let mut command = playground.command();
        command.args(["discover", "--tags", "all", "--format", "json"]);
        if by_option {
            command.arg("--model-dir").arg(&tree);
        } else {
            command.env("MODEL_DIR", &tree);
        }
        let answer = crate::playground::answer(&mut command).exits(0);
        assert_eq!(answer.json().as_array().unwrap().len(), EVERY.len());
        assert_eq!(names(&playground.work()), [""; 0], "nothing is left in the working directory");
    }
    assert!(contents(&tree) == before, "the tree has changed");
}

#[test]
fn the_option_wins_over_the_variable() {
    let playground = Playground::with("true");
    let answer = crate::playground::answer(
        playground.command().args(["discover", "--model-dir"]).arg(playground.tree()).env("MODEL_DIR", example_tree()),
    );
    answer.exits(0).prints(&["(1 total)", "  m\n"]);
}

#[test]
fn an_empty_variable_means_the_working_directory() {
    let playground = Playground::new();
    playground.write("work/models.json", r#"[{"name": "here", "dockerfile": "d", "scripts": "s.sh"}]"#);
    crate::playground::answer(playground.command().arg("discover").env("MODEL_DIR", "")).exits(0).prints(&["  here\n"]);
}
