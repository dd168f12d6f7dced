//! Runs a program in a container, and brings directories out of one.
//!
//! What comes out was written by the job and is not trusted: regular files and directories are taken, below the run's own
//! directory, and nothing that leads out of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess};
use maddock_bindings::api::kube::ExecAnswer;
use maddock_bindings::api::types::ErrorKind;
use tar::EntryType;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::SyncIoBridge;

use super::cluster::Client;
use super::trouble::ask;
use crate::capability::docker::copy::{below, broken, make_room, make_way, refused, solid};
use crate::capability::{ApiError, error};

/// A short program takes no longer.
const SHORT: Duration = Duration::from_secs(120);
/// For each of its two streams.
const MOST: u64 = 1 << 20;
/// Bytes on their way.
const BUFFER: usize = 256 << 10;
/// Bringing a directory takes no longer; the call of the plugin has a deadline of its own.
const LONG: Duration = Duration::from_secs(3600);

/// After the last word about a program its streams end by themselves, or else after so long.
const REST: Duration = Duration::from_secs(30);

/// The last word about a program; none where the connection broke before.
type LastWord = Shared<BoxFuture<'static, Option<Status>>>;

/// A program that runs in a container. Dropping it lets go of it.
struct Running {
    process: AttachedProcess,
    said: LastWord,
}

impl Running {
    fn stream(&self, stream: Option<impl AsyncRead + Send + Unpin + 'static>) -> Option<Ending> {
        let said = self.said.clone();
        let over = async move {
            if said.await.is_some() {
                tokio::time::sleep(REST).await;
            }
        };
        Some(Ending { stream: Box::new(stream?), over: over.boxed(), is_over: false })
    }

    fn stdout(&mut self) -> Option<Ending> {
        let stream = self.process.stdout();
        self.stream(stream)
    }

    fn stderr(&mut self) -> Option<Ending> {
        let stream = self.process.stderr();
        self.stream(stream)
    }
}

/// A stream that also ends where the connection does: the client's own would say nothing more, and never end.
struct Ending {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    over: BoxFuture<'static, ()>,
    is_over: bool,
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ending = &mut *self;
        if let read @ Poll::Ready(_) = Pin::new(&mut ending.stream).poll_read(context, buffer) {
            return read;
        }
        if !ending.is_over && ending.over.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        ending.is_over = true;
        // What came before the end, and after it was looked for.
        match Pin::new(&mut ending.stream).poll_read(context, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

async fn start(client: &Client, pod: &str, container: &str, command: &[String]) -> Result<Running, ApiError> {
    let api: Api<Pod> = Api::namespaced(client.api.clone(), &client.place.namespace);
    let parameters = AttachParams {
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
        ..AttachParams::default().container(container)
    };
    let doing = format!("cannot run a program in pod `{pod}`");
    let mut process = ask(&doing, api.exec(pod, command, &parameters)).await?;
    let said = match process.take_status() {
        Some(status) => status.boxed(),
        None => std::future::ready(None).boxed(),
    };
    Ok(Running { process, said: said.shared() })
}

/// Reads a stream to its end, and keeps what is allowed of it.
async fn gather(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(stream) = stream {
        let mut first = stream.take(MOST);
        // What was read before a connection broke is what there is; its end is told by the status.
        let _ = first.read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await;
    }
    kept
}

/// The exit code in the last word of the server about a program; none where it has not said any.
fn code(pod: &str, status: Option<Status>) -> Result<i32, ApiError> {
    let status = status.ok_or_else(|| lost(pod))?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()).and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(error(
            ErrorKind::Failed,
            format!(
                "cannot run a program in pod `{pod}`: {}",
                crate::capability::events::printable(&status.message.unwrap_or_default())
            ),
        )),
    }
}

fn lost(pod: &str) -> ApiError {
    error(ErrorKind::Unavailable, format!("the connection to the program in pod `{pod}` broke before it had ended"))
}

/// Runs a short program.
pub(super) async fn run(
    client: &Client,
    pod: &str,
    container: &str,
    command: &[String],
) -> Result<ExecAnswer, ApiError> {
    let mut process = start(client, pod, container, command).await?;
    let (stdout, stderr, said) = (process.stdout(), process.stderr(), process.said.clone());
    let work = async { tokio::join!(gather(stdout), gather(stderr), said) };
    match tokio::time::timeout(SHORT, work).await {
        Ok((stdout, stderr, status)) => Ok(ExecAnswer { exit_code: code(pod, status)?, stdout, stderr }),
        Err(_) => Err(error(
            ErrorKind::TimedOut,
            format!("the program in pod `{pod}` did not end within {} s", SHORT.as_secs()),
        )),
    }
}

/// Brings a directory; answers the names of the files and how many bytes came.
pub(super) async fn copy_out(
    client: &Client,
    pod: &str,
    container: &str,
    directory: &str,
    destination: PathBuf,
    most: u64,
) -> Result<(Vec<String>, u64), ApiError> {
    if !directory.starts_with('/') || directory.contains('\0') {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` is not an absolute path in the container", directory.escape_debug()),
        ));
    }
    let doing = format!("cannot copy `{}` out of pod `{pod}`", directory.escape_debug());
    let command = ["tar", "-c", "-f", "-", "-C", directory, "."].map(str::to_owned);
    let mut process = start(client, pod, container, &command).await?;
    let status = process.said.clone();
    let (Some(stdout), stderr) = (process.stdout(), process.stderr()) else {
        return Err(error(ErrorKind::Failed, format!("{doing}: it has no output")));
    };
    let came = Arc::new(AtomicU64::new(0));
    let counter = came.clone();
    let bridge = SyncIoBridge::new(Box::pin(stdout));
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut counted = Counted { inner: bridge, came: counter, most };
        let unpacked = unpack(&mut counted, &destination);
        // What follows the archive's end is read as well: the program waits for it.
        let rest = io::copy(&mut counted, &mut io::sink());
        (unpacked, rest)
    });
    let work = async {
        let (unpacked, said) = tokio::join!(unpacking, gather(stderr));
        // Its last word tells an archive that is not one from a way that broke: whoever reads it sees the same of both.
        let status = match unpacked.as_ref().is_ok_and(|(_, rest)| rest.is_ok()) {
            true => Some(status.await),
            false => None,
        };
        (unpacked, said, status)
    };
    let (unpacked, said, status) = tokio::time::timeout(LONG, work)
        .await
        .map_err(|_| error(ErrorKind::TimedOut, format!("{doing}: it did not end within {} s", LONG.as_secs())))?;
    let ended = |cause: ApiError| ApiError { message: format!("{doing}: {}", cause.message), ..cause };
    let Ok((unpacked, rest)) = unpacked else {
        return Err(error(ErrorKind::Failed, format!("{doing}: it was ended half-way")));
    };
    let names = match (unpacked, &status) {
        (Err(_), Some(None)) => return Err(ended(lost(pod))),
        (unpacked, _) => unpacked.map_err(ended)?,
    };
    rest.map_err(|cause| broken(&doing, &cause))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    match code(pod, status.flatten())? {
        0 => {}
        // Files that grow while they are read are taken as they were.
        1 if said.contains("changed as we read it") => {}
        code => {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            let absent = last.contains("No such file") || last.contains("can't change directory");
            let kind = if absent { ErrorKind::NotFound } else { ErrorKind::Failed };
            let last = crate::capability::events::printable(last);
            return Err(error(kind, format!("{doing}: `tar` ended with code {code}: {last}")));
        }
    }
    Ok((names, came.load(Ordering::Relaxed)))
}

/// Counts what is read, up to a ceiling.
struct Counted<R> {
    inner: R,
    came: Arc<AtomicU64>,
    most: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let so_far = self.came.fetch_add(count as u64, Ordering::Relaxed).saturating_add(count as u64);
        if so_far > self.most {
            return Err(io::Error::other(format!("it is larger than {} bytes, the ceiling of one call", self.most)));
        }
        Ok(count)
    }
}

/// Unpacks an archive below a directory: files and directories.
fn unpack(reader: impl Read, root: &Path) -> Result<Vec<String>, ApiError> {
    let mut archive = tar::Archive::new(reader);
    let unreadable = |cause: io::Error| broken("the archive cannot be read", &cause);
    let mut names = BTreeSet::new();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let inside = below(&entry.path().map_err(unreadable)?)?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let name = inside.to_str().map(str::to_owned);
        let name = name.ok_or_else(|| refused(format!("the name of `{}` is not UTF-8", inside.display())))?;
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
                names.insert(name);
            }
            // A second name of a file that came before: it becomes a file of its own.
            EntryType::Link => {
                let target = below(&entry.link_name().map_err(unreadable)?.unwrap_or_default())?;
                if target.to_str().is_none_or(|target| !names.contains(target)) {
                    return Err(refused(format!("`{name}` is a link to `{}`, which did not come", target.display())));
                }
                make_room(root, &inside)?;
                solid(root, target.parent().unwrap_or(Path::new("")))?;
                fs::copy(root.join(target), &place).map_err(failed)?;
                names.insert(name);
            }
            // Links, devices, pipes: nothing that a result consists of.
            _ => {}
        }
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_stream_whose_connection_breaks_ends_after_what_has_come() {
        // As the client makes them: half of it that is dropped says nothing to the other.
        let (stream, mut writer) = tokio::io::simplex(1024);
        let (word, said) = tokio::sync::oneshot::channel::<()>();
        let over = async move {
            let _ = said.await;
        };
        let mut ending = Ending { stream: Box::new(stream), over: over.boxed(), is_over: false };
        writer.write_all(b"what has ").await.unwrap();
        let reading = tokio::spawn(async move {
            let mut text = String::new();
            ending.read_to_string(&mut text).await.map(|_| text)
        });
        writer.write_all(b"come").await.unwrap();
        drop((writer, word));
        let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert_eq!(read.unwrap().unwrap().unwrap(), "what has come");
    }
}
