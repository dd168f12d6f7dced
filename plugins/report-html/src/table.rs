//! A CSV file as a bare HTML table. Values stand as they are written; a blank one is `NaN`, as the contract has it.

use csv::ByteRecord;

/// The table of a CSV file.
///
/// # Errors
/// The file has no header, or a row does not fit it.
pub fn render(bytes: &[u8]) -> Result<String, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut records = reader.byte_records();
    let header = match records.next() {
        None => return Err("it has no columns: the file is empty".to_owned()),
        Some(header) => header.map_err(|error| error.to_string())?,
    };
    let mut html =
        String::from("<table border=\"1\" class=\"dataframe\">\n  <thead>\n    <tr style=\"text-align: right;\">\n");
    for (index, name) in header.iter().enumerate() {
        let name = if name.is_empty() { format!("Unnamed: {index}") } else { escape(name) };
        html.push_str(&format!("      <th>{name}</th>\n"));
    }
    html.push_str("    </tr>\n  </thead>\n  <tbody>\n");
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        row(&mut html, &header, &record)?;
    }
    html.push_str("  </tbody>\n</table>");
    Ok(html)
}

fn row(html: &mut String, header: &ByteRecord, record: &ByteRecord) -> Result<(), String> {
    if record.len() > header.len() {
        let line = record.position().map_or(0, csv::Position::line);
        return Err(format!("line {line} has {} cells, the header has {}", record.len(), header.len()));
    }
    html.push_str("    <tr>\n");
    for index in 0..header.len() {
        let cell = record.get(index).unwrap_or_default();
        let text = if cell.is_empty() { "NaN".to_owned() } else { escape(cell) };
        html.push_str(&format!("      <td>{text}</td>\n"));
    }
    html.push_str("    </tr>\n");
    Ok(())
}

/// Text that a browser shows and never obeys.
pub fn escape(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
