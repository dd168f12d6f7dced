//! Layers, denials, and remedies, as an administrator would try them.

use super::*;

const ROOTS: [&str; 3] = ["/mad", "/w/.maddock/runs/1", "/w"];

fn roots() -> Roots {
    let [tree, run, output] = ROOTS;
    Roots { tree: tree.into(), run: run.into(), output: output.into(), ..Roots::default() }
}

fn built_in(name: &str) -> Identity {
    Identity { name: name.to_owned(), digest: "sha256:0".to_owned(), built_in: true, signer: None }
}

fn stranger(name: &str) -> Identity {
    Identity { name: name.to_owned(), digest: format!("sha256:{}", "ab".repeat(32)), built_in: false, signer: None }
}

fn digest() -> String {
    stranger("x").digest
}

/// The shipped rules and these layers.
fn policy(layers: &[(Level, &str)]) -> Policy {
    let mut policy = Policy::shipped(roots()).unwrap();
    policy.homes = Homes { user: Some("/home/u/.config/maddock/policy.toml".into()), project: None };
    for (level, text) in layers {
        policy = policy.with_layer(*level, level.word(), &format!("schema = 1\n{text}")).unwrap();
    }
    policy
}

fn asked<'a>(scope: &[(&'static str, &'a str)]) -> Vec<(&'static str, String)> {
    scope.iter().map(|(name, value): &(&'static str, &'a str)| (*name, (*value).to_owned())).collect()
}

fn allows(policy: &Policy, who: &Identity, call: &str, scope: &[(&'static str, &str)]) -> bool {
    policy.decide(who, call, &asked(scope)).is_allowed()
}

fn refusal(policy: &Policy, who: &Identity, call: &str, scope: &[(&'static str, &str)]) -> Denial {
    match policy.decide(who, call, &asked(scope)) {
        Verdict::Denied(denial) => *denial,
        Verdict::Allowed { rule } => panic!("allowed by {rule}"),
    }
}

const ONE_PARTITION: &str = r#"
only_listed = true
[[allow]]
plugin = "target-slurm"
calls = ["slurm.submit"]
scope.partition = ["gpu"]
scope.node-count = { max = 4 }
"#;

#[test]
fn the_shipped_rules_are_well_formed_and_name_plugins_that_there_are() {
    let known = crate::plugin::catalog::built_in_names();
    read::read(SHIPPED_NAME, SHIPPED, &Roots::default(), Some(&known)).unwrap();
}

#[test]
fn a_call_inside_the_scope_is_allowed_and_names_its_rule() {
    let policy = Policy::of_text(
        roots(),
        "x.toml",
        "schema = 1\n\n[[allow]]\nplugin = \"p\"\ncalls = [\"files.read\"]\nscope.path = [\"$tree/**\"]\n",
    )
    .unwrap();
    let verdict = policy.decide(&built_in("p"), "files.read", &asked(&[("path", "/mad/a")]));
    assert_eq!(verdict, Verdict::Allowed { rule: "x.toml:3".into() });
    let denial = refusal(&policy, &built_in("p"), "files.read", &[("path", "/mad/a"), ("path", "/etc/shadow")]);
    assert!(
        denial.message.contains("on path `/etc/shadow`: the rule does not cover it (x.toml:3)"),
        "{}",
        denial.message
    );
}

#[test]
fn a_stranger_with_the_name_of_a_built_in_gets_nothing() {
    let policy = policy(&[]);
    let scope = [("path", "/mad/models.json")];
    assert!(allows(&policy, &built_in("discover-mad"), "files.read", &scope));
    let denial = refusal(&policy, &stranger("discover-mad"), "files.read", &scope);
    assert_eq!(&*denial.rule, "default (deny)");
    assert!(denial.remedy.contains("digest = "), "{}", denial.remedy);
}

#[test]
fn a_call_or_scope_without_words_is_refused() {
    let policy = policy(&[]);
    for (call, scope) in [("files.shred", "path"), ("files.read", "colour")] {
        let denial = refusal(&policy, &built_in("discover-mad"), call, &[(scope, "/mad/x")]);
        assert!(denial.message.contains("no words for it"), "{}", denial.message);
    }
}

#[test]
fn no_grant_reaches_the_records_of_a_run() {
    let run = "/w/.maddock/runs/1";
    let grants = format!("[[allow]]\ndigest = \"{}\"\ncalls = [\"*\"]\n", digest());
    let policy = policy(&[(Level::Site, &grants)]);
    let records = [
        "run.json",
        "events.jsonl",
        "trace.jsonl",
        "trace.1.jsonl",
        "recording.jsonl",
        "attendant.lock",
        "console.log",
        "resume/0-m.json",
        "jobs/0-m/job.json",
    ];
    let of_runs = |run: &'static str| records.iter().map(move |record| format!("{run}/{record}"));
    let others = ["/w/credential.json", "/w/maddock-policy.toml"].map(str::to_owned);
    let records: Vec<String> = of_runs(run).chain(of_runs("/w/.maddock/runs/0")).chain(others).collect();
    let writes = [
        ("files.write", "path"),
        ("files.make-directory", "path"),
        ("files.remove", "path"),
        ("files.lock", "path"),
        ("files.copy", "path"),
        ("process.launch", "output"),
        ("docker.create-container", "mount"),
        ("docker.save-image", "path"),
        ("docker.copy-out", "path"),
        ("kube.copy-out", "path"),
    ];
    for who in [built_in("target-process"), built_in("target-docker"), stranger("x")] {
        for (call, kind) in writes {
            for path in &records {
                assert!(!allows(&policy, &who, call, &[(kind, path)]), "{}: {call} {path}", who.name);
            }
        }
    }
    // A directory that holds them is no way around, and what lies beside them is a job's own.
    assert!(!allows(&policy, &stranger("x"), "files.remove", &[("path", run)]));
    assert!(!allows(&policy, &stranger("x"), "files.remove", &[("path", "/w/.maddock/runs/1/jobs")]));
    for call in ["docker.copy-out", "kube.copy-out"] {
        assert!(!allows(&policy, &stranger("x"), call, &[("path", run)]), "{call}");
        assert!(allows(&policy, &stranger("x"), call, &[("path", "/w/.maddock/runs/1/jobs/0-m/workspace")]), "{call}");
    }
    assert!(allows(&policy, &stranger("x"), "files.write", &[("path", "/w/perf.csv")]));
    assert!(allows(&policy, &stranger("x"), "files.write", &[("path", "/w/.maddock/runs/1/jobs/0-m/output.log")]));
    assert!(allows(&policy, &stranger("x"), "files.remove", &[("path", "/w/.maddock/runs/1/jobs/0-m/workspace")]));
}

/// The same read of the tree under one layer at a time.
#[test]
fn every_layer_can_only_take_away() {
    let deny = "[[deny]]\nplugin = \"*\"\ncalls = [\"files.read\"]\nscope.path = [\"$tree/secret/**\"]\n";
    let narrow = "[[narrow]]\nplugin = \"discover-mad\"\ncalls = [\"files.*\"]\nscope.path = [\"$tree/models.json\"]\n";
    let listed = "only_listed = true\n[[allow]]\nplugin = \"discover-mad\"\ncalls = [\"files.read\"]\nscope.path = [\"$tree/models.json\"]\n";
    let wide = "[[allow]]\nplugin = \"discover-mad\"\ncalls = [\"files.read\"]\nscope.path = [\"/**\"]\n";
    // models.json, a secret, another file of the tree, a file elsewhere
    let table = [
        ("", [true, true, true, false]),
        (deny, [true, false, true, false]),
        (narrow, [true, false, false, false]),
        (listed, [true, false, false, false]),
        (wide, [true, true, true, false]),
    ];
    let paths = ["/mad/models.json", "/mad/secret/x", "/mad/other", "/etc/passwd"];
    for level in [Level::Site, Level::User, Level::Project, Level::Command] {
        for (text, mut expected) in table {
            // The site, and a user without a site above, may grant.
            if text == wide && matches!(level, Level::Site | Level::User) {
                expected = [true; 4];
            }
            let policy = policy(&[(level, text)]);
            let got = paths.map(|path| allows(&policy, &built_in("discover-mad"), "files.read", &[("path", path)]));
            assert_eq!(got, expected, "{level:?} {text}");
        }
    }
}

#[test]
fn a_denial_beats_every_grant_of_every_layer() {
    let grant = "[[allow]]\nplugin = \"target-docker\"\ncalls = [\"docker.*\"]\nscope.privileged = [\"true\"]\n";
    let deny = "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.create-container\"]\nscope.privileged = [\"true\"]\nreason = \"not here\"\n";
    let container = [("privileged", "true")];
    assert!(allows(
        &policy(&[(Level::Site, grant)]),
        &built_in("target-docker"),
        "docker.create-container",
        &container
    ));
    for level in [Level::Site, Level::User, Level::Project, Level::Command] {
        let layers = if level == Level::Site {
            vec![(level, format!("{grant}{deny}"))]
        } else {
            vec![(Level::Site, grant.to_owned()), (level, deny.to_owned())]
        };
        let layers: Vec<(Level, &str)> = layers.iter().map(|(level, text)| (*level, text.as_str())).collect();
        let denial = refusal(&policy(&layers), &built_in("target-docker"), "docker.create-container", &container);
        assert!(denial.message.contains("denies it: not here"), "{}", denial.message);
        assert_eq!(denial.lines, None);
    }
}

#[test]
fn what_is_guarded_must_be_named() {
    let all = "[[allow]]\nplugin = \"target-docker\"\ncalls = [\"*\"]\n";
    let policy = policy(&[(Level::Site, all)]);
    let who = built_in("target-docker");
    assert!(allows(&policy, &who, "process.run", &[("program", "bash")]));
    assert!(!allows(&policy, &who, "process.run", &[("program", "bash"), ("inline-code", "bash")]));
    assert!(!allows(&policy, &who, "docker.create-container", &[("privileged", "true")]));
}

#[test]
fn a_site_that_lists_one_partition_leaves_nothing_else() {
    let policy = policy(&[(Level::Site, ONE_PARTITION)]);
    let slurm = built_in("target-slurm");
    let submit = |partition: &str, nodes: &str| {
        allows(
            &policy,
            &slurm,
            "slurm.submit",
            &[("partition", partition), ("node-count", nodes), ("path", "/w/.maddock/runs/1/x")],
        )
    };
    assert!(submit("gpu", "4"));
    for (partition, nodes) in [("gpu", "5"), ("debug", "1"), ("", "1"), ("gpu", "unlimited")] {
        assert!(!submit(partition, nodes), "{partition} {nodes}");
    }
    assert!(!allows(&policy, &slurm, "slurm.describe-cluster", &[]));
    assert!(!allows(&policy, &built_in("target-docker"), "docker.describe-engine", &[]));
    let denial = refusal(&policy, &slurm, "slurm.submit", &[("partition", "debug"), ("node-count", "1")]);
    assert!(denial.message.contains("the site policy allows only what it lists (site:"), "{}", denial.message);
    assert!(denial.remedy.starts_with("to allow it, the site's administrator adds to site:"), "{}", denial.remedy);
}

#[test]
fn only_a_digest_is_granted_something_outside_of_the_binary() {
    let by_digest = format!("[[allow]]\ndigest = \"{}\"\ncalls = [\"files.read\"]\n", digest());
    let by_both = format!("[[allow]]\nplugin = \"x\"\ndigest = \"{}\"\ncalls = [\"files.read\"]\n", digest());
    for (text, name, expected) in
        [(by_digest.as_str(), "x", true), (&by_digest, "y", true), (&by_both, "x", true), (&by_both, "y", false)]
    {
        let policy = policy(&[(Level::Site, text)]);
        assert_eq!(allows(&policy, &stranger(name), "files.read", &[("path", "/a")]), expected, "{text} {name}");
    }
    let other = Identity { digest: format!("sha256:{}", "cd".repeat(32)), ..stranger("x") };
    assert!(!allows(&policy(&[(Level::Site, &by_both)]), &other, "files.read", &[("path", "/a")]));
    let by_name = "schema = 1\n[[allow]]\nplugin = \"x\"\ncalls = [\"files.read\"]\n";
    let error = Policy::shipped(roots()).unwrap().with_layer(Level::Site, "site", by_name).unwrap_err();
    assert!(error.to_string().contains("a name is no grant"), "{error}");
}

const KEY: &str = "RWSjzZHWd4Eidn+zKQ+oLsFn1/3qvTbIyh1ExRBCyYWJ4gQWlxVFMJE3";
const OTHER_KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

fn signed(name: &str, signer: &str) -> Identity {
    Identity { signer: Some(signer.to_owned()), ..stranger(name) }
}

#[test]
fn a_grant_to_a_signer_is_for_what_that_key_signed_and_nothing_else() {
    let rule = |who: &str| format!("[sets]\nours = [\"{KEY}\"]\n[[allow]]\n{who}\ncalls = [\"files.read\"]\n");
    let by_key = rule(&format!("signer = \"{KEY}\""));
    let by_set = rule("signer = \"@ours\"");
    let by_list = rule(&format!("signer = [\"{OTHER_KEY}\", \"@ours\"]"));
    let with_name = rule(&format!("plugin = \"x\"\nsigner = \"{KEY}\""));
    let with_digest = rule(&format!("digest = \"{}\"\nsigner = \"{KEY}\"", digest()));
    let other_digest = Identity { digest: format!("sha256:{}", "cd".repeat(32)), ..signed("x", KEY) };
    for (text, who, expected) in [
        (&by_key, signed("x", KEY), true),
        (&by_key, signed("y", KEY), true),
        (&by_key, other_digest.clone(), true),
        (&by_key, signed("x", OTHER_KEY), false),
        (&by_key, stranger("x"), false),
        (&by_key, built_in("report-csv"), false),
        (&by_set, signed("x", KEY), true),
        (&by_set, signed("x", OTHER_KEY), false),
        (&by_list, signed("x", OTHER_KEY), true),
        (&by_list, stranger("x"), false),
        (&with_name, signed("x", KEY), true),
        (&with_name, signed("y", KEY), false),
        (&with_digest, signed("x", KEY), true),
        (&with_digest, other_digest, false),
        (&with_digest, stranger("x"), false),
    ] {
        let policy = policy(&[(Level::Site, text)]);
        assert_eq!(allows(&policy, &who, "files.read", &[("path", "/a")]), expected, "{text} {who:?}");
    }
}

#[test]
fn what_takes_away_may_speak_of_a_signer() {
    let grant = format!("[[allow]]\ndigest = \"{}\"\ncalls = [\"files.read\"]\n", digest());
    let deny = format!("{grant}[[deny]]\nsigner = \"{KEY}\"\ncalls = [\"files.*\"]\n");
    let policy = policy(&[(Level::Site, &deny)]);
    assert!(!allows(&policy, &signed("x", KEY), "files.read", &[("path", "/a")]));
    assert!(allows(&policy, &signed("x", OTHER_KEY), "files.read", &[("path", "/a")]));
    assert!(allows(&policy, &stranger("x"), "files.read", &[("path", "/a")]));
}

#[test]
fn a_signer_that_is_no_key_is_a_fault_with_its_line() {
    for (signer, expected) in [
        ("\"ed25519:abc\"", "policy site:3: this is no public key"),
        ("\"\"", "this is no public key"),
        ("[]", "`signer` names nobody"),
        ("\"@nobody\"", "there is no set `nobody`"),
        ("7", "`signer` is a text"),
    ] {
        let text = format!("schema = 1\n[[allow]]\nsigner = {signer}\ncalls = [\"files.read\"]\n");
        let error = Policy::shipped(roots()).unwrap().with_layer(Level::Site, "site", &text).unwrap_err();
        assert!(error.to_string().contains(expected), "{signer}: {error}");
    }
}

#[test]
fn a_user_grants_what_the_site_leaves_to_users() {
    let grant =
        format!("[[allow]]\nplugin = \"x\"\ndigest = \"{}\"\ncalls = [\"files.read\", \"process.run\"]\n", digest());
    let widen =
        "[[allow]]\nplugin = \"target-docker\"\ncalls = [\"docker.create-container\"]\nscope.privileged = [\"true\"]\n";
    // Of the stranger: a file, a program; of a built-in: a privileged container.
    let table: [(Option<&str>, [bool; 3]); 5] = [
        (None, [true, true, true]),
        (Some(""), [false, false, false]),
        (Some("users_may_grant = false\n"), [false, false, false]),
        (Some("users_may_grant = true\n"), [true, true, false]),
        (Some("users_may_grant = [\"files.*\"]\nonly_listed = true\n"), [true, false, false]),
    ];
    for (site, expected) in table {
        let user = format!("{grant}{widen}");
        let mut layers: Vec<(Level, &str)> = site.map(|site| (Level::Site, site)).into_iter().collect();
        layers.push((Level::User, &user));
        let policy = policy(&layers);
        let got = [
            allows(&policy, &stranger("x"), "files.read", &[("path", "/a")]),
            allows(&policy, &stranger("x"), "process.run", &[("program", "ls")]),
            allows(&policy, &built_in("target-docker"), "docker.create-container", &[("privileged", "true")]),
        ];
        assert_eq!(got, expected, "{site:?}");
    }
    let project =
        Policy::shipped(roots()).unwrap().with_layer(Level::Project, "p", "schema = 1\nusers_may_grant = true\n");
    assert!(project.unwrap_err().to_string().contains("p:2: `users_may_grant` is for a site"));
}

#[test]
fn a_mount_that_holds_a_denied_path_is_denied() {
    let deny = "[[deny]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nscope.mount = [\"/etc/**\"]\n";
    let policy = policy(&[(Level::Command, deny)]);
    let mount = |path: &str| allows(&policy, &built_in("target-docker"), "docker.create-container", &[("mount", path)]);
    assert!(mount("/data"));
    assert!(!mount("/etc/maddock") && !mount("/"));
}

#[test]
fn a_set_is_the_values_that_it_lists() {
    let text = "[sets]\nours = [\"registry.example.com/**\", \"ubuntu\"]\n[[narrow]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nscope.image = [\"@ours\"]\n";
    let policy = policy(&[(Level::Site, text)]);
    let image = |image: &str| allows(&policy, &built_in("target-docker"), "docker.inspect-image", &[("image", image)]);
    assert!(image("registry.example.com/a/b:1") && image("ubuntu:24.04"));
    assert!(!image("debian"));
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_with_its_line() {
    let text = "schema = 1\nonly = true\n[sets]\na = [\"@b\"]\n[[allow]]\nplugin = \"target-slrm\"\ncalls = [\"slurm.submit\"]\n\
                [[allow]]\nplugin = \"target-slurm\"\ncalls = [\"slurm.submits\"]\n[[allow]]\nplugin = \"target-slurm\"\n\
                calls = [\"slurm.submit\"]\nscope.partitions = [\"a\"]\nscope.time = [\"5\"]\nscope.qos = [\"a*\"]\n\
                [[deny]]\nplugin = \"*\"\ncalls = [\"docker.create-container\"]\nscope.ipc = [\"hots\"]\nscope.account = [\"@none\"]\n\
                [[limits]]\nmemory = \"lots\"\n[[test]]\nplugin = \"x\"\n";
    let faults = read::read("f", text, &roots(), Some(&["target-slurm"])).unwrap_err();
    let told: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect();
    let expected = [
        "2: `only` means nothing here",
        "4: a set holds values",
        "5: `target-slrm` is not built in, and a name is no grant; did you mean `target-slurm`?",
        "10: there is no call `slurm.submits`; did you mean `slurm.submit`",
        "14: none of these calls has a scope `partitions`; did you mean `partition`?",
        "15: `time` is a number",
        "16: `*` stands for a whole segment",
        "20: `hots` is no value of `ipc`; did you mean `host`?",
        "21: none of these calls has a scope `account`",
        "23: `memory` is an amount",
        "24: `call` is missing",
        "24: `expect` is missing",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told} / {expected}");
    }
    assert!(read::read("f", "schema = 2\n", &roots(), None).is_err());
    assert!(read::read("f", "", &roots(), None).is_err());
    assert!(read::read("f", "schema = 1\n[[allow]\nplugin = 3\n", &roots(), None).unwrap_err()[0].line == 2);
}

#[test]
fn the_lines_of_a_refusal_appended_to_the_users_policy_allow_it() {
    let hostile = "/etc/\u{1b}[31m\"quoted\"\\/*/$x\n[[allow]]\u{202e}";
    type Scope<'a> = &'a [(&'static str, &'a str)];
    let cases: [(Identity, &str, Scope<'_>); 7] = [
        (built_in("discover-mad"), "files.read", &[("path", "/etc/passwd")]),
        (built_in("discover-mad"), "files.read", &[("path", hostile)]),
        (
            built_in("discover-mad"),
            "process.run",
            &[("program", "perl"), ("arguments", "-e '*' '$x'"), ("inline-code", "perl"), ("env", "A")],
        ),
        (
            built_in("target-docker"),
            "docker.create-container",
            &[("image", "u"), ("privileged", "true"), ("memory", "unlimited")],
        ),
        (
            stranger("x"),
            "docker.create-container",
            &[
                ("image", "sha256:11"),
                ("capability", "CAP_SYS_ADMIN"),
                ("memory", "1024"),
                ("cpus", "unlimited"),
                ("container", "c"),
            ],
        ),
        (stranger("=@ \" x"), "secrets.available", &[("secret", "@a")]),
        (stranger("x"), "facts.hostname", &[]),
    ];
    for (who, call, scope) in cases {
        let before = policy(&[]);
        let denial = refusal(&before, &who, call, scope);
        let shown = format!("{}{}", denial.message, denial.remedy.replace('\n', ""));
        assert_eq!(crate::capability::events::printable(&shown), shown, "{call}");
        let lines = denial.lines.unwrap();
        assert!(denial.remedy.ends_with(lines.trim_end()), "{}", denial.remedy);
        let after = policy(&[(Level::User, &lines)]);
        assert!(allows(&after, &who, call, scope), "{call}: {lines}");
        assert!(
            !allows(&after, &who, call, &[("path", "/other"), ("program", "other"), ("secret", "b"), ("image", "v")])
                || scope.is_empty(),
            "{lines}"
        );
    }
}

#[test]
fn what_would_have_to_be_listed_is_told_in_lines_that_allow_it() {
    let before = policy(&[(Level::Command, "only_listed = true\n")]);
    let scope = [("path", "/mad/models.json")];
    let denial = refusal(&before, &built_in("discover-mad"), "files.read", &scope);
    let after = policy(&[(Level::Command, &format!("only_listed = true\n{}", denial.lines.unwrap()))]);
    assert!(allows(&after, &built_in("discover-mad"), "files.read", &scope));
}

#[test]
fn limits_only_get_lower_from_layer_to_layer() {
    let site = "[[limits]]\nmemory = \"64 MiB\"\nprocessor = 2\n[[limits]]\nplugin = \"x\"\nhost-calls = 10\n";
    let user = "[[limits]]\nmemory = \"1 GiB\"\nprocessor = 0.5\n";
    let policy = policy(&[(Level::Site, site), (Level::User, user)]);
    let of = |name: &str| policy.ceilings(&stranger(name), crate::plugin::Ceilings::default());
    assert_eq!((of("x").memory, of("x").processor.as_millis(), of("x").host_calls), (64 << 20, 500, 10));
    assert_eq!(of("y").host_calls, crate::plugin::Ceilings::default().host_calls);
    let all =
        "[[limits]]\ninstances = 9\nhandles = 8\ntime = 7\n[[limits]]\ninstances = 5000\nhandles = 5000\ntime = 70\n";
    let lowered =
        super::tests::policy(&[(Level::Site, all)]).ceilings(&stranger("x"), crate::plugin::Ceilings::default());
    assert_eq!((lowered.instances, lowered.handles, lowered.time), (9, 8, Some(std::time::Duration::from_secs(7))));
}

#[test]
fn every_layer_says_what_it_thinks_of_a_call() {
    let policy = policy(&[
        (Level::Site, ONE_PARTITION),
        (Level::Project, "[[allow]]\nplugin = \"target-slurm\"\ncalls = [\"slurm.submit\"]\n"),
    ]);
    let (_, words) = vocabulary::find("slurm.submit").unwrap();
    let said = policy.explain(&built_in("target-slurm"), words, &asked(&[("partition", "debug")]));
    let said: Vec<(Option<bool>, &str)> = said.iter().map(|said| (said.allows, said.why.as_str())).collect();
    assert_eq!(said[0].0, Some(true));
    assert_eq!(said[1], (Some(false), "not among what it lists; site:4 comes nearest"));
    assert_eq!(said[2].0, None);
    assert!(said[2].1.ends_with("this layer only tightens"), "{}", said[2].1);
}

/// The images of a plan's builds are decided with it, as far as its file alone says which they are.
#[test]
fn a_plan_that_builds_from_a_refused_image_is_refused_before_it_begins() {
    use maddock_bindings::api::types::{Entry, Step, WorkPlan};
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().canonicalize().unwrap().join("Dockerfile");
    let narrow = "[[narrow]]\nplugin = \"*\"\ncalls = [\"docker.build-image\"]\nscope.image = [\"ours.example/**\"]\n";
    let grant = format!("[[allow]]\nplugin = \"build-docker\"\ncalls = [\"docker.build-image\"]\n{narrow}");
    let policy = policy(&[(Level::Site, &grant)]);
    let scope = vec![Entry { name: "path".to_owned(), value: file.display().to_string() }];
    let step = Step { summary: String::new(), call: "docker.build-image".to_owned(), scope };
    let plan = WorkPlan { steps: vec![step], artefacts: vec![], warnings: vec![], extra: vec![] };
    for (text, refused) in [
        ("FROM ours.example/a\n", false),
        ("ARG BASE=theirs/a\nFROM $BASE\n", false),
        ("FROM theirs/a\n", true),
        ("FROM ours.example/a\nCOPY --from=theirs/a x y\n", true),
    ] {
        std::fs::write(&file, text).unwrap();
        let refusals = policy.refusals(&built_in("build-docker"), &plan);
        assert_eq!(!refusals.is_empty(), refused, "{text}: {refusals:?}");
        assert!(refusals.iter().all(|refusal| refusal.denial.message.contains("/Dockerfile:")), "{refusals:?}");
    }
}
