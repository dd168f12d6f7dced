//! How long a call has been on the processor.
//!
//! The clock is the thread's own: it stands still while the plugin waits in a host call and while others have the processor,
//! so a busy machine neither ends a call early nor lets a runaway go on. A call moves between threads, but one poll of it does
//! not.
//!
//! A call that computes is interrupted at every tick so that others get their turn. What the executor takes for that is the
//! call's own doing and counts as well, or a long limit would be overstepped by a little at each of its many ticks.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time on the processor of one call.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls that are over.
    before: AtomicU64,
    /// The thread's clock where the poll that goes on began.
    since: AtomicU64,
    /// Whether the poll that was last ended at a tick.
    interrupted: AtomicBool,
}

/// The most that counts for one interruption: more than that was somebody else's turn. A twentieth of a tick.
const TURN: u64 = 500_000;

pub(super) fn thread_clock() -> u64 {
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

    /// Says that the poll that goes on will end because of a tick, and not because the call waits.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// The call, with its time told to this meter.
    pub(super) async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let mut left = None;
        std::future::poll_fn(|context| {
            let (began, thread) = (thread_clock(), std::thread::current().id());
            // Clocks of two threads cannot be compared.
            if let Some((ended, same)) = left
                && same == thread
                && self.interrupted.swap(false, Ordering::Relaxed)
            {
                self.before.fetch_add(began.saturating_sub(ended).min(TURN), Ordering::Relaxed);
            }
            self.since.store(began, Ordering::Relaxed);
            let polled = call.as_mut().poll(context);
            let ended = thread_clock();
            self.before.fetch_add(ended.saturating_sub(began), Ordering::Relaxed);
            left = Some((ended, thread));
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
    async fn an_interruption_counts_for_the_executor_and_not_for_whose_turn_it_is() {
        let meter = Meter::default();
        let call = async {
            for _ in 0..10 {
                meter.interrupt();
                tokio::task::yield_now().await;
            }
            meter.spent()
        };
        let others = async {
            for _ in 0..10 {
                burn(Duration::from_millis(20));
                tokio::task::yield_now().await;
            }
        };
        let (spent, ()) = tokio::join!(meter.measure(call), others);
        assert!(spent >= Duration::from_nanos(TURN), "{spent:?}");
        assert!(spent < Duration::from_millis(100), "200 ms were the others': {spent:?}");
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
