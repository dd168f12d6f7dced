//! What the scripts of the Primus tree read.

use maddock_sdk::Result;
use maddock_sdk::launcher::Topology;
use maddock_sdk::references::literal;
use maddock_sdk::types::Entry;

use crate::settings::Settings;

/// Where Primus lies in its images.
const ROOT: &str = "/workspace/Primus";
/// In that tree, and for the backend `torchtitan`. Upstream's other default, `exp_pretrain.yaml`, is in no tree.
const CONFIG: &str = "examples/torchtitan/configs/MI300X/qwen3_1.7B-pretrain.yaml";
const DEFAULT_BACKEND: &str = "torchtitan";
/// Backends: the word in a model's name or a path, and how Primus spells it.
const BACKENDS: [(&str, &str); 4] = [
    ("maxtext", "MaxText"),
    ("torchtitan", "torchtitan"),
    ("megatron", "megatron"),
    ("megatron_bridge", "megatron_bridge"),
];

/// The variables of Primus, and what a person should know.
///
/// # Errors
/// The section is not what it should be.
pub fn variables(topology: &Topology, section: &Settings) -> Result<(Vec<Entry>, Vec<String>)> {
    let given = |name: &str| {
        let found = topology.env.iter().rev().find(|entry| entry.name == name);
        found.map(|entry| entry.value.clone()).filter(|value| !value.is_empty())
    };
    let config = section.text("config_path")?.or_else(|| given("PRIMUS_CONFIG_PATH"));
    let backend = match section.text("backend")?.or_else(|| given("BACKEND")) {
        Some(backend) => Some(backend),
        None => config.as_deref().and_then(of_path).or_else(|| of_model(&topology.model)).map(str::to_owned),
    };
    let mut warnings = Vec::new();
    if config.is_none() && backend.as_deref().is_some_and(|backend| backend != DEFAULT_BACKEND) {
        warnings.push(format!(
            "no `{}` is given, and the one that stands for it (`{CONFIG}`) is not for the backend `{}`",
            section.key("config_path"),
            backend.as_deref().unwrap_or_default()
        ));
    }
    let root = section.text("root")?.unwrap_or_else(|| ROOT.to_owned());
    let config = config.unwrap_or_else(|| CONFIG.to_owned());
    let of = |name: &str, value: &str| Entry { name: name.to_owned(), value: literal(value) };
    let mut env = vec![of("PRIMUS_ROOT", &root), of("PRIMUS_CONFIG_PATH", &config)];
    if let Some(extra) = section.text("cli_extra")? {
        env.push(of("PRIMUS_CLI_EXTRA", &extra));
    }
    if let Some(backend) = backend {
        env.push(of("BACKEND", &backend));
    }
    Ok((env, warnings))
}

/// The backend whose word a name begins with: the longest one, so that `megatron_bridge_…` is not `megatron`.
fn longest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    BACKENDS
        .iter()
        .filter(|(word, _)| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
        .max_by_key(|(word, _)| word.len())
        .map(|(_, spelling)| *spelling)
}

fn of_model(model: &str) -> Option<&'static str> {
    longest(model.strip_prefix("primus_pretrain/")?)
}

fn of_path(path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').skip_while(|segment| *segment != "examples");
    segments.next()?;
    longest(segments.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_word_of_a_model_s_name_is_its_backend() {
        for (model, backend) in [
            ("primus_pretrain/megatron_llama3_8b", Some("megatron")),
            ("primus_pretrain/megatron_bridge_llama3", Some("megatron_bridge")),
            ("primus_pretrain/Megatron-Bridge-x", Some("megatron_bridge")),
            ("primus_pretrain/maxtext_x", Some("MaxText")),
            ("primus_pretrain/torchtitan", Some("torchtitan")),
            ("primus_pretrain/megatronic_x", None),
            ("primus_pretrain/x_megatron", None),
            ("megatron_x", None),
        ] {
            assert_eq!(of_model(model), backend, "{model}");
        }
    }

    #[test]
    fn a_path_tells_its_backend() {
        assert_eq!(of_path("examples/megatron/configs/MI300X/x.yaml"), Some("megatron"));
        assert_eq!(of_path("/workspace/Primus/examples/megatron_bridge/x.yaml"), Some("megatron_bridge"));
        assert_eq!(of_path("x.yaml"), None);
        assert_eq!(of_path("examples"), None);
    }
}
