//! How long a call has been on the processor.
//!
//! The clock is the thread's own: it stands still while the plugin waits in a host call and while others have the processor,
//! so a busy machine neither ends a call early nor lets a runaway go on. A call moves between threads, but one poll of it does
//! not.
//!
//! A call that computes is interrupted at every tick so that others get their turn. What the executor takes for that is the
//! call's own doing and counts as well, or a long limit would be overstepped by a little at each of its many ticks.
//!
//! A call may follow a job for weeks and look after it at every second, which is no runaway although it adds up. So a call that
//! waits is given back a part of the time that it waited.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Time on the processor of one call.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls that are over, less what was given back.
    before: AtomicU64,
    /// The thread's clock where the poll that goes on began.
    since: AtomicU64,
    /// Whether the poll that was last ended at a tick.
    interrupted: AtomicBool,
}

/// The most that counts for one interruption: more than that was somebody else's turn. A twentieth of a tick.
const TURN: u64 = 500_000;
/// Of the time that a call waits, this part is given back: one that keeps to a twentieth of a processor may go on for ever.
const SHARE: u32 = 20;

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

    /// Gives back a part of the time that the call has waited. Nothing can be saved up: who has used nothing gets nothing.
    fn give_back(&self, waited: Duration) {
        let part = u64::try_from((waited / SHARE).as_nanos()).unwrap_or(u64::MAX);
        // One thread at a time polls the call, and nobody else writes this.
        let left = self.before.load(Ordering::Relaxed).saturating_sub(part);
        self.before.store(left, Ordering::Relaxed);
    }

    /// The call, with its time told to this meter.
    pub(super) async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        self.measure_by(Instant::now, call).await
    }

    /// The same by another clock on the wall.
    async fn measure_by<T>(&self, clock: impl Fn() -> Instant, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let mut left = None;
        std::future::poll_fn(|context| {
            let (began, thread) = (thread_clock(), std::thread::current().id());
            match left {
                None => {}
                Some((ended, same, _)) if self.interrupted.swap(false, Ordering::Relaxed) => {
                    // Clocks of two threads cannot be compared.
                    let turn = if same == thread { began.saturating_sub(ended).min(TURN) } else { 0 };
                    self.before.fetch_add(turn, Ordering::Relaxed);
                }
                Some((_, _, since)) => self.give_back(clock().saturating_duration_since(since)),
            }
            self.since.store(began, Ordering::Relaxed);
            let polled = call.as_mut().poll(context);
            let ended = thread_clock();
            self.before.fetch_add(ended.saturating_sub(began), Ordering::Relaxed);
            left = Some((ended, thread, clock()));
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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

    /// A clock on the wall that stands still but for what is waited.
    struct Wall {
        began: Instant,
        passed: Cell<Duration>,
        awaited: Cell<Duration>,
    }

    impl Wall {
        fn new() -> Self {
            Self { began: Instant::now(), passed: Cell::default(), awaited: Cell::default() }
        }

        async fn wait(&self, time: Duration) {
            self.awaited.set(time);
            tokio::task::yield_now().await;
        }

        /// A measured call by this clock, which goes on while the call waits.
        async fn measure<T>(&self, meter: &Meter, call: impl Future<Output = T>) -> T {
            let mut call = pin!(meter.measure_by(|| self.began + self.passed.get(), call));
            std::future::poll_fn(|context| {
                self.passed.set(self.passed.get() + self.awaited.take());
                call.as_mut().poll(context)
            })
            .await
        }
    }

    #[tokio::test]
    async fn who_waits_long_and_computes_little_may_go_on() {
        let (meter, wall) = (Meter::default(), Wall::new());
        let call = async {
            let mut most = Duration::ZERO;
            for _ in 0..20 {
                burn(Duration::from_millis(10));
                most = most.max(meter.spent());
                wall.wait(Duration::from_secs(10)).await;
            }
            most
        };
        let most = wall.measure(&meter, call).await;
        assert!(most >= Duration::from_millis(10), "{most:?}");
        assert!(most < Duration::from_millis(200), "200 ms in 200 s add up: {most:?}");
    }

    #[tokio::test]
    async fn a_wait_is_worth_a_part_of_itself_and_saves_nothing_up() {
        let (meter, wall) = (Meter::default(), Wall::new());
        let call = async {
            wall.wait(Duration::from_secs(1000)).await;
            burn(Duration::from_millis(40));
            assert!(meter.spent() >= Duration::from_millis(40), "nothing was saved up: {:?}", meter.spent());
            wall.wait(Duration::from_millis(200)).await;
            assert!(meter.spent() >= Duration::from_millis(30), "no more than 10 ms come back: {:?}", meter.spent());
        };
        wall.measure(&meter, call).await;
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
        // It waits for its turn, which gives back what it had used up before.
        assert!(spent >= Duration::from_millis(5), "{spent:?}");
        assert!(spent < Duration::from_millis(200), "{spent:?}");
    }
}
