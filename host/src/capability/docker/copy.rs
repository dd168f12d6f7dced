//! Copying out of a container: its archive is unpacked below a directory of the run, and nowhere else.
//!
//! What is in the archive was written by the job and is not trusted: an entry that would land outside, a link that points
//! outside, or a way that leads through a link, ends the copy.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard::query_parameters::DownloadFromContainerOptions;
use futures_util::{StreamExt, TryStreamExt};
use maddock_bindings::api::types::ErrorKind;
use tar::EntryType;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::engine::Engine;
use crate::capability::files::place;
use crate::capability::{ApiError, error};

pub(in crate::capability) fn refused(message: impl Into<String>) -> ApiError {
    error(ErrorKind::Denied, message)
}

pub(in crate::capability) fn broken(doing: &str, cause: &io::Error) -> ApiError {
    error(ErrorKind::Failed, format!("{doing}: {cause}"))
}

/// A directory to copy to as the gate is to be asked about it: where it is or will be, links followed; as it is written where that
/// cannot be told.
pub(in crate::capability) fn judged(wanted: &str) -> String {
    let place = place::parse(wanted).and_then(|path| place::existing(&path));
    place.map_or_else(|_| wanted.to_owned(), |place| place.path().to_string_lossy().into_owned())
}

/// The directory of a place as the gate was asked about it, made if needed; it must be below the run's own directory.
pub(in crate::capability) fn destination(run: &Path, wanted: &str) -> Result<PathBuf, ApiError> {
    let outside = || refused(format!("`{}` is not a directory below this run's own", wanted.escape_debug()));
    let path = Path::new(wanted);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if run.as_os_str().is_empty() || !path.is_absolute() || !plain {
        return Err(outside());
    }
    let run =
        run.canonicalize().map_err(|cause| broken(&format!("the run's directory `{}`", run.display()), &cause))?;
    // What exists of the way is followed to where it really is; only what does not exist yet is made.
    let mut existing = path;
    let mut missing = Vec::new();
    while existing.symlink_metadata().is_err() {
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return Err(outside()) };
        missing.push(name);
        existing = parent;
    }
    let mut real = existing.canonicalize().map_err(|cause| broken(&format!("`{}`", existing.display()), &cause))?;
    if !real.starts_with(&run) {
        return Err(outside());
    }
    // The gate was asked about a place without links: one that is met now was put there since.
    if real != existing {
        return Err(refused(format!("a link has come into the way to `{}`", wanted.escape_debug())));
    }
    real.extend(missing.into_iter().rev());
    fs::create_dir_all(&real)
        .map_err(|cause| broken(&format!("cannot make directory `{}`", real.display()), &cause))?;
    Ok(real)
}

/// Copies a file or tree; answers how many bytes came. `most` bounds them.
pub(super) async fn copy_out(
    engine: &Engine,
    id: &str,
    path: &str,
    destination: PathBuf,
    most: u64,
) -> Result<u64, ApiError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` is not an absolute path in the container", path.escape_debug()),
        ));
    }
    let doing = format!("cannot copy `{path}` out of container `{id}`");
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut stream = Box::pin(engine.client().download_from_container(id, Some(options)));
    let first = match stream.next().await {
        Some(piece) => piece.map_err(|cause| engine.failed(&doing, &cause))?,
        None => return Err(error(ErrorKind::Failed, format!("{doing}: the engine sent nothing"))),
    };
    let came = Arc::new(AtomicU64::new(0));
    let counter = came.clone();
    let pieces = futures_util::stream::iter([Ok(first)]).chain(stream.map_err(io::Error::other)).map(move |piece| {
        let piece = piece?;
        let so_far = counter.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        if so_far > most {
            Err(io::Error::other(format!("it is larger than {most} bytes, the ceiling of one call")))
        } else {
            Ok(piece)
        }
    });
    let reader = SyncIoBridge::new(StreamReader::new(Box::pin(pieces)));
    let unpacked = tokio::task::spawn_blocking(move || unpack(reader, &destination)).await;
    match unpacked {
        Ok(answer) => answer.map_err(|cause| ApiError { message: format!("{doing}: {}", cause.message), ..cause })?,
        Err(_) => return Err(error(ErrorKind::Failed, format!("{doing}: it was ended half-way"))),
    }
    Ok(came.load(Ordering::Relaxed))
}

/// Unpacks an archive below a directory.
fn unpack(reader: impl Read, root: &Path) -> Result<(), ApiError> {
    let mut archive = tar::Archive::new(reader);
    let unreadable = |cause: io::Error| broken("the archive cannot be read", &cause);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let inside = below(&path)?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let place = root.join(&inside);
        let failed = |cause: io::Error| broken(&format!("cannot write `{}`", place.display()), &cause);
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                make_way(root, &inside)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(mode | 0o700)).map_err(failed)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_room(root, &inside)?;
                // `create_new` follows no link, whoever put one there meanwhile.
                let mut file =
                    fs::File::options().write(true).create_new(true).mode(mode | 0o600).open(&place).map_err(failed)?;
                io::copy(&mut entry, &mut file).map_err(failed)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(unreadable)?.unwrap_or_default().into_owned();
                stays_inside(&inside, &target)?;
                make_room(root, &inside)?;
                std::os::unix::fs::symlink(&target, &place).map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(unreadable)?.unwrap_or_default().into_owned();
                let target = below(&target)?;
                make_room(root, &inside)?;
                solid(root, target.parent().unwrap_or(Path::new("")))?;
                fs::hard_link(root.join(target), &place).map_err(failed)?;
            }
            // Devices, pipes: nothing that a result consists of.
            _ => {}
        }
    }
    Ok(())
}

/// A path without anything that leads up or to the root.
pub(in crate::capability) fn below(path: &Path) -> Result<PathBuf, ApiError> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            _ => return Err(refused(format!("entry `{}` leads out of the destination", path.display()))),
        }
    }
    Ok(inside)
}

/// Whether a link at a place points to something below the same root.
fn stays_inside(place: &Path, target: &Path) -> Result<(), ApiError> {
    let outside =
        || refused(format!("link `{}` points to `{}`, out of the destination", place.display(), target.display()));
    let mut depth = place.components().count().saturating_sub(1);
    if target.as_os_str().is_empty() {
        return Err(outside());
    }
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(outside)?,
            _ => return Err(outside()),
        }
    }
    Ok(())
}

/// Checks that a way consists of real directories: through a link it could lead anywhere.
pub(in crate::capability) fn solid(root: &Path, way: &Path) -> Result<(), ApiError> {
    let mut place = root.to_owned();
    for part in way.components() {
        place.push(part);
        match place.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(refused(format!(
                    "the way to an entry leads through `{}`, which is not a directory",
                    place.display()
                )));
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(broken(&format!("`{}`", place.display()), &cause)),
        }
    }
    Ok(())
}

pub(in crate::capability) fn make_way(root: &Path, way: &Path) -> Result<(), ApiError> {
    solid(root, way)?;
    let place = root.join(way);
    fs::create_dir_all(&place).map_err(|cause| broken(&format!("cannot make directory `{}`", place.display()), &cause))
}

/// Makes the way to a file, and takes away what is in its place.
pub(in crate::capability) fn make_room(root: &Path, inside: &Path) -> Result<(), ApiError> {
    make_way(root, inside.parent().unwrap_or(Path::new("")))?;
    let place = root.join(inside);
    match fs::remove_file(&place) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(broken(&format!("cannot replace `{}`", place.display()), &cause))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4755);
        header
    }

    /// Writes the name as it is: the library would refuse a hostile one.
    fn raw(header: &mut tar::Header, name: &str) {
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
    }

    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let linked = matches!(kind, EntryType::Symlink | EntryType::Link);
            let mut header = header(*kind, if linked { 0 } else { content.len() as u64 });
            if linked {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            raw(&mut header, name);
            let body = if linked { b"".as_slice() } else { content.as_bytes() };
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(entries: &[(EntryType, &str, &str)]) -> (tempfile::TempDir, Result<(), ApiError>) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("in");
        fs::create_dir(&root).unwrap();
        let answer = unpack(archive(entries).as_slice(), &root);
        (outer, answer)
    }

    use EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn a_tree_is_unpacked_with_its_links_and_without_special_rights() {
        let (outer, answer) = unpacked(&[
            (Directory, "d/", ""),
            (Regular, "d/f", "text"),
            (Symlink, "d/l", "../d/f"),
            (Link, "h", "d/f"),
            (Regular, "new/way/g", "x"),
        ]);
        answer.unwrap();
        let root = outer.path().join("in");
        assert_eq!(fs::read_to_string(root.join("d/l")).unwrap(), "text");
        assert_eq!(fs::read_to_string(root.join("h")).unwrap(), "text");
        assert_eq!(fs::read_to_string(root.join("new/way/g")).unwrap(), "x");
        assert_eq!(fs::metadata(root.join("d/f")).unwrap().permissions().mode() & 0o7000, 0);
    }

    #[test]
    fn what_would_leave_the_destination_is_refused() {
        let hostile: &[&[(EntryType, &str, &str)]] = &[
            &[(Regular, "../escaped", "x")],
            &[(Regular, "a/../../escaped", "x")],
            &[(Regular, "/tmp/maddock-escaped", "x")],
            &[(Symlink, "l", "/etc")],
            &[(Symlink, "l", "..")],
            &[(Symlink, "a/l", "../../escaped")],
            &[(Link, "l", "../escaped")],
            &[(Link, "l", "/etc/passwd")],
            &[(Directory, "../escaped/", "")],
        ];
        for entries in hostile {
            let (outer, answer) = unpacked(entries);
            let error = answer.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Denied), "{entries:?}: {error:?}");
            let there: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(there, ["in"], "{entries:?}");
        }
    }

    #[test]
    fn no_way_leads_through_a_link() {
        // Each link alone stays inside; together they would climb out.
        let (outer, answer) =
            unpacked(&[(Symlink, "s", "."), (Symlink, "s/s/s/l", "../../.."), (Regular, "l/escaped", "x")]);
        assert!(matches!(answer.unwrap_err().kind, ErrorKind::Denied));
        assert!(!outer.path().join("escaped").exists());
    }

    #[test]
    fn a_link_that_lies_in_the_place_of_a_file_is_replaced_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("in");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("precious"), "mine").unwrap();
        std::os::unix::fs::symlink("../precious", root.join("f")).unwrap();
        unpack(archive(&[(Regular, "f", "job's")]).as_slice(), &root).unwrap();
        assert_eq!(fs::read_to_string(outer.path().join("precious")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "job's");
    }

    #[test]
    fn a_destination_is_below_the_run_whatever_links_say() {
        let outer = tempfile::tempdir().unwrap();
        let run = outer.path().canonicalize().unwrap().join("run");
        fs::create_dir(&run).unwrap();
        std::os::unix::fs::symlink("/tmp", run.join("out")).unwrap();
        fs::create_dir(run.join("resume")).unwrap();
        std::os::unix::fs::symlink("resume", run.join("jobs")).unwrap();
        assert_eq!(judged(&run.join("jobs/./x").display().to_string()), run.join("resume/x").display().to_string());
        assert!(
            destination(&run, &run.join("jobs/x").display().to_string()).is_err(),
            "a link since the gate was asked"
        );
        let at = |path: PathBuf| destination(&run, &path.display().to_string());
        assert_eq!(at(run.join("a/b")).unwrap(), run.join("a/b"));
        for wrong in [run.join("out/x"), run.join("../x"), outer.path().join("run2"), "/".into(), "relative".into()] {
            assert!(at(wrong.clone()).is_err(), "{wrong:?}");
        }
        assert!(destination(Path::new(""), "/tmp/x").is_err());
    }
}
