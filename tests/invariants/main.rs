//! What the source must never contain. These are invariants of the design, checked where they can be: by reading.

#![allow(clippy::unwrap_used, clippy::string_slice, reason = "a test that cannot read the source has failed")]

use std::path::{Path, PathBuf};

/// Names of vendors, schedulers, engines and launchers: no kernel logic may know one.
const FOREIGN: [&str; 19] = [
    "docker",
    "podman",
    "containerd",
    "slurm",
    "sbatch",
    "k8s",
    "kubernetes",
    "kube",
    "amd",
    "rocm",
    "nvidia",
    "cuda",
    "hip",
    "torchrun",
    "deepspeed",
    "megatron",
    "vllm",
    "sglang",
    "primus",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(directory: &Path, extensions: &[&str], into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !["target", ".git", "node_modules"].iter().any(|name| path.ends_with(name)) {
                files(&path, extensions, into);
            }
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
            into.push(path);
        }
    }
}

/// Lines of code: what tests, comments and documentation say is not logic.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let logic = text.split("#[cfg(test)]").next().unwrap_or_default();
    logic
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn no_kernel_logic_knows_a_vendor_or_a_scheduler() {
    let mut sources = Vec::new();
    files(&root().join("host/src"), &["rs"], &mut sources);
    let kernel: Vec<PathBuf> =
        sources.into_iter().filter(|path| !path.components().any(|part| part.as_os_str() == "capability")).collect();
    assert!(kernel.len() > 20, "the kernel's sources were not found");
    let mut found = Vec::new();
    for path in kernel {
        for (number, line) in code(&path) {
            // A path into the capability modules names an interface; it is how the kernel links what it does not know.
            let line = line
                .replace("capability::docker", "")
                .replace("api::docker", "")
                .replace("api::slurm", "")
                .replace("api::kube", "")
                .replace("docker: Connection", "");
            for word in FOREIGN.iter().filter(|word| has_word(&line, word)) {
                found.push(format!("{}:{number}: `{word}` in: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_is_handed_to_a_shell_as_a_string() {
    let mut sources = Vec::new();
    for directory in ["host/src", "plugins"] {
        files(&root().join(directory), &["rs"], &mut sources);
    }
    let mut found = Vec::new();
    for path in sources {
        for (number, line) in code(&path) {
            let squeezed: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            let hands = ["sh-c", "sh\",\"-c\"", "sh\".to_owned(),\"-c\"", "sh\".to_string(),\"-c\""]
                .iter()
                .any(|form| squeezed.contains(form));
            if hands {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_in_the_project_leans_on_files_outside_it() {
    let mut sources = Vec::new();
    files(&root(), &["rs", "toml", "md", "sh", "py", "json", "wit", "txt"], &mut sources);
    let outside = ["..", "/shared"].concat();
    let leaning: Vec<String> = sources
        .iter()
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&outside)))
        .map(|path| path.display().to_string())
        .collect();
    assert!(leaning.is_empty(), "{}", leaning.join("\n"));
}

#[test]
fn words_are_found_as_words_only() {
    assert!(has_word("let docker = 1;", "docker"));
    assert!(has_word("\"Docker engine\"", "docker"));
    assert!(!has_word("entry.docker_image", "docker"));
    assert!(!has_word("dockerfile", "docker"));
}
