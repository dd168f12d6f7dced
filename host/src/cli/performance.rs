//! The performance table: what the results file holds, this run's rows marked.

use std::path::Path;

use super::{render, style, table};
use crate::capability::events::printable;

/// The table's columns, and whether they are for wide terminals only.
const COLUMNS: [(&str, bool); 12] = [
    ("Run", false),
    ("Index", true),
    ("Model", false),
    ("Topology", true),
    ("Launcher", true),
    ("Deployment", true),
    ("GPU Arch", true),
    ("Performance", false),
    ("Metric", false),
    ("Status", false),
    ("Duration", false),
    ("Data", true),
];
/// From this width on all columns are shown.
const WIDE: usize = 140;

/// How many rows of data a results file has; 0 where there is none.
#[must_use]
pub fn row_count(path: &Path) -> usize {
    read(path).map_or(0, |(_, rows)| rows.len())
}

type Rows = (csv::StringRecord, Vec<csv::StringRecord>);

fn read(path: &Path) -> Result<Rows, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path)?;
    let header = reader.headers()?.clone();
    let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
    Ok((header, rows))
}

/// Prints the table on stdout. Rows from `first` on belong to this run.
pub fn print(path: &Path, first: usize) {
    let palette = style::Palette::of_stderr();
    let (header, rows) = match read(path) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("{}: no performance table: `{}`: {error}", palette.warn("warning"), path.display());
            return;
        }
    };
    if rows.is_empty() {
        eprintln!("{}: `{}` has no rows", palette.warn("warning"), path.display());
        return;
    }
    let lines: Vec<Vec<String>> =
        rows.iter().enumerate().map(|(index, row)| line(&header, row, index, index >= first)).collect();
    let mine = rows.len().saturating_sub(first);
    let session = if mine > 0 { format!(", {mine} from current session") } else { String::new() };
    let title = format!("📊 Performance Results (all {} runs{session})", rows.len());
    // Where there is no room, what is least looked at goes first; a pipe has all the room that there is.
    let narrow = style::is_terminal() && style::width() < WIDE;
    let columns: Vec<&str> = COLUMNS.iter().filter(|(_, wide)| !(narrow && *wide)).map(|(name, _)| *name).collect();
    let shown = |line: Vec<String>| {
        line.into_iter().zip(COLUMNS).filter(|(_, (_, wide))| !(narrow && *wide)).map(|(text, _)| text).collect()
    };
    table::print(&title, &columns, &lines.into_iter().map(shown).collect::<Vec<_>>());
    let status = |word: &str| rows.iter().filter(|row| cell(&header, row, "status") == word).count();
    println!("Summary: {} total runs, {} successful, {} failed", rows.len(), status("SUCCESS"), status("FAILURE"));
}

fn cell<'a>(header: &csv::StringRecord, row: &'a csv::StringRecord, name: &str) -> &'a str {
    header.iter().position(|column| column == name).and_then(|place| row.get(place)).unwrap_or_default()
}

fn line(header: &csv::StringRecord, row: &csv::StringRecord, index: usize, mine: bool) -> Vec<String> {
    let text = |name: &str| {
        let text = cell(header, row, name).trim();
        if text.is_empty() { "N/A".to_owned() } else { printable(text) }
    };
    let gpus = match cell(header, row, "gpus_per_node") {
        "" => cell(header, row, "n_gpus"),
        gpus => gpus,
    };
    let topology = match (whole(cell(header, row, "nnodes")), whole(gpus)) {
        (Some(nodes), Some(gpus)) => format!("{nodes}N×{gpus}G"),
        _ => "N/A".to_owned(),
    };
    let status = match cell(header, row, "status") {
        "SUCCESS" => "✅ Success".to_owned(),
        "FAILURE" => "❌ Failed".to_owned(),
        other => format!("⚠️  {}", printable(other)),
    };
    vec![
        if mine { "➤".to_owned() } else { String::new() },
        index.to_string(),
        text("model"),
        topology,
        text("launcher"),
        if cell(header, row, "deployment_type").is_empty() { "local".to_owned() } else { text("deployment_type") },
        text("gpu_architecture"),
        render::performance(cell(header, row, "performance")),
        text("metric"),
        status,
        render::duration(cell(header, row, "test_duration")),
        text("dataname"),
    ]
}

/// A whole number, also as `8.0`.
fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}
