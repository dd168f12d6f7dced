//! Arguments are words: what a card, a tag or the context says reaches the script literally, whatever it looks like.

use serde_json::{Value, json};

use crate::playground::{Answer, Playground};

/// Writes its arguments where the test finds them, each ended by a zero byte.
fn echoing(args: &str) -> Playground {
    let mut playground = Playground::new();
    playground.model(
        "m",
        json!({"args": args}),
        "if [ $# -gt 0 ]; then printf '%s\\0' \"$@\"; fi > args_output.csv; echo 'performance: 1 x'",
    );
    playground
}

fn received(playground: &Playground) -> Vec<String> {
    let bytes = playground.read("args_output.csv");
    bytes.split_terminator('\0').map(str::to_owned).collect()
}

#[track_caller]
fn arrives(args: &str, expected: &[&str]) -> Answer {
    let playground = echoing(args);
    let answer = playground.run(&["--tags", "m"]).exits(0);
    assert_eq!(received(&playground), expected, "{args}");
    assert_eq!(playground.rows()[0]["args"], args, "the row has them as they were written");
    answer
}

#[test]
fn words_are_split_as_a_shell_splits_them() {
    arrives("", &[]);
    arrives("  --a   1\t--b ", &["--a", "1", "--b"]);
    arrives(
        "--label 'two words' \"and \\\"quoted\\\"\" back\\ slash ''",
        &["--label", "two words", "and \"quoted\"", "back slash", ""],
    );
}

#[test]
fn nothing_is_expanded_and_that_is_said_once() {
    let hostile = "$(id) `id` $HOME ${PATH} * ~ a;id a|id a&id >out <in !! {a,b}";
    let expected: Vec<&str> = hostile.split(' ').collect();
    let answer = arrives(hostile, &expected);
    assert_eq!(answer.stderr.matches("warning: m:").count(), 1, "{answer:#?}");
}

#[test]
fn words_with_dashes_are_no_options_of_anybody() {
    arrives("-c id -- --help -- -", &["-c", "id", "--", "--help", "--", "-"]);
}

#[test]
fn line_ends_and_other_alphabets_arrive() {
    arrives("'one\ntwo' 'größer ∞ 日本 🚀' '\t' '\u{202e}odd'", &["one\ntwo", "größer ∞ 日本 🚀", "\t", "\u{202e}odd"]);
}

#[test]
fn quotes_that_do_not_end_fail_the_model_with_its_name() {
    let playground = echoing("--label 'open");
    playground.run(&["--tags", "m"]).exits(3).says(&["FAILURE m", "arguments of model `m`"]);
}

#[test]
fn arguments_of_tags_are_words_too() {
    let playground = echoing("--a 1");
    playground.run(&["--tags", "m:x=$(id):flag:y='two words'"]).exits(0);
    assert_eq!(received(&playground), ["--a", "1", "--x", "$(id)", "--flag", "--y", "two words"]);
    let playground = echoing("");
    playground.run(&["--tags", "m:x='one\ntwo':y=`id`"]).exits(0);
    assert_eq!(received(&playground), ["--x", "one\ntwo", "--y", "`id`"]);
}

#[test]
fn arguments_of_the_context_replace_those_of_the_card_but_not_in_the_row() {
    let playground = echoing("--a 1");
    let context = json!({"model_args": "--other \"it's\" $(id)"}).to_string();
    playground.run(&["--tags", "m", "-c", &context]).exits(0);
    assert_eq!(received(&playground), ["--other", "it's", "$(id)"]);
    assert_eq!(playground.rows()[0]["args"], "--a 1");
}

#[test]
fn hostile_variables_arrive_as_they_are() {
    let values = ["$(id)", "it's \"quoted\"", "line\nline", "`id`; exit 9", "größer 🚀", "-n", " ", "a\\b\\"];
    let mut playground = Playground::new();
    let script = "for i in 0 1 2 3 4 5 6 7; do name=V$i; printf '%s\\0' \"${!name}\"; done > v_output.csv; echo 'performance: 1 x'";
    playground.model("m", json!({}), script);
    let variables: serde_json::Map<String, Value> =
        values.iter().enumerate().map(|(i, value)| (format!("V{i}"), json!(value))).collect();
    playground.run(&["--tags", "m", "-c", &json!({"docker_env_vars": variables}).to_string()]).exits(0);
    let text = playground.read("v_output.csv");
    assert_eq!(text.split_terminator('\0').collect::<Vec<_>>(), values);
}

#[test]
fn a_variable_with_an_impossible_name_fails_before_the_model_begins() {
    let mut playground = Playground::new();
    let mark = playground.note("ran");
    playground.model("m", json!({}), &format!("touch {}", mark.display()));
    for name in ["A B", "A;id", "1A", "A=B", "a-b", "é"] {
        let context = json!({"docker_env_vars": {name: "x"}}).to_string();
        let answer = playground.run(&["--tags", "m", "-c", &context]);
        assert!(matches!(answer.code, Some(3 | 4)), "{name}: {answer:#?}");
        assert!(answer.stderr.contains(name), "{name}: {answer:#?}");
        assert!(!mark.exists(), "{name}");
    }
}

#[test]
fn names_of_models_and_directories_may_hold_blanks_quotes_and_dashes() {
    for name in ["two words", "it's", "$(id)", "-rf", "größe", "a.b"] {
        let mut playground = Playground::new();
        playground.model(name, json!({"tags": ["this"]}), "echo \"performance: 1 $MAD_MODEL_NAME\"; pwd");
        playground.run(&["--tags", "this"]).exits(0);
        assert_eq!(playground.rows()[0]["model"], name);
    }
}

#[test]
fn a_working_directory_with_blanks_quotes_and_a_line_end_is_fine() {
    let playground = Playground::with("echo a > x_output.csv; echo 'performance: 1 x'");
    let odd = playground.work().join("it's a $(id) \"place\"\nreally");
    std::fs::create_dir(&odd).unwrap();
    let mut command = playground.run_command();
    crate::playground::answer(command.args(["--tags", "m"]).current_dir(&odd)).exits(0);
    assert_eq!(std::fs::read_to_string(odd.join("x_output.csv")).unwrap(), "a\n");
    assert!(odd.join("perf.csv").exists());
}

#[test]
fn an_encapsulating_script_is_a_shell_fragment_by_contract() {
    let playground = echoing("--a 1");
    let context = json!({"encapsulate_script": "echo cmd_A && "}).to_string();
    playground.run(&["--tags", "m", "-c", &context]).exits(0);
    assert!(playground.read("m_process.run.live.log").contains("cmd_A\n"));
    assert_eq!(received(&playground), ["--a", "1"]);
}

#[test]
fn output_with_terminal_codes_is_no_command_to_the_terminal() {
    let playground = Playground::with("printf '\\033]0;title\\007\\033[31mred\\n'; echo 'performance: 1 \u{1b}[31mx'");
    let answer = playground.run(&["--tags", "m"]).exits(0);
    assert!(!answer.stdout.contains('\u{1b}') && !answer.stderr.contains('\u{1b}'), "{answer:#?}");
}

#[test]
fn cells_that_csv_must_quote_come_back_as_they_were() {
    let mut playground = Playground::new();
    let odd = "a, \"b\"";
    playground.model("m", json!({"training_precision": odd, "tags": ["x,y", "z"]}), "echo 'performance: 1 x'");
    playground.run(&["--tags", "m"]).exits(0);
    assert_eq!(playground.rows()[0]["training_precision"], odd);
    assert!(playground.read("perf.csv").contains("\"a, \"\"b\"\"\""));
}
