//! `Start`: when something was to begin and when it did, so that a stall is not left out of the latencies.
//!
//! Load that waits for the system measures the fewest requests when it is slowest: *coordinated omission* (Gil Tene, "How NOT
//! to Measure Latency"). Two remedies. In the open model arrivals are due by a schedule, and latency counts from the due time.
//! Closed users have no schedule: a latency longer than the user's usual pace stands for the requests that it kept the user
//! from making, which are added as `HdrHistogram` does (`recordValueWithExpectedInterval`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Paces remembered: enough for a median that one stall does not move.
const REMEMBERED: usize = 15;
/// Fewer say nothing about what is usual.
const NEEDED: usize = 3;

/// Begin of an iteration of a user.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// When it was due.
    pub due: Instant,
    /// When it began.
    pub began: Instant,
    /// How often this user does this, if it is usual for it; none in the open model.
    pub cadence: Option<Duration>,
}

/// One latency, and what is needed to judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the begin.
    pub measured: Duration,
    /// From the due time.
    pub judged: Duration,
    /// See [`Start::cadence`].
    pub cadence: Option<Duration>,
}

impl Start {
    /// An iteration of a closed user, due when it begins.
    #[must_use]
    pub fn now(cadence: Option<Duration>) -> Self {
        let now = Instant::now();
        Self { due: now, began: now, cadence }
    }

    /// A later step of the same iteration, due when the step before it has ended.
    #[must_use]
    pub fn step(self) -> Self {
        Self::now(self.cadence)
    }

    /// Returns the latency of what ends now.
    #[must_use]
    pub fn timing(self) -> Timing {
        self.timing_at(Instant::now())
    }

    fn timing_at(self, end: Instant) -> Timing {
        let since = |start| end.saturating_duration_since(start);
        Timing { measured: since(self.began), judged: since(self.due.min(self.began)), cadence: self.cadence }
    }

    /// Returns how late it began.
    #[must_use]
    pub fn delay(self) -> Duration {
        self.began.saturating_duration_since(self.due)
    }
}

impl Timing {
    /// A duration that somebody else measured: nothing to correct.
    #[must_use]
    pub fn of(measured: Duration) -> Self {
        Self { measured, judged: measured, cadence: None }
    }
}

/// How often a user does one thing: the median of the last paces between its begins.
#[derive(Debug, Clone, Default)]
pub struct Cadence {
    last: Option<Instant>,
    paces: VecDeque<Duration>,
}

impl Cadence {
    /// Notes that the user begins, and returns its usual pace once that is known.
    pub fn begins(&mut self, now: Instant) -> Option<Duration> {
        if let Some(last) = self.last.replace(now) {
            self.paces.push_back(now.saturating_duration_since(last));
            if self.paces.len() > REMEMBERED {
                self.paces.pop_front();
            }
        }
        if self.paces.len() < NEEDED {
            return None;
        }
        let mut sorted: Vec<Duration> = self.paces.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_arrival_is_judged_from_when_it_was_due() {
        let due = Instant::now();
        let began = due + Duration::from_secs(3);
        let start = Start { due, began, cadence: None };
        let timing = start.timing_at(began + Duration::from_secs(1));
        assert_eq!((timing.measured, timing.judged), (Duration::from_secs(1), Duration::from_secs(4)));
        assert_eq!(start.delay(), Duration::from_secs(3));
    }

    #[test]
    fn a_cadence_is_a_median_that_one_stall_does_not_move() {
        let mut cadence = Cadence::default();
        let mut now = Instant::now();
        let mut begin = |after: u64| {
            now += Duration::from_secs(after);
            cadence.begins(now)
        };
        assert_eq!([begin(0), begin(2), begin(2)], [None, None, None]);
        assert_eq!(begin(2), Some(Duration::from_secs(2)));
        assert_eq!(begin(60), Some(Duration::from_secs(2)));
        // Lasting change is followed.
        for _ in 0..REMEMBERED {
            begin(7);
        }
        assert_eq!(begin(7), Some(Duration::from_secs(7)));
    }
}
