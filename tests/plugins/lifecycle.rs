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
    let said = place.maddock(&["plugin", "lock", "--override", "report-csv=launchers"]);
    refused(said, 4, "`launchers`, a launcher, cannot be in the place of `report-csv`, a reporter");
    assert_eq!(names(&place, &[]), ["launchers 0.1.0"], "nothing was written");
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

/// The policy of this place's user.
fn policy(place: &Place) -> std::path::PathBuf {
    place.path().join(".config/maddock/policy.toml")
}

#[test]
fn what_no_policy_can_say_is_not_installed() {
    let place = Place::new();
    for (calls, scope, words) in [
        ("files.raed", json!({}), "there is no call `files.raed`"),
        ("files.read", json!({"pahts": ["$run/**"]}), "none of these calls has a scope `pahts`"),
        ("files.read", json!({"path": ["$run/*.csv"]}), "`*` stands for a whole segment"),
        ("files.read", json!({"path": ["@all"]}), "there is no set `all`"),
        ("process.run", json!({"time": ["soon"]}), "`time` is a number"),
    ] {
        let request = json!([{"calls": [calls], "scope": scope, "reason": "why"}]);
        place.file("a.wasm", &asking("a", "0.1.0", request));
        refused(place.maddock(&["plugin", "install", "a.wasm", "--grant"]), 1, words);
        let said = place.maddock(&["plugin", "test", "./a.wasm"]);
        let fault = said.stdout.lines().find(|line| line.starts_with("FAIL  its requests")).unwrap();
        assert!(fault.contains(words), "{fault}");
    }
    assert!(!policy(&place).exists());
    assert_eq!(names(&place, &[]), [""; 0]);
    // A number is written as a ceiling, and what is written is a policy.
    let request = json!([{"calls": ["process.run"], "scope": {"time": ["60"], "program": ["id"]}, "reason": "why"}]);
    place.file("a.wasm", &asking("a", "0.1.0", request));
    good(place.maddock(&["plugin", "install", "a.wasm", "--grant"]));
    let written = std::fs::read_to_string(policy(&place)).unwrap();
    assert!(written.contains("scope.time = { max = 60 }"), "{written}");
    good(place.maddock(&["policy", "check", &policy(&place).display().to_string()]));
}

#[test]
fn a_policy_that_is_broken_is_left_as_it_is_and_nothing_is_installed() {
    let place = Place::new();
    place.file("a.wasm", &asking("a", "0.1.0", reads()));
    std::fs::create_dir_all(policy(&place).parent().unwrap()).unwrap();
    let broken = "schema = 1\nallowed = []\n";
    std::fs::write(policy(&place), broken).unwrap();
    refused(place.maddock(&["plugin", "install", "a.wasm", "--grant"]), 1, "nothing was granted");
    assert_eq!(std::fs::read_to_string(policy(&place)).unwrap(), broken);
    std::fs::remove_file(policy(&place)).unwrap();
    assert_eq!(names(&place, &[]), [""; 0]);
}

#[test]
fn a_grant_that_policy_does_not_honour_is_no_success() {
    let place = Place::new();
    place.file("a.wasm", &asking("a", "0.1.0", reads()));
    place.file("maddock-policy.toml", b"schema = 1\n[[deny]]\nplugin = \"a\"\ncalls = [\"files.*\"]\n");
    let said = good(place.maddock(&["plugin", "install", "a.wasm", "--grant"]));
    assert!(said.contains("policy still refuses:\n  a: `files.read`: "), "{said}");
    assert!(said.contains("maddock-policy.toml:2") && !said.contains("granted what they ask for"), "{said}");
    let said = good(place.maddock(&["plugin", "install", "a.wasm", "--grant", "--format", "json"]));
    let list: Value = serde_json::from_str(&said).unwrap();
    assert!(list[0]["refused"][0].as_str().unwrap().contains("maddock-policy.toml:2"), "{said}");
    std::fs::remove_file(place.path().join("maddock-policy.toml")).unwrap();
    let said = good(place.maddock(&["plugin", "install", "a.wasm", "--grant"]));
    assert!(said.contains("nothing was to be granted that was not granted already"), "{said}");
}

#[test]
fn a_site_that_lets_nobody_grant_is_named_by_a_grant() {
    use crate::ground::{Ground, can_have_a_site};
    if !can_have_a_site() {
        return;
    }
    let ground = Ground::plain().below("schema = 1\n");
    let data = ground.path("data").display().to_string();
    let ground = ground.with("XDG_DATA_HOME", &data);
    std::fs::write(ground.work().join("a.wasm"), asking("a", "0.1.0", reads())).unwrap();
    ground.call(&["plugin", "install", "a.wasm", "--grant"]).exits(0).says(&[
        "wrote what they ask for into",
        "policy still refuses:\n  a: `files.read`",
        "the site's administrator adds to /etc/maddock/policy.toml",
    ]);
}

#[test]
fn an_update_follows_the_version_that_counts_and_nothing_else() {
    let place = Place::new();
    let version = |file: &str, name: &str, version: &str| drop(place.file(file, &asking(name, version, json!([]))));
    version("old.wasm", "a", "0.1.0");
    good(place.maddock(&["plugin", "install", "old.wasm"]));
    version("new.wasm", "a", "0.2.0");
    good(place.maddock(&["plugin", "install", "new.wasm"]));
    // What was superseded may change, or be gone.
    version("old.wasm", "a", "0.1.1");
    assert_eq!(good(place.maddock(&["plugin", "update"])), "nothing new\n");
    version("new.wasm", "a", "0.3.0");
    good(place.maddock(&["plugin", "update", "a"]));
    assert_eq!(names(&place, &[]), ["a 0.3.0"]);
    std::fs::remove_file(place.path().join("old.wasm")).unwrap();
    assert_eq!(good(place.maddock(&["plugin", "update"])), "nothing new\n");
    // A digest stands for its plugin, whichever version it is of.
    version("new.wasm", "a", "0.4.0");
    let listed = good(place.maddock(&["plugin", "list", "--all", "--format", "json"]));
    let list: Value = serde_json::from_str(&listed).unwrap();
    let first =
        list.as_array().unwrap().iter().find(|plugin| plugin["name"] == "a" && plugin["version"] == "0.1.0").unwrap();
    good(place.maddock(&["plugin", "update", first["digest"].as_str().unwrap()]));
    assert_eq!(names(&place, &[]), ["a 0.4.0"]);
    version("new.wasm", "other", "0.1.0");
    let said = place.maddock(&["plugin", "update"]);
    assert!(said.stderr.contains("there is no `a` any more in"), "{}", said.stderr);
    assert_eq!((said.code, said.stdout.as_str()), (0, "nothing new\n"));
}

/// A tar file as anybody makes one.
fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn an_update_from_an_archive_brings_no_strangers_and_nothing_back_that_was_removed() {
    let place = Place::new();
    let archive = |versions: [&str; 3]| {
        let [a, b, c] = ["a", "b", "c"];
        let bytes = [(a, versions[0]), (b, versions[1]), (c, versions[2])]
            .map(|(name, version)| asking(name, version, json!([])));
        let files = [("a.wasm", &bytes[0][..]), ("b.wasm", &bytes[1][..]), ("c.wasm", &bytes[2][..])];
        place.file("all.tar", &tarred(&files));
    };
    archive(["0.1.0"; 3]);
    good(place.maddock(&["plugin", "install", "all.tar"]));
    good(place.maddock(&["plugin", "remove", "b"]));
    archive(["0.2.0"; 3]);
    good(place.maddock(&["plugin", "update", "a"]));
    assert_eq!(names(&place, &[]), ["a 0.2.0", "c 0.1.0"]);
    // From elsewhere by now: the archive is not asked for it any more.
    place.file("c.wasm", &asking("c", "0.3.0", json!([])));
    good(place.maddock(&["plugin", "install", "c.wasm"]));
    archive(["0.4.0"; 3]);
    good(place.maddock(&["plugin", "update"]));
    assert_eq!(names(&place, &[]), ["a 0.4.0", "c 0.3.0"]);
}

#[test]
fn a_tar_file_of_components_is_installed_with_the_signatures_in_it() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    good(place.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(place.maddock(&["plugin", "trust", "key.pub", "--name", "me"]));
    good(place.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    let signature = std::fs::read(place.path().join("good.wasm.sig")).unwrap();
    let component = good_launcher("good");
    let files = [("x/good.wasm", &component[..]), ("x/good.wasm.sig", &signature), ("x/README", b"read me")];
    place.file("x.tar", &tarred(&files));
    let said = good(place.maddock(&["plugin", "install", "x.tar", "--require-signature"]));
    assert!(said.contains("installed: good 0.1.0") && said.contains("signed  by `me`"), "{said}");
    place.file("x.tar", &tarred(&[("README", b"read me")]));
    refused(place.maddock(&["plugin", "install", "x.tar"]), 1, "there is no `.wasm` file in it");
}

#[test]
fn a_bundle_has_what_was_asked_for_and_nothing_that_nobody_could_use() {
    let place = Place::new();
    place.file("a.wasm", &good_launcher("a"));
    place.file("b.wasm", &good_launcher("b"));
    good(place.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(place.maddock(&["plugin", "trust", "key.pub"]));
    let keys = place.path().join(".config/maddock/keys");
    std::fs::rename(keys.join("key.pub"), keys.join("the key of me.pub")).unwrap();
    good(place.maddock(&["plugin", "sign", "a.wasm", "--key", "key"]));
    good(place.maddock(&["plugin", "install", "a.wasm", "b.wasm", "--lock"]));
    place.file("site.toml", b"schema = 1\nusers_may_grant = true\n");
    let said = good(place.maddock(&["plugin", "bundle", "out.tar", "a", "--policy", "site.toml"]));
    assert!(said.contains("keys/the-key-of-me.pub") && said.contains("policy.toml"), "{said}");
    let mut archive = tar::Archive::new(std::fs::File::open(place.path().join("out.tar")).unwrap());
    let mut lock = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().as_os_str() == "maddock.lock" {
            std::io::Read::read_to_string(&mut entry, &mut lock).unwrap();
        }
    }
    assert!(lock.contains("name = \"a\"") && !lock.contains("name = \"b\""), "{lock}");
    let other = Place::new();
    other.file("in.tar", &std::fs::read(place.path().join("out.tar")).unwrap());
    let said = other.maddock(&["plugin", "install", "in.tar"]);
    assert!(said.stderr.contains("policy.toml"), "{}", said.stderr);
    good(said);
    assert_eq!(names(&other, &[]), ["a 0.1.0"]);
    // What is no policy, and a pin of what is not there, pack nothing.
    std::fs::remove_file(place.path().join("out.tar")).unwrap();
    place.file("site.toml", b"schema = 1\nallowed = true\n");
    refused(
        place.maddock(&["plugin", "bundle", "out.tar", "--policy", "site.toml"]),
        4,
        "`allowed` means nothing here",
    );
    good(place.maddock(&["plugin", "remove", "b"]));
    place.file("b.wasm", &asking("b", "0.2.0", json!([])));
    good(place.maddock(&["plugin", "install", "b.wasm"]));
    refused(place.maddock(&["plugin", "bundle", "out.tar"]), 1, "maddock.lock pins `b` 0.1.0 to sha256:");
    refused(place.maddock(&["plugin", "bundle", "out.tar", "b"]), 1, "which is not installed");
    assert!(!place.path().join("out.tar").exists());
    good(place.maddock(&["plugin", "bundle", "out.tar", "a"]));
}

#[test]
fn pins_and_overrides_are_taken_back() {
    let place = Place::new();
    place.file("mine.wasm", &good_launcher("mine"));
    good(place.maddock(&["plugin", "install", "mine.wasm", "--lock"]));
    good(place.maddock(&["plugin", "lock", "--override", "launchers=mine"]));
    let builtin = |place: &Place| good(place.maddock(&["plugin", "list"])).contains("\tlaunchers\t");
    assert!(!builtin(&place));
    refused(place.maddock(&["plugin", "lock", "--drop", "mine"]), 4, "`mine` is in the place of launchers");
    refused(place.maddock(&["plugin", "lock", "--drop", "absent"]), 4, "`absent` is not pinned");
    refused(place.maddock(&["plugin", "lock", "--drop-override", "report-csv"]), 4, "nothing is in the place of");
    good(place.maddock(&["plugin", "lock", "--drop-override", "launchers"]));
    assert!(builtin(&place));
    assert_eq!(names(&place, &["--locked"]), ["mine 0.1.0"]);
    let said = good(place.maddock(&["plugin", "remove", "mine"]));
    assert!(said.contains("maddock.lock here still pins mine 0.1.0"), "{said}");
    let said = place.maddock(&["plugin", "list"]);
    assert!(said.stderr.contains("maddock plugin lock --drop mine"), "{}", said.stderr);
    refused(said, 1, "which is not installed");
    let said = good(place.maddock(&["plugin", "lock", "--drop", "mine"]));
    assert!(said.contains("0 pinned"), "{said}");
    assert_eq!(names(&place, &[]), [""; 0]);
}

#[test]
fn what_is_installed_and_not_used_is_listed_where_somebody_asks() {
    let place = Place::new();
    good(place.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(place.maddock(&["plugin", "trust", "key.pub", "--name", "me"]));
    place.file("a.wasm", &asking("a", "0.1.0", json!([])));
    good(place.maddock(&["plugin", "install", "a.wasm"]));
    place.file("a.wasm", &asking("a", "0.2.0", json!([])));
    good(place.maddock(&["plugin", "sign", "a.wasm", "--key", "key"]));
    place.file("mine.wasm", &good_launcher("launchers"));
    good(place.maddock(&["plugin", "install", "a.wasm", "mine.wasm"]));
    assert_eq!(names(&place, &[]), ["a 0.2.0"]);
    let said = place.maddock(&["plugin", "list"]);
    assert!(said.stderr.contains("2 more are installed and not used here"), "{}", said.stderr);
    let said = good(place.maddock(&["plugin", "list", "--all"]));
    let row = |name: &str, version: &str, from: &str| {
        let cells = format!("\t{name}\t{version}\t");
        said.lines().any(|line| line.contains(&cells) && line.split('\t').nth(5) == Some(from))
    };
    assert!(row("a", "0.1.0", "superseded") && row("a", "0.2.0", "installed"), "{said}");
    assert!(row("launchers", "0.1.0", "name of a built-in") && row("launchers", "0.1.0", "built-in"), "{said}");
    let signer = |version: &str| {
        let line = said.lines().find(|line| line.contains(&format!("\ta\t{version}\t"))).unwrap();
        line.split('\t').nth(6).unwrap().to_owned()
    };
    assert_eq!((signer("0.1.0"), signer("0.2.0")), ("-".to_owned(), "me".to_owned()));
}

#[test]
fn a_signature_of_other_bytes_is_not_pushed() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    good(place.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(place.maddock(&["plugin", "trust", "key.pub", "--name", "me"]));
    good(place.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    let mut other = good_launcher("good");
    other.extend([0, 2, 1, b'x']);
    place.file("good.wasm", &other);
    // Nobody listens there: what is refused is refused before anybody is asked.
    let said = place.maddock(&["plugin", "push", "good.wasm", "oci://127.0.0.1:1/good:1"]);
    refused(said, 1, "`good.wasm` is not pushed: the signature of key `me` does not fit the bytes");
}

/// The faults that the conformance suite finds.
fn faults(place: &Place, file: &str) -> Vec<String> {
    let said = place.maddock(&["plugin", "test", file]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    said.stdout.lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect()
}

#[test]
fn a_plugin_that_hides_a_later_refusal_does_not_conform() {
    // Asks for the host's name twice; only where the first was answered is the error of another kind than `denied`.
    let import = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func $hostname (param i32)))";
    let body = format!(
        "(call $hostname (i32.const 4096)) (call $hostname (i32.const 4352))
        (if (i32.load8_u (i32.const 4352)) (then
            (i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store8 (i32.const 1028) (i32.mul (i32.const 2) (i32.load8_u (i32.const 4096))))
            (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const 3))))
        {ANSWER}"
    );
    let place = Place::new();
    place.file("late.wasm", &crate::component::launcher("late", import, "(data (i32.const 2048) \"bad\")", &body));
    let faults = faults(&place, "./late.wasm");
    let of = |check: &str| faults.iter().filter(|line| line.contains(check)).collect::<Vec<_>>();
    assert_eq!(of("refused everything, it says so"), [""; 0]);
    let midway = of("refused after it has begun, it says so");
    assert!(!midway.is_empty(), "{faults:?}");
    assert!(
        midway.iter().all(|line| line.contains("after 1 calls: its error is not of the kind `denied`")),
        "{faults:?}"
    );
}

#[test]
fn a_reporter_that_says_it_wrote_what_it_was_refused_does_not_conform() {
    let import = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func $hostname (param i32)))";
    let report = "(func (export \"maddock:plugin/reporter@0.1.0#report\")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (call $hostname (i32.const 4096))
            (i32.store (i32.const 1028) (i32.const 1200)) (i32.store (i32.const 1032) (i32.const 1))
            (i32.store (i32.const 1200) (i32.const 2048)) (i32.store (i32.const 1204) (i32.const 1))
            i32.const 1024)
        (data (i32.const 2048) \"x\")";
    let component = lift(&interface(), "reporter-plugin", &with_memory(import, report));
    let place = Place::new();
    place.file("boaster.wasm", &with_manifest(component, &manifest("boaster", "reporter")));
    let faults = faults(&place, "./boaster.wasm");
    let claims = "no rows: refused everything, it says so: it says that files were written, and every call";
    assert!(faults.iter().any(|line| line.contains(claims)), "{faults:?}");
}

#[test]
fn a_launcher_that_leaves_nodes_out_does_not_conform() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    let faults = faults(&place, "./good.wasm");
    assert!(faults.iter().any(|line| line.contains("four thousand nodes") && line.contains("neither one role")));
}

#[test]
fn an_installed_builder_says_what_it_takes_to_be_asked() {
    let exports =
        [("context-keys", "i32 i32 i32 i32"), ("plan-images", "i32"), ("build-image", "i32"), ("push-image", "i32")];
    let functions = exports.map(|(name, parameters)| {
        format!("(func (export \"maddock:plugin/builder@0.1.0#{name}\") (param {parameters}) (result i32) unreachable)")
    });
    let component = lift(&interface(), "builder-plugin", &with_memory("", &functions.concat()));
    let place = Place::new();
    place.file("mine.wasm", &with_manifest(component, &manifest("mine", "builder")));
    let said = good(place.maddock(&["plugin", "install", "mine.wasm", "--lock"]));
    let line = said.lines().find(|line| line.contains("--override")).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    good(place.maddock(&words));
    let list: Value = serde_json::from_str(&good(place.maddock(&["plugin", "list", "--format", "json"]))).unwrap();
    let builders: Vec<_> = list.as_array().unwrap().iter().filter(|plugin| plugin["kind"] == "builder").collect();
    assert_eq!((builders.len(), builders[0]["name"].as_str()), (1, Some("mine")), "{line}");
}
