//! Grants to whoever signed a plugin.

use maddock::capability::policy::{Level, Policy};
use maddock::plugin::Environment;
use maddock::plugin::package::signature::{TrustedKey, trusted};

use crate::place::{Place, Said, topology};
use crate::refusals::curious;

/// A directory with a plugin that asks for the host's name, and two pairs of keys.
fn place() -> Place {
    let place = Place::new();
    place.file("curious.wasm", &curious("curious"));
    for key in ["ours", "others"] {
        good(place.maddock(&["plugin", "keygen", key, "--no-password"]));
    }
    place
}

#[track_caller]
fn good(said: Said) -> String {
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout
}

fn public(place: &Place, key: &str) -> String {
    let text = std::fs::read_to_string(place.path().join(format!("{key}.pub"))).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

/// The rule that grants to the first key.
fn rule(place: &Place) -> String {
    format!("schema = 1\n[[allow]]\nsigner = \"{}\"\ncalls = [\"facts.hostname\"]\n", public(place, "ours"))
}

fn grant(place: &Place) {
    let policy = place.path().join(".config/maddock/policy.toml");
    std::fs::create_dir_all(policy.parent().unwrap()).unwrap();
    std::fs::write(policy, rule(place)).unwrap();
}

fn keys(place: &Place) -> Vec<TrustedKey> {
    let home = ("HOME".to_owned(), place.path().display().to_string());
    trusted(&[home].into_iter().collect::<Environment>()).unwrap()
}

#[test]
fn a_grant_to_a_signer_is_for_installed_plugins_of_that_signer_and_nobody_else() {
    let place = place();
    grant(&place);
    let install = || good(place.maddock(&["plugin", "install", "curious.wasm"]));
    let explain = || place.maddock(&["policy", "explain", "curious", "facts.hostname"]);
    install();
    assert_eq!(explain().code, 5, "nobody has signed it");
    good(place.maddock(&["plugin", "sign", "curious.wasm", "--key", "ours"]));
    install();
    assert_eq!(explain().code, 5, "nobody trusts the key");
    good(place.maddock(&["plugin", "trust", "others.pub"]));
    assert_eq!(explain().code, 5, "another key is trusted");
    good(place.maddock(&["plugin", "trust", "ours.pub"]));
    let said = good(explain());
    assert!(said.contains("allowed by") && said.contains(".config/maddock/policy.toml:2"), "{said}");
    good(place.maddock(&["plugin", "sign", "curious.wasm", "--key", "others"]));
    install();
    assert_eq!(explain().code, 5, "another key has signed it");
    good(place.maddock(&["plugin", "sign", "curious.wasm", "--key", "ours"]));
    install();
    good(explain());
    std::fs::remove_file(place.path().join(".config/maddock/keys/ours.pub")).unwrap();
    assert_eq!(explain().code, 5, "the key is not trusted any more");
}

#[test]
fn show_check_and_test_speak_of_signers() {
    let place = place();
    grant(&place);
    let key = public(&place, "ours");
    let said = good(place.maddock(&["policy", "show"]));
    assert!(said.contains(&format!("allow * signed by {key} facts.hostname")), "{said}");
    let case = |expect: &str, signer: &str| {
        format!("[[test]]\nplugin = \"any\"\nsigner = \"{signer}\"\ncall = \"facts.hostname\"\nexpect = \"{expect}\"\n")
    };
    let text = rule(&place) + &case("allow", &key) + &case("deny", &public(&place, "others"));
    place.file("site.toml", text.as_bytes());
    assert!(good(place.maddock(&["policy", "test", "site.toml"])).contains("2 cases, 0 failed"));
    let check = || good(place.maddock(&["policy", "check", "site.toml"]));
    assert!(check().contains(&format!("site.toml:2: nobody trusts the key {key} here")));
    good(place.maddock(&["plugin", "trust", "ours.pub"]));
    assert!(!check().contains("nobody trusts"));
}

#[tokio::test]
async fn the_gate_lets_a_signers_plugin_through_and_its_unsigned_twin_not() {
    let place = place();
    let file = place.path().join("curious.wasm");
    let policy = || Policy::shipped(place.roots()).unwrap().with_layer(Level::User, "user", &rule(&place)).unwrap();
    good(place.maddock(&["plugin", "trust", "ours.pub"]));
    let keys = keys(&place);
    let unsigned = place.load_trusting(&file, keys.clone()).unwrap();
    let error = unsigned.arrange(&place.session_under(policy()), &topology()).await.unwrap_err();
    assert!(error.to_string().contains("policy refuses plugin `curious` the call `facts.hostname`"), "{error}");
    good(place.maddock(&["plugin", "sign", "curious.wasm", "--key", "ours"]));
    let signed = place.load_trusting(&file, keys.clone()).unwrap();
    let answer = signed.arrange(&place.session_under(policy()), &topology()).await;
    assert!(!answer.is_err_and(|error| error.is_denied()));
    let strangers = place.load_trusting(&file, Vec::new()).unwrap();
    assert!(strangers.arrange(&place.session_under(policy()), &topology()).await.unwrap_err().is_denied());
    // Other bytes below the same signature are not loaded at all.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend([0, 2, 1, b'x']);
    std::fs::write(&file, bytes).unwrap();
    let error = place.load_trusting(&file, keys).unwrap_err();
    assert!(error.to_string().contains("does not fit the bytes"), "{error}");
}

#[test]
fn a_pin_of_a_signer_holds_at_every_load() {
    let place = place();
    good(place.maddock(&["plugin", "trust", "ours.pub"]));
    good(place.maddock(&["plugin", "sign", "curious.wasm", "--key", "ours"]));
    good(place.maddock(&["plugin", "install", "curious.wasm", "--lock"]));
    let explain = || place.maddock(&["policy", "explain", "curious", "facts.hostname"]);
    assert_eq!(explain().code, 5);
    // The index still says who signed it; the signature is gone.
    let store = place.path().join(".local/share/maddock/plugins");
    for entry in std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "sig") {
            std::fs::remove_file(entry).unwrap();
        }
    }
    let said = explain();
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("no such signature of a trusted key is here (no signature)"), "{}", said.stderr);
}
