//! `FleetClock`: this machine's clock, corrected by as much as the store's clock proves it wrong.

use jiff::Timestamp;

use crate::pipeline::Clock;

/// The store tells its time in whole seconds, cut off.
const RESOLUTION: i64 = 1_000_000;

/// Time in microseconds of the Unix epoch.
pub(super) struct FleetClock {
    clock: Clock,
    /// To be added to the machine's own. None is needed where the machine keeps time, as EC2 instances do to the
    /// millisecond, and none is made then.
    correction: i64,
}

impl FleetClock {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, correction: 0 }
    }

    /// Returns the time of this machine.
    pub(super) fn local(&self) -> i64 {
        (self.clock)().as_microsecond()
    }

    /// Returns the time that the fleet shares.
    pub(super) fn now(&self) -> i64 {
        self.local() + self.correction
    }

    /// Notes what the store's clock showed at some moment between `asked` and `answered`, which are local times. Each answer
    /// bounds the correction from both sides, so that many of them find it to less than the second they are told in.
    pub(super) fn learn(&mut self, asked: i64, answered: i64, shown: Timestamp) {
        let shown = shown.as_microsecond();
        let (least, most) = (shown - answered, shown + RESOLUTION - asked);
        // Not if this clock was set back while it waited.
        if least <= most {
            self.correction = self.correction.clamp(least, most);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Asks the store every 0.77 s; returns by how much the two clocks differ in the end.
    fn error_of(off: i64, round_trip: i64, asks: i64) -> i64 {
        let mut clock = FleetClock::new(Arc::new(|| Timestamp::UNIX_EPOCH));
        for ask in 0..asks {
            let asked = 1_795_000_000 * SECOND + ask * 770_000;
            let shown = (asked + round_trip / 3).div_euclid(SECOND) * SECOND;
            let shown = Timestamp::from_microsecond(shown).unwrap();
            clock.learn(asked + off, asked + off + round_trip, shown);
        }
        clock.correction + off
    }

    #[test]
    fn a_clock_that_is_right_stays_as_it_is() {
        assert_eq!(error_of(0, 80_000, 100), 0);
        assert_eq!(error_of(3_000, 80_000, 1), 3_000);
    }

    #[test]
    fn a_clock_that_is_wrong_is_right_to_a_tenth_of_a_second_after_some_answers() {
        for off in [-600 * SECOND, -2 * SECOND, 2 * SECOND, 600 * SECOND] {
            assert!(error_of(off, 80_000, 1).abs() <= SECOND + 80_000);
            assert!(error_of(off, 80_000, 100).abs() <= 100_000, "{off}: {}", error_of(off, 80_000, 100));
        }
    }
}
