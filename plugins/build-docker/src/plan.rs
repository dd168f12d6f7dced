//! Which images will be made and how. It reads the tree and changes nothing.

use std::collections::BTreeSet;

use maddock_sdk::builder::{BuildPlan, BuildRequest, ImagePlan, Problem};
use maddock_sdk::serde_json::{self, Map, Value};
use maddock_sdk::types::{Artefact, Card, Entry, EnvValue, EnvVar, Error, Step, WorkPlan};
use maddock_sdk::{Result, failed, invalid, local, not_found, quote};
use serde::{Deserialize, Serialize};

use crate::dockerfile::{self, ARCHITECTURE, Architecture};
use crate::names;

/// What a model card says for Dockerfiles without a directory of their own.
const DEFAULT_CONTEXT: &str = "docker";
/// A directory that Dockerfiles may name as the context `tools`.
const TOOLS: &str = "docker/common";
/// What the names of secrets contain, whoever gives their values.
const SECRET_NAMES: &str = "MAD_SECRETS";

/// What planning reads. Paths are relative to the tree.
pub trait Tree {
    /// The names of the files of a directory, sorted; none where it is not there.
    fn files(&self, directory: &str) -> Result<Vec<String>>;
    /// The text of a file.
    fn read(&self, path: &str) -> Result<String>;
    /// Whether there is a directory.
    fn has_directory(&self, path: &str) -> Result<bool>;
    /// The names below a secret; empty where there is none or its names may not be known.
    fn secret_members(&self, name: &str) -> Vec<String>;
}

/// Where the value of a build argument comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// From here.
    Text(String),
    /// From the member of that name of the context's `docker_build_arg`, which is not to be repeated anywhere.
    Context(String),
    /// The secret of that name.
    Secret(String),
}

/// What is needed again when an image is built: `image-plan.details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Relative to the tree, as are the other paths.
    pub dockerfile: String,
    pub context: String,
    /// Whether there is a context of the name `tools`.
    pub tools: bool,
    pub arguments: Vec<(String, Source)>,
    /// Build secrets: id and name of the secret.
    pub secrets: Vec<(String, String)>,
    pub base: String,
    pub gpu_vendor: String,
    pub gpu_architecture: Option<String>,
    pub command: String,
}

impl Details {
    /// Reads them back.
    ///
    /// # Errors
    /// They are not this plugin's.
    pub fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| invalid(format!("the plan of an image is not this builder's: {error}")))
    }

    /// The build arguments with their values.
    ///
    /// # Errors
    /// The context is not the one that was planned with.
    pub fn variables(&self, context: &Map<String, Value>) -> Result<Vec<EnvVar>> {
        let given = arguments(context)?.texts;
        self.arguments
            .iter()
            .map(|(name, source)| {
                let value = match source {
                    Source::Text(text) => EnvValue::Text(text.clone()),
                    Source::Secret(secret) => EnvValue::Secret(secret.clone()),
                    Source::Context(member) => {
                        let found = given.iter().find(|(known, _)| known == member);
                        let (_, text) = found.ok_or_else(|| {
                            invalid(format!("`docker_build_arg` has no `{member}` any more"))
                                .hint("plan the build again")
                        })?;
                        EnvValue::Text(text.clone())
                    }
                };
                Ok(EnvVar { name: name.clone(), value })
            })
            .collect()
    }
}

/// The configuration as an object.
///
/// # Errors
/// It is none.
pub fn context(request: &BuildRequest) -> Result<Map<String, Value>> {
    match serde_json::from_str(&request.context) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(invalid("the configuration is not an object")),
        Err(error) => Err(invalid(format!("the configuration is not JSON: {error}"))),
    }
}

/// Plans every image of a request.
///
/// # Errors
/// The configuration cannot be used at all; what is wrong with one model is a problem of the plan.
pub fn plan(request: &BuildRequest, tree: &dyn Tree) -> Result<BuildPlan> {
    let context = context(request)?;
    let given = arguments(&context)?;
    let mut plan = BuildPlan { images: Vec::new(), problems: Vec::new(), warnings: Vec::new() };
    let fixed = given.texts.iter().any(|(name, _)| name == ARCHITECTURE);
    if fixed && !request.architectures.is_empty() {
        plan.warnings
            .push(format!("the architectures asked for are ignored: `docker_build_arg` sets `{ARCHITECTURE}`"));
    }
    let architectures: Vec<Option<&str>> = if fixed || request.architectures.is_empty() {
        vec![None]
    } else {
        request.architectures.iter().map(|name| Some(name.as_str())).collect()
    };
    for card in &request.cards {
        let planner = Planner { request, tree, context: &context, given: &given };
        if let Err(error) = planner.model(card, &architectures, &mut plan) {
            plan.problems.extend(architectures.iter().map(|architecture| Problem {
                model: card.name.clone(),
                architecture: architecture.map(str::to_owned),
                error: error.clone(),
            }));
        }
    }
    Ok(plan)
}

/// `docker_build_arg`, in order.
#[derive(Debug, Default)]
struct Given {
    texts: Vec<(String, String)>,
    /// Members that are `{"secret": NAME}`: the name stands where the value would.
    secrets: Vec<(String, String)>,
}

fn arguments(context: &Map<String, Value>) -> Result<Given> {
    let mut given = Given::default();
    let members = match context.get("docker_build_arg") {
        None | Some(Value::Null) => return Ok(given),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(invalid("`docker_build_arg` is not an object")),
    };
    for (name, value) in members {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            // Dockerfiles were written for what upstream makes of it.
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::Object(reference) if reference.len() == 1 => {
                let secret = reference.get("secret").and_then(Value::as_str);
                let secret = secret.ok_or_else(|| not_scalar(name))?;
                given.secrets.push((name.clone(), secret.to_owned()));
                continue;
            }
            Value::Object(_) | Value::Array(_) => return Err(not_scalar(name)),
        };
        given.texts.push((name.clone(), text));
    }
    Ok(given)
}

fn not_scalar(name: &str) -> Error {
    invalid(format!("`docker_build_arg.{name}` is no text, number or truth value"))
}

/// The files `<prefix>.*`, sorted: name and path of each.
fn dockerfiles(tree: &dyn Tree, prefix: &str) -> Result<Vec<(String, String)>> {
    let (directory, base) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let pattern = format!("{base}.*");
    let path = |file: &str| if directory.is_empty() { file.to_owned() } else { format!("{directory}/{file}") };
    let files = tree.files(directory)?.into_iter().filter(|file| local::matches(&pattern, file));
    Ok(files.map(|file| (file.clone(), path(&file))).collect())
}

/// The keys that CONTEXT headers of these models' Dockerfiles filter on. What cannot be read has none: planning will tell.
pub fn context_keys(cards: &[Card], tree: &dyn Tree) -> Vec<String> {
    let mut keys = BTreeSet::new();
    for card in cards {
        let model: Value = serde_json::from_str(&card.model).unwrap_or_default();
        let prefix = model.get("dockerfile").and_then(Value::as_str).filter(|prefix| !prefix.is_empty());
        for (_, path) in prefix.and_then(|prefix| dockerfiles(tree, prefix).ok()).unwrap_or_default() {
            let header = tree.read(&path).ok().and_then(|text| dockerfile::header(&text).ok());
            keys.extend(header.unwrap_or_default().into_iter().map(|(key, _)| key));
        }
    }
    keys.into_iter().collect()
}

struct Planner<'a> {
    request: &'a BuildRequest,
    tree: &'a dyn Tree,
    context: &'a Map<String, Value>,
    given: &'a Given,
}

/// A Dockerfile that fits.
struct Candidate {
    file: String,
    path: String,
    text: String,
}

/// Where secrets of one Dockerfile go.
#[derive(Default)]
struct Secrets {
    arguments: Vec<(String, Source)>,
    mounted: Vec<(String, String)>,
}

impl Planner<'_> {
    fn model(&self, card: &Card, architectures: &[Option<&str>], plan: &mut BuildPlan) -> Result<()> {
        let model: Value = serde_json::from_str(&card.model)
            .map_err(|error| invalid(format!("the card of `{}` is not JSON: {error}", card.name)))?;
        let field = |name: &str| model.get(name).and_then(Value::as_str).unwrap_or_default();
        let prefix = field("dockerfile");
        let candidates = self.candidates(card, prefix, &mut plan.warnings)?;
        let directory = self.context_directory(field("dockercontext"), prefix)?;
        let as_arguments = model.get("cred_build_args").and_then(Value::as_bool).unwrap_or(false);
        for candidate in &candidates {
            let secrets = self.secrets(field("cred"), as_arguments, candidate, &mut plan.warnings)?;
            for architecture in architectures {
                match self.image(card, candidate, &directory, &secrets, *architecture, plan) {
                    Ok(Some(image)) => plan.images.push(image),
                    Ok(None) => {}
                    Err(error) => plan.problems.push(Problem {
                        model: card.name.clone(),
                        architecture: architecture.map(str::to_owned),
                        error,
                    }),
                }
            }
        }
        Ok(())
    }

    /// The Dockerfiles of a model that fit the context.
    fn candidates(&self, card: &Card, prefix: &str, warnings: &mut Vec<String>) -> Result<Vec<Candidate>> {
        let none = |why: &str, hint: &str| Err(not_found(format!("model `{}` {why}", card.name)).hint(hint));
        if prefix.is_empty() || prefix.ends_with('/') {
            return none("names no Dockerfile", "give its card a `dockerfile`, such as `docker/name`");
        }
        let files = dockerfiles(self.tree, prefix)?;
        if files.is_empty() {
            return none(&format!("has no Dockerfile: nothing matches `{prefix}.*`"), "check `dockerfile` of its card");
        }
        let (mut fitting, mut malformed) = (Vec::new(), 0);
        for (file, path) in files {
            let text = self.tree.read(&path)?;
            match dockerfile::header(&text) {
                Ok(header) if dockerfile::matches(&header, self.context) => {
                    fitting.push(Candidate { file, path, text });
                }
                Ok(_) => {}
                Err(why) => {
                    malformed += 1;
                    warnings.push(format!("`{path}` is left out: its CONTEXT header is malformed: {why}"));
                }
            }
        }
        if fitting.is_empty() {
            let but = if malformed == 0 { "" } else { ", and some have a malformed header" };
            return none(
                &format!(
                    "has no Dockerfile that fits: no CONTEXT header of `{prefix}.*` agrees with the configuration{but}"
                ),
                "compare the headers with `gpu_vendor`, `guest_os` and the other values of the configuration",
            );
        }
        Ok(fitting)
    }

    fn context_directory(&self, asked: &str, prefix: &str) -> Result<String> {
        let directory = match asked.trim_end_matches('/') {
            "" if prefix.to_lowercase().contains("primus") => ".",
            "" => DEFAULT_CONTEXT,
            asked => asked.strip_prefix("./").unwrap_or(asked),
        };
        if self.tree.has_directory(directory)? {
            Ok(directory.to_owned())
        } else {
            Err(not_found(format!("build context `{directory}` is not a directory of the model tree"))
                .hint("name one by `dockercontext` of the model's card"))
        }
    }

    /// Which secrets a Dockerfile gets. As arguments only where the card asks for it: they stay in the image's history.
    fn secrets(
        &self,
        credential: &str,
        as_arguments: bool,
        candidate: &Candidate,
        warnings: &mut Vec<String>,
    ) -> Result<Secrets> {
        let mut offered: Vec<(String, String)> = Vec::new();
        if !credential.is_empty() {
            let known = self.tree.secret_members("credential");
            if !known.is_empty() && !known.iter().any(|name| name == credential) {
                return Err(not_found(format!("there are no credentials `{credential}`"))
                    .hint("add them to `credential.json`, or remove `cred` from the model's card"));
            }
            for member in self.tree.secret_members(&format!("credential/{credential}")) {
                let name = format!("{credential}_{}", member.to_uppercase());
                offered.push((name, format!("credential/{credential}/{member}")));
            }
        }
        offered.extend(self.given.secrets.iter().cloned());
        let mut secrets = Secrets::default();
        for (name, secret) in offered {
            if dockerfile::has_secret(&candidate.text, &name) {
                secrets.mounted.push((name.clone(), secret.clone()));
            }
            if !dockerfile::has_argument(&candidate.text, &name) {
                continue;
            }
            if as_arguments {
                warnings.push(format!(
                    "`{}` gets the secret `{name}` as a build argument, as its card asks for: it stays in the image's history",
                    candidate.path
                ));
                secrets.arguments.push((name, Source::Secret(secret)));
            } else {
                warnings.push(format!(
                    "`{}` declares the build argument `{name}`, which is a secret and is not passed: mount it with \
                     `RUN --mount=type=secret,id={name}`, or set `\"cred_build_args\": true` in the model's card",
                    candidate.path
                ));
            }
        }
        Ok(secrets)
    }

    fn image(
        &self,
        card: &Card,
        candidate: &Candidate,
        directory: &str,
        secrets: &Secrets,
        architecture: Option<&str>,
        plan: &mut BuildPlan,
    ) -> Result<Option<ImagePlan>> {
        let key = names::image(&card.name, &candidate.file, architecture);
        if !names::is_valid(&key) {
            return Err(invalid(format!("`{key}` cannot be the name of an image"))
                .hint("rename the model or its Dockerfile: letters, digits, `.`, `_` and `-`"));
        }
        if let Some(other) = plan.images.iter().find(|image| image.key == key) {
            if other.model != card.name {
                return Err(failed(format!("model `{}` has the image `{key}` too", other.model))
                    .hint("rename one of the models or Dockerfiles"));
            }
            plan.warnings.push(format!("image `{key}` is asked for more than once and built once"));
            return Ok(None);
        }
        let mut arguments: Vec<(String, Source)> = Vec::new();
        for (name, text) in &self.given.texts {
            let secret = name.contains(SECRET_NAMES);
            let source = if secret { Source::Context(name.clone()) } else { Source::Text(text.clone()) };
            arguments.push((name.clone(), source));
        }
        arguments.retain(|(name, _)| !secrets.arguments.iter().any(|(other, _)| other == name));
        arguments.extend(secrets.arguments.iter().cloned());
        if let Some(architecture) = architecture {
            arguments.push((ARCHITECTURE.to_owned(), Source::Text(architecture.to_owned())));
        }
        for (name, _) in &arguments {
            if !is_argument(name) {
                return Err(invalid(format!("`{name}` cannot be the name of a build argument")));
            }
        }
        let value = |name: &str| self.given.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone());
        let said = dockerfile::architecture(&candidate.text);
        let known = architecture.map(str::to_owned).or_else(|| value(ARCHITECTURE));
        if said == Architecture::Asked && known.is_none() {
            plan.warnings.push(format!(
                "`{}` asks for `{ARCHITECTURE}` and none is known: give it by `docker_build_arg` or `--target-archs`",
                candidate.path
            ));
        }
        let recorded = known.or(match said {
            Architecture::Set(name) => Some(name),
            Architecture::Unsaid | Architecture::Asked => None,
        });
        let mut details = Details {
            dockerfile: candidate.path.clone(),
            context: directory.to_owned(),
            tools: self.tree.has_directory(TOOLS)?,
            arguments,
            secrets: secrets.mounted.clone(),
            base: value("BASE_DOCKER").or_else(|| dockerfile::base(&candidate.text)).unwrap_or_default(),
            gpu_vendor: dockerfile::vendor(&candidate.path, &candidate.text).to_owned(),
            // Of a list of architectures none is the image's.
            gpu_architecture: recorded
                .filter(|name| !name.contains([';', ',', ' ']))
                .map(|name| dockerfile::normalise(&name)),
            command: String::new(),
        };
        details.command = command(&key, &details, self.request.no_cache);
        Ok(Some(ImagePlan {
            log_file: names::log(&card.name, &candidate.file, architecture),
            model: card.name.clone(),
            architecture: architecture.map(str::to_owned),
            plan: self.steps(&key, &details),
            details: serde_json::to_string(&details).map_err(|error| failed(error.to_string()))?,
            key,
        }))
    }

    fn steps(&self, key: &str, details: &Details) -> WorkPlan {
        let scope = |name: &str, value: String| Entry { name: name.to_owned(), value };
        let path = |relative: &str| absolute(&self.request.tree, relative);
        let mut touched = vec![
            scope("tag", key.to_owned()),
            scope("path", path(&details.context)),
            scope("path", path(&details.dockerfile)),
            scope("network", "host".to_owned()),
        ];
        if details.tools {
            touched.push(scope("path", path(TOOLS)));
        }
        let of_arguments = details.arguments.iter().filter_map(|(_, source)| match source {
            Source::Secret(name) => Some(name),
            Source::Text(_) | Source::Context(_) => None,
        });
        touched.extend(
            of_arguments.chain(details.secrets.iter().map(|(_, name)| name)).map(|name| scope("secret", name.clone())),
        );
        let mut steps = vec![Step {
            summary: format!("build image `{key}` from `{}`", details.dockerfile),
            call: "docker.build-image".to_owned(),
            scope: touched,
        }];
        if !details.base.is_empty() {
            steps.push(Step {
                summary: format!("ask which `{}` it was built from", details.base),
                call: "docker.registry-digest".to_owned(),
                scope: vec![scope("image", details.base.clone())],
            });
        }
        WorkPlan {
            steps,
            artefacts: vec![Artefact {
                name: "build.sh".to_owned(),
                media_type: "text/x-shellscript".to_owned(),
                content: format!("{}\n", details.command),
            }],
            warnings: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// A path of the tree, absolute.
pub fn absolute(tree: &str, relative: &str) -> String {
    match relative {
        "" | "." => tree.to_owned(),
        relative if relative.starts_with('/') => relative.to_owned(),
        relative => format!("{tree}/{relative}"),
    }
}

fn is_argument(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The command line that would do the same, for people. Secrets stand in it by name only.
fn command(key: &str, details: &Details, no_cache: bool) -> String {
    let mut words: Vec<String> = vec!["docker".into(), "build".into()];
    if no_cache {
        words.push("--no-cache".into());
    }
    words.push("--network=host".into());
    if details.tools {
        words.extend(["--build-context".into(), format!("tools={TOOLS}")]);
    }
    words.extend(["-t".into(), key.to_owned(), "--pull".into(), "-f".into(), details.dockerfile.clone()]);
    for (name, source) in &details.arguments {
        let argument = match source {
            Source::Text(text) => format!("{name}={text}"),
            Source::Context(_) | Source::Secret(_) => name.clone(),
        };
        words.extend(["--build-arg".into(), argument]);
    }
    for (id, _) in &details.secrets {
        words.extend(["--secret".into(), format!("id={id}")]);
    }
    words.push(match details.context.as_str() {
        directory if directory == "." || directory.starts_with('/') => directory.to_owned(),
        directory => format!("./{directory}"),
    });
    words.iter().map(|word| readable(word)).collect::<Vec<_>>().join(" ")
}

/// Quoted where it must be: options are plain words to a reader and to a shell.
fn readable(word: &str) -> String {
    let option = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '-' | '=' | '_' | '.' | '/' | ':' | ',' | '@')
    };
    if !word.is_empty() && word.chars().all(option) { word.to_owned() } else { quote::word(word) }
}

/// Turns a problem's error into one of the model.
pub fn about(error: Error, key: &str) -> Error {
    error.during(&format!("image `{key}`"))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
