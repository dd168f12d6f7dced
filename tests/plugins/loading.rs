//! Components that do not fit: refused with a sentence, before anything of them runs.

use wit_parser::Resolve;

use crate::component::{
    ANSWER, arrange, arrange_of, empty, good_launcher, interface, interface_after, lift, manifest, with_manifest,
    with_memory, with_section,
};
use crate::place::{Place, assert_printable, sentence};

const BEGIN: &str = "(func $begin unreachable) (start $begin)";

#[test]
fn a_good_plugin_is_listed_and_inspected() {
    let place = Place::new();
    place.file("good.wasm", &good_launcher("good"));
    let listed = place.maddock(&["plugin", "list", "--plugin", "good.wasm"]);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    assert!(listed.stdout.contains("good"), "{}", listed.stdout);
    let shown = place.maddock(&["plugin", "inspect", "./good.wasm"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.starts_with("good 0.1.0 (launcher)"), "{}", shown.stdout);
}

/// A world with an interface that no host offers.
fn with_evil() -> Resolve {
    let mut resolve = interface();
    resolve.push_source("evil.wit", "package evil:thing;\ninterface api { act: func(); }").unwrap();
    let worlds =
        "package test:worlds;\nworld evil { include maddock:plugin/launcher-plugin@0.1.0; import evil:thing/api; }";
    resolve.push_source("worlds.wit", worlds).unwrap();
    resolve
}

#[tokio::test]
async fn an_import_that_nobody_offers_is_refused_by_name_before_anything_runs() {
    let place = Place::new();
    // Its start function traps: had it run, the sentence would say so.
    let module =
        with_memory("(import \"evil:thing/api\" \"act\" (func $act))", &format!("{BEGIN}{}", arrange("unreachable")));
    let bytes = with_manifest(lift(&with_evil(), "test:worlds/evil", &module), &manifest("wants", "launcher"));
    let expected =
        "plugin `wants`: it imports `evil:thing/api`, which this host does not offer (it offers maddock:plugin@0.1.0)";
    assert_eq!(sentence(place.try_load(&bytes)), expected);
    assert_eq!(place.refusal(&bytes), expected);
}

fn later() -> Resolve {
    interface_after(|text| text.replace("package maddock:plugin@0.1.0", "package maddock:plugin@0.2.0"))
}

#[test]
fn a_plugin_made_for_a_later_interface_is_refused_with_a_sentence() {
    let place = Place::new();
    let component = lift(&later(), "launcher-plugin", &with_memory("", &arrange_of("0.2.0", ANSWER)));
    let mut honest = manifest("later", "launcher");
    honest["interface"] = "maddock:plugin@0.2.0".into();
    assert_eq!(
        place.refusal(&with_manifest(component, &honest)),
        "plugin `./refused.wasm`: manifest: it was made for maddock:plugin@0.2.0, and this host offers maddock:plugin@0.1.0"
    );
}

#[test]
fn a_manifest_that_lies_about_the_interface_helps_nobody() {
    let place = Place::new();
    let imports = "(import \"maddock:plugin/facts@0.2.0\" \"hostname\" (func $hostname (param i32)))";
    let exports_only = lift(&later(), "launcher-plugin", &with_memory("", &arrange_of("0.2.0", ANSWER)));
    let imports_too = lift(&later(), "launcher-plugin", &with_memory(imports, &arrange_of("0.2.0", ANSWER)));
    let liar = manifest("liar", "launcher");
    let said = place.refusal(&with_manifest(exports_only, &liar));
    assert!(
        said.starts_with("plugin `liar`: ") && said.contains("maddock:plugin/") && said.contains("@0.2.0"),
        "{said}"
    );
    let said = place.refusal(&with_manifest(imports_too, &liar));
    assert!(said.starts_with("plugin `liar`: it imports `maddock:plugin/") && said.contains("@0.2.0"), "{said}");
}

#[test]
fn a_component_without_the_export_of_its_kind_is_refused_with_a_sentence() {
    let place = Place::new();
    for kind in ["discovery", "builder", "target", "launcher", "gpu", "reporter"] {
        assert_eq!(
            place.refusal(&with_manifest(empty(), &manifest("hollow", kind))),
            format!(
                "plugin `hollow`: its manifest calls it a {kind}, which exports `maddock:plugin/{kind}@0.1.0`; it exports nothing"
            )
        );
    }
}

#[test]
fn a_plugin_of_another_kind_than_its_manifest_says_is_refused() {
    let component = lift(&interface(), "launcher-plugin", &with_memory("", &arrange(ANSWER)));
    let said = Place::new().refusal(&with_manifest(component, &manifest("disguised", "reporter")));
    assert_eq!(
        said,
        "plugin `disguised`: its manifest calls it a reporter, which exports `maddock:plugin/reporter@0.1.0`; it exports `maddock:plugin/launcher@0.1.0`"
    );
}

#[tokio::test]
async fn a_function_with_another_signature_is_refused_before_it_is_called() {
    let changed = interface_after(|text| {
        text.replace("arrange: func(topology: topology) -> result<arrangement, error>", "arrange: func() -> u32")
    });
    let module = "(module (func (export \"maddock:plugin/launcher@0.1.0#arrange\") (result i32) unreachable))";
    let bytes = with_manifest(lift(&changed, "launcher-plugin", module), &manifest("other", "launcher"));
    let said = Place::new().failure(&bytes).await;
    assert!(said.starts_with("plugin `other` failed in `launcher.arrange`: it could not be started: "), "{said}");
    assert!(said.contains("type mismatch"), "{said}");
}

#[test]
fn an_imported_function_with_another_signature_is_refused() {
    let changed =
        interface_after(|text| text.replace("hostname: func() -> result<string, error>", "hostname: func() -> u32"));
    let imports = "(import \"maddock:plugin/facts@0.1.0\" \"hostname\" (func (result i32)))";
    let component = lift(&changed, "launcher-plugin", &with_memory(imports, &arrange(ANSWER)));
    let said = Place::new().refusal(&with_manifest(component, &manifest("other", "launcher")));
    assert!(
        said.starts_with("plugin `other`: it does not fit this host's interface: ") && said.contains("hostname"),
        "{said}"
    );
}

#[test]
fn the_name_of_an_import_cannot_drive_a_terminal() {
    let text = "(component (import \"url=<https://x/\\1b[2J\\c2\\9b\\e2\\80\\ae>\" (instance)))";
    let component = wat::parse_str(text).unwrap();
    let said = Place::new().refusal(&with_manifest(component, &manifest("paints", "launcher")));
    assert!(said.starts_with("plugin `paints`: it imports `url=<https://x/\u{fffd}[2J\u{fffd}\u{fffd}>`"), "{said}");
}

#[test]
fn a_core_module_is_refused_with_what_to_do() {
    let said = Place::new().refusal(&wat::parse_str("(module)").unwrap());
    assert!(said.starts_with("plugin `./refused.wasm`: ") && said.contains("core module"), "{said}");
    assert!(said.contains("wasm32-wasip2"), "{said}");
}

#[test]
fn garbage_is_refused_with_a_sentence() {
    let place = Place::new();
    let good = good_launcher("good");
    let garbage: [&[u8]; 5] = [b"", b"hello", b"\0asm", b"\x7fELF\x02\x01\x01\0", &good[..good.len() / 2]];
    for bytes in garbage {
        let said = place.refusal(bytes);
        assert!(said.starts_with("plugin `./refused.wasm`: "), "{said}");
    }
}

#[test]
fn a_component_with_a_manifest_and_invalid_code_is_refused_with_a_sentence() {
    // A function that promises a number and leaves none, inside a component that is otherwise in order.
    let component = wat::parse_str("(component (core module (func (result i32))))").unwrap();
    let said = Place::new().refusal(&with_manifest(component, &manifest("invalid", "launcher")));
    assert!(said.starts_with("plugin `invalid`: not a usable component: "), "{said}");
}

#[test]
fn a_flipped_byte_anywhere_is_at_worst_refused() {
    let place = Place::new();
    let good = good_launcher("good");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        if let Err(error) = place.try_load(&bytes) {
            assert_printable(&error.to_string());
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_cannot_be_read_is_named() {
    let place = Place::new();
    let said = place.maddock(&["plugin", "list", "--plugin", "absent.wasm"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.starts_with("error: plugin `absent.wasm`: cannot read it: "), "{}", said.stderr);
    let said = place.maddock(&["plugin", "list", "--plugin", "."]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.starts_with("error: plugin `.`: cannot read it: "), "{}", said.stderr);
}

#[test]
fn a_manifest_inside_of_a_module_inside_counts_and_a_second_outside_is_refused() {
    let module =
        with_section(wat::parse_str("(module)").unwrap(), manifest("inner", "launcher").to_string().as_bytes());
    let mut component = b"\0asm\x0d\0\x01\0\x01".to_vec();
    component.push(u8::try_from(module.len() & 0x7f).unwrap() | 0x80);
    component.push(u8::try_from(module.len() >> 7).unwrap());
    component.extend(module);
    let place = Place::new();
    assert!(place.refusal(&component).starts_with("plugin `inner`: its manifest calls it a launcher"));
    let said = place.refusal(&with_manifest(component, &manifest("outer", "launcher")));
    assert!(said.contains("more than one section `maddock:manifest`"), "{said}");
}
