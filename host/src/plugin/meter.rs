//! How long a call has been on the processor.
//!
//! The clock is the thread's own: it stands still while the plugin waits in a host call and while others have the processor,
//! so a busy machine neither ends a call early nor lets a runaway go on. A call moves between threads, but one poll of it does
//! not.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time on the processor of one call.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls that are over.
    before: AtomicU64,
    /// The thread's clock where the poll that goes on began.
    since: AtomicU64,
}

fn thread_clock() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000).saturating_add(nanoseconds.unwrap_or_default())
}

impl Meter {
    /// So far. To be asked from within the call.
    pub(super) fn spent(&self) -> Duration {
        let now = thread_clock().saturating_sub(self.since.load(Ordering::Relaxed));
        Duration::from_nanos(self.before.load(Ordering::Relaxed).saturating_add(now))
    }

    /// The call, with its time told to this meter.
    pub(super) async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            let began = thread_clock();
            self.since.store(began, Ordering::Relaxed);
            let polled = call.as_mut().poll(context);
            self.before.fetch_add(thread_clock().saturating_sub(began), Ordering::Relaxed);
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(time: Duration) {
        let began = thread_clock();
        while thread_clock() - began < u64::try_from(time.as_nanos()).unwrap() {}
    }

    #[tokio::test]
    async fn what_others_compute_meanwhile_is_not_counted() {
        let meter = Meter::default();
        let call = async {
            burn(Duration::from_millis(5));
            tokio::task::yield_now().await;
            burn(Duration::from_millis(5));
            meter.spent()
        };
        let (spent, ()) = tokio::join!(meter.measure(call), async { burn(Duration::from_millis(200)) });
        assert!(spent >= Duration::from_millis(10), "{spent:?}");
        assert!(spent < Duration::from_millis(200), "{spent:?}");
    }
}
