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
fn a_bundle_brings_plugins_to_a_site_without_network() {
    let (from, to) = (Playground::new(), Playground::new());
    from.call(&["plugin", "new", "launcher", "hello"]).exits(0);
    // Any component will do: this one is made of nothing but a manifest, and packed.
    assert!(from.work().join("hello/vendor/maddock-sdk/src/lib.rs").is_file());
    let bundle = from.work().join("out.tar");
    from.call(&["plugin", "bundle", "out.tar"]).exits(1).says(&["nothing is installed that could be packed"]);
    std::fs::write(&bundle, b"not a bundle").unwrap();
    to.call(&["plugin", "install", bundle.to_str().unwrap()]).exits(1);
}
