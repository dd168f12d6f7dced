//! `to-html`: one results table as HTML, beside it. It must never write without having read the whole table.

mod table;

use maddock_sdk::files::{self, FileKind};
use maddock_sdk::reporter::{self, Guest, Produced, ReportRequest};
use maddock_sdk::{Result, failed, invalid, not_found, unsupported};

/// Bytes of a table at most.
const LARGEST: u64 = 64 << 20;

struct Plugin;

impl Guest for Plugin {
    fn report(request: ReportRequest) -> Result<Vec<Produced>> {
        if request.format != "to-html" {
            return Err(unsupported(format!("no format `{}`", request.format)));
        }
        let [input] = request.inputs.as_slice() else {
            return Err(invalid("exactly one CSV file is needed"));
        };
        match files::stat(input)? {
            None => return Err(not_found(format!("no file `{input}`"))),
            Some(info) if info.kind != FileKind::File => return Err(invalid(format!("`{input}` is not a file"))),
            Some(_) => {}
        }
        let output = page_of(input, &request.output)?;
        let html = table::render(&files::read(input, LARGEST)?)
            .map_err(|message| failed(format!("cannot read `{input}` as CSV: {message}")))?;
        files::write(&output, html.as_bytes(), 0o644)?;
        let summary = format!("wrote `{output}`");
        Ok(vec![Produced { path: output, media_type: "text/html".to_owned(), summary }])
    }
}

/// Where the page goes: what was asked for, or the table's name with another ending.
fn page_of(input: &str, output: &str) -> Result<String> {
    let Some(stem) = input.strip_suffix(".csv") else {
        return Err(invalid(format!("`{input}` is not a CSV file")).hint("the name must end with `.csv`"));
    };
    Ok(if output.is_empty() { format!("{stem}.html") } else { output.to_owned() })
}

maddock_sdk::manifest!("plugin.json");
reporter::export!(Plugin with_types_in maddock_sdk::reporter);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_is_bare_and_its_values_are_escaped_and_never_retyped() {
        let html = table::render(b"model,performance,x\n<a&b>,0.0144050,\n5,1.5e3,\"say \"\"hi\"\"\"\n").unwrap();
        let expected = r#"<table border="1" class="dataframe">
  <thead>
    <tr style="text-align: right;">
      <th>model</th>
      <th>performance</th>
      <th>x</th>
    </tr>
  </thead>
  <tbody>
    <tr>
      <td>&lt;a&amp;b&gt;</td>
      <td>0.0144050</td>
      <td>NaN</td>
    </tr>
    <tr>
      <td>5</td>
      <td>1.5e3</td>
      <td>say "hi"</td>
    </tr>
  </tbody>
</table>"#;
        assert_eq!(html, expected);
    }

    #[test]
    fn a_header_alone_is_a_table_and_an_empty_file_is_none() {
        assert!(table::render(b"a,b\n").unwrap().ends_with("  <tbody>\n  </tbody>\n</table>"));
        assert!(table::render(b"").unwrap_err().contains("empty"));
        assert!(table::render(b"a\n1,2\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn the_page_lies_beside_the_table() {
        assert_eq!(page_of("/a/perf.csv", "").unwrap(), "/a/perf.html");
        assert_eq!(page_of("/a/perf.csv", "/b/x.html").unwrap(), "/b/x.html");
        assert!(page_of("/a/perf.CSV", "").unwrap_err().message.contains("not a CSV"));
    }

    proptest! {
        #[test]
        fn no_cell_becomes_markup(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(html) = table::render(&bytes) {
                let tags = ["table", "thead", "tbody", "tr", "th", "td"];
                for part in html.split('<').skip(1) {
                    let name: String = part.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphabetic()).collect();
                    prop_assert!(tags.contains(&name.as_str()), "{part}");
                }
            }
        }
    }
}
