//! The clocks that a plugin sees. They go on while it works and stand in its record, so that a plugin that looks at the time
//! sees the same time again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use super::Tape;

/// One look at a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// Nanoseconds since the call began.
    Monotonic(u64),
    /// Since 1970.
    Wall(Duration),
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Tape {
    fn read(&self, now: impl FnOnce() -> Reading) -> Reading {
        match self {
            Self::Off => now(),
            Self::Records(take) => take.look(now()),
            Self::Plays(playback) => playback.look(now()),
        }
    }
}

/// The clock that never goes back.
pub(crate) struct Monotonic {
    tape: Tape,
    began: Instant,
}

impl Monotonic {
    pub(crate) fn new(tape: Tape) -> Self {
        Self { tape, began: Instant::now() }
    }
}

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        match self.tape.read(|| Reading::Monotonic(nanoseconds(self.began.elapsed()))) {
            Reading::Monotonic(now) => now,
            Reading::Wall(now) => nanoseconds(now),
        }
    }
}

/// The time of day.
pub(crate) struct Wall(pub(crate) Tape);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let now = || Reading::Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        match self.0.read(now) {
            Reading::Wall(now) => now,
            Reading::Monotonic(now) => Duration::from_nanos(now),
        }
    }
}
