//! When a preset applies: a small language of data. It compares values at places that the data names; it must never know
//! what any of them means.

use serde::Deserialize;
use serde_json::Value;

use super::gpus::Count;
use super::path::KeyPath;
use super::scalar_text;
use super::schema::look_up;

/// When a preset applies.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// The job goes to this target.
    Target(String),
    /// The value at a place is this one; case does not matter, nor whether a number is written as a text.
    Equals {
        /// Where.
        key: String,
        /// What.
        value: Value,
    },
    /// The value at a place is a number above this one, or a text of one.
    Over {
        /// Where.
        key: String,
        /// The number.
        number: f64,
    },
    /// There is something at a place: neither null nor a blank text.
    Present(String),
    /// More GPUs than this are asked for on each node.
    GpusOver(u32),
    /// Every one holds.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
    /// Not one holds.
    None(Vec<Condition>),
}

/// What conditions are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The target's name that counts.
    pub target: &'a str,
    /// The configuration so far.
    pub config: &'a Value,
    /// How many GPUs each node is asked for.
    pub gpus: Count,
}

impl Condition {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Target(name) => name == facts.target,
            Self::Equals { key, value } => found(facts, key).is_some_and(|there| same(there, value)),
            Self::Over { key, number } => found(facts, key).and_then(number_of).is_some_and(|there| there > *number),
            Self::Present(key) => {
                found(facts, key).is_some_and(|there| !there.as_str().is_some_and(|text| text.trim().is_empty()))
            }
            Self::GpusOver(count) => match facts.gpus {
                Count::All => true,
                Count::Exactly(asked) => asked > *count,
            },
            Self::All(all) => all.iter().all(|condition| condition.holds(facts)),
            Self::Any(any) => any.iter().any(|condition| condition.holds(facts)),
            Self::None(none) => !none.iter().any(|condition| condition.holds(facts)),
        }
    }

    /// The targets that it speaks of.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        match self {
            Self::Target(name) => vec![name],
            Self::All(several) | Self::Any(several) => several.iter().flat_map(Self::targets).collect(),
            _ => Vec::new(),
        }
    }
}

fn found<'a>(facts: &Facts<'a>, key: &str) -> Option<&'a Value> {
    look_up(facts.config.as_object()?, KeyPath::from(key).keys()).filter(|value| !value.is_null())
}

/// Whether two values say the same.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (number_of(a), number_of(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => match (scalar_text(a), scalar_text(b)) {
            (Some(a), Some(b)) => a.trim().eq_ignore_ascii_case(b.trim()),
            _ => a == b,
        },
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(condition: Value, config: &Value) -> bool {
        let condition: Condition = serde_json::from_value(condition).unwrap();
        condition.holds(&Facts { target: "farm", config, gpus: Count::Exactly(2) })
    }

    #[test]
    fn each_word_of_the_language_means_what_it_says() {
        let config = json!({
            "a": {"n": "4", "t": "Acme", "yes": true, "null": null, "blank": " ", "list": [1]}, "n": 1
        });
        for (condition, expected) in [
            (json!({"target": "farm"}), true),
            (json!({"target": "cloud"}), false),
            (json!({"equals": {"key": "a.t", "value": "ACME"}}), true),
            (json!({"equals": {"key": "a.n", "value": 4}}), true),
            (json!({"equals": {"key": "a.n", "value": 4.5}}), false),
            (json!({"equals": {"key": "a.yes", "value": true}}), true),
            (json!({"equals": {"key": "a.list", "value": [1]}}), true),
            (json!({"equals": {"key": "absent", "value": null}}), false),
            (json!({"over": {"key": "a.n", "number": 3}}), true),
            (json!({"over": {"key": "a.n", "number": 4}}), false),
            (json!({"over": {"key": "a.t", "number": 0}}), false),
            (json!({"over": {"key": "n.deeper", "number": 0}}), false),
            (json!({"present": "a.t"}), true),
            (json!({"present": "a.null"}), false),
            (json!({"present": "a.blank"}), false),
            (json!({"gpus_over": 1}), true),
            (json!({"gpus_over": 2}), false),
            (json!({"all": []}), true),
            (json!({"any": []}), false),
            (json!({"none": []}), true),
            (json!({"all": [{"target": "farm"}, {"present": "x"}]}), false),
            (json!({"any": [{"target": "cloud"}, {"present": "n"}]}), true),
            (json!({"none": [{"target": "cloud"}, {"present": "n"}]}), false),
        ] {
            assert_eq!(holds(condition.clone(), &config), expected, "{condition}");
        }
    }

    #[test]
    fn a_word_that_is_not_in_the_language_is_refused() {
        for condition in [
            json!({"under": {"key": "a", "number": 1}}),
            json!({"over": {"key": "a", "number": 1, "or_so": true}}),
            json!({"gpus_over": -1}),
            json!({"target": "a", "present": "b"}),
        ] {
            assert!(serde_json::from_value::<Condition>(condition.clone()).is_err(), "{condition}");
        }
    }
}
