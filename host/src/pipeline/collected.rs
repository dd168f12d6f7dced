//! What a target says it has brought back, before anybody reads it or puts it anywhere: files of the job's own directory, by
//! names that results have. A plugin's word for a path is nothing that the kernel may follow.

use std::path::Path;

use glob::{MatchOptions, Pattern};

use crate::plugin::jobs::{CollectedFile, Collection};

/// Takes the files out of a collection that are not the job's own or bear no name of a result, and says which, a sentence each.
pub fn keep_own(collection: &mut Collection, directory: &Path, patterns: &[String], rows: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let real = directory.canonicalize().ok();
    let results = collection.facts.iter().find(|fact| fact.name == "results").map(|fact| fact.value.clone());
    let result = |name: &str| {
        let is_named = results.as_deref() == Some(name)
            && name.ends_with(".csv")
            && rows.file_name() != Path::new(name).file_name();
        is_named || patterns.iter().any(|pattern| is_meant(pattern, name))
    };
    collection.files.retain(|file| {
        let why = if !result(&file.name) {
            "is no result that this job was asked for"
        } else if !real.as_deref().is_some_and(|real| lies_below(file, real)) {
            "is not a file of the job's own directory"
        } else {
            return true;
        };
        problems.push(format!("`{}` {why}: it is left where it is", file.name));
        false
    });
    problems
}

/// `*` and `?`, which stop at a slash; everything else is literal.
fn is_meant(pattern: &str, name: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let literal = pattern.trim_start_matches("./").replace('[', "[[]");
    Pattern::new(&literal).is_ok_and(|pattern| pattern.matches_with(name, options))
}

/// Whether it is a regular file, and no link leads out on the way to it.
fn lies_below(file: &CollectedFile, directory: &Path) -> bool {
    let path = Path::new(&file.path);
    let regular = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    regular && path.canonicalize().is_ok_and(|real| real.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use maddock_bindings::api::types::Entry;

    use super::*;

    fn kept(files: &[(&str, &Path)], facts: &[(&str, &str)], directory: &Path) -> Vec<String> {
        let file = |(name, path): &(&str, &Path)| CollectedFile {
            node: 0,
            name: (*name).to_owned(),
            path: path.display().to_string(),
        };
        let fact = |(name, value): &(&str, &str)| Entry { name: (*name).to_owned(), value: (*value).to_owned() };
        let mut collection = Collection {
            files: files.iter().map(file).collect(),
            facts: facts.iter().map(fact).collect(),
            missing: Vec::new(),
        };
        let patterns = ["*_output.csv".to_owned(), "deep/rows.csv".to_owned(), "odd[1].csv".to_owned()];
        let problems = keep_own(&mut collection, directory, &patterns, Path::new("/work/perf.csv"));
        assert_eq!(problems.len() + collection.files.len(), files.len());
        collection.files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn files_of_the_job_by_names_of_results_are_kept_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let job = place.path().join("job");
        std::fs::create_dir(&job).unwrap();
        let (own, other) = (job.join("file"), place.path().join("other"));
        std::fs::write(&own, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, job.join("link")).unwrap();
        std::os::unix::fs::symlink(place.path(), job.join("way")).unwrap();
        let (link, way) = (job.join("link"), job.join("way/other"));
        let names = [
            ("a_output.csv", own.as_path()),
            ("deep/rows.csv", own.as_path()),
            ("odd[1].csv", own.as_path()),
            ("b_output.csv", other.as_path()),
            ("c_output.csv", link.as_path()),
            ("d_output.csv", way.as_path()),
            ("e_output.csv", job.as_path()),
            ("deep/x_output.csv", own.as_path()),
            ("models.json", own.as_path()),
        ];
        assert_eq!(kept(&names, &[], &job), ["a_output.csv", "deep/rows.csv", "odd[1].csv"]);
    }

    #[test]
    fn a_results_file_that_the_target_names_is_a_table_and_not_the_rows_of_others() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("file");
        std::fs::write(&own, "").unwrap();
        for (name, expected) in [("mine.csv", true), ("perf.csv", false), ("policy.toml", false)] {
            let names = kept(&[(name, own.as_path())], &[("results", name)], place.path());
            assert_eq!(!names.is_empty(), expected, "{name}");
        }
    }
}
