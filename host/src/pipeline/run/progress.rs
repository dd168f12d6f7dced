//! How far launching is: for a process that may go once everything that can run does.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

#[derive(Debug, Clone, Default)]
struct Jobs {
    total: usize,
    room: usize,
    entered: usize,
    /// Neither over nor left.
    inside: BTreeSet<String>,
    launched: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

impl Jobs {
    /// Something runs, and nothing else can before it ends.
    fn settled(&self) -> bool {
        let full = self.entered == self.total || self.inside.len() >= self.room;
        !self.launched.is_empty() && full && self.inside.len() <= self.launched.len() + self.waiting.len()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Progress {
    jobs: watch::Sender<Jobs>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { jobs: watch::channel(Jobs::default()).0 }
    }
}

/// A job that waits for devices, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    progress: Arc<Progress>,
    job: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.progress.jobs.send_modify(|jobs| {
            jobs.waiting.remove(&self.job);
        });
    }
}

impl Progress {
    pub(super) fn begin(&self, total: usize, room: usize) {
        self.jobs.send_modify(|jobs| (jobs.total, jobs.room) = (total, room));
    }

    pub(super) fn entered(&self, job: &str) {
        self.jobs.send_modify(|jobs| {
            jobs.entered += 1;
            jobs.inside.insert(job.to_owned());
        });
    }

    pub(super) fn waiting(self: &Arc<Self>, job: &str) -> Waiting {
        self.jobs.send_modify(|jobs| {
            jobs.waiting.insert(job.to_owned());
        });
        Waiting { progress: self.clone(), job: job.to_owned() }
    }

    /// A job was launched, and everything about it is kept.
    pub fn launched(&self, job: &str) {
        self.jobs.send_modify(|jobs| {
            jobs.launched.insert(job.to_owned());
        });
    }

    /// A job that had entered has its verdict, or is left.
    pub(super) fn over(&self, job: &str) {
        self.jobs.send_modify(|jobs| {
            jobs.inside.remove(job);
            jobs.launched.remove(job);
        });
    }

    /// Waits until something runs and nothing else can before it ends. It may never be so.
    pub async fn settled(&self) {
        // The sender lives as long as this does.
        let _ = self.jobs.subscribe().wait_for(Jobs::settled).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(progress: &Progress) -> bool {
        progress.jobs.borrow().settled()
    }

    #[test]
    fn it_is_settled_when_all_that_can_run_does() {
        let progress = Arc::new(Progress::default());
        progress.begin(3, 2);
        progress.entered("a");
        progress.launched("a");
        assert!(!settled(&progress), "there is room for another one");
        progress.entered("b");
        assert!(!settled(&progress), "b is about to begin");
        let waiting = progress.waiting("b");
        assert!(settled(&progress), "b waits for what a has");
        drop(waiting);
        progress.over("a");
        assert!(!settled(&progress), "nothing runs");
        progress.launched("b");
        progress.entered("c");
        progress.over("c");
        assert!(settled(&progress), "all have entered, c failed");
        progress.over("b");
        assert!(!settled(&progress), "nothing runs any more");
    }
}
