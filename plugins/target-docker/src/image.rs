//! Finding the image of a job on the engine, pulling it where it is not there.

use maddock_sdk::docker::{self, ImageInfo};
use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::registry::{login, registry_of};
use maddock_sdk::types::{Error, ErrorKind, Image};
use maddock_sdk::{Result, of};

/// What models of that family are run in when their own image is not there, by contract.
const FALLBACK: (&str, &str) = ("primus_pretrain/", "ci-primus_pretrain_primus.ubuntu.amd");

/// What a job says of its image beyond the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// An archive that holds it, for an engine that does not have it.
    pub archive: Option<String>,
    /// No other image will do.
    pub exact: bool,
}

/// The image to run: the name it is run by, and what the engine says of it.
///
/// # Errors
/// It is not there and cannot be had, or it is another than the one that was asked for.
pub fn find(image: &Image, model: &str, wish: &Wish) -> Result<(String, ImageInfo)> {
    if let Some(archive) = &wish.archive {
        return of_archive(image, archive);
    }
    let found = choose(image, model, &mut docker::inspect_image, &mut |reference: &str| {
        events::state(Phase::Starting, "pulling the image");
        docker::pull_image(reference, login(registry_of(reference)).as_deref())
    })?;
    match mismatch(image, &found.0, &found.1) {
        Some(other) if wish.exact => {
            return Err(
                of(ErrorKind::Conflict, other).hint("build and push it again, or run the manifest of its build")
            );
        }
        Some(other) => events::log(Level::Warning, &other, &[]),
        None => {}
    }
    Ok(found)
}

/// The image out of an archive: by its name where that means this image here, else by its id.
fn of_archive(image: &Image, archive: &str) -> Result<(String, ImageInfo)> {
    let id = image.digest.as_deref().unwrap_or_default();
    events::state(Phase::Starting, "loading the image");
    let info = docker::load_image(archive, id)?;
    let named = docker::inspect_image(&image.reference).is_ok_and(|named| named.id == info.id);
    Ok((if named { image.reference.clone() } else { info.id.clone() }, info))
}

type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<ImageInfo>;

fn choose(image: &Image, model: &str, inspect: Ask, pull: Ask) -> Result<(String, ImageInfo)> {
    let reference = image.reference.as_str();
    let registry = image.registry_reference.as_deref().filter(|registry| !registry.is_empty());
    let mut first_error = None;
    if image.local {
        // A local image that is not there is looked for in its registry, as upstream does.
        match inspect(reference) {
            Ok(info) => return Ok((reference.to_owned(), info)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        return match pull(reference) {
            Ok(info) => Ok((reference.to_owned(), info)),
            Err(error) => Err(absent(reference, Some(&error))),
        };
    }
    if let Some(registry) = registry {
        match pull(registry) {
            Ok(info) => return Ok((registry.to_owned(), info)),
            Err(error) if error.kind == ErrorKind::Denied => return Err(error),
            Err(error) => first_error = Some(error),
        }
    }
    let fallback = model.starts_with(FALLBACK.0).then_some(FALLBACK.1);
    for name in [Some(reference), fallback].into_iter().flatten() {
        match inspect(name) {
            Ok(info) => return Ok((name.to_owned(), info)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(absent(registry.unwrap_or(reference), first_error.as_ref()))
}

fn absent(reference: &str, pulling: Option<&Error>) -> Error {
    let why = pulling.map(|error| format!(", and pulling it failed: {}", error.message)).unwrap_or_default();
    of(ErrorKind::NotFound, format!("image `{reference}` is not on this machine{why}"))
        .hint("build it with `maddock build`, or check its name and the credentials of its registry")
}

/// A sentence when the image is not the one that was built.
fn mismatch(image: &Image, name: &str, info: &ImageInfo) -> Option<String> {
    let digest = image.digest.as_deref().filter(|digest| !digest.is_empty())?;
    let of_registry = info.repository_digests.iter().any(|known| known.ends_with(&format!("@{digest}")));
    (digest != info.id && !of_registry)
        .then(|| format!("image `{name}` is {}, and {digest} was built: it was made again or tagged anew", info.id))
}

#[cfg(test)]
mod tests {
    use maddock_sdk::{failed, not_found};

    use super::*;

    fn image(registry: Option<&str>, local: bool) -> Image {
        Image { reference: "here".into(), digest: None, registry_reference: registry.map(str::to_owned), local }
    }

    fn info(id: &str) -> ImageInfo {
        ImageInfo {
            id: id.into(),
            repository_digests: vec!["r/i@sha256:5".into()],
            env: Vec::new(),
            labels: Vec::new(),
            user: String::new(),
            architecture: String::new(),
            size: 0,
        }
    }

    /// Answers which name was chosen when the engine has `here` and the registry `there`.
    fn chosen(image: &Image, model: &str, here: &[&str], there: &[&str]) -> Result<String> {
        let mut inspect = |name: &str| if here.contains(&name) { Ok(info(name)) } else { Err(not_found("no")) };
        let mut pull = |name: &str| if there.contains(&name) { Ok(info(name)) } else { Err(failed("no route")) };
        choose(image, model, &mut inspect, &mut pull).map(|(name, _)| name)
    }

    #[test]
    fn an_image_in_a_registry_is_pulled_and_else_taken_from_here() {
        let image = image(Some("r/there"), false);
        assert_eq!(chosen(&image, "m", &["here"], &["r/there"]).unwrap(), "r/there");
        assert_eq!(chosen(&image, "m", &["here"], &[]).unwrap(), "here");
        let error = chosen(&image, "m", &[], &[]).unwrap_err();
        assert_eq!(error.message, "image `r/there` is not on this machine, and pulling it failed: no route");
    }

    #[test]
    fn a_local_image_is_taken_from_here_and_else_pulled() {
        let image = image(Some("r/there"), true);
        assert_eq!(chosen(&image, "m", &["here"], &["r/there", "here"]).unwrap(), "here");
        assert_eq!(chosen(&image, "m", &[], &["here"]).unwrap(), "here");
    }

    #[test]
    fn an_image_without_a_registry_is_never_pulled() {
        assert_eq!(chosen(&image(None, false), "m", &[], &["here"]).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn the_primus_family_has_an_image_to_fall_back_on() {
        let image = image(None, false);
        assert_eq!(chosen(&image, "primus_pretrain/x", &[FALLBACK.1], &[]).unwrap(), FALLBACK.1);
        assert!(chosen(&image, "other", &[FALLBACK.1], &[]).is_err());
    }

    #[test]
    fn an_image_that_is_not_the_one_built_is_told() {
        let mut image = image(None, false);
        assert_eq!(mismatch(&image, "here", &info("sha256:1")), None);
        for same in ["sha256:1", "sha256:5"] {
            image.digest = Some(same.into());
            assert_eq!(mismatch(&image, "here", &info("sha256:1")), None);
        }
        image.digest = Some("sha256:2".into());
        assert!(mismatch(&image, "here", &info("sha256:1")).unwrap().contains("sha256:2"));
    }
}
