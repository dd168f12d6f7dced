//! What ties launched programs to this process, and how it is let go.
//!
//! A program is launched on a lifeline: should this process die, it ends. Only when everything that a later process needs is
//! on disk does the kernel let go, so that nothing ever runs on that nobody could find.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;

use super::supervise::LET_GO;

/// Writing one byte into a pipe that somebody reads takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for a lifeline to be let go, and is answered when it is.
type LetGo = oneshot::Sender<oneshot::Sender<()>>;

/// The lifelines of an invocation. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Lifelines {
    held: Arc<Mutex<Vec<(String, LetGo)>>>,
    at_once: bool,
}

impl Lifelines {
    /// Lifelines that are let go as soon as their program runs: for those who keep the handle themselves.
    #[must_use]
    pub fn let_go_at_once() -> Self {
        Self { at_once: true, ..Self::default() }
    }

    pub(super) fn at_once(&self) -> bool {
        self.at_once
    }

    /// Holds a lifeline for a job until its supervisor has ended, and waits for that. The end of the runtime drops the task,
    /// and the end of the process closes the pipe: either way the program ends, unless it was let go.
    pub(super) fn hold(&self, job: &str, mut child: Child, mut lifeline: ChildStdin) {
        let (sender, receiver) = oneshot::channel::<oneshot::Sender<()>>();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push((job.to_owned(), sender));
        tokio::spawn(async move {
            tokio::select! {
                _ = child.wait() => return,
                asked = receiver => {
                    if let Ok(done) = asked {
                        // A supervisor that reads no more has ended; there is nothing to let go.
                        let _ = lifeline.write_all(&[LET_GO]).await;
                        let _ = lifeline.flush().await;
                        let _ = done.send(());
                    }
                }
            }
            let _ = child.wait().await;
            drop(lifeline);
        });
    }

    /// From now on the programs of a job live on without this process.
    pub async fn let_go(&self, job: &str) {
        let asked: Vec<LetGo> = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let (mine, others) = held.drain(..).partition(|(of, _)| of == job);
            *held = others;
            mine.into_iter().map(|(_, sender)| sender).collect()
        };
        for ask in asked {
            let (done, wait) = oneshot::channel();
            if ask.send(done).is_ok() {
                let _ = tokio::time::timeout(PATIENCE, wait).await;
            }
        }
    }
}
