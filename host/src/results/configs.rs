//! The configuration file that a model names in its arguments (`--config FILE`), for the record.
//!
//! It describes the run and decides nothing: a file that is not there is no configuration, and one that cannot be read is
//! an error for the caller to warn about, never a reason for a job to fail.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::metric::is_number;
use super::multiple::{ResultsRow, is_blank};

/// Bytes of a configuration file at most.
const LARGEST: u64 = 16 << 20;
/// Repositories below `scripts` that are model trees of their own.
const REPOSITORIES: [&str; 3] = ["MAD", "MAD-private", "MAD-internal"];

/// A configuration file that is there and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {message}", .path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

/// The file that a model's arguments name: the word after the first `--config`.
#[must_use]
pub fn config_argument(arguments: &str) -> Option<String> {
    let words = shlex::split(arguments).unwrap_or_else(|| arguments.split_whitespace().map(str::to_owned).collect());
    words.into_iter().skip_while(|word| word != "--config").nth(1)
}

/// Where the file may lie, best first. `scripts` is the value of the model card, relative to `tree`; `scripts_is_file` says
/// whether it names the script itself or the directory of it.
#[must_use]
pub fn candidates(tree: &Path, scripts: &str, scripts_is_file: bool, config: &str) -> Vec<PathBuf> {
    if Path::new(config).is_absolute() {
        return vec![PathBuf::from(config)];
    }
    let scripts = Path::new(scripts);
    let base = scripts.parent().unwrap_or(Path::new(""));
    let directory = if scripts_is_file { base } else { scripts };
    let root = repository_root(scripts);
    let mut places = vec![directory, base, root.as_path()];
    places.extend(
        directory.ancestors().skip(1).take_while(|place| place.starts_with(&root) && !place.as_os_str().is_empty()),
    );
    let mut paths: Vec<PathBuf> = Vec::new();
    for place in places {
        let path = tree.join(place).join(config);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// `scripts`, or the model tree right below it that the path goes through.
fn repository_root(scripts: &Path) -> PathBuf {
    let mut parts = scripts.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    match (parts.next(), parts.next()) {
        (Some("scripts"), Some(name)) if REPOSITORIES.contains(&name) => Path::new("scripts").join(name),
        _ => PathBuf::from("scripts"),
    }
}

/// The configuration that a model's arguments name, parsed; null where there is none.
///
/// # Errors
/// The file is there and cannot be read or parsed.
pub fn load_configs(tree: &Path, scripts: &str, arguments: &str) -> Result<Value, ConfigError> {
    let Some(config) = config_argument(arguments) else { return Ok(Value::Null) };
    let is_file = tree.join(scripts).is_file();
    match candidates(tree, scripts, is_file, &config).into_iter().find(|path| path.is_file()) {
        Some(path) => load(&path),
        None => Ok(Value::Null),
    }
}

fn load(path: &Path) -> Result<Value, ConfigError> {
    let error = |message: String| ConfigError { path: path.to_owned(), message };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !matches!(extension.as_str(), "csv" | "json" | "yaml" | "yml") {
        return Ok(Value::Null);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|cause| error(cause.to_string()))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|cause| error(cause.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(error(format!("larger than {LARGEST} bytes, too large for a configuration")));
    }
    parse(&extension, &bytes).map_err(error)
}

/// Parses the text of a configuration file by the extension of its name; other extensions are null.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(extension: &str, bytes: &[u8]) -> Result<Value, String> {
    match extension {
        "csv" => parse_csv(bytes),
        "json" => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        "yaml" | "yml" => parse_yaml(bytes),
        _ => Ok(Value::Null),
    }
}

fn parse_yaml(bytes: &[u8]) -> Result<Value, String> {
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_slice(bytes).map_err(|error| error.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    Ok(of_yaml(value))
}

/// JSON has fewer kinds of values: keys become text, tags are dropped, infinities become text.
fn of_yaml(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => serde_json::to_value(&number)
            .ok()
            .filter(|value| !value.is_null())
            .unwrap_or_else(|| Value::String(number.to_string())),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => items.into_iter().map(of_yaml).collect(),
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (key, value) in members {
                let key = match of_yaml(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                object.insert(key, of_yaml(value));
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => of_yaml(tagged.value),
    }
}

fn parse_csv(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(bytes);
    let header = reader.byte_headers().map_err(|error| error.to_string())?.clone();
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|error| error.to_string())?;
        let mut row = Map::new();
        for (index, name) in header.iter().enumerate() {
            let text = String::from_utf8_lossy(record.get(index).unwrap_or_default());
            row.insert(String::from_utf8_lossy(name).into_owned(), typed(&text));
        }
        if row.values().any(|value| !value.is_null()) {
            rows.push(Value::Object(row));
        }
    }
    Ok(Value::Array(rows))
}

fn typed(text: &str) -> Value {
    let trimmed = text.trim();
    if is_blank(trimmed) {
        return Value::Null;
    }
    if !is_number(trimmed) {
        return Value::String(text.to_owned());
    }
    let whole = trimmed.parse::<i64>().map(Value::from);
    let fraction = || trimmed.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    whole.ok().or_else(fraction).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The configuration that belongs to one row of a results file; null where none does.
///
/// An only configuration belongs to every row. Of several it is the one whose `model` is the row's, exactly or in part and
/// whatever its case and punctuation, and whose `benchmark` is not another than the row's.
#[must_use]
pub fn config_of_row(configs: &Value, row: &ResultsRow<'_>) -> Value {
    let list = match configs {
        Value::Array(list) => list.as_slice(),
        other => return other.clone(),
    };
    if let [only] = list {
        return only.clone();
    }
    let model = normalised(row.get("model").unwrap_or_default());
    let benchmark = row.get("benchmark").map(str::trim).filter(|text| !is_blank(text));
    // The first of the best: equal names go before names that are part of another.
    let mut best: Option<(usize, &Value)> = None;
    for config in list {
        let other = config.get("benchmark").map(plain).filter(|text| !is_blank(text));
        let other_benchmark = matches!((benchmark, &other), (Some(ours), Some(theirs)) if ours != theirs.trim());
        let Some(rank) = closeness(&model, &normalised(&config.get("model").map(plain).unwrap_or_default())) else {
            continue;
        };
        let rank = rank * 2 + usize::from(benchmark.is_some() && other.is_some());
        if !other_benchmark && best.is_none_or(|(found, _)| rank > found) {
            best = Some((rank, config));
        }
    }
    best.map_or(Value::Null, |(_, config)| config.clone())
}

/// How close two normalised names are; none where neither is part of the other.
fn closeness(one: &str, other: &str) -> Option<usize> {
    if one.is_empty() || other.is_empty() {
        None
    } else if one == other {
        Some(usize::MAX / 4)
    } else if one.contains(other) || other.contains(one) {
        Some(one.len().min(other.len()))
    } else {
        None
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn normalised(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::super::multiple::Results;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_config_argument_counts() {
        assert_eq!(config_argument("--a 1 --config x.yaml --config y.json").as_deref(), Some("x.yaml"));
        assert_eq!(config_argument("--config 'my file.csv'").as_deref(), Some("my file.csv"));
        assert_eq!(config_argument("--config=x.yaml"), None);
        assert_eq!(config_argument("--config"), None);
        assert_eq!(config_argument("it's --config a.csv").as_deref(), Some("a.csv"));
    }

    #[test]
    fn candidates_go_from_the_script_up_to_the_root_of_its_repository() {
        let names = |scripts: &str, is_file| -> Vec<String> {
            let paths = candidates(Path::new("/t"), scripts, is_file, "c.csv");
            paths.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            names("scripts/MAD/a/b", false),
            ["/t/scripts/MAD/a/b/c.csv", "/t/scripts/MAD/a/c.csv", "/t/scripts/MAD/c.csv"]
        );
        assert_eq!(
            names("scripts/a/b/run.sh", true),
            ["/t/scripts/a/b/c.csv", "/t/scripts/c.csv", "/t/scripts/a/c.csv"]
        );
        assert_eq!(candidates(Path::new("/t"), "scripts/a", false, "/x/c.csv"), [Path::new("/x/c.csv")]);
    }

    #[test]
    fn the_first_file_that_is_there_is_loaded() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("scripts/a/configs")).unwrap();
        std::fs::write(tree.path().join("scripts/a/run.sh"), "").unwrap();
        let load = || load_configs(tree.path(), "scripts/a/run.sh", "--config configs/c.yaml");
        assert_eq!(load().unwrap(), Value::Null);
        std::fs::write(tree.path().join("scripts/a/configs/c.yaml"), "a: &x {b: 1}\nc: {<<: *x, 2: .inf}\n").unwrap();
        assert_eq!(load().unwrap()["c"]["b"], json!(1));
        std::fs::write(tree.path().join("scripts/a/configs/c.yaml"), "a: [").unwrap();
        assert!(load().unwrap_err().to_string().contains("c.yaml"));
    }

    #[test]
    fn cells_of_a_table_are_typed_and_blank_rows_dropped() {
        let value = parse("csv", b"model, seq,lr\nA,128,1e-4\n,,\nB,,x\n").unwrap();
        assert_eq!(value, json!([{"model": "A", "seq": 128, "lr": 0.0001}, {"model": "B", "seq": null, "lr": "x"}]));
        assert_eq!(parse("toml", b"a = 1").unwrap(), Value::Null);
        assert_eq!(parse("json", b"{\"a\": [1]}").unwrap(), json!({"a": [1]}));
        assert!(parse("json", b"{").is_err());
        assert!(parse("yaml", b"a: [\xff").is_err());
    }

    #[test]
    fn every_row_gets_its_own_configuration() {
        let results = Results::parse(
            b"model,performance,metric,benchmark\nmeta/Llama-3.1-8B,1,m,latency\nLlama 3.1 70B,1,m,latency\nLlama-3.1-8B,1,m,throughput\nother,1,m,\n",
        )
        .unwrap();
        let configs = json!([
            {"model": "llama_3.1", "id": 0, "benchmark": "latency"},
            {"model": "Llama-3.1-8B", "id": 1, "benchmark": "latency"},
            {"model": "Llama-3.1-70B", "id": 2},
            {"model": "Llama-3.1-8B", "id": 3, "benchmark": "throughput"},
        ]);
        let ids: Vec<Value> = results.rows().map(|row| config_of_row(&configs, &row)["id"].clone()).collect();
        assert_eq!(ids, [json!(1), json!(2), json!(3), Value::Null]);
        let row = results.rows().next().unwrap();
        assert_eq!(config_of_row(&json!([{"model": "zzz"}]), &row), json!({"model": "zzz"}));
        assert_eq!(config_of_row(&json!({"a": 1}), &row), json!({"a": 1}));
        assert_eq!(config_of_row(&json!([]), &row), Value::Null);
    }
}
