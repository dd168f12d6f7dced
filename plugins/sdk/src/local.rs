//! What targets that run jobs on this machine share: the environment of a job, what its outcome means, collecting its files.
//!
//! The work directory is written by the job: names in it are data, and nothing outside it may be reached by them.

use serde::{Deserialize, Serialize};

use crate::entry;
use crate::files::{self, FileKind};
use crate::job_result::JobResult;
use crate::references;
use crate::target::{Cause, CollectedFile, Collection, Ending, Job, NodeEnding, NodeRole};
use crate::types::{Entry, EnvValue, EnvVar};
use crate::{Result, invalid};

/// A result file is a few lines; a longer one is not ours.
const RESULT_LIMIT: u64 = 64 << 10;
/// The file by which a cancelled job is known to whoever watches it, in the job's directory, out of the job's reach.
const CANCELLED: &str = "cancelled";
/// The directory of collected files, in the job's directory.
const ARTEFACTS: &str = "artefacts";
/// Scripts that the kernel stages by itself.
const COMMON: &str = "common";

/// Where a job's files lie, as every step after `launch` needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The job's own directory.
    pub directory: String,
    /// What the job sees as its surroundings.
    pub workspace: String,
    /// A name in the workspace.
    pub work_directory: String,
    /// File name patterns to collect.
    pub collect: Vec<String>,
}

impl Place {
    /// The place of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self {
            directory: job.paths.directory.clone(),
            workspace: job.paths.workspace.clone(),
            work_directory: job.paths.work_directory.clone(),
            collect: job.collect.clone(),
        }
    }

    /// The entry script.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{}/{}", self.workspace, entry::SCRIPT)
    }

    /// The work directory, absolute.
    #[must_use]
    pub fn work(&self) -> String {
        format!("{}/{}", self.workspace, self.work_directory)
    }

    /// Writes the entry script.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_entry(&self, script: &str) -> Result<()> {
        files::write(&self.entry(), script.as_bytes(), 0o755).map_err(|error| error.during("writing the entry script"))
    }

    /// What the job left as its outcome; none where there is nothing, or nothing that can be read.
    #[must_use]
    pub fn result(&self) -> Option<JobResult> {
        let bytes = files::read(&format!("{}/{}", self.workspace, entry::RESULT), RESULT_LIMIT).ok()?;
        JobResult::parse(&String::from_utf8_lossy(&bytes)).ok()
    }

    /// Whether the job left its outcome.
    #[must_use]
    pub fn has_result(&self) -> bool {
        matches!(files::stat(&format!("{}/{}", self.workspace, entry::RESULT)), Ok(Some(_)))
    }

    /// Leaves word that the job is ended on purpose.
    ///
    /// # Errors
    /// The word cannot be written.
    pub fn mark_cancelled(&self, reason: &str) -> Result<()> {
        files::write(&format!("{}/{CANCELLED}", self.directory), reason.as_bytes(), 0o644)
    }

    /// Why the job was cancelled, where it was.
    #[must_use]
    pub fn cancelled(&self) -> Option<String> {
        let bytes = files::read(&format!("{}/{CANCELLED}", self.directory), RESULT_LIMIT).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Copies what matches the job's patterns out of the work directory.
    ///
    /// # Errors
    /// The work directory cannot be read.
    pub fn collect(&self) -> Result<Collection> {
        let work = self.work();
        let mut collection = Collection { files: Vec::new(), facts: Vec::new(), missing: Vec::new() };
        let mut list = |directory: &str| {
            let path = if directory.is_empty() { work.clone() } else { format!("{work}/{directory}") };
            Ok(files::list_directory(&path)?.into_iter().map(|entry| (entry.name, entry.kind)).collect())
        };
        let (names, missing) = select(&self.collect, &mut list)?;
        collection.missing = missing;
        for name in names {
            let path = format!("{}/{ARTEFACTS}/{name}", self.directory);
            match files::copy(&format!("{work}/{name}"), &path) {
                Ok(()) => collection.files.push(CollectedFile { node: 0, name, path }),
                Err(error) => collection.missing.push(format!("`{name}` cannot be copied: {}", error.message)),
            }
        }
        if let Some(commit) = self.result().and_then(|result| result.git_commit) {
            collection.facts.push(Entry { name: "git_commit".to_owned(), value: commit });
        }
        Ok(collection)
    }
}

type Listing = Vec<(String, FileKind)>;

/// The files that match, once each, and a sentence for each plain name that is not there.
fn select(patterns: &[String], list: &mut dyn FnMut(&str) -> Result<Listing>) -> Result<(Vec<String>, Vec<String>)> {
    let (mut names, mut missing) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let segments: Vec<&str> = pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
        if segments.is_empty() || segments.contains(&"..") || pattern.starts_with('/') {
            missing.push(format!("`{pattern}` does not name a file in the work directory"));
            continue;
        }
        let mut found = Vec::new();
        walk("", &segments, list, &mut found)?;
        if found.is_empty() && !pattern.contains(['*', '?']) {
            missing.push(format!("`{pattern}` is not in the work directory"));
        }
        for name in found {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok((names, missing))
}

fn walk(
    directory: &str,
    segments: &[&str],
    list: &mut dyn FnMut(&str) -> Result<Listing>,
    found: &mut Vec<String>,
) -> Result<()> {
    let Some((segment, rest)) = segments.split_first() else { return Ok(()) };
    for (name, kind) in list(directory)? {
        if !matches(segment, &name) {
            continue;
        }
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        match kind {
            FileKind::File if rest.is_empty() => found.push(path),
            FileKind::Directory if !rest.is_empty() => walk(&path, rest, list, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file name matches a pattern of `*` and `?`. As in a shell, a leading dot has to be said.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and up to where it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), name.get(n)) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some('?'), Some(_)) => (p, n) = (p + 1, n + 1),
            (Some(wanted), Some(letter)) if wanted == letter => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    (p, n) = (at + 1, eaten + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|letter| *letter == '*')
}

/// The variables of one node of a job, each name once. What comes later wins: the accelerators', the job's own, then the
/// launcher's, from which the kernel has taken what the user settled. Those whose value is known on the node only are not
/// here: the entry script sets them.
///
/// # Errors
/// A name that no shell could have.
pub fn environment(job: &Job, role: Option<&NodeRole>) -> Result<Vec<EnvVar>> {
    let plain = |entry: &Entry| EnvVar { name: entry.name.clone(), value: EnvValue::Text(entry.value.clone()) };
    let accelerators = job.accelerators.iter().flat_map(|attachment| &attachment.env).map(plain);
    let known = |entry: &Entry| {
        let value = EnvValue::Text(references::plain(&entry.value)?);
        Some(EnvVar { name: entry.name.clone(), value })
    };
    let launcher = role.iter().flat_map(|role| &role.env).filter_map(known);
    last_of_each(accelerators.chain(job.env.iter().cloned()).chain(launcher))
}

/// Each variable once, with the value that came last, in the order of those.
///
/// # Errors
/// A name that no shell could have.
pub fn last_of_each(variables: impl IntoIterator<Item = EnvVar>) -> Result<Vec<EnvVar>> {
    let mut kept: Vec<EnvVar> = Vec::new();
    for variable in variables {
        if !is_variable(&variable.name) {
            return Err(invalid(format!("`{}` cannot be the name of a variable", variable.name))
                .hint("names have letters, digits and `_`, and do not begin with a digit"));
        }
        kept.retain(|other| other.name != variable.name);
        kept.push(variable);
    }
    Ok(kept)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The directories of `tree/scripts` that the kernel does not stage, by name.
///
/// # Errors
/// The directory is there and cannot be read.
pub fn script_directories(tree: &str) -> Result<Vec<String>> {
    let scripts = format!("{tree}/scripts");
    if files::stat(&scripts)?.is_none() {
        return Ok(Vec::new());
    }
    let entries = files::list_directory(&scripts)?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.kind == FileKind::Directory && entry.name != COMMON && !entry.name.starts_with('.'))
        .map(|entry| entry.name)
        .collect())
}

/// The one node's role, which is there where a launcher made one.
#[must_use]
pub fn role(job: &Job) -> Option<&NodeRole> {
    job.topology.roles.first()
}

/// What the end of the entry script's process means, with a sentence where it is not plain.
#[must_use]
pub fn outcome(code: i32, result: Option<&JobResult>) -> (Cause, String) {
    use crate::job_result::Stage;
    match result {
        Some(result) if result.stage == Stage::TimedOut => (Cause::TimedOut, result.message()),
        Some(result) => {
            let said = result.message();
            (Cause::Exited(code), if said.is_empty() { of_code(code) } else { said })
        }
        None if matches!(code, 126 | 127) => (
            Cause::NeverStarted,
            format!("the job's script could not be started (code {code}): `bash` has to be where the job runs"),
        ),
        None => (Cause::Exited(code), format!("the job ended without leaving a result (code {code})")),
    }
}

/// What a shell means by codes above 128, without claiming it: a program may end with any code.
fn of_code(code: i32) -> String {
    let name = match code - 128 {
        6 => "SIGABRT",
        7 => "SIGBUS",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return String::new(),
    };
    format!("the model ended with code {code}, which usually means signal {name}")
}

/// The ending of a job of one node.
#[must_use]
pub fn ending(cause: Cause, message: String, result: Option<&JobResult>, node: &str, log_complete: bool) -> Ending {
    Ending {
        cause,
        message: message.clone(),
        duration: result.and_then(|result| result.seconds),
        nodes: vec![NodeEnding { node: 0, name: node.to_owned(), cause, message }],
        log_complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_result::Stage;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name) in [
            ("*_output.csv", "x_output.csv"),
            ("*_output.csv", "_output.csv"),
            ("perf_?.csv", "perf_é.csv"),
            ("*a*b*", "xxaxxbxx"),
            ("**", "anything"),
            (".*", ".hidden"),
            ("a", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*_output.csv", "x_output.csv.bak"),
            ("perf_?.csv", "perf_.csv"),
            ("*", ".hidden"),
            ("a", "ab"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_of_many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
        assert!(!matches(&"a*".repeat(60), &format!("{}b", "a".repeat(59))));
    }

    fn tree(directory: &str) -> Result<Listing> {
        let file = |name: &str| (name.to_owned(), FileKind::File);
        let directory_of = |name: &str| (name.to_owned(), FileKind::Directory);
        Ok(match directory {
            "" => vec![file("a_output.csv"), file("b_output.csv"), directory_of("c_output.csv"), directory_of("out")],
            "out" => vec![file("perf.csv")],
            _ => Vec::new(),
        })
    }

    #[test]
    fn files_are_selected_once_and_plain_names_that_are_absent_are_told() {
        let patterns =
            ["*_output.csv", "a_output.csv", "out/*.csv", "none.csv", "*_none.csv", "../x", "/etc/passwd", ""];
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let (names, missing) = select(&patterns, &mut tree).unwrap();
        assert_eq!(names, ["a_output.csv", "b_output.csv", "out/perf.csv"]);
        assert_eq!(
            missing,
            [
                "`none.csv` is not in the work directory",
                "`../x` does not name a file in the work directory",
                "`/etc/passwd` does not name a file in the work directory",
                "`` does not name a file in the work directory",
            ]
        );
    }

    fn variable(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.to_owned(), value: EnvValue::Text(value.to_owned()) }
    }

    #[test]
    fn the_value_that_comes_last_wins() {
        let kept = last_of_each([variable("A", "1"), variable("B", "2"), variable("A", "3")]).unwrap();
        assert_eq!(kept, [variable("B", "2"), variable("A", "3")]);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in ["", "1A", "A-B", "A=B", "Ä"] {
            assert!(last_of_each([variable(name, "")]).is_err(), "{name}");
        }
    }

    fn result(exit: i32, stage: Stage) -> JobResult {
        JobResult { exit, stage, model: None, seconds: Some(1.5), git_commit: None }
    }

    #[test]
    fn the_models_own_end_is_told_from_the_rest() {
        assert_eq!(outcome(3, Some(&result(3, Stage::Model))), (Cause::Exited(3), String::new()));
        let (cause, message) = outcome(3, Some(&result(3, Stage::Before)));
        assert_eq!(cause, Cause::Exited(3));
        assert!(message.contains("before the model"), "{message}");
        assert_eq!(outcome(143, Some(&result(143, Stage::TimedOut))).0, Cause::TimedOut);
        assert!(outcome(139, Some(&result(139, Stage::Model))).1.contains("SIGSEGV"));
    }

    #[test]
    fn a_job_without_a_result_never_started_or_was_cut_off() {
        assert_eq!(outcome(127, None).0, Cause::NeverStarted);
        let (cause, message) = outcome(137, None);
        assert_eq!(cause, Cause::Exited(137));
        assert!(message.contains("without leaving a result"));
    }
}
