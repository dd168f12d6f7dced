//! Manifests that are none.

use serde_json::{Value, json};

use crate::component::{empty, good_launcher, interface, lift, manifest, with_manifest, with_memory, with_section};
use crate::place::{Place, assert_printable};

/// What the binary says of a manifest.
fn refusal(text: &[u8]) -> String {
    Place::new().refusal(&with_section(empty(), text))
}

fn refusal_of(member: &str, value: Value) -> String {
    let mut changed = manifest("odd", "launcher");
    changed[member] = value;
    refusal(changed.to_string().as_bytes())
}

const OURS: &str = "plugin `./refused.wasm`: manifest: ";

#[test]
fn a_component_without_a_manifest_is_refused() {
    let said = Place::new().refusal(&lift(
        &interface(),
        "launcher-plugin",
        &with_memory("", &crate::component::arrange("unreachable")),
    ));
    assert!(said.starts_with(OURS) && said.contains("no section `maddock:manifest`"), "{said}");
}

#[test]
fn a_manifest_that_is_not_json_is_refused() {
    for text in ["", "name = 1", "{\"schema\":", "[]", "null", "{} {}"] {
        let said = refusal(text.as_bytes());
        assert!(said.starts_with(OURS), "{said}");
    }
}

#[test]
fn a_manifest_that_is_not_utf_8_is_refused() {
    let said = refusal(b"{\"name\":\"\xff\xfe\"}");
    assert!(said.starts_with(&format!("{OURS}the manifest is not UTF-8")), "{said}");
}

#[test]
fn a_manifest_that_nests_without_end_is_refused() {
    let said = refusal("[".repeat(200_000).as_bytes());
    assert!(said.starts_with(OURS), "{said}");
    let said = refusal(format!("{{\"schema\":1,\"provides\":{}", "[".repeat(200_000)).as_bytes());
    assert!(said.starts_with(OURS), "{said}");
}

#[test]
fn two_manifests_are_refused() {
    let twice = with_manifest(good_launcher("first"), &manifest("second", "launcher"));
    assert_eq!(Place::new().refusal(&twice), format!("{OURS}it has more than one section `maddock:manifest`"));
}

#[test]
fn a_name_that_is_none_is_refused_without_being_repeated_raw() {
    for name in ["", "Upper", "-x", "a b", "../a", "a\u{1b}[2J", "a\nb", "\u{202e}a", &"a".repeat(65)] {
        let said = refusal_of("name", json!(name));
        assert!(said.starts_with(OURS) && said.contains("[a-z][a-z0-9-]*"), "{said}");
        assert_printable(&said);
    }
}

#[test]
fn an_interface_that_only_looks_like_ours_is_refused() {
    let odd = [
        "maddock:plugin@0.\u{1b}[2J.1.0",
        "maddock:plugin@0.1.x.0",
        "maddock:plugin@0.1",
        "maddock:plugin@0.1.0.0",
        "maddock:plugin@+0.1.0",
        "maddock:plugin@00.1.0",
        "maddock:plugin@0.1.99999999999999999999",
        "maddock:plugin",
        "\u{1b}[2J@0.1.0",
    ];
    for interface in odd {
        let said = refusal_of("interface", json!(interface));
        assert!(said.starts_with(OURS) && said.contains("this host offers maddock:plugin@0.1.0"), "{said}");
    }
}

#[test]
fn what_the_parser_repeats_of_a_manifest_cannot_drive_a_terminal() {
    let mut unknown = manifest("odd", "launcher");
    unknown["\u{1b}[2J\r\n\u{202e}"] = json!(1);
    let said = refusal(unknown.to_string().as_bytes());
    assert!(said.starts_with(OURS) && said.contains("unknown field"), "{said}");
    let said = refusal_of("kind", json!("\u{1b}[2J\r\n\u{9b}"));
    assert!(said.starts_with(OURS) && said.contains("unknown variant"), "{said}");
    let said = refusal_of("schema", json!("\u{1b}[2J"));
    assert!(said.starts_with(OURS) && said.contains("invalid type"), "{said}");
}

#[test]
fn a_long_value_is_not_repeated_at_length() {
    for said in [refusal_of("name", json!("x".repeat(1 << 20))), refusal_of("kind", json!("x".repeat(1 << 20)))] {
        assert!(said.len() < 2000, "{} bytes", said.len());
    }
}

#[test]
fn a_schema_of_the_future_is_refused() {
    let said = refusal_of("schema", json!(2));
    assert_eq!(said, format!("{OURS}schema 2 is not known here; this version reads schema 1"));
}

#[test]
fn a_manifest_with_control_characters_in_what_people_read_is_refused() {
    for nasty in ["a\u{1b}]0;owned\u{7}", "a\r\nb", "a\tb", "a\u{9b}2J", "a\u{202e}b"] {
        let request = |calls: &str, name: &str, value: &str, reason: &str| json!([{ "calls": [calls], "scope": { name: [value] }, "reason": reason }]);
        for (member, value) in [
            ("version", json!(nasty)),
            ("description", json!(nasty)),
            ("provides", json!(["fine", nasty])),
            ("requests", request(nasty, "path", "/x", "why")),
            ("requests", request("files.read", nasty, "/x", "why")),
            ("requests", request("files.read", "path", nasty, "why")),
            ("requests", request("files.read", "path", "/x", nasty)),
        ] {
            let mut painted = manifest("paints", "launcher");
            painted[member] = value;
            let error = maddock::plugin::manifest::Manifest::parse(&painted.to_string()).unwrap_err();
            assert_eq!(error, format!("`{member}` has control characters in it; it must be plain text"));
        }
    }
}

#[test]
fn a_refused_manifest_is_shown_by_no_command_and_in_no_format() {
    let place = Place::new();
    let mut painted = manifest("paints", "launcher");
    painted["description"] = json!("a\u{1b}[2J\u{9b}2J\u{202e}");
    place.file("paints.wasm", &with_section(empty(), painted.to_string().as_bytes()));
    for arguments in [
        &["plugin", "inspect", "./paints.wasm"][..],
        &["plugin", "list", "--plugin", "paints.wasm"],
        &["plugin", "inspect", "./paints.wasm", "--format", "json"],
        &["plugin", "list", "--plugin", "paints.wasm", "--format", "json"],
    ] {
        let said = place.maddock(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert_printable(&said.stderr);
        assert!(said.stderr.contains("`description` has control characters in it"), "{}", said.stderr);
    }
}
