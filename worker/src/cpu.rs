//! `CpuPool`: where decoding, resizing and encoding run, so that the async side never waits for a core.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Gauge;
use nix::time::{ClockId, clock_gettime};
use rayon::prelude::*;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::Span;

use crate::error::{JobError, Kind};

/// Gauge of tasks handed to the pool, by `state`: `pending` or `running`.
pub const CPU_TASKS: &str = "worker_cpu_tasks";
/// Histogram of the CPU time of each `task`; its sum against the process's own CPU time is the overhead of the rest.
pub const CPU_TASK_SECONDS: &str = "worker_cpu_task_seconds";

/// A rayon pool of our own: the global one would be shared with whatever a dependency does in it.
#[derive(Debug, Clone)]
pub struct CpuPool {
    threads: Arc<rayon::ThreadPool>,
    unanswered: Arc<AtomicUsize>,
}

/// A task that panicked instead of returning.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{task} panicked: {message}")]
pub struct CpuPanicked {
    /// Name of the task, as given to [`CpuPool::run`].
    pub task: &'static str,
    /// What the panic said.
    pub message: String,
}

impl From<CpuPanicked> for JobError {
    fn from(error: CpuPanicked) -> Self {
        Self::new(Kind::CpuTaskPanicked, error.to_string())
    }
}

impl CpuPool {
    /// Starts a pool of `threads` threads named `cpu-0`, `cpu-1`, ...; 0 means one per core.
    ///
    /// # Panics
    /// When the operating system refuses the threads: a worker without them can do nothing.
    pub fn new(threads: usize) -> Self {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"))
            // Reached only by a panic while a result nobody waits for is dropped; without a handler rayon aborts.
            .panic_handler(|panic| {
                tracing::error!(panic.message = message_of(panic.as_ref()), "cpu task panicked late")
            })
            .build()
            .expect("the operating system grants the threads of the cpu pool");
        Self { threads: Arc::new(threads), unanswered: Arc::default() }
    }

    /// Returns how many tasks run at once.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Returns how many tasks have been handed in and not yet answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// Runs `task` on the pool, inside the caller's span. When the returned future is dropped before the task has
    /// started, the task never runs; once started, it runs to its end.
    ///
    /// # Errors
    /// When the task panics. The thread survives.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CpuPanicked> {
        let (answer, answered) = oneshot::channel();
        let span = Span::current();
        let pending = Counted::new(gauge("pending"));
        // Taken here and not on the pool's thread: a recorder may be local to the caller's thread.
        let running = gauge("running");
        let cpu_seconds = metrics::histogram!(CPU_TASK_SECONDS, "task" => name);
        let unanswered = Unanswered::new(&self.unanswered);
        self.threads.spawn(move || {
            let _until_answered = unanswered;
            drop(pending);
            if answer.is_closed() {
                return;
            }
            let result = {
                let _running = Counted::new(running);
                let _entered = span.entered();
                // The closure is consumed either way, so nothing half-changed is seen afterwards.
                let (result, spent) = measured(|| catch_unwind(AssertUnwindSafe(task)));
                cpu_seconds.record(spent);
                result
            };
            let result = result.map_err(|panic| CpuPanicked { task: name, message: message_of(panic.as_ref()) });
            // The caller may have left while the task ran; then nobody wants the result.
            drop(answer.send(result));
        });
        // The sender is dropped unused only after we left, or when the task's own captures panic in their drop.
        answered
            .await
            .unwrap_or_else(|_| Err(CpuPanicked { task: name, message: "the task ended without a result".to_owned() }))
    }
}

/// Runs `work` on each of `items`, on this thread and on whichever threads of the pool are idle. Called outside of a pool,
/// rayon's global one helps. Returns the results in order.
pub fn in_parallel<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let pieces: Vec<(T, Duration)> = items.par_iter().map(|item| measured(|| work(item))).collect();
    PIECES.set(PIECES.get() + pieces.iter().map(|(_, spent)| *spent).sum::<Duration>());
    pieces.into_iter().map(|(result, _)| result).collect()
}

thread_local! {
    /// CPU time of this thread for what has been measured by itself, within what is being measured.
    static APART: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// CPU time of all threads for the pieces of what is being measured.
    static PIECES: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Runs `work` and returns the CPU time that it took: without what a thread that waits for its pieces does meanwhile for
/// others, and with the pieces that others did for it.
fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let (apart, pieces) = (APART.replace(Duration::ZERO), PIECES.replace(Duration::ZERO));
    let began = thread_cpu_time();
    let result = work();
    let on_this_thread = thread_cpu_time().saturating_sub(began);
    let spent = on_this_thread.saturating_sub(APART.get()) + PIECES.get();
    APART.set(apart + on_this_thread);
    PIECES.set(pieces);
    (result, spent)
}

/// CPU time that the calling thread has used. Unlike the wall clock it does not count waiting for a core.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux thread has a CPU clock").into()
}

fn gauge(state: &'static str) -> Gauge {
    metrics::gauge!(CPU_TASKS, "state" => state)
}

/// Counts itself in a gauge while it lives, so that panics and cancellation are counted too.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Counts a task until its caller has the answer.
struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Barrier, Mutex, mpsc};

    use futures::future::join_all;
    use metrics::{Counter, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::registry::LookupSpan;

    use super::*;

    #[tokio::test]
    async fn a_result_comes_back_from_a_named_thread() {
        let pool = CpuPool::new(1);
        let name = pool.run("name", || std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("cpu-0"));
    }

    #[tokio::test]
    async fn panics_become_errors_and_the_pool_keeps_its_size() {
        let pool = CpuPool::new(2);
        for round in 0..8 {
            let error = pool.run("decode", move || assert!(round > 8, "round {round}")).await.unwrap_err();
            assert_eq!(error, CpuPanicked { task: "decode", message: format!("round {round}") });
        }
        // Two tasks that wait for each other end only if two threads are left.
        let meeting = Arc::new(Barrier::new(2));
        let meet = || {
            let meeting = Arc::clone(&meeting);
            pool.run("meet", move || meeting.wait().is_leader())
        };
        let leaders = join_all([meet(), meet()]).await;
        assert_eq!(leaders.iter().filter(|leader| **leader == Ok(true)).count(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_transient_for_the_job() {
        let error = CpuPool::new(1).run::<()>("encode", || panic!("odd")).await.unwrap_err();
        assert_eq!(JobError::from(error), JobError::new(Kind::CpuTaskPanicked, "encode panicked: odd"));
    }

    #[tokio::test]
    async fn work_whose_caller_left_is_skipped() {
        let pool = CpuPool::new(1);
        let (release, held) = mpsc::channel::<()>();
        let mut first = Box::pin(pool.run("first", move || held.recv()));
        assert!(futures::poll!(&mut first).is_pending());

        let ran = Arc::new(AtomicBool::new(false));
        let mut second = Box::pin(pool.run("second", {
            let ran = Arc::clone(&ran);
            move || ran.store(true, Ordering::SeqCst)
        }));
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);

        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        // One thread takes what comes from outside in the order it came, so the second has had its turn.
        pool.run("third", || ()).await.unwrap();
        assert!(!ran.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn the_async_side_goes_on_while_the_pool_is_full() {
        let pool = CpuPool::new(1);
        let (release, held) = mpsc::channel();
        // One runtime thread: if it waited for the pool, nobody would be left to release the task.
        let (received, ()) = tokio::join!(pool.run("wait", move || held.recv()), async {
            tokio::task::yield_now().await;
            release.send(7).unwrap();
        });
        assert_eq!(received.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn the_span_of_the_caller_is_entered_on_the_pool() {
        let entered = Entered::default();
        let subscriber = tracing_subscriber::registry().with(entered.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        let pool = CpuPool::new(1);
        let span = tracing::error_span!("job");
        tracing::Instrument::instrument(pool.run("inside", || ()), span).await.unwrap();
        assert!(entered.0.lock().unwrap().contains(&("job", "cpu-0".to_owned())));
    }

    #[tokio::test]
    async fn gauges_return_to_zero_after_success_and_panic() {
        let recorder = Recorded::default();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let pool = CpuPool::new(1);
        let (running, pending) = (Arc::clone(&recorder.running), Arc::clone(&recorder.pending));
        let seen = pool.run("look", move || (value(&running), value(&pending))).await.unwrap();
        assert_eq!(seen, (1.0, 0.0));
        pool.run::<()>("fall", || panic!("down")).await.unwrap_err();
        assert_eq!((value(&recorder.running), value(&recorder.pending)), (0.0, 0.0));
    }

    #[tokio::test]
    async fn cpu_time_is_counted_whether_a_task_returns_or_panics() {
        let recorder = Recorded::default();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let pool = CpuPool::new(1);
        pool.run("spin", || busy(Duration::from_millis(2))).await.unwrap();
        let spin = || {
            busy(Duration::from_millis(2));
            panic!("spun")
        };
        pool.run::<()>("spin", spin).await.unwrap_err();
        let seconds = recorder.cpu_seconds.0.lock().unwrap().clone();
        assert_eq!(seconds.len(), 2);
        assert!(seconds.iter().all(|seconds| *seconds >= 0.002), "{seconds:?}");
    }

    /// Busy until its own clock has moved, so that a test does not depend on the speed of the machine.
    fn busy(for_at_least: Duration) {
        let until = thread_cpu_time() + for_at_least;
        while thread_cpu_time() < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn pieces_are_counted_once_and_for_the_task_that_wanted_them() {
        let recorder = Recorded::default();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let pool = CpuPool::new(2);
        let piece = Duration::from_millis(20);
        let scattered = |pieces: usize| move || in_parallel(&vec![piece; pieces], |piece| busy(*piece)).len();
        // Twelve and two pieces of 20 ms at a time: a thread that waits for its pieces takes another's task meanwhile.
        let tasks = (0..6).map(|n| pool.run("scatter", scattered(if n % 2 == 0 { 12 } else { 2 })));
        let done: Vec<usize> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(done, [12, 2, 12, 2, 12, 2]);
        let mut seconds = recorder.cpu_seconds.0.lock().unwrap().clone();
        seconds.sort_by(f64::total_cmp);
        // The time of a piece is that of its thread's clock, which does not run while others have the core.
        let expected = [0.04, 0.04, 0.04, 0.24, 0.24, 0.24];
        for (found, expected) in seconds.iter().zip(expected) {
            assert!((expected..expected + 0.03).contains(found), "{seconds:?}");
        }
    }

    fn value(gauge: &AtomicU64) -> f64 {
        f64::from_bits(gauge.load(Ordering::SeqCst))
    }

    /// Notes which span was entered on which thread.
    #[derive(Clone, Default)]
    struct Entered(Arc<Mutex<Vec<(&'static str, String)>>>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Entered {
        fn on_enter(&self, id: &tracing::span::Id, context: Context<'_, S>) {
            let name = context.span(id).unwrap().name();
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().unwrap().push((name, thread));
        }
    }

    /// Keeps the metrics of this file.
    #[derive(Default)]
    struct Recorded {
        running: Arc<AtomicU64>,
        pending: Arc<AtomicU64>,
        cpu_seconds: Arc<Samples>,
    }

    #[derive(Default)]
    struct Samples(Mutex<Vec<f64>>);

    impl HistogramFn for Samples {
        fn record(&self, value: f64) {
            self.0.lock().unwrap().push(value);
        }
    }

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            assert_eq!(key.name(), CPU_TASK_SECONDS);
            Histogram::from_arc(Arc::clone(&self.cpu_seconds))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            assert_eq!(key.name(), CPU_TASKS);
            match key.labels().next().unwrap().value() {
                "running" => Gauge::from_arc(Arc::clone(&self.running)),
                "pending" => Gauge::from_arc(Arc::clone(&self.pending)),
                other => panic!("no gauge of state {other}"),
            }
        }
    }
}
