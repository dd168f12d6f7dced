//! Traps, and answers that are none.

use crate::component::{ANSWER, good_launcher, launcher, launcher_that};
use crate::place::Place;

const RULES: &str = "failed in `launcher.arrange`: it broke the rules of the interface: ";

#[tokio::test]
async fn a_plugin_that_traps_is_named_with_its_function_and_takes_nothing_along() {
    let place = Place::new();
    let said = place.failure(&launcher_that("broken", "unreachable")).await;
    assert_eq!(
        said,
        "plugin `broken` failed in `launcher.arrange`: wasm trap: wasm `unreachable` instruction executed"
    );
    assert_eq!(place.arrange(&good_launcher("good")).await.unwrap().name, "good");
}

#[tokio::test]
async fn a_plugin_that_divides_by_zero_is_named_with_its_function() {
    let said = Place::new().failure(&launcher_that("divides", "(i32.div_u (i32.const 1) (i32.const 0))")).await;
    assert_eq!(said, "plugin `divides` failed in `launcher.arrange`: wasm trap: integer divide by zero");
}

#[tokio::test]
async fn the_host_never_shows_its_own_stack() {
    let said = Place::new().failure(&launcher_that("broken", "unreachable")).await;
    for word in ["backtrace", "wasmtime", ".rs:", "0x"] {
        assert!(!said.contains(word), "{said}");
    }
}

/// A launcher that succeeds with a name at an address of that length.
fn naming(plugin: &str, address: u32, length: u32, memory: &str) -> Vec<u8> {
    let answer =
        format!("(i32.store (i32.const 1028) (i32.const {address})) (i32.store (i32.const 1032) (i32.const {length}))");
    launcher(plugin, "", memory, &format!("{answer} {ANSWER}"))
}

#[tokio::test]
async fn an_answer_that_is_not_utf_8_fails_its_call() {
    let said = Place::new().failure(&naming("bytes", 2048, 4, "(data (i32.const 2048) \"ok\\ff\\fe\")")).await;
    assert_eq!(
        said,
        "plugin `bytes` failed in `launcher.arrange`: it broke the rules of the interface: invalid utf-8 sequence of 1 bytes from index 2"
    );
}

#[tokio::test]
async fn a_string_outside_of_the_memory_fails_its_call() {
    let place = Place::new();
    for (address, length) in [(0x7fff_0000, 16), (2048, 0x7fff_ffff), (0xffff_fff0, 64)] {
        let said = place.failure(&naming("outside", address, length, "")).await;
        assert!(
            said.starts_with("plugin `outside` failed in `launcher.arrange`: it broke the rules of the interface: ")
                && said.contains("out of bounds"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_list_outside_of_the_memory_fails_its_call() {
    // The roles: address and length follow those of the name.
    let answer = "(i32.store (i32.const 1036) (i32.const 4096)) (i32.store (i32.const 1040) (i32.const 0x7fffffff))";
    let said = Place::new().failure(&launcher_that("lists", &format!("{answer} {ANSWER}"))).await;
    assert!(
        said.starts_with("plugin `lists` failed in `launcher.arrange`: it broke the rules of the interface: "),
        "{said}"
    );
}

#[tokio::test]
async fn a_list_that_is_not_aligned_fails_its_call() {
    let answer = "(i32.store (i32.const 1036) (i32.const 4097)) (i32.store (i32.const 1040) (i32.const 1))";
    let said = Place::new().failure(&launcher_that("crooked", &format!("{answer} {ANSWER}"))).await;
    assert!(
        said.starts_with("plugin `crooked` failed in `launcher.arrange`: it broke the rules of the interface: ")
            && said.contains("align"),
        "{said}"
    );
}

#[tokio::test]
async fn an_answer_that_is_neither_success_nor_error_fails_its_call() {
    let said = Place::new()
        .failure(&launcher_that("neither", &format!("(i32.store8 (i32.const 1024) (i32.const 7)) {ANSWER}")))
        .await;
    assert!(
        said.starts_with("plugin `neither` failed in `launcher.arrange`: it broke the rules of the interface: "),
        "{said}"
    );
}

#[tokio::test]
async fn an_error_of_a_kind_that_does_not_exist_fails_its_call() {
    let answer = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 200))";
    let said = Place::new().failure(&launcher_that("kinds", &format!("{answer} {ANSWER}"))).await;
    assert!(
        said.starts_with("plugin `kinds` failed in `launcher.arrange`: it broke the rules of the interface: "),
        "{said}"
    );
}

#[tokio::test]
async fn an_answer_at_an_address_outside_of_the_memory_fails_its_call() {
    let place = Place::new();
    for address in ["-4", "0x7ffffffc", "1025"] {
        let said = place.failure(&launcher_that("nowhere", &format!("i32.const {address}"))).await;
        assert!(said.starts_with(&format!("plugin `nowhere` {RULES}")), "{said}");
    }
}

#[tokio::test]
async fn an_allocator_that_answers_nonsense_fails_the_call_that_needs_it() {
    // The host asks it for room for the topology.
    let module = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const -16)"#
        .to_owned()
        + &crate::component::arrange("unreachable")
        + ")";
    let component = crate::component::lift(&crate::component::interface(), "launcher-plugin", &module);
    let bytes = crate::component::with_manifest(component, &crate::component::manifest("allocates", "launcher"));
    let said = Place::new().failure(&bytes).await;
    assert!(
        said.starts_with("plugin `allocates` failed in `launcher.arrange`: it broke the rules of the interface: "),
        "{said}"
    );
}

#[tokio::test]
async fn an_answer_that_repeats_one_long_string_does_not_fill_the_hosts_memory() {
    // 4,096 warnings, each of them the same 16 MiB: 64 GiB, from 17 MiB of the plugin's own.
    let body = format!(
        "(local $i i32)
        (drop (memory.grow (i32.const 258)))
        (loop $next
            (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $i) (i32.const 3))) (i32.const 131072))
            (i32.store (i32.add (i32.const 65540) (i32.shl (local.get $i) (i32.const 3))) (i32.const 0x1000000))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 4096))))
        (i32.store (i32.const 1044) (i32.const 65536))
        (i32.store (i32.const 1048) (i32.const 4096))
        {ANSWER}"
    );
    let said = Place::new().failure(&launcher_that("repeats", &body)).await;
    assert!(
        said.starts_with("plugin `repeats` failed in `launcher.arrange`: it broke the rules of the interface: "),
        "{said}"
    );
}

#[tokio::test]
async fn what_a_plugin_says_of_its_own_failure_cannot_drive_a_terminal() {
    // `failed`, with a message and a hint.
    let answer = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 8))
        (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const 16))
        (i32.store8 (i32.const 1048) (i32.const 1))
        (i32.store (i32.const 1052) (i32.const 2048)) (i32.store (i32.const 1056) (i32.const 16))";
    let text = "(data (i32.const 2048) \"a\\1b[2Jb\\0d\\0ac\\c2\\9bd\\e2\\80\\aee\")";
    let said = Place::new().failure(&launcher("paints", "", text, &format!("{answer} {ANSWER}"))).await;
    assert_eq!(said, "paints: a\u{fffd}[2Jb c\u{fffd}d\u{fffd}e");
}
