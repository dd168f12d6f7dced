//! The build context as a stream: a directory is packed while it is sent, however large, and never held in memory.
//!
//! Links are kept as links, also those that leave the directory: what they point to is never sent.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use maddock_bindings::api::types::ErrorKind;

use super::ignore::Ignore;
use crate::capability::{ApiError, error};

const IGNORE_FILE: &str = ".dockerignore";

/// The name under which a Dockerfile from elsewhere is sent. Always the same, so that the builder's cache holds.
const PRIVATE: &str = ".maddock.Dockerfile";

/// A directory that is about to be sent.
#[derive(Debug)]
pub(super) struct Context {
    directory: PathBuf,
    ignore: Ignore,
    /// Where the builder finds the Dockerfile in what is sent.
    pub(super) dockerfile: String,
    /// What the gate was asked about, and so what is sent, whatever the file has become.
    text: Vec<u8>,
    /// Whether it comes under a private name.
    foreign: bool,
}

impl Context {
    /// Looks at the directory, the Dockerfile and the ignore file. Both paths are real ones.
    pub(super) fn prepare(directory: &Path, dockerfile: &Path, text: Vec<u8>) -> Result<Self, ApiError> {
        let ignore = ignore_of(directory, dockerfile)?;
        let inside =
            dockerfile.strip_prefix(directory).ok().and_then(Path::to_str).filter(|path| !ignore.leaves_out(path));
        let (dockerfile, foreign) = match inside {
            Some(path) => (path.to_owned(), false),
            None => {
                let free = (0..).map(|n| if n == 0 { PRIVATE.to_owned() } else { format!("{PRIVATE}.{n}") });
                let name =
                    free.into_iter().find(|name| directory.join(name).symlink_metadata().is_err()).unwrap_or_default();
                (name, true)
            }
        };
        Ok(Self { directory: directory.to_owned(), ignore, dockerfile, text, foreign })
    }

    /// Writes the archive. Blocks.
    pub(super) fn pack(&self, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        archive.follow_symlinks(false);
        if self.foreign {
            let mut header = tar::Header::new_gnu();
            header.set_size(self.text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, &self.dockerfile, self.text.as_slice())?;
        }
        self.pack_directory(&mut archive, Path::new(""), &mut HashSet::new())?;
        archive.into_inner()?.flush()
    }

    fn pack_directory(
        &self,
        archive: &mut tar::Builder<impl Write>,
        inside: &Path,
        sent: &mut HashSet<PathBuf>,
    ) -> io::Result<()> {
        let mut names = fs::read_dir(self.directory.join(inside))
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|cause| naming(inside, &cause))?;
        // One order whatever the file system says: the builder's cache knows the context by its bytes.
        names.sort();
        for name in names {
            let path = inside.join(name);
            let found = self.directory.join(&path).symlink_metadata().map_err(|cause| naming(&path, &cause))?;
            let left_out = self.ignore.leaves_out(&path.to_string_lossy());
            if found.is_dir() {
                if !left_out {
                    self.way_to(archive, &path, sent)?;
                }
                if !left_out || self.ignore.may_take_back_below(&path.to_string_lossy()) {
                    self.pack_directory(archive, &path, sent)?;
                }
            } else if !left_out {
                self.way_to(archive, path.parent().unwrap_or(Path::new("")), sent)?;
                self.pack_file(archive, &path, &found).map_err(|cause| naming(&path, &cause))?;
            }
        }
        Ok(())
    }

    /// A directory and those above it, each once: above what was taken back they may not have been sent.
    fn way_to(
        &self,
        archive: &mut tar::Builder<impl Write>,
        path: &Path,
        sent: &mut HashSet<PathBuf>,
    ) -> io::Result<()> {
        if path.as_os_str().is_empty() || sent.contains(path) {
            return Ok(());
        }
        self.way_to(archive, path.parent().unwrap_or(Path::new("")), sent)?;
        let found = self.directory.join(path).symlink_metadata()?;
        let mut header = header_of(&found, tar::EntryType::Directory, 0);
        archive.append_data(&mut header, path, io::empty())?;
        sent.insert(path.to_owned());
        Ok(())
    }

    fn pack_file(&self, archive: &mut tar::Builder<impl Write>, path: &Path, found: &fs::Metadata) -> io::Result<()> {
        let real = self.directory.join(path);
        if !self.foreign && path == Path::new(&self.dockerfile) {
            let mut header = header_of(found, tar::EntryType::Regular, self.text.len() as u64);
            return archive.append_data(&mut header, path, self.text.as_slice());
        }
        if found.is_symlink() {
            let mut header = header_of(found, tar::EntryType::Symlink, 0);
            return archive.append_link(&mut header, path, fs::read_link(&real)?);
        }
        if found.file_type().is_fifo() {
            let mut header = header_of(found, tar::EntryType::Fifo, 0);
            return archive.append_data(&mut header, path, io::empty());
        }
        // Sockets and devices are nothing that a build could use.
        if !found.is_file() {
            return Ok(());
        }
        let file = File::open(&real)?;
        let size = found.len();
        let mut header = header_of(found, tar::EntryType::Regular, size);
        let mut counted = Counted { inner: file.take(size), left: size };
        archive.append_data(&mut header, path, &mut counted)?;
        if counted.left > 0 { Err(io::Error::other("it became shorter while it was read")) } else { Ok(()) }
    }
}

struct Counted<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Owner and group are root's, as the engine's own tools send them: who checked the tree out is no part of an image.
fn header_of(found: &fs::Metadata, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(found.permissions().mode() & 0o7777);
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or_default());
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn naming(path: &Path, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("`{}`: {cause}", path.display()))
}

fn unreadable(path: &Path, cause: &io::Error) -> ApiError {
    let kind = if cause.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Failed };
    error(kind, format!("cannot read `{}`: {cause}", path.display()))
}

/// The Dockerfile's own ignore file goes before the directory's.
fn ignore_of(directory: &Path, dockerfile: &Path) -> Result<Ignore, ApiError> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(IGNORE_FILE);
    for path in [PathBuf::from(own), directory.join(IGNORE_FILE)] {
        match fs::read_to_string(&path) {
            Ok(text) => {
                return Ignore::parse(&text)
                    .map_err(|wrong| error(ErrorKind::InvalidInput, format!("`{}`: {wrong}", path.display())));
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(unreadable(&path, &cause)),
        }
    }
    Ok(Ignore::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (directory, root)
    }

    /// Name → content, or `-> target`.
    fn packed(context: &Context) -> BTreeMap<String, String> {
        let mut bytes = Vec::new();
        context.pack(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut content = String::new();
                match entry.link_name().unwrap() {
                    Some(target) => content = format!("-> {}", target.display()),
                    None => {
                        entry.read_to_string(&mut content).unwrap();
                    }
                }
                (name, content)
            })
            .collect()
    }

    fn prepared(directory: &Path, dockerfile: &Path) -> Result<Context, ApiError> {
        Context::prepare(directory, dockerfile, fs::read(dockerfile).unwrap())
    }

    #[test]
    fn the_dockerfile_that_the_gate_saw_is_sent_whatever_it_has_become() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::write(root.join("Dockerfile"), "FROM seen\n").unwrap();
        let context = prepared(&root, &root.join("Dockerfile")).unwrap();
        fs::write(root.join("Dockerfile"), "FROM other\n").unwrap();
        assert_eq!(packed(&context)["Dockerfile"], "FROM seen\n");
    }

    #[test]
    fn a_dockerfile_in_the_directory_keeps_its_name() {
        let (_keep, root) = tree(&[("d/x.Dockerfile", "FROM a"), ("file", "f")]);
        let context = prepared(&root, &root.join("d/x.Dockerfile")).unwrap();
        assert_eq!(context.dockerfile, "d/x.Dockerfile");
        assert_eq!(packed(&context).into_keys().collect::<Vec<_>>(), ["d", "d/x.Dockerfile", "file"]);
    }

    #[test]
    fn a_dockerfile_from_elsewhere_or_an_ignored_one_comes_under_a_private_name() {
        let (_keep, root) =
            tree(&[("ctx/file", "f"), ("docker/Dockerfile", "FROM outside"), ("ctx/.maddock.Dockerfile", "taken")]);
        let context = prepared(&root.join("ctx"), &root.join("docker/Dockerfile")).unwrap();
        assert_eq!(context.dockerfile, ".maddock.Dockerfile.1");
        assert_eq!(packed(&context)[".maddock.Dockerfile.1"], "FROM outside");

        let (_keep, root) = tree(&[("Dockerfile", "FROM ignored"), (".dockerignore", "Dockerfile\n")]);
        let context = prepared(&root, &root.join("Dockerfile")).unwrap();
        assert_eq!(packed(&context).get(".maddock.Dockerfile").map(String::as_str), Some("FROM ignored"));
        assert!(!packed(&context).contains_key("Dockerfile"));
    }

    #[test]
    fn what_the_ignore_file_names_is_not_sent_and_its_exceptions_are() {
        let (_keep, root) = tree(&[
            ("Dockerfile", ""),
            ("big/data", ""),
            ("big/deep/keep", "k"),
            ("a.log", ""),
            (".dockerignore", "big\n*.log\n!big/deep/keep\n"),
        ]);
        let names: Vec<String> = packed(&prepared(&root, &root.join("Dockerfile")).unwrap()).into_keys().collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "big", "big/deep", "big/deep/keep"]);
    }

    #[test]
    fn a_dockerfile_s_own_ignore_file_goes_first() {
        let (_keep, root) = tree(&[
            ("x.Dockerfile", ""),
            ("x.Dockerfile.dockerignore", "a\n"),
            (".dockerignore", "b\n"),
            ("a", ""),
            ("b", ""),
        ]);
        let names = packed(&prepared(&root, &root.join("x.Dockerfile")).unwrap());
        assert!(names.contains_key("b") && !names.contains_key("a"));
    }

    #[test]
    fn links_are_sent_as_links_and_what_lies_outside_is_not() {
        let (_keep, root) = tree(&[("ctx/Dockerfile", ""), ("outside/secret", "s"), ("ctx/real/f", "")]);
        symlink("../outside", root.join("ctx/out")).unwrap();
        symlink("/etc/passwd", root.join("ctx/far")).unwrap();
        symlink("real", root.join("ctx/in")).unwrap();
        symlink(".", root.join("ctx/loop")).unwrap();
        let sent = packed(&prepared(&root.join("ctx"), &root.join("ctx/Dockerfile")).unwrap());
        assert_eq!((sent["out"].as_str(), sent["far"].as_str()), ("-> ../outside", "-> /etc/passwd"));
        assert_eq!((sent["in"].as_str(), sent["loop"].as_str()), ("-> real", "-> ."));
        assert!(!sent.keys().any(|name| name.contains("secret")));
    }

    #[test]
    fn names_of_any_length_are_sent() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(180));
        let (_keep, root) = tree(&[("Dockerfile", ""), (&long, "x")]);
        assert_eq!(packed(&prepared(&root, &root.join("Dockerfile")).unwrap())[&long], "x");
    }
}
