//! Where policy files are, and which of them may be believed.
//!
//! What is looked at is what was opened: a file that is changed for another meanwhile is not the one that is read.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::{Level, PolicyError};
use crate::plugin::Environment;

/// The site's directory. A constant: nothing that a user can set leads elsewhere.
const SITE_DIRECTORY: &str = "/etc/maddock";
const FILE: &str = "policy.toml";
/// The site's file.
pub const SITE_FILE: &str = "/etc/maddock/policy.toml";
/// The project's file, in the working directory.
pub const PROJECT_FILE: &str = "maddock-policy.toml";
/// No policy is longer.
const LONGEST: u64 = 4 << 20;

/// Where the layers of this invocation are.
#[derive(Debug, Clone, Default)]
pub struct Homes {
    /// The user's file, where the user has a directory for it.
    pub user: Option<PathBuf>,
    /// The project's file.
    pub project: Option<PathBuf>,
}

impl Homes {
    /// Of this user, in this working directory.
    #[must_use]
    pub fn of(environment: &Environment, working: &Path) -> Self {
        let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        Self { user: config.map(|config| config.join("maddock").join(FILE)), project: Some(working.join(PROJECT_FILE)) }
    }
}

/// The layers that there are, from the top down.
pub(super) fn texts(homes: &Homes, given: &[PathBuf]) -> Result<Vec<(Level, PathBuf, String)>, PolicyError> {
    let mut texts = Vec::new();
    if let Some(text) = site(Path::new(SITE_DIRECTORY))? {
        texts.push((Level::Site, PathBuf::from(SITE_FILE), text));
    }
    if let Some(path) = &homes.user
        && let Some(text) = optional(path, Some(&user_is_trusted))?
    {
        texts.push((Level::User, path.clone(), text));
    }
    if let Some(path) = &homes.project
        && let Some(text) = optional(path, None)?
    {
        texts.push((Level::Project, path.clone(), text));
    }
    for path in given {
        let text = optional(path, None)?.ok_or_else(|| PolicyError::Untrusted {
            name: super::shown(path),
            message: "there is no such file".to_owned(),
            hint: "`--policy` names a policy file".to_owned(),
        })?;
        texts.push((Level::Command, path.clone(), text));
    }
    Ok(texts)
}

/// Whether only root can have written there.
fn site_is_trusted(owner: u32, mode: u32) -> bool {
    owner == 0 && mode & 0o022 == 0
}

/// Whether only this user or root can have written there.
fn user_is_trusted(owner: u32, mode: u32) -> bool {
    (owner == 0 || owner == rustix::process::geteuid().as_raw()) && mode & 0o022 == 0
}

type Trust<'a> = &'a dyn Fn(u32, u32) -> bool;

/// The site's text. None where there is no site's file: its absence is something that only root can bring about.
fn site(directory: &Path) -> Result<Option<String>, PolicyError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let cannot = |path: &Path, cause: rustix::io::Errno| PolicyError::Untrusted {
        name: super::shown(path),
        message: match cause {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                "it is a link or no directory, and the site's policy lies in a directory and is a file of its own"
                    .to_owned()
            }
            cause => format!("cannot read the site's policy: {}", std::io::Error::from(cause)),
        },
        hint: format!("as root: `chmod 755 {SITE_DIRECTORY}` and `chmod 644 {SITE_FILE}`"),
    };
    let opened = match rustix::fs::open(directory, flags | OFlags::DIRECTORY, Mode::empty()) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(cause) => return Err(cannot(directory, cause)),
    };
    let file = directory.join(FILE);
    // A pipe must not keep us waiting.
    let found = match rustix::fs::openat(&opened, FILE, flags | OFlags::NONBLOCK, Mode::empty()) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(cause) => return Err(cannot(&file, cause)),
    };
    for (path, descriptor, wanted) in
        [(directory, &opened, FileType::Directory), (&file, &found, FileType::RegularFile)]
    {
        let stat = rustix::fs::fstat(descriptor).map_err(|cause| cannot(path, cause))?;
        if FileType::from_raw_mode(stat.st_mode) != wanted {
            return Err(cannot(path, rustix::io::Errno::NOTDIR));
        }
        if !site_is_trusted(stat.st_uid, stat.st_mode) {
            return Err(PolicyError::Untrusted {
                name: super::shown(path),
                message: format!(
                    "the site's policy must be root's, and nobody else may write to it (owner {}, mode {:o})",
                    stat.st_uid,
                    stat.st_mode & 0o7777
                ),
                hint: format!("as root: `chown root:root {0}` and `chmod go-w {0}`", path.display()),
            });
        }
    }
    text(&file, std::fs::File::from(found)).map(Some)
}

/// A file's text, none where there is no file.
fn optional(path: &Path, trust: Option<Trust<'_>>) -> Result<Option<String>, PolicyError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(cause) => return Err(unreadable(path, &std::io::Error::from(cause))),
    };
    if let Some(trust) = trust {
        let stat = rustix::fs::fstat(&opened).map_err(|cause| unreadable(path, &std::io::Error::from(cause)))?;
        if !trust(stat.st_uid, stat.st_mode) {
            return Err(PolicyError::Untrusted {
                name: super::shown(path),
                message: "others can write to it, or it is somebody else's, and it may hold grants".to_owned(),
                hint: format!("make it yours alone: `chmod go-w {}`", super::shown(path)),
            });
        }
    }
    text(path, std::fs::File::from(opened)).map(Some)
}

fn unreadable(path: &Path, cause: &std::io::Error) -> PolicyError {
    PolicyError::Untrusted {
        name: super::shown(path),
        message: format!("cannot read it: {cause}"),
        hint: "a policy that cannot be read is not left out: make it readable, or remove it".to_owned(),
    }
}

fn text(path: &Path, file: std::fs::File) -> Result<String, PolicyError> {
    let regular = file.metadata().map_err(|cause| unreadable(path, &cause))?.is_file();
    if !regular {
        return Err(unreadable(path, &std::io::Error::other("it is not a file")));
    }
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text).map_err(|cause| unreadable(path, &cause))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > LONGEST {
        return Err(unreadable(path, &std::io::Error::other(format!("it is longer than {LONGEST} bytes"))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_what_root_alone_can_write_is_a_site() {
        let table = [
            (0, 0o100644, true),
            (0, 0o100600, true),
            (0, 0o100664, false),
            (0, 0o100646, false),
            (1000, 0o100644, false),
        ];
        for (owner, mode, expected) in table {
            assert_eq!(site_is_trusted(owner, mode), expected, "{owner} {mode:o}");
        }
    }

    #[test]
    fn a_site_that_is_a_link_a_directory_or_writable_by_others_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("maddock");
        let file = directory.join(FILE);
        assert!(site(&directory).unwrap().is_none(), "no directory is no site");
        std::fs::create_dir(&directory).unwrap();
        assert!(site(&directory).unwrap().is_none(), "no file is no site");
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::write(&file, "schema = 1\n").unwrap();
        mode(&directory, 0o755);
        mode(&file, 0o666);
        assert!(site(&directory).is_err());
        mode(&file, 0o644);
        mode(&directory, 0o777);
        assert!(site(&directory).is_err());
        mode(&directory, 0o755);
        // Whoever runs this is root, or has no way to make a file root's.
        assert_eq!(site(&directory).is_ok(), rustix::process::geteuid().is_root());
        std::fs::rename(&file, place.path().join("elsewhere")).unwrap();
        symlink(place.path().join("elsewhere"), &file).unwrap();
        assert!(site(&directory).unwrap_err().to_string().contains("link"));
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(site(&directory).is_err());
        symlink(&directory, place.path().join("link")).unwrap();
        assert!(site(&place.path().join("link")).is_err());
    }

    #[test]
    fn a_users_policy_that_others_can_write_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(FILE);
        std::fs::write(&file, "schema = 1\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o664)).unwrap();
        assert!(optional(&file, Some(&user_is_trusted)).is_err());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(optional(&file, Some(&user_is_trusted)).unwrap().unwrap(), "schema = 1\n");
        assert!(optional(&place.path().join("none"), None).unwrap().is_none());
    }

    #[test]
    fn a_relative_home_is_nobodys() {
        let environment: Environment = [("XDG_CONFIG_HOME".to_owned(), "x".to_owned())].into_iter().collect();
        assert!(Homes::of(&environment, Path::new("/w")).user.is_none());
    }
}
