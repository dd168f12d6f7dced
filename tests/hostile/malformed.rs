//! Components that are none, or not what they say.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::component::{empty, good_launcher, manifest, with_manifest, with_section};
use crate::guest;
use crate::place::{Place, assert_printable};

/// It is refused in a sentence that says so.
#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let said = Place::new().refusal(bytes);
    assert!(said.contains(says), "{said}");
}

/// The attacker with a manifest that was changed.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = manifest("hostile", "launcher");
    change(&mut manifest);
    guest::with(&manifest)
}

#[test]
fn a_component_that_was_cut_anywhere_is_refused() {
    let place = Place::new();
    let good = good_launcher("good");
    for length in (0..good.len()).step_by(7) {
        let error = place.try_load(&good[..length]).unwrap_err();
        assert_printable(&error.to_string());
    }
}

#[test]
fn a_module_that_is_no_component_is_refused() {
    refused(&wat::parse_str("(module)").unwrap(), "core module");
}

#[test]
fn what_is_no_webassembly_is_refused() {
    for bytes in [&b""[..], b"#!/bin/sh\nid\n", b"\x7fELF\x02\x01\x01", b"\0asm\x0d\0\x01\0", &[0xff; 4096]] {
        refused(bytes, "plugin `./refused.wasm`");
    }
}

#[test]
fn a_component_without_a_manifest_is_refused() {
    refused(&empty(), "no section");
}

#[test]
fn a_component_with_two_manifests_is_refused() {
    refused(&with_manifest(good_launcher("good"), &manifest("other", "launcher")), "more than one section");
}

#[test]
fn a_manifest_that_is_no_text_is_refused() {
    refused(&with_section(empty(), &[0xff, 0xfe, 0x00]), "UTF-8");
    refused(&with_section(empty(), b""), "manifest");
    refused(&with_section(empty(), b"[]"), "manifest");
}

#[test]
fn a_manifest_that_nests_without_end_is_refused() {
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    refused(&with_section(empty(), deep.as_bytes()), "manifest");
    let nested = format!(r#"{{"schema":1,"name":"a","version":"1","kind":"launcher","interface":{deep}}}"#);
    refused(&with_section(empty(), nested.as_bytes()), "manifest");
}

#[test]
fn a_manifest_without_end_is_refused_in_a_sentence() {
    let bytes = changed(|manifest| manifest["description"] = json!("\u{1b}".repeat(4 << 20)));
    let said = Place::new().refusal(&bytes);
    assert!(said.len() < 5000, "{} bytes", said.len());
}

#[test]
fn a_name_with_anything_but_letters_digits_and_hyphens_is_refused() {
    for name in ["", "A", "a b", "a/b", "../a", "a\u{1b}[2J", "a\nb", "\u{430}", "a_b", "-a", "1a", &"a".repeat(65)] {
        refused(&changed(|manifest| manifest["name"] = json!(name)), "manifest");
    }
}

#[test]
fn texts_of_a_manifest_drive_no_terminal() {
    for member in ["version", "description"] {
        refused(&changed(|manifest| manifest[member] = json!("1\u{1b}[2J")), "control characters");
    }
    refused(&changed(|manifest| manifest["provides"] = json!(["a\u{202e}b"])), "control characters");
    refused(
        &changed(|manifest| manifest["requests"] = json!([{"calls": ["files.read"], "reason": "a\rb"}])),
        "control characters",
    );
}

#[test]
fn a_member_that_a_manifest_does_not_have_is_refused() {
    for member in ["digest", "signer", "built_in", "trusted"] {
        refused(&changed(|manifest| manifest[member] = json!(true)), "unknown field");
    }
}

#[test]
fn a_member_that_is_said_twice_is_refused() {
    let text = r#"{"schema":1,"name":"a","name":"target-docker","version":"1","kind":"launcher","interface":"maddock:plugin@0.1.0"}"#;
    refused(&with_section(empty(), text.as_bytes()), "duplicate");
}

#[test]
fn a_plugin_by_the_name_of_a_built_in_is_refused() {
    for name in ["launchers", "target-docker", "discover-mad"] {
        let place = Place::new();
        place.file("mine.wasm", &changed(|manifest| manifest["name"] = json!(name)));
        let said = place.maddock(&["plugin", "list", "--plugin", "mine.wasm"]);
        assert_eq!(said.code, 1, "{}", said.stdout);
        assert!(said.stderr.contains(name), "{}", said.stderr);
    }
}

#[test]
fn a_plugin_by_the_name_of_the_kernel_is_refused() {
    let place = Place::new();
    place.file("mine.wasm", &changed(|manifest| manifest["name"] = json!("kernel")));
    let said = place.maddock(&["plugin", "list", "--plugin", "mine.wasm"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert!(said.stderr.contains("kernel"), "{}", said.stderr);
    let said = place.maddock(&["plugin", "install", "mine.wasm"]);
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert!(said.stderr.contains("no plugin is called `kernel`"), "{}", said.stderr);
}

#[test]
fn a_plugin_that_provides_what_a_built_in_does_is_not_taken_for_it() {
    use maddock::plugin::catalog::Catalog;
    use maddock::plugin::manifest::Kind;
    let place = Place::new();
    let mine = guest::with(&{
        let mut manifest = manifest("hostile", "target");
        manifest["provides"] = json!(["docker", "process", "slurm", "target-docker", "target_process"]);
        manifest
    });
    let catalog = Catalog::new(&[place.file("mine.wasm", &mine)]).unwrap();
    for name in ["docker", "process", "slurm", "target-docker", "target-process", "TARGET_DOCKER"] {
        let found = catalog.providing(Kind::Target, name).unwrap();
        assert!(found.identity.built_in, "`{name}` is {}", found.identity.name);
    }
}

/// Names that built-in plugins provide and none of them bears, and who provides them.
const PROVIDED: [(&str, &str, &str); 4] = [
    ("target", "docker", "target-docker"),
    ("launcher", "torchrun", "launchers"),
    ("gpu", "amd", "gpu-amd"),
    ("reporter", "to-html", "report-html"),
];

/// The attacker by a name of its own that is another's, and that provides what the other is called.
fn called(kind: &str, name: &str, provides: &str) -> Vec<u8> {
    let mut manifest = manifest(name, kind);
    manifest["provides"] = json!([name, provides]);
    guest::with(&manifest)
}

#[track_caller]
fn finds_what_is_built_in(catalog: &maddock::plugin::catalog::Catalog) {
    use maddock::plugin::manifest::Kind;
    for (kind, provided, built_in) in PROVIDED {
        let kind = Kind::ALL.into_iter().find(|one| one.word() == kind).unwrap();
        for name in [provided, built_in, &provided.to_uppercase()] {
            let found = catalog.providing(kind, name).unwrap();
            assert_eq!(found.identity.name, built_in, "`{name}`");
            assert!(found.identity.built_in, "`{name}`");
        }
    }
}

#[test]
fn a_plugin_called_what_a_built_in_provides_is_not_taken_for_it() {
    let place = Place::new();
    for (kind, name, provides) in PROVIDED {
        let file = place.file(&format!("{name}.wasm"), &called(kind, name, provides));
        let catalog = maddock::plugin::catalog::Catalog::new(&[file]).unwrap();
        assert!(catalog.entries().iter().any(|entry| entry.identity.name == name), "it is there");
        finds_what_is_built_in(&catalog);
    }
}

#[test]
fn an_installed_plugin_called_what_a_built_in_provides_is_not_taken_for_it() {
    use maddock::plugin::catalog::{Catalog, Outside};
    use maddock::plugin::package::store::Store;
    let place = Place::new();
    place.file("mine.wasm", &called("launcher", "torchrun", "launchers"));
    assert_eq!(place.maddock(&["plugin", "install", "mine.wasm"]).code, 0);
    let home = ("HOME".to_owned(), place.path().display().to_string());
    let store = Store::of(&[home].into_iter().collect()).unwrap();
    let installed = store.read().unwrap();
    let catalog = Catalog::with(&Outside { installed: Some((store, installed)), ..Outside::default() }).unwrap();
    assert!(catalog.entries().iter().any(|entry| entry.identity.name == "torchrun"), "it is there");
    finds_what_is_built_in(&catalog);
}

#[test]
fn a_plugin_that_provides_the_name_of_another_is_not_taken_for_it() {
    use maddock::plugin::catalog::Catalog;
    use maddock::plugin::manifest::Kind;
    let place = Place::new();
    let mine = place.file("mine.wasm", &called("target", "hostile", "theirs"));
    let theirs = place.file("theirs.wasm", &guest::as_kind("theirs", "target"));
    let catalog = Catalog::new(&[mine, theirs]).unwrap();
    assert_eq!(catalog.providing(Kind::Target, "theirs").unwrap().identity.name, "theirs");
    assert_eq!(catalog.providing(Kind::Target, "hostile").unwrap().identity.name, "hostile");
}

#[test]
fn a_manifest_that_calls_itself_another_kind_is_refused() {
    refused(
        &with_manifest(good_launcher_without_manifest(), &manifest("disguised", "target")),
        "its manifest calls it a target",
    );
    refused(&changed(|manifest| manifest["kind"] = json!("kernel")), "manifest");
}

fn good_launcher_without_manifest() -> Vec<u8> {
    use crate::component::{ANSWER, arrange, interface, lift, with_memory};
    lift(&interface(), "launcher-plugin", &with_memory("", &arrange(ANSWER)))
}

#[test]
fn another_version_of_the_manifest_is_refused() {
    for schema in [json!(0), json!(2), json!("1"), json!(-1), json!(4_294_967_297_u64)] {
        refused(&changed(|manifest| manifest["schema"] = schema), "manifest");
    }
}

#[test]
fn a_grant_for_one_component_is_none_for_its_twin() {
    let place = Place::new();
    let calls = r#"(import "maddock:plugin/facts@0.1.0" "hostname" (func $hostname (param i32)))"#;
    let one = crate::component::launcher("twin", calls, "", "(call $hostname (i32.const 1024)) i32.const 1024");
    place.file("mine.wasm", &one);
    let ask = || place.maddock(&["policy", "explain", "twin", "facts.hostname", "--plugin", "mine.wasm"]);
    let lines = ask().stdout.split("policy.toml:\n").nth(1).unwrap().to_owned();
    let policy = place.path().join(".config/maddock/policy.toml");
    std::fs::create_dir_all(policy.parent().unwrap()).unwrap();
    std::fs::write(policy, lines).unwrap();
    assert_eq!(ask().code, 0);
    // One byte that means nothing.
    let mut other = one;
    other.extend([0, 2, 1, b'x']);
    place.file("mine.wasm", &other);
    assert_eq!(ask().code, 5);
}

#[test]
fn compiled_code_that_others_could_have_written_is_not_used() {
    let place = Place::new();
    let good = good_launcher("good");
    place.file("good.wasm", &good);
    let cache = place.path().join(".cache/maddock/components");
    assert_eq!(place.maddock(&["plugin", "inspect", "./good.wasm"]).code, 0);
    let files = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let code = files().into_iter().find(|file| file.extension().is_some_and(|extension| extension == "cwasm"));
    let file = code.expect("what was compiled is kept");
    let compiled = std::fs::read(&file).unwrap();
    // Garbage is not used, whoever wrote it; and what others could write is not used, whatever it is.
    for (content, mode) in [(&b"garbage"[..], 0o600), (&compiled, 0o622), (&compiled[..100], 0o600)] {
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(place.maddock(&["plugin", "inspect", "./good.wasm"]).code, 0);
        let meta = std::fs::metadata(&file).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "it was made anew");
        assert_eq!(std::fs::read(&file).unwrap().len(), compiled.len());
    }
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    files().into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(place.maddock(&["plugin", "inspect", "./good.wasm"]).code, 0);
    assert!(files().is_empty(), "a directory that others can enter is left alone");
}

#[test]
fn a_cache_that_is_a_link_or_lies_where_others_write_is_not_used() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    let theirs = place.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::create_dir_all(place.path().join(".cache/maddock")).unwrap();
    std::os::unix::fs::symlink(&theirs, place.path().join(".cache/maddock/components")).unwrap();
    assert_eq!(place.maddock(&["plugin", "inspect", "./good.wasm"]).code, 0);
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0);
    std::fs::remove_file(place.path().join(".cache/maddock/components")).unwrap();
    // Whoever can write to the directory around it can put another in its place.
    std::fs::set_permissions(place.path().join(".cache/maddock"), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(place.maddock(&["plugin", "inspect", "./good.wasm"]).code, 0);
    let kept = std::fs::read_dir(place.path().join(".cache/maddock/components")).map_or(0, Iterator::count);
    assert_eq!(kept, 0);
}
