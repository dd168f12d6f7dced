//! Names of images as registries see them, and the secrets that belong to registries.

/// The registry of an image reference: its first segment where that is a host's name, else Docker Hub's.
#[must_use]
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
        _ => "docker.io",
    }
}

/// The name of a registry's credentials: the registry as it is written, and `dockerhub` for Docker Hub.
#[must_use]
pub fn key_of(registry: &str) -> &str {
    if is_docker_hub(registry) { "dockerhub" } else { registry }
}

/// The name of the secret with a registry's credentials.
#[must_use]
pub fn login_of(registry: &str) -> String {
    format!("credential/{}", key_of(registry))
}

/// Whether a registry is Docker Hub, whose name is no part of its images' names.
#[must_use]
pub fn is_docker_hub(registry: &str) -> bool {
    ["docker.io", "dockerhub"].iter().any(|name| registry.eq_ignore_ascii_case(name))
}

/// The secret to log in with, where there is one and this plugin may name it.
#[must_use]
pub fn login(registry: &str) -> Option<String> {
    let name = login_of(registry);
    crate::secrets::available(&name).unwrap_or(false).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_a_reference_is_its_host() {
        assert_eq!(registry_of("localhost:5000/a/b:1"), "localhost:5000");
        assert_eq!(registry_of("localhost/a"), "localhost");
        assert_eq!(registry_of("ghcr.io/a"), "ghcr.io");
        assert_eq!(registry_of("rocm/pytorch:latest"), "docker.io");
        assert_eq!(registry_of("ubuntu:22.04"), "docker.io");
    }

    #[test]
    fn docker_hub_has_a_secret_of_its_own_name() {
        assert_eq!(login_of("docker.io"), "credential/dockerhub");
        assert_eq!(login_of("localhost:5000"), "credential/localhost:5000");
    }
}
