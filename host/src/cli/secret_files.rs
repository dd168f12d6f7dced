//! Secrets from a directory: a file for each, whose path below the directory is the secret's name, such as `credential/hub/password`
//! and `env/MAD_SECRETS_TOKEN`. Only what nobody else may read or write is taken; nothing here tells a value.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::capability::events::printable;
use crate::capability::secrets::SecretStore;

/// The variable that names the directory.
pub(super) const DIRECTORY: &str = "MADDOCK_SECRETS_DIR";

/// Bytes of one secret.
const LONGEST: u64 = 64 << 10;
/// Directories within each other: `credential/NAME/MEMBER` has two.
const DEPTH: usize = 3;

/// Adds what a directory holds; says of each file that is left out why.
pub(super) fn add_all(directory: &Path, secrets: &mut SecretStore, warn: &mut dyn FnMut(String)) {
    if !directory.is_absolute() {
        return warn(format!("`{DIRECTORY}` is no absolute path; going on without it"));
    }
    below(directory, "", DEPTH, secrets, warn);
}

fn below(directory: &Path, prefix: &str, depth: usize, secrets: &mut SecretStore, warn: &mut dyn FnMut(String)) {
    let mut omit = |path: &Path, why: &str| {
        warn(format!("no secret is taken from `{}`: {why}", printable(&path.to_string_lossy())));
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return omit(directory, &error.to_string()),
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // What begins so is an editor's, or how a mounted volume is made.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let name = format!("{prefix}{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => below(&path, &format!("{name}/"), depth - 1, secrets, warn),
            Ok(kind) if kind.is_dir() => {
                warn(format!("no secret is taken from `{}`: it lies too deep", printable(&name)))
            }
            _ => match value(&path) {
                Ok(value) => secrets.add(name, value),
                Err(why) => warn(format!("no secret is taken from `{}`: {why}", printable(&path.to_string_lossy()))),
            },
        }
    }
}

/// The file is judged as it was opened: what is swapped meanwhile is not read.
fn value(path: &Path) -> Result<String, String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|error| error.to_string())?;
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is no file".to_owned());
    }
    if meta.uid() != geteuid().as_raw() {
        return Err("it belongs to somebody else".to_owned());
    }
    if meta.mode() & 0o077 != 0 {
        return Err(format!("others may use it (mode {:o}); it needs 600 or 400", meta.mode() & 0o777));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|_| "it is not text".to_owned())?;
    if text.len() as u64 > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    // Editors end a file with a line's end, which is no part of a secret.
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_files_that_are_the_users_alone_are_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("credential/hub/password", "w0rd-of-hub\n", 0o600);
        write("env/MAD_SECRETS_X", "of the environment", 0o400);
        write("env/open", "s3en-by-all", 0o644);
        write("env/empty", "", 0o600);
        write("env/.hidden", "h1dden", 0o600);
        write("a/b/c/d/e", "d33p", 0o600);
        symlink(directory.path().join("env/MAD_SECRETS_X"), directory.path().join("env/link")).unwrap();
        let (mut secrets, mut warnings) = (SecretStore::default(), Vec::new());
        secrets.add("credential/hub/password", "of credential.json");
        add_all(directory.path(), &mut secrets, &mut |warning| warnings.push(warning));
        assert_eq!(secrets.reveal("credential/hub/password"), Some("w0rd-of-hub"));
        assert_eq!(secrets.reveal("env/MAD_SECRETS_X"), Some("of the environment"));
        for name in ["env/open", "env/empty", "env/.hidden", "env/link", "a/b/c/d/e"] {
            assert_eq!(secrets.reveal(name), None, "{name}");
        }
        let said = warnings.join("\n");
        assert_eq!(warnings.len(), 4, "{said}");
        assert!(said.contains("env/open") && said.contains("mode 644") && !said.contains("s3en"), "{said}");
    }
}
