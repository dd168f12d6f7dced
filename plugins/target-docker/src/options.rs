//! `additional_docker_run_options`: the words of a `docker run` command line, read into typed options.
//!
//! They are data for the container's specification and nothing is ever handed to a command line. An option that is not
//! known here is refused by name, before anything runs.

use maddock_sdk::docker::{ContainerSpec, Mount};
use maddock_sdk::local::last_of_each;
use maddock_sdk::types::{DeviceRequest, Entry, EnvValue, EnvVar};
use maddock_sdk::{Result, invalid, unsupported};

/// One option, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum RunOption {
    SharedMemory(u64),
    Memory(u64),
    Ulimit(Entry),
    CpuSet(String),
    Env(String, String),
    Mount(Mount),
    Device(String),
    Group(String),
    AddCapability(String),
    DropCapability(String),
    Security(String),
    Privileged(bool),
    Network(String),
    Ipc(String),
    User(String),
    Directory(String),
    Hostname(String),
    Init(bool),
    Gpus(DeviceRequest),
    Label(Entry),
    /// Options that the host knows by name.
    Extra(&'static str, String),
}

/// Options, and what a person should know of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunOptions {
    /// In the order given.
    pub options: Vec<RunOption>,
    /// What has no effect, and why.
    pub warnings: Vec<String>,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    /// `--init`, `--init=false`.
    Switch,
}

/// Long names with what they take; short ones stand for a long one.
const LONG: [(&str, Takes); 40] = [
    ("add-host", Takes::Value),
    ("cap-add", Takes::Value),
    ("cap-drop", Takes::Value),
    ("cpus", Takes::Value),
    ("cpuset-cpus", Takes::Value),
    ("detach", Takes::Switch),
    ("device", Takes::Value),
    ("dns", Takes::Value),
    ("entrypoint", Takes::Value),
    ("env", Takes::Value),
    ("gpus", Takes::Value),
    ("group-add", Takes::Value),
    ("hostname", Takes::Value),
    ("init", Takes::Switch),
    ("interactive", Takes::Switch),
    ("ipc", Takes::Value),
    ("label", Takes::Value),
    ("memory", Takes::Value),
    ("mount", Takes::Value),
    ("name", Takes::Value),
    ("net", Takes::Value),
    ("network", Takes::Value),
    ("pid", Takes::Value),
    ("privileged", Takes::Switch),
    ("rm", Takes::Switch),
    ("runtime", Takes::Value),
    ("security-opt", Takes::Value),
    ("shm-size", Takes::Value),
    ("sysctl", Takes::Value),
    ("tmpfs", Takes::Value),
    ("tty", Takes::Switch),
    ("ulimit", Takes::Value),
    ("user", Takes::Value),
    ("volume", Takes::Value),
    ("workdir", Takes::Value),
    ("restart", Takes::Value),
    ("pull", Takes::Value),
    ("sig-proxy", Takes::Switch),
    ("log-driver", Takes::Value),
    ("quiet", Takes::Switch),
];
const SHORT: [(char, &str); 12] = [
    ('d', "detach"),
    ('e', "env"),
    ('h', "hostname"),
    ('i', "interactive"),
    ('l', "label"),
    ('m', "memory"),
    ('q', "quiet"),
    ('t', "tty"),
    ('u', "user"),
    ('v', "volume"),
    ('w', "workdir"),
    ('n', "name"),
];

/// Reads a command line's words.
///
/// # Errors
/// A word that is no option, an option that is not known here, or a value that cannot be.
pub fn parse(text: &str) -> Result<RunOptions> {
    let words = shlex::split(text).ok_or_else(|| {
        invalid(format!("`additional_docker_run_options` has an open quote or a trailing backslash: `{text}`"))
    })?;
    let mut read = RunOptions::default();
    if text.contains(['$', '`']) {
        read.warnings.push(
            "`additional_docker_run_options` has `$` or a backtick, which is passed as it stands: nothing is expanded"
                .to_owned(),
        );
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        for (name, attached) in split(&word)? {
            let takes = takes(name).ok_or_else(|| unknown(&word))?;
            let value = match (takes, attached) {
                (_, Some(value)) => value,
                (Takes::Switch, None) => "true".to_owned(),
                (Takes::Value, None) => {
                    words.next().ok_or_else(|| invalid(format!("docker option `{word}` has no value")))?
                }
            };
            read.take(name, &value)?;
        }
    }
    Ok(read)
}

fn takes(name: &str) -> Option<Takes> {
    LONG.iter().find(|(known, _)| *known == name).map(|(_, takes)| *takes)
}

fn unknown(word: &str) -> maddock_sdk::types::Error {
    let name = word.split('=').next().unwrap_or(word);
    unsupported(format!("docker option `{name}` is not known"))
        .hint("remove it from `additional_docker_run_options`; see the user guide for those that work")
        .detail("option", name)
}

/// The options of one word, each with the value that is attached to it. Short ones may come together, as in `-it`.
fn split(word: &str) -> Result<Vec<(&'static str, Option<String>)>> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let known = LONG.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(word))?;
        return Ok(vec![(known.0, value)]);
    }
    let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) else {
        return Err(invalid(format!("`{word}` is not a docker option")).hint("quote values that contain blanks"));
    };
    let mut options = Vec::new();
    for (at, letter) in short.char_indices() {
        let (_, name) = SHORT.iter().find(|(known, _)| *known == letter).ok_or_else(|| unknown(word))?;
        if takes(name) == Some(Takes::Switch) {
            options.push((*name, None));
            continue;
        }
        let rest = short.get(at + letter.len_utf8()..).unwrap_or_default();
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        options.push((*name, Some(rest.to_owned()).filter(|rest| !rest.is_empty())));
        break;
    }
    Ok(options)
}

impl RunOptions {
    fn take(&mut self, name: &'static str, value: &str) -> Result<()> {
        let wrong = |why: &str| invalid(format!("docker option `--{name}` cannot be `{value}`: {why}"));
        let option = match name {
            "shm-size" => RunOption::SharedMemory(size(value).ok_or_else(|| wrong("it is no size, such as `64g`"))?),
            "memory" => RunOption::Memory(size(value).ok_or_else(|| wrong("it is no size, such as `64g`"))?),
            "ulimit" => RunOption::Ulimit(ulimit(value).ok_or_else(|| wrong("it is not `NAME=SOFT[:HARD]`"))?),
            "cpuset-cpus" => RunOption::CpuSet(value.to_owned()),
            "env" => match value.split_once('=') {
                Some((variable, value)) => RunOption::Env(variable.to_owned(), value.to_owned()),
                None => return Err(wrong("it has no value").hint(format!("write `--env {value}=VALUE`"))),
            },
            "volume" => RunOption::Mount(volume(value).map_err(|why| wrong(&why))?),
            "mount" => RunOption::Mount(mount(value).map_err(|why| wrong(&why))?),
            "device" => RunOption::Device(device(value).map_err(|why| wrong(&why))?),
            "group-add" => RunOption::Group(value.to_owned()),
            "cap-add" => RunOption::AddCapability(value.to_owned()),
            "cap-drop" => RunOption::DropCapability(value.to_owned()),
            "security-opt" => RunOption::Security(value.to_owned()),
            "privileged" => RunOption::Privileged(truth(value).ok_or_else(|| wrong("it is neither true nor false"))?),
            "init" => RunOption::Init(truth(value).ok_or_else(|| wrong("it is neither true nor false"))?),
            "network" | "net" => RunOption::Network(value.to_owned()),
            "ipc" => RunOption::Ipc(value.to_owned()),
            "user" => RunOption::User(value.to_owned()),
            "workdir" => RunOption::Directory(value.to_owned()),
            "hostname" => RunOption::Hostname(value.to_owned()),
            "gpus" => RunOption::Gpus(gpus(value).map_err(|why| wrong(&why))?),
            "label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                RunOption::Label(Entry { name: name.to_owned(), value: value.to_owned() })
            }
            "cpus" | "runtime" | "tmpfs" | "add-host" | "dns" | "sysctl" | "pid" => {
                RunOption::Extra(name, value.to_owned())
            }
            "rm" | "tty" | "interactive" | "detach" | "sig-proxy" | "quiet" => {
                self.warnings.push(format!("docker option `--{name}` has no effect here"));
                return Ok(());
            }
            "name" | "entrypoint" | "restart" | "pull" => {
                self.warnings.push(format!(
                    "docker option `--{name}` has no effect here: a job's container is named, started and removed by its target"
                ));
                return Ok(());
            }
            _ => return Err(unknown(&format!("--{name}"))),
        };
        self.options.push(option);
        Ok(())
    }
}

/// Puts options into a specification, over what is there.
///
/// # Errors
/// A variable's name that cannot be.
pub fn apply(options: Vec<RunOption>, spec: &mut ContainerSpec) -> Result<()> {
    for option in options {
        match option {
            RunOption::SharedMemory(bytes) => spec.shared_memory = Some(bytes),
            RunOption::Memory(bytes) => spec.memory = Some(bytes),
            RunOption::Ulimit(entry) => replace(&mut spec.ulimits, entry),
            RunOption::CpuSet(cpus) => spec.cpuset = cpus,
            RunOption::Env(name, value) => spec.env.push(EnvVar { name, value: EnvValue::Text(value) }),
            RunOption::Mount(mount) => put_mount(&mut spec.mounts, mount),
            RunOption::Device(path) => add(&mut spec.devices, path),
            RunOption::Group(group) => add(&mut spec.groups, group),
            RunOption::AddCapability(name) => add(&mut spec.add_capabilities, capability(&name)),
            RunOption::DropCapability(name) => add(&mut spec.drop_capabilities, capability(&name)),
            RunOption::Security(option) => add(&mut spec.security_options, option),
            RunOption::Privileged(privileged) => spec.privileged = privileged,
            RunOption::Network(network) => spec.network = network,
            RunOption::Ipc(ipc) => spec.ipc = ipc,
            RunOption::User(user) => spec.user = user,
            RunOption::Directory(directory) => spec.directory = directory,
            RunOption::Hostname(hostname) => spec.hostname = hostname,
            RunOption::Init(init) => spec.init = init,
            RunOption::Gpus(request) => spec.device_requests.push(request),
            RunOption::Label(entry) => replace(&mut spec.labels, entry),
            RunOption::Extra(name, value) => {
                let entry = Entry { name: name.to_owned(), value };
                if matches!(name, "tmpfs" | "add-host" | "dns" | "sysctl") {
                    spec.extra.push(entry);
                } else {
                    replace(&mut spec.extra, entry);
                }
            }
        }
    }
    spec.env = last_of_each(std::mem::take(&mut spec.env))?;
    Ok(())
}

/// Adds what is not there yet.
pub fn add(list: &mut Vec<String>, value: String) {
    if !list.contains(&value) {
        list.push(value);
    }
}

/// One mount for each place in the container: the last one.
pub fn put_mount(mounts: &mut Vec<Mount>, mount: Mount) {
    mounts.retain(|other| other.destination != mount.destination);
    mounts.push(mount);
}

fn replace(entries: &mut Vec<Entry>, entry: Entry) {
    entries.retain(|other| other.name != entry.name);
    entries.push(entry);
}

/// The engine's spelling, so that one capability said twice is there once.
fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Some(true),
        "false" | "0" | "f" => Some(false),
        _ => None,
    }
}

/// Bytes, with `b`, `k`, `m`, `g`, `t` as powers of 1024, in the spellings that the command line takes.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let one = 1_u128 << shift;
    let mut bytes = whole.parse::<u64>().ok().map(u128::from)?.checked_mul(one)?;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
        bytes += fraction.parse::<u128>().ok()?.checked_mul(one)? / 10_u128.pow(digits);
    }
    u64::try_from(bytes).ok()
}

fn ulimit(text: &str) -> Option<Entry> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().is_ok_and(|number| number >= -1);
    let named = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase());
    (named && number(soft) && number(hard)).then(|| Entry { name: name.to_owned(), value: format!("{soft}:{hard}") })
}

/// An absolute path without a trailing slash.
fn place(path: &str) -> std::result::Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("`{path}` is not an absolute path, and volumes by name are not made here"));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

fn volume(text: &str) -> std::result::Result<Mount, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
        return Err("it is not `HOST:CONTAINER[:ro]`".to_owned());
    };
    let mut read_only = false;
    for option in parts.flat_map(|options| options.split(',')) {
        match option {
            "ro" => read_only = true,
            // The default, what only SELinux hosts need, and hints without meaning on Linux.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" | "private" => {}
            other => return Err(format!("mount option `{other}` is not known")),
        }
    }
    Ok(Mount { source: place(source)?, destination: place(destination)?, read_only })
}

fn mount(text: &str) -> std::result::Result<Mount, String> {
    let (mut source, mut destination, mut read_only, mut bind) = (None, None, false, false);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        match name {
            "type" => bind = value == "bind",
            "source" | "src" => source = Some(place(value)?),
            "target" | "destination" | "dst" => destination = Some(place(value)?),
            "readonly" | "ro" => read_only = truth(value).ok_or("`readonly` is neither true nor false")?,
            other => return Err(format!("`{other}` is not known")),
        }
    }
    if !bind {
        return Err("only `type=bind` mounts are made".to_owned());
    }
    match (source, destination) {
        (Some(source), Some(destination)) => Ok(Mount { source, destination, read_only }),
        _ => Err("it needs a source and a target".to_owned()),
    }
}

fn device(text: &str) -> std::result::Result<String, String> {
    let mut parts = text.split(':');
    let source = place(parts.next().unwrap_or_default())?;
    match (parts.next(), parts.next()) {
        (None, _) | (Some("rwm"), None) => Ok(source),
        (Some(inside), None | Some("rwm")) if inside == source => Ok(source),
        _ => Err("devices are given under their own path, with all rights".to_owned()),
    }
}

/// `all`, `device=0,1`, `"device=0,1"`; a plain number would leave the choice to the driver.
fn gpus(text: &str) -> std::result::Result<DeviceRequest, String> {
    let text = text.trim_matches('"');
    let ids = match text.strip_prefix("device=") {
        Some(ids) => ids.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
        None if text == "all" => vec!["all".to_owned()],
        None => return Err("it is neither `all` nor `device=…`".to_owned()),
    };
    Ok(DeviceRequest { driver: String::new(), ids, capabilities: vec!["gpu".to_owned()] })
}

#[cfg(test)]
mod tests {
    use maddock_sdk::types::ErrorKind;

    use super::*;

    fn one(text: &str) -> RunOption {
        let mut read = parse(text).unwrap();
        assert_eq!(read.options.len(), 1, "{text}");
        read.options.remove(0)
    }

    fn entry(name: &str, value: &str) -> Entry {
        Entry { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn every_form_of_an_option_is_read() {
        for text in ["--shm-size 64G", "--shm-size=64g", "--shm-size '64 GB'", "--shm-size=65536m"] {
            assert_eq!(one(text), RunOption::SharedMemory(64 << 30), "{text}");
        }
        for text in ["-m 1.5g", "-m1.5g", "-m=1.5g", "--memory 1610612736"] {
            assert_eq!(one(text), RunOption::Memory(3 << 29), "{text}");
        }
        assert_eq!(one("--ulimit memlock=-1"), RunOption::Ulimit(entry("memlock", "-1:-1")));
        assert_eq!(one("--ulimit nofile=1024:2048"), RunOption::Ulimit(entry("nofile", "1024:2048")));
        assert_eq!(one("--init=false"), RunOption::Init(false));
        assert_eq!(one("--net host"), RunOption::Network("host".into()));
    }

    #[test]
    fn quotes_are_honoured_and_nothing_is_expanded() {
        let read = parse(r#"-e "A=it's $(id)" -e B='x y'"#).unwrap();
        let expected = [RunOption::Env("A".into(), "it's $(id)".into()), RunOption::Env("B".into(), "x y".into())];
        assert_eq!(read.options, expected);
        assert_eq!(read.warnings.len(), 1);
    }

    #[test]
    fn an_option_that_is_not_known_is_refused_by_name() {
        for (text, name) in
            [("--userns=host", "--userns"), ("--init --oom-score-adj 5", "--oom-score-adj"), ("-x", "-x")]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert!(error.message.contains(&format!("`{name}`")), "{}", error.message);
        }
        assert!(parse("image").unwrap_err().message.contains("`image` is not a docker option"));
        assert!(parse("--shm-size").unwrap_err().message.contains("no value"));
        assert!(parse("-e 'A").is_err());
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let read = parse("--rm -it -d --name x --entrypoint ''").unwrap();
        assert_eq!(read.options, []);
        assert_eq!(read.warnings.len(), 6, "{:?}", read.warnings);
    }

    #[test]
    fn mounts_need_absolute_paths() {
        let mount = |source: &str, destination: &str, read_only| {
            RunOption::Mount(Mount { source: source.into(), destination: destination.into(), read_only })
        };
        assert_eq!(one("-v /a/:/b:ro"), mount("/a", "/b", true));
        assert_eq!(one("--mount type=bind,src=/a,dst=/b,readonly"), mount("/a", "/b", true));
        assert_eq!(one("-v /a:/b"), mount("/a", "/b", false));
        for text in ["-v a:/b", "-v /b", "-v ./a:/b", "-v /a:/b:what", "--mount type=volume,src=/a,dst=/b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_and_accelerators_are_read() {
        assert_eq!(one("--device=/dev/kfd"), RunOption::Device("/dev/kfd".into()));
        assert_eq!(one("--device /dev/kfd:/dev/kfd:rwm"), RunOption::Device("/dev/kfd".into()));
        assert!(parse("--device /dev/kfd:/dev/other").is_err());
        let request = |ids: &[&str]| {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            RunOption::Gpus(DeviceRequest { driver: String::new(), ids, capabilities: vec!["gpu".into()] })
        };
        assert_eq!(one("--gpus all"), request(&["all"]));
        assert_eq!(one(r#"--gpus '"device=0,1,"'"#), request(&["0", "1"]));
        assert!(parse("--gpus 2").is_err());
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "g", "-1", "1x", "1.2.3g", "99999999999999999999", "99999999999t"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size("0"), Some(0));
    }
}
