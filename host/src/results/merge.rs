//! Results files of several nodes as one: row by row, and only what its type allows.
//!
//! Rows belong together by their place, and have to be of one model and one metric. It must never leave a node out of a
//! figure, nor combine what has no defined aggregate: a file that would need that is no evidence, and a cell stays empty.

use super::aggregate::{Combine, Speakers, combine, greatest, incomplete, sum};
use super::metric::is_number;
use super::multiple::{Results, ResultsRow, is_blank};

/// The files of a job of several nodes, by node, as one. One node that left a file speaks for the job, unless its nodes work
/// each for itself; of several, all are needed.
///
/// # Errors
/// They cannot be taken together; a sentence.
pub fn merge(files: &[(u32, Results)], of: Speakers) -> Result<Results, String> {
    let (first, others) = match files.split_first() {
        None => return Err("no node left it".to_owned()),
        Some(((_, only), [])) if only.rows().all(|row| of.one_speaks(row.get("metric").unwrap_or_default().trim())) => {
            return Ok(only.clone());
        }
        Some(((_, first), others)) => (first, others),
    };
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    if count < of.nodes {
        return Err(incomplete(count, of, "left it"));
    }
    let tables: Vec<Vec<ResultsRow<'_>>> = files.iter().map(|(_, file)| file.rows().collect()).collect();
    let length = first.rows().count();
    if let Some((node, other)) = others.iter().find(|(_, other)| other.rows().count() != length) {
        return Err(format!("that of node {node} has {} rows, that of the first one {length}", other.rows().count()));
    }
    let columns: Vec<String> = first.columns().to_vec();
    let mut rows = Vec::with_capacity(length);
    for (place, row) in first.rows().enumerate() {
        let number = place.saturating_add(1);
        let same: Vec<ResultsRow<'_>> = tables.iter().filter_map(|rows| rows.get(place).copied()).collect();
        let text = |row: &ResultsRow<'_>, column: &str| row.get(column).unwrap_or_default().trim().to_owned();
        for column in ["model", "metric"] {
            if let Some(other) = same.iter().find(|other| text(other, column) != text(&row, column)) {
                let (one, other) = (text(&row, column), text(other, column));
                return Err(format!("row {number} is of `{column}` `{one}` on one node and `{other}` on another"));
            }
        }
        let mut cells = Vec::with_capacity(columns.len());
        for column in &columns {
            let values: Vec<String> = same.iter().map(|row| text(row, column)).collect();
            cells.push(match column.as_str() {
                "performance" => {
                    performance(&values, &text(&row, "metric")).map_err(|why| format!("row {number}: {why}"))?
                }
                name => cell(&values, name),
            });
        }
        rows.push(cells);
    }
    Ok(Results::of(columns, rows))
}

/// What the row is about: one value, or the reason why there is none.
fn performance(values: &[String], metric: &str) -> Result<String, String> {
    if values.iter().all(|value| is_blank(value)) {
        return Ok(String::new());
    }
    if let Some(odd) = values.iter().find(|value| !is_number(value)) {
        return Err(format!("`{odd}` of one node cannot be taken together with the others"));
    }
    combined(values, metric).ok_or_else(|| {
        format!(
            "{} nodes measured `{metric}`, for which no aggregate is defined; leave it on one node only",
            values.len()
        )
    })
}

/// What stands beside it: the same everywhere, combined, or left empty; a text is the first node's.
fn cell(values: &[String], column: &str) -> String {
    let first = values.first().cloned().unwrap_or_default();
    if !values.iter().all(|value| is_number(value)) {
        return first;
    }
    let equal = values.iter().all(|value| *value == first);
    combined(values, column).unwrap_or_else(|| if equal { first } else { String::new() })
}

fn combined(values: &[String], name: &str) -> Option<String> {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    match combine(name) {
        Combine::Sum => sum(&values),
        Combine::Greatest => greatest(&values),
        Combine::Undefined => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(nodes: u32, files: &[&str]) -> Result<Vec<Vec<String>>, String> {
        merged_of(Speakers { nodes, replicas: false }, files)
    }

    fn merged_of(of: Speakers, files: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let files: Vec<(u32, Results)> =
            (0..).zip(files).map(|(node, text)| (node, Results::parse(text.as_bytes()).unwrap())).collect();
        let cells = |row: ResultsRow<'_>| row.cells().map(|(_, text)| text.to_owned()).collect();
        merge(&files, of).map(|results| results.rows().map(cells).collect())
    }

    #[test]
    fn rows_belong_together_by_their_place_and_every_cell_is_combined_as_its_type_says() {
        let rows = merged(
            2,
            &[
                "model,performance,metric,memory_gb,latency_ms,batch,host\na,1.5,tokens/s,9,5,8,n1\nb,,tokens/s,9,5,8,n1\n",
                "host,model,performance,metric,memory_gb,latency_ms,batch\nn2,a,2,tokens/s,11,6,8\nn2,b,,tokens/s,9,5,8\n",
            ],
        );
        let expected = [["a", "3.5", "tokens/s", "11", "", "8", "n1"], ["b", "", "tokens/s", "9", "5", "8", "n1"]];
        assert_eq!(rows.unwrap(), expected);
    }

    #[test]
    fn one_node_s_file_speaks_for_the_job_and_of_several_all_are_needed() {
        let file = "model,performance,metric\na,5,tokens/s\n";
        assert_eq!(merged(3, &[file]).unwrap(), [["a", "5", "tokens/s"]]);
        assert_eq!(merged(3, &[file, file]).unwrap_err(), "2 of 3 nodes left it");
        let replicas = Speakers { nodes: 3, replicas: true };
        assert_eq!(
            merged_of(replicas, &[file]).unwrap_err(),
            "1 of 3 nodes left it, and each of them works for itself"
        );
    }

    #[test]
    fn what_cannot_be_taken_together_is_not() {
        let file = |row: &str| format!("model,performance,metric\n{row}\n");
        for (one, other, why) in [
            ("a,5,latency_ms", "a,6,latency_ms", "no aggregate is defined"),
            ("a,5,tokens/s", "b,6,tokens/s", "`model` `a` on one node and `b`"),
            ("a,5,tokens/s", "a,6,images/s", "`metric`"),
            ("a,5,tokens/s", "a,fast,tokens/s", "`fast`"),
            ("a,5,tokens/s", "a,5,tokens/s\na,6,tokens/s", "has 2 rows"),
        ] {
            let error = merged(2, &[&file(one), &file(other)]).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
