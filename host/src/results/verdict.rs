//! Three answers for each job, kept apart: did it execute, is there evidence, and the verdict derived from both.
//!
//! [`decide`] is the only function that makes a [`Verdict`]. It must never look at anything but its two arguments, and
//! never succeed for want of evidence.

use std::fmt;

/// Whether and how the job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    /// Its program ended by itself with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
    /// It never ran: bad image, unschedulable, refused. The text says why.
    NeverStarted(String),
    /// Its surroundings took it away: node failure, eviction, preemption, out of memory.
    Lost,
    /// Its engine has no answer any more.
    Unknown,
}

/// What was to be expected of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// A result.
    Result,
    /// Nothing but a good end: another node reports (a worker).
    NoResult,
    /// Its surroundings, but not the model: the user asked to skip it.
    NoModel,
    /// Nothing at all: the job was left out, such as for an architecture that the model does not support.
    Nothing,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measurement {
    /// The log has a metric.
    Metric,
    /// The results file has rows.
    Rows,
    /// There is something and it cannot be used. The text says why.
    Unusable(String),
    /// Nothing.
    Missing,
}

/// What the log says beyond the metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvidence {
    /// It was read, or the scan was turned off, and nothing speaks against success.
    Clean,
    /// A line has an error pattern.
    ErrorPattern {
        /// From 1.
        line: u64,
        /// The pattern.
        pattern: String,
    },
    /// There is no log, or not all of it.
    Unavailable,
}

/// Which nodes brought evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes {
    /// Nodes asked for.
    pub expected: u32,
    /// Nodes that reported.
    pub reported: u32,
}

impl Nodes {
    /// One node, which reported.
    pub const ONE: Self = Self { expected: 1, reported: 1 };

    fn complete(self) -> bool {
        self.reported >= self.expected
    }
}

/// All that speaks for or against success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What was to be expected.
    pub expectation: Expectation,
    /// What was measured.
    pub measurement: Measurement,
    /// What the log says.
    pub log: LogEvidence,
    /// Which nodes reported.
    pub nodes: Nodes,
}

/// The answer that the row carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ran, and there is the evidence that was asked for.
    Success,
    /// It did not, or there is not.
    Failure(Reason),
    /// It was not to run.
    Skipped,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It did not execute to a good end.
    Execution(Execution),
    /// Its log has an error pattern.
    ErrorPattern {
        /// From 1.
        line: u64,
        /// The pattern.
        pattern: String,
    },
    /// Fewer nodes reported than were asked for.
    Incomplete(Nodes),
    /// What it measured cannot be used: its results file, or the values of its nodes.
    UnusableResults(String),
    /// It ended well and measured nothing.
    NoMeasurement,
    /// It ended well, nothing was measured elsewhere, and the log is gone.
    LogUnavailable,
}

impl Verdict {
    /// The word in the column `status`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure(_) => "FAILURE",
            Self::Skipped => "SKIPPED",
        }
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it ended with exit code {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal} ended it"),
            Self::TimedOut => f.write_str("its time was over"),
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::NeverStarted(why) if why.is_empty() => f.write_str("it never started"),
            Self::NeverStarted(why) => write!(f, "it never started: {why}"),
            Self::Lost => f.write_str("its surroundings took it away"),
            Self::Unknown => f.write_str("its engine has no answer about it"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execution(execution) => execution.fmt(f),
            Self::ErrorPattern { line, pattern } => {
                write!(f, "line {line} of its log has the error pattern `{pattern}`")
            }
            Self::Incomplete(nodes) => write!(f, "{} of {} nodes reported", nodes.reported, nodes.expected),
            Self::UnusableResults(why) => write!(f, "what it measured cannot be used: {why}"),
            Self::NoMeasurement => f.write_str("it measured nothing: the log has no performance line"),
            Self::LogUnavailable => {
                f.write_str("evidence unavailable: its log is gone, and nothing was measured elsewhere")
            }
        }
    }
}

/// The verdict on a job. The first line that applies decides; `*` is anything.
///
/// | expectation | execution | log | nodes | measurement | verdict |
/// |---|---|---|---|---|---|
/// | nothing | * | * | * | * | skipped |
/// | * | other | * | * | * | failure: execution |
/// | no-model | exit 0 | * | * | * | skipped |
/// | * | exit 0 | error-pattern | * | * | failure: error-pattern |
/// | * | exit 0 | * | incomplete | * | failure: incomplete |
/// | * | exit 0 | * | complete | metric | success |
/// | * | exit 0 | * | complete | rows | success |
/// | no-result | exit 0 | * | complete | * | success |
/// | result | exit 0 | * | complete | unusable | failure: unusable-results |
/// | result | exit 0 | unavailable | complete | missing | failure: log-unavailable |
/// | result | exit 0 | clean | complete | missing | failure: no-measurement |
#[must_use]
pub fn decide(execution: &Execution, evidence: &Evidence) -> Verdict {
    if evidence.expectation == Expectation::Nothing {
        return Verdict::Skipped;
    }
    if *execution != Execution::Exited(0) {
        return Verdict::Failure(Reason::Execution(execution.clone()));
    }
    if evidence.expectation == Expectation::NoModel {
        return Verdict::Skipped;
    }
    if let LogEvidence::ErrorPattern { line, pattern } = &evidence.log {
        return Verdict::Failure(Reason::ErrorPattern { line: *line, pattern: pattern.clone() });
    }
    if !evidence.nodes.complete() {
        return Verdict::Failure(Reason::Incomplete(evidence.nodes));
    }
    match &evidence.measurement {
        Measurement::Metric | Measurement::Rows => Verdict::Success,
        _ if evidence.expectation == Expectation::NoResult => Verdict::Success,
        Measurement::Unusable(why) => Verdict::Failure(Reason::UnusableResults(why.clone())),
        Measurement::Missing if evidence.log == LogEvidence::Unavailable => Verdict::Failure(Reason::LogUnavailable),
        Measurement::Missing => Verdict::Failure(Reason::NoMeasurement),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The truth table as the documentation of [`decide`] has it.
    fn documented() -> Vec<Vec<String>> {
        include_str!("verdict.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | "))
            .skip(1)
            .map(|line| line.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect()
    }

    fn named(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Success => "success".to_owned(),
            Verdict::Skipped => "skipped".to_owned(),
            Verdict::Failure(reason) => format!(
                "failure: {}",
                match reason {
                    Reason::Execution(_) => "execution",
                    Reason::ErrorPattern { .. } => "error-pattern",
                    Reason::Incomplete(_) => "incomplete",
                    Reason::UnusableResults(_) => "unusable-results",
                    Reason::NoMeasurement => "no-measurement",
                    Reason::LogUnavailable => "log-unavailable",
                }
            ),
        }
    }

    #[test]
    fn every_combination_has_the_verdict_of_the_documented_table_and_every_line_is_needed() {
        let executions = [
            (Execution::Exited(0), "exit 0"),
            (Execution::Exited(1), "other"),
            (Execution::Exited(-1), "other"),
            (Execution::Signalled(9), "other"),
            (Execution::TimedOut, "other"),
            (Execution::Cancelled, "other"),
            (Execution::NeverStarted("no image".to_owned()), "other"),
            (Execution::Lost, "other"),
            (Execution::Unknown, "other"),
        ];
        let expectations = [
            (Expectation::Result, "result"),
            (Expectation::NoResult, "no-result"),
            (Expectation::NoModel, "no-model"),
            (Expectation::Nothing, "nothing"),
        ];
        let logs = [
            (LogEvidence::Clean, "clean"),
            (LogEvidence::ErrorPattern { line: 3, pattern: "FAILED".to_owned() }, "error-pattern"),
            (LogEvidence::Unavailable, "unavailable"),
        ];
        let nodes = [
            (Nodes::ONE, "complete"),
            (Nodes { expected: 0, reported: 0 }, "complete"),
            (Nodes { expected: 2, reported: 2 }, "complete"),
            (Nodes { expected: 2, reported: 1 }, "incomplete"),
            (Nodes { expected: 1, reported: 0 }, "incomplete"),
        ];
        let measurements = [
            (Measurement::Metric, "metric"),
            (Measurement::Rows, "rows"),
            (Measurement::Unusable("no column `metric`".to_owned()), "unusable"),
            (Measurement::Missing, "missing"),
        ];
        let table = documented();
        assert_eq!(table.len(), 11);
        let mut used = vec![false; table.len()];
        for (execution, execution_word) in &executions {
            for (expectation, expectation_word) in &expectations {
                for (log, log_word) in &logs {
                    for (nodes, nodes_word) in &nodes {
                        for (measurement, measurement_word) in &measurements {
                            let words = [*expectation_word, *execution_word, *log_word, *nodes_word, *measurement_word];
                            let applies = |line: &Vec<String>| {
                                words.iter().zip(line).all(|(word, cell)| cell == "*" || cell == word)
                            };
                            let line =
                                table.iter().position(applies).unwrap_or_else(|| panic!("no line for {words:?}"));
                            used[line] = true;
                            let evidence = Evidence {
                                expectation: *expectation,
                                measurement: measurement.clone(),
                                log: log.clone(),
                                nodes: *nodes,
                            };
                            assert_eq!(named(&decide(execution, &evidence)), table[line][5], "{words:?}");
                        }
                    }
                }
            }
        }
        assert!(used.iter().all(|used| *used), "a line decides nothing: {used:?}");
    }

    #[test]
    fn a_lost_log_with_rows_from_a_file_is_still_a_success() {
        let evidence = Evidence {
            expectation: Expectation::Result,
            measurement: Measurement::Rows,
            log: LogEvidence::Unavailable,
            nodes: Nodes::ONE,
        };
        assert_eq!(decide(&Execution::Exited(0), &evidence), Verdict::Success);
    }

    #[test]
    fn reasons_are_sentences() {
        assert_eq!(Reason::Execution(Execution::Exited(3)).to_string(), "it ended with exit code 3");
        assert_eq!(Reason::Incomplete(Nodes { expected: 4, reported: 3 }).to_string(), "3 of 4 nodes reported");
        assert_eq!(
            Reason::ErrorPattern { line: 7, pattern: "FAILED".to_owned() }.to_string(),
            "line 7 of its log has the error pattern `FAILED`"
        );
    }
}
