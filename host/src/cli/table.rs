//! Tables that fit the terminal: borders for people, tab-separated plain text when piped.

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};

use super::style;

/// Prints a table on stdout. Where stdout is no terminal each row is one line of tab-separated
/// cells, after the title and the header.
pub fn print(title: &str, header: &[&str], rows: &[Vec<String>]) {
    if style::is_terminal() {
        println!("{}", render(title, header, rows, style::width()));
    } else {
        if !title.is_empty() {
            println!("{title}");
        }
        println!("{}", plain(header, rows));
    }
}

/// Columns whose text may wrap; the others are as wide as what they hold.
const FLEXIBLE: [&str; 10] =
    ["Model", "Image", "Metric", "Result", "Details", "Requests", "Name", "Key", "Value", "Origin"];

/// A table of at most `width` columns; long texts wrap in the columns that are made for it.
#[must_use]
pub fn render(title: &str, header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(80))
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 1));
        if !FLEXIBLE.contains(name) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    // Padding at the end of lines is of use to nobody.
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    if title.is_empty() { lines.join("\n") } else { format!("{title}\n{}", lines.join("\n")) }
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
        let rows = vec![vec!["1".to_owned(), "a".repeat(200), "b c ".repeat(40), "12.5s".to_owned()]];
        for line in render("t", &["#", "Model", "Result", "Duration"], &rows, 80).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn paint_takes_no_room() {
        let rows = |paint: &dyn Fn(&str) -> String| {
            let row = |state: &str, result: &str| vec![paint(state), "m".to_owned(), paint(result)];
            vec![row("good", "12 things"), row("failed", &"it ended with exit code 3 ".repeat(5))]
        };
        let header = ["Status", "Model", "Result"];
        let painted = render("", &header, &rows(&|text| format!("\x1b[1;31m{text}\x1b[0m")), 50);
        assert!(painted.contains("\x1b[1;31m"));
        let seen = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(&painted, "").into_owned();
        let seen: Vec<&str> = seen.lines().map(str::trim_end).collect();
        let plain = render("", &header, &rows(&str::to_owned), 50);
        assert_eq!(seen, plain.lines().collect::<Vec<_>>());
    }

    #[test]
    fn piped_rows_are_one_line_each() {
        assert_eq!(plain(&["a", "b"], &[vec!["x\ny".to_owned(), "z".to_owned()]]), "a\tb\nx y\tz");
    }
}
