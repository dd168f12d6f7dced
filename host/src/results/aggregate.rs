//! What several nodes measured, as one value: only where the metric's type says how.
//!
//! The type is read from the words of the metric's name (`presets/metrics.json`). It must never combine what has no defined
//! aggregate: percentages, figures per device, latencies.

use serde::Deserialize;

use super::metric::Metric;

const TABLE: &str = include_str!("../../../presets/metrics.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "schema")]
    _schema: u32,
    /// Words that forbid any aggregate, whatever else the name says.
    never: Vec<String>,
    /// Words of what adds up.
    sum: Vec<String>,
    /// Units of time: what comes `per` one of them, or over it, adds up.
    sum_rates: Vec<String>,
    /// Words of what the largest stands for.
    greatest: Vec<String>,
}

/// How values of several nodes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// They add up.
    Sum,
    /// The largest counts.
    Greatest,
    /// No aggregate is defined.
    Undefined,
}

/// What several nodes measured, taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Together {
    /// No node printed a metric.
    Nothing,
    /// The metric of the job.
    Metric(Metric),
    /// There are values, and no honest way to make one of them. The text says why.
    Unclear(String),
}

/// How values of a metric combine.
#[must_use]
pub fn combine(name: &str) -> Combine {
    let Ok(table) = serde_json::from_str::<Table>(TABLE) else { return Combine::Undefined };
    let name = name.to_lowercase();
    if name.contains('%') {
        return Combine::Undefined;
    }
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let has = |list: &[String]| words.iter().any(|word| list.iter().any(|known| known == word));
    // In `tokens_per_second` and `tokens/s` the unit of time makes a rate; elsewhere it makes a duration.
    let rate = words
        .iter()
        .zip(words.iter().skip(1))
        .any(|(word, unit)| *word == "per" && table.sum_rates.iter().any(|known| known == unit))
        || table.sum_rates.iter().any(|unit| name.ends_with(&format!("/{unit}")));
    // A figure for each of something, as `throughput_per_node`: the whole is not their sum.
    let is_time = |unit: &str| table.sum_rates.iter().any(|known| known == unit);
    let for_each = words.iter().zip(words.iter().skip(1)).any(|(word, unit)| *word == "per" && !is_time(unit));
    let forbidden = for_each
        || words.iter().any(|word| {
            table.never.iter().any(|known| known == word)
                && !(rate
                    && table.sum_rates.iter().any(|unit| unit.trim_end_matches('s') == word.trim_end_matches('s')))
        });
    if forbidden {
        Combine::Undefined
    } else if rate || has(&table.sum) {
        Combine::Sum
    } else if has(&table.greatest) {
        Combine::Greatest
    } else {
        Combine::Undefined
    }
}

/// Whose figures a job is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speakers {
    /// How many nodes report.
    pub nodes: u32,
    /// Each of them works for itself, so that none speaks for another.
    pub replicas: bool,
}

impl Speakers {
    /// Whether one node may speak for all of them: also for replicas where no aggregate of theirs could be made.
    #[must_use]
    pub fn one_speaks(self, metric: &str) -> bool {
        !self.replicas || self.nodes == 1 || combine(metric) == Combine::Undefined
    }
}

/// The metric of a job on several nodes. One node that printed speaks for the job, as the first rank of a program that
/// gathers its own results does, unless its nodes work each for itself; several are taken together, and then all of them
/// are needed.
#[must_use]
pub fn together(metrics: &[(u32, Metric)], of: Speakers) -> Together {
    let nodes = of.nodes;
    let (first, others) = match metrics.split_first() {
        None => return Together::Nothing,
        Some(((_, metric), [])) if of.one_speaks(&metric.name) => return Together::Metric(metric.clone()),
        Some(((_, first), others)) => (first, others),
    };
    if let Some((node, other)) = others.iter().find(|(_, other)| other.name != first.name) {
        return Together::Unclear(format!("node {node} measured `{}`, the first one `{}`", other.name, first.name));
    }
    let values: Vec<&str> = metrics.iter().map(|(_, metric)| metric.value.as_str()).collect();
    let count = u32::try_from(metrics.len()).unwrap_or(u32::MAX);
    match combine(&first.name) {
        Combine::Undefined => Together::Unclear(format!(
            "{count} nodes measured `{}`, for which no aggregate is defined; print it on one node only",
            first.name
        )),
        _ if count < nodes => Together::Unclear(incomplete(count, of, &format!("measured `{}`", first.name))),
        Combine::Sum => match sum(&values) {
            Some(value) => Together::Metric(Metric { value, name: first.name.clone() }),
            None => Together::Unclear(format!("the values of `{}` cannot be added", first.name)),
        },
        Combine::Greatest => {
            let value = greatest(&values).unwrap_or_else(|| first.value.clone());
            Together::Metric(Metric { value, name: first.name.clone() })
        }
    }
}

/// Some of the nodes did what all of them have to.
pub(super) fn incomplete(count: u32, of: Speakers, did: &str) -> String {
    let why = if of.replicas { ", and each of them works for itself" } else { "" };
    format!("{count} of {} nodes {did}{why}", of.nodes)
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

/// The largest, as it was written.
pub(super) fn greatest(values: &[&str]) -> Option<String> {
    values.iter().max_by(|a, b| number(a).total_cmp(&number(b))).map(|value| (*value).to_owned())
}

/// A sum with as many decimals as its most exact term has, so that binary fractions add no digits of their own.
pub(super) fn sum(values: &[&str]) -> Option<String> {
    let total: f64 = values.iter().map(|value| number(value)).sum();
    let exponent = values.iter().any(|value| value.contains(['e', 'E']));
    let decimals = values.iter().map(|value| value.split_once('.').map_or(0, |(_, fraction)| fraction.len())).max()?;
    match (total.is_finite(), exponent) {
        (false, _) => None,
        (true, true) => Some(total.to_string()),
        (true, false) => Some(format!("{total:.decimals$}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(values: &[(u32, &str, &str)]) -> Vec<(u32, Metric)> {
        values
            .iter()
            .map(|(node, value, name)| (*node, Metric { value: (*value).to_owned(), name: (*name).to_owned() }))
            .collect()
    }

    fn nodes(nodes: u32) -> Speakers {
        Speakers { nodes, replicas: false }
    }

    #[test]
    fn no_node_speaks_for_others_that_work_for_themselves() {
        let replicas = Speakers { nodes: 2, replicas: true };
        let one = metrics(&[(0, "5", "tokens_per_second")]);
        let Together::Unclear(why) = together(&one, replicas) else { panic!("half of the value") };
        assert_eq!(why, "1 of 2 nodes measured `tokens_per_second`, and each of them works for itself");
        let both = metrics(&[(0, "5", "tokens_per_second"), (1, "6", "tokens_per_second")]);
        assert!(matches!(together(&both, replicas), Together::Metric(metric) if metric.value == "11"));
        assert_eq!(together(&[], replicas), Together::Nothing);
        let latency = metrics(&[(1, "5", "latency_ms")]);
        assert!(matches!(together(&latency, replicas), Together::Metric(_)), "there could be no other figure");
        assert!(matches!(together(&one, Speakers { nodes: 1, replicas: true }), Together::Metric(_)));
    }

    #[test]
    fn rates_add_up_and_what_is_per_device_or_a_share_or_a_time_does_not() {
        for name in [
            "samples_per_second",
            "tokens/s",
            "images/sec",
            "Throughput",
            "frames_per_second",
            "fps",
            "TFLOPS",
            "requests_per_sec",
            "bandwidth_gb",
        ] {
            assert_eq!(combine(name), Combine::Sum, "{name}");
        }
        for name in [
            "tokens_per_second_per_gpu",
            "tflops_per_gcd",
            "tflops/gcd",
            "throughput_per_chip",
            "throughput_per_rank",
            "throughput/core",
            "accelerator_throughput",
            "throughput_per_node",
            "throughput_std",
            "mfu",
            "utilization_percent",
            "%",
            "latency_ms",
            "ttft",
            "seconds",
            "time_ms",
            "accuracy",
            "loss",
            "score",
            "parameters",
        ] {
            assert_eq!(combine(name), Combine::Undefined, "{name}");
        }
        for name in ["peak_memory", "memory_gb", "vram"] {
            assert_eq!(combine(name), Combine::Greatest, "{name}");
        }
    }

    #[test]
    fn values_of_all_nodes_are_added_without_digits_of_their_own() {
        let all = metrics(&[(0, "0.1", "tokens_per_second"), (1, "0.2", "tokens_per_second")]);
        let Together::Metric(metric) = together(&all, nodes(2)) else { panic!("unclear") };
        assert_eq!(metric.value, "0.3");
    }

    #[test]
    fn a_missing_node_is_not_left_out_of_a_sum() {
        let some = metrics(&[(0, "10", "tokens_per_second"), (2, "30", "tokens_per_second")]);
        assert_eq!(
            together(&some, nodes(3)),
            Together::Unclear("2 of 3 nodes measured `tokens_per_second`".to_owned())
        );
    }

    #[test]
    fn one_node_that_printed_speaks_for_the_job() {
        let one = metrics(&[(0, "5", "latency_ms")]);
        assert!(matches!(together(&one, nodes(4)), Together::Metric(metric) if metric.value == "5"));
        assert_eq!(together(&[], nodes(4)), Together::Nothing);
    }

    #[test]
    fn what_has_no_aggregate_is_not_aggregated() {
        let both = metrics(&[(0, "5", "latency_ms"), (1, "6", "latency_ms")]);
        assert!(matches!(together(&both, nodes(2)), Together::Unclear(why) if why.contains("no aggregate is defined")));
        let mixed = metrics(&[(0, "5", "a_per_second"), (1, "6", "b_per_second")]);
        assert!(matches!(together(&mixed, nodes(2)), Together::Unclear(_)));
    }

    #[test]
    fn the_largest_stands_for_memory() {
        let both = metrics(&[(0, "9", "memory_gb"), (1, "11.5", "memory_gb")]);
        assert!(matches!(together(&both, nodes(2)), Together::Metric(metric) if metric.value == "11.5"));
    }
}
