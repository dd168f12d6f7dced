//! A table that others wrote to as well: columns and cells stay what they are, rows and columns are added at the end.

use csv::{ByteRecord, QuoteStyle, ReaderBuilder, Terminator, WriterBuilder};

/// Cells as bytes: a table need not be UTF-8, and nothing of it may be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Vec<u8>>,
    rows: Vec<Vec<Vec<u8>>>,
}

fn cells(record: &ByteRecord) -> Vec<Vec<u8>> {
    record.iter().map(<[u8]>::to_vec).collect()
}

impl Table {
    /// Reads a table. No bytes, or nothing but blank lines, are a table without columns.
    ///
    /// # Errors
    /// What is broken: a quotation mark that is never closed, or a row that does not fit the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if let Some(line) = open_quote(bytes) {
            return Err(format!("the quotation mark opened in line {line} is never closed"));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut table = Self::default();
        for record in reader.byte_records() {
            let record = record.map_err(|error| error.to_string())?;
            let mut row = cells(&record);
            if table.columns.is_empty() {
                table.columns = row;
                continue;
            }
            if row.len() > table.columns.len() {
                let line = record.position().map_or(0, csv::Position::line);
                return Err(format!("line {line} has {} cells, the header has {}", row.len(), table.columns.len()));
            }
            row.resize(table.columns.len(), Vec::new());
            if row.iter().any(|cell| !cell.is_empty()) {
                table.rows.push(row);
            }
        }
        Ok(table)
    }

    /// Adds a row. Columns that the table lacks are added at its end, blank for the rows before.
    pub fn append<'a>(&mut self, named: impl IntoIterator<Item = (&'a str, String)>) {
        let before = self.columns.len();
        let mut row = vec![Vec::new(); before];
        for (name, text) in named {
            let index = self.columns.iter().position(|column| column == name.as_bytes()).unwrap_or_else(|| {
                self.columns.push(name.as_bytes().to_vec());
                self.columns.len() - 1
            });
            row.resize(self.columns.len().max(row.len()), Vec::new());
            if let Some(cell) = row.get_mut(index) {
                *cell = text.into_bytes();
            }
        }
        if self.columns.len() > before {
            self.rows.iter_mut().for_each(|row| row.resize(self.columns.len(), Vec::new()));
        }
        self.rows.push(row);
    }

    /// The table as bytes: LF, and quotation marks where nothing else will do.
    ///
    /// # Errors
    /// Never for a table in memory; the writer's type has one.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut writer = WriterBuilder::new()
            .terminator(Terminator::Any(b'\n'))
            .quote_style(QuoteStyle::Necessary)
            .from_writer(Vec::new());
        if !self.columns.is_empty() {
            for row in std::iter::once(&self.columns).chain(&self.rows) {
                writer.write_record(row).map_err(|error| error.to_string())?;
            }
        }
        writer.into_inner().map_err(|error| error.to_string())
    }
}

/// The line of a quotation mark that opens a cell and is never closed: readers would take the rest of the file for one cell.
fn open_quote(bytes: &[u8]) -> Option<usize> {
    let mut line = 1;
    let mut opened = None;
    let mut at_start = true;
    let mut rest = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (opened, *byte) {
            (None, b'"') if at_start => opened = Some(line),
            (Some(_), b'"') => match rest.strip_prefix(b"\"") {
                Some(after_pair) => rest = after_pair,
                None => opened = None,
            },
            _ => {}
        }
        at_start = opened.is_none() && matches!(byte, b',' | b'\n' | b'\r');
        line += usize::from(*byte == b'\n');
    }
    opened
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(table: &Table) -> String {
        String::from_utf8(table.to_bytes().unwrap()).unwrap()
    }

    fn row(cells: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        cells.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn a_new_table_has_the_columns_of_its_rows() {
        let mut table = Table::parse(b"").unwrap();
        table.append(row(&[("a", "1.50"), ("b", "x, \"y\"\nz"), ("c", "")]));
        table.append(row(&[("a", "2"), ("d", "new")]));
        assert_eq!(text(&table), "a,b,c,d\n1.50,\"x, \"\"y\"\"\nz\",,\n2,,,new\n");
    }

    #[test]
    fn columns_and_cells_of_others_stay_what_they_are() {
        let mut table = Table::parse(b"b,mine,a\r\n01.0, x ,\xff\r\n\r\n,,\r\nshort\r\n").unwrap();
        table.append(row(&[("a", "2"), ("b", "1e3"), ("c", "new")]));
        assert_eq!(table.to_bytes().unwrap(), b"b,mine,a,c\n01.0, x ,\xff,\nshort,,,\n1e3,,2,new\n");
    }

    #[test]
    fn a_table_of_a_header_alone_keeps_it() {
        let mut table = Table::parse(b"b,x\n").unwrap();
        table.append(row(&[("a", "1"), ("b", "2")]));
        assert_eq!(text(&table), "b,x,a\n2,,1\n");
    }

    #[test]
    fn a_file_without_a_line_end_is_not_glued_to_the_next_row() {
        let mut table = Table::parse(b"a\n1").unwrap();
        table.append(row(&[("a", "2")]));
        assert_eq!(text(&table), "a\n1\n2\n");
    }

    #[test]
    fn a_broken_table_is_refused() {
        assert!(Table::parse(b"a,b\n1,\"x\n2,3\n").unwrap_err().contains("line 2"));
        assert!(Table::parse(b"a,b\n1,2,3\n").unwrap_err().contains("line 2 has 3 cells"));
        assert!(Table::parse(b"a,b\n1,\"x\"\"\n").is_err());
        assert_eq!(Table::parse(b"a,b\n1,5\" disk\n").unwrap().rows.len(), 1);
    }

    fn cell() -> impl Strategy<Value = String> {
        prop_oneof![".{0,8}", "[\",\r\n 'a]{0,8}", Just(String::new())]
    }

    proptest! {
        #[test]
        fn cells_that_are_written_are_read_back_equal(rows in prop::collection::vec(prop::collection::vec(cell(), 3), 1..6)) {
            let mut table = Table::default();
            for cells in &rows {
                table.append(["a", "b", "c"].into_iter().zip(cells.iter().cloned()));
            }
            let bytes = table.to_bytes().unwrap();
            let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
            let read: Vec<Vec<String>> = reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            prop_assert_eq!(&read, &rows);
            // Ours drops rows without any value, and nothing else.
            let filled = Table { rows: table.rows.iter().filter(|row| row.iter().any(|cell| !cell.is_empty())).cloned().collect(), ..table };
            prop_assert_eq!(Table::parse(&bytes).unwrap(), filled);
        }

        #[test]
        fn writing_what_was_read_changes_nothing_more(bytes in "[a,\"\n\r]{0,40}") {
            if let Ok(table) = Table::parse(bytes.as_bytes()) {
                prop_assert_eq!(Table::parse(&table.to_bytes().unwrap()).unwrap(), table);
            }
        }
    }
}
