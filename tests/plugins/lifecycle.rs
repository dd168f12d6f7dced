//! A plugin's way from a file to a run: installed, signed, pinned, verified, updated, removed.

use serde_json::{Value, json};

use crate::component::{ANSWER, arrange, good_launcher, interface, lift, manifest, with_manifest, with_memory};
use crate::place::{Place, Said};

/// A launcher that asks for these calls.
pub fn asking(name: &str, version: &str, requests: Value) -> Vec<u8> {
    let mut manifest = manifest(name, "launcher");
    manifest["version"] = version.into();
    manifest["requests"] = requests;
    with_manifest(lift(&interface(), "launcher-plugin", &with_memory("", &arrange(ANSWER))), &manifest)
}

pub fn reads() -> Value {
    json!([{"calls": ["files.read"], "scope": {"path": ["$run/**"]}, "reason": "reads"}])
}

pub fn reads_and_writes() -> Value {
    json!([{"calls": ["files.read", "files.write"], "scope": {"path": ["$run/**"]}, "reason": "writes, too"}])
}

#[track_caller]
pub fn good(said: Said) -> String {
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout
}

#[track_caller]
pub fn refused(said: Said, code: i32, words: &str) {
    assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(words), "{}", said.stderr);
}

pub fn names(place: &Place, arguments: &[&str]) -> Vec<String> {
    let listed = good(place.maddock(&[&["plugin", "list", "--format", "json"], arguments].concat()));
    let list: Value = serde_json::from_str(&listed).unwrap();
    list.as_array()
        .unwrap()
        .iter()
        .filter(|plugin| plugin["source"] != "built-in")
        .map(|plugin| format!("{} {}", plugin["name"].as_str().unwrap(), plugin["version"].as_str().unwrap()))
        .collect()
}

#[test]
fn an_installed_plugin_is_listed_by_every_later_command_until_it_is_removed() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    assert_eq!(names(&place, &[]), [""; 0]);
    let said = good(place.maddock(&["plugin", "install", "good.wasm"]));
    assert!(said.contains("installed: good 0.1.0 (launcher)"), "{said}");
    std::fs::remove_file(place.path().join("good.wasm")).unwrap();
    assert_eq!(names(&place, &[]), ["good 0.1.0"]);
    let said = good(place.maddock(&["plugin", "inspect", "good"]));
    assert!(said.contains("no signature"), "{said}");
    good(place.maddock(&["plugin", "remove", "good"]));
    assert_eq!(names(&place, &[]), [""; 0]);
    refused(place.maddock(&["plugin", "remove", "good"]), 1, "no plugin `good` is installed");
}

#[test]
fn installing_grants_nothing_and_says_what_would() {
    let place = Place::new();
    place.file("a.wasm", &asking("a", "0.1.0", reads()));
    let said = good(place.maddock(&["plugin", "install", "a.wasm"]));
    for words in
        ["Installing grants nothing", "[[allow]]", "plugin = \"a\"", "digest = \"sha256:", "scope.path = [\"$run/**\"]"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!place.path().join(".config/maddock/policy.toml").exists());
    let said = good(place.maddock(&["plugin", "inspect", "a"]));
    assert!(said.contains("policy: not allowed"), "{said}");
    good(place.maddock(&["plugin", "install", "a.wasm", "--grant"]));
    let written = std::fs::read_to_string(place.path().join(".config/maddock/policy.toml")).unwrap();
    assert!(written.starts_with("schema = 1\n") && written.contains("files.read"), "{written}");
}

#[test]
fn wider_requests_need_consent_and_nobody_is_asked_without_a_terminal() {
    let place = Place::new();
    place.file("a.wasm", &asking("a", "0.1.0", reads()));
    good(place.maddock(&["plugin", "install", "a.wasm"]));
    place.file("a.wasm", &asking("a", "0.2.0", reads_and_writes()));
    let said = place.maddock(&["plugin", "update", "a"]);
    assert!(said.stderr.contains("a 0.2.0 asks for more than the installed version"), "{}", said.stderr);
    refused(said, 5, "not agreed to, and nothing was installed");
    assert_eq!(names(&place, &[]), ["a 0.1.0"]);
    good(place.maddock(&["plugin", "lock"]));
    let said = good(place.maddock(&["plugin", "update", "a", "--accept-requests"]));
    assert!(said.contains("maddock.lock here pins a 0.1.0, which stays in use"), "{said}");
    assert_eq!(names(&place, &[]), ["a 0.1.0"]);
    good(place.maddock(&["plugin", "lock"]));
    assert_eq!(names(&place, &[]), ["a 0.2.0"]);
    std::fs::remove_file(place.path().join("maddock.lock")).unwrap();
    // Fewer requests need nobody.
    place.file("a.wasm", &asking("a", "0.3.0", json!([])));
    good(place.maddock(&["plugin", "update"]));
    assert_eq!(names(&place, &[]), ["a 0.3.0"]);
    assert_eq!(good(place.maddock(&["plugin", "update"])), "nothing new\n");
}

#[test]
fn a_version_of_another_signer_needs_consent() {
    let place = Place::new();
    for key in ["ours", "others"] {
        good(place.maddock(&["plugin", "keygen", key, "--no-password"]));
        good(place.maddock(&["plugin", "trust", &format!("{key}.pub")]));
    }
    let mut bytes = good_launcher("good");
    let mut version = |key: Option<&str>| {
        // Other bytes each time: a section more.
        bytes.extend([0, 2, 1, b'x']);
        place.file("good.wasm", &bytes);
        let _ = std::fs::remove_file(place.path().join("good.wasm.sig"));
        if let Some(key) = key {
            good(place.maddock(&["plugin", "sign", "good.wasm", "--key", key]));
        }
    };
    version(Some("ours"));
    good(place.maddock(&["plugin", "install", "good.wasm"]));
    version(Some("ours"));
    good(place.maddock(&["plugin", "update"]));
    version(Some("others"));
    let said = place.maddock(&["plugin", "update"]);
    assert!(said.stderr.contains("and the installed version by RW"), "{}", said.stderr);
    refused(said, 5, "not agreed to, and nothing was installed");
    version(None);
    refused(place.maddock(&["plugin", "update"]), 5, "is signed by nobody who is trusted");
    good(place.maddock(&["plugin", "update", "--accept-requests"]));
    // From nobody to somebody is no loss.
    version(Some("others"));
    good(place.maddock(&["plugin", "update"]));
}

#[test]
fn of_several_sources_all_are_installed_or_none() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("many")).unwrap();
    place.file("many/a.wasm", &good_launcher("a"));
    place.file("many/b.wasm", b"garbage");
    refused(place.maddock(&["plugin", "install", "many"]), 1, "b.wasm");
    assert_eq!(names(&place, &[]), [""; 0]);
    place.file("many/b.wasm", &good_launcher("b"));
    good(place.maddock(&["plugin", "install", "many"]));
    assert_eq!(names(&place, &[]), ["a 0.1.0", "b 0.1.0"]);
}

#[test]
fn a_lock_pins_a_digest_and_locked_refuses_the_rest() {
    let place = Place::new();
    place.file("a.wasm", &asking("a", "0.1.0", json!([])));
    place.file("b.wasm", &good_launcher("b"));
    refused(place.maddock(&["plugin", "list", "--locked"]), 1, "there is no maddock.lock here");
    good(place.maddock(&["plugin", "install", "a.wasm", "--lock"]));
    place.file("a.wasm", &asking("a", "0.2.0", json!([])));
    good(place.maddock(&["plugin", "install", "a.wasm", "b.wasm"]));
    assert_eq!(names(&place, &[]), ["a 0.1.0", "b 0.1.0"], "the pin counts, not what came last");
    assert_eq!(names(&place, &["--locked"]), ["a 0.1.0"]);
    refused(place.maddock(&["plugin", "list", "--locked", "--plugin", "b.wasm"]), 1, "`b` is not in maddock.lock");
    refused(place.maddock(&["plugin", "list", "--locked", "--plugin", "a.wasm"]), 1, "maddock.lock pins it to");
    good(place.maddock(&["plugin", "lock", "a"]));
    assert_eq!(names(&place, &["--locked"]), ["a 0.2.0"]);
    good(place.maddock(&["plugin", "remove", "a"]));
    refused(place.maddock(&["plugin", "list"]), 1, "which is not installed");
    let said = place.maddock(&["plugin", "verify"]);
    assert!(said.stdout.contains("the lock file pins it, and it is not installed"), "{}", said.stdout);
    refused(said, 1, "1 of 2 are not as they should be");
}

#[test]
fn a_built_in_plugin_is_replaced_by_a_line_of_the_lock_and_by_nothing_else() {
    let place = Place::new();
    place.file("mine.wasm", &good_launcher("launchers"));
    let said = good(place.maddock(&["plugin", "install", "mine.wasm"]));
    assert!(said.contains("bears the name of a built-in plugin and is not used until"), "{said}");
    assert_eq!(names(&place, &[]), [""; 0]);
    good(place.maddock(&["plugin", "lock"]));
    assert_eq!(names(&place, &[]), [""; 0], "a pin is no override");
    good(place.maddock(&["plugin", "lock", "--override", "launchers=launchers"]));
    assert_eq!(names(&place, &[]), ["launchers 0.1.0"]);
    refused(place.maddock(&["plugin", "lock", "--override", "absent=launchers"]), 4, "no built-in plugin `absent`");
    refused(place.maddock(&["plugin", "lock", "--override", "report-csv=launchers"]), 0, "");
    refused(place.maddock(&["plugin", "list"]), 1, "`launchers`, a launcher, in the place of `report-csv`, a reporter");
}

#[test]
fn what_was_changed_in_the_store_is_found_and_never_run() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    good(place.maddock(&["plugin", "install", "good.wasm"]));
    assert!(good(place.maddock(&["plugin", "verify"])).starts_with("ok    good 0.1.0 sha256:"));
    let store = place.path().join(".local/share/maddock/plugins");
    let file = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .unwrap();
    std::fs::write(&file, good_launcher("evil")).unwrap();
    refused(place.maddock(&["plugin", "verify"]), 1, "1 of 1 are not as they should be");
    good(place.maddock(&["plugin", "prune", "--all"]));
    refused(place.maddock(&["plugin", "inspect", "good"]), 1, "was changed: its digest is sha256:");
}

#[test]
fn a_signature_by_a_trusted_key_is_told_pinned_and_demanded() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    good(place.maddock(&["plugin", "keygen", "key", "--no-password"]));
    refused(place.maddock(&["plugin", "keygen", "other"]), 4, "nobody is here to type it");
    good(place.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    let strict = ["plugin", "install", "good.wasm", "--require-signature", "--lock"];
    refused(place.maddock(&strict), 1, "not signed by a trusted key: by key");
    good(place.maddock(&["plugin", "trust", "key.pub", "--name", "me"]));
    let said = good(place.maddock(&strict));
    assert!(said.contains("signed  by `me` (RW"), "{said}");
    good(place.maddock(&["plugin", "verify", "--require-signature"]));
    let lock = std::fs::read_to_string(place.path().join("maddock.lock")).unwrap();
    assert!(lock.contains("signer = \"RW"), "{lock}");
    // The same component without its signature is not what the lock has.
    std::fs::remove_file(place.path().join("good.wasm.sig")).unwrap();
    good(place.maddock(&["plugin", "install", "good.wasm"]));
    refused(place.maddock(&["plugin", "list"]), 1, "is signed by nobody");
    let mut other = good_launcher("good");
    other.extend([0, 2, 1, b'x']);
    good(place.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    place.file("good.wasm", &other);
    refused(place.maddock(&["plugin", "install", "good.wasm"]), 1, "does not fit the bytes");
}

#[test]
fn a_bundle_brings_plugins_and_signatures_and_trusts_itself_in_nothing() {
    let (from, to) = (Place::new(), Place::new());
    from.file("good.wasm", &good_launcher("good"));
    good(from.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(from.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    good(from.maddock(&["plugin", "trust", "key.pub", "--name", "me"]));
    good(from.maddock(&["plugin", "install", "good.wasm", "--lock"]));
    let said = good(from.maddock(&["plugin", "bundle", "out.tar"]));
    for file in ["keys/me.pub", "maddock.lock", ".wasm.sig"] {
        assert!(said.contains(file), "{file}: {said}");
    }
    let bytes = std::fs::read(from.path().join("out.tar")).unwrap();
    to.file("in.tar", &bytes);
    refused(to.maddock(&["plugin", "install", "in.tar", "--require-signature"]), 1, "not signed by a trusted key");
    assert_eq!(names(&to, &[]), [""; 0]);
    good(to.maddock(&["plugin", "trust", &from.path().join("key.pub").display().to_string()]));
    let said = good(to.maddock(&["plugin", "install", "in.tar", "--require-signature"]));
    assert!(said.contains("signed  by `key`"), "{said}");
    let mut changed = bytes.clone();
    let at = changed.windows(9).rposition(|window| window == b"launcher\"").unwrap();
    changed[at] ^= 1;
    to.file("changed.tar", &changed);
    refused(to.maddock(&["plugin", "install", "changed.tar"]), 1, "was changed");
}

#[test]
fn the_cache_serves_many_at_once_and_is_pruned_of_what_nobody_needs() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    place.file("other.wasm", &good_launcher("other"));
    let compiled = || {
        let entries = std::fs::read_dir(place.path().join(".cache/maddock/components")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".cwasm")).count()
    };
    std::thread::scope(|scope| {
        let inspect = || place.maddock(&["plugin", "inspect", "./good.wasm"]);
        let running: Vec<_> = (0..6).map(|_| scope.spawn(inspect)).collect();
        good(place.maddock(&["plugin", "prune", "--all"]));
        running.into_iter().for_each(|one| drop(good(one.join().unwrap())));
    });
    good(place.maddock(&["plugin", "install", "good.wasm", "other.wasm"]));
    assert_eq!(compiled(), 2);
    good(place.maddock(&["plugin", "prune"]));
    assert_eq!(compiled(), 2);
    good(place.maddock(&["plugin", "remove", "other"]));
    assert!(good(place.maddock(&["plugin", "prune"])).starts_with("removed 2 files"));
    assert_eq!(compiled(), 1);
    assert!(good(place.maddock(&["plugin", "prune", "--all"])).starts_with("removed 2 files"));
    assert_eq!(compiled(), 0);
    good(place.maddock(&["plugin", "inspect", "good"]));
}

#[test]
fn a_plugin_that_traps_does_not_conform() {
    let place = Place::new();
    let bytes = crate::component::launcher_that("trapper", "unreachable");
    place.file("trapper.wasm", &bytes);
    let said = place.maddock(&["plugin", "test", "./trapper.wasm"]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("ok    it loads as it would in a run"), "{}", said.stdout);
    assert!(said.stdout.contains("FAIL  no nodes: it answers, and does not trap"), "{}", said.stdout);
}

#[test]
fn a_plugin_that_calls_its_refusal_something_else_does_not_conform() {
    // Asks for the host's name, and answers an error of the kind `invalid-input` whatever comes.
    let import = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func $hostname (param i32)))";
    let answer = format!(
        "(call $hostname (i32.const 4096)) (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const 3)) {ANSWER}"
    );
    let place = Place::new();
    place.file("liar.wasm", &crate::component::launcher("liar", import, "(data (i32.const 2048) \"bad\")", &answer));
    let said = place.maddock(&["plugin", "test", "./liar.wasm"]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    let faults: Vec<&str> = said.stdout.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(!faults.is_empty() && faults.iter().all(|line| line.contains("not of the kind `denied`")), "{faults:?}");
}
