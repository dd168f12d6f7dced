//! Components from text: a small core module, lifted to a world of `wit/`, with a manifest appended.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wasm_encoder::{CustomSection, Encode};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The section that holds the manifest.
const SECTION: &str = "maddock:manifest";

/// Where guests put their answer. Everything from the second page on belongs to the allocator.
pub const ANSWER: &str = "i32.const 1024";

/// The directory of the interface's WIT files.
fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

/// The interface as it is.
pub fn interface() -> Resolve {
    let mut resolve = Resolve::default();
    resolve.push_dir(wit()).unwrap();
    resolve
}

/// The interface after a change to its text.
pub fn interface_after(change: impl Fn(String) -> String) -> Resolve {
    let directory = tempfile::tempdir().unwrap();
    for file in fs::read_dir(wit()).unwrap() {
        let file = file.unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        fs::write(directory.path().join(file.file_name()), change(text)).unwrap();
    }
    let mut resolve = Resolve::default();
    resolve.push_dir(directory.path()).unwrap();
    resolve
}

/// Lifts a core module to a world.
pub fn lift(resolve: &Resolve, world: &str, module: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(module).unwrap();
    let packages: Vec<_> = resolve.packages.iter().map(|(id, _)| id).collect();
    let world = resolve.select_world(&packages, Some(world)).unwrap();
    embed_component_metadata(&mut bytes, resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&bytes).unwrap().validate(true).encode().unwrap()
}

/// What a module needs besides its own functions: a memory, and an allocator that never frees.
pub fn with_memory(imports: &str, functions: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 65536))
            (func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
                (local.get $at))
            {functions})"#
    )
}

/// The one function of a launcher, around a body that leaves the address of its answer.
pub fn arrange(body: &str) -> String {
    arrange_of("0.1.0", body)
}

/// The same, for another version of the interface.
pub fn arrange_of(version: &str, body: &str) -> String {
    format!(
        r#"(func (export "maddock:plugin/launcher@{version}#arrange")
            (param i32) (result i32)
            {body})"#
    )
}

/// A launcher with a manifest: imports, functions beside `arrange`, and its body.
pub fn launcher(name: &str, imports: &str, functions: &str, body: &str) -> Vec<u8> {
    let module = with_memory(imports, &format!("{functions}\n{}", arrange(body)));
    with_manifest(lift(&interface(), "launcher-plugin", &module), &manifest(name, "launcher"))
}

/// A launcher that does something in `arrange` and no more.
pub fn launcher_that(name: &str, body: &str) -> Vec<u8> {
    launcher(name, "", "", body)
}

/// A launcher as it should be: it arranges no roles and gives the arrangement a name.
pub fn good_launcher(name: &str) -> Vec<u8> {
    let answer = format!(
        "(i32.store (i32.const 1028) (i32.const 2048)) (i32.store (i32.const 1032) (i32.const {}))",
        name.len()
    );
    launcher(name, "", &format!("(data (i32.const 2048) \"{name}\")"), &format!("{answer} {ANSWER}"))
}

/// A manifest.
pub fn manifest(name: &str, kind: &str) -> Value {
    json!({
        "schema": 1,
        "name": name,
        "version": "0.1.0",
        "kind": kind,
        "interface": "maddock:plugin@0.1.0",
        "provides": [name],
    })
}

/// Appends a manifest.
pub fn with_manifest(component: Vec<u8>, manifest: &Value) -> Vec<u8> {
    with_section(component, manifest.to_string().as_bytes())
}

/// Appends any bytes where a manifest should be.
pub fn with_section(mut component: Vec<u8>, data: &[u8]) -> Vec<u8> {
    component.push(0);
    CustomSection { name: SECTION.into(), data: data.into() }.encode(&mut component);
    component
}

/// A component without imports or exports.
pub fn empty() -> Vec<u8> {
    wat::parse_str("(component)").unwrap()
}
