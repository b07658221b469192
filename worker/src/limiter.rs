//! `Limiter`: slows this process's model calls when the model throttles them, and finds the rate back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::lane::Lane;
use crate::metrics;
use crate::quota::Governor;

/// Slowest pace: one call in 20 s still notices that the quota is back.
const MIN_RATE: f64 = 0.05;
/// Share of the rate kept at a throttle. Growth at each success: quickly back to what was kept at the first throttle of a
/// row, and from there in small steps, since each step too far is a refused call (AIMD with slow start, as TCP does it).
const DECREASE: f64 = 0.7;
const REGAIN: f64 = 1.25;
const INCREASE_PER_CALL: f64 = 0.005;
/// Throttles closer together than this are one event: calls that were already under way.
const DECREASE_EVERY: Duration = Duration::from_secs(1);
/// Pause after the first throttle of a row; doubles up to the maximum.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// So long without a throttle, and the limit is off again.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// So many interactive calls a batch's caller lets go first when it is its turn: the batch lane has one in five, as of the slots.
const FIRST_GO: u32 = 4;

/// Paces calls to the model. Off until the first throttle, but for the fleet's governor if there is one.
#[derive(Debug)]
pub struct Limiter {
    /// Fair queue: the holder is the next to call, and waits for the governor.
    turn: tokio::sync::Mutex<Option<Governor>>,
    /// Interactive callers in order of arrival: whose turn it is gives its call to the first of them.
    interactive: Mutex<VecDeque<oneshot::Sender<()>>>,
    state: Mutex<State>,
    /// Callers by lane, in the order of [`Lane::ALL`].
    waiting: [AtomicUsize; 2],
    fewer_waiting: Notify,
}

#[derive(Debug)]
struct State {
    /// Calls per second; infinite while off.
    rate: f64,
    /// What was kept at the first throttle of the last row.
    safe_rate: f64,
    next_call: Instant,
    throttled_at: Option<Instant>,
    throttles_in_a_row: u32,
    /// Calls let through since `window_start`, to know the rate when the first throttle comes.
    window_start: Instant,
    window_calls: f64,
}

const WINDOW: Duration = Duration::from_secs(10);

impl Default for Limiter {
    fn default() -> Self {
        Self::governed(None)
    }
}

impl Limiter {
    /// Makes one whose calls keep to what all processes share, where there is something to share.
    pub fn governed(governor: Option<Governor>) -> Self {
        let now = Instant::now();
        let state = State {
            rate: f64::INFINITY,
            safe_rate: MIN_RATE,
            next_call: now,
            throttled_at: None,
            throttles_in_a_row: 0,
            window_start: now,
            window_calls: 0.0,
        };
        Self {
            turn: tokio::sync::Mutex::new(governor),
            interactive: Mutex::default(),
            state: Mutex::new(state),
            waiting: Default::default(),
            fewer_waiting: Notify::new(),
        }
    }

    /// Waits until a call may be made. Interactive callers go first, each lane in order of arrival; safe to drop while it
    /// waits.
    pub async fn acquire(&self, lane: Lane) {
        let _counted = Waiting::join(self, lane);
        let mut given = (lane == Lane::Interactive).then(|| {
            let (sender, given) = oneshot::channel();
            self.interactive().push_back(sender);
            given
        });
        let mut turn = tokio::select! {
            biased;
            () = arrived(given.as_mut()) => return,
            turn = self.turn.lock() => turn,
        };
        let mut let_go = 0;
        loop {
            // It may have been given while we took the turn, or by ourselves, once nobody was before us.
            if given.as_mut().is_some_and(|given| given.try_recv().is_ok()) {
                return;
            }
            self.departure(&mut turn).await;
            if given.is_none() {
                if let_go == FIRST_GO || !self.give_to_the_first() {
                    return;
                }
                let_go += 1;
            } else {
                self.give_to_the_first();
            }
        }
    }

    /// Waits until the next call may be made, by whomever, and counts it.
    async fn departure(&self, governor: &mut Option<Governor>) {
        loop {
            let next_call = self.state().next_call;
            if Instant::now() < next_call {
                tokio::time::sleep_until(next_call).await;
                continue;
            }
            if let Some(governor) = governor {
                governor.departure(|| self.waiting.iter().map(|lane| lane.load(Ordering::SeqCst)).sum()).await;
            }
            let now = Instant::now();
            let mut state = self.state();
            // Unless a throttle came meanwhile.
            if state.next_call <= now {
                state.let_through(now);
                return;
            }
        }
    }

    /// Returns whether an interactive caller has taken it.
    fn give_to_the_first(&self) -> bool {
        let mut interactive = self.interactive();
        // Some may have gone away.
        while let Some(first) = interactive.pop_front() {
            if first.send(()).is_ok() {
                return true;
            }
        }
        false
    }

    /// Notes that a call was throttled: no call before `retry_after` (or our own pause), and slower from then on.
    pub fn throttled(&self, retry_after: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.state();
        let first_of_burst = state.throttled_at.is_none_or(|at| now.duration_since(at) >= DECREASE_EVERY);
        if first_of_burst {
            let current = if state.rate.is_finite() { state.rate } else { state.observed_rate(now) };
            state.rate = (current * DECREASE).max(MIN_RATE);
            if state.throttles_in_a_row == 0 {
                state.safe_rate = state.rate;
            }
            state.throttles_in_a_row = (state.throttles_in_a_row + 1).min(16);
            state.throttled_at = Some(now);
        }
        let own = (PAUSE * 2_u32.saturating_pow(state.throttles_in_a_row.saturating_sub(1))).min(MAX_PAUSE);
        state.next_call = state.next_call.max(now + retry_after.unwrap_or(own));
        metrics::model_rate(state.rate);
    }

    /// Notes that a call was not throttled.
    pub fn succeeded(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.throttles_in_a_row = 0;
        if !state.rate.is_finite() {
            return;
        }
        if state.throttled_at.is_none_or(|at| now.duration_since(at) >= FORGET_AFTER) {
            state.rate = f64::INFINITY;
        } else if state.rate < state.safe_rate {
            state.rate = (state.rate * REGAIN).min(state.safe_rate);
        } else {
            state.rate += INCREASE_PER_CALL;
        }
        metrics::model_rate(state.rate);
    }

    /// Resolves when nobody waits for a call before whom a delivery of this lane would not be: until then it could not start.
    pub async fn nobody_waiting(&self, lane: Lane) {
        loop {
            let notified = self.fewer_waiting.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let mut before = self.waiting.iter().take(place(lane) + 1);
            if before.all(|lane| lane.load(Ordering::SeqCst) == 0) {
                return;
            }
            notified.await;
        }
    }

    fn interactive(&self) -> std::sync::MutexGuard<'_, VecDeque<oneshot::Sender<()>>> {
        self.interactive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn let_through(&mut self, now: Instant) {
        if now.duration_since(self.window_start) >= WINDOW {
            self.window_start = now;
            self.window_calls = 0.0;
        }
        self.window_calls += 1.0;
        self.next_call = if self.rate.is_finite() { now + Duration::from_secs_f64(1.0 / self.rate) } else { now };
    }

    fn observed_rate(&self, now: Instant) -> f64 {
        self.window_calls / now.duration_since(self.window_start).as_secs_f64().max(1.0)
    }
}

/// Place of a lane in [`Lane::ALL`], which is also the order in which they go.
fn place(lane: Lane) -> usize {
    usize::from(lane == Lane::Batch)
}

/// Resolves when a call is given to whoever waits for one.
async fn arrived(given: Option<&mut oneshot::Receiver<()>>) {
    let is_given = match given {
        Some(given) => given.await.is_ok(),
        None => false,
    };
    if !is_given {
        std::future::pending::<()>().await;
    }
}

struct Waiting<'a> {
    limiter: &'a Limiter,
    lane: Lane,
}

impl<'a> Waiting<'a> {
    fn join(limiter: &'a Limiter, lane: Lane) -> Self {
        limiter.waiting[place(lane)].fetch_add(1, Ordering::SeqCst);
        Self { limiter, lane }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.limiter.waiting[place(self.lane)].fetch_sub(1, Ordering::SeqCst);
        self.limiter.fewer_waiting.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn off_until_the_first_throttle() {
        let limiter = Limiter::default();
        let started = Instant::now();
        for _ in 0..1000 {
            limiter.acquire(Lane::Interactive).await;
            limiter.succeeded();
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_servers_hint_is_obeyed() {
        let limiter = Limiter::default();
        limiter.acquire(Lane::Interactive).await;
        limiter.throttled(Some(Duration::from_secs(7)));
        let started = Instant::now();
        limiter.acquire(Lane::Interactive).await;
        assert_eq!(started.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_counted_and_dropping_one_is_safe() {
        let limiter = Arc::new(Limiter::default());
        limiter.throttled(Some(Duration::from_secs(60)));
        let mut dropped = Box::pin(limiter.acquire(Lane::Interactive));
        assert!(futures::poll!(&mut dropped).is_pending());
        let mut idle = Box::pin(limiter.nobody_waiting(Lane::Interactive));
        assert!(futures::poll!(&mut idle).is_pending());
        drop(dropped);
        idle.await;
        limiter.acquire(Lane::Interactive).await;
    }

    /// One call a second: three of a batch wait when a single job comes, then more single ones than a batch waits for.
    #[tokio::test(start_paused = true)]
    async fn interactive_calls_go_first_and_batches_are_not_starved() {
        let limiter = Arc::new(Limiter::default());
        limiter.throttled(Some(Duration::from_secs(1)));
        limiter.state().rate = 1.0;
        let order = Arc::new(Mutex::new(String::new()));
        let mut callers = tokio::task::JoinSet::new();
        let mut call = |lane, name| {
            let (limiter, order) = (limiter.clone(), order.clone());
            callers.spawn(async move {
                limiter.acquire(lane).await;
                order.lock().unwrap().push(name);
            });
        };
        for name in ['x', 'y', 'z'] {
            call(Lane::Batch, name);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut room =
            (Box::pin(limiter.nobody_waiting(Lane::Interactive)), Box::pin(limiter.nobody_waiting(Lane::Batch)));
        assert!(futures::poll!(&mut room.0).is_ready(), "a single job would be the next");
        assert!(futures::poll!(&mut room.1).is_pending());
        for name in ['a', 'b', 'c', 'd', 'e', 'f'] {
            call(Lane::Interactive, name);
        }
        callers.join_all().await;
        let order = order.lock().unwrap().clone();
        assert!(order.starts_with("abcdx"), "{order}: the first goes first, and the fifth call is a batch's");
        let (of_batch, single): (String, String) = order.chars().partition(|name| "xyz".contains(*name));
        assert_eq!((of_batch.as_str(), single.as_str()), ("xyz", "abcdef"), "each lane in order of arrival");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_went_away_takes_nobodys_call() {
        let limiter = Arc::new(Limiter::default());
        limiter.throttled(Some(Duration::from_secs(1)));
        limiter.state().rate = 1.0;
        let mut batch = Box::pin(limiter.acquire(Lane::Batch));
        let mut gone = Box::pin(limiter.acquire(Lane::Interactive));
        let mut stays = Box::pin(limiter.acquire(Lane::Interactive));
        assert!(futures::poll!(&mut batch).is_pending());
        assert!(futures::poll!(&mut gone).is_pending());
        assert!(futures::poll!(&mut stays).is_pending());
        drop(gone);
        let started = Instant::now();
        tokio::join!(batch, async {
            stays.await;
            assert_eq!(started.elapsed().as_secs(), 1, "the first call is its own");
        });
        assert_eq!(started.elapsed().as_secs(), 2);
    }

    /// A model that admits 30 calls a minute, 16 callers, an hour: nearly all of the quota is used and few are refused.
    #[tokio::test(start_paused = true)]
    async fn settles_near_the_quota_with_few_refusals() {
        let limiter = Arc::new(Limiter::default());
        let bucket = Arc::new(Mutex::new((Instant::now(), 30.0_f64)));
        let (ok, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        let end = Instant::now() + Duration::from_secs(3600);
        for _ in 0..16 {
            let (limiter, bucket, ok, refused) = (limiter.clone(), bucket.clone(), ok.clone(), refused.clone());
            callers.spawn(async move {
                while Instant::now() < end {
                    limiter.acquire(Lane::Interactive).await;
                    let admitted = {
                        let mut bucket = bucket.lock().unwrap();
                        let now = Instant::now();
                        bucket.1 = (bucket.1 + now.duration_since(bucket.0).as_secs_f64() * 0.5).min(30.0);
                        bucket.0 = now;
                        let admitted = bucket.1 >= 1.0;
                        if admitted {
                            bucket.1 -= 1.0;
                        }
                        admitted
                    };
                    if admitted {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        ok.fetch_add(1, Ordering::SeqCst);
                        limiter.succeeded();
                    } else {
                        refused.fetch_add(1, Ordering::SeqCst);
                        limiter.throttled(None);
                    }
                }
            });
        }
        callers.join_all().await;
        let (ok, refused) = (ok.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
        assert!(ok > 1400, "{ok} of 1800 possible calls succeeded");
        assert!(refused * 10 < ok, "{refused} refused, {ok} succeeded");
    }
}
