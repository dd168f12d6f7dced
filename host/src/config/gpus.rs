//! How many accelerators a job gets, and which.
//!
//! The count has five names and four places (configuration, target sections, model card, one). The selection is made from
//! a list such as `0,2-4,7` and what the machine has. Nothing here looks at the machine.

use serde_json::Value;

use super::error::{ConfigError, ConfigErrorKind};

/// The names of the count, first one first.
const FIELDS: [&str; 5] = ["gpus_per_node", "gpu_count", "n_gpus", "num_gpus", "ngpus"];

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

impl Count {
    /// The number to ask a cluster for.
    ///
    /// # Errors
    /// "All" means nothing where no machine is chosen yet.
    pub fn on_cluster(self) -> Result<u32, ConfigError> {
        match self {
            Self::Exactly(count) => Ok(count),
            Self::All => Err(ConfigError::new(
                ConfigErrorKind::Invalid,
                "a number of GPUs of -1 (all of them) has no meaning on a cluster",
            )
            .on_key("n_gpus")
            .hint("write how many each node should have, such as `\"gpus_per_node\": 8`")),
        }
    }
}

/// A count and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// How many.
    pub count: Count,
    /// Where it stood, such as `model.n_gpus`; `default` where nobody said.
    pub source: String,
    /// Values that are no numbers and were passed over.
    pub warnings: Vec<String>,
}

/// Finds the count: the configuration, its `deployment_config`, then the sections in the order given, then the model card,
/// then one. In each place the names are tried in their order.
#[must_use]
pub fn resolve(config: &Value, sections: &[&str], model: &Value) -> Resolved {
    let mut warnings = Vec::new();
    let deployment = config.get("deployment_config");
    let whole = FIELDS.iter().flat_map(|field| {
        [(String::new(), Some(config), *field), ("deployment_config.".to_owned(), deployment, *field)]
    });
    let in_sections = sections.iter().flat_map(|section| {
        let of_deployment = deployment.and_then(|deployment| deployment.get(*section));
        FIELDS.iter().flat_map(move |field| {
            [
                (format!("{section}."), config.get(*section), *field),
                (format!("deployment_config.{section}."), of_deployment, *field),
            ]
        })
    });
    let in_model = FIELDS.iter().map(|field| ("model.".to_owned(), Some(model), *field));
    for (prefix, place, field) in whole.chain(in_sections).chain(in_model) {
        let Some(value) = place.and_then(|place| place.get(field)) else { continue };
        match read(value) {
            Read::Count(count) => return Resolved { count, source: format!("{prefix}{field}"), warnings },
            Read::Nothing => {}
            Read::Unusable => {
                warnings.push(format!("`{prefix}{field}` is `{value}`, which is no number of GPUs; it is passed over"))
            }
        }
    }
    Resolved { count: Count::Exactly(1), source: "default".to_owned(), warnings }
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
        let resolved = resolve(&config, &["farm", "cloud"], &model);
        (resolved.count, resolved.source)
    }

    #[test]
    fn the_contract_s_order_of_precedence_holds() {
        let model = || json!({"n_gpus": "4"});
        let cases = [
            (json!({}), json!({}), Count::Exactly(1), "default"),
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
        let resolved = resolve(&json!({"gpus_per_node": "many", "n_gpus": -7}), &[], &json!({"n_gpus": 2}));
        assert_eq!(resolved.count, Count::Exactly(2));
        assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
    }

    #[test]
    fn all_has_no_meaning_on_a_cluster() {
        assert!(Count::All.on_cluster().unwrap_err().hint.unwrap().contains("gpus_per_node"));
        assert_eq!(Count::Exactly(3).on_cluster().unwrap(), 3);
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
