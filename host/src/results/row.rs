//! Rows: what every report is a view of.
//!
//! A row holds values as they were measured; how they look in a file is the reporter's business. The order of the columns
//! is the file contract and lives here alone.

use maddock_bindings::reporter::exports::maddock::plugin::reporter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metric::Metric;
use super::multiple::{Results, ResultsRow, cell_value, is_blank};
use super::verdict::{Reason, Verdict};

/// The columns of a row, in order.
pub const COLUMNS: [&str; 29] = [
    "model",
    "n_gpus",
    "nnodes",
    "gpus_per_node",
    "training_precision",
    "pipeline",
    "args",
    "tags",
    "docker_file",
    "base_docker",
    "docker_sha",
    "docker_image",
    "git_commit",
    "machine_name",
    "deployment_type",
    "launcher",
    "gpu_architecture",
    "performance",
    "metric",
    "relative_change",
    "status",
    "build_duration",
    "test_duration",
    "dataname",
    "data_provider_type",
    "data_size",
    "data_download_duration",
    "build_number",
    "additional_docker_run_options",
];

/// Names that results files cannot give to columns: every record has them, outside the columns.
const RESERVED: [&str; 2] = ["configs", "multi_results"];

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum CellValue {
    /// Text.
    Text(String),
    /// The digits as measured.
    Number(String),
    /// A list or an object.
    Structured(Value),
    /// Nothing.
    Blank,
}

impl CellValue {
    fn text(text: &str) -> Self {
        if text.is_empty() { Self::Blank } else { Self::Text(text.to_owned()) }
    }

    fn seconds(seconds: Option<f64>) -> Self {
        match seconds {
            Some(seconds) if seconds.is_finite() => Self::Number(self::seconds(seconds)),
            _ => Self::Blank,
        }
    }
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The column.
    pub name: String,
    /// What is in it.
    pub value: CellValue,
}

/// What kind of row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The job has this row.
    Single,
    /// One of several from a results file.
    Multiple,
    /// The job never started.
    Setup,
}

impl Shape {
    /// The word of the reporter interface.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multiple => "multiple",
            Self::Setup => "setup",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In the order of the columns; columns of a results file come last.
    pub cells: Vec<Cell>,
    /// The job that brought it.
    pub job: String,
    /// The parsed configuration file of the model, null where none.
    pub configs: Value,
    /// What kind of row it is.
    pub shape: Shape,
}

/// What all rows of a job have in common. Empty texts are blank cells. Field names are the columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the columns of the file contract")]
pub struct JobFacts {
    pub model: String,
    pub n_gpus: String,
    pub nnodes: String,
    pub gpus_per_node: String,
    pub training_precision: String,
    pub pipeline: String,
    pub args: String,
    pub tags: Vec<String>,
    pub docker_file: String,
    pub base_docker: String,
    pub docker_sha: String,
    pub docker_image: String,
    pub git_commit: String,
    pub machine_name: String,
    pub deployment_type: String,
    pub launcher: String,
    pub gpu_architecture: String,
    /// Seconds.
    pub build_duration: Option<f64>,
    pub dataname: String,
    pub data_provider_type: String,
    pub data_size: String,
    pub data_download_duration: String,
    pub build_number: String,
    pub additional_docker_run_options: String,
}

/// Seconds as rows have them: to the millisecond, without zeros that say nothing.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    let text = text.trim_end_matches('0');
    text.strip_suffix('.').map_or_else(|| text.to_owned(), |whole| format!("{whole}.0"))
}

/// The cells that depend on how the job went.
struct Outcome<'a> {
    performance: CellValue,
    metric: CellValue,
    status: &'a str,
    test_duration: CellValue,
}

impl Row {
    /// The row of a job that started and has one result, good or bad.
    ///
    /// A job that did not execute to a good end has no performance, whatever its log says, and the duration `0`: that is the
    /// contract. One that failed for another reason keeps both.
    #[must_use]
    pub fn single(
        job: &str,
        facts: &JobFacts,
        verdict: &Verdict,
        metric: Option<&Metric>,
        duration: Option<f64>,
        configs: Value,
    ) -> Self {
        let executed = !matches!(verdict, Verdict::Failure(Reason::Execution(_)));
        let metric = metric.filter(|_| executed);
        let outcome = Outcome {
            performance: metric.map_or(CellValue::Blank, |metric| CellValue::Number(metric.value.clone())),
            metric: metric.map_or(CellValue::Blank, |metric| CellValue::text(&metric.name)),
            status: verdict.status(),
            test_duration: if executed { CellValue::seconds(duration) } else { CellValue::Number("0".to_owned()) },
        };
        Self { cells: cells(facts, outcome), job: job.to_owned(), configs, shape: Shape::Single }
    }

    /// The row of a job whose setup failed before it started. `card_n_gpus` is what the model card asked for.
    #[must_use]
    pub fn setup_failure(job: &str, facts: &JobFacts, card_n_gpus: &str) -> Self {
        let facts = JobFacts {
            launcher: String::new(),
            git_commit: String::new(),
            gpus_per_node: card_n_gpus.to_owned(),
            ..facts.clone()
        };
        Self::without_result(job, &facts, "FAILURE")
    }

    /// The row of a job that was left out, such as for an architecture that its model does not support.
    #[must_use]
    pub fn skipped(job: &str, facts: &JobFacts) -> Self {
        Self::without_result(job, facts, Verdict::Skipped.status())
    }

    fn without_result(job: &str, facts: &JobFacts, status: &str) -> Self {
        let outcome = Outcome {
            performance: CellValue::Blank,
            metric: CellValue::Blank,
            status,
            test_duration: CellValue::Blank,
        };
        Self { cells: cells(facts, outcome), job: job.to_owned(), configs: Value::Null, shape: Shape::Setup }
    }

    /// One row for each row of a results file. `configs` answers the configuration that belongs to a row.
    ///
    /// Columns of the file go before the job's facts, but where they are blank the facts stay.
    #[must_use]
    pub fn multiple(
        job: &str,
        facts: &JobFacts,
        results: &Results,
        duration: Option<f64>,
        mut configs: impl FnMut(&ResultsRow<'_>) -> Value,
    ) -> Vec<Self> {
        results.rows().map(|row| Self::of_results(job, facts, &row, duration, configs(&row))).collect()
    }

    fn of_results(job: &str, facts: &JobFacts, row: &ResultsRow<'_>, duration: Option<f64>, configs: Value) -> Self {
        let performance = cell_value(row.get("performance").unwrap_or_default());
        let status = if performance == CellValue::Blank { "FAILURE" } else { "SUCCESS" };
        let outcome =
            Outcome { performance, metric: CellValue::Blank, status, test_duration: CellValue::seconds(duration) };
        let model = format!("{}_{}", facts.model, row.get("model").unwrap_or_default().trim());
        let mut cells = cells(&JobFacts { model, ..facts.clone() }, outcome);
        for (name, text) in row.cells().filter(|(name, _)| !RESERVED.contains(name)) {
            if matches!(name, "model" | "performance" | "status") {
                continue;
            }
            match cells.iter_mut().find(|cell| cell.name == name) {
                Some(cell) if !is_blank(text) => cell.value = cell_value(text),
                Some(_) => {}
                None => cells.push(Cell { name: name.to_owned(), value: cell_value(text) }),
            }
        }
        Self { cells, job: job.to_owned(), configs, shape: Shape::Multiple }
    }

    /// The value in a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&CellValue> {
        self.cells.iter().find(|cell| cell.name == column).map(|cell| &cell.value)
    }
}

fn cells(facts: &JobFacts, outcome: Outcome<'_>) -> Vec<Cell> {
    let text = CellValue::text;
    let values: [CellValue; COLUMNS.len()] = [
        text(&facts.model),
        text(&facts.n_gpus),
        text(&facts.nnodes),
        text(&facts.gpus_per_node),
        text(&facts.training_precision),
        text(&facts.pipeline),
        text(&facts.args),
        text(&facts.tags.join(",")),
        text(&facts.docker_file),
        text(&facts.base_docker),
        text(&facts.docker_sha),
        text(&facts.docker_image),
        text(&facts.git_commit),
        text(&facts.machine_name),
        text(&facts.deployment_type),
        text(&facts.launcher),
        text(&facts.gpu_architecture),
        outcome.performance,
        outcome.metric,
        CellValue::Blank,
        text(outcome.status),
        CellValue::seconds(facts.build_duration),
        outcome.test_duration,
        text(&facts.dataname),
        text(&facts.data_provider_type),
        text(&facts.data_size),
        text(&facts.data_download_duration),
        text(&facts.build_number),
        text(&facts.additional_docker_run_options),
    ];
    COLUMNS.iter().zip(values).map(|(name, value)| Cell { name: (*name).to_owned(), value }).collect()
}

impl From<CellValue> for reporter::CellValue {
    fn from(value: CellValue) -> Self {
        match value {
            CellValue::Text(text) => Self::Text(text),
            CellValue::Number(digits) => Self::Number(digits),
            CellValue::Structured(value) => Self::Structured(value.to_string()),
            CellValue::Blank => Self::Blank,
        }
    }
}

impl From<Row> for reporter::Row {
    fn from(row: Row) -> Self {
        let cells =
            row.cells.into_iter().map(|cell| reporter::Cell { name: cell.name, value: cell.value.into() }).collect();
        Self { cells, job: row.job, configs: row.configs.to_string(), shape: row.shape.name().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Execution;
    use super::*;

    fn facts() -> JobFacts {
        JobFacts {
            model: "dummy".to_owned(),
            n_gpus: "8".to_owned(),
            gpus_per_node: "8".to_owned(),
            nnodes: "1".to_owned(),
            tags: vec!["a".to_owned(), "b".to_owned()],
            launcher: "ring".to_owned(),
            git_commit: "abc".to_owned(),
            build_duration: Some(1.5),
            ..JobFacts::default()
        }
    }

    fn metric() -> Metric {
        Metric { value: "1.50e3".to_owned(), name: "tok".to_owned() }
    }

    fn number(digits: &str) -> CellValue {
        CellValue::Number(digits.to_owned())
    }

    fn of_text(text: &str) -> CellValue {
        CellValue::Text(text.to_owned())
    }

    #[test]
    fn a_row_has_the_columns_of_the_contract_in_order() {
        let row = Row::single("1-dummy", &facts(), &Verdict::Success, Some(&metric()), Some(12.3456), Value::Null);
        let names: Vec<&str> = row.cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names, COLUMNS);
        assert_eq!(row.get("performance"), Some(&number("1.50e3")));
        assert_eq!(row.get("metric"), Some(&of_text("tok")));
        assert_eq!(row.get("tags"), Some(&of_text("a,b")));
        assert_eq!(row.get("status"), Some(&of_text("SUCCESS")));
        assert_eq!(row.get("test_duration"), Some(&number("12.346")));
        assert_eq!(row.get("build_duration"), Some(&number("1.5")));
        assert_eq!(row.get("relative_change"), Some(&CellValue::Blank));
    }

    #[test]
    fn a_job_that_did_not_end_well_has_no_performance_and_one_with_an_error_in_its_log_keeps_it() {
        let crashed = Verdict::Failure(Reason::Execution(Execution::Exited(1)));
        let row = Row::single("1-dummy", &facts(), &crashed, Some(&metric()), Some(5.0), Value::Null);
        assert_eq!(row.get("performance"), Some(&CellValue::Blank));
        assert_eq!(row.get("test_duration"), Some(&number("0")));
        let noisy = Verdict::Failure(Reason::ErrorPattern { line: 1, pattern: "FAILED".to_owned() });
        let row = Row::single("1-dummy", &facts(), &noisy, Some(&metric()), Some(5.0), Value::Null);
        assert_eq!(row.get("performance"), Some(&number("1.50e3")));
        assert_eq!(row.get("status"), Some(&of_text("FAILURE")));
        assert_eq!(row.get("test_duration"), Some(&number("5.0")));
    }

    #[test]
    fn a_failed_setup_leaves_what_nobody_knows_empty() {
        let row = Row::setup_failure("1-dummy", &facts(), "-1");
        for column in ["launcher", "git_commit", "metric", "performance", "test_duration"] {
            assert_eq!(row.get(column), Some(&CellValue::Blank), "{column}");
        }
        assert_eq!(row.get("gpus_per_node"), Some(&of_text("-1")));
        assert_eq!((row.get("status"), row.shape), (Some(&of_text("FAILURE")), Shape::Setup));
        assert_eq!(Row::skipped("1-dummy", &facts()).get("status"), Some(&of_text("SKIPPED")));
    }

    #[test]
    fn rows_of_a_results_file_override_and_extend_the_facts() {
        let results =
            Results::parse(b"model,performance,metric,status,n_gpus,test_duration,seq,configs\nA,1.0,tok,BAD,4,2.5,128,x\nB,,tok,SUCCESS,,,256,y\n").unwrap();
        let rows =
            Row::multiple("1-dummy", &facts(), &results, Some(9.0), |row| row.get("model").unwrap_or_default().into());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].get("model"), Some(&of_text("dummy_A")));
        assert_eq!(rows[0].get("performance"), Some(&number("1.0")));
        assert_eq!(rows[0].get("status"), Some(&of_text("SUCCESS")));
        assert_eq!(rows[0].get("n_gpus"), Some(&number("4")));
        assert_eq!(rows[0].get("test_duration"), Some(&number("2.5")));
        assert_eq!(rows[1].get("status"), Some(&of_text("FAILURE")));
        assert_eq!(rows[1].get("n_gpus"), Some(&of_text("8")));
        assert_eq!(rows[1].get("test_duration"), Some(&number("9.0")));
        assert_eq!(rows[1].configs, Value::from("B"));
        let names: Vec<&str> = rows[0].cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names[..29], COLUMNS);
        assert_eq!(names[29..], ["seq"]);
    }

    #[test]
    fn the_reporter_sees_what_the_row_holds() {
        let row =
            Row::single("1-dummy", &facts(), &Verdict::Success, Some(&metric()), None, serde_json::json!({"a": [1]}));
        let seen = reporter::Row::from(row);
        assert_eq!(
            (seen.shape.as_str(), seen.configs.as_str(), seen.job.as_str()),
            ("single", r#"{"a":[1]}"#, "1-dummy")
        );
        assert!(matches!(&seen.cells[17].value, reporter::CellValue::Number(digits) if digits == "1.50e3"));
        assert!(matches!(seen.cells[22].value, reporter::CellValue::Blank));
    }

    #[test]
    fn seconds_are_short() {
        assert_eq!([0.0, 1.0, 1.5, 12.3456, 10.0, 0.0004].map(seconds), ["0.0", "1.0", "1.5", "12.346", "10.0", "0.0"]);
    }
}
