//! Ways past the gate: what the language's own library has, interfaces of others, other versions of ours.

use serde_json::json;
use wit_parser::Resolve;

use crate::component::{
    ANSWER, arrange, arrange_of, interface, interface_after, lift, manifest, with_manifest, with_memory,
};
use crate::lair::{Lair, SECRET};
use crate::place::Place;

#[test]
fn the_library_reads_no_file() {
    let lair = Lair::with_files();
    for path in [
        "/etc/passwd".to_owned(),
        lair.at("outside/secret"),
        lair.at("run"),
        "/proc/self/environ".to_owned(),
        "x".to_owned(),
    ] {
        lair.order(json!({"do": "std.read", "path": path})).is("library").hides(SECRET);
    }
}

#[test]
fn the_library_writes_no_file_and_lists_no_directory() {
    let lair = Lair::with_files();
    lair.order(json!({"do": "std.write", "path": lair.at("run/x")})).is("library");
    assert!(!lair.has("run/x"));
    for path in ["/", ".", ""] {
        lair.order(json!({"do": "std.list", "path": path})).is("library");
    }
}

#[test]
fn the_library_knows_no_environment_no_arguments_and_no_input() {
    let lair = Lair::new();
    let told = lair.obey(json!([{"do": "std.env"}, {"do": "std.args"}, {"do": "std.stdin"}]));
    assert_eq!((told[0].ok(), told[1].ok()), (String::new(), String::new()));
    assert!(matches!(told[2].0["ok"].as_str(), None | Some("\"\"")), "{}", told[2].0);
}

#[test]
fn the_library_starts_no_program() {
    Lair::with_programs().order(json!({"do": "std.run", "program": "id"})).is("library");
}

#[test]
fn chance_is_the_same_every_time() {
    let lair = Lair::new();
    let roll = || lair.order(json!({"do": "std.random"})).ok();
    assert_eq!(roll(), roll(), "what a plugin does can be replayed");
}

#[test]
fn what_the_library_prints_reaches_nobody() {
    let lair = Lair::new();
    let (told, events) =
        lair.attempt(json!([{"do": "std.stdout", "bytes": "forged"}, {"do": "std.stderr", "bytes": "forged"}]));
    told.unwrap();
    assert!(events.is_empty(), "{events:?}");
}

/// A launcher that imports one function of an interface of somebody else's.
fn importing(package: &str, interface_name: &str) -> Vec<u8> {
    let mut resolve: Resolve = interface();
    let (name, version) =
        package.split_once('@').map_or((package, String::new()), |(name, version)| (name, format!("@{version}")));
    resolve
        .push_source("foreign.wit", &format!("package {name}{version};\ninterface {interface_name} {{ act: func(); }}"))
        .unwrap();
    let world = format!(
        "package test:worlds;\nworld w {{ include maddock:plugin/launcher-plugin@0.1.0; import {name}/{interface_name}{version}; }}"
    );
    resolve.push_source("worlds.wit", &world).unwrap();
    let import = format!("(import \"{name}/{interface_name}{version}\" \"act\" (func $act))");
    // Its start function traps: had it run, the sentence would say so.
    let begin = "(func $begin unreachable) (start $begin)";
    let module = with_memory(&import, &format!("{begin}{}", arrange("unreachable")));
    with_manifest(lift(&resolve, "test:worlds/w", &module), &manifest("foreign", "launcher"))
}

#[test]
fn an_interface_for_the_web_is_not_offered() {
    for (package, interface) in [("wasi:http@0.2.6", "outgoing-handler"), ("wasi:http@0.3.0", "client")] {
        let said = Place::new().refusal(&importing(package, interface));
        assert!(said.contains("which this host does not offer"), "{said}");
    }
}

#[test]
fn an_interface_of_other_hosts_is_not_offered() {
    for (package, interface) in [
        ("wasi:keyvalue@0.2.0", "store"),
        ("wasi:blobstore@0.2.0", "container"),
        ("spin:process@1.0.0", "run"),
        ("wasi:nn@0.2.0", "graph"),
    ] {
        let said = Place::new().refusal(&importing(package, interface));
        assert!(said.contains("which this host does not offer"), "{said}");
    }
}

#[test]
fn a_function_that_an_offered_package_does_not_have_is_not_linked() {
    // The package's name is one that is linked.
    for (package, interface) in
        [("wasi:cli@0.2.6", "run-program"), ("wasi:filesystem@0.2.6", "everything"), ("wasi:sockets@0.2.6", "raw")]
    {
        let said = Place::new().refusal(&importing(package, interface));
        assert!(said.contains("does not fit this host's interface"), "{said}");
    }
}

#[test]
fn an_interface_of_our_own_that_there_is_not_is_not_linked() {
    let resolve = interface_after(|text| {
        text.replace(
            "interface secrets {",
            "interface vault {\n reveal: func(name: string) -> string;\n}\n\ninterface secrets {",
        )
        .replace("import secrets;", "import secrets;\n    import vault;")
    });
    let import = "(import \"maddock:plugin/vault@0.1.0\" \"reveal\" (func (param i32 i32 i32)))";
    let bytes = lift(&resolve, "launcher-plugin", &with_memory(import, &arrange(ANSWER)));
    let said = Place::new().refusal(&with_manifest(bytes, &manifest("foreign", "launcher")));
    assert!(said.contains("vault"), "{said}");
}

#[test]
fn a_function_that_an_interface_of_ours_does_not_have_is_not_linked() {
    let resolve = interface_after(|text| {
        text.replace(
            "available: func(name: string)",
            "reveal: func(name: string) -> string;\n    available: func(name: string)",
        )
    });
    let import = "(import \"maddock:plugin/secrets@0.1.0\" \"reveal\" (func (param i32 i32 i32)))";
    let bytes = lift(&resolve, "launcher-plugin", &with_memory(import, &arrange(ANSWER)));
    let said = Place::new().refusal(&with_manifest(bytes, &manifest("foreign", "launcher")));
    assert!(said.contains("does not fit this host's interface") && said.contains("reveal"), "{said}");
}

/// A launcher for another version of the interface, which calls itself one for this.
fn of_version(version: &str) -> Vec<u8> {
    let resolve = interface_after(|text| text.replace("maddock:plugin@0.1.0", &format!("maddock:plugin@{version}")));
    let import = format!("(import \"maddock:plugin/facts@{version}\" \"hostname\" (func (param i32)))");
    let bytes = lift(&resolve, "launcher-plugin", &with_memory(&import, &arrange_of(version, ANSWER)));
    with_manifest(bytes, &manifest("older", "launcher"))
}

#[test]
fn an_older_interface_is_no_detour() {
    for version in ["0.0.1", "0.0.9"] {
        let said = Place::new().refusal(&of_version(version));
        assert!(said.contains(&format!("@{version}")), "{said}");
    }
}

#[test]
fn a_later_interface_is_no_detour() {
    for version in ["0.1.1", "0.2.0", "1.0.0"] {
        let said = Place::new().refusal(&of_version(version));
        assert!(said.contains(&format!("@{version}")), "{said}");
    }
}

#[test]
fn every_call_of_every_interface_is_refused_without_a_rule() {
    let lair = Lair::new().in_this_environment();
    let path = lair.at("run/x");
    let mut orders = Vec::new();
    for call in [
        "stat",
        "read",
        "read-head",
        "read-from",
        "list-directory",
        "write",
        "make-directory",
        "copy",
        "remove",
        "lock",
    ] {
        orders.push(json!({"do": format!("files.{call}"), "path": path, "source": path}));
    }
    for call in ["environment", "hostname", "find-program"] {
        orders.push(json!({"do": format!("facts.{call}"), "name": "PATH"}));
    }
    for call in ["available", "members"] {
        orders.push(json!({"do": format!("secrets.{call}"), "name": "env/TOKEN"}));
    }
    orders.push(json!({"do": "process.run", "argv": ["id"]}));
    orders.push(json!({"do": "process.launch", "argv": ["id"], "path": path}));
    for call in [
        "describe-engine",
        "create-container",
        "start-container",
        "inspect-container",
        "find-containers",
        "stop-container",
        "remove-container",
        "follow-container",
        "copy-out",
        "inspect-image",
        "pull-image",
        "push-image",
        "tag-image",
        "registry-digest",
        "build-image",
    ] {
        orders.push(json!({"do": format!("docker.{call}"), "id": "x", "image": "x", "name": "x", "tag": "y", "path": "/x",
            "destination": path, "directory": lair.at("tree"), "dockerfile": lair.write("tree/Dockerfile", "FROM x"), "tags": ["x:1"]}));
    }
    for call in ["describe-cluster", "submit", "query", "cancel", "find"] {
        orders.push(json!({"do": format!("slurm.{call}"), "id": "1", "ids": ["1"], "directory": lair.at("run"), "output": path}));
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": []}}}});
    for call in [
        "describe-server",
        "list-nodes",
        "check",
        "create",
        "create-secret",
        "get",
        "list-owned",
        "next-change",
        "follow-logs",
        "exec",
        "copy-out",
        "delete",
    ] {
        orders.push(json!({"do": format!("kube.{call}"), "namespace": "x", "kind": "Job", "name": "x", "objects": [job], "command": ["id"],
            "path": "/x", "destination": path,
            "members": [["a", "env/TOKEN"]]}));
    }
    let count = orders.len();
    for (told, order) in lair.obey(json!(orders)).iter().zip(&orders) {
        assert_eq!(told.kind(), "denied", "{order}: {}", told.0);
    }
    assert_eq!(lair.trace().lines().filter(|line| line.contains("\"verdict\":\"denied\"")).count(), count);
    assert!(!lair.has("run/x"));
}
