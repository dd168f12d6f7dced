//! Uses images that are there already: a model's card says which by the member `image`. Nothing is built or pushed.

use maddock_sdk::builder::{BuildPlan, BuildRequest, Built, Guest, ImagePlan, Problem, Pushed};
use maddock_sdk::serde_json::{self, Value, json};
use maddock_sdk::types::{Card, Image, WorkPlan};
use maddock_sdk::{Result, invalid, unsupported};

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn context_keys(_tree: String, _cards: Vec<Card>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn plan_images(request: BuildRequest) -> Result<BuildPlan> {
        let mut plan = BuildPlan {
            images: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        for card in &request.cards {
            match image(card) {
                Ok(reference) => plan.images.push(ImagePlan {
                    key: reference.clone(),
                    model: card.name.clone(),
                    log_file: format!("{}.build.log", card.name.replace('/', "_")),
                    architecture: None,
                    // A builder that has effects says here which; policy decides of them before the first one.
                    plan: WorkPlan {
                        steps: Vec::new(),
                        artefacts: Vec::new(),
                        warnings: Vec::new(),
                        extra: Vec::new(),
                    },
                    details: json!({"image": reference}).to_string(),
                }),
                Err(error) => {
                    plan.problems.push(Problem {
                        model: card.name.clone(),
                        architecture: None,
                        error,
                    });
                }
            }
        }
        Ok(plan)
    }

    fn build_image(_request: BuildRequest, image: ImagePlan) -> Result<Built> {
        let entry = json!({"model": image.model, "docker_image": image.key, "build_duration": 0.0});
        Ok(Built {
            image: Image {
                reference: image.key,
                digest: None,
                registry_reference: None,
                local: false,
            },
            duration: 0.0,
            manifest_entry: entry.to_string(),
        })
    }

    fn push_image(_request: BuildRequest, image: ImagePlan, _built: Built) -> Result<Pushed> {
        Err(unsupported(format!(
            "image `{}` is used as it is, and not pushed",
            image.key
        ))
        .hint("leave out `--registry`"))
    }
}

/// The image that a card names.
fn image(card: &Card) -> Result<String> {
    let model: Value = serde_json::from_str(&card.model)
        .map_err(|error| invalid(format!("the card of `{}` is no JSON: {error}", card.name)))?;
    let named = model
        .get("image")
        .and_then(Value::as_str)
        .filter(|image| !image.is_empty());
    named.map(str::to_owned).ok_or_else(|| {
        invalid(format!("the card of `{}` names no image", card.name))
            .hint("add `\"image\": \"REGISTRY/NAME:TAG\"`")
    })
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::builder::export!(Plugin with_types_in maddock_sdk::builder);

#[cfg(test)]
mod tests {
    use super::*;

    fn card(model: &str) -> Card {
        Card {
            name: "m".into(),
            tags: Vec::new(),
            source: "models.json".into(),
            model: model.into(),
        }
    }

    #[test]
    fn a_card_names_its_image() {
        assert_eq!(
            image(&card(r#"{"image": "ubuntu:24.04"}"#)).unwrap(),
            "ubuntu:24.04"
        );
    }

    #[test]
    fn a_card_without_an_image_is_told_what_lacks() {
        for model in [
            "{}",
            "[]",
            r#"{"image": ""}"#,
            r#"{"image": 1}"#,
            "nonsense",
        ] {
            assert!(image(&card(model)).is_err(), "{model}");
        }
        assert!(image(&card("{}")).unwrap_err().hint.is_some());
    }
}
