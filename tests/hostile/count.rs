//! `docs/security.md` says how many attacks of which category there are, and which mutations were tried: this keeps it true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// No fewer than this many.
const ATTACKS: usize = 100;
/// And of checks that were taken away, to see a test fail.
const MUTATIONS: usize = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documentation() -> String {
    std::fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// Tests by module, those of this one left out.
fn attacks() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("tests/hostile")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".rs"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap().to_owned());
        let names: Vec<String> = names.collect();
        if !names.is_empty() && name != "count" {
            found.insert(name.to_owned(), names);
        }
    }
    found
}

/// Rows of a table whose first cell is a name in backticks that ends so.
fn rows(text: &str, ending: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
    };
    text.lines().filter(|line| line.starts_with("| `")).map(cells).filter(|cells| cells[0].ends_with(ending)).collect()
}

#[test]
fn the_documentation_counts_the_attacks_of_each_category_right() {
    let attacks = attacks();
    let total: usize = attacks.values().map(Vec::len).sum();
    assert!(total >= ATTACKS, "{total}");
    let documented: BTreeMap<String, usize> = rows(&documentation(), ".rs")
        .into_iter()
        .map(|cells| (cells[0].trim_end_matches(".rs").to_owned(), cells[2].parse().unwrap()))
        .collect();
    let counted: BTreeMap<String, usize> = attacks.into_iter().map(|(name, tests)| (name, tests.len())).collect();
    assert_eq!(documented, counted);
    assert!(documentation().contains(&format!("**{total} attacks**")), "{total} in all");
}

#[test]
fn the_documentation_has_every_mutation_and_each_names_an_attack_that_there_is() {
    let attacks = attacks();
    let mut patches = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/hostile/mutations")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let named =
            text.lines().find_map(|line| line.strip_prefix("Attack: ")).unwrap_or_else(|| panic!("{}", path.display()));
        let (module, test) = named.split_once("::").unwrap();
        assert!(attacks[module].iter().any(|name| name == test), "{}: there is no `{named}`", path.display());
        patches.push((path.file_name().unwrap().to_str().unwrap().to_owned(), named.to_owned()));
    }
    assert!(patches.len() >= MUTATIONS, "{}", patches.len());
    patches.sort();
    let mut documented: Vec<_> =
        rows(&documentation(), ".patch").into_iter().map(|cells| (cells[0].clone(), cells[2].clone())).collect();
    documented.sort();
    assert_eq!(documented, patches);
}

/// A patch that does not apply takes no check away, and is noticed only when somebody runs them all.
#[test]
fn every_mutation_applies() {
    let git = |words: &[&str]| std::process::Command::new("git").arg("-C").arg(root()).args(words).output();
    let is_checkout = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).trim() == "true";
    if !git(&["rev-parse", "--is-inside-work-tree"]).is_ok_and(|output| is_checkout(&output)) {
        eprintln!("skipped: every_mutation_applies (there is no git checkout)");
        return;
    }
    let mut patches: Vec<PathBuf> = std::fs::read_dir(root().join("tests/hostile/mutations"))
        .unwrap()
        .map(|entry| entry.unwrap().path().canonicalize().unwrap())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    let stale: Vec<String> = patches
        .iter()
        .map(|patch| git(&["apply", "--check", patch.to_str().unwrap()]).unwrap())
        .filter(|output| !output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .collect();
    assert!(stale.is_empty(), "{}", stale.concat());
}
