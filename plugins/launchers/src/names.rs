//! The one table of launchers: canonical names, aliases, and what family each belongs to.
//!
//! Dispatch and reports both use the canonical name found here. A new launcher is a new row, here and in the list that
//! `plugin.json` provides.

/// What a launcher makes of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A rendezvous by `torchrun`: works on one node and on several.
    Torchrun,
    /// `deepspeed` starts the processes of one node by itself.
    Deepspeed,
    /// The model starts its processes itself: the runner is defined and empty.
    SelfManaged,
}

/// One launcher.
#[derive(Debug, PartialEq, Eq)]
pub struct Launcher {
    /// The spelling in reports.
    pub name: &'static str,
    /// Other names it answers to. Case, hyphens and underscores never matter, so those spellings need no row.
    pub aliases: &'static [&'static str],
    /// What it does.
    pub family: Family,
}

/// Every launcher of this plugin.
pub const LAUNCHERS: &[Launcher] = &[
    Launcher { name: "torchrun", aliases: &[], family: Family::Torchrun },
    // No launcher asked for: models expect a runner all the same, as they had one before.
    Launcher { name: "none", aliases: &["native", "docker"], family: Family::Torchrun },
    Launcher { name: "deepspeed", aliases: &[], family: Family::Deepspeed },
    Launcher { name: "megatron-lm", aliases: &["megatron"], family: Family::Torchrun },
    Launcher { name: "torchtitan", aliases: &[], family: Family::Torchrun },
    Launcher { name: "vllm", aliases: &[], family: Family::SelfManaged },
    Launcher { name: "sglang", aliases: &[], family: Family::SelfManaged },
    Launcher { name: "sglang-disagg", aliases: &[], family: Family::SelfManaged },
    Launcher { name: "primus", aliases: &[], family: Family::SelfManaged },
];

/// The launcher that answers to `asked`.
pub fn find(asked: &str) -> Option<&'static Launcher> {
    let asked = folded(asked);
    LAUNCHERS
        .iter()
        .find(|launcher| std::iter::once(&launcher.name).chain(launcher.aliases).any(|name| folded(name) == asked))
}

/// The canonical names, for messages.
pub fn known() -> String {
    LAUNCHERS.iter().map(|launcher| format!("`{}`", launcher.name)).collect::<Vec<_>>().join(", ")
}

fn folded(name: &str) -> String {
    name.trim().chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_matter() {
        for (asked, name) in [
            ("Megatron_LM", "megatron-lm"),
            ("megatron", "megatron-lm"),
            ("SGLANG_DISAGG", "sglang-disagg"),
            ("sglang", "sglang"),
            (" torchrun ", "torchrun"),
            ("native", "none"),
            ("Docker", "none"),
        ] {
            assert_eq!(find(asked).map(|found| found.name), Some(name), "{asked}");
        }
        assert_eq!(find("mpirun"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn no_two_launchers_answer_to_one_name() {
        let mut names: Vec<String> =
            LAUNCHERS.iter().flat_map(|l| std::iter::once(&l.name).chain(l.aliases)).map(|n| folded(n)).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_manifest_provides_exactly_the_names_of_the_table() {
        let manifest: maddock_sdk::serde_json::Value =
            maddock_sdk::serde_json::from_str(include_str!("../plugin.json")).unwrap();
        let provided: Vec<&str> =
            manifest["provides"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let table: Vec<&str> =
            LAUNCHERS.iter().flat_map(|l| std::iter::once(&l.name).chain(l.aliases)).copied().collect();
        assert_eq!(provided, table);
    }
}
