//! Secret objects from secrets of the host. Their bytes go to the API server and nowhere else; no value here has `Debug`.

use k8s_openapi::ByteString;
use maddock_bindings::api::kube::{RegistryLogin, SecretContent};
use maddock_bindings::api::types::ErrorKind;
use serde_json::{Map, Value, json};

use super::Kube;
use super::object::check_name;
use super::owner::Owner;
use crate::capability::gate::{Call, Permit};
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};

/// What the default registry is called in a file of logins.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";
/// A secret object may be no larger.
const LARGEST: usize = 1 << 20;

/// The names of the host's secrets that it takes.
pub(super) fn describe(call: Call<Kube>, content: &SecretContent) -> Call<Kube> {
    match content {
        SecretContent::Members(members) => call.on_all("secret", members.iter().map(|member| &member.secret)),
        SecretContent::RegistryLogins(logins) => call
            .on_all("secret", logins.iter().map(|login| &login.secret))
            .on_all("registry", logins.iter().map(|login| &login.registry)),
    }
}

/// What can be said against it before any secret is looked at.
pub(super) fn check(name: &str, content: &SecretContent) -> Result<(), ApiError> {
    check_name("the secret's name", name)?;
    let keys: Vec<&str> = match content {
        SecretContent::Members(members) => members.iter().map(|member| member.key.as_str()).collect(),
        SecretContent::RegistryLogins(logins) => logins.iter().map(|login| login.registry.as_str()).collect(),
    };
    if keys.is_empty() {
        return Err(error(ErrorKind::InvalidInput, format!("secret `{name}` has nothing in it")));
    }
    for (index, key) in keys.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let sound = match content {
            SecretContent::Members(_) => key.chars().all(plain) && key.len() <= 253 && !matches!(*key, "." | ".."),
            SecretContent::RegistryLogins(_) => key.chars().all(|c| plain(c) || matches!(c, ':' | '/')),
        };
        if key.is_empty() || !sound {
            return Err(error(
                ErrorKind::InvalidInput,
                format!("secret `{name}` cannot have a member `{}`", key.escape_debug()),
            ));
        }
        if keys.iter().take(index).any(|earlier| earlier == key) {
            return Err(error(ErrorKind::InvalidInput, format!("secret `{name}` has member `{key}` twice")));
        }
    }
    Ok(())
}

/// The object.
pub(super) fn object(
    _: &Permit<Kube>,
    name: &str,
    content: &SecretContent,
    owner: &Owner,
    secrets: &SecretStore,
) -> Result<Value, ApiError> {
    let mut data = Map::new();
    let kind = match content {
        SecretContent::Members(members) => {
            for member in members {
                data.insert(member.key.clone(), encoded(reveal(secrets, &member.secret)?)?);
            }
            "Opaque"
        }
        SecretContent::RegistryLogins(logins) => {
            data.insert(".dockerconfigjson".to_owned(), encoded(&file_of_logins(logins, secrets)?)?);
            "kubernetes.io/dockerconfigjson"
        }
    };
    if data.values().filter_map(Value::as_str).map(str::len).sum::<usize>() > LARGEST {
        return Err(error(ErrorKind::InvalidInput, format!("secret `{name}` is larger than {LARGEST} bytes")));
    }
    let [(run, of_run), (job, of_job)] = owner.labels();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {run: of_run, job: of_job}},
        "type": kind,
        "data": data,
    }))
}

fn reveal<'a>(secrets: &'a SecretStore, name: &str) -> Result<&'a str, ApiError> {
    secrets.reveal(name).ok_or_else(|| {
        error_with_hint(
            ErrorKind::NotFound,
            format!("there is no secret `{}`", name.escape_debug()),
            "secrets come from `credential.json`, the environment (`env/NAME`), and files of MADDOCK_SECRETS_DIR",
        )
    })
}

/// Base64, as members of secret objects are written.
fn encoded(text: &str) -> Result<Value, ApiError> {
    serde_json::to_value(ByteString(text.as_bytes().to_vec()))
        .map_err(|cause| error(ErrorKind::Failed, format!("cannot write a secret: {cause}")))
}

fn file_of_logins(logins: &[RegistryLogin], secrets: &SecretStore) -> Result<String, ApiError> {
    let mut registries = Map::new();
    for login in logins {
        let username = reveal(secrets, &format!("{}/username", login.secret))?;
        let password = reveal(secrets, &format!("{}/password", login.secret))?;
        let registry = match login.registry.as_str() {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let both = encoded(&format!("{username}:{password}"))?;
        registries.insert(registry.to_owned(), json!({"username": username, "password": password, "auth": both}));
    }
    Ok(json!({ "auths": registries }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_what_nodes_read_and_the_default_registry_has_its_old_name() {
        let mut secrets = SecretStore::default();
        secrets.add("credential/hub/username", "me");
        secrets.add("credential/hub/password", "s3cret");
        let login = |registry: &str| RegistryLogin { registry: registry.into(), secret: "credential/hub".into() };
        let text = file_of_logins(&[login("docker.io"), login("localhost:5000")], &secrets).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["auths"][DEFAULT_REGISTRY]["auth"], "bWU6czNjcmV0");
        assert_eq!(file["auths"]["localhost:5000"]["username"], "me");
    }

    #[test]
    fn members_have_names_and_each_comes_once() {
        let member = |key: &str| maddock_bindings::api::kube::SecretMember { key: key.into(), secret: "env/X".into() };
        let content = |keys: &[&str]| SecretContent::Members(keys.iter().map(|key| member(key)).collect());
        assert!(check("a", &content(&["x", "y.z"])).is_ok());
        for wrong in [&[][..], &[""], &["a/b"], &[".."], &["x", "x"], &["a b"]] {
            assert!(check("a", &content(wrong)).is_err(), "{wrong:?}");
        }
        assert!(check("A", &content(&["x"])).is_err());
    }
}
