//! The configuration's section `slurm`, read once into types. What cannot be is refused with the key and the remedy, before
//! anything is handed in; what has no effect here is said.

use maddock_sdk::serde_json::{Map, Value};
use maddock_sdk::types::Error;
use maddock_sdk::{Result, invalid};

/// Members that upstream reads and this target does not need, each with why.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("output_dir", "logs and results are in the run's directory"),
    ("shared_workspace", "every node works in a copy of its own"),
    ("auto_cleanup_nodes", "processes of others are never ended"),
    ("verbose_node_check", "what a node finds wrong with itself is in its output"),
    ("allow_submit_without_clean_nodes", "no job is kept from the queue"),
];

/// No list that somebody wrote has more nodes.
const MOST_NODES: u64 = 65_536;

/// Seconds within which every node has to have begun, where nobody says it: what a scheduler does on a node before a job
/// may take minutes.
const START_TIMEOUT: u64 = 300;

/// What the section says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The partition; empty for the scheduler's default.
    pub partition: String,
    /// Nodes, where it says so.
    pub nodes: Option<u32>,
    /// Minutes, where it says so.
    pub time: Option<u32>,
    /// Whether a node is shared with nobody.
    pub exclusive: bool,
    /// See `sbatch --account`.
    pub account: String,
    /// See `sbatch --qos`.
    pub qos: String,
    /// See `sbatch --reservation`.
    pub reservation: String,
    /// See `sbatch --constraint`.
    pub constraint: String,
    /// See `sbatch --gres`.
    pub gres: String,
    /// See `sbatch --mem`.
    pub memory: String,
    /// Nodes to be used.
    pub nodelist: Vec<String>,
    /// Nodes not to be used.
    pub exclude: Vec<String>,
    /// See `sbatch --mail-user`.
    pub mail_user: String,
    /// See `sbatch --mail-type`.
    pub mail_type: Vec<String>,
    /// Environment modules to be loaded.
    pub modules: Vec<String>,
    /// The network that collectives use.
    pub network_interface: String,
    /// Whether nodes run images, in containers.
    pub container: bool,
    /// How images get to the nodes; empty for what fits.
    pub image_transfer: String,
    /// The program that runs a node's share, as nodes find it; empty for a copy of this one.
    pub maddock: String,
    /// Whether a node looks at itself before it begins.
    pub check: bool,
    /// Seconds that a job may wait in the queue; none: for ever.
    pub queue_timeout: Option<u64>,
    /// Seconds within which every node has to have begun.
    pub start_timeout: u64,
    /// Where a script that runs once leaves its results.
    pub results_dir: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    invalid(format!("`slurm.{key}` is {value}, and {expected} is expected")).detail("key", format!("slurm.{key}"))
}

impl Section {
    /// Reads the section of a configuration.
    ///
    /// # Errors
    /// A member cannot be.
    pub fn read(config: &str) -> Result<Self> {
        let config: Value = maddock_sdk::serde_json::from_str(config)
            .map_err(|error| invalid(format!("the configuration is not JSON: {error}")))?;
        let empty = Map::new();
        let section = match config.get("slurm") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(section)) => section,
            Some(other) => return Err(invalid(format!("`slurm` is {other}, and an object is expected"))),
        };
        let text = |key: &str| match section.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.trim().to_owned()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(other) => Err(wrong(key, other, "a text")),
        };
        // What the scheduler is told. Other texts stand quoted in scripts, whatever they are.
        let directive = |key: &str| {
            let value = text(key)?;
            if value.chars().any(char::is_control) {
                return Err(wrong(key, &Value::String(value), "a text without control characters"));
            }
            Ok(value)
        };
        let list = |key: &str| names(key, section.get(key));
        let plain = |key: &str| -> Result<Vec<String>> {
            let names = list(key)?;
            match names.iter().find(|name| name.chars().any(char::is_control)) {
                None => Ok(names),
                Some(name) => Err(wrong(key, &Value::String(name.clone()), "a name without control characters")),
            }
        };
        let nodes_of = |key: &str| -> Result<Vec<String>> {
            let names = plain(key)?;
            match names.iter().find(|name| !is_nodes(name)) {
                None => Ok(names),
                Some(name) => Err(wrong(key, &Value::String(name.clone()), "a list of nodes")
                    .hint("write names and ranges such as `node[1-4,7]`")),
            }
        };
        let flag = |key: &str| match section.get(key) {
            None | Some(Value::Null) => Ok(true),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(key, other, "true or false")),
        };
        let seconds = |key: &str| match section.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let text = || value.as_str().and_then(|text| text.trim().parse().ok());
                let seconds = value.as_u64().or_else(text).filter(|seconds| *seconds > 0);
                seconds.map(Some).ok_or_else(|| wrong(key, value, "a number of seconds from 1 on"))
            }
        };
        let nodelist = nodes_of("nodelist")?;
        let memory = text("mem")?;
        if !memory.is_empty() && !is_memory(&memory) {
            return Err(wrong("mem", &Value::String(memory), "an amount of memory for each node")
                .hint("write digits and one of K, M, G, T, such as `64G`"));
        }
        let maddock = text("maddock")?;
        if !maddock.is_empty() && !maddock.starts_with('/') {
            return Err(wrong("maddock", &Value::String(maddock), "an absolute path, as the nodes have it,"));
        }
        let nodes = match section.get("nodes") {
            None | Some(Value::Null) => None,
            Some(value) => Some(count(value).ok_or_else(|| wrong("nodes", value, "a number of nodes from 1 on"))?),
        };
        let time = match section.get("time") {
            None | Some(Value::Null) => None,
            Some(value) => Some(time(value)?),
        };
        let warnings = WITHOUT_EFFECT
            .iter()
            .filter(|(key, _)| section.contains_key(*key))
            .map(|(key, why)| format!("`slurm.{key}` has no effect: {why}"))
            .collect();
        Ok(Self {
            partition: directive("partition")?,
            nodes,
            time,
            exclusive: flag("exclusive")?,
            container: flag("container")?,
            image_transfer: text("image_transfer")?,
            maddock,
            // Whoever names nodes knows them.
            check: flag("enable_node_check")? && nodelist.is_empty(),
            queue_timeout: seconds("queue_timeout")?,
            start_timeout: seconds("start_timeout")?.unwrap_or(START_TIMEOUT),
            account: directive("account")?,
            qos: directive("qos")?,
            reservation: directive("reservation")?,
            constraint: directive("constraint")?,
            gres: directive("gres")?,
            memory,
            nodelist,
            exclude: nodes_of("exclude")?,
            mail_user: directive("mail_user")?,
            mail_type: plain("mail_type")?,
            modules: list("modules")?,
            network_interface: text("network_interface")?,
            results_dir: text("results_dir")?,
            warnings,
        })
    }
}

/// A list, or a text with commas; commas in brackets (`node[1,3]`) belong to the name.
fn names(key: &str, value: Option<&Value>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut add = |text: &str| {
        let mut depth = 0_u32;
        let mut name = String::new();
        for letter in text.chars() {
            match letter {
                '[' => depth = depth.saturating_add(1),
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if letter == ',' && depth == 0 {
                names.push(std::mem::take(&mut name));
            } else {
                name.push(letter);
            }
        }
        names.push(name);
    };
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => add(text),
        Some(Value::Array(values)) => {
            for value in values {
                add(value.as_str().ok_or_else(|| wrong(key, value, "a list of names"))?);
            }
        }
        Some(other) => return Err(wrong(key, other, "a list of names")),
    }
    Ok(names.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
}

/// As `sbatch --mem` takes it.
fn is_memory(text: &str) -> bool {
    let digits = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether that is a node or several, as in `rack[1-2]node[01-16,20]`.
fn is_nodes(text: &str) -> bool {
    let mut total = 1_u64;
    let mut rest = text;
    while let Some((head, ranges)) = rest.split_once('[') {
        let Some((ranges, after)) = ranges.split_once(']') else { return false };
        let Some(count) = ranges.split(',').map(members).sum::<Option<u64>>() else { return false };
        total = total.saturating_mul(count);
        if head.contains([']', '/']) {
            return false;
        }
        rest = after;
    }
    total <= MOST_NODES && !rest.contains([']', '/'])
}

/// How many numbers a range has.
fn members(range: &str) -> Option<u64> {
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some(number(last)?.checked_sub(number(first)?)?.saturating_add(1))
}

/// How many GPUs generic resources such as `gpu:h100:4,license:1` ask for; none where they name none.
pub(crate) fn gpus_in(gres: &str) -> Option<u32> {
    let mut all = gres.split(',').filter_map(|one| {
        let mut parts = one.trim().split(':');
        (parts.next() == Some("gpu")).then(|| parts.next_back().and_then(|last| last.parse::<u32>().ok()).unwrap_or(1))
    });
    let first = all.next()?;
    Some(all.fold(first, u32::saturating_add))
}

fn count(value: &Value) -> Option<u32> {
    let number = match value {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// Minutes of a time as `sbatch --time` takes it: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; a number is minutes.
fn time(value: &Value) -> Result<u32> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        other => return Err(wrong("time", other, "a time")),
    };
    minutes(&text).ok_or_else(|| {
        let endless = ["unlimited", "infinite"].iter().any(|word| text.eq_ignore_ascii_case(word));
        wrong("time", value, "a time").hint(match endless {
            true => "leave it out and say `--timeout 0`: the job gets the longest time that its partition allows",
            false => {
                "write hours, minutes and seconds as `24:00:00`, with days in front as `2-00:00:00`, or minutes as `90`"
            }
        })
    })
}

fn minutes(text: &str) -> Option<u32> {
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts: Vec<u64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    let whole = days.unwrap_or(0) * 1440 + hours * 60 + minutes + seconds.div_ceil(60);
    u32::try_from(whole).ok().filter(|minutes| *minutes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_partition_is_left_to_the_scheduler() {
        for config in ["{}", r#"{"slurm": {}}"#, r#"{"slurm": {"partition": " "}}"#, r#"{"slurm": null}"#] {
            assert_eq!(Section::read(config).unwrap().partition, "", "{config}");
        }
        assert_eq!(Section::read(r#"{"slurm": {"partition": " p "}}"#).unwrap().partition, "p");
    }

    #[test]
    fn times_are_read_as_the_scheduler_reads_them() {
        for (text, expected) in [
            ("90", Some(90)),
            ("90:30", Some(91)),
            ("24:00:00", Some(1440)),
            ("1-0", Some(1440)),
            ("1-12:30", Some(2190)),
            ("2-00:00:01", Some(2881)),
            ("0", None),
            ("00:00:00", None),
            ("", None),
            ("1h", None),
            ("-5", None),
            ("1:2:3:4", None),
            ("UNLIMITED", None),
        ] {
            assert_eq!(minutes(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_may_be_texts_and_brackets_hold_together() {
        let config = r#"{"slurm": {"partition": "p", "nodelist": " node[1,3-4], node7 ", "exclude": ["a", "b,c"]}}"#;
        let section = Section::read(config).unwrap();
        assert_eq!(section.nodelist, ["node[1,3-4]", "node7"]);
        assert_eq!(section.exclude, ["a", "b", "c"]);
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_key() {
        for (member, key) in [
            (r#""nodes": 0"#, "slurm.nodes"),
            (r#""nodes": "two""#, "slurm.nodes"),
            (r#""time": "soon""#, "slurm.time"),
            (r#""exclusive": "yes""#, "slurm.exclusive"),
            (r#""account": {}"#, "slurm.account"),
            (r#""modules": 3"#, "slurm.modules"),
            (r#""container": "no""#, "slurm.container"),
            (r#""maddock": "bin/maddock""#, "slurm.maddock"),
            (r#""queue_timeout": 0"#, "slurm.queue_timeout"),
            (r#""start_timeout": "soon""#, "slurm.start_timeout"),
            (r#""mem": "64GB""#, "slurm.mem"),
            (r#""nodelist": "node[3-1]""#, "slurm.nodelist"),
            (r#""nodelist": "node[1-999][1-999]""#, "slurm.nodelist"),
            (r#""nodelist": ["a/b"]"#, "slurm.nodelist"),
            (r#""exclude": "node[1-""#, "slurm.exclude"),
            (r#""account": "a\nb""#, "slurm.account"),
            (r#""mail_type": ["END\u0007"]"#, "slurm.mail_type"),
            (r#""gres": "gpu\u001b:4""#, "slurm.gres"),
        ] {
            let error = Section::read(&format!(r#"{{"slurm": {{"partition": "p", {member}}}}}"#)).unwrap_err();
            assert!(error.details.iter().any(|detail| detail.value == key), "{member}: {error:?}");
        }
    }

    #[test]
    fn nodes_that_somebody_named_are_not_checked() {
        let check =
            |member: &str| Section::read(&format!(r#"{{"slurm": {{"partition": "p"{member}}}}}"#)).unwrap().check;
        assert!(check(""));
        assert!(!check(r#", "nodelist": "n1""#) && !check(r#", "enable_node_check": false"#));
    }

    #[test]
    fn lists_of_nodes_are_read_as_the_host_reads_them() {
        for fine in ["n1", "node[1-3]", "r[1-2]n[08-10]x", "n[3,5]", "n[1-256]m[1-256]"] {
            assert!(is_nodes(fine), "{fine}");
        }
        for wrong in ["n[1-", "n]", "n[a-b]", "n[3-1]", "n[]", "n[1-99999999]", "n[1-999][1-999]", "a/b"] {
            assert!(!is_nodes(wrong), "{wrong}");
        }
    }

    #[test]
    fn gpus_are_counted_among_generic_resources() {
        for (gres, expected) in [
            ("gpu:h100:4", Some(4)),
            ("gpu:2", Some(2)),
            ("gpu", Some(1)),
            ("gpu:h100", Some(1)),
            ("gpu:a:2,license:9,gpu:b:1", Some(3)),
            ("license:4", None),
            ("", None),
        ] {
            assert_eq!(gpus_in(gres), expected, "{gres}");
        }
    }

    #[test]
    fn for_no_limit_there_is_an_option() {
        let error = Section::read(r#"{"slurm": {"time": "UNLIMITED"}}"#).unwrap_err();
        assert!(error.hint.unwrap().contains("`--timeout 0`"));
    }

    #[test]
    fn members_without_effect_are_told() {
        let section = Section::read(r#"{"slurm": {"partition": "p", "output_dir": "x"}}"#).unwrap();
        assert_eq!(section.warnings, ["`slurm.output_dir` has no effect: logs and results are in the run's directory"]);
        assert!(section.exclusive, "a measurement shares its nodes with nobody unless it says so");
    }
}
