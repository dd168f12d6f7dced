//! How far a plugin that never ends gets beyond its ceiling, alone and on a machine that is busy with other work:
//! `cargo bench -p maddock --bench runaway`. The clock is that of the thread the plugin runs on. Nothing here asserts a time.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a benchmark that cannot run has nothing to say"
)]

#[path = "../tests/plugins/component.rs"]
mod component;
#[path = "../tests/plugins/place.rs"]
mod place;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use component::{launcher, launcher_that};
use place::{Place, topology};
use rustix::time::{ClockId, clock_gettime};

const FOREVER: &str = "(loop $again (br $again)) unreachable";
/// Fills all the memory that a call may have, in one instruction that looks at no clock.
const FILLS: &str = "(drop (memory.grow (i32.const 4000))) (loop $again
    (memory.fill (i32.const 65536) (i32.const 7) (i32.const 262000000)) (br $again)) unreachable";

fn thread_clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("a time"), u32::try_from(time.tv_nsec).expect("a time"))
}

/// Beyond the ceiling, on the processor: median and worst.
fn overshoot(plugin: &[u8], ceiling: Duration, times: usize) -> (Duration, Duration) {
    let place = Place::new();
    let plugin = place.load(plugin);
    // On a busy machine ten seconds on the processor may take minutes.
    let session = place.session_of(ceiling).within(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut samples: Vec<Duration> = (0..times)
        .map(|_| {
            let began = thread_clock();
            let _ = runtime.block_on(plugin.arrange(&session, &topology())).expect_err("it is ended");
            (thread_clock() - began).saturating_sub(ceiling)
        })
        .collect();
    samples.sort();
    (samples[samples.len() / 2], samples[samples.len() - 1])
}

fn busy<T>(threads: usize, body: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let answer = body();
        over.store(true, Ordering::Relaxed);
        answer
    })
}

fn main() {
    let began = Instant::now();
    let (loops, fills) = (launcher_that("looping", FOREVER), launcher("filling", "", "", FILLS));
    println!("{:<58} {:>10} {:>10}", "beyond the ceiling", "median", "worst");
    for (what, plugin, ceiling, others, times) in [
        ("loop, ceiling 0.2 s", &loops, Duration::from_millis(200), 0, 9),
        ("loop, ceiling 0.2 s, eight threads computing beside it", &loops, Duration::from_millis(200), 8, 9),
        ("loop, ceiling 10 s", &loops, Duration::from_secs(10), 0, 2),
        ("loop, ceiling 10 s, eight threads computing beside it", &loops, Duration::from_secs(10), 8, 1),
        ("250 MiB filled by one instruction, ceiling 0.2 s", &fills, Duration::from_millis(200), 0, 9),
    ] {
        let (median, worst) = busy(others, || overshoot(plugin, ceiling, times));
        println!("{what:<58} {:>7.1} ms {:>7.1} ms", median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
    }
    println!("measured in {:.0} s", began.elapsed().as_secs_f64());
}
