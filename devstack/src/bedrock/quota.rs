//! `Quota`: requests a minute, as a bucket that fills continuously.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Instant;

/// A token bucket. It starts full and holds one minute's worth.
#[derive(Debug)]
pub(crate) struct Quota {
    per_minute: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Quota {
    pub(crate) fn new(per_minute: NonZeroU32, now: Instant) -> Self {
        let per_minute = f64::from(per_minute.get());
        Self { per_minute, bucket: Mutex::new(Bucket { tokens: per_minute, filled_at: now }) }
    }

    /// Takes one request out of the bucket; false when it is empty.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().expect("nothing panics while it holds this lock");
        let waited = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + waited * self.per_minute / 60.0).min(self.per_minute);
        bucket.filled_at = now;
        let granted = bucket.tokens >= 1.0;
        if granted {
            bucket.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_minutes_worth_at_once_then_the_rate() {
        let start = Instant::now();
        let quota = Quota::new(NonZeroU32::new(3).unwrap(), start);
        assert_eq!((0..5).filter(|_| quota.take(start)).count(), 3);
        assert!(!quota.take(start + Duration::from_secs(19)));
        assert!(quota.take(start + Duration::from_secs(21)));
        assert!(!quota.take(start + Duration::from_secs(22)));
        let hour_later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| quota.take(hour_later)).count(), 3);
    }
}
