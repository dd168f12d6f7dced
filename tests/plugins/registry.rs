//! Plugins in registries: a real one, and one that lies.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::component::good_launcher;
use crate::lifecycle::{asking, good, names, reads, reads_and_writes, refused};
use crate::place::{Place, assert_printable};

const COMPONENT: &str = "application/wasm";

/// The registry, and a repository of this test's own.
fn repository(name: &str) -> Option<String> {
    let Some(registry) = std::env::var("MADDOCK_TEST_REGISTRY").ok().filter(|value| !value.is_empty()) else {
        eprintln!("skipped: {name} (MADDOCK_TEST_REGISTRY is not set)");
        return None;
    };
    let place = tempfile::tempdir().unwrap();
    let own = place.path().file_name().unwrap().to_string_lossy().to_lowercase().replace('.', "");
    Some(format!("oci://{registry}/maddock-test/{name}-{own}"))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[test]
fn a_plugin_goes_to_a_registry_and_comes_back_with_its_signature() {
    let Some(repository) = repository("back") else { return };
    let (from, to) = (Place::new(), Place::new());
    from.file("good.wasm", &good_launcher("good"));
    good(from.maddock(&["plugin", "keygen", "key", "--no-password"]));
    good(from.maddock(&["plugin", "sign", "good.wasm", "--key", "key"]));
    let tagged = format!("{repository}:0.1.0");
    // Whose key it is nobody can say before it is trusted, also not who made it.
    let said = good(from.maddock(&["plugin", "push", "good.wasm", &tagged]));
    assert!(said.starts_with("pushed with a signature that was not checked, "), "{said}");
    good(from.maddock(&["plugin", "trust", "key.pub"]));
    let said = good(from.maddock(&["plugin", "push", "good.wasm", &tagged]));
    let pushed = said.trim_end().strip_prefix("pushed with its signature: ").unwrap().to_owned();
    assert!(pushed.starts_with(&format!("{tagged}@sha256:")), "{pushed}");
    let again = good(from.maddock(&["plugin", "push", "good.wasm", &tagged]));
    assert!(again.trim_end().ends_with(&pushed), "the same bytes have another digest: {again}");

    good(to.maddock(&["plugin", "trust", &from.path().join("key.pub").display().to_string()]));
    let said = good(to.maddock(&["plugin", "install", &tagged, "--require-signature", "--lock"]));
    assert!(said.contains("signed  by `key`") && said.contains(&pushed), "{said}");
    assert_eq!(names(&to, &["--locked"]), ["good 0.1.0"]);
    let lock = std::fs::read_to_string(to.path().join("maddock.lock")).unwrap();
    assert!(lock.contains(&format!("source = \"{pushed}\"")), "{lock}");
    let by_digest = Place::new();
    good(by_digest.maddock(&["plugin", "install", &pushed]));
    assert_eq!(names(&by_digest, &[]), ["good 0.1.0"]);
}

#[test]
fn an_update_follows_the_tag_and_asks_for_consent() {
    let Some(repository) = repository("update") else { return };
    let place = Place::new();
    let tagged = format!("{repository}:stable");
    place.file("a.wasm", &asking("a", "0.1.0", reads()));
    good(place.maddock(&["plugin", "push", "a.wasm", &tagged]));
    good(place.maddock(&["plugin", "install", &tagged]));
    assert_eq!(good(place.maddock(&["plugin", "update"])), "nothing new\n");
    place.file("a.wasm", &asking("a", "0.2.0", reads_and_writes()));
    good(place.maddock(&["plugin", "push", "a.wasm", &tagged]));
    refused(place.maddock(&["plugin", "update"]), 5, "not agreed to, and nothing was installed");
    assert_eq!(names(&place, &[]), ["a 0.1.0"]);
    good(place.maddock(&["plugin", "update", "--accept-requests"]));
    assert_eq!(names(&place, &[]), ["a 0.2.0"]);
}

#[test]
fn what_is_not_in_a_registry_or_is_no_plugin_is_said() {
    let Some(repository) = repository("absent") else { return };
    let place = Place::new();
    refused(
        place.maddock(&["plugin", "install", &format!("{repository}:1")]),
        1,
        "there is no such thing in the registry",
    );
    let digest = digest_of(b"");
    refused(place.maddock(&["plugin", "install", &format!("{repository}@{digest}")]), 1, "there is no such thing");
    place.file("none.wasm", b"\0asm\x0d\0\x01\0");
    refused(place.maddock(&["plugin", "push", "none.wasm", &format!("{repository}:1")]), 1, "it is no plugin");
    refused(place.maddock(&["plugin", "install", "oci://localhost:1/x:1"]), 1, "oci://localhost:1/x:1");
    refused(place.maddock(&["plugin", "install", "oci://hello:1"]), 1, "it names no registry");
    // An image for containers is no plugin.
    if let Some(image) = std::env::var("MADDOCK_TEST_IMAGE_SMALL").ok().filter(|image| image.starts_with("localhost")) {
        refused(place.maddock(&["plugin", "install", &format!("oci://{image}")]), 1, "it is no plugin");
    }
}

/// A registry on a port of its own that answers each path with what it is given, for as long as the test runs.
fn liar(answers: Vec<(String, Vec<u8>)>) -> String {
    serving(answers, None)
}

/// The same, for whoever knows a password.
fn serving(answers: Vec<(String, Vec<u8>)>, password: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                    _ => break,
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let known =
                password.is_none_or(|password| request.contains(&format!("uthorization: Basic {password}\r\n")));
            if !known {
                let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                continue;
            }
            let body = answers.iter().find(|(of, _)| *of == path).map(|(_, body)| body.clone());
            let (status, body) = body.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

fn layer(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest_of(bytes), "size": bytes.len()})
}

fn manifest(layers: Value) -> Vec<u8> {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let config = layer("application/vnd.wasm.config.v0+json", b"{}");
    json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).to_string().into_bytes()
}

#[test]
fn a_registry_that_answers_something_else_is_not_believed() {
    let bytes = good_launcher("good");
    let other = good_launcher("evil");
    let honest = manifest(json!([layer(COMPONENT, &bytes)]));
    let asked = digest_of(&honest);
    let blob = format!("/v2/x/blobs/{}", digest_of(&bytes));
    let by_tag = "/v2/x/manifests/1".to_owned();
    let mut small = layer(COMPONENT, &bytes);
    small["size"] = 7.into();
    let mut large = layer(COMPONENT, &bytes);
    large["size"] = (bytes.len() + 1).into();
    let mut same_size = bytes.clone();
    *same_size.last_mut().unwrap() ^= 1;
    let mut huge = layer(COMPONENT, &bytes);
    huge["size"] = (1_u64 << 40).into();
    let mut odd = layer(COMPONENT, &bytes);
    odd["digest"] = "sha512:\u{1b}[2J".into();
    let twice = json!([layer(COMPONENT, &bytes), layer(COMPONENT, &other)]);
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
    let refusals = [
        // Another manifest than the one asked for by its digest.
        (
            vec![(format!("/v2/x/manifests/{asked}"), manifest(twice.clone()))],
            format!("@{asked}"),
            "it did not arrive as it should",
        ),
        (
            vec![(by_tag.clone(), honest.clone()), (blob.clone(), same_size)],
            ":1".into(),
            "it did not arrive as it should",
        ),
        (
            vec![(by_tag.clone(), manifest(json!([small]))), (blob.clone(), bytes.clone())],
            ":1".into(),
            "more than the 7 bytes",
        ),
        (
            vec![(by_tag.clone(), manifest(json!([large]))), (blob.clone(), bytes.clone())],
            ":1".into(),
            "bytes came, and",
        ),
        (vec![(by_tag.clone(), manifest(json!([huge]))), (blob.clone(), bytes.clone())], ":1".into(), "is larger than"),
        (vec![(by_tag.clone(), manifest(json!([odd])))], ":1".into(), "not of the form sha256:"),
        (vec![(by_tag.clone(), manifest(twice))], ":1".into(), "several components"),
        (vec![(by_tag.clone(), manifest(json!([])))], ":1".into(), "it is no plugin"),
        (vec![(by_tag.clone(), index.to_string().into_bytes())], ":1".into(), "no manifest of one artifact"),
        (vec![(by_tag.clone(), b"hello".to_vec())], ":1".into(), "no manifest of one artifact"),
    ];
    let mut believed = Vec::new();
    for (answers, which, words) in refusals {
        let place = Place::new();
        let source = format!("oci://{}/x{which}", liar(answers));
        let said = place.maddock(&["plugin", "install", &source]);
        assert_printable(&said.stderr);
        if said.code != 1 || !said.stderr.contains(words) || !names(&place, &[]).is_empty() {
            believed.push(format!("{words}: {}{}", said.stdout, said.stderr));
        }
    }
    assert!(believed.is_empty(), "{}", believed.join("\n"));
    // The same registry, when it tells the truth.
    let place = Place::new();
    let source = format!("oci://{}/x:1", liar(vec![(by_tag, honest), (blob, bytes)]));
    good(place.maddock(&["plugin", "install", &source]));
    assert_eq!(names(&place, &[]), ["good 0.1.0"]);
}

#[test]
fn credentials_are_those_that_container_tools_keep() {
    let bytes = good_launcher("good");
    let answers = vec![
        ("/v2/x/manifests/1".to_owned(), manifest(json!([layer(COMPONENT, &bytes)]))),
        (format!("/v2/x/blobs/{}", digest_of(&bytes)), bytes),
    ];
    // `user:secret`
    let registry = serving(answers, Some("dXNlcjpzZWNyZXQ="));
    let place = Place::new();
    let install = || place.maddock(&["plugin", "install", &format!("oci://{registry}/x:1")]);
    let said = install();
    assert!(said.stderr.contains("not logged in") && said.stderr.contains("`login`"), "{}", said.stderr);
    assert_eq!(said.code, 1);
    let file = place.path().join(".config/containers/auth.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let kept = |secret: &str| json!({"auths": {(registry.clone()): {"auth": secret}}}).to_string();
    std::fs::write(&file, kept("dXNlcjp3cm9uZw==")).unwrap();
    let said = install();
    assert!(
        said.code == 1 && said.stderr.contains("not logged in") && !said.stderr.contains("wrong"),
        "{}",
        said.stderr
    );
    std::fs::write(&file, kept("dXNlcjpzZWNyZXQ=")).unwrap();
    good(install());
}

#[test]
fn a_registry_elsewhere_is_spoken_to_without_tls_only_when_asked() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    });
    let place = Place::new();
    // This machine by an address that does not say so.
    let said = place.maddock(&["plugin", "install", &format!("oci://0.0.0.0:{port}/x:1")]);
    refused(said, 1, "--plain-http");
    // What a TLS client says first.
    assert_eq!(first.join().unwrap().unwrap(), 0x16);
}
