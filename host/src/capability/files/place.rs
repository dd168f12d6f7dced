//! From what a plugin wrote to the one path that will be touched. Nothing here changes a file.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use maddock_bindings::api::types::ErrorKind;

use super::held::{Foreign, Swapped};
use crate::capability::{ApiError, error, error_with_hint};

/// A path without links in it. Its last components may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// Absolute, links resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a path: absolute, without `..` and NUL.
///
/// # Errors
/// Of kind `invalid-input`, saying what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<PathBuf, ApiError> {
    let refused = |why: &str| {
        let shown = crate::capability::events::printable(text);
        Err(error_with_hint(
            ErrorKind::InvalidInput,
            format!("path `{shown}` {why}"),
            "paths are absolute and have no `..`",
        ))
    };
    if text.is_empty() {
        return refused("is empty");
    }
    if text.contains('\0') {
        return refused("contains a NUL byte");
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return refused("is not absolute");
    }
    if path.components().any(|component| matches!(component, Component::ParentDir)) {
        return refused("contains `..`");
    }
    // Components leave out `.` and doubled or trailing slashes.
    Ok(path.components().collect())
}

/// The place that a path leads to, links followed; for what is not there, the deepest directory that is, and the rest.
///
/// # Errors
/// A loop of links, a directory that may not be searched, or a dangling link on the way.
pub(crate) fn existing(path: &Path) -> Result<Place, ApiError> {
    let mut missing: Vec<OsString> = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(Place { path: found });
            }
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                // What lies beyond a dangling link has no place; the link itself, as the last component, has.
                if !missing.is_empty() && at.symlink_metadata().is_ok_and(|meta| meta.file_type().is_symlink()) {
                    return Err(error(ErrorKind::NotFound, format!("`{}` is a link to nothing", at.display())));
                }
                match (at.parent(), at.file_name()) {
                    (Some(parent), Some(name)) => {
                        missing.push(name.to_owned());
                        at = parent;
                    }
                    _ => return Err(failure("resolve", path, &why)),
                }
            }
            Err(why) => return Err(failure("resolve", path, &why)),
        }
    }
}

/// The place of a directory entry itself: links are followed on the way to it, and it is not followed.
///
/// # Errors
/// As [`existing`].
pub(crate) fn itself(path: &Path) -> Result<Place, ApiError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(Place { path: existing(parent)?.path.join(name) }),
        _ => Ok(Place { path: path.to_owned() }),
    }
}

/// An error of the operating system as a plugin sees it.
pub(crate) fn failure(verb: &str, path: &Path, why: &io::Error) -> ApiError {
    let kind = match why.kind() {
        _ if why.get_ref().is_some_and(|inner| inner.is::<Swapped>() || inner.is::<Foreign>()) => ErrorKind::Denied,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
        io::ErrorKind::InvalidFilename => ErrorKind::InvalidInput,
        _ => ErrorKind::Failed,
    };
    error(kind, format!("cannot {verb} `{}`: {}", path.display(), reason(why)))
}

/// The system's words as a sentence fragment.
pub(crate) fn reason(why: &io::Error) -> String {
    let text = why.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_absolute_paths_without_parents_and_nul_are_read() {
        for odd in ["", "a", "./a", "../a", "/a/../b", "/..", "/a\0b"] {
            assert!(parse(odd).is_err(), "{odd:?}");
        }
        assert_eq!(parse("//a/./b//c/").unwrap(), Path::new("/a/b/c"));
    }

    #[test]
    fn a_link_is_resolved_and_what_is_missing_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        assert_eq!(existing(&root.join("link/new/file")).unwrap().path(), root.join("real/new/file"));
        assert_eq!(itself(&root.join("link")).unwrap().path(), root.join("link"));
    }

    #[test]
    fn a_loop_of_links_and_a_dangling_link_on_the_way_have_no_place() {
        let directory = tempfile::tempdir().unwrap();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        symlink("/nowhere/at/all", directory.path().join("dangling")).unwrap();
        assert!(existing(&directory.path().join("a")).is_err());
        assert!(existing(&directory.path().join("dangling/x")).is_err());
        assert!(existing(&directory.path().join("dangling")).is_ok());
    }
}
