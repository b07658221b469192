//! When a webhook is tried again: eight tries within a day, kept by the queue and not by this process.

use std::time::Duration;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// The wait after each try. Each is below the 12 hours for which SQS hides a message at most; the last is a rest, behind
/// which nothing is tried any more.
const WAITS: [Duration; TRIES] = [
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(6 * 60),
    minutes(10 * 60),
    minutes(60),
];

/// The first try, and those of the 23.6 hours behind it.
pub const TRIES: usize = 8;

/// How far a wait may be lengthened, as a part of it, so that what failed together does not come back together.
const JITTER: f64 = 0.05;

/// The longest that a receiver may ask for by `Retry-After`.
const LONGEST_HINT: Duration = minutes(6 * 60);

/// First wait of a message that was no try, because its receiver has its hands full; doubles with each hand-over.
const FIRST_BUSY_WAIT: Duration = Duration::from_secs(2);
const LONGEST_BUSY_WAIT: Duration = minutes(60);

/// Which try a hand-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The first is 1, the last [`TRIES`].
    Try(usize),
    /// All tries were made: left for the queue to move to its dead letters.
    GivenUp,
}

impl Turn {
    /// Returns the turn of a message that was handed over `receive_count` times, this one included, and sent `age` ago.
    ///
    /// By both: a hand-over that was no try must not use one up, and a message that waited for this process to be
    /// started has all of them before it.
    pub fn of(receive_count: u32, age: Duration) -> Self {
        let mut due_at = Duration::ZERO;
        let passed = WAITS.iter().take_while(|wait| {
            due_at += **wait;
            due_at <= age
        });
        let by_age = passed.count() + 1;
        let number = by_age.min(usize::try_from(receive_count.max(1)).unwrap_or(usize::MAX));
        if number > TRIES { Self::GivenUp } else { Self::Try(number) }
    }

    /// Returns whether no try comes after this one.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Try(TRIES) | Self::GivenUp)
    }

    /// Returns how long to wait after this try has failed. `jitter` is uniform in 0..1; `hint` is what the receiver asks
    /// for, which may lengthen a wait and not shorten it. No wait for what was given up: the queue takes it away sooner.
    pub fn wait(self, hint: Option<Duration>, jitter: f64) -> Duration {
        let Self::Try(number) = self else { return Duration::ZERO };
        let wait = WAITS[(number - 1).min(TRIES - 1)];
        let wait = wait.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
        whole_seconds(wait.max(hint.unwrap_or_default().min(LONGEST_HINT)))
    }
}

/// Returns how long a message waits that could not be tried.
pub fn busy_wait(receive_count: u32, jitter: f64) -> Duration {
    let doublings = receive_count.saturating_sub(1).min(16);
    let wait = FIRST_BUSY_WAIT.saturating_mul(2_u32.pow(doublings)).min(LONGEST_BUSY_WAIT);
    whole_seconds(wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0))
}

/// SQS counts whole seconds; rounded down, a message would come back before its time.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_tries_within_a_day_each_wait_below_what_sqs_allows() {
        for jitter in [0.0, 0.5, 1.0] {
            let (mut age, mut waits) = (Duration::ZERO, vec![]);
            for hand_over in 1_u32.. {
                let turn = Turn::of(hand_over, age);
                if turn == Turn::GivenUp {
                    assert_eq!(turn.wait(None, jitter), Duration::ZERO);
                    break;
                }
                assert_eq!(turn, Turn::Try(usize::try_from(hand_over).unwrap()));
                assert_eq!(turn.is_last(), hand_over == 8);
                let wait = turn.wait(None, jitter);
                assert!(wait < minutes(12 * 60), "{wait:?}");
                waits.push(wait.as_secs());
                // A try takes time.
                age += wait + Duration::from_millis(20);
            }
            if jitter == 0.0 {
                assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 21_600, 36_000, 3600]);
            }
            let last_try = Duration::from_secs(waits[..7].iter().sum());
            assert!(last_try > minutes(23 * 60) && last_try < minutes(25 * 60), "{last_try:?}");
        }
    }

    #[test]
    fn a_hand_over_that_was_no_try_uses_none_up_and_neither_does_age() {
        // Twelve hand-overs within a minute, because its receiver was busy.
        assert_eq!(Turn::of(12, minutes(1)), Turn::Try(2));
        // Nobody was there to deliver it for three days.
        assert_eq!(Turn::of(1, minutes(3 * 24 * 60)), Turn::Try(1));
        assert_eq!(Turn::of(0, Duration::ZERO), Turn::Try(1));
        assert_eq!(Turn::of(9, minutes(3 * 24 * 60)), Turn::GivenUp);
    }

    #[test]
    fn a_receivers_hint_lengthens_a_wait_within_bounds() {
        let wait = |hint: u64| Turn::Try(2).wait(Some(Duration::from_secs(hint)), 0.0).as_secs();
        assert_eq!((wait(1), wait(900), wait(u64::MAX)), (300, 900, 21_600));
    }

    #[test]
    fn busy_waits_grow_to_an_hour() {
        let of = |count| busy_wait(count, 0.0).as_secs();
        assert_eq!([of(0), of(1), of(2), of(3), of(11), of(12), of(u32::MAX)], [2, 2, 4, 8, 2048, 3600, 3600]);
        assert_eq!(busy_wait(1, 1.0), Duration::from_secs(3));
        // The hand-overs that the queue allows last for most of a day.
        let all: u64 = (1..=crate::webhooks::MAX_RECEIVE_COUNT).map(of).sum();
        assert!(all > 18 * 3600, "{all}");
    }
}
