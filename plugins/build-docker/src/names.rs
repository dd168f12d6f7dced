//! Names of images, logs and registry references.

use maddock_sdk::registry::is_docker_hub;

/// The part of a Dockerfile's name that tells it from the others of its model.
pub fn part(file: &str) -> &str {
    file.strip_suffix(".Dockerfile").unwrap_or(file)
}

fn flat(model: &str) -> String {
    model.replace('/', "_")
}

fn with_architecture(name: String, architecture: Option<&str>) -> String {
    match architecture {
        Some(architecture) => format!("{name}_{architecture}"),
        None => name,
    }
}

/// The image's name: upstream's, in lower case throughout, as engines take no other.
pub fn image(model: &str, file: &str, architecture: Option<&str>) -> String {
    with_architecture(format!("ci-{}_{}", flat(model), part(file)), architecture).to_lowercase()
}

/// The log's name. Builds for several architectures have a log each.
pub fn log(model: &str, file: &str, architecture: Option<&str>) -> String {
    with_architecture(format!("{}_{}", flat(model), part(file)), architecture) + ".build.live.log"
}

/// Whether an engine takes the name: runs of lower-case letters and digits, held together by `.`, `_`, `__` or dashes.
pub fn is_valid(image: &str) -> bool {
    let alphanumeric = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let separators = image.split(alphanumeric).filter(|between| !between.is_empty());
    image.len() <= 128
        && image.starts_with(alphanumeric)
        && image.ends_with(alphanumeric)
        && separators
            .into_iter()
            .all(|between| matches!(between, "." | "_" | "__") || between.chars().all(|letter| letter == '-'))
}

/// The name under which an image is pushed.
pub fn pushed(image: &str, registry: &str, repository: Option<&str>) -> String {
    match (is_docker_hub(registry), repository.filter(|repository| !repository.is_empty())) {
        (true, Some(repository)) => format!("{repository}:{image}"),
        (true, None) => image.to_owned(),
        (false, Some(repository)) => format!("{registry}/{repository}:{image}"),
        (false, None) => format!("{registry}/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_logs_are_named_as_upstream_names_them() {
        let file = "dummy.ubuntu.amd.Dockerfile";
        assert_eq!(image("dummy2/model1", file, None), "ci-dummy2_model1_dummy.ubuntu.amd");
        assert_eq!(image("M", "A.Ubuntu.Dockerfile", Some("gfx90a")), "ci-m_a.ubuntu_gfx90a");
        assert_eq!(log("dummy2/Model1", file, None), "dummy2_Model1_dummy.ubuntu.amd.build.live.log");
        assert_eq!(log("m", file, Some("gfx90a")), "m_dummy.ubuntu.amd_gfx90a.build.live.log");
        assert_eq!(part("dummy.other"), "dummy.other");
    }

    #[test]
    fn names_that_no_engine_takes_are_known() {
        for name in ["ci-m_m.ubuntu.amd", "ci-a__b", "ci--a", "a"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["ci-m m", "ci-m___x", "ci-m._x", "ci-m.", "CI-m", "", "ci-é", "ci-a:b"] {
            assert!(!is_valid(name), "{name}");
        }
    }

    #[test]
    fn registries_have_their_own_forms() {
        assert_eq!(pushed("ci-m", "docker.io", Some("me/r")), "me/r:ci-m");
        assert_eq!(pushed("ci-m", "DockerHub", None), "ci-m");
        assert_eq!(pushed("ci-m", "localhost:5000", Some("r")), "localhost:5000/r:ci-m");
        assert_eq!(pushed("ci-m", "localhost:5000", Some("")), "localhost:5000/ci-m");
    }
}
