//! Servers that share the work of one model: node 0 passes requests on (`proxy`), the next ones read prompts (`prefill`),
//! the others write answers (`decode`).
//!
//! The model's own script runs on every node and learns by its variables which of them it is: it starts the server, and it
//! ends. Servers do not end by themselves; a job that is nothing but servers (`servers: true`) lasts until its time limit
//! or until it is cancelled.

use maddock_sdk::launcher::Topology;
use maddock_sdk::{Result, invalid};

use crate::settings::Settings;

/// Where prefill and decode servers listen.
const SERVER_PORT: u16 = 30_000;
/// One to pass requests on, one for each half of the work.
pub const LEAST_NODES: u32 = 3;

/// How many nodes do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// They read prompts.
    pub prefill: u32,
    /// They write answers.
    pub decode: u32,
}

impl Split {
    /// The split of a job: as the section says, else two fifths of the servers read prompts.
    ///
    /// # Errors
    /// There are too few nodes, or the section's numbers are not those of the nodes.
    pub fn of(section: &Settings, nodes: u32) -> Result<Self> {
        if nodes < LEAST_NODES {
            return Err(invalid(format!(
                "`sglang-disagg` takes {LEAST_NODES} nodes or more, one of which passes requests on, and the job has {nodes}"
            ))
            .hint(format!("set `distributed.nnodes` to {LEAST_NODES} or more, or use the launcher `sglang`"))
            .detail("key", "distributed.nnodes"));
        }
        let servers = nodes - 1;
        let asked = (section.count("prefill_nodes")?, section.count("decode_nodes")?);
        let split = match asked {
            (None, None) => {
                let prefill = (u64::from(servers) * 2 / 5).max(1);
                let prefill = u32::try_from(prefill).unwrap_or(servers);
                Self { prefill, decode: servers - prefill }
            }
            (Some(prefill), None) => Self { prefill, decode: servers.saturating_sub(prefill) },
            (None, Some(decode)) => Self { prefill: servers.saturating_sub(decode), decode },
            (Some(prefill), Some(decode)) => Self { prefill, decode },
        };
        let sum = u64::from(split.prefill) + u64::from(split.decode);
        if split.prefill == 0 || split.decode == 0 || sum != u64::from(servers) {
            let (prefill, decode) = (section.key("prefill_nodes"), section.key("decode_nodes"));
            return Err(invalid(format!(
                "`{prefill}` and `{decode}` are {} and {}, and {nodes} nodes have {servers} besides the one that passes \
                 requests on",
                split.prefill, split.decode
            ))
            .hint(format!("let them be 1 or more each and {servers} together, or leave both out"))
            .detail("key", prefill));
        }
        Ok(split)
    }

    /// What a node is.
    #[must_use]
    pub fn role(self, node: u32) -> &'static str {
        match node {
            0 => "proxy",
            node if node <= self.prefill => "prefill",
            _ => "decode",
        }
    }
}

/// The servers' own commands, for a job that is nothing but servers.
///
/// # Errors
/// Nobody says which model they serve.
pub fn command(
    topology: &Topology,
    section: &Settings,
    split: Split,
    processes: u32,
    node: u32,
) -> Result<Vec<String>> {
    let given = topology.env.iter().rev().find(|entry| entry.name == "MODEL_PATH").map(|entry| entry.value.clone());
    let Some(model) = section.text("model_path")?.or(given).filter(|path| !path.is_empty()) else {
        let key = section.key("model_path");
        return Err(invalid("the servers of `sglang-disagg` are not told which model they serve")
            .hint(format!("set `{key}`, or the variable MODEL_PATH in `env_vars`"))
            .detail("key", key));
    };
    let url = |node: u32| format!("http://$MADDOCK_NODE_{node}:{SERVER_PORT}");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if node == 0 {
        let mut command = words(&["python3", "-m", "sglang.srt.disaggregation.mini_lb", "--prefill"]);
        command.extend((1..=split.prefill).map(url));
        command.push("--decode".to_owned());
        command.extend((split.prefill + 1..topology.nodes).map(url));
        command.extend(words(&["--host", "0.0.0.0", "--port", &topology.main_port.to_string()]));
        return Ok(command);
    }
    let mut command = words(&["python3", "-m", "sglang.launch_server", "--model-path"]);
    command.push(maddock_sdk::references::literal(&model));
    command.extend(words(&["--disaggregation-mode", split.role(node), "--tp-size", &processes.to_string()]));
    // The server's own default is to hear itself only, and the proxy is on another node.
    command.extend(words(&["--host", "0.0.0.0", "--port", &SERVER_PORT.to_string()]));
    command.extend(words(&["--disaggregation-transfer-backend", "mooncake"]));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(section: &str, nodes: u32) -> Result<Split> {
        let section = format!(r#"{{"sglang_disagg": {section}}}"#);
        Split::of(&Settings::read(&section).unwrap().section("sglang_disagg").unwrap(), nodes)
    }

    #[test]
    fn two_fifths_of_the_servers_read_prompts_and_one_at_least() {
        for (nodes, prefill, decode) in [
            (3, 1, 1),
            (4, 1, 2),
            (5, 1, 3),
            (6, 2, 3),
            (8, 2, 5),
            (11, 4, 6),
            (u32::MAX, 1_717_986_917, 2_576_980_377),
        ] {
            assert_eq!(split("{}", nodes).unwrap(), Split { prefill, decode }, "{nodes}");
        }
    }

    #[test]
    fn a_split_of_ones_own_is_taken_where_it_is_one() {
        assert_eq!(split(r#"{"prefill_nodes": 3, "decode_nodes": 1}"#, 5).unwrap(), Split { prefill: 3, decode: 1 });
        assert_eq!(split(r#"{"prefill_nodes": "3"}"#, 5).unwrap(), Split { prefill: 3, decode: 1 });
        assert_eq!(split(r#"{"decode_nodes": 3}"#, 5).unwrap(), Split { prefill: 1, decode: 3 });
        for (section, nodes) in [
            (r#"{"prefill_nodes": 2, "decode_nodes": 2}"#, 4),
            (r#"{"prefill_nodes": 1, "decode_nodes": 1}"#, 4),
            (r#"{"prefill_nodes": 0, "decode_nodes": 3}"#, 4),
            (r#"{"prefill_nodes": 3}"#, 4),
            (r#"{"prefill_nodes": 4294967295, "decode_nodes": 4294967295}"#, 4),
            (r#"{"decode_nodes": "x"}"#, 4),
            ("{}", 2),
            ("3", 4),
        ] {
            let error = if section == "3" {
                Settings::read(r#"{"sglang_disagg": 3}"#).unwrap().section("sglang_disagg").unwrap_err()
            } else {
                split(section, nodes).unwrap_err()
            };
            assert!(error.hint.is_some() && error.details.iter().any(|detail| detail.name == "key"), "{error:?}");
        }
    }
}
