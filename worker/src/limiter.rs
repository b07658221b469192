//! `Limiter`: slows this process's model calls when the model throttles them, and finds the rate back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

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

/// Paces calls to the model. Off until the first throttle, but for the fleet's governor if there is one.
#[derive(Debug)]
pub struct Limiter {
    /// Fair queue: the holder is the next to call, and waits for the governor.
    turn: tokio::sync::Mutex<Option<Governor>>,
    state: Mutex<State>,
    waiting: AtomicUsize,
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
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            fewer_waiting: Notify::new(),
        }
    }

    /// Waits until a call may be made. In order of arrival; safe to drop while it waits.
    pub async fn acquire(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _counted = Waiting(self);
        let mut turn = self.turn.lock().await;
        loop {
            let next_call = self.state().next_call;
            if Instant::now() < next_call {
                tokio::time::sleep_until(next_call).await;
                continue;
            }
            if let Some(governor) = turn.as_mut() {
                governor.departure(|| self.waiting.load(Ordering::SeqCst)).await;
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

    /// Resolves when nobody waits for a call: until then a further delivery could not start.
    pub async fn nobody_waiting(&self) {
        loop {
            let notified = self.fewer_waiting.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            notified.await;
        }
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

struct Waiting<'a>(&'a Limiter);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer_waiting.notify_waiters();
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
            limiter.acquire().await;
            limiter.succeeded();
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_servers_hint_is_obeyed() {
        let limiter = Limiter::default();
        limiter.acquire().await;
        limiter.throttled(Some(Duration::from_secs(7)));
        let started = Instant::now();
        limiter.acquire().await;
        assert_eq!(started.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_counted_and_dropping_one_is_safe() {
        let limiter = Arc::new(Limiter::default());
        limiter.throttled(Some(Duration::from_secs(60)));
        let mut dropped = Box::pin(limiter.acquire());
        assert!(futures::poll!(&mut dropped).is_pending());
        let mut idle = Box::pin(limiter.nobody_waiting());
        assert!(futures::poll!(&mut idle).is_pending());
        drop(dropped);
        idle.await;
        limiter.acquire().await;
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
                    limiter.acquire().await;
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
