//! Tricks with addresses, for whatever speaks to something: registries, engines, clusters. Plugins have no network of their own.

use serde_json::json;

use crate::lair::{Lair, SECRET};

/// A lair that may pull from one registry, with one login.
fn one_registry() -> Lair {
    Lair::new()
        .grant(&["docker.*"], "scope.registry = [\"registry.example.com\"]\nscope.secret = [\"credential/hub\"]")
        .set("DOCKER_HOST", "unix:///nowhere/engine.sock")
}

#[test]
fn a_registry_that_looks_like_the_allowed_one_is_another() {
    let lair = one_registry();
    lair.order(json!({"do": "docker.pull-image", "image": "registry.example.com/a:1"})).is("unavailable");
    for image in [
        "registry.example.com.evil.example/a:1",
        "registry.example.com:5000/a:1",
        "evil.example/registry.example.com/a:1",
        "REGISTRY.EXAMPLE.COM/a:1",
        "a:1",
        "localhost/a:1",
        "127.0.0.1/a:1",
        "169.254.169.254/latest/meta-data:1",
    ] {
        lair.order(json!({"do": "docker.pull-image", "image": image})).denied().says("registry");
    }
}

#[test]
fn a_reference_is_no_address() {
    let lair = one_registry();
    for image in [
        "https://registry.example.com/a:1",
        "user:word@registry.example.com/a:1",
        "registry.example.com@evil.example/a:1",
        "registry.example.com/a:1?x=y",
        "registry.example.com\\@evil.example/a",
        "registry.example.com/../../v2/evil",
        "[::1]/a:1",
        "registry.example.com%2f@evil.example/a",
    ] {
        let told = lair.order(json!({"do": "docker.pull-image", "image": image}));
        assert!(matches!(told.kind(), "invalid-input" | "denied"), "{image}: {}", told.0);
    }
}

#[test]
fn a_login_is_not_sent_to_another_registry() {
    let lair = one_registry();
    for call in ["docker.pull-image", "docker.push-image", "docker.registry-digest"] {
        let told = lair.order(json!({"do": call, "image": "evil.example/a:1", "login": "credential/hub"}));
        told.denied().hides(SECRET);
    }
}

#[test]
fn a_login_that_no_rule_names_is_not_sent_at_all() {
    let lair = one_registry();
    for login in ["credential/other", "credential", "env/TOKEN", "credential/hub/../other", ""] {
        let told = lair.order(json!({"do": "docker.pull-image", "image": "registry.example.com/a:1", "login": login}));
        told.denied().hides(SECRET);
    }
}

#[test]
fn a_plugin_connects_to_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let lair = Lair::new();
    for address in [
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("localhost:{port}"),
    ] {
        lair.order(json!({"do": "std.connect", "address": address})).is("library");
    }
    assert!(listener.accept().is_err(), "somebody came");
}

#[test]
fn a_plugin_reaches_no_address_of_metadata() {
    let lair = Lair::new();
    for address in ["169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal:80"] {
        lair.order(json!({"do": "std.connect", "address": address})).is("library");
    }
}

#[test]
fn a_plugin_listens_to_nothing_and_sends_nothing() {
    let lair = Lair::new();
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_nonblocking(true).unwrap();
    lair.order(json!({"do": "std.listen", "address": "127.0.0.1:0"})).is("library");
    lair.order(json!({"do": "std.send", "address": receiver.local_addr().unwrap().to_string()})).is("library");
    assert!(receiver.recv(&mut [0; 8]).is_err());
}

#[test]
fn a_plugin_asks_for_no_name() {
    // A name that is asked for is a way out by itself: `SECRET.evil.example`.
    Lair::new().order(json!({"do": "std.resolve", "address": "localhost:80"})).is("library");
}

#[test]
fn the_engine_is_the_one_that_the_shell_names_and_nothing_that_looks_like_one() {
    for host in
        ["unix://../relative", "ssh://host", "tcp://host/path?x=y", "npipe:////x", "file:///etc/passwd", "tcp://a b"]
    {
        let lair = Lair::new().grant(&["docker.*"], "").set("DOCKER_HOST", host);
        lair.order(json!({"do": "docker.describe-engine"})).is("invalid-input");
    }
}

#[test]
fn an_engine_that_is_to_be_spoken_to_in_secret_is_not_spoken_to_in_clear() {
    let lair = Lair::new()
        .grant(&["docker.*"], "")
        .set("DOCKER_HOST", "tcp://engine.example.com:2376")
        .set("DOCKER_TLS_VERIFY", "1");
    lair.order(json!({"do": "docker.describe-engine"})).is("unsupported");
}

#[test]
fn a_server_that_a_rule_does_not_name_is_not_asked() {
    let lair = Lair::new().grant(&["kube.*"], "scope.server = [\"cluster.example.com:6443\"]");
    for server in [
        "https://cluster.example.com:6443@evil.example",
        "https://cluster.example.com.evil.example:6443",
        "https://127.0.0.1:6443",
    ] {
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{{"name": "c", "cluster": {{"server": "{server}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "{SECRET}"}}}}], "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
        );
        let file = lair.write("outside/connections", &text);
        let told = lair.order(json!({"do": "kube.list-owned", "kubeconfig": file, "namespace": "team"}));
        assert!(matches!(told.kind(), "denied" | "invalid-input"), "{server}: {}", told.0);
        told.hides(SECRET);
    }
}

#[test]
fn a_registry_in_capitals_is_not_the_default_one() {
    let lair = Lair::new().grant(
        &["docker.*"],
        "scope.registry = [\"docker.io\"]\nscope.image = [\"docker.io/**\"]\nscope.secret = [\"credential/hub\"]",
    );
    let lair = lair.set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    for image in ["EVIL/a:1", "Evil/team/a:1", "LOCALHOST/a:1"] {
        for call in ["docker.pull-image", "docker.push-image", "docker.registry-digest"] {
            lair.order(json!({"do": call, "image": image, "login": "credential/hub"})).denied().hides(SECRET);
        }
    }
}
