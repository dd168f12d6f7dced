//! `to-email`: every results table of a directory, one after the other, as HTML for a mail.
//!
//! A table that cannot be read is reported and left out; without any table nothing is written.

// The table is drawn as `to-html` draws it. The source is shared and not the crate: a crate of a plugin carries a manifest
// and exports, which must not end up in another component.
#[path = "../../report-html/src/table.rs"]
mod table;

use maddock_sdk::events::{self, Level};
use maddock_sdk::files::{self, FileKind};
use maddock_sdk::reporter::{self, Guest, Produced, ReportRequest};
use maddock_sdk::{Result, invalid, not_found, unsupported};

/// Bytes of a table at most.
const LARGEST: u64 = 64 << 20;

struct Plugin;

impl Guest for Plugin {
    fn report(request: ReportRequest) -> Result<Vec<Produced>> {
        if request.format != "to-email" {
            return Err(unsupported(format!("no format `{}`", request.format)));
        }
        let [directory] = request.inputs.as_slice() else {
            return Err(invalid("exactly one directory is needed"));
        };
        match files::stat(directory)? {
            None => return Err(not_found(format!("no directory `{directory}`"))),
            Some(info) if info.kind != FileKind::Directory => {
                return Err(invalid(format!("`{directory}` is not a directory")));
            }
            Some(_) => {}
        }
        let entries = files::list_directory(directory)?;
        let names =
            table_names(entries.into_iter().filter(|entry| entry.kind == FileKind::File).map(|entry| entry.name));
        let mut sections = Vec::new();
        for name in &names {
            let path = format!("{}/{name}", directory.trim_end_matches('/'));
            let read = files::read(&path, LARGEST).map_err(|error| error.message);
            match read.and_then(|bytes| section(name, &bytes)) {
                Ok(section) => sections.push(section),
                Err(message) => events::log(Level::Warning, &format!("left out `{path}`: {message}"), &[]),
            }
        }
        if sections.is_empty() {
            let what = if names.is_empty() { "no CSV files" } else { "no readable CSV files" };
            events::log(Level::Info, &format!("{what} in `{directory}`: nothing written"), &[]);
            return Ok(Vec::new());
        }
        files::write(&request.output, sections.concat().as_bytes(), 0o644)?;
        let summary = format!("wrote `{}`: {} of {} CSV files", request.output, sections.len(), names.len());
        Ok(vec![Produced { path: request.output, media_type: "text/html".to_owned(), summary }])
    }
}

/// The names of tables, sorted; hidden files are none.
fn table_names(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".csv") && !name.starts_with('.')).collect();
    names.sort();
    names
}

fn section(name: &str, bytes: &[u8]) -> std::result::Result<String, String> {
    let table = table::render(bytes)?;
    let stem = name.strip_suffix(".csv").unwrap_or(name);
    Ok(format!("<h2>{}</h2>\n{table}\n", table::escape(stem.as_bytes())))
}

maddock_sdk::manifest!("plugin.json");
reporter::export!(Plugin with_types_in maddock_sdk::reporter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_the_escaped_stem_as_its_heading() {
        let text = section("a<b>.x.csv", b"c\n1\n").unwrap();
        assert!(text.starts_with("<h2>a&lt;b&gt;.x</h2>\n<table border=\"1\" class=\"dataframe\">\n"), "{text}");
        assert!(text.ends_with("</table>\n"));
        assert!(section("a.csv", b"").is_err());
    }

    #[test]
    fn tables_are_sorted_and_other_files_left_out() {
        let names = ["b.csv", "a.csv", "c.CSV", ".d.csv", "e.txt"].map(str::to_owned);
        assert_eq!(table_names(names.into_iter()), ["a.csv", "b.csv"]);
    }
}
