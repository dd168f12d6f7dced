//! Images as files: written where an image is, read where it is needed, for machines that share a file system and no
//! registry. What was read is the image that was written, by its id, or it is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::query_parameters::ImportImageOptions;
use futures_util::StreamExt;
use maddock_bindings::api::docker::ImageInfo;
use maddock_bindings::api::types::ErrorKind;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::engine::Engine;
use super::images;
use super::reference::Reference;
use crate::capability::files::place;
use crate::capability::{ApiError, error, error_with_hint};

/// Large images take long to be packed, and the engine answers when it is done.
const TRANSFER: Duration = Duration::from_secs(3600);
/// Between two tries to become the one that loads.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Where an archive is to be written: below the run's own directory.
pub(super) fn destination(run: &Path, wanted: &str) -> Result<PathBuf, ApiError> {
    let place = place::existing(&place::parse(wanted)?)?;
    if run.as_os_str().is_empty() || !place.path().starts_with(run) {
        return Err(error_with_hint(
            ErrorKind::Denied,
            format!("`{}` is not in the directory of this run", place.path().display()),
            "archives of images are written below the run's own directory",
        ));
    }
    Ok(place.path().to_owned())
}

/// Where an archive really is.
pub(super) fn source(path: &str) -> Result<PathBuf, ApiError> {
    Ok(place::existing(&place::parse(path)?)?.path().to_owned())
}

/// Writes an image to a file, which is there as a whole or not at all.
pub(super) async fn save(engine: &Engine, reference: &Reference, path: &Path) -> Result<ImageInfo, ApiError> {
    let info = images::inspect(engine, reference).await?;
    let doing = format!("cannot write image `{}` to `{}`", reference.as_str(), path.display());
    let broken = |cause: io::Error| error(ErrorKind::Failed, format!("{doing}: {cause}"));
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(broken)?;
    let file = tempfile::Builder::new().prefix(".maddock-").tempfile_in(directory).map_err(broken)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(broken)?);
    let client = engine.client_within(TRANSFER);
    let mut stream = Box::pin(client.export_image(reference.as_str()));
    let mut empty = true;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|cause| engine.failed(&doing, &cause))?;
        empty = false;
        writer.write_all(&piece).await.map_err(broken)?;
    }
    if empty {
        return Err(error(ErrorKind::Failed, format!("{doing}: the engine sent nothing")));
    }
    writer.flush().await.map_err(broken)?;
    // Another machine reads it next.
    writer.sync_data().await.map_err(broken)?;
    file.persist(path).map_err(|cause| broken(cause.error))?;
    Ok(info)
}

/// Gives the engine the image `id` out of an archive, unless it has it already.
pub(super) async fn load(engine: &Engine, path: &Path, id: &str) -> Result<ImageInfo, ApiError> {
    let wanted = Reference::parse(id)?;
    if !wanted.is_id() {
        return Err(error(ErrorKind::InvalidInput, format!("`{id}` is not an image's id")));
    }
    if let Some(info) = present(engine, &wanted).await? {
        return Ok(info);
    }
    // One at a time on a machine: whoever waited finds the image there.
    let _turn = turn().await?;
    if let Some(info) = present(engine, &wanted).await? {
        return Ok(info);
    }
    let doing = format!("cannot load the image archive `{}`", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|cause| {
        let kind = if cause.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Failed };
        error(kind, format!("{doing}: {cause}"))
    })?;
    let client = engine.client_within(TRANSFER);
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let mut told = Box::pin(client.import_image_stream(options, ReaderStream::with_capacity(file, PIECE), None));
    while let Some(line) = told.next().await {
        let line = line.map_err(|cause| engine.failed(&doing, &cause))?;
        if let Some(detail) = line.error_detail {
            return Err(error(ErrorKind::Failed, format!("{doing}: {}", detail.message.unwrap_or_default())));
        }
    }
    present(engine, &wanted).await?.ok_or_else(|| {
        error_with_hint(
            ErrorKind::Conflict,
            format!("{doing}: it does not hold the image `{id}`, or this engine knows it by another id"),
            "engines that store images in different ways give them different ids: use a registry",
        )
    })
}

async fn present(engine: &Engine, id: &Reference) -> Result<Option<ImageInfo>, ApiError> {
    match images::inspect(engine, id).await {
        Ok(info) => Ok(Some(info)),
        Err(cause) if matches!(cause.kind, ErrorKind::NotFound) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Waits to be the only one of this user on this machine that loads an archive. A lock beside the archive would hold other
/// machines up as well.
async fn turn() -> Result<File, ApiError> {
    let user = geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("maddock-load-{user}.lock"));
    let cannot = |cause: io::Error| error(ErrorKind::Failed, format!("cannot lock `{}`: {cause}", path.display()));
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path)
        .map_err(cannot)?;
    if file.metadata().map_err(cannot)?.uid() != user {
        return Err(error(ErrorKind::Conflict, format!("`{}` belongs to somebody else", path.display())));
    }
    let deadline = Instant::now() + TRANSFER;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Err(cause) => return Err(cannot(cause.into())),
        }
    }
}
