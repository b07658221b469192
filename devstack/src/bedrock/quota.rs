//! `Quota`: requests a minute, as a bucket that fills continuously or as a count of the last minute.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// How a minute's worth is counted. AWS does not say how it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum QuotaCount {
    /// A bucket with one minute's worth that fills continuously: after an idle minute, nearly two in the next.
    #[default]
    Bucket,
    /// No minute has more, wherever it begins: the strictest reading.
    LastMinute,
}

/// What is left to ask for. It starts with one minute's worth.
#[derive(Debug)]
pub(crate) struct Quota {
    per_minute: NonZeroU32,
    left: Mutex<Left>,
}

#[derive(Debug)]
enum Left {
    Bucket { tokens: f64, filled_at: Instant },
    LastMinute { granted: VecDeque<Instant> },
}

impl Quota {
    pub(crate) fn new(per_minute: NonZeroU32, count: QuotaCount, now: Instant) -> Self {
        let left = match count {
            QuotaCount::Bucket => Left::Bucket { tokens: f64::from(per_minute.get()), filled_at: now },
            QuotaCount::LastMinute => Left::LastMinute { granted: VecDeque::new() },
        };
        Self { per_minute, left: Mutex::new(left) }
    }

    /// Asks for one request; false when there is none left.
    pub(crate) fn take(&self, now: Instant) -> bool {
        match &mut *self.left.lock().expect("nothing panics while it holds this lock") {
            Left::Bucket { tokens, filled_at } => {
                let per_minute = f64::from(self.per_minute.get());
                let waited = now.saturating_duration_since(*filled_at).as_secs_f64();
                *tokens = (*tokens + waited * per_minute / 60.0).min(per_minute);
                *filled_at = now;
                let granted = *tokens >= 1.0;
                if granted {
                    *tokens -= 1.0;
                }
                granted
            }
            Left::LastMinute { granted } => {
                while granted.front().is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE) {
                    granted.pop_front();
                }
                let grants = granted.len() < self.per_minute.get() as usize;
                if grants {
                    granted.push_back(now);
                }
                grants
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_at_once_then_the_rate() {
        let start = Instant::now();
        let quota = Quota::new(NonZeroU32::new(3).unwrap(), QuotaCount::Bucket, start);
        assert_eq!((0..5).filter(|_| quota.take(start)).count(), 3);
        assert!(!quota.take(start + Duration::from_secs(19)));
        assert!(quota.take(start + Duration::from_secs(21)));
        assert!(!quota.take(start + Duration::from_secs(22)));
        let hour_later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| quota.take(hour_later)).count(), 3);
    }

    #[test]
    fn no_minute_has_more_wherever_it_begins() {
        let start = Instant::now();
        let quota = Quota::new(NonZeroU32::new(3).unwrap(), QuotaCount::LastMinute, start);
        let at = |seconds| quota.take(start + Duration::from_secs(seconds));
        assert_eq!([0, 30, 59, 59].map(at), [true, true, true, false]);
        // What was refused is not counted.
        assert_eq!([60, 89, 90, 91, 119].map(at), [true, false, true, false, true]);
    }
}
