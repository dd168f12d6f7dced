//! References in what launchers say: `$NAME` for what is known on the nodes only. See the launcher interface.
//!
//! A launcher [escapes](literal) what it takes from a user. A target uses [`plain`] for values that are known before the
//! job runs, and leaves the others to the entry script, which turns them into words by [`word`].

use std::collections::BTreeSet;

use crate::quote;
use crate::target::{Job, NodeRole};

/// The address of node 0.
pub const MAIN_NODE: &str = "MADDOCK_MAIN_NODE";
/// The addresses of all nodes.
pub const NODES: &str = "MADDOCK_NODES";
/// The node's own IP address.
pub const NODE_ADDRESS: &str = "MADDOCK_NODE_ADDRESS";
/// A file that lists the nodes and their slots.
pub const HOSTFILE: &str = "MADDOCK_HOSTFILE";
/// In commands: the script and its arguments.
pub const SCRIPT: &str = "MADDOCK_SCRIPT";
/// Before the number of a node.
const NODE: &str = "MADDOCK_NODE_";

/// One part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// The name of a variable that the node knows.
    Reference(String),
}

/// The number in `MADDOCK_NODE_7`.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NODE)?;
    let plain = !digits.is_empty() && digits.chars().all(|letter| letter.is_ascii_digit());
    if plain && (digits == "0" || !digits.starts_with('0')) { digits.parse().ok() } else { None }
}

fn is_reference(name: &str) -> bool {
    matches!(name, MAIN_NODE | NODES | NODE_ADDRESS | HOSTFILE) || number(name).is_some()
}

/// The parts of a launcher's value.
#[must_use]
pub fn parts(value: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        if let Some(behind) = after.strip_prefix('$') {
            text.push('$');
            rest = behind;
        } else if is_reference(name) {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Reference(name.to_owned()));
            rest = behind;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// A text of somebody else's, such as a user's, as a launcher says it: it holds no reference.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The value, where it holds no reference.
#[must_use]
pub fn plain(value: &str) -> Option<String> {
    match parts(value).as_slice() {
        [Part::Text(text)] => Some(text.clone()),
        _ => None,
    }
}

/// The value as a word of a script in which only the references are expanded.
#[must_use]
pub fn word(value: &str) -> String {
    let of_part = |part: &Part| match part {
        Part::Text(text) => quote::word(text),
        Part::Reference(name) => format!("\"${{{name}}}\""),
    };
    parts(value).iter().map(of_part).collect()
}

/// All references of a role.
#[must_use]
pub fn of(role: &NodeRole) -> BTreeSet<String> {
    let values = role.env.iter().map(|entry| entry.value.as_str());
    let command = role.command.iter().flatten().map(String::as_str);
    values
        .chain(command)
        .flat_map(parts)
        .filter_map(|part| match part {
            Part::Reference(name) => Some(name),
            Part::Text(_) => None,
        })
        .collect()
}

/// The lines of the entry script that give the role's references and its variables with references their values. Empty
/// where there are none. They use `give_up` and `state` of that script.
pub(crate) fn lines(job: &Job, role: Option<&NodeRole>) -> String {
    let Some(role) = role else { return String::new() };
    let used = of(role);
    if used.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n# Where the nodes are is known here only.\nknown() { [ -n \"${!1:-}\" ] || give_up 125 \"the target has not set $1 on this node\"; }\n",
    );
    let mut add = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let numbers: Vec<u32> = used.iter().filter_map(|name| number(name)).collect();
    if !numbers.is_empty() || used.contains(HOSTFILE) {
        add(format!("known {NODES}\nIFS=, read -r -a maddock_nodes <<< \"${NODES}\""));
    }
    for number in numbers {
        add(format!("export {NODE}{number}=${{maddock_nodes[{number}]:-}}"));
    }
    if used.contains(HOSTFILE) {
        let slots = job.topology.processes_per_node.max(1);
        add(format!(
            "export {HOSTFILE}=$maddock_state/hostfile\nprintf '%s slots={slots}\\n' \"${{maddock_nodes[@]}}\" > \"${HOSTFILE}\""
        ));
    }
    for name in &used {
        add(format!("known {name}"));
    }
    for entry in &role.env {
        if plain(&entry.value).is_none() {
            add(format!("export {}={}", entry.name, word(&entry.value)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_ends_where_its_name_does() {
        for (value, expected) in [
            ("--a=$MADDOCK_MAIN_NODE:1", "'--a='\"${MADDOCK_MAIN_NODE}\":1"),
            ("$MADDOCK_NODES", "\"${MADDOCK_NODES}\""),
            ("$MADDOCK_NODE_12", "\"${MADDOCK_NODE_12}\""),
            ("$MADDOCK_NODE_1,$MADDOCK_NODE_2", "\"${MADDOCK_NODE_1}\",\"${MADDOCK_NODE_2}\""),
            ("$MADDOCK_NODE_ADDRESS", "\"${MADDOCK_NODE_ADDRESS}\""),
            ("$MADDOCK_HOSTFILE", "\"${MADDOCK_HOSTFILE}\""),
            ("plain", "plain"),
            ("", "''"),
        ] {
            assert_eq!(word(value), expected);
            assert_eq!(plain(value).is_none(), value.contains('$'), "{value}");
        }
    }

    #[test]
    fn nothing_else_is_a_reference() {
        for value in [
            "$HOME",
            "${MADDOCK_MAIN_NODE}",
            "$MADDOCK_MAIN_NODES",
            "$MADDOCK_MAIN_NODE_",
            "$MADDOCK_NODE_",
            "$MADDOCK_NODE_01",
            "$MADDOCK_NODE_99999999999",
            "$MADDOCK_SCRIPT",
            "MADDOCK_NODES",
            "$(id)`id`$",
        ] {
            assert_eq!(plain(value).as_deref(), Some(value));
        }
    }

    #[test]
    fn a_literal_is_what_it_was_whatever_it_holds() {
        for text in ["$MADDOCK_NODES", "$$MADDOCK_NODES", "$$$", "a$", "$a$$b", "", "x", "$MADDOCK_NODE_1$"] {
            assert_eq!(plain(&literal(text)).as_deref(), Some(text));
            let beside = format!("{}$MADDOCK_NODES", literal(text));
            let mut expected = vec![Part::Text(text.to_owned())];
            expected.retain(|part| *part != Part::Text(String::new()));
            expected.push(Part::Reference(NODES.to_owned()));
            assert_eq!(parts(&beside), expected);
        }
    }
}
