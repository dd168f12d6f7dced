//! An image of a manifest, as the run phase needs it. Field names are the file contract's.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::manifest::ManifestImage;

/// One entry of `built_images`, with the model that it is for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// Takes what the run phase needs from a manifest's image.
    #[must_use]
    pub fn of_manifest(image: &ManifestImage<'_>) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            key: image.key.to_owned(),
            docker_image: image.reference().to_owned(),
            registry_image: image.registry_reference().map(str::to_owned),
            local_image: image.local(),
            image_digest: image.digest().map(str::to_owned),
            dockerfile: text(image.dockerfile()),
            base_docker: text(image.base()),
            docker_sha: text(image.base_digest()),
            gpu_vendor: image.vendor().unwrap_or_default(),
            gpu_architecture: text(image.architecture()),
            log_file: text(image.log_file()),
            build_duration: image.build_duration().and_then(serde_json::Number::as_f64),
        }
    }

    /// The same for an entry that is in no file yet.
    #[must_use]
    pub fn of_entry(key: &str, entry: &Value) -> Self {
        let empty = Map::new();
        let entry = entry.as_object().unwrap_or(&empty);
        Self::of_manifest(&ManifestImage { key, entry, model: &Value::Null })
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
