//! `maddock config …`

use serde_json::{Map, Value, json};

use super::args::{self, Common, ConfigAction, ConfigShow, Format};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{self, Invocation, Talk};
use super::render;
use super::setup::Setup;
use super::{run, style, table};
use crate::capability::events::printable;
use crate::config::presets::Shelf;
use crate::config::secret::is_secret_name;
use crate::config::{Effective, KeyPath, SecretReference, nearest};
use crate::pipeline::manifest::Manifest;
use crate::results::redact::Redactor;

/// Shows what a run would be configured with, or which presets there are.
///
/// # Errors
/// Whatever would keep such a run from beginning.
pub async fn run(action: ConfigAction) -> Outcome {
    match action {
        ConfigAction::Show(arguments) => show(*arguments).await,
        ConfigAction::Presets { common } => presets(&common),
    }
}

async fn show(arguments: ConfigShow) -> Outcome {
    let mut setup = Setup::new(&arguments.common)?;
    let given = arguments.manifest_file.as_ref().filter(|file| !file.as_os_str().is_empty());
    let manifest = given.map(|file| Manifest::read(&invocation::absolute(&setup.output, file)));
    let manifest =
        manifest.transpose().map_err(|error| Failure::new(Exit::Failure, &error).hint(error.hint.clone()))?;
    if let (None, Some(tree)) = (&arguments.common.model_dir, manifest.as_ref().and_then(Manifest::tree)) {
        setup.tree = tree.canonicalize().unwrap_or(setup.tree);
    }
    let invocation = Invocation::new(setup, true, Talk { live_output: false, verbose: arguments.common.verbose })?;
    let mut effective = invocation.configuration(&arguments.context, arguments.target.as_deref(), false)?;
    if let Some(manifest) = &manifest {
        effective = run::merged(manifest, &effective)?;
    }
    let target = run::choose(&invocation, &effective).await?;
    let tags = args::pieces(&arguments.tags);
    let cards = match &manifest {
        Some(manifest) => run::cards_of(&run::from_manifest(manifest)),
        None if tags.is_empty() => Vec::new(),
        None => invocation.select(&tags, Exit::Build).await?,
    };
    run::settle(&invocation, &mut effective, &target, manifest.as_ref(), &cards)?;
    if manifest.is_none() && target.has("images") && effective.text("MAD_CONTAINER_IMAGE").is_none() {
        run::build_defaults(&invocation, &mut effective).await?;
    }
    invocation.check_keys(&mut effective, &cards, arguments.context.strict).await?;
    let name = target.plugin.loaded().manifest.provides.first().cloned().unwrap_or_default();
    Shown::new(&invocation, &effective, arguments.key.as_deref())?.print(&arguments, &name);
    Ok(Exit::Success)
}

/// What is printed: leaves with their origins, and the value that they make.
struct Shown {
    leaves: Vec<(KeyPath, Value, String)>,
    value: Value,
}

impl Shown {
    fn new(invocation: &Invocation, effective: &Effective, key: Option<&str>) -> Result<Self, Failure> {
        let redactor = Redactor::new(invocation.context.secrets.values());
        let wanted = key.map(KeyPath::from).unwrap_or_default();
        let leaves: Vec<(KeyPath, Value, String)> = effective
            .leaves()
            .filter(|(path, ..)| path.lies_in(&wanted))
            .map(|(path, value, origin)| {
                let value = redactor.json(&without_secrets(path, value));
                (path.clone(), value, effective.source(path, origin))
            })
            .collect();
        if let (Some(key), true) = (key, leaves.is_empty()) {
            let known: Vec<String> = effective.leaves().map(|(path, ..)| path.to_string()).collect();
            return Err(Failure::new(Exit::Arguments, format!("nothing sets `{key}`"))
                .maybe_hint(nearest::suggestion(key, known.iter().map(String::as_str))));
        }
        let mut object = Map::new();
        for (path, value, _) in &leaves {
            crate::config::schema::put(&mut object, path, value.clone());
        }
        // In the order of the configuration, not of the leaves.
        let mut ordered = Map::new();
        for key in effective.value().as_object().into_iter().flat_map(Map::keys) {
            ordered.extend(object.shift_remove(key).map(|value| (key.clone(), value)));
        }
        let whole = Value::Object(ordered);
        let value = wanted.keys().iter().try_fold(&whole, |value, key| value.get(key)).cloned().unwrap_or(Value::Null);
        Ok(Self { leaves, value })
    }

    fn print(&self, arguments: &ConfigShow, target: &str) {
        let json = arguments.json || arguments.common.format == Format::Json;
        match (arguments.origin, json) {
            (true, true) => {
                let leaves: Vec<Value> = self
                    .leaves
                    .iter()
                    .map(|(path, value, origin)| json!({"key": path.to_string(), "value": value, "origin": origin}))
                    .collect();
                println!("{}", render::json(&json!({"target": target, "values": leaves})));
            }
            (true, false) => {
                let rows: Vec<Vec<String>> = self
                    .leaves
                    .iter()
                    .map(|(path, value, origin)| vec![printable(&path.to_string()), plain(value), printable(origin)])
                    .collect();
                table::print(&format!("configuration for target {target}"), &["Key", "Value", "Origin"], &rows);
            }
            (false, false) if !self.value.is_object() => println!("{}", plain(&self.value)),
            (false, _) => println!("{}", render::json(&self.value)),
        }
    }
}

/// A value in a table: a text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => printable(text),
        other => printable(&other.to_string()),
    }
}

/// What has the name of a secret is shown by that name only.
fn without_secrets(path: &KeyPath, value: &Value) -> Value {
    let secret = path.keys().iter().any(|key| is_secret_name(key)) && SecretReference::read(value).is_none();
    if secret { Value::from("***") } else { value.clone() }
}

fn presets(common: &Common) -> Outcome {
    let shelf = Shelf::shipped().map_err(|error| invocation::of_configuration(&error))?;
    if common.format == Format::Json {
        let list: Vec<Value> = shelf
            .presets()
            .map(|preset| {
                json!({
                    "name": preset.name,
                    "on_request": preset.on_request,
                    "targets": preset.targets(),
                    "summary": preset.summary(),
                })
            })
            .collect();
        println!("{}", render::json(&Value::from(list)));
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<String>> = shelf
        .presets()
        .map(|preset| {
            let when = if preset.on_request { "on request" } else { "by itself" };
            vec![preset.name.clone(), when.to_owned(), preset.summary().to_owned()]
        })
        .collect();
    table::print("", &["Preset", "Applies", "Details"], &rows);
    if style::is_terminal() {
        println!("`--preset NAME` asks for one, `\"presets\": [\"NAME\"]` in the context does too;");
        println!("NAME may be the path of a JSON file.");
    }
    Ok(Exit::Success)
}
