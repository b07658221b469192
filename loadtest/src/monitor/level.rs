//! `Level`: whether a number is good, worth a look, or bad. The bounds are those of the alarms where there is one.

use serde::{Deserialize, Serialize};

use crate::watch::Look;

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Not known.
    Unknown,
    Good,
    /// Half way to the alarm.
    Watch,
    /// The alarm is on, or will be.
    Bad,
}

/// A bound that is worth a look, and one that is bad, both above.
struct Bounds {
    watch: f64,
    bad: f64,
}

/// Seconds; the alarm `oldest-message` of terraform/monitoring.tf is at 600.
const AGE: Bounds = Bounds { watch: 300.0, bad: 600.0 };
/// Percent of an instance; rendering waits when all cores are busy.
const CPU: Bounds = Bounds { watch: 70.0, bad: 90.0 };
/// 5xx of S3 in five minutes; the alarm `s3-errors` is at 10. A 4xx is no error: each poll of a queued job is one.
const STORAGE_ERRORS: Bounds = Bounds { watch: 1.0, bad: 10.0 };
/// Percent of slots in use: at the upper one every further job waits.
const SLOTS: Bounds = Bounds { watch: 80.0, bad: 99.9 };
/// Percent of hits, below: the alarm `cache-hit-rate` is at 70.
const HITS_WATCH: f64 = 80.0;
const HITS_BAD: f64 = 70.0;

impl Bounds {
    fn level(&self, value: Option<f64>) -> Level {
        match value {
            None => Level::Unknown,
            Some(value) if value >= self.bad => Level::Bad,
            Some(value) if value >= self.watch => Level::Watch,
            Some(_) => Level::Good,
        }
    }
}

/// Of the age of the queue.
pub(super) fn age(look: &Look) -> Level {
    // An empty queue has no oldest message.
    if look.queue.visible == Some(0) && look.queue.age_seconds.is_none() {
        return Level::Good;
    }
    AGE.level(look.queue.age_seconds)
}

/// Of the dead-letter queue: one message is one too many.
pub(super) fn dead_letters(look: &Look) -> Level {
    match look.queue.dead_letters {
        None => Level::Unknown,
        Some(0) => Level::Good,
        Some(_) => Level::Bad,
    }
}

/// Of the workers: fewer than there should be is worth a look, as some may be starting; none is bad if there should be some.
pub(super) fn group(look: &Look) -> Level {
    match (look.group.desired, look.group.healthy) {
        (Some(desired), Some(0)) if desired > 0 => Level::Bad,
        (Some(desired), Some(healthy)) if healthy < desired => Level::Watch,
        (Some(_), Some(_)) => Level::Good,
        _ => Level::Unknown,
    }
}

/// Of the workers' CPU; local it is a sum, so it is judged by the machine's.
pub(super) fn cpu(look: &Look) -> Level {
    CPU.level(look.machine.map_or(look.worker_cpu_percent, |machine| Some(machine.busy_percent)))
}

/// Of the slots.
#[expect(clippy::cast_precision_loss, reason = "a few thousand slots at most")]
pub(super) fn slots(look: &Look) -> Level {
    let percent = look.slots.busy.zip(look.slots.all).filter(|(_, all)| *all > 0);
    SLOTS.level(percent.map(|(busy, all)| 100.0 * busy as f64 / all as f64))
}

/// Of the bucket.
pub(super) fn storage(look: &Look) -> Level {
    STORAGE_ERRORS.level(look.storage.errors)
}

/// Of the CDN.
pub(super) fn cdn(look: &Look) -> Level {
    match look.cdn.hit_percent {
        None => Level::Unknown,
        Some(percent) if percent < HITS_BAD => Level::Bad,
        Some(percent) if percent < HITS_WATCH => Level::Watch,
        Some(_) => Level::Good,
    }
}

/// Of an alarm.
pub(super) fn alarm(state: &str) -> Level {
    match state {
        "OK" => Level::Good,
        "ALARM" => Level::Bad,
        _ => Level::Watch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{CdnLook, GroupLook, QueueLook};

    #[test]
    fn the_bounds_are_those_of_the_alarms() {
        let monitoring = include_str!("../../../terraform/monitoring.tf");
        let threshold = |alarm: &str| -> f64 {
            let (_, rest) = monitoring.split_once(alarm).unwrap_or_else(|| panic!("there is no {alarm}"));
            let (_, rest) = rest.split_once(" threshold ").unwrap();
            let number: String =
                rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            number.parse().unwrap()
        };
        assert_eq!(threshold("    oldest-message = {"), AGE.bad);
        assert_eq!(threshold("    s3-errors = {"), STORAGE_ERRORS.bad);
        assert_eq!(threshold("-cache-hit-rate\""), HITS_BAD);
        assert_eq!(threshold("    dead-letter-queue-not-empty = {"), 0.0);
    }

    #[test]
    fn errors_of_the_bucket_are_bad_and_refusals_are_not() {
        use crate::watch::RequestsLook;
        let level = |errors, refusals| {
            let seen = RequestsLook { requests: Some(900.0), errors: Some(errors), refusals: Some(refusals) };
            storage(&Look { storage: seen, ..Look::default() })
        };
        assert_eq!([level(0.0, 500.0), level(1.0, 0.0), level(10.0, 0.0)], [Level::Good, Level::Watch, Level::Bad]);
    }

    #[test]
    fn levels_change_where_the_alarms_are() {
        let age_of = |seconds| {
            let queue = QueueLook { visible: Some(1), age_seconds: seconds, ..QueueLook::default() };
            age(&Look { queue, ..Look::default() })
        };
        assert_eq!(
            [Some(0.0), Some(300.0), Some(600.0), None].map(age_of),
            [Level::Good, Level::Watch, Level::Bad, Level::Unknown]
        );
        let hits =
            |percent| cdn(&Look { cdn: CdnLook { hit_percent: percent, ..CdnLook::default() }, ..Look::default() });
        assert_eq!(
            [Some(90.0), Some(75.0), Some(69.9), None].map(hits),
            [Level::Good, Level::Watch, Level::Bad, Level::Unknown]
        );
        let workers = |desired, healthy| {
            let group = GroupLook { desired: Some(desired), healthy: Some(healthy), in_service: None };
            super::group(&Look { group, ..Look::default() })
        };
        assert_eq!(
            [workers(0, 0), workers(2, 2), workers(3, 1), workers(2, 0)],
            [Level::Good, Level::Good, Level::Watch, Level::Bad]
        );
        assert_eq!(["OK", "INSUFFICIENT_DATA", "ALARM"].map(alarm), [Level::Good, Level::Watch, Level::Bad]);
    }
}
