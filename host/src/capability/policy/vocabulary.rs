//! The words of policy: every call that passes the gate, and what each of them may touch.
//!
//! One table, used by both sides: the gate refuses a call or a kind of scope that is not in it, and a policy file that names
//! one is told what there is. A capability that asks for something new adds its word here.

use super::matcher::Kind;
use crate::config::nearest;

/// One kind of thing that a call touches.
#[derive(Debug, PartialEq, Eq)]
pub struct Scope {
    /// As in `scope.NAME` of a rule.
    pub name: &'static str,
    /// How values are compared.
    pub kind: Kind,
    /// A rule that does not speak of it does not allow it. For everything else, not to speak of it is not to restrict it.
    pub guarded: bool,
}

/// One host call.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// `interface.function`, as in the WIT package.
    pub call: &'static str,
    /// What it may touch.
    pub scopes: &'static [Scope],
}

impl Words {
    /// The scope of that name.
    #[must_use]
    pub fn scope(&self, name: &str) -> Option<&'static Scope> {
        self.scopes.iter().find(|scope| scope.name == name)
    }

    /// `interface`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.call.split('.').next().unwrap_or(self.call)
    }
}

const fn on(name: &'static str, kind: Kind) -> Scope {
    Scope { name, kind, guarded: false }
}

const fn guarded(name: &'static str, kind: Kind) -> Scope {
    Scope { name, kind, guarded: true }
}

/// Words for what an engine or program decides where nobody says.
const IPC: &[&str] = &["default", "private", "host", "shareable", "none"];
const NAMESPACE: &[&str] = &["host", "private"];
const YES: &[&str] = &["true"];

const A_PATH: &[Scope] = &[on("path", Kind::Path)];
const A_TREE: &[Scope] = &[on("path", Kind::Tree)];
const A_CONTAINER: &[Scope] = &[on("container", Kind::Own)];
const A_SECRET: &[Scope] = &[on("secret", Kind::Text)];
const A_REGISTRY: &[Scope] = &[on("image", Kind::Image), on("registry", Kind::Text), on("secret", Kind::Text)];
const AN_ARCHIVE: &[Scope] = &[on("image", Kind::Image), on("path", Kind::Path)];
const A_CLIENT: &[Scope] = &[on("program", Kind::Text)];
const AN_OUTPUT: &[Scope] = &[on("output", Kind::Path)];
const A_PROGRAM: &[Scope] = &[
    on("program", Kind::Text),
    on("path", Kind::Path),
    on("program-digest", Kind::Text),
    on("arguments", Kind::Arguments),
    guarded("inline-code", Kind::Text),
    on("env", Kind::Text),
    on("secret", Kind::Text),
    on("directory", Kind::Path),
    on("time", Kind::Seconds),
];

/// Where in a cluster, and with which login; and what else a call touches there.
macro_rules! in_cluster {
    ($($more:expr),* $(,)?) => {
        &[
            on("context", Kind::Text),
            on("namespace", Kind::Text),
            on("server", Kind::Text),
            on("kubeconfig", Kind::Path),
            on("program", Kind::Text),
            $($more,)*
        ]
    };
}

const AN_OBJECT: &[Scope] = in_cluster![on("kind", Kind::Text), on("name", Kind::Own)];
const OBJECTS: &[Scope] = in_cluster![
    on("kind", Kind::Text),
    on("name", Kind::Own),
    on("image", Kind::Image),
    guarded("privileged", Kind::Choice(YES)),
    on("capability", Kind::Capability),
    on("host-network", Kind::Choice(YES)),
    guarded("host-pid", Kind::Choice(YES)),
    on("host-ipc", Kind::Choice(YES)),
    on("host-port", Kind::Text),
    on("host-path", Kind::Tree),
    guarded("unmasked-proc", Kind::Choice(YES)),
    on("seccomp", Kind::Text),
    on("apparmor", Kind::Text),
    on("selinux", Kind::Choice(YES)),
    on("sysctl", Kind::Text),
    on("service-account", Kind::Text),
    on("secret-object", Kind::Text),
    on("node", Kind::Text),
    on("node-count", Kind::Count),
    on("priority-class", Kind::Text),
    on("runtime-class", Kind::Text),
    on("nfs", Kind::Text),
    on("volume", Kind::Text),
    on("volume-claim", Kind::Text),
    on("volume-source", Kind::Text),
    on("storage-class", Kind::Text),
    on("service-type", Kind::Text),
    on("external-address", Kind::Text),
];

/// Every call, by name.
pub static CALLS: &[Words] = &[
    Words {
        call: "docker.build-image",
        scopes: &[
            on("directory", Kind::Tree),
            on("path", Kind::Tree),
            on("tag", Kind::Image),
            on("image", Kind::Image),
            on("network", Kind::Text),
            on("env", Kind::Text),
            on("secret", Kind::Text),
            on("secret-argument", Kind::Text),
            on("registry", Kind::Text),
            on("option", Kind::Text),
        ],
    },
    Words {
        call: "docker.copy-out",
        scopes: &[on("container", Kind::Own), on("source", Kind::Path), on("path", Kind::Tree)],
    },
    Words {
        call: "docker.create-container",
        scopes: &[
            on("container", Kind::Own),
            on("image", Kind::Image),
            on("mount", Kind::Tree),
            on("mount-write", Kind::Tree),
            on("device", Kind::Tree),
            on("device-request", Kind::Text),
            on("network", Kind::Text),
            on("ipc", Kind::Choice(IPC)),
            on("user", Kind::Text),
            guarded("privileged", Kind::Choice(YES)),
            on("capability", Kind::Capability),
            on("security-option", Kind::Text),
            on("group", Kind::Text),
            on("memory", Kind::Bytes),
            on("shared-memory", Kind::Bytes),
            on("cpus", Kind::Count),
            on("pids-limit", Kind::Count),
            on("pid", Kind::Text),
            on("runtime", Kind::Text),
            on("userns", Kind::Text),
            on("uts", Kind::Text),
            on("cgroupns", Kind::Choice(NAMESPACE)),
            on("device-cgroup-rule", Kind::Text),
            on("publish", Kind::Text),
            on("sysctl", Kind::Text),
            on("option", Kind::Text),
            on("env", Kind::Text),
            on("secret", Kind::Text),
        ],
    },
    Words { call: "docker.describe-engine", scopes: &[] },
    Words { call: "docker.find-containers", scopes: &[on("label", Kind::Own)] },
    Words { call: "docker.follow-container", scopes: A_CONTAINER },
    Words { call: "docker.inspect-container", scopes: A_CONTAINER },
    Words { call: "docker.inspect-image", scopes: &[on("image", Kind::Image)] },
    Words { call: "docker.load-image", scopes: AN_ARCHIVE },
    Words { call: "docker.pull-image", scopes: A_REGISTRY },
    Words { call: "docker.push-image", scopes: A_REGISTRY },
    Words { call: "docker.registry-digest", scopes: A_REGISTRY },
    Words { call: "docker.remove-container", scopes: A_CONTAINER },
    Words { call: "docker.save-image", scopes: AN_ARCHIVE },
    Words { call: "docker.start-container", scopes: A_CONTAINER },
    Words { call: "docker.stop-container", scopes: A_CONTAINER },
    Words { call: "docker.tag-image", scopes: &[on("image", Kind::Image), on("tag", Kind::Image)] },
    Words { call: "facts.environment", scopes: &[on("variable", Kind::Text)] },
    Words { call: "facts.find-program", scopes: A_CLIENT },
    Words { call: "facts.hostname", scopes: &[] },
    Words { call: "files.copy", scopes: &[on("path", Kind::Tree), on("source", Kind::Tree)] },
    Words { call: "files.list-directory", scopes: A_PATH },
    Words { call: "files.lock", scopes: A_PATH },
    Words { call: "files.make-directory", scopes: A_PATH },
    Words { call: "files.read", scopes: A_PATH },
    Words { call: "files.read-from", scopes: A_PATH },
    Words { call: "files.read-head", scopes: A_PATH },
    Words { call: "files.remove", scopes: A_TREE },
    Words { call: "files.stat", scopes: A_PATH },
    Words { call: "files.write", scopes: A_PATH },
    Words { call: "kube.check", scopes: OBJECTS },
    Words {
        call: "kube.copy-out",
        scopes: in_cluster![
            on("kind", Kind::Text),
            on("name", Kind::Own),
            on("container", Kind::Text),
            on("source", Kind::Path),
            on("path", Kind::Tree),
        ],
    },
    Words { call: "kube.create", scopes: OBJECTS },
    Words {
        call: "kube.create-secret",
        scopes: in_cluster![
            on("kind", Kind::Text),
            on("name", Kind::Own),
            on("secret", Kind::Text),
            on("registry", Kind::Text),
        ],
    },
    Words { call: "kube.delete", scopes: AN_OBJECT },
    Words { call: "kube.describe-server", scopes: in_cluster![] },
    Words {
        call: "kube.exec",
        scopes: in_cluster![
            on("kind", Kind::Text),
            on("name", Kind::Own),
            on("container", Kind::Text),
            on("command", Kind::Text),
        ],
    },
    Words { call: "kube.follow-logs", scopes: AN_OBJECT },
    Words { call: "kube.get", scopes: AN_OBJECT },
    Words { call: "kube.list-nodes", scopes: in_cluster![] },
    Words { call: "kube.list-owned", scopes: in_cluster![] },
    Words { call: "kube.next-change", scopes: AN_OBJECT },
    Words { call: "process.attach", scopes: AN_OUTPUT },
    Words {
        call: "process.launch",
        scopes: &[
            on("program", Kind::Text),
            on("path", Kind::Path),
            on("program-digest", Kind::Text),
            on("arguments", Kind::Arguments),
            guarded("inline-code", Kind::Text),
            on("env", Kind::Text),
            on("secret", Kind::Text),
            on("directory", Kind::Path),
            on("time", Kind::Seconds),
            on("output", Kind::Path),
        ],
    },
    Words { call: "process.run", scopes: A_PROGRAM },
    Words { call: "process.stop", scopes: AN_OUTPUT },
    Words { call: "secrets.available", scopes: A_SECRET },
    Words { call: "secrets.members", scopes: A_SECRET },
    Words { call: "slurm.cancel", scopes: &[on("program", Kind::Text), on("job", Kind::Own)] },
    Words { call: "slurm.describe-cluster", scopes: A_CLIENT },
    Words { call: "slurm.find", scopes: A_CLIENT },
    Words { call: "slurm.next-change", scopes: A_CLIENT },
    Words { call: "slurm.query", scopes: A_CLIENT },
    Words {
        call: "slurm.submit",
        scopes: &[
            on("program", Kind::Text),
            on("partition", Kind::Text),
            on("account", Kind::AnyCase),
            on("qos", Kind::AnyCase),
            on("reservation", Kind::Text),
            on("nodes", Kind::Text),
            on("node-count", Kind::Count),
            on("gpus-per-node", Kind::Count),
            on("gres", Kind::Text),
            on("time", Kind::Minutes),
            on("mail", Kind::Text),
            on("path", Kind::Path),
            on("env", Kind::Text),
            on("secret", Kind::Text),
        ],
    },
];

/// A call's place in the table, and its words.
#[must_use]
pub fn find(call: &str) -> Option<(usize, &'static Words)> {
    let at = CALLS.binary_search_by(|words| words.call.cmp(call)).ok()?;
    Some((at, CALLS.get(at)?))
}

/// As [`find`], for a name in two parts: on every host call, hence without making one of them.
#[must_use]
pub fn find_parts(family: &str, operation: &str) -> Option<(usize, &'static Words)> {
    let asked = || family.bytes().chain(std::iter::once(b'.')).chain(operation.bytes());
    let at = CALLS.binary_search_by(|words| words.call.bytes().cmp(asked())).ok()?;
    Some((at, CALLS.get(at)?))
}

/// Calls of a rule, as a set of places in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallSet(u128);

impl CallSet {
    /// Whether the call at that place is in it.
    #[must_use]
    pub fn has(self, at: usize) -> bool {
        self.0.checked_shr(u32::try_from(at).unwrap_or(u32::MAX)).is_some_and(|rest| rest & 1 == 1)
    }

    /// The words of the calls in it.
    pub fn words(self) -> impl Iterator<Item = &'static Words> {
        CALLS.iter().enumerate().filter(move |(at, _)| self.has(*at)).map(|(_, words)| words)
    }

    /// Adds `interface.function`, `interface.*` or `*`.
    ///
    /// # Errors
    /// There is none of that name: what is wrong, and what there is.
    pub fn add(&mut self, pattern: &str) -> Result<(), (String, String)> {
        let before = self.0;
        for (at, words) in CALLS.iter().enumerate() {
            let family = pattern.strip_suffix(".*");
            if pattern == "*" || pattern == words.call || family == Some(words.family()) {
                self.0 |= 1_u128.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or_default();
            }
        }
        let adds_nothing_new = || CALLS.iter().any(|words| words.call == pattern);
        if self.0 != before || adds_nothing_new() || families().contains(&pattern.trim_end_matches(".*")) {
            return Ok(());
        }
        let mut message = format!("there is no call `{}`", pattern.escape_debug());
        if let Some(nearest) = nearest::suggestion(pattern, CALLS.iter().map(|words| words.call)) {
            message.push_str(&format!("; {nearest}"));
        }
        let family = pattern.split('.').next().unwrap_or_default();
        let of_family: Vec<&str> =
            CALLS.iter().filter(|words| words.family() == family).map(|words| words.call).collect();
        let hint = if ["net", "network", "http", "mail"].contains(&family) {
            "plugins have no network and send no mail by themselves, so there is nothing to allow or deny: others are spoken to by \
             `docker.*`, `kube.*`, `slurm.*` (who gets mail: `scope.mail` of `slurm.submit`) and by programs, `process.*`"
                .to_owned()
        } else if of_family.is_empty() {
            format!("interfaces are {}; `interface.*` is all calls of one", nearest::listed(&families(), "and"))
        } else {
            format!("the calls of `{family}` are {}", nearest::listed(&of_family, "and"))
        };
        Err((message, hint))
    }
}

/// The interfaces, by name.
#[must_use]
pub fn families() -> Vec<&'static str> {
    let mut families: Vec<&str> = CALLS.iter().map(Words::family).collect();
    families.dedup();
    families
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Interfaces that this tree has: the table may be ahead of a capability that another branch brings.
    fn present() -> Vec<&'static str> {
        let capability = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capability");
        families().into_iter().filter(|family| capability.join(format!("{family}.rs")).is_file()).collect()
    }

    fn source_of(family: &str) -> String {
        fn read(path: &Path, into: &mut String) {
            if path.ends_with("tests.rs") {
            } else if path.is_dir() {
                for entry in std::fs::read_dir(path).unwrap() {
                    read(&entry.unwrap().path(), into);
                }
            } else {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let tests = regex::Regex::new(r"#\[cfg\(test\)\]\n(pub\(super\) )?mod tests \{").unwrap();
                into.push_str(tests.split(&text).next().unwrap());
            }
        }
        let capability = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capability");
        let mut source = String::new();
        read(&capability.join(format!("{family}.rs")), &mut source);
        if capability.join(family).is_dir() {
            read(&capability.join(family), &mut source);
        }
        source
    }

    #[test]
    fn who_denies_the_network_is_told_that_there_is_none() {
        for call in ["net.*", "net.connect", "mail.send"] {
            let (message, hint) = CallSet::default().add(call).unwrap_err();
            assert!(message.contains(call) && hint.contains("no network and send no mail"), "{message}: {hint}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_fits_a_set() {
        assert!(CALLS.is_sorted_by(|a, b| a.call < b.call));
        assert!(CALLS.len() <= 128);
        for (at, words) in CALLS.iter().enumerate() {
            let (family, operation) = words.call.split_once('.').unwrap();
            assert_eq!(find(words.call).unwrap().0, at);
            assert_eq!(find_parts(family, operation).unwrap().0, at);
        }
        assert!(find("files.reads").is_none() && find_parts("files", "").is_none());
    }

    #[test]
    fn every_word_of_the_table_is_one_that_its_capability_asks_for() {
        for words in CALLS.iter().filter(|words| present().contains(&words.family())) {
            let source = source_of(words.family());
            let operation = words.call.split_once('.').unwrap().1;
            assert!(source.contains(&format!("\"{operation}\"")), "nobody asks for {}", words.call);
            for scope in words.scopes {
                assert!(source.contains(&format!("\"{}\"", scope.name)), "{} never asks {}", words.call, scope.name);
            }
        }
    }

    #[test]
    fn every_word_that_a_capability_asks_for_is_in_the_table() {
        let calls = regex::Regex::new(r#"\.(?:on|on_all|add|add_all|add_if)\(\s*"([a-z-]+)","#).unwrap();
        for family in present() {
            for name in calls.captures_iter(&source_of(family)).map(|found| found[1].to_owned()) {
                let known = CALLS.iter().any(|words| words.family() == family && words.scope(&name).is_some());
                assert!(known, "{family} asks for `{name}`, which no policy can speak of");
            }
        }
    }

    #[test]
    fn every_function_of_the_interfaces_that_act_is_a_call() {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let functions = regex::Regex::new(r"^    ([a-z-]+): func\(").unwrap();
        for family in present() {
            let text = std::fs::read_to_string(wit.join(format!("{family}.wit"))).unwrap();
            for name in text.lines().filter_map(|line| Some(functions.captures(line)?[1].to_owned())) {
                assert!(find(&format!("{family}.{name}")).is_some(), "{family}.{name} has no words");
            }
        }
    }

    #[test]
    fn a_call_that_there_is_not_is_told_with_the_nearest_and_what_there_is() {
        let (message, hint) = CallSet::default().add("docker.create-containr").unwrap_err();
        assert!(message.contains("did you mean `docker.create-container`"), "{message}");
        assert!(hint.contains("`docker.pull-image`"), "{hint}");
        let (_, hint) = CallSet::default().add("podman.*").unwrap_err();
        assert!(hint.starts_with("interfaces are `docker`, "), "{hint}");
    }
}
