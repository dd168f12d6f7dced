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

/// Long options whose value is the next word.
const LONG_WITH_VALUE: [&str; 5] = ["--rcfile", "--init-file", "--require", "--import", "--loader"];

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
    if let Some(started) = started_by(interpreter, arguments) {
        let (first, rest) = started.split_first()?;
        let name = Path::new(first).file_name().map(|name| name.to_string_lossy().into_owned())?;
        return of_inline_code(&name, first.contains('/').then(|| Path::new(first)), rest, has_stdin);
    }
    let mut file_named = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-" || LONG.iter().any(|long| argument == long || argument.starts_with(&format!("{long}="))) {
            return Some(interpreter);
        }
        match argument.strip_prefix(['-', '+']).filter(|rest| !rest.starts_with('-')) {
            // Letters may be joined: `-Ic`, `-xec`.
            Some(rest) if rest.contains(|letter| letters.contains(letter)) => return Some(interpreter),
            // What comes next is this option's, and no file: code may come behind it.
            Some(short) if short.ends_with(|letter| takes_value(interpreter, letter)) => {
                rest.next();
            }
            Some(_) => {}
            None if LONG_WITH_VALUE.contains(&argument.as_str()) => {
                rest.next();
            }
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

/// The command that a program starts in its place: `env NAME=value bash …`, `busybox sh …`.
fn started_by<'a>(interpreter: &str, arguments: &'a [String]) -> Option<&'a [String]> {
    let at = match interpreter {
        "busybox" => 0,
        "env" => {
            let splits = |word: &&String| word.starts_with("-S") || word.starts_with("--split-string");
            if arguments.iter().take_while(|word| word.starts_with('-')).any(|word| splits(&word)) {
                return None;
            }
            let mut at = 0;
            while let Some(word) = arguments.get(at).filter(|word| word.starts_with('-') || word.contains('=')) {
                at += if matches!(word.as_str(), "-u" | "-C") { 2 } else { 1 };
            }
            at
        }
        _ => return None,
    };
    arguments.get(at..).filter(|rest| rest.first().is_some_and(|first| !first.starts_with('-')))
}

/// Short options whose value is the next word.
fn takes_value(interpreter: &str, letter: char) -> bool {
    match interpreter {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => matches!(letter, 'o' | 'O'),
        "python" | "pypy" => matches!(letter, 'W' | 'X'),
        "perl" => matches!(letter, 'I' | 'M' | 'm'),
        "ruby" => matches!(letter, 'I' | 'r' | 'E' | 'C'),
        "node" => matches!(letter, 'r' | 'C'),
        "lua" => letter == 'l',
        "php" => matches!(letter, 'c' | 'd' | 'z'),
        _ => false,
    }
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
            &["bash", "-o", "errexit", "-c", "x"],
            &["bash", "+O", "extglob", "-c", "x"],
            &["bash", "--rcfile", "/x", "-c", "x"],
            &["python3", "-W", "ignore", "-c", "x"],
            &["perl", "-I", "/lib", "-e", "x"],
            &["env", "A=b", "bash", "-c", "x"],
            &["env", "-u", "A", "bash", "-c", "x"],
            &["busybox", "sh", "-c", "x"],
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
            &["bash", "-o", "errexit", "/run/entry.sh", "-c"],
            &["env", "A=b", "bash", "/run/entry.sh", "-c"],
            &["env", "A=b", "true"],
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
