//! What a task of the host tells a plugin piece by piece: bytes, then one end. The plugin pulls; batches are bounded.

use std::time::Duration;

use maddock_bindings::api::types::{ErrorKind, OutputStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::capability::{ApiError, error};

/// Bytes handed over at once.
pub(super) const BATCH: usize = 64 << 10;

/// Pieces that wait for a plugin that is busy; then the task waits.
const WAITING: usize = 64;

/// One thing that a task tells.
#[derive(Debug)]
pub(super) enum Told<T> {
    /// Bytes of one stream.
    Output(OutputStream, Vec<u8>),
    /// The end: once, last.
    Ended(Result<T, ApiError>),
}

/// What a plugin gets for a pull.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Bytes of one stream, as many as were there.
    Output(OutputStream, Vec<u8>),
    /// The end.
    Ended(T),
    /// Nothing within the time.
    Timeout,
}

/// The pulling side. Dropping it ends the tasks.
#[derive(Debug)]
pub(super) struct Feed<T> {
    told: mpsc::Receiver<Told<T>>,
    kept: Option<Told<T>>,
    over: bool,
    tasks: JoinSet<()>,
}

impl<T: Send + 'static> Feed<T> {
    /// A feed and the side that tells.
    pub(super) fn new() -> (Self, mpsc::Sender<Told<T>>) {
        let (sender, told) = mpsc::channel(WAITING);
        (Self { told, kept: None, over: false, tasks: JoinSet::new() }, sender)
    }

    /// Starts a task that lives no longer than the feed.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// The next batch or the end. Each end comes once; after it there is nothing to ask for.
    pub(super) async fn next(&mut self, limit: Duration) -> Result<Next<T>, ApiError> {
        if self.over {
            return Err(error(
                ErrorKind::InvalidInput,
                "the end has been told already: there is nothing more to follow",
            ));
        }
        let first = match self.kept.take() {
            Some(kept) => kept,
            None => match tokio::time::timeout(limit, self.told.recv()).await {
                Err(_) => return Ok(Next::Timeout),
                Ok(Some(told)) => told,
                Ok(None) => Told::Ended(Err(error(ErrorKind::Failed, "the host's follower ended without an answer"))),
            },
        };
        match first {
            Told::Ended(end) => {
                self.over = true;
                end.map(Next::Ended)
            }
            Told::Output(stream, bytes) => Ok(self.batch(stream, bytes)),
        }
    }

    fn batch(&mut self, stream: OutputStream, mut bytes: Vec<u8>) -> Next<T> {
        while bytes.len() < BATCH {
            match self.told.try_recv() {
                Ok(Told::Output(other, more)) if other == stream => bytes.extend(more),
                Ok(told) => {
                    self.kept = Some(told);
                    return Next::Output(stream, bytes);
                }
                Err(_) => return Next::Output(stream, bytes),
            }
        }
        if bytes.len() > BATCH {
            let rest = bytes.split_off(BATCH);
            self.kept = Some(Told::Output(stream, rest));
        }
        Next::Output(stream, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_are_bounded_ordered_and_never_mix_streams() {
        let (mut feed, tell) = Feed::<i32>::new();
        tell.send(Told::Output(OutputStream::Stdout, vec![b'a'; BATCH - 1])).await.unwrap();
        tell.send(Told::Output(OutputStream::Stdout, vec![b'b'; 3])).await.unwrap();
        tell.send(Told::Output(OutputStream::Stderr, vec![b'c'; 3])).await.unwrap();
        tell.send(Told::Ended(Ok(7))).await.unwrap();
        let second = Duration::from_secs(1);
        let Next::Output(OutputStream::Stdout, first) = feed.next(second).await.unwrap() else { panic!() };
        assert_eq!((first.len(), first.last()), (BATCH, Some(&b'b')));
        let Next::Output(OutputStream::Stdout, rest) = feed.next(second).await.unwrap() else { panic!() };
        assert_eq!(rest, b"bb");
        let Next::Output(OutputStream::Stderr, other) = feed.next(second).await.unwrap() else { panic!() };
        assert_eq!(other, b"ccc");
        assert!(matches!(feed.next(second).await.unwrap(), Next::Ended(7)));
        assert!(matches!(feed.next(second).await.unwrap_err().kind, ErrorKind::InvalidInput));
    }

    #[tokio::test]
    async fn nothing_within_the_time_is_a_timeout() {
        let (mut feed, _tell) = Feed::<i32>::new();
        assert!(matches!(feed.next(Duration::ZERO).await.unwrap(), Next::Timeout));
    }

    #[tokio::test]
    async fn dropping_a_feed_ends_its_tasks() {
        let (mut feed, tell) = Feed::<i32>::new();
        feed.spawn(std::future::pending());
        let held = tell.clone();
        feed.spawn(async move {
            held.closed().await;
            std::future::pending::<()>().await;
        });
        drop(feed);
        tell.closed().await;
    }
}
