//! `run`: the rows of a run as the files that the contract names. `perf.csv` and `perf_super.*` grow, `perf_entry.*` and
//! `perf_entry_super.*` show the latest update.
//!
//! What others wrote is never lost: a table that cannot be read is an error that names it, before anything is written, and
//! unreadable records are kept under another name.

mod records;
mod table;

use maddock_sdk::events::{self, Level};
use maddock_sdk::files;
use maddock_sdk::reporter::{self, CellValue, Guest, Produced, ReportRequest, Row};
use maddock_sdk::{Result, failed, invalid, unsupported};
use records::Records;
use table::Table;

/// Bytes of a file that grows, at most. Memory must hold it a few times over.
const LARGEST: u64 = 32 << 20;
/// How long another run may hold a file.
const PATIENCE_MS: u32 = 60_000;
/// What shows the latest update only.
const INTERMEDIATE: [&str; 4] = ["perf_entry.csv", "perf_entry.json", "perf_entry_super.csv", "perf_entry_super.json"];

struct Plugin;

impl Guest for Plugin {
    fn report(request: ReportRequest) -> Result<Vec<Produced>> {
        if request.format != "run" {
            return Err(unsupported(format!("no format `{}`", request.format)));
        }
        let directory = directory_of(&request)?;
        let in_directory = |name: &str| format!("{directory}/{name}");
        let cleanup = option(&request, "cleanup") == Some("true");
        let mut produced = Vec::new();
        if !request.rows.is_empty() {
            // Both locks are taken before anything is read, always in this order, so that no two runs wait for each other.
            let perf = files::lock(&request.output, PATIENCE_MS)?;
            let super_path = in_directory("perf_super.json");
            let grown = files::lock(&super_path, PATIENCE_MS)?;
            let table = table_of(&request.output, perf.read(LARGEST)?)?;
            let records = records_of(&super_path, grown.read(LARGEST)?)?;
            let views = views(table, records, &request.rows).map_err(failed)?;
            perf.replace(&views.perf)?;
            produced.push(a_file(request.output.clone(), &format!("{} rows", request.rows.len())));
            if let Some(all) = &views.all_records {
                grown.replace(all)?;
                produced.push(a_file(super_path, "all records"));
            }
            for (name, bytes) in &views.others {
                if cleanup && INTERMEDIATE.contains(name) {
                    continue;
                }
                let path = in_directory(name);
                files::write(&path, bytes, 0o644)?;
                produced.push(a_file(path, "the latest update"));
            }
        }
        if cleanup {
            for name in INTERMEDIATE {
                files::remove(&in_directory(name))?;
            }
        }
        Ok(produced)
    }
}

fn option<'a>(request: &'a ReportRequest, name: &str) -> Option<&'a str> {
    request.options.iter().find(|option| option.name == name).map(|option| option.value.as_str())
}

/// Where the siblings of the table go; without a `/` at its end.
fn directory_of(request: &ReportRequest) -> Result<String> {
    let directory = match option(request, "directory") {
        Some(directory) => directory,
        None => request.output.rsplit_once('/').map(|(directory, _)| directory).unwrap_or_default(),
    };
    if !request.output.starts_with('/') {
        return Err(invalid(format!("`{}` is not an absolute path", request.output)));
    }
    Ok(directory.trim_end_matches('/').to_owned())
}

fn table_of(path: &str, bytes: Option<Vec<u8>>) -> Result<Table> {
    Table::parse(&bytes.unwrap_or_default()).map_err(|message| {
        failed(format!("cannot add to `{path}`: {message}"))
            .hint("repair the file or move it away; nothing was written")
            .detail("file", path)
    })
}

/// The records so far. Unreadable ones make room for new ones and are kept under another name.
fn records_of(path: &str, bytes: Option<Vec<u8>>) -> Result<Records> {
    let bytes = bytes.unwrap_or_default();
    match Records::parse(&bytes) {
        Ok(records) => Ok(records),
        Err(message) => {
            let mut kept = format!("{path}.unreadable");
            let mut count = 1;
            while files::stat(&kept)?.is_some() {
                count += 1;
                kept = format!("{path}.unreadable.{count}");
            }
            files::write(&kept, &bytes, 0o644)?;
            events::log(
                Level::Warning,
                &format!("`{path}` is not a list of records ({message}); kept as `{kept}`"),
                &[],
            );
            Ok(Records::default())
        }
    }
}

fn a_file(path: String, what: &str) -> Produced {
    let media_type = if path.ends_with(".json") { "application/json" } else { "text/csv" };
    let summary = format!("wrote `{path}`: {what}");
    Produced { path, media_type: media_type.to_owned(), summary }
}

/// The files, as bytes.
struct Views {
    perf: Vec<u8>,
    /// `perf_super.json`, where a record was added.
    all_records: Option<Vec<u8>>,
    others: Vec<(&'static str, Vec<u8>)>,
}

fn views(mut perf: Table, mut all: Records, rows: &[Row]) -> std::result::Result<Views, String> {
    for row in rows {
        perf.append(cells(row));
    }
    let mut others = Vec::new();
    let groups: Vec<&[Row]> = rows.chunk_by(|one, other| one.job == other.job).collect();
    if let Some(latest) = groups.last() {
        let mut table = Table::default();
        latest.iter().for_each(|row| table.append(cells(row)));
        others.push(("perf_entry.csv", table.to_bytes()?));
    }
    let mut all_records = None;
    // Jobs that never started have no records.
    let recorded: Vec<&[Row]> =
        groups.into_iter().filter(|group| group.iter().all(|row| row.shape != "setup")).collect();
    if let Some(latest) = recorded.last() {
        recorded.iter().flat_map(|group| group.iter()).try_for_each(|row| all.append(row))?;
        let mut added = Records::default();
        latest.iter().try_for_each(|row| added.append(row))?;
        all_records = Some(all.to_json().into_bytes());
        others.push(("perf_super.csv", table_of_records(&all)?));
        others.push(("perf_entry.json", records::entry_file(latest)?.into_bytes()));
        others.push(("perf_entry_super.json", added.to_json().into_bytes()));
        others.push(("perf_entry_super.csv", table_of_records(&added)?));
        if let Some(row) = latest.iter().find(|row| row.shape == "multiple") {
            others.push(("common_info.json", records::common_file(row)?.into_bytes()));
        }
    }
    Ok(Views { perf: perf.to_bytes()?, all_records, others })
}

fn table_of_records(records: &Records) -> std::result::Result<Vec<u8>, String> {
    let mut table = Table::default();
    for record in records.cells()? {
        table.append(record.iter().map(|(name, text)| (name.as_str(), text.clone())));
    }
    table.to_bytes()
}

fn cells(row: &Row) -> impl Iterator<Item = (&str, String)> {
    row.cells.iter().map(|cell| {
        let text = match &cell.value {
            CellValue::Text(text) | CellValue::Number(text) | CellValue::Structured(text) => text.clone(),
            CellValue::Blank => String::new(),
        };
        (cell.name.as_str(), text)
    })
}

maddock_sdk::manifest!("plugin.json");
reporter::export!(Plugin with_types_in maddock_sdk::reporter);

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_sdk::reporter::Cell;
    use maddock_sdk::types::Entry;

    fn row(job: &str, shape: &str, cells: &[(&str, CellValue)]) -> Row {
        let cells = cells.iter().map(|(name, value)| Cell { name: (*name).to_owned(), value: value.clone() }).collect();
        Row { cells, job: job.to_owned(), configs: "null".to_owned(), shape: shape.to_owned() }
    }

    fn measured(job: &str, shape: &str, performance: &str) -> Row {
        row(
            job,
            shape,
            &[("model", CellValue::Text(job.to_owned())), ("performance", CellValue::Number(performance.to_owned()))],
        )
    }

    fn names(views: &Views) -> Vec<&'static str> {
        views.others.iter().map(|(name, _)| *name).collect()
    }

    fn text(views: &Views, name: &str) -> String {
        String::from_utf8(views.others.iter().find(|(other, _)| *other == name).unwrap().1.clone()).unwrap()
    }

    #[test]
    fn the_table_has_all_rows_and_the_entry_those_of_the_latest_job() {
        let old = Table::parse(b"model,mine,performance\nold,x,1.0\n").unwrap();
        let rows = [measured("a", "single", "1.50e3"), measured("b", "multiple", "2"), measured("b", "multiple", "3")];
        let views = views(old, Records::default(), &rows).unwrap();
        assert_eq!(String::from_utf8_lossy(&views.perf), "model,mine,performance\nold,x,1.0\na,,1.50e3\nb,,2\nb,,3\n");
        assert_eq!(text(&views, "perf_entry.csv"), "model,performance\nb,2\nb,3\n");
        assert_eq!(text(&views, "perf_super.csv").lines().count(), 4);
        assert_eq!(text(&views, "perf_entry_super.csv").lines().count(), 3);
        assert!(text(&views, "common_info.json").starts_with('{'));
        assert!(views.all_records.is_some());
    }

    #[test]
    fn a_job_that_never_started_is_in_the_tables_and_has_no_record() {
        let views = views(Table::default(), Records::default(), &[measured("a", "setup", "")]).unwrap();
        assert_eq!(names(&views), ["perf_entry.csv"]);
        assert_eq!(views.all_records, None);
        assert_eq!(String::from_utf8_lossy(&views.perf), "model,performance\na,\n");
    }

    #[test]
    fn a_broken_table_is_an_error_that_names_it() {
        let error = table_of("/o/perf.csv", Some(b"a\n1,2\n".to_vec())).unwrap_err();
        assert!(error.message.contains("`/o/perf.csv`") && error.message.contains("line 2"), "{}", error.message);
        assert!(error.hint.unwrap().contains("nothing was written"));
    }

    #[test]
    fn siblings_lie_beside_the_table_unless_told_otherwise() {
        let mut request = ReportRequest {
            format: "run".to_owned(),
            rows: Vec::new(),
            inputs: Vec::new(),
            output: "/o/p.csv".to_owned(),
            options: Vec::new(),
        };
        assert_eq!(directory_of(&request).unwrap(), "/o");
        request.options.push(Entry { name: "directory".to_owned(), value: "/d/".to_owned() });
        assert_eq!(directory_of(&request).unwrap(), "/d");
        request.output = "p.csv".to_owned();
        assert!(directory_of(&request).is_err());
    }
}
