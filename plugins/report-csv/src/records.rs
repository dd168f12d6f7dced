//! Rows as JSON records: `perf_entry.json` for the latest update, `perf_super.json` for all of them.
//!
//! Digits are copied and never read as a number, so what was measured is what stands there. A blank is `""` where the
//! contract has text, `null` otherwise, and never `NaN`.

use maddock_sdk::reporter::{CellValue, Row};
use maddock_sdk::serde_json::{self, Value};
use serde::de::{MapAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// How many cells of a row are columns of the contract; what follows came from a results file.
const STANDARD: usize = 29;

/// JSON in the making.
#[derive(Debug, Clone)]
pub enum Node {
    Null,
    Text(String),
    /// Digits, copied.
    Number(Box<RawValue>),
    Json(Value),
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(digits) => digits.serialize(serializer),
            Self::Json(value) => value.serialize(serializer),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, member) in members {
                    map.serialize_entry(name, member)?;
                }
                map.end()
            }
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
        }
    }
}

/// Digits as a JSON number; as text where JSON has no such number, such as `+5` or `.5`.
fn number(digits: &str) -> Node {
    let numeric = digits.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match RawValue::from_string(digits.to_owned()) {
        Ok(raw) if numeric => Node::Number(raw),
        _ => Node::Text(digits.to_owned()),
    }
}

fn structured(json: &str) -> Node {
    serde_json::from_str(json).map_or_else(|_| Node::Text(json.to_owned()), Node::Json)
}

fn configs(row: &Row) -> Node {
    serde_json::from_str(&row.configs).map_or(Node::Null, Node::Json)
}

fn is_duration(name: &str) -> bool {
    name.ends_with("_duration")
}

/// A cell of a job with one row: texts, but for durations.
fn plain(name: &str, value: &CellValue) -> Node {
    match value {
        CellValue::Number(digits) if is_duration(name) => number(digits),
        CellValue::Text(text) | CellValue::Number(text) => Node::Text(text.clone()),
        CellValue::Structured(json) => structured(json),
        CellValue::Blank => Node::Text(String::new()),
    }
}

/// A cell of a job with several rows: numbers are numbers.
fn typed(value: &CellValue, standard: bool) -> Node {
    match value {
        CellValue::Text(text) => Node::Text(text.clone()),
        CellValue::Number(digits) => number(digits),
        CellValue::Structured(json) => structured(json),
        CellValue::Blank if standard => Node::Text(String::new()),
        CellValue::Blank => Node::Null,
    }
}

/// The record of a job with one row.
pub fn entry(row: &Row) -> Node {
    let mut members: Vec<(String, Node)> =
        row.cells.iter().map(|cell| (cell.name.clone(), plain(&cell.name, &cell.value))).collect();
    members.push(("configs".to_owned(), configs(row)));
    Node::Object(members)
}

fn is_measured(name: &str) -> bool {
    matches!(name, "performance" | "test_duration")
}

/// The record of one row of several.
fn multiple_entry(row: &Row) -> Node {
    let cells = row.cells.iter().enumerate();
    let mut members: Vec<(String, Node)> = cells
        .map(|(index, cell)| (cell.name.clone(), typed(&cell.value, index < STANDARD && !is_measured(&cell.name))))
        .collect();
    members.push(("configs".to_owned(), configs(row)));
    Node::Object(members)
}

/// `perf_entry.json` of one job.
///
/// # Errors
/// Never for nodes in memory.
pub fn entry_file(rows: &[Row]) -> Result<String, String> {
    let text = match rows {
        [row] if row.shape != "multiple" => serde_json::to_string(&entry(row)),
        [row] => serde_json::to_string_pretty(&multiple_entry(row)),
        rows => serde_json::to_string_pretty(&Node::List(rows.iter().map(multiple_entry).collect())),
    };
    Ok(text.map_err(|error| error.to_string())? + "\n")
}

/// What the rows of a job with several have in common.
fn common(row: &Row) -> Vec<(String, Node)> {
    let cells = row.cells.iter().take(STANDARD);
    let own = |name: &str| matches!(name, "model" | "performance" | "metric" | "status");
    cells.filter(|cell| !own(&cell.name)).map(|cell| (cell.name.clone(), plain(&cell.name, &cell.value))).collect()
}

/// `common_info.json` of a job with several rows.
///
/// # Errors
/// Never for nodes in memory.
pub fn common_file(row: &Row) -> Result<String, String> {
    let mut members = common(row);
    members.push(("configs".to_owned(), configs(row)));
    Ok(serde_json::to_string_pretty(&Node::Object(members)).map_err(|error| error.to_string())? + "\n")
}

/// The record of a row in `perf_super.json`.
fn super_record(row: &Row) -> Node {
    if row.shape != "multiple" {
        let mut members = match entry(row) {
            Node::Object(members) => members,
            other => return other,
        };
        members.push(("multi_results".to_owned(), Node::Null));
        return Node::Object(members);
    }
    let mut members = common(row);
    for name in ["model", "performance", "metric"] {
        let value = row
            .cells
            .iter()
            .find(|cell| cell.name == name)
            .map_or(Node::Null, |cell| typed(&cell.value, name != "performance"));
        members.push((name.to_owned(), value));
    }
    let more = row.cells.iter().skip(STANDARD).filter(|cell| cell.value != CellValue::Blank);
    let more: Vec<(String, Node)> = more.map(|cell| (cell.name.clone(), typed(&cell.value, false))).collect();
    members.push(("multi_results".to_owned(), if more.is_empty() { Node::Null } else { Node::Object(more) }));
    let status =
        row.cells.iter().find(|cell| cell.name == "status").map_or(Node::Null, |cell| typed(&cell.value, true));
    members.push(("status".to_owned(), status));
    members.push(("configs".to_owned(), configs(row)));
    Node::Object(members)
}

/// Records as they stand in a file: the text of each, unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    texts: Vec<String>,
}

/// The members of a record, in order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Records {
    /// Reads a file of records. The `NaN` of other writers is read as `null`.
    ///
    /// # Errors
    /// It is not a list of objects.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let items: Vec<Box<RawValue>> = serde_json::from_str(&without_nan(text)).map_err(|error| error.to_string())?;
        let texts: Vec<String> = items.iter().map(|item| item.get().to_owned()).collect();
        for text in &texts {
            serde_json::from_str::<Members>(text).map_err(|error| error.to_string())?;
        }
        Ok(Self { texts })
    }

    /// Adds the record of a row.
    ///
    /// # Errors
    /// Never for nodes in memory.
    pub fn append(&mut self, row: &Row) -> Result<(), String> {
        let text = serde_json::to_string_pretty(&super_record(row)).map_err(|error| error.to_string())?;
        // One step further in, as an item of the list. Texts in JSON have no line ends of their own.
        self.texts.push(text.replace('\n', "\n  "));
        Ok(())
    }

    /// The file.
    #[must_use]
    pub fn to_json(&self) -> String {
        if self.texts.is_empty() { "[]\n".to_owned() } else { format!("[\n  {}\n]\n", self.texts.join(",\n  ")) }
    }

    /// Names and texts of each record's members, as cells of a table.
    ///
    /// # Errors
    /// A record is not an object.
    pub fn cells(&self) -> Result<Vec<Vec<(String, String)>>, String> {
        let cells = |text: &String| -> Result<Vec<(String, String)>, String> {
            let members: Members = serde_json::from_str(text).map_err(|error| error.to_string())?;
            Ok(members.0.into_iter().map(|(name, raw)| (name, cell(raw.get()))).collect())
        };
        self.texts.iter().map(cells).collect()
    }
}

/// A JSON value as the text of a cell.
fn cell(json: &str) -> String {
    if json == "null" {
        String::new()
    } else if json.starts_with('"') {
        serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
    } else {
        compact(json)
    }
}

/// Runs over the text of JSON; `outside` sees what is not part of a string and says how many bytes it took and what
/// stands for them.
fn rewrite<'a>(json: &'a str, outside: impl Fn(&'a str) -> Option<(usize, &'static str)>) -> String {
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        if let Some((taken, instead)) = (!in_string).then(|| outside(rest)).flatten() {
            out.push_str(instead);
            rest = rest.get(taken..).unwrap_or_default();
            continue;
        }
        let taken =
            if in_string && c == '\\' { 1 + rest.chars().nth(1).map_or(0, char::len_utf8) } else { c.len_utf8() };
        in_string ^= c == '"';
        out.push_str(rest.get(..taken).unwrap_or_default());
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

/// Without blanks and line ends between the parts.
fn compact(json: &str) -> String {
    rewrite(json, |rest| rest.starts_with([' ', '\n', '\r', '\t']).then_some((1, "")))
}

fn without_nan(json: &str) -> String {
    rewrite(json, |rest| {
        ["NaN", "-Infinity", "Infinity"]
            .into_iter()
            .find(|word| rest.starts_with(word))
            .map(|word| (word.len(), "null"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_sdk::reporter::Cell;
    use maddock_sdk::serde_json::json;

    fn cell_of(name: &str, value: CellValue) -> Cell {
        Cell { name: name.to_owned(), value }
    }

    pub fn row(shape: &str, performance: &str, more: &[(&str, CellValue)]) -> Row {
        let mut cells = vec![cell_of("model", CellValue::Text("m".to_owned()))];
        cells.extend((1..25).map(|n| cell_of(&format!("c{n}"), CellValue::Blank)));
        cells.push(cell_of("performance", CellValue::Number(performance.to_owned())));
        cells.push(cell_of("metric", CellValue::Text("tok".to_owned())));
        cells.push(cell_of("status", CellValue::Text("SUCCESS".to_owned())));
        cells.push(cell_of("test_duration", CellValue::Number("1.50".to_owned())));
        assert_eq!(cells.len(), STANDARD);
        cells.extend(more.iter().map(|(name, value)| cell_of(name, value.clone())));
        Row { cells, job: "1-m".to_owned(), configs: r#"{"lr": 0.1}"#.to_owned(), shape: shape.to_owned() }
    }

    #[test]
    fn the_entry_of_one_row_is_one_line_of_texts_but_for_durations() {
        let text = entry_file(&[row("single", "1.50e3", &[])]).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r#""performance":"1.50e3""#), "{text}");
        assert!(text.contains(r#""test_duration":1.50"#), "{text}");
        assert!(text.contains(r#""c1":"""#) && text.trim_end().ends_with(r#""configs":{"lr":0.1}}"#), "{text}");
    }

    #[test]
    fn entries_of_several_rows_are_a_list_and_of_one_an_object() {
        let rows = [
            row("multiple", "1.50e3", &[("seq", CellValue::Number("128".to_owned())), ("x", CellValue::Blank)]),
            row("multiple", "+2", &[]),
        ];
        let text = entry_file(&rows).unwrap();
        assert!(text.contains(r#""performance": 1.50e3"#), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[0]["seq"], json!(128));
        assert_eq!(value[0]["x"], Value::Null);
        assert_eq!(value[0]["c1"], json!(""));
        assert_eq!(value[1]["performance"], json!("+2"));
        assert!(entry_file(&rows[..1]).unwrap().starts_with("{\n  \"model\""));
    }

    #[test]
    fn records_pile_up_and_older_ones_stay_as_they_were() {
        let old = "[\n  {\n    \"model\": \"old\",\n    \"performance\": 1.00,\n    \"bad\": NaN,\n    \"text\": \"NaN [\\\"\"\n  }\n]";
        let mut records = Records::parse(old.as_bytes()).unwrap();
        records.append(&row("multiple", "2.0", &[("seq", CellValue::Number("128".to_owned()))])).unwrap();
        records.append(&row("single", "3", &[])).unwrap();
        let text = records.to_json();
        assert!(
            text.starts_with(
                "[\n  {\n    \"model\": \"old\",\n    \"performance\": 1.00,\n    \"bad\": null,\n    \"text\": \"NaN"
            ),
            "{text}"
        );
        assert!(text.contains("\n    \"performance\": 2.0,\n"), "{text}");
        assert_eq!(Records::parse(text.as_bytes()).unwrap(), records);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[1]["multi_results"], json!({"seq": 128}));
        assert_eq!(value[1]["test_duration"], json!(1.5));
        assert_eq!(value[1]["model"], json!("m"));
        assert_eq!(value[2]["multi_results"], Value::Null);
        let keys: Vec<&str> = value[1].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys[keys.len() - 6..], ["model", "performance", "metric", "multi_results", "status", "configs"]);
    }

    #[test]
    fn cells_of_records_are_texts() {
        let records = Records::parse(br#"[{"a": "x\"y", "b": null, "c": {"d": [1, " 2 "]}, "e": 1.50}]"#).unwrap();
        let cells = &records.cells().unwrap()[0];
        let cells: Vec<(&str, &str)> = cells.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(cells, [("a", "x\"y"), ("b", ""), ("c", r#"{"d":[1," 2 "]}"#), ("e", "1.50")]);
    }

    #[test]
    fn what_is_not_a_list_of_objects_is_refused() {
        for wrong in ["{}", "[1]", "[{]", "[{\"a\": nan}]"] {
            assert!(Records::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(Records::parse(b" \n").unwrap().to_json(), "[]\n");
    }
}
