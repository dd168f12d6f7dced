//! What plugins that are not built in may do: nothing, and they are told so.

use maddock::plugin::PluginError;

use crate::component::{ANSWER, good_launcher, launcher};
use crate::place::{Place, sentence};

/// A launcher that answers whatever `facts.hostname` answers: success and error lie in memory as its own answer does.
pub fn curious(name: &str) -> Vec<u8> {
    let import = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func $hostname (param i32)))";
    launcher(name, import, "", "(call $hostname (i32.const 1024)) i32.const 1024")
}

#[tokio::test]
async fn a_host_call_of_a_third_party_plugin_is_denied_and_the_plugin_is_told() {
    let answer = Place::new().arrange(&curious("curious")).await;
    assert!(answer.as_ref().is_err_and(PluginError::is_denied), "{answer:?}");
    let error = answer.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("facts.hostname")), "{error:?}");
    assert_eq!(
        error.to_string(),
        "policy refuses plugin `curious` the call `facts.hostname`: no rule allows it (default (deny))"
    );
}

#[tokio::test]
async fn a_file_that_a_third_party_plugin_names_is_not_read() {
    let place = Place::new();
    place.file("secret", b"x");
    let path = place.path().join("secret").display().to_string();
    let import = "(import \"maddock:plugin/files@0.1.0\" \"read\" (func $read (param i32 i32 i64 i32)))";
    let data = format!("(data (i32.const 2048) \"{path}\")");
    let body =
        format!("(call $read (i32.const 2048) (i32.const {}) (i64.const 10) (i32.const 1024)) {ANSWER}", path.len());
    let answer = place.arrange(&launcher("reader", import, &data, &body)).await;
    assert!(answer.as_ref().is_err_and(PluginError::is_denied), "{answer:?}");
    let said = sentence(answer);
    assert!(said.contains("policy refuses plugin `reader` the call `files.read`"), "{said}");
}

#[tokio::test]
async fn a_plugin_cannot_pass_for_another_by_calling_its_error_a_refusal() {
    // `denied`, with a message of its own that names somebody else.
    let answer = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 2))
        (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const 23))";
    let text = "(data (i32.const 2048) \"policy refuses `others`\")";
    let said = Place::new().failure(&launcher("forger", "", text, &format!("{answer} {ANSWER}"))).await;
    assert_eq!(said, "forger: policy refuses `others`");
}

#[test]
fn a_third_party_plugin_with_the_name_of_a_built_in_is_refused() {
    let place = Place::new();
    place.file("mine.wasm", &good_launcher("launchers"));
    let said = place.maddock(&["plugin", "list", "--plugin", "mine.wasm"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert_eq!(said.stderr, "error: plugin `mine.wasm`: manifest: another plugin is called `launchers` already\n");
}

#[test]
fn two_plugins_of_one_name_are_refused() {
    let place = Place::new();
    place.file("one.wasm", &good_launcher("twin"));
    place.file("two.wasm", &good_launcher("twin"));
    let said = place.maddock(&["plugin", "list", "--plugin", "one.wasm", "--plugin", "two.wasm"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert_eq!(said.stderr, "error: plugin `two.wasm`: manifest: another plugin is called `twin` already\n");
}

#[test]
fn what_a_user_grants_belongs_to_a_digest_and_not_to_a_name() {
    let place = Place::new();
    place.file("mine.wasm", &curious("curious"));
    let ask = || place.maddock(&["policy", "explain", "curious", "facts.hostname", "--plugin", "mine.wasm"]);
    let refused = ask();
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    let lines = refused.stdout.split("policy.toml:\n").nth(1).unwrap();
    let policy = place.path().join(".config/maddock/policy.toml");
    std::fs::create_dir_all(policy.parent().unwrap()).unwrap();
    std::fs::write(policy, lines).unwrap();
    let allowed = ask();
    assert_eq!((allowed.code, allowed.stdout.starts_with("allowed by")), (0, true), "{}", allowed.stdout);
    // Another component of that name is another plugin.
    place.file("mine.wasm", &good_launcher("curious"));
    assert_eq!(ask().code, 5);
}
