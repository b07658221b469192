//! `Forecast`: in how many seconds a pending job will be done, from the depth of the queue and the time that jobs are in hand.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use job::{Record, Status};
use tokio_util::sync::CancellationToken;

use crate::queue::{Depth, JobQueue};

/// How often the queue is looked at: 17,280 requests a day and process, 0.007 USD.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks that are kept: an hour. A job that waits for longer counts as the oldest of them.
const LOOKS: usize = 720;
/// Without a newer look than this, nothing is said.
const STALE_SECONDS: f64 = 30.0;
/// What a job is in hand until the first has been seen to end: a model call of 5 s, and a little.
const FIRST_GUESS_SECONDS: f64 = 6.0;
/// Weight of the newest job, and of the newest look, in the running means: the last ten or so count.
const NEWEST: f64 = 0.1;
const NEWEST_LOOK: f64 = 0.3;
/// A job that ended longer ago tells nothing of those in hand now.
const RECENT_SECONDS: f64 = 300.0;

/// What the queue and the jobs that end tell of those that wait.
///
/// As many jobs leave the workers' hands in a second as are in them, divided by the seconds that each is (Little's law), whatever
/// they wait for there: the model, its quota, or a core. Nobody has to say how many workers there are.
#[derive(Debug, Default)]
pub struct Forecast {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looks: VecDeque<Look>,
    /// Jobs in hand, smoothed.
    in_hand: f64,
    /// Seconds from the first worker's claim to the end of a job, smoothed.
    seconds_in_hand: f64,
    has_seen_a_job: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { looks: VecDeque::new(), in_hand: 0.0, seconds_in_hand: FIRST_GUESS_SECONDS, has_seen_a_job: false }
    }
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Timestamp,
    waiting: f64,
    in_flight: f64,
    /// Jobs that workers have taken since the first look, as far as the rate tells.
    taken: f64,
}

impl Look {
    /// Jobs that have come since the first look, with those that waited then.
    fn arrived(&self) -> f64 {
        self.waiting + self.taken
    }
}

impl State {
    /// Jobs that workers take in a second, while any wait.
    fn rate(&self) -> f64 {
        self.in_hand / self.seconds_in_hand
    }

    /// Returns how many jobs had arrived at `time`, between two looks in proportion, and after the last one as many a second as
    /// before it.
    fn arrived_at(&self, time: Timestamp) -> Option<f64> {
        let later = self.looks.partition_point(|look| look.at < time).min(self.looks.len().saturating_sub(1));
        let Some(earlier) = later.checked_sub(1) else { return self.looks.front().map(Look::arrived) };
        let (earlier, later) = (self.looks[earlier], self.looks[later]);
        let share = seconds(earlier.at, time) / seconds(earlier.at, later.at).max(f64::EPSILON);
        Some(earlier.arrived() + share * (later.arrived() - earlier.arrived()).max(0.0))
    }
}

impl Forecast {
    /// Looks at the queue until `stopping`. A look that fails is left out.
    pub async fn follow(&self, queue: &dyn JobQueue, now: fn() -> Timestamp, stopping: &CancellationToken) {
        loop {
            match queue.depth().await {
                Ok(Some(depth)) => self.looked(now(), depth),
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "the depth of the queue cannot be read"),
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Notes what was in the queue.
    pub fn looked(&self, at: Timestamp, depth: Depth) {
        let mut state = self.state();
        let (waiting, in_flight) = (number(depth.waiting), number(depth.in_flight));
        // At the rate up to now: nobody counts what is taken.
        let taken = state.looks.back().map_or(0.0, |last| last.taken + state.rate() * seconds(last.at, at).max(0.0));
        state.in_hand = match state.looks.back() {
            Some(_) if in_flight > 0.0 && state.in_hand > 0.0 => {
                state.in_hand + NEWEST_LOOK * (in_flight - state.in_hand)
            }
            _ => in_flight,
        };
        state.looks.push_back(Look { at, waiting, in_flight, taken });
        if state.looks.len() > LOOKS {
            state.looks.pop_front();
        }
    }

    /// Notes how long a job was in hand, if it has just succeeded.
    pub fn saw(&self, record: &Record, now: Timestamp) {
        let (Some(started_at), Some(finished_at)) = (record.started_at, record.finished_at) else { return };
        // What was held up, or refused, says nothing of the others.
        let is_plain = record.status == Status::Succeeded && record.attempts <= 1;
        if !is_plain || seconds(finished_at, now) > RECENT_SECONDS {
            return;
        }
        let took = seconds(started_at, finished_at).max(0.1);
        let mut state = self.state();
        state.seconds_in_hand = match state.has_seen_a_job {
            true => state.seconds_in_hand + NEWEST * (took - state.seconds_in_hand),
            false => took,
        };
        state.has_seen_a_job = true;
    }

    /// Returns the seconds until the job of `record` will be done, which reads `status` at `now`. None when nobody can say: what
    /// an attempt has left waits for its next delivery, not for those before it, and what holds up a later attempt is not known.
    pub fn of(&self, record: &Record, status: Status, now: Timestamp) -> Option<u64> {
        match status {
            status if status.is_final() => None,
            Status::Generating | Status::Processing if record.attempts <= 1 => {
                record.started_at.map(|started_at| self.of_taken(started_at, now))
            }
            // `started_at` is of the first attempt; a call begins within seconds of a claim, and of its renewal.
            Status::Generating => {
                let left = self.state().seconds_in_hand - seconds(record.updated_at, now);
                (left > 0.0).then(|| whole(left))
            }
            Status::Processing => None,
            _ if record.claim.is_some() || record.last_fault.is_some() => None,
            _ => self.of_waiting(record.retried_at.or(record.submitted_at).or_else(|| record.id.issued_at()), now),
        }
    }

    /// Returns the seconds until a job that waits since `submitted_at` will be done. None when nobody can say: there was no look
    /// lately, or jobs wait and nobody takes any.
    pub fn of_waiting(&self, submitted_at: Option<Timestamp>, now: Timestamp) -> Option<u64> {
        let state = self.state();
        let last = state.looks.back()?;
        let since = seconds(last.at, now).max(0.0);
        if since > STALE_SECONDS || (last.in_flight == 0.0 && last.waiting > 0.0) {
            return None;
        }
        // Whoever does not know when it came stands behind all.
        let arrived = submitted_at.and_then(|at| state.arrived_at(at)).unwrap_or(last.arrived());
        let ahead = (arrived - last.taken - state.rate() * since).max(0.0);
        let wait = if ahead > 0.0 && state.rate() > 0.0 { ahead / state.rate() } else { 0.0 };
        Some(whole(wait + state.seconds_in_hand))
    }

    /// Returns the seconds until a job that its first worker took at `started_at` will be done.
    fn of_taken(&self, started_at: Timestamp, now: Timestamp) -> u64 {
        whole(self.state().seconds_in_hand - seconds(started_at, now))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "SQS holds no 2^53 messages")]
fn number(messages: u64) -> f64 {
    messages as f64
}

/// Rounds up, to 1 or more: a job that is not done takes some time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(seconds: f64) -> u64 {
    // A rounding error is no second.
    (seconds - 0.001).ceil().clamp(1.0, 1_000_000.0) as u64
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use job::{Claim, IdKeys, Job, JobSpec, TenantId, TraceContext};
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    /// A queue that is worked off by twelve slots of 5 s, looked at every 5 s from 0 to `until`.
    fn steady(until: i64, waiting: impl Fn(i64) -> u64) -> Forecast {
        let forecast = Forecast::default();
        forecast.state().seconds_in_hand = 5.0;
        for second in (0..=until).step_by(5) {
            forecast.looked(at(second), Depth { waiting: waiting(second), in_flight: 12 });
        }
        forecast
    }

    #[test]
    fn a_job_in_the_middle_of_a_backlog_knows_its_place() {
        // 2.4 a second go, nothing comes: what waited at 0 was 240.
        let forecast = steady(50, |second| 240 - u64::try_from(second).unwrap() * 12 / 5);
        assert_eq!(forecast.of_waiting(Some(at(0)), at(50)), Some(55), "120 of the 240 before it, and its own 5 s");
        assert_eq!(forecast.of_waiting(None, at(50)), Some(55));
        // In between two looks, the rate goes on.
        assert_eq!(forecast.of_waiting(Some(at(0)), at(53)), Some(52));
    }

    #[test]
    fn jobs_of_one_burst_are_told_apart_by_when_they_came() {
        // 240 come evenly between 20 and 25.
        let forecast = steady(25, |second| if second < 25 { 0 } else { 228 });
        let [first, middle, last] = [20_100, 22_500, 25_000].map(|ms| {
            let came = at(0) + SignedDuration::from_millis(ms);
            forecast.of_waiting(Some(came), at(25)).unwrap()
        });
        assert!(first <= 10 && (45..=60).contains(&middle) && (95..=105).contains(&last), "{first} {middle} {last}");
    }

    #[test]
    fn an_idle_fleet_takes_a_job_at_once_and_one_without_workers_promises_nothing() {
        let forecast = Forecast::default();
        assert_eq!(forecast.of_waiting(Some(at(0)), at(0)), None, "before the first look");
        forecast.looked(at(0), Depth { waiting: 0, in_flight: 0 });
        assert_eq!(forecast.of_waiting(Some(at(1)), at(1)), Some(6));
        forecast.looked(at(5), Depth { waiting: 3, in_flight: 0 });
        assert_eq!(forecast.of_waiting(Some(at(1)), at(5)), None);
        forecast.looked(at(10), Depth { waiting: 2, in_flight: 1 });
        assert!(forecast.of_waiting(Some(at(1)), at(10)).is_some());
        assert_eq!(forecast.of_waiting(Some(at(1)), at(60)), None, "an old look says nothing");
    }

    #[test]
    fn what_is_in_hand_is_done_when_others_were() {
        let forecast = steady(0, |_| 0);
        assert_eq!(forecast.of_taken(at(0), at(2)), 3);
        assert_eq!(forecast.of_taken(at(0), at(90)), 1, "never nothing while it is not done");
    }

    /// The record of a job that came at 0 and was taken at once.
    fn taken() -> Record {
        let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        let tenant: TenantId = "north".parse().unwrap();
        let job = Job {
            id: keys.issue(&tenant),
            tenant,
            spec: JobSpec::new("a red fox".into(), None, None).unwrap(),
            submitted_at: at(0),
            deadline_at: None,
            retries: 0,
            trace: TraceContext::generate(),
        };
        Record { attempts: 1, ..Record::begin(&job, at(0)) }
    }

    #[test]
    fn a_job_that_is_asked_for_again_waits_behind_those_before_its_newest_message() {
        // 240 come between 20 and 25.
        let forecast = steady(25, |second| if second < 25 { 0 } else { 228 });
        let waits = |retried_at, attempts| Record { status: Status::Queued, retried_at, attempts, ..taken() };
        let eta = |record: &Record| forecast.of(record, Status::Queued, at(25));
        assert!(eta(&waits(None, 0)).unwrap() <= 10, "it came before them");
        assert!(eta(&waits(Some(at(25)), 2)).unwrap() >= 95, "and its newest message behind them");
        // An attempt has failed since, or its worker has died: it waits for its next delivery, or is a dead letter.
        let released = Record { last_fault: Some("model_failed".to_owned()), ..waits(Some(at(1)), 3) };
        assert_eq!(eta(&released), None);
        let claim = Claim {
            token: Uuid::nil(),
            worker: "host-1".to_owned(),
            message_id: "m-1".to_owned(),
            receive_count: 5,
            deadline_at: at(24),
        };
        assert_eq!(eta(&Record { claim: Some(claim), ..waits(None, 5) }), None);
    }

    #[test]
    fn a_later_attempt_counts_from_its_own_beginning_and_not_for_ever() {
        let forecast = steady(0, |_| 0);
        let record = |attempts, updated_at| Record { attempts, updated_at: at(updated_at), ..taken() };
        let eta = |record: &Record, status, now| forecast.of(record, status, at(now));
        assert_eq!(eta(&record(1, 0), Status::Generating, 2), Some(3));
        assert_eq!(eta(&record(1, 4), Status::Processing, 4), Some(1));
        assert_eq!(eta(&record(1, 0), Status::Generating, 90), Some(1));
        assert_eq!(eta(&record(2, 600), Status::Generating, 602), Some(3));
        assert_eq!(eta(&record(2, 600), Status::Generating, 605), None, "whatever holds it up");
        assert_eq!(eta(&record(2, 600), Status::Processing, 601), None);
        for status in [Status::Succeeded, Status::Failed, Status::Canceled] {
            assert_eq!(eta(&record(2, 600), status, 601), None);
        }
    }
}
