//! The results file of a model that brings several rows (`multiple_results`).
//!
//! Whether the file is evidence is decided here, before the verdict; a file that cannot become rows is said to be unusable
//! and must never pass for a measurement.

use csv::ByteRecord;

use super::metric::is_number;
use super::row::CellValue;

/// Columns that every results file has.
pub const REQUIRED: [&str; 3] = ["model", "performance", "metric"];

/// Why a results file is no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultsError {
    /// A column is missing.
    #[error("no column `{0}` (columns `model`, `performance` and `metric` are needed)")]
    Column(&'static str),
    /// No row has a value.
    #[error("no row has a value in `performance`")]
    NoValue,
    /// A row has more cells than the header.
    #[error("line {line} has {cells} cells, the header has {columns}")]
    Cells {
        /// From 1.
        line: u64,
        /// Cells of the row.
        cells: usize,
        /// Columns of the header.
        columns: usize,
    },
    /// Not CSV at all.
    #[error("{0}")]
    Malformed(String),
}

/// The rows of a results file: columns trimmed, cells as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Whether a text stands for no value.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "" | "nan" | "n/a" | "na" | "none" | "null" | "<na>")
}

/// A cell of a results file as a value of a row.
#[must_use]
pub fn cell_value(text: &str) -> CellValue {
    if is_blank(text) {
        CellValue::Blank
    } else if is_number(text.trim()) {
        CellValue::Number(text.trim().to_owned())
    } else {
        CellValue::Text(text.to_owned())
    }
}

impl Results {
    /// Reads a results file.
    ///
    /// # Errors
    /// It lacks a column that rows need, no row has a value, or it is not CSV.
    pub fn parse(bytes: &[u8]) -> Result<Self, ResultsError> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut records = reader.byte_records();
        let Some(header) = records.next() else { return Err(ResultsError::Column(REQUIRED[1])) };
        let columns = columns(&texts(&header.map_err(|error| ResultsError::Malformed(error.to_string()))?));
        // The column that makes the file a results file is named first.
        for required in ["performance", "model", "metric"] {
            if !columns.iter().any(|column| column == required) {
                return Err(ResultsError::Column(required));
            }
        }
        let mut rows = Vec::new();
        for record in records {
            let record = record.map_err(|error| ResultsError::Malformed(error.to_string()))?;
            let mut cells = texts(&record);
            while cells.len() > columns.len() && cells.last().is_some_and(|cell| cell.trim().is_empty()) {
                cells.pop();
            }
            if cells.len() > columns.len() {
                let line = record.position().map_or(0, csv::Position::line);
                return Err(ResultsError::Cells { line, cells: cells.len(), columns: columns.len() });
            }
            cells.resize(columns.len(), String::new());
            if cells.iter().any(|cell| !cell.trim().is_empty()) {
                rows.push(cells);
            }
        }
        let results = Self { columns, rows };
        if results.rows().all(|row| row.get("performance").is_none_or(is_blank)) {
            return Err(ResultsError::NoValue);
        }
        Ok(results)
    }

    /// A table with as many cells in each row as there are columns.
    pub(super) fn of(columns: Vec<String>, rows: Vec<Vec<String>>) -> Self {
        Self { columns, rows }
    }

    /// The columns' names, each of its own.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = ResultsRow<'_>> {
        self.rows.iter().map(|cells| ResultsRow { columns: &self.columns, cells })
    }
}

/// One row of a results file.
#[derive(Debug, Clone, Copy)]
pub struct ResultsRow<'a> {
    columns: &'a [String],
    cells: &'a [String],
}

impl<'a> ResultsRow<'a> {
    /// The text in a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&'a str> {
        self.cells().find(|(name, _)| *name == column).map(|(_, text)| text)
    }

    /// Columns and texts, in the order of the file.
    pub fn cells(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.columns.iter().zip(self.cells).map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

fn texts(record: &ByteRecord) -> Vec<String> {
    record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect()
}

/// Trims names, and gives every column one of its own.
fn columns(header: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(header.len());
    for (index, name) in header.iter().enumerate() {
        let name = name.trim().trim_start_matches('\u{feff}');
        let name = if name.is_empty() { format!("Unnamed: {index}") } else { name.to_owned() };
        let mut unique = name.clone();
        let mut count = 0;
        while names.contains(&unique) {
            count += 1;
            unique = format!("{name}.{count}");
        }
        names.push(unique);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_names_are_trimmed_and_empty_rows_are_left_out() {
        let results =
            Results::parse(b" model , performance,metric ,extra\nA,1.50,tok,x\n,,,\n\nB,,tok\nC,2,m,y,,\n").unwrap();
        let rows: Vec<Vec<(&str, &str)>> = results.rows().map(|row| row.cells().collect()).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], [("model", "A"), ("performance", "1.50"), ("metric", "tok"), ("extra", "x")]);
        assert_eq!(rows[1][3], ("extra", ""));
    }

    #[test]
    fn a_file_that_cannot_become_rows_is_unusable() {
        assert_eq!(Results::parse(b""), Err(ResultsError::Column("performance")));
        assert_eq!(Results::parse(b"model,metric\na,b\n"), Err(ResultsError::Column("performance")));
        assert_eq!(Results::parse(b"performance,metric\n1,b\n"), Err(ResultsError::Column("model")));
        assert_eq!(Results::parse(b"model,performance,metric\n"), Err(ResultsError::NoValue));
        assert_eq!(Results::parse(b"model,performance,metric\na, ,m\nb,NaN,m\n"), Err(ResultsError::NoValue));
        assert_eq!(
            Results::parse(b"model,performance,metric\na,1,m,x\n"),
            Err(ResultsError::Cells { line: 2, cells: 4, columns: 3 })
        );
    }

    #[test]
    fn repeated_and_nameless_columns_get_names_of_their_own() {
        assert_eq!(
            columns(&["a".to_owned(), "a ".to_owned(), String::new(), "a".to_owned()]),
            ["a", "a.1", "Unnamed: 2", "a.2"]
        );
    }

    #[test]
    fn cells_are_numbers_only_as_a_whole() {
        assert_eq!(cell_value(" 1.50e3"), CellValue::Number("1.50e3".to_owned()));
        assert_eq!(cell_value("1 2"), CellValue::Text("1 2".to_owned()));
        assert_eq!(cell_value("N/A"), CellValue::Blank);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(model|performance|metric|[,\"\n ]|[0-9]){0,40}") {
            let _ = Results::parse(&bytes);
            let _ = Results::parse(text.as_bytes());
        }
    }
}
