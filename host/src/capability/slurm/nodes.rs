//! Names of nodes: a range such as `node[1-3,07]` as the names that it stands for, so that a rule about one node holds for a
//! range with it in it.

use maddock_bindings::api::types::ErrorKind;

use crate::capability::{ApiError, error_with_hint};

/// More are no list that somebody wrote.
const MOST: usize = 65_536;

/// Every node of a list by its own name; one empty name for an empty list.
pub(super) fn each(list: &[String]) -> Result<Vec<String>, ApiError> {
    if list.is_empty() {
        return Ok(vec![String::new()]);
    }
    let mut names = Vec::new();
    for text in list {
        expand("", text, &mut names).ok_or_else(|| {
            error_with_hint(
                ErrorKind::InvalidInput,
                format!("`{}` is no list of nodes", text.escape_debug()),
                format!("write names and ranges such as `node[1-4,7]`, {MOST} nodes at most"),
            )
        })?;
    }
    Ok(names)
}

fn expand(before: &str, text: &str, names: &mut Vec<String>) -> Option<()> {
    let Some((head, rest)) = text.split_once('[') else {
        // A lone bracket is no range.
        if text.contains(']') || names.len() >= MOST {
            return None;
        }
        names.push(format!("{before}{text}"));
        return Some(());
    };
    let (ranges, after) = rest.split_once(']')?;
    if head.contains(']') {
        return None;
    }
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let digits = |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !digits(last) {
            return None;
        }
        let (from, to): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if from > to || usize::try_from(to - from).ok()? >= MOST {
            return None;
        }
        for number in from..=to {
            expand(&format!("{before}{head}{number:0width$}", width = first.len()), after, names)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[&str]) -> Option<Vec<String>> {
        each(&list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn a_range_is_each_of_its_nodes() {
        assert_eq!(of(&["n[1-3]", "m"]).unwrap(), ["n1", "n2", "n3", "m"]);
        assert_eq!(of(&["r[1-2]n[08-10]x"]).unwrap(), ["r1n08x", "r1n09x", "r1n10x", "r2n08x", "r2n09x", "r2n10x"]);
        assert_eq!(of(&["n[3,5]"]).unwrap(), ["n3", "n5"]);
        assert_eq!(of(&[]).unwrap(), [""]);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in ["n[1-", "n]", "n[a-b]", "n[3-1]", "n[]", "n[1-99999999]", "n[1-999][1-999]"] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
    }
}
