//! Programs that take code on their command line or on their input: whoever may start one of them may start anything.
//!
//! This is a guard against accidents, not against malice: a rule that allows a program allows all that its files make it do.

use std::path::Path;

/// Interpreters, and the short options that code, or what makes them read their input, follows.
const INTERPRETERS: &[(&str, &str)] = &[
    ("sh", "cs"),
    ("bash", "cs"),
    ("dash", "cs"),
    ("zsh", "cs"),
    ("ksh", "cs"),
    ("ash", "cs"),
    ("fish", "c"),
    ("busybox", "c"),
    ("python", "c"),
    ("pypy", "c"),
    ("perl", "eE"),
    ("ruby", "e"),
    ("node", "ep"),
    ("deno", "e"),
    ("lua", "e"),
    ("php", "rBRE"),
    ("Rscript", "e"),
    ("tclsh", ""),
    ("awk", ""),
    ("gawk", ""),
    ("mawk", ""),
    ("env", "S"),
];

/// Long options that code follows.
const LONG: [&str; 4] = ["--eval", "--print", "--command", "--split-string"];

/// The interpreter that would execute code which is no file: from an argument, or from the input where no file is named.
pub(super) fn of_inline_code(
    name: &str,
    program: Option<&Path>,
    arguments: &[String],
    has_stdin: bool,
) -> Option<&'static str> {
    let resolved = program.and_then(|path| path.canonicalize().ok());
    let real = resolved.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let (interpreter, letters) = [Some(name), real.as_deref()].into_iter().flatten().find_map(known)?;
    let mut file_named = false;
    for argument in arguments {
        if argument == "-" || LONG.iter().any(|long| argument == long || argument.starts_with(&format!("{long}="))) {
            return Some(interpreter);
        }
        match argument.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
            // Letters may be joined: `-Ic`, `-xec`.
            Some(rest) if rest.contains(|letter| letters.contains(letter)) => return Some(interpreter),
            Some(_) => {}
            None if argument.starts_with("--") => {}
            // What comes after the file is the file's.
            None => {
                file_named = true;
                break;
            }
        }
    }
    let takes_program_text = matches!(interpreter, "awk" | "gawk" | "mawk");
    let from_input = !file_named && has_stdin;
    (takes_program_text || from_input).then_some(interpreter)
}

/// By its name, with or without a version: `python3.12`.
fn known(name: &str) -> Option<(&'static str, &'static str)> {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.iter().find(|(known, _)| *known == plain || *known == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(words: &[&str], has_stdin: bool) -> Option<&'static str> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        of_inline_code(&words[0], None, &words[1..], has_stdin)
    }

    #[test]
    fn code_in_place_of_a_file_is_seen() {
        for words in [
            ["bash", "-c", "x"].as_slice(),
            &["bash", "-xec", "x"],
            &["sh", "-s", "x"],
            &["python3.12", "-I", "-c", "x"],
            &["python3", "-"],
            &["python3", "-Ic", "x"],
            &["perl", "-e", "x"],
            &["node", "--eval=x"],
            &["env", "-S", "bash -c x"],
            &["awk", "BEGIN{}"],
        ] {
            assert!(inline(words, false).is_some(), "{words:?}");
        }
        assert_eq!(inline(&["python3"], true), Some("python"));
    }

    #[test]
    fn a_file_and_its_own_options_are_no_code() {
        for words in [
            ["bash", "/run/entry.sh"].as_slice(),
            &["bash", "/run/entry.sh", "-c", "x"],
            &["python3", "-u", "x.py", "--eval"],
            &["amd-smi", "list", "--json", "-c"],
            &["python3", "--version"],
        ] {
            assert_eq!(inline(words, false), None, "{words:?}");
        }
        assert_eq!(inline(&["python3", "x.py"], true), None);
    }

    #[test]
    fn another_name_of_an_interpreter_is_that_interpreter() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("bash"), place.path().join("harmless"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(of_inline_code("harmless", Some(&link), &["-c".to_owned()], false), Some("bash"));
    }
}
