//! Plugins from outside, as their authors and users meet them.

use crate::playground::Playground;

#[test]
fn every_built_in_plugin_conforms() {
    let playground = Playground::new();
    let list = playground.call(&["plugin", "list", "--format", "json"]).exits(0).json();
    let mut wrong = Vec::new();
    for plugin in list.as_array().unwrap() {
        let answer = playground.call(&["plugin", "test", plugin["name"].as_str().unwrap()]);
        if answer.code != Some(0) {
            wrong.push(answer.stdout.lines().filter(|line| line.starts_with("FAIL")).collect::<Vec<_>>().join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_new_project_has_all_it_needs_and_bundles_are_what_they_say() {
    let playground = Playground::new();
    playground.call(&["plugin", "new", "launcher", "hello"]).exits(0);
    for file in ["Cargo.toml", "plugin.json", "src/lib.rs", "wit/launcher.wit", "vendor/maddock-sdk/src/lib.rs"] {
        assert!(playground.work().join("hello").join(file).is_file(), "{file}");
    }
    playground.call(&["plugin", "new", "launcher", "hello"]).exits(1).says(&["is there already"]);
    playground.call(&["plugin", "new", "pilot", "hello"]).exits(2).says(&["kinds are discovery, builder"]);
    playground.call(&["plugin", "bundle", "out.tar"]).exits(1).says(&["nothing is installed that could be packed"]);
}
