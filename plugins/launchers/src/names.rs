//! The one table of launchers: canonical names, aliases, and what each does with a topology.
//!
//! Dispatch and reports both use the canonical name found here. A new launcher is a new row, here and in the list that
//! `plugin.json` provides.

/// What a launcher makes of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was asked for. Models expect a runner all the same, as they always had one.
    None,
    /// A rendezvous of one agent on each node.
    Torchrun,
    /// DeepSpeed's own runner.
    Deepspeed,
    /// Torchrun, and how tensors and layers are split.
    Megatron,
    /// Torchrun, and how tensors and layers are split.
    Torchtitan,
    /// The Primus tree's own scripts.
    Primus,
    /// A server on each node, which starts its processes by itself.
    Vllm,
    /// A server on each node, which starts its processes by itself.
    Sglang,
    /// Servers that share the work: one node passes requests on, some read prompts, the others write answers.
    SglangDisagg,
    /// The model's script runs once and uses the scheduler by itself.
    SlurmMulti,
}

/// One launcher.
#[derive(Debug, PartialEq, Eq)]
pub struct Launcher {
    /// The spelling in reports.
    pub name: &'static str,
    /// Other names it answers to. Case, hyphens and underscores never matter, so those spellings need no row.
    pub aliases: &'static [&'static str],
    /// What it does.
    pub kind: Kind,
}

/// Every launcher of this plugin.
pub const LAUNCHERS: &[Launcher] = &[
    Launcher { name: "torchrun", aliases: &[], kind: Kind::Torchrun },
    Launcher { name: "none", aliases: &["native", "docker"], kind: Kind::None },
    Launcher { name: "deepspeed", aliases: &[], kind: Kind::Deepspeed },
    Launcher { name: "megatron-lm", aliases: &["megatron"], kind: Kind::Megatron },
    Launcher { name: "torchtitan", aliases: &[], kind: Kind::Torchtitan },
    Launcher { name: "vllm", aliases: &[], kind: Kind::Vllm },
    Launcher { name: "sglang", aliases: &[], kind: Kind::Sglang },
    Launcher { name: "sglang-disagg", aliases: &[], kind: Kind::SglangDisagg },
    Launcher { name: "primus", aliases: &[], kind: Kind::Primus },
    Launcher { name: "slurm_multi", aliases: &[], kind: Kind::SlurmMulti },
];

/// How alike a name has to be to be meant by another.
const ALIKE: f64 = 0.75;

/// The launcher that answers to `asked`.
#[must_use]
pub fn find(asked: &str) -> Option<&'static Launcher> {
    let asked = folded(asked);
    LAUNCHERS.iter().find(|launcher| spellings(launcher).any(|name| folded(name) == asked))
}

/// The launcher whose name is most like `asked`, where one is.
#[must_use]
pub fn nearest(asked: &str) -> Option<&'static str> {
    let asked = folded(asked);
    LAUNCHERS
        .iter()
        .flat_map(|launcher| {
            spellings(launcher).map(|name| (strsim::jaro_winkler(&folded(name), &asked), launcher.name))
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// The canonical names, for messages.
#[must_use]
pub fn known() -> String {
    LAUNCHERS.iter().map(|launcher| format!("`{}`", launcher.name)).collect::<Vec<_>>().join(", ")
}

fn spellings(launcher: &Launcher) -> impl Iterator<Item = &'static str> {
    std::iter::once(launcher.name).chain(launcher.aliases.iter().copied())
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
            ("slurm-multi", "slurm_multi"),
            ("SLURM_MULTI", "slurm_multi"),
        ] {
            assert_eq!(find(asked).map(|found| found.name), Some(name), "{asked}");
        }
        assert_eq!(find("mpirun"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn a_slip_of_the_pen_has_a_nearest_name_and_another_word_has_none() {
        for (asked, name) in [
            ("torchrn", Some("torchrun")),
            ("deep-sped", Some("deepspeed")),
            ("megatron-ml", Some("megatron-lm")),
            ("sglang-disag", Some("sglang-disagg")),
            ("slurmmulti2", Some("slurm_multi")),
            ("horovod", None),
            ("", None),
        ] {
            assert_eq!(nearest(asked), name, "{asked}");
        }
    }

    #[test]
    fn no_two_launchers_answer_to_one_name() {
        let mut names: Vec<String> = LAUNCHERS.iter().flat_map(spellings).map(folded).collect();
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
        let table: Vec<&str> = LAUNCHERS.iter().flat_map(spellings).collect();
        assert_eq!(provided, table);
    }
}
