//! How many accelerators a job gets, and which.
//!
//! The count has five names and five places (configuration, target sections, model card, presets, one). The selection is made from
//! a list such as `0,2-4,7` and what the machine has. Nothing here looks at the machine.

use serde_json::Value;

use super::error::{ConfigError, ConfigErrorKind};

/// The names of the count, first one first.
const FIELDS: [&str; 5] = ["gpus_per_node", "gpu_count", "n_gpus", "num_gpus", "ngpus"];

/// The name that speaks of a whole node.
const NODE: &str = "gpus_per_node";

/// The key of the vendor, and its value where there is none.
pub const VENDOR: &str = "gpu_vendor";
const NO_VENDOR: &str = "NONE";

/// The key of the list of devices.
const DEVICES: &str = "docker_gpus";

/// No machine has more: a guard against lists that are a slip of the pen.
const MOST_DEVICES: u32 = 1024;

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Every one that may be used (`-1`).
    All,
    /// So many on each node.
    Exactly(u32),
}

/// A count and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// How many.
    pub count: Count,
    /// Where it stood, such as `model.n_gpus`; `default` where nobody said.
    pub source: String,
    /// How many a whole node has, where a section or a preset says so, and where.
    pub node: Option<(u32, String)>,
    /// Values that are no numbers and were passed over.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// The number to ask a cluster for, and a sentence where "all" became one.
    ///
    /// # Errors
    /// "All" means nothing where no machine is chosen yet and nobody says what a node has.
    pub fn on_cluster(&self) -> Result<(u32, Option<String>), ConfigError> {
        match (self.count, &self.node) {
            (Count::Exactly(count), _) => Ok((count, None)),
            (Count::All, Some((count, from))) => Ok((
                *count,
                Some(format!("`{}` asks for all GPUs: a whole node of {count}, as {from} says", self.source)),
            )),
            (Count::All, None) => Err(ConfigError::new(
                ConfigErrorKind::Invalid,
                format!("a number of GPUs of -1 (all of them), as `{}` says, has no meaning on a cluster", self.source),
            )
            .on_key(&self.source)
            .hint("write how many each node should have, such as `\"gpus_per_node\": 8`")),
        }
    }
}

/// Whether a configuration says that there are no accelerators.
#[must_use]
pub fn without(config: &Value) -> bool {
    config.get(VENDOR).and_then(Value::as_str).is_some_and(|vendor| vendor.trim().eq_ignore_ascii_case(NO_VENDOR))
}

/// Finds the count: what the configuration says, its `deployment_config`, then its sections in the order given, then the
/// model card, then the presets of the sections, then one. In each place the names are tried in their order. Where the
/// vendor is none, only the configuration itself can ask for some.
#[must_use]
pub fn resolve(said: &Value, sections: &[&str], model: &Value, presets: &Value) -> Resolved {
    let mut warnings = Vec::new();
    let mut found = None;
    for (prefix, place, field) in places(said, sections) {
        found = found.or_else(|| look(place, &prefix, field, &mut warnings));
    }
    if found.is_none() && (without(said) || said.get(VENDOR).is_none() && without(presets)) {
        found = Some((Count::Exactly(0), VENDOR.to_owned()));
    }
    for field in FIELDS {
        found = found.or_else(|| look(Some(model), "model.", field, &mut warnings));
    }
    let node = [(said, ""), (presets, "the preset's ")].into_iter().find_map(|(config, whose)| {
        let mut places = places(config, sections).into_iter().filter(|(_, _, field)| *field == NODE);
        places.find_map(|(prefix, place, field)| match place.and_then(|place| place.get(field)).map(read) {
            Some(Read::Count(Count::Exactly(count))) if count > 0 => Some((count, format!("{whose}`{prefix}{field}`"))),
            _ => None,
        })
    });
    for (prefix, place, field) in places(presets, sections) {
        found = found.or_else(|| look(place, &format!("preset.{prefix}"), field, &mut warnings));
    }
    let (count, source) = found.unwrap_or((Count::Exactly(1), "default".to_owned()));
    Resolved { count, source, node, warnings }
}

/// Where a configuration may have the count, in order.
fn places<'a>(config: &'a Value, sections: &[&str]) -> Vec<(String, Option<&'a Value>, &'static str)> {
    let deployment = config.get("deployment_config");
    let mut places = Vec::new();
    for field in FIELDS {
        places.push((String::new(), Some(config), field));
        places.push(("deployment_config.".to_owned(), deployment, field));
    }
    for section in sections {
        let of_deployment = deployment.and_then(|deployment| deployment.get(*section));
        for field in FIELDS {
            places.push((format!("{section}."), config.get(*section), field));
            places.push((format!("deployment_config.{section}."), of_deployment, field));
        }
    }
    places
}

fn look(place: Option<&Value>, prefix: &str, field: &str, warnings: &mut Vec<String>) -> Option<(Count, String)> {
    let value = place?.get(field)?;
    match read(value) {
        Read::Count(count) => Some((count, format!("{prefix}{field}"))),
        Read::Nothing => None,
        Read::Unusable => {
            warnings.push(format!("`{prefix}{field}` is `{value}`, which is no number of GPUs; it is passed over"));
            None
        }
    }
}

/// A card that says what all of these say of the count; null where they do not agree.
#[must_use]
pub fn common<'a>(models: impl IntoIterator<Item = &'a Value>) -> Value {
    let mut counts = models.into_iter().map(|model| resolve(&Value::Null, &[], model, &Value::Null));
    let Some(first) = counts.next().filter(|first| first.source != "default") else { return Value::Null };
    if counts.any(|other| other.count != first.count) {
        return Value::Null;
    }
    let count = match first.count {
        Count::All => Value::from(-1),
        Count::Exactly(count) => Value::from(count),
    };
    Value::Object(serde_json::Map::from_iter([(FIELDS[2].to_owned(), count)]))
}

enum Read {
    Count(Count),
    Nothing,
    Unusable,
}

fn read(value: &Value) -> Read {
    let whole = match value {
        Value::Null => return Read::Nothing,
        Value::String(text) if text.trim().is_empty() => return Read::Nothing,
        Value::String(text) => text.trim().parse::<i64>().ok(),
        // `2.0` is a whole number, too.
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|float| float.fract() == 0.0).and_then(|float| format!("{float:.0}").parse().ok())
        }),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match whole {
        Some(-1) => Read::Count(Count::All),
        Some(count) => u32::try_from(count).map_or(Read::Unusable, |count| Read::Count(Count::Exactly(count))),
        None => Read::Unusable,
    }
}

/// Reads a list such as `0,2-4,7`: sorted, repetitions kept. A blank one is empty.
///
/// # Errors
/// A piece is neither a number nor a range.
pub fn parse_devices(text: &str) -> Result<Vec<u32>, ConfigError> {
    let mut devices = Vec::new();
    if text.trim().is_empty() {
        return Ok(devices);
    }
    for piece in text.split(',').map(str::trim) {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        let bad = |why: &str| {
            ConfigError::new(ConfigErrorKind::Invalid, format!("`{DEVICES}` is `{text}`: `{piece}` {why}"))
                .on_key(DEVICES)
                .hint("write numbers and ranges with commas between them, such as `0,2-4,7`")
        };
        let index = |text: &str| text.trim().parse::<u32>().ok();
        let (Some(first), Some(last)) = (index(first), index(last)) else {
            return Err(bad("is neither a number nor a range"));
        };
        if first > last {
            return Err(bad("is a range that ends before it begins"));
        }
        if last >= MOST_DEVICES {
            return Err(bad("is more than any machine has"));
        }
        devices.extend(first..=last);
    }
    devices.sort_unstable();
    Ok(devices)
}

/// Chooses devices: the first `count` of `listed`, or of all that the machine has where nothing is listed.
///
/// A machine without any gives none, whatever was asked: models then run without.
///
/// # Errors
/// More are asked for than there are, or one is listed that the machine does not have.
pub fn select(count: Count, listed: Option<&[u32]>, available: u32) -> Result<Vec<u32>, ConfigError> {
    if available == 0 {
        return Ok(Vec::new());
    }
    let all: Vec<u32> = (0..available).collect();
    let candidates = listed.unwrap_or(&all);
    if let Some(missing) = candidates.iter().find(|device| **device >= available) {
        return Err(ConfigError::new(
            ConfigErrorKind::Unavailable,
            format!("`{DEVICES}` names GPU {missing}, and this machine has {}", counted(available)),
        )
        .on_key(DEVICES)
        .hint(format!("they are numbered from 0 to {}", available - 1)));
    }
    let Count::Exactly(wanted) = count else { return Ok(candidates.to_vec()) };
    let enough = usize::try_from(wanted).ok().filter(|wanted| *wanted <= candidates.len());
    let Some(wanted_here) = enough.filter(|_| wanted <= available) else {
        let of = if listed.is_some() {
            format!("`{DEVICES}` lists {} of {}", candidates.len(), counted(available))
        } else {
            format!("this machine has {}", counted(available))
        };
        return Err(ConfigError::new(ConfigErrorKind::Unavailable, format!("Too many gpus requested({wanted}): {of}"))
            .on_key("n_gpus")
            .hint("ask for fewer with `\"n_gpus\"` in the context or the model card, for all with -1, or list more"));
    };
    Ok(candidates.iter().take(wanted_here).copied().collect())
}

fn counted(count: u32) -> String {
    if count == 1 { "1 GPU".to_owned() } else { format!("{count} GPUs") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(config: Value, model: Value) -> (Count, String) {
        let presets = json!({"farm": {"gpus_per_node": 8}});
        let resolved = resolve(&config, &["farm", "cloud"], &model, &presets);
        (resolved.count, resolved.source)
    }

    #[test]
    fn the_contract_s_order_of_precedence_holds() {
        let model = || json!({"n_gpus": "4"});
        let cases = [
            (json!({}), json!({}), Count::Exactly(8), "preset.farm.gpus_per_node"),
            (json!({"gpu_vendor": "none"}), model(), Count::Exactly(0), "gpu_vendor"),
            (json!({"gpu_vendor": "ACME"}), model(), Count::Exactly(4), "model.n_gpus"),
            (json!({"farm": {"n_gpus": 0}}), model(), Count::Exactly(0), "farm.n_gpus"),
            (json!({"farm": {"n_gpus": "many"}}), model(), Count::Exactly(4), "model.n_gpus"),
            (json!({"gpus_per_node": -1, "cloud": {"gpu_count": 2}}), model(), Count::All, "gpus_per_node"),
            (json!({}), model(), Count::Exactly(4), "model.n_gpus"),
            (json!({}), json!({"n_gpus": "-1"}), Count::All, "model.n_gpus"),
            (json!({"cloud": {"gpu_count": 2}}), model(), Count::Exactly(2), "cloud.gpu_count"),
            (json!({"cloud": {"gpu_count": 2}, "farm": {"ngpus": 3}}), model(), Count::Exactly(3), "farm.ngpus"),
            (json!({"farm": {"gpus_per_node": 8}, "num_gpus": "5"}), model(), Count::Exactly(5), "num_gpus"),
            (json!({"ngpus": 1, "gpu_count": 2}), model(), Count::Exactly(2), "gpu_count"),
            (
                json!({"n_gpus": 1, "deployment_config": {"gpu_count": 2}}),
                model(),
                Count::Exactly(2),
                "deployment_config.gpu_count",
            ),
            (json!({"gpu_count": 1, "deployment_config": {"gpu_count": 2}}), model(), Count::Exactly(1), "gpu_count"),
            (json!({"gpus_per_node": ""}), model(), Count::Exactly(4), "model.n_gpus"),
            (json!({"gpus_per_node": 2.0}), model(), Count::Exactly(2), "gpus_per_node"),
        ];
        for (config, model, count, source) in cases {
            assert_eq!(found(config.clone(), model), (count, source.to_owned()), "{config}");
        }
    }

    #[test]
    fn what_is_no_number_is_passed_over_with_a_warning() {
        let resolved =
            resolve(&json!({"gpus_per_node": "many", "n_gpus": -7}), &[], &json!({"n_gpus": 2}), &Value::Null);
        assert_eq!(resolved.count, Count::Exactly(2));
        assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
    }

    #[test]
    fn all_is_a_whole_node_where_somebody_says_what_one_has_and_nothing_elsewhere() {
        let all = json!({"n_gpus": "-1"});
        let ask = |said: Value, presets: Value| resolve(&said, &["farm"], &all, &presets).on_cluster();
        assert!(ask(json!({}), json!({})).unwrap_err().hint.unwrap().contains("gpus_per_node"));
        assert!(ask(json!({}), json!({"farm": {"gpu_count": 1}})).is_err(), "a share is no whole node");
        let (count, said) = ask(json!({}), json!({"farm": {"gpus_per_node": 8}})).unwrap();
        assert_eq!(count, 8);
        assert!(said.unwrap().contains("`model.n_gpus` asks for all GPUs: a whole node of 8"));
        let own = json!({"n_gpus": -1, "farm": {"gpus_per_node": 4}});
        assert_eq!(ask(own, json!({"farm": {"gpus_per_node": 8}})).unwrap().0, 4);
        assert_eq!(ask(json!({"farm": {"gpus_per_node": 3}}), json!({})).unwrap(), (3, None));
    }

    #[test]
    fn nobody_saying_anything_is_one_and_cards_speak_together_where_they_agree() {
        assert_eq!(resolve(&json!({}), &[], &json!({}), &json!({})).source, "default");
        let cards = |counts: &[Value]| {
            let cards: Vec<Value> = counts.iter().map(|count| json!({"n_gpus": count})).collect();
            common(&cards)
        };
        assert_eq!(cards(&[json!("8"), json!(8)]), json!({"n_gpus": 8}));
        assert_eq!(cards(&[json!("-1")]), json!({"n_gpus": -1}));
        assert_eq!(cards(&[json!(8), json!(1)]), Value::Null);
        assert_eq!(cards(&[json!("")]), Value::Null);
        assert_eq!(cards(&[]), Value::Null);
    }

    #[test]
    fn a_list_of_devices_is_read_sorted_and_with_repetitions() {
        assert_eq!(parse_devices("7, 0,2-4,3").unwrap(), [0, 2, 3, 3, 4, 7]);
        assert_eq!(parse_devices(" ").unwrap(), [0_u32; 0]);
        for bad in ["a", "0,,1", "1-", "-1", "4-2", "0-99999999999", "0-4000000000", "0;1", "0-1-2", "١"] {
            let error = parse_devices(bad).unwrap_err();
            assert!(error.hint.is_some() && error.key.as_deref() == Some("docker_gpus"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_first_of_the_list_are_used_and_more_than_there_are_is_refused() {
        let listed = [0, 2, 3, 7];
        assert_eq!(select(Count::Exactly(2), Some(&listed), 8).unwrap(), [0, 2]);
        assert_eq!(select(Count::All, Some(&listed), 8).unwrap(), listed);
        assert_eq!(select(Count::All, None, 2).unwrap(), [0, 1]);
        assert_eq!(select(Count::Exactly(0), None, 2).unwrap(), [0_u32; 0]);
        assert_eq!(
            select(Count::Exactly(9), Some(&listed), 0).unwrap(),
            [0_u32; 0],
            "a machine without any runs anything"
        );
        let refused = select(Count::Exactly(5), Some(&listed), 8).unwrap_err();
        assert_eq!(refused.to_string(), "Too many gpus requested(5): `docker_gpus` lists 4 of 8 GPUs");
        assert!(select(Count::Exactly(2), None, 1).unwrap_err().to_string().contains("this machine has 1 GPU"));
        assert!(select(Count::Exactly(1), Some(&[9]), 8).unwrap_err().to_string().contains("names GPU 9"));
    }

    proptest! {
        #[test]
        fn a_list_that_is_printed_is_read_back(mut devices in prop::collection::vec(0_u32..MOST_DEVICES, 1..20)) {
            let text: Vec<String> = devices.iter().map(u32::to_string).collect();
            devices.sort_unstable();
            prop_assert_eq!(parse_devices(&text.join(",")).unwrap(), devices);
        }

        #[test]
        fn no_list_makes_it_panic(text in "[0-9,\\- a]{0,20}") {
            let _ = parse_devices(&text);
        }
    }
}
