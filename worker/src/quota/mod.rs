//! `Governor`: the account's requests per minute as one budget that all workers share, by a timetable in the bucket.

mod fleet_clock;
mod timetable;

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::JobError;
use crate::metrics;
use crate::pipeline::Clock;
use crate::store::{ETag, StoreError};

use fleet_clock::FleetClock;
pub use timetable::{TIMETABLE_VERSION, Taken, Timetable};

/// Returns the key of the timetable.
pub fn timetable_key() -> &'static str {
    "control/model-quota.json"
}

/// The timetable as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// None before the first call of the first worker.
    pub found: Option<(Bytes, ETag)>,
    /// What the store's clock showed when it answered, in whole seconds; None if it does not tell.
    pub store_time: Option<Timestamp>,
}

/// The port to the timetable: one object with conditional writes.
#[async_trait]
pub trait TimetableStore: Send + Sync + 'static {
    async fn read_timetable(&self) -> Result<Sheet, JobError>;

    /// Writes it if it is still the version `expected`, or with `None` if there is none.
    async fn write_timetable(&self, body: Bytes, expected: Option<&ETag>) -> Result<(), StoreError>;
}

/// A call that would begin later than this after its departure takes another one: together with what lies between here and
/// the model it must stay within the guard of the timetable.
const LATE: Duration = Duration::from_millis(500);
/// Longest read or write of the timetable: calls wait for it.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
/// Two that write at once meet at their next try with this much between them, times the tries so far.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// So many lost writes in a row, and the store is as good as gone.
const MAX_CONFLICTS: u32 = 40;
/// Takes of a process in a minute, if each is for as long as one may be.
const TAKES_A_MINUTE: usize = 30;
/// Pause before a store that failed is asked again; doubles up to the maximum.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// So long a process keeps the share it had when the store failed. Shares change with the work, so not for ever.
const LAST_SHARE_FOR: Duration = Duration::from_secs(60);
/// What a share is counted over.
const SHARE_WINDOW: Duration = Duration::from_secs(60);
/// And what it is spread over then: nobody orders the calls of several processes any more, and they meet.
const SPREAD_OVER: Duration = Duration::from_secs(65);

/// Paces the model calls of this process so that those of all processes keep the quota.
pub struct Governor {
    store: Arc<dyn TimetableStore>,
    clock: FleetClock,
    per_minute: u32,
    rng: fastrand::Rng,
    /// Departures taken and not used yet, in their order.
    in_hand: VecDeque<Instant>,
    /// Departures used, those of the last minute.
    used: VecDeque<Instant>,
    /// How long the last write took: departures are taken for when the next one has ended.
    lead: Duration,
    alone: Option<Alone>,
}

/// The store cannot be had.
#[derive(Debug)]
struct Alone {
    since: Instant,
    pause: Duration,
    ask_again_at: Instant,
    /// Time between two calls that were this process's share.
    interval: Duration,
    next_call: Instant,
}

impl Governor {
    /// Makes one for a quota of `per_minute` requests. `seed` is another one in each process: it keeps them out of step.
    pub fn new(store: Arc<dyn TimetableStore>, clock: Clock, per_minute: u32, seed: u64) -> Self {
        metrics::quota_shared(true);
        Self {
            store,
            clock: FleetClock::new(clock),
            per_minute,
            rng: fastrand::Rng::with_seed(seed),
            in_hand: VecDeque::new(),
            used: VecDeque::new(),
            lead: Duration::ZERO,
            alone: None,
        }
    }

    /// Waits until a call may begin. `waiting` tells how many want to. Safe to drop while it waits: what was taken by then
    /// is kept for the next.
    pub async fn departure(&mut self, waiting: impl Fn() -> usize + Send + Sync) {
        loop {
            if let Some(&at) = self.in_hand.front() {
                tokio::time::sleep_until(at).await;
                self.in_hand.pop_front();
                let is_late = at.elapsed() > LATE;
                metrics::departure(if is_late { "missed" } else { "used" });
                if !is_late {
                    self.note_use();
                    return;
                }
                continue;
            }
            if self.alone.as_ref().is_some_and(|alone| Instant::now() < alone.ask_again_at) {
                return self.without_the_store().await;
            }
            // A panic here would end the delivery that waits, and cost it a hand-over. It costs the timetable instead.
            let taken = AssertUnwindSafe(self.take(&waiting)).catch_unwind().await;
            match taken.unwrap_or_else(|_| Err("taking departures panicked, see the log of the panic".to_owned())) {
                Ok(()) if self.alone.take().is_some() => {
                    metrics::quota_shared(true);
                    tracing::info!("the model's quota is shared with the other workers again");
                }
                Ok(()) => {}
                Err(reason) => self.goes_alone(&reason),
            }
        }
    }

    /// Takes departures for whoever waits. Not before there are any.
    async fn take(&mut self, waiting: &(impl Fn() -> usize + Send + Sync)) -> Result<(), String> {
        let mut conflicts = 0;
        while conflicts < MAX_CONFLICTS {
            let asked = self.clock.local();
            let sheet = in_time("read", self.store.read_timetable()).await?;
            if let Some(shown) = sheet.store_time {
                self.clock.learn(asked, self.clock.local(), shown);
            }
            let now = self.clock.now();
            let (mut timetable, version) = believed(sheet.found, now);
            // Where writes are lost there are too many: then also for the calls that this process will make in the time
            // that one take is for.
            let soon = if conflicts > 0 { self.used.len() / TAKES_A_MINUTE } else { 0 };
            let wanted = waiting().max(1) + soon;
            let departures = match timetable.take(now + micros(self.lead), wanted, self.per_minute) {
                Taken::Departures(departures) => departures,
                Taken::NotBefore(at) => {
                    metrics::quota_take("full");
                    let spread = self.jitter(Duration::from_micros(timetable::SPAN.unsigned_abs()));
                    tokio::time::sleep(until(at, now) + spread).await;
                    continue;
                }
            };
            let (began, base) = (Instant::now(), now);
            let body = Bytes::from(timetable.encode(self.per_minute));
            match in_time("written", self.store.write_timetable(body, version.as_ref())).await {
                Ok(()) => {
                    metrics::quota_take("taken");
                    self.lead = began.elapsed();
                    self.in_hand.extend(departures.iter().map(|&at| began + until(at, base)));
                    return Ok(());
                }
                Err(Refused::Conflict) => {
                    metrics::quota_take("conflict");
                    conflicts += 1;
                    let pause = self.jitter(CONFLICT_PAUSE * conflicts.min(10));
                    tokio::time::sleep(pause).await;
                }
                Err(Refused::Failed(reason)) => return Err(reason),
            }
        }
        Err(format!("{MAX_CONFLICTS} writes in a row were lost to other workers"))
    }

    /// Notes that the store cannot be had.
    fn goes_alone(&mut self, reason: &str) {
        metrics::quota_take("failed");
        let now = Instant::now();
        if let Some(alone) = &mut self.alone {
            alone.pause = (alone.pause * 2).min(MAX_PAUSE);
            alone.ask_again_at = now + alone.pause;
            return;
        }
        self.forget_uses(now);
        // An idle worker may have had no share at all, and now have all of the work.
        let least = (self.per_minute / 10).max(1) as usize;
        let share = u32::try_from(self.used.len().max(least)).unwrap_or(u32::MAX);
        let interval = SPREAD_OVER / share;
        // Not all of them now, when all of them notice.
        let next_call = now + self.jitter(interval);
        self.alone = Some(Alone { since: now, pause: PAUSE, ask_again_at: now + PAUSE, interval, next_call });
        metrics::quota_shared(false);
        tracing::warn!(
            reason,
            share_per_minute = share,
            for_seconds = LAST_SHARE_FOR.as_secs(),
            "the timetable of the model's quota cannot be had: keeping the last share, then slowing down for throttles alone"
        );
    }

    /// Waits as long as the last share asks for; later not at all, and the limiter is alone.
    async fn without_the_store(&mut self) {
        let Some(alone) = &mut self.alone else { return };
        if alone.since.elapsed() < LAST_SHARE_FOR {
            let at = alone.next_call.max(Instant::now());
            tokio::time::sleep_until(at).await;
            alone.next_call = at + alone.interval;
        }
    }

    fn note_use(&mut self) {
        let now = Instant::now();
        self.forget_uses(now);
        self.used.push_back(now);
    }

    fn forget_uses(&mut self, now: Instant) {
        while self.used.front().is_some_and(|at| now.duration_since(*at) > SHARE_WINDOW) {
            self.used.pop_front();
        }
    }

    fn jitter(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.f64())
    }
}

impl fmt::Debug for Governor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_minute, in_hand, alone, .. } = self;
        f.debug_struct("Governor")
            .field("per_minute", per_minute)
            .field("in_hand", &in_hand.len())
            .field("alone", alone)
            .finish_non_exhaustive()
    }
}

/// Returns the timetable and its version. One that cannot be believed is written over.
fn believed(found: Option<(Bytes, ETag)>, now: i64) -> (Timetable, Option<ETag>) {
    let Some((body, version)) = found else { return (Timetable::default(), None) };
    let timetable = match Timetable::decode(&body) {
        Ok(timetable) if timetable.is_plausible(now) => timetable,
        Ok(_) => {
            tracing::warn!(key = timetable_key(), "the timetable is of no time near this clock's: beginning a new one");
            Timetable::default()
        }
        Err(reason) => {
            tracing::warn!(key = timetable_key(), reason, "this is no timetable: beginning a new one");
            Timetable::default()
        }
    };
    (timetable, Some(version))
}

enum Refused {
    Conflict,
    Failed(String),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            StoreError::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}

impl From<JobError> for Refused {
    fn from(error: JobError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Refused> for String {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(reason) => reason,
            Refused::Conflict => StoreError::Conflict.to_string(),
        }
    }
}

async fn in_time<T, E: Into<Refused>>(what: &str, call: impl Future<Output = Result<T, E>>) -> Result<T, Refused> {
    match tokio::time::timeout(STORE_PATIENCE, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Refused::Failed(format!("it could not be {what} within {} s", STORE_PATIENCE.as_secs()))),
    }
}

/// Returns the time from `now` to `at`, zero if that is past.
fn until(at: i64, now: i64) -> Duration {
    Duration::from_micros(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    #[async_trait]
    impl TimetableStore for Panics {
        async fn read_timetable(&self) -> Result<Sheet, JobError> {
            panic!("scripted panic")
        }

        async fn write_timetable(&self, _: Bytes, _: Option<&ETag>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    /// The delivery that waits would be handed over once more for it, and dead-lettered after a few.
    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_the_timetable_and_no_call() {
        let mut governor = Governor::new(Arc::new(Panics), Arc::new(|| Timestamp::UNIX_EPOCH), 90, 1);
        for _ in 0..3 {
            governor.departure(|| 1).await;
        }
        assert!(governor.alone.is_some());
    }
}
