//! `Timetable`: when the fleet's model calls begin, as `control/model-quota.json` says it.

use job::Place;
use serde::{Deserialize, Serialize};

/// Version written into the object.
pub const TIMETABLE_VERSION: u32 = 1;

/// The minute of the quota and a guard of 1.2 s: so much later than its departure, compared with that of a minute before,
/// may a call reach the model. It costs 2 % of the quota.
const WINDOW: i64 = 61_200_000;
/// What an idle fleet may begin at once, as time at the even pace. Within the window, so it is lent and not given.
const BURST: i64 = 15_000_000;
/// Nothing further ahead is taken: what a process takes with it when it ends is lost to the fleet.
const AHEAD: i64 = 5_000_000;
/// What one process takes at one time, from the first departure to the last.
pub(super) const SPAN: i64 = 2_000_000;
/// Clocks that agree with the store's are never further apart.
const CLOCK_SLACK: i64 = 30_000_000;
/// Far above what any quota in reach makes of a minute.
const MAX_DEPARTURES: usize = 200_000;

/// Departures of the last minute and the next seconds. All moments are microseconds of the Unix epoch.
///
/// A departure is the moment at which one call of the fleet begins. Whoever has written it into the timetable makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    /// In their order.
    departures: Vec<i64>,
    /// When the next one would be due if every one kept the even pace and no burst were lent.
    due: i64,
}

/// What could be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// At least one, in their order.
    Departures(Vec<i64>),
    /// Nothing, and not before this moment.
    NotBefore(i64),
}

/// The JSON. Departures are the first one, and then runs of `(microseconds after the one before, how many of these)`.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    v: u32,
    /// As the last writer was told it: for people.
    #[serde(default)]
    requests_per_minute: u32,
    due: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<i64>,
    #[serde(default)]
    runs: Vec<(u32, u32)>,
}

/// Returns microseconds between two calls at the even pace, rounded up.
fn interval(per_minute: u32) -> i64 {
    let per_minute = i64::from(per_minute.max(1));
    (WINDOW + per_minute - 1) / per_minute
}

impl Timetable {
    /// Takes up to `wanted` departures from `now` on: at the even pace, or at once as far as the fleet was idle, and never
    /// more than `per_minute` in any minute.
    pub fn take(&mut self, now: i64, wanted: usize, per_minute: u32) -> Taken {
        self.departures.retain(|&at| at > now.saturating_sub(WINDOW));
        let quota = per_minute.max(1) as usize;
        let mut taken: Vec<i64> = Vec::new();
        loop {
            let paced = now.max(self.due.saturating_sub(BURST)).max(self.departures.last().copied().unwrap_or(now));
            let a_minute_before = self.departures.len().checked_sub(quota).map(|index| self.departures[index]);
            let windowed = a_minute_before.map_or(i64::MIN, |at| at.saturating_add(WINDOW));
            let at = paced.max(windowed);
            let horizon = now.saturating_add(AHEAD);
            if at > horizon && taken.is_empty() {
                return Taken::NotBefore(at - AHEAD);
            }
            let is_far = at > horizon || taken.first().is_some_and(|first| at > first + SPAN);
            if is_far || taken.len() >= wanted.max(1) {
                return Taken::Departures(taken);
            }
            if windowed > paced {
                // A burst has used the minute up. Without this, the same burst would come back each minute.
                self.due = self.due.max(at.saturating_add(BURST));
            }
            self.due = self.due.max(at).saturating_add(interval(per_minute));
            self.departures.push(at);
            taken.push(at);
        }
    }

    /// Returns whether it can have been written by clocks that agree with this one: otherwise it says nothing.
    pub fn is_plausible(&self, now: i64) -> bool {
        let latest = now + AHEAD + CLOCK_SLACK;
        let is_ahead = self.departures.last().is_some_and(|&at| at > latest) || self.due > latest + BURST + 2 * WINDOW;
        // No clock of ours shows a time before the epoch. How old it is says nothing: a fleet may have been idle.
        let is_before_time = self.due < 0 || self.departures.first().is_some_and(|&at| at < 0);
        !is_ahead && !is_before_time
    }

    /// Returns the JSON.
    pub fn encode(&self, per_minute: u32) -> Vec<u8> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for pair in self.departures.windows(2) {
            let gap = u32::try_from(pair[1] - pair[0]).unwrap_or(u32::MAX);
            match runs.last_mut() {
                Some((same, count)) if *same == gap => *count += 1,
                _ => runs.push((gap, 1)),
            }
        }
        let first = self.departures.first().copied();
        let wire = Wire { v: TIMETABLE_VERSION, requests_per_minute: per_minute, due: self.due, first, runs };
        serde_json::to_vec(&wire).expect("a timetable always serialises")
    }

    /// Reads the JSON, that of a newer version as far as it is known.
    ///
    /// # Errors
    /// Says where it is no timetable.
    pub fn decode(body: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(body).map_err(|error| Place::from(error).to_string())?;
        let total: usize = wire.runs.iter().map(|&(_, count)| count as usize).sum();
        if total >= MAX_DEPARTURES {
            return Err(format!("{total} departures are more than {MAX_DEPARTURES}"));
        }
        let mut departures = Vec::with_capacity(total + 1);
        departures.extend(wire.first);
        if let Some(mut at) = wire.first {
            for (gap, count) in wire.runs {
                for _ in 0..count {
                    at = at.checked_add(i64::from(gap)).ok_or("departures after the end of time")?;
                    departures.push(at);
                }
            }
        }
        Ok(Self { departures, due: wire.due })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const NOW: i64 = 1_795_000_000 * SECOND;

    fn departures(taken: Taken) -> Vec<i64> {
        match taken {
            Taken::Departures(list) => list,
            Taken::NotBefore(at) => panic!("nothing before {}", at - NOW),
        }
    }

    /// Takes all that can be had until `end`, as a fleet does that always has work.
    fn saturate(timetable: &mut Timetable, end: i64, per_minute: u32) -> Vec<i64> {
        let (mut now, mut all) = (NOW, vec![]);
        while now < end {
            match timetable.take(now, 3, per_minute) {
                Taken::Departures(list) => all.extend(list),
                Taken::NotBefore(at) => now = at.max(now + 1),
            }
        }
        all
    }

    fn most_in_a_minute(all: &[i64]) -> usize {
        (0..all.len())
            .map(|from| all[from..].iter().take_while(|at| **at < all[from] + 60 * SECOND).count())
            .max()
            .unwrap()
    }

    #[test]
    fn an_idle_fleet_begins_at_once_what_a_quarter_of_a_minute_is_worth_and_then_keeps_the_pace() {
        let mut timetable = Timetable::default();
        let first = departures(timetable.take(NOW, 100, 90));
        assert_eq!(first.iter().filter(|at| **at == NOW).count(), 23);
        let paced: Vec<_> = first[22..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(paced.iter().all(|gap| *gap <= interval(90)) && first.last().unwrap() - NOW <= SPAN, "{paced:?}");
    }

    #[test]
    fn a_burst_is_lent_by_the_minute_and_does_not_come_back_each_minute() {
        let all = saturate(&mut Timetable::default(), NOW + 600 * SECOND, 90);
        assert_eq!(most_in_a_minute(&all), 90);
        let later: Vec<_> = all.iter().filter(|at| **at > NOW + 70 * SECOND).copied().collect();
        assert!(later.windows(2).all(|pair| pair[1] - pair[0] == interval(90)));
        assert!(all.len() as i64 >= 600 * 90 / 60 * 98 / 100, "{} of 900", all.len());
    }

    #[test]
    fn one_call_a_minute_is_one_call_a_minute() {
        let all = saturate(&mut Timetable::default(), NOW + 600 * SECOND, 1);
        assert_eq!((most_in_a_minute(&all), all.len()), (1, 10));
    }

    #[test]
    fn nothing_is_taken_far_ahead_and_the_moment_to_ask_again_is_told() {
        let mut timetable = Timetable::default();
        let mut takes = 0;
        let not_before = loop {
            match timetable.take(NOW, 5, 90) {
                Taken::Departures(list) => {
                    takes += 1;
                    assert!(list.iter().all(|at| *at <= NOW + AHEAD));
                }
                Taken::NotBefore(at) => break at,
            }
        };
        assert!(takes > 4 && not_before > NOW);
        assert!(matches!(timetable.take(not_before, 1, 90), Taken::Departures(_)));
    }

    #[test]
    fn a_quota_that_was_raised_or_lowered_holds_from_the_next_take_on() {
        let mut timetable = Timetable::default();
        saturate(&mut timetable, NOW + 60 * SECOND, 600);
        let Taken::NotBefore(at) = timetable.take(NOW + 60 * SECOND, 1, 6) else { panic!("600 are more than 6") };
        assert!(at > NOW + 100 * SECOND, "{}", at - NOW);
    }

    #[test]
    fn the_form_that_processes_of_other_releases_read() {
        let mut timetable = Timetable::default();
        timetable.take(NOW, 25, 90);
        let golden = r#"{"v":1,"requests_per_minute":90,"due":1795000017000000,"first":1795000000000000,"runs":[[0,22],[640000,1],[680000,1]]}"#;
        assert_eq!(String::from_utf8(timetable.encode(90)).unwrap(), golden);
        let newer = golden.replace(r#""v":1"#, r#""v":2,"model":"another""#);
        assert_eq!(Timetable::decode(newer.as_bytes()), Ok(timetable));
        assert_eq!(Timetable::decode(br#"{"v":1,"due":0}"#), Ok(Timetable::default()));
    }

    #[test]
    fn what_is_no_timetable_is_told_and_not_believed() {
        for bad in ["", "{}", "null", r#"{"v":1,"due":"x"}"#, r#"{"v":1,"due":0,"first":0,"runs":[[1,4000000000]]}"#] {
            assert!(Timetable::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let end_of_time = format!(r#"{{"v":1,"due":0,"first":{},"runs":[[1,2]]}}"#, i64::MAX);
        assert!(Timetable::decode(end_of_time.as_bytes()).is_err());
        for damaged in
            [format!(r#"{{"v":1,"due":{}}}"#, i64::MIN), format!(r#"{{"v":1,"due":0,"first":{}}}"#, i64::MIN)]
        {
            let mut damaged = Timetable::decode(damaged.as_bytes()).unwrap();
            assert!(!damaged.is_plausible(NOW), "{damaged:?}");
            assert!(
                matches!(damaged.take(NOW, 1, 90), Taken::Departures(_)),
                "and if it were believed, it is no panic"
            );
        }
        let mut ahead = Timetable::default();
        ahead.take(NOW + 3600 * SECOND, 1, 90);
        assert!(!ahead.is_plausible(NOW) && ahead.is_plausible(NOW + 3600 * SECOND));
    }

    proptest! {
        /// Whatever is asked for and by clocks that differ by a second: no minute has more than the quota.
        #[test]
        fn no_minute_has_more_than_the_quota(
            per_minute in 1..200_u32,
            asks in proptest::collection::vec((0..20 * SECOND, -SECOND / 2..SECOND / 2, 1..40_usize), 1..200),
        ) {
            let (mut timetable, mut now, mut all) = (Timetable::default(), NOW, vec![]);
            for (later, off, wanted) in asks {
                now += later;
                if let Taken::Departures(list) = timetable.take(now + off, wanted, per_minute) {
                    prop_assert!(list.iter().all(|at| *at >= now + off));
                    all.extend(list);
                }
                timetable = Timetable::decode(&timetable.encode(per_minute)).unwrap();
                prop_assert!(timetable.is_plausible(now));
            }
            prop_assert!(all.is_sorted());
            prop_assert!(all.is_empty() || most_in_a_minute(&all) <= per_minute as usize);
        }
    }
}
