//! An image of a manifest, as the run phase needs it. Field names are the file contract's.

use serde_json::Value;

/// One entry of `built_images`, with the model that it is for.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are those of the file contract")]
pub struct Image {
    /// The manifest's key.
    pub key: String,
    pub docker_image: String,
    pub registry_image: Option<String>,
    pub local_image: bool,
    pub image_digest: Option<String>,
    pub dockerfile: String,
    pub base_docker: String,
    pub docker_sha: String,
    pub gpu_vendor: String,
    pub gpu_architecture: String,
    pub log_file: String,
    /// Seconds.
    pub build_duration: Option<f64>,
}

impl Image {
    /// Reads an entry; members that are absent or of another type are as good as empty.
    #[must_use]
    pub fn of_entry(key: &str, entry: &Value) -> Self {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let named = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let truthy = match entry.get("local_image") {
            Some(Value::Bool(local)) => *local,
            Some(Value::String(reference)) => !reference.is_empty(),
            _ => false,
        };
        Self {
            key: key.to_owned(),
            docker_image: named("docker_image").unwrap_or_else(|| key.to_owned()),
            registry_image: named("registry_image"),
            local_image: truthy,
            image_digest: named("image_digest"),
            dockerfile: text("dockerfile"),
            base_docker: text("base_docker"),
            docker_sha: text("docker_sha"),
            gpu_vendor: text("gpu_vendor"),
            gpu_architecture: text("gpu_architecture"),
            log_file: text("log_file"),
            build_duration: entry.get("build_duration").and_then(Value::as_f64),
        }
    }

    /// The reference that is run: the registry's where it was pushed, else the local one.
    #[must_use]
    pub fn reference(&self) -> &str {
        if self.local_image { &self.docker_image } else { self.registry_image.as_deref().unwrap_or(&self.docker_image) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_image_runs_from_the_registry_and_a_local_one_never() {
        let entry = serde_json::json!({"docker_image": "a", "registry_image": "r/a", "build_duration": 2});
        let image = Image::of_entry("k", &entry);
        assert_eq!((image.reference(), image.build_duration), ("r/a", Some(2.0)));
        let local = serde_json::json!({"docker_image": "a", "registry_image": "r/a", "local_image": "a"});
        assert_eq!(Image::of_entry("k", &local).reference(), "a");
        assert_eq!(Image::of_entry("k", &serde_json::json!({})).reference(), "k");
    }
}
