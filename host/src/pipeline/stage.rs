//! Staging: the surroundings that a job sees, in the run's own directory. The model tree is read and never written.
//!
//! A workspace holds the work directory (a copy of the directory of the model's script), `scripts/common` (the shipped
//! files, and the tree's own over them), and an empty directory for each other directory of the tree's scripts, where
//! targets mount or copy it. So `../scripts/common/…` resolves from the work directory.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Files that every workspace has under `scripts/common`.
const SHIPPED: &[(&str, &str)] = &[
    ("tools.json", TOOLS),
    ("test_echo.sh", include_str!("../../../presets/common/test_echo.sh")),
    ("pre_scripts/pre_test.sh", include_str!("../../../presets/common/pre_scripts/pre_test.sh")),
    ("post_scripts/post_test.sh", include_str!("../../../presets/common/post_scripts/post_test.sh")),
];

/// The shipped table of tools.
pub const TOOLS: &str = include_str!("../../../presets/common/tools.json");

/// A file or directory that could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The model names a script that the tree does not have.
    #[error("the script `{script}` of model `{model}` is not in the tree (looked for `{}`)", .looked_for.display())]
    NoScript {
        /// The model.
        model: String,
        /// As its card says.
        script: String,
        /// Where it should be.
        looked_for: PathBuf,
    },
    /// A path that leads out of the tree.
    #[error("`{path}` of model `{model}` leads out of the model tree")]
    Outside {
        /// The model.
        model: String,
        /// As its card says.
        path: String,
    },
    /// The file system said no.
    #[error("cannot stage `{}`: {source}", .path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Which program a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// `bash` or `python3`.
    pub interpreter: Vec<String>,
    /// The file's name in the work directory.
    pub file: String,
    /// The directory in the tree that becomes the work directory.
    pub directory: PathBuf,
}

/// Finds a model's script: a `.sh` or `.slurm` or `.py` file, or a directory that holds `run.sh`.
///
/// # Errors
/// It is not there, or not in the tree.
pub fn find_script(tree: &Path, model: &str, script: &str) -> Result<Script, StageError> {
    let relative = inside(model, script)?;
    let path = tree.join(&relative);
    let missing =
        |looked_for: PathBuf| StageError::NoScript { model: model.to_owned(), script: script.to_owned(), looked_for };
    if script.is_empty() {
        return Err(missing(path));
    }
    let (file, directory) = if path.is_dir() {
        (path.join("run.sh"), path)
    } else {
        let directory = path.parent().map_or_else(|| tree.to_owned(), Path::to_owned);
        (path, directory)
    };
    if !file.is_file() {
        return Err(missing(file));
    }
    let interpreter = if file.extension().is_some_and(|extension| extension == "py") { "python3" } else { "bash" };
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Script { interpreter: vec![interpreter.to_owned()], file: name, directory })
}

/// A relative path without `..` that escapes.
fn inside(model: &str, path: &str) -> Result<PathBuf, StageError> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return Err(StageError::Outside { model: model.to_owned(), path: path.to_owned() }),
        }
    }
    Ok(clean)
}

/// Makes the workspace of one job: `workspace` must not exist yet. `hooks` are files of the tree, relative to it, that
/// must be at the same place in the workspace.
///
/// # Errors
/// Something cannot be read or written.
pub fn workspace(
    tree: &Path,
    model: &str,
    script: &Script,
    workspace: &Path,
    work_directory: &str,
    hooks: &[String],
) -> Result<(), StageError> {
    let common = workspace.join("scripts/common");
    make(&common)?;
    for (name, content) in SHIPPED {
        let path = common.join(name);
        path.parent().map_or(Ok(()), make)?;
        fs::write(&path, content).map_err(at(&path))?;
    }
    let own = tree.join("scripts/common");
    if own.is_dir() {
        copy_tree(&own, &common)?;
    }
    if let Ok(entries) = fs::read_dir(tree.join("scripts")) {
        for entry in
            entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir() && entry.file_name() != "common")
        {
            make(&workspace.join("scripts").join(entry.file_name()))?;
        }
    }
    for hook in hooks {
        let relative = inside(model, hook)?;
        let (source, destination) = (tree.join(&relative), workspace.join(&relative));
        if destination.exists() {
            continue;
        }
        if !source.is_file() {
            return Err(StageError::NoScript { model: model.to_owned(), script: hook.clone(), looked_for: source });
        }
        destination.parent().map_or(Ok(()), make)?;
        fs::copy(&source, &destination).map_err(at(&source))?;
    }
    copy_tree(&script.directory, &workspace.join(work_directory))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { path, source }
}

fn make(directory: &Path) -> Result<(), StageError> {
    fs::create_dir_all(directory).map_err(at(directory))
}

/// Copies a directory's content, links followed, as `cp -LR source/. destination/` does. Dangling links, sockets and
/// devices are left out; a link that leads back to a directory around it is an error.
pub(super) fn copy_tree(source: &Path, destination: &Path) -> Result<(), StageError> {
    copy_below(source, destination, &mut Vec::new())
}

fn copy_below(source: &Path, destination: &Path, around: &mut Vec<PathBuf>) -> Result<(), StageError> {
    let real = source.canonicalize().map_err(at(source))?;
    if around.contains(&real) {
        let loops = io::Error::other(format!("it is a link back to `{}`, which it lies in", real.display()));
        return Err(StageError::Io { path: source.to_owned(), source: loops });
    }
    around.push(real);
    make(destination)?;
    for entry in fs::read_dir(source).map_err(at(source))? {
        let entry = entry.map_err(at(source))?;
        let (from, to) = (entry.path(), destination.join(entry.file_name()));
        let Ok(meta) = fs::metadata(&from) else { continue };
        if meta.is_dir() {
            copy_below(&from, &to, around)?;
        } else if meta.is_file() {
            fs::copy(&from, &to).map_err(at(&from))?;
        }
    }
    around.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("scripts/m/run.sh", "echo"),
            ("scripts/m/x.py", ""),
            ("scripts/common/mine.sh", "m"),
            ("scripts/other/a", ""),
        ] {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        tree
    }

    #[test]
    fn a_directory_means_its_run_script_and_a_python_file_python() {
        let tree = tree();
        assert_eq!(find_script(tree.path(), "m", "scripts/m").unwrap().file, "run.sh");
        let python = find_script(tree.path(), "m", "./scripts/m/x.py").unwrap();
        assert_eq!((python.interpreter, python.file), (vec!["python3".to_owned()], "x.py".to_owned()));
    }

    #[test]
    fn a_script_outside_the_tree_is_refused() {
        let tree = tree();
        assert!(matches!(find_script(tree.path(), "m", "../../etc/passwd"), Err(StageError::Outside { .. })));
        assert!(matches!(find_script(tree.path(), "m", "/etc/passwd"), Err(StageError::Outside { .. })));
        assert!(matches!(find_script(tree.path(), "m", "scripts/none.sh"), Err(StageError::NoScript { .. })));
    }

    #[test]
    fn the_workspace_has_the_work_directory_and_both_common_directories() {
        let tree = tree();
        let place = tempfile::tempdir().unwrap();
        let script = find_script(tree.path(), "m", "scripts/m").unwrap();
        workspace(tree.path(), "m", &script, &place.path().join("w"), "run_directory", &[]).unwrap();
        for expected in
            ["run_directory/run.sh", "scripts/common/mine.sh", "scripts/common/test_echo.sh", "scripts/other"]
        {
            assert!(place.path().join("w").join(expected).exists(), "{expected}");
        }
        assert!(!tree.path().join("scripts/common/test_echo.sh").exists());
    }

    #[test]
    fn a_link_that_leads_back_ends_with_an_error() {
        let tree = tree();
        std::os::unix::fs::symlink(tree.path().join("scripts/m"), tree.path().join("scripts/m/loop")).unwrap();
        let place = tempfile::tempdir().unwrap();
        let script = find_script(tree.path(), "m", "scripts/m").unwrap();
        assert!(workspace(tree.path(), "m", &script, &place.path().join("w"), "d", &[]).is_err());
    }
}
