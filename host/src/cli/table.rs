//! Tables that fit the terminal: borders for people, tab-separated plain text when piped.

use comfy_table::{ContentArrangement, Table, presets};

use super::style;

/// Prints a table on stdout. Where stdout is no terminal each row is one line of tab-separated
/// cells, after the title and the header.
pub fn print(title: &str, header: &[&str], rows: &[Vec<String>]) {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        println!("{}", render(title, header, rows, style::width()));
    } else {
        if !title.is_empty() {
            println!("{title}");
        }
        println!("{}", plain(header, rows));
    }
}

/// A table of at most `width` columns; long cells wrap.
#[must_use]
pub fn render(title: &str, header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(80))
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    if title.is_empty() { table.to_string() } else { format!("{title}\n{table}") }
}

fn plain(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &str| text.replace(['\t', '\n'], " ");
    let mut lines = vec![header.join("\t")];
    lines.extend(rows.iter().map(|row| row.iter().map(|text| cell(text)).collect::<Vec<_>>().join("\t")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_never_exceeds_its_width() {
        let rows = vec![vec!["a".repeat(200), "b c ".repeat(40)]];
        for line in render("t", &["first", "second"], &rows, 80).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn piped_rows_are_one_line_each() {
        assert_eq!(plain(&["a", "b"], &[vec!["x\ny".to_owned(), "z".to_owned()]]), "a\tb\nx y\tz");
    }
}
