//! Copies a tree with its links followed, in two steps: look at everything and ask the gate for every file, then copy.
//!
//! A link may lead anywhere, so the place it leads to is what the gate is asked for. The copy never writes through a link.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maddock_bindings::api::types::ErrorKind;

use rustix::fs::Mode;

use super::Files;
use super::held::Held;
use super::place::failure;
use super::touch::{self, Durability};
use crate::capability::gate::{Call, Gate, Permit};
use crate::capability::{ApiError, error};

/// More than any tree of scripts has; links that multiply each other reach it soon.
const MOST_ENTRIES: usize = 1_000_000;

/// Links make a tree as deep as it has directories, and the walk goes down by calling itself.
const DEEPEST: usize = 128;

/// Tells the thread that copies when nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop {
    flag: Arc<AtomicBool>,
}

impl StopOnDrop {
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

fn go_on(stop: &AtomicBool) -> Result<(), ApiError> {
    if stop.load(Ordering::Relaxed) { Err(error(ErrorKind::Cancelled, "the copy was called off")) } else { Ok(()) }
}

enum Step {
    Directory { to: PathBuf, mode: u32 },
    File { from: PathBuf, to: PathBuf, mode: u32, read: Permit<Files> },
}

/// What a copy will do, in order.
pub(crate) struct Plan {
    steps: Vec<Step>,
    bytes: u64,
}

struct Walk<'a> {
    gate: &'a Gate,
    stop: &'a AtomicBool,
    plan: Plan,
    /// Directories that the walk is inside of, by device and number: one met again is a loop.
    inside: BTreeSet<(u64, u64)>,
}

/// Lists what is to be copied and asks for every file of it.
///
/// # Errors
/// A file that the gate refuses, a loop of links, or a source that cannot be read.
pub(crate) fn plan(
    _: &Permit<Files>,
    gate: &Gate,
    source: &Path,
    destination: &Path,
    stop: &AtomicBool,
) -> Result<Plan, ApiError> {
    if destination.starts_with(source) {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` lies in `{}` and cannot be its copy", destination.display(), source.display()),
        ));
    }
    let mut walk = Walk { gate, stop, plan: Plan { steps: Vec::new(), bytes: 0 }, inside: BTreeSet::new() };
    walk.visit(source, destination, &fs::metadata(source).map_err(|why| failure("read", source, &why))?)?;
    Ok(walk.plan)
}

impl Walk<'_> {
    fn visit(&mut self, from: &Path, to: &Path, meta: &fs::Metadata) -> Result<(), ApiError> {
        go_on(self.stop)?;
        if self.plan.steps.len() >= MOST_ENTRIES {
            return Err(error(
                ErrorKind::Failed,
                format!("`{}` is the {MOST_ENTRIES}th entry, too many to copy", from.display()),
            ));
        }
        if meta.is_dir() {
            self.visit_directory(from, to, meta)
        } else if meta.is_file() {
            let read = self.gate.permit(Call::<Files>::new("read").on("path", from.to_string_lossy()))?;
            self.plan.bytes = self.plan.bytes.saturating_add(meta.len());
            let mode = meta.permissions().mode() & 0o777;
            self.plan.steps.push(Step::File { from: from.to_owned(), to: to.to_owned(), mode, read });
            Ok(())
        } else {
            // A socket or pipe that some program left in the tree has no content to copy.
            Ok(())
        }
    }

    fn visit_directory(&mut self, from: &Path, to: &Path, meta: &fs::Metadata) -> Result<(), ApiError> {
        if self.inside.len() >= DEEPEST {
            return Err(error(ErrorKind::Failed, format!("`{}` lies more than {DEEPEST} levels deep", from.display())));
        }
        let identity = (meta.dev(), meta.ino());
        if !self.inside.insert(identity) {
            return Err(error(
                ErrorKind::InvalidInput,
                format!("a link below leads back to `{}`: it would never end", from.display()),
            ));
        }
        self.plan.steps.push(Step::Directory { to: to.to_owned(), mode: meta.permissions().mode() & 0o777 });
        let mut names = Held::reach(from)
            .and_then(|held| held.directory()?.entries())
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|why| failure("list", from, &why))?;
        names.sort();
        for name in names {
            let below = from.join(&name);
            let resolved = match below.canonicalize() {
                Ok(resolved) => resolved,
                // Dangling.
                Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(why) => return Err(failure("read", &below, &why)),
            };
            let meta = fs::metadata(&resolved).map_err(|why| failure("read", &below, &why))?;
            self.visit(&resolved, &to.join(&name), &meta)?;
        }
        self.inside.remove(&identity);
        Ok(())
    }
}

impl Plan {
    /// In all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies.
    ///
    /// # Errors
    /// The first thing that did not work; what was copied before stays.
    pub(crate) fn carry_out(self, write: &Permit<Files>, stop: &AtomicBool) -> Result<(), ApiError> {
        let mut made = Vec::new();
        for step in self.steps {
            go_on(stop)?;
            match step {
                Step::Directory { to, mode } => {
                    if make(write, &to)? {
                        made.push((to, mode));
                    }
                }
                Step::File { from, to, mode, read } => {
                    let answer = copy_file(&read, write, &from, &to, mode);
                    read.finish(answer)?;
                }
            }
        }
        // Innermost first and last of all: a directory that may not be written to must be full by then.
        for (to, mode) in made.into_iter().rev() {
            Held::reach(&to)
                .and_then(|held| held.set_directory_mode(Mode::from_bits_truncate(mode)))
                .map_err(|why| failure("set the mode of", &to, &why))?;
        }
        Ok(())
    }
}

/// Whether the directory is new.
fn make(_: &Permit<Files>, path: &Path) -> Result<bool, ApiError> {
    match Held::reach(path).and_then(|held| held.metadata()) {
        Ok(meta) if meta.is_dir() => Ok(false),
        Ok(_) => Err(error(ErrorKind::Conflict, format!("`{}` is there and is not a directory", path.display()))),
        Err(_) => touch::make(path),
    }
}

fn copy_file(read: &Permit<Files>, _: &Permit<Files>, from: &Path, to: &Path, mode: u32) -> Result<(), ApiError> {
    let mut source = touch::open(read, from)?;
    let to = touch::making(to)?;
    touch::put(&to, |file| io::copy(&mut source, file).map(|_| ()), Some(mode), Durability::Cached)
}
