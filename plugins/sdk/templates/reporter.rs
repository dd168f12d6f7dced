//! Writes the rows of a run as a Markdown table beside the results file.

use maddock_sdk::reporter::{CellValue, Guest, Produced, ReportRequest, Row};
use maddock_sdk::{Result, files};

/// The component's exports.
pub struct Plugin;

impl Guest for Plugin {
    fn report(request: ReportRequest) -> Result<Vec<Produced>> {
        if request.rows.is_empty() {
            return Ok(Vec::new());
        }
        let path = format!("{}.md", request.output);
        files::write(&path, table(&request.rows).as_bytes(), 0o644)?;
        let summary = format!("{} rows", request.rows.len());
        Ok(vec![Produced {
            path,
            media_type: "text/markdown".to_owned(),
            summary,
        }])
    }
}

/// The rows as a table; the first one names the columns.
fn table(rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names: Vec<String> = rows[0].cells.iter().map(|cell| cell.name.clone()).collect();
    let rule = names.iter().map(|_| "---".to_owned()).collect();
    let mut text = line(names) + &line(rule);
    for row in rows {
        text += &line(row.cells.iter().map(|cell| shown(&cell.value)).collect());
    }
    text
}

fn shown(value: &CellValue) -> String {
    match value {
        CellValue::Text(text) | CellValue::Number(text) | CellValue::Structured(text) => {
            text.replace('|', "\\|").replace(['\n', '\r'], " ")
        }
        CellValue::Blank => String::new(),
    }
}

maddock_sdk::manifest!("plugin.json");
// The names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::reporter::export!(Plugin with_types_in maddock_sdk::reporter);

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_sdk::reporter::Cell;

    #[test]
    fn a_cell_cannot_break_the_table() {
        let cell = Cell {
            name: "model".into(),
            value: CellValue::Text("a|b\nc".into()),
        };
        let row = Row {
            cells: vec![cell],
            job: "0".into(),
            configs: "null".into(),
            shape: "single".into(),
        };
        assert_eq!(table(&[row]), "| model |\n| --- |\n| a\\|b c |\n");
    }
}
