//! `Lease`: our time-limited hold on a delivery, extended from receipt until it is settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics;
use crate::queue::{JobQueue, QueueError};

/// Extensions per lease time: three may fail in a row before the lease runs out.
const BEATS_PER_LEASE: u32 = 4;

/// The leases of a process are extended on the same ticks, this many from one extension of a lease to its next: those that
/// fall on one tick share calls to the queue (docs/adr/0017). Fewer share more, and extend a delivery sooner the first time.
const TICKS_PER_BEAT: u32 = 3;

/// For how long the leases of a process last, and from when their ticks are counted.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    duration: Duration,
    first_tick: Instant,
}

impl Terms {
    /// Ticks are counted from now.
    pub fn new(duration: Duration) -> Self {
        Self { duration, first_tick: Instant::now() }
    }

    fn interval(self) -> Duration {
        self.duration / BEATS_PER_LEASE
    }

    /// Returns when a lease that was extended at `asked` is to be extended next: on the last tick within the interval.
    fn next_beat(self, asked: Instant) -> Instant {
        let at = asked + self.interval();
        let since = at.saturating_duration_since(self.first_tick).as_nanos();
        let beyond = since.checked_rem((self.interval() / TICKS_PER_BEAT).as_nanos()).unwrap_or(0);
        at - Duration::from_nanos(u64::try_from(beyond).unwrap_or(0))
    }
}

/// A hold on one delivery. Extended in a task of its own, so that CPU work and model calls cannot starve it. Dropping
/// it stops the extension, and the delivery comes back when the time is over.
#[derive(Debug)]
pub struct Lease {
    lost: CancellationToken,
    stop: CancellationToken,
    beating: Option<JoinHandle<()>>,
}

impl Lease {
    /// Starts to extend the hold on `receipt`, which the queue gave us on these terms just now.
    pub fn hold(tasks: &TaskTracker, queue: Arc<dyn JobQueue>, receipt: String, terms: Terms) -> Self {
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        let beating = tasks.spawn(beat(queue, receipt, terms, stop.clone(), lost.clone()));
        Self { lost, stop, beating: Some(beating) }
    }

    /// Resolves when the hold is lost: whatever is done after this may be done by somebody else as well.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Stops the extension and waits for one under way, so that it cannot undo what is done with the receipt next.
    pub async fn end(mut self) {
        self.stop.cancel();
        if let Some(beating) = self.beating.take()
            && let Err(error) = beating.await
        {
            tracing::warn!(%error, "lease task failed");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn beat(
    queue: Arc<dyn JobQueue>,
    receipt: String,
    terms: Terms,
    stop: CancellationToken,
    lost: CancellationToken,
) {
    let (duration, interval) = (terms.duration, terms.interval());
    let mut held_until = Instant::now() + duration;
    let mut next = terms.next_beat(Instant::now());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let asked = Instant::now();
        // A call that hangs must not outlive the hold it extends.
        let extended = tokio::time::timeout_at(held_until, queue.set_visibility(&receipt, duration)).await;
        match extended {
            Ok(Ok(())) => {
                held_until = asked + duration;
                next = terms.next_beat(asked);
                metrics::lease_extended("extended");
            }
            Ok(Err(QueueError::NotOurs(detail))) => {
                metrics::lease_extended("lost");
                tracing::warn!(%detail, "lease lost: the delivery is no longer ours");
                return lost.cancel();
            }
            Ok(Err(error)) => {
                metrics::lease_extended("failed");
                tracing::warn!(%error, "lease could not be extended, trying again");
                next = Instant::now() + interval / 2;
            }
            Err(_elapsed) => {}
        }
        if Instant::now() >= held_until {
            metrics::lease_extended("lost");
            tracing::warn!("lease lost: it ran out before it could be extended");
            return lost.cancel();
        }
        next = next.min(held_until);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::queue::Delivery;

    const LEASE: Duration = Duration::from_secs(60);

    type Answer = Box<dyn Fn(usize) -> Result<(), QueueError> + Send + Sync>;

    /// So long takes a call that hangs.
    const FOR_EVER: Duration = Duration::from_secs(3600 * 24);

    /// Answers each extension by script.
    struct ScriptedQueue {
        calls: AtomicUsize,
        answered: AtomicUsize,
        answer: Answer,
        takes: Duration,
        last: Mutex<Option<Duration>>,
        times: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl JobQueue for ScriptedQueue {
        async fn receive(&self, _: usize) -> Result<Vec<Delivery>, QueueError> {
            Ok(vec![])
        }
        async fn set_visibility(&self, _: &str, visibility: Duration) -> Result<(), QueueError> {
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            *self.last.lock().unwrap() = Some(visibility);
            self.times.lock().unwrap().push(Instant::now());
            tokio::time::sleep(self.takes).await;
            self.answered.fetch_add(1, Ordering::SeqCst);
            (self.answer)(call)
        }
        async fn delete(&self, _: &str) -> Result<(), QueueError> {
            Ok(())
        }
    }

    fn hold(
        takes: Duration,
        answer: impl Fn(usize) -> Result<(), QueueError> + Send + Sync + 'static,
    ) -> (Arc<ScriptedQueue>, Lease) {
        hold_on(Terms::new(LEASE), takes, answer)
    }

    fn hold_on(
        terms: Terms,
        takes: Duration,
        answer: impl Fn(usize) -> Result<(), QueueError> + Send + Sync + 'static,
    ) -> (Arc<ScriptedQueue>, Lease) {
        let queue = Arc::new(ScriptedQueue {
            calls: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            answer: Box::new(answer),
            takes,
            last: Mutex::new(None),
            times: Mutex::default(),
        });
        let lease = Lease::hold(&TaskTracker::new(), queue.clone(), "receipt".into(), terms);
        (queue, lease)
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_job_keeps_its_lease() {
        let (queue, lease) = hold(Duration::ZERO, |_| Ok(()));
        tokio::select! {
            () = lease.lost() => panic!("lost"),
            () = tokio::time::sleep(LEASE * 100) => {}
        }
        assert!(queue.calls.load(Ordering::SeqCst) >= 399);
        assert_eq!(*queue.last.lock().unwrap(), Some(LEASE));
        lease.end().await;
        let calls = queue.calls.load(Ordering::SeqCst);
        tokio::time::sleep(LEASE * 2).await;
        assert_eq!(queue.calls.load(Ordering::SeqCst), calls, "an ended lease is never extended again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_an_extension_under_way() {
        let (queue, lease) = hold(Duration::from_secs(5), |_| Ok(()));
        while queue.calls.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(queue.answered.load(Ordering::SeqCst), 0);
        lease.end().await;
        // Otherwise it could arrive after the release, and hide the message again.
        assert_eq!(queue.answered.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_dropped_is_not_extended_any_more() {
        let (queue, lease) = hold(Duration::ZERO, |_| Ok(()));
        drop(lease);
        tokio::time::sleep(LEASE * 10).await;
        assert_eq!(queue.calls.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_extended_on_the_same_ticks() {
        let (terms, mut held) = (Terms::new(LEASE), vec![]);
        for _ in 0..30 {
            held.push(hold_on(terms, Duration::ZERO, |_| Ok(())));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        tokio::time::sleep(LEASE).await;
        let times = held.iter().flat_map(|(queue, _)| queue.times.lock().unwrap().clone());
        let mut times: Vec<Instant> = times.collect();
        let extensions = times.len();
        assert!(extensions >= 30 * 3, "{extensions}");
        times.sort();
        // Timers fire at whole milliseconds after the tick.
        times.dedup_by(|later, earlier| later.duration_since(*earlier) < Duration::from_millis(10));
        // Ten leases began within each tick of five seconds.
        assert!(times.len() <= extensions / 5, "{extensions} extensions at {} times", times.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_do_not_lose_it() {
        let (_, lease) =
            hold(
                Duration::ZERO,
                |call| if call % 4 == 3 { Ok(()) } else { Err(QueueError::Unavailable("503".into())) },
            );
        tokio::select! {
            () = lease.lost() => panic!("lost"),
            () = tokio::time::sleep(LEASE * 10) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_receipt_loses_it_at_once() {
        let (queue, lease) = hold(Duration::ZERO, |_| Err(QueueError::NotOurs("stale".into())));
        lease.lost().await;
        assert_eq!(queue.calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_or_hanging_queue_loses_it_when_the_time_is_over() {
        for takes in [Duration::ZERO, FOR_EVER] {
            let started = Instant::now();
            let (_, lease) = hold(takes, |_| Err(QueueError::Unavailable("down".into())));
            lease.lost().await;
            assert_eq!(started.elapsed(), LEASE, "{takes:?}");
        }
    }
}
