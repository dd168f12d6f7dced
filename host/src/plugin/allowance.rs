//! How much of something that adds up a call may use: as much as its ceiling in its first hour, and as much again in each
//! further one. A call that follows a job for weeks tells what the job prints, which is no runaway; one that uses all of it up at once is.

use std::time::{Duration, Instant};

/// How long a ceiling is for.
const HOUR: Duration = Duration::from_secs(3600);

/// What one call may use of one thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    ceiling: u64,
    began: Instant,
}

impl Allowance {
    /// From now on.
    pub(crate) fn new(ceiling: u64) -> Self {
        Self { ceiling, began: Instant::now() }
    }

    /// For each hour.
    pub(crate) fn ceiling(self) -> u64 {
        self.ceiling
    }

    /// Whether so much in all is more than the call may have used by now.
    pub(crate) fn is_exceeded_by(self, used: u64) -> bool {
        used > self.ceiling && used > self.after(self.began.elapsed())
    }

    fn after(self, time: Duration) -> u64 {
        let hours = time.as_secs() / HOUR.as_secs();
        self.ceiling.saturating_mul(hours.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_allows_as_much_again_and_nothing_before_it() {
        let allowance = Allowance::new(10);
        assert!(!allowance.is_exceeded_by(10) && allowance.is_exceeded_by(11));
        assert_eq!(allowance.after(HOUR - Duration::from_secs(1)), 10);
        assert_eq!(allowance.after(HOUR), 20);
        assert_eq!(allowance.after(HOUR * 24), 250);
        assert_eq!(Allowance::new(u64::MAX).after(HOUR * 2), u64::MAX);
    }
}
