//! What a call may use up, and that reaching it ends that call and nothing else.

use std::time::Duration;

use maddock::capability::events::PluginEvent;
use maddock::capability::policy::{Level, Policy};
use maddock::plugin::{Ceilings, Session};
use tokio::sync::mpsc;

use crate::component::{ANSWER, good_launcher, launcher, launcher_that};
use crate::place::{Place, sentence, topology};

const SHORT: Duration = Duration::from_millis(200);
const FOREVER: &str = "(loop $again (br $again)) unreachable";

#[tokio::test]
async fn a_plugin_that_loops_is_ended_by_name_while_others_go_on() {
    let place = Place::new();
    let session = place.session_of(SHORT);
    let (looping, good) = (place.load(&launcher_that("looping", FOREVER)), place.load(&good_launcher("good")));
    let (topology, mut order) = (topology(), std::sync::Mutex::new(Vec::new()));
    // One thread: the good one answers only because the other yields to it.
    let (ended, answered) = tokio::join!(
        async {
            let answer = looping.arrange(&session, &topology).await;
            order.lock().unwrap().push("looping");
            answer
        },
        async {
            let answer = good.arrange(&session, &topology).await;
            order.lock().unwrap().push("good");
            answer
        }
    );
    assert_eq!(order.get_mut().unwrap(), &["good", "looping"]);
    assert_eq!(answered.unwrap().name, "good");
    assert_eq!(
        sentence(ended),
        "plugin `looping` failed in `launcher.arrange`: it computed for more than 0.2 s, the ceiling of one call"
    );
    assert_eq!(good.arrange(&session, &topology).await.unwrap().name, "good");
    let again = sentence(looping.arrange(&session, &topology).await);
    assert!(again.contains("it computed for more than 0.2 s"), "a second call is a call like the first: {again}");
}

#[tokio::test]
async fn a_plugin_that_loops_while_it_is_made_is_ended_too() {
    let place = Place::new();
    let start = format!("(func $begin {FOREVER}) (start $begin)");
    let plugin = place.load(&launcher("begins", "", &start, ANSWER));
    let said = sentence(plugin.arrange(&place.session_of(SHORT), &topology()).await);
    assert!(
        said.starts_with("plugin `begins` failed in `launcher.arrange`: it computed for more than 0.2 s"),
        "{said}"
    );
}

#[tokio::test]
async fn a_plugin_that_loops_after_its_answer_is_ended_too() {
    let place = Place::new();
    let after =
        r#"(func (export "cabi_post_maddock:plugin/launcher@0.1.0#arrange") (param i32) (loop $again (br $again)))"#;
    let plugin = place.load(&launcher("lingers", "", after, ANSWER));
    let said = sentence(plugin.arrange(&place.session_of(SHORT), &topology()).await);
    assert!(
        said.starts_with("plugin `lingers` failed in `launcher.arrange`: it computed for more than 0.2 s"),
        "{said}"
    );
}

#[tokio::test]
async fn a_wall_clock_limit_below_a_second_is_told_as_it_is() {
    let place = Place::new();
    let session = place.session().within(Some(SHORT));
    let said = sentence(place.load(&launcher_that("late", FOREVER)).arrange(&session, &topology()).await);
    assert_eq!(said, "plugin `late` failed in `launcher.arrange`: no answer within 0.2 s");
}

/// A session whose calls may have one mebibyte.
fn tight(place: &Place) -> Session {
    Session { ceilings: Ceilings { memory: 1 << 20, ..Ceilings::default() }, ..place.session() }
}

const MEMORY: &str = "it asked for more than 1048576 bytes of memory, the ceiling of one call";

#[tokio::test]
async fn a_plugin_that_grows_its_memory_without_bound_is_ended_at_the_ceiling() {
    let place = Place::new();
    let plugin = place
        .load(&launcher_that("greedy", "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) unreachable"));
    let said = sentence(plugin.arrange(&tight(&place), &topology()).await);
    assert_eq!(said, format!("plugin `greedy` failed in `launcher.arrange`: {MEMORY}"));
    assert_eq!(place.arrange(&good_launcher("good")).await.unwrap().name, "good");
}

#[tokio::test]
async fn a_plugin_that_starts_with_more_memory_than_the_ceiling_is_not_started() {
    let place = Place::new();
    let module = "(module (memory (export \"memory\") 32) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)"
        .to_owned()
        + &crate::component::arrange("unreachable")
        + ")";
    let component = crate::component::lift(&crate::component::interface(), "launcher-plugin", &module);
    let plugin =
        place.load(&crate::component::with_manifest(component, &crate::component::manifest("large", "launcher")));
    let said = sentence(plugin.arrange(&tight(&place), &topology()).await);
    assert_eq!(said, format!("plugin `large` failed in `launcher.arrange`: {MEMORY}"));
}

#[tokio::test]
async fn tables_count_as_memory() {
    let place = Place::new();
    let grow = "(loop $again (drop (table.grow $table (ref.null func) (i32.const 1024))) (br $again)) unreachable";
    let plugin = place.load(&launcher("tables", "", "(table $table 0 funcref)", grow));
    let said = sentence(plugin.arrange(&tight(&place), &topology()).await);
    assert_eq!(said, format!("plugin `tables` failed in `launcher.arrange`: {MEMORY}"));
}

#[tokio::test]
async fn several_memories_share_one_ceiling() {
    let place = Place::new();
    // Sixteen memories of 128 KiB, each far below a ceiling of 1 MiB.
    let memories = "(memory 2)".repeat(16);
    let plugin = place.load(&launcher("many", "", &memories, ANSWER));
    let said = sentence(plugin.arrange(&tight(&place), &topology()).await);
    assert_eq!(said, format!("plugin `many` failed in `launcher.arrange`: {MEMORY}"));
}

#[tokio::test]
async fn a_plugin_that_exhausts_its_stack_is_ended_by_name() {
    let place = Place::new();
    let deeper = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    let said = place.failure(&launcher("deep", "", deeper, "(call $deeper (i32.const 0))")).await;
    assert_eq!(said, "plugin `deep` failed in `launcher.arrange`: wasm trap: call stack exhausted");
}

/// `events.log` with a message of that many bytes, again and again.
fn flood(bytes: u32) -> Vec<u8> {
    let log = "(import \"maddock:plugin/events@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))";
    let again = format!(
        "(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const {bytes}) (i32.const 0) (i32.const 0)) (br $again)) unreachable"
    );
    launcher("talker", log, "", &again)
}

#[tokio::test]
async fn a_plugin_that_floods_the_log_is_ended_at_the_log_ceiling() {
    let place = Place::new();
    let session = Session { ceilings: Ceilings { log: 64 << 10, ..Ceilings::default() }, ..place.session() };
    let said = sentence(place.load(&flood(1000)).arrange(&session, &topology()).await);
    assert_eq!(
        said,
        "plugin `talker` failed in `launcher.arrange`: it told more than 65536 bytes, the ceiling of one call"
    );
}

#[tokio::test]
async fn empty_messages_reach_the_log_ceiling_too_and_a_listener_hears_no_more_than_it_allows() {
    let place = Place::new();
    let (events, mut heard) = mpsc::channel(16);
    let ceilings = Ceilings { log: 64 << 10, ..Ceilings::default() };
    let session = Session { ceilings, ..place.session() }.telling(events);
    let (plugin, topology) = (place.load(&flood(0)), topology());
    let listen = async {
        let mut lines = 0_u32;
        while let Some(event) = heard.recv().await {
            assert!(matches!(event, PluginEvent::Log { .. }));
            lines += 1;
        }
        lines
    };
    let call = async {
        let session = session;
        plugin.arrange(&session, &topology).await
    };
    let (ended, lines) = tokio::join!(call, listen);
    assert!(sentence(ended).ends_with("it told more than 65536 bytes, the ceiling of one call"));
    assert!((1..=64 << 10).contains(&lines), "{lines}");
}

/// Asks for the name of the host twenty times, whatever the answer, and computes on.
fn asks_often() -> Vec<u8> {
    let import = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func $hostname (param i32)))";
    launcher("asker", import, "", &format!("{}{FOREVER}", "(call $hostname (i32.const 1024)) ".repeat(20)))
}

#[tokio::test]
async fn a_plugin_that_asks_too_often_is_ended_at_the_ceiling_of_host_calls() {
    let place = Place::new();
    let session = Session { ceilings: Ceilings { host_calls: 10, ..Ceilings::default() }, ..place.session() };
    let said = sentence(place.load(&asks_often()).arrange(&session, &topology()).await);
    assert_eq!(
        said,
        "plugin `asker` failed in `launcher.arrange`: it made more than 10 host calls, the ceiling of one call"
    );
}

#[tokio::test]
async fn policy_lowers_the_ceilings_of_a_call_and_never_raises_them() {
    let limits = "schema = 1\n[[limits]]\nplugin = \"looping\"\nprocessor = 0.1\n[[limits]]\nplugin = \"*\"\nlog = \"100 GiB\"\n";
    let place = Place::new();
    let below = || {
        let policy = Policy::shipped(place.roots()).and_then(|policy| policy.with_layer(Level::User, "user", limits));
        place.session_under(policy.unwrap())
    };
    let said = sentence(place.load(&launcher_that("looping", FOREVER)).arrange(&below(), &topology()).await);
    assert!(said.contains("it computed for more than 0.1 s"), "{said}");
    let session = Session { ceilings: Ceilings { log: 64 << 10, ..Ceilings::default() }, ..below() };
    let said = sentence(place.load(&flood(1000)).arrange(&session, &topology()).await);
    assert!(said.contains("it told more than 65536 bytes"), "{said}");
}

/// A launcher that asks the host for something about a file, again and again, with names of the file that get shorter.
fn uses_files(name: &str, file: &str, import: &str, call: &str) -> Vec<u8> {
    let imports = format!("(import \"maddock:plugin/files@0.1.0\" {import})");
    let data = format!("(data (i32.const 2048) \"{file}\") (global $length (mut i32) (i32.const {}))", file.len());
    let shorter = "(global.set $length (i32.sub (global.get $length) (i32.const 1)))";
    launcher(name, &imports, &data, &format!("(loop $again {call} {shorter} (br $again)) unreachable"))
}

/// Of the layer that a test adds: one limit for everybody, and leave for one plugin to use files.
fn limited(place: &Place, plugin: &maddock::plugin::Plugin, limit: &str) -> Session {
    let digest = &plugin.loaded().identity.digest;
    let text = format!(
        "schema = 1\n[[limits]]\nplugin = \"*\"\n{limit}\n[[allow]]\nplugin = \"*\"\ndigest = \"{digest}\"\ncalls = [\"files.read-head\", \"files.lock\"]\nscope.path = [\"$tree/**\"]\n"
    );
    let policy = Policy::shipped(place.roots()).and_then(|policy| policy.with_layer(Level::User, "user", &text));
    place.session_under(policy.unwrap())
}

#[tokio::test]
async fn each_limit_of_a_policy_ends_the_call_that_reaches_it_and_says_which() {
    let place = Place::new();
    let path = place.file("zzzzzzzzzzzz", &vec![0; 70_000]).display().to_string();
    for shorter in 1..12 {
        std::fs::hard_link(&path, &path[..path.len() - shorter]).unwrap();
    }
    let reads = uses_files(
        "p",
        &path,
        "\"read-head\" (func $read (param i32 i32 i64 i32))",
        "(global.set $next (i32.const 65536))
         (call $read (i32.const 2048) (global.get $length) (i64.const 40000) (i32.const 1024))",
    );
    let locks = uses_files(
        "p",
        &path,
        "\"lock\" (func $lock (param i32 i32 i32 i32))",
        "(call $lock (i32.const 2048) (global.get $length) (i32.const 0) (i32.const 1024))",
    );
    let grows = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) unreachable";
    let cases = [
        ("memory = \"1 MiB\"", launcher_that("p", grows), "it asked for more than 1048576 bytes of memory"),
        ("processor = 0.1", launcher_that("p", FOREVER), "it computed for more than 0.1 s"),
        ("time = 0.1", launcher_that("p", FOREVER), "no answer within 0.1 s"),
        ("log = \"64 KiB\"", flood(1000), "it told more than 65536 bytes"),
        ("transfer = \"100 KB\"", reads, "it moved more than 100000 bytes"),
        ("host-calls = 7", asks_often(), "it made more than 7 host calls"),
        ("instances = 3", launcher("p", "", &"(memory 0)".repeat(4), ANSWER), "it consists of more than 3 instances"),
        ("handles = 2", locks, "it held more than 2 things of the host at once"),
    ];
    for (limit, plugin, expected) in cases {
        // Each is another component of the same name, and an engine remembers by name.
        let aside = Place::new();
        let plugin = aside.load(&plugin);
        let said = sentence(plugin.arrange(&limited(&place, &plugin, limit), &topology()).await);
        assert!(said.contains(expected), "{limit}: {said}");
    }
}
