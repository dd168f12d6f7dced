//! What plugins write to stderr: a panic's message is there, and nothing else may come of it.

use maddock::plugin::{Ceilings, Session};
use wit_parser::Resolve;

use crate::component::{ANSWER, arrange, interface, lift, manifest, with_manifest, with_memory};
use crate::place::{Place, sentence, topology};

/// As much of WASI as it takes to write to stderr.
fn with_stderr() -> Resolve {
    let mut resolve = interface();
    for text in [
        "package wasi:io@0.2.6;
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
        }",
        "package wasi:cli@0.2.6;
        interface stderr {
            use wasi:io/streams@0.2.6.{output-stream};
            get-stderr: func() -> output-stream;
        }",
        "package test:worlds;
        world writes {
            include maddock:plugin/launcher-plugin@0.1.0;
            import wasi:io/streams@0.2.6;
            import wasi:cli/stderr@0.2.6;
        }",
    ] {
        resolve.push_source("wasi.wit", text).unwrap();
    }
    resolve
}

/// A launcher that writes: `$write` takes an address and a length, and traps where the host did not take the bytes.
fn writer(name: &str, data: &str, body: &str) -> Vec<u8> {
    let imports = r#"
        (import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
        (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush"
            (func $flush (param i32 i32 i32 i32)))"#;
    let write = "(func $write (param $at i32) (param $length i32)
        (call $flush (call $stderr) (local.get $at) (local.get $length) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (drop (i32.div_u (i32.const 1) (i32.const 0))))))";
    let module = with_memory(imports, &format!("{data}{write}{}", arrange(body)));
    with_manifest(lift(&with_stderr(), "test:worlds/writes", &module), &manifest(name, "launcher"))
}

/// 400 lines of 100 characters and more: far beyond what is kept, 4,000 bytes at a time.
const TALK: &str = "(local $i i32)
    (loop $again
        (memory.fill (i32.const 4096) (i32.const 46) (i32.const 4000))
        (i32.store8 (i32.const 8095) (i32.const 10))
        (call $write (i32.const 4096) (i32.const 4000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 100))))";

#[tokio::test]
async fn the_last_words_of_a_plugin_that_traps_are_told_in_one_printable_line() {
    let data = "(data (i32.const 2048) \"panicked at x.rs:1:2:\\0abad \\1b[2Jrow\\0a\")";
    let said = Place::new()
        .failure(&writer("panics", data, "(call $write (i32.const 2048) (i32.const 34)) unreachable"))
        .await;
    assert_eq!(
        said,
        "plugin `panics` failed in `launcher.arrange`: wasm trap: wasm `unreachable` instruction executed \
        (panicked at x.rs:1:2:; bad \u{fffd}[2Jrow)"
    );
}

#[tokio::test]
async fn a_talkative_plugin_goes_on_and_the_end_of_what_it_wrote_is_what_is_told() {
    let place = Place::new();
    assert!(place.arrange(&writer("talks", "", &format!("{TALK} {ANSWER}"))).await.is_ok());
    let data = "(data (i32.const 2048) \"last words\\0a\")";
    let said = place
        .failure(&writer("ends", data, &format!("{TALK} (call $write (i32.const 2048) (i32.const 11)) unreachable")))
        .await;
    assert!(said.contains("wasm `unreachable` instruction executed (…..."), "{said}");
    assert!(said.ends_with("; last words)") && said.len() < 1000, "{said}");
}

#[tokio::test]
async fn a_plugin_that_floods_stderr_is_ended_at_the_log_ceiling() {
    let place = Place::new();
    let session = Session { ceilings: Ceilings { log: 100_000, ..Ceilings::default() }, ..place.session() };
    let said =
        sentence(place.load(&writer("floods", "", &format!("{TALK} {ANSWER}"))).arrange(&session, &topology()).await);
    assert!(
        said.starts_with(
            "plugin `floods` failed in `launcher.arrange`: it told more than 100000 bytes, the ceiling of one call"
        ),
        "{said}"
    );
}
