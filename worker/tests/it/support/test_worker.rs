//! `TestWorker`: a whole worker on fakes; dropping it checks that nothing was left behind.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use job::{Job, Pause, Record, RenditionSpec, Status};
use service::following::Followed;
use service::readiness::Readiness;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::app::{Ports, Worker};
use worker::consumer::Drained;
use worker::generate::Generator;
use worker::lane::Entrance;
use worker::pipeline::Clock;
use worker::settings::Settings;

use super::{MemoryQueue, MemoryStore, ScriptedGenerator, job};

pub const LEASE: Duration = Duration::from_secs(60);
pub const MAX_RECEIVE_COUNT: u32 = 5;

/// What outlives a worker process: queue, bucket, model.
#[derive(Clone)]
pub struct World {
    pub queue: Arc<MemoryQueue>,
    pub store: Arc<MemoryStore>,
    pub model: Arc<ScriptedGenerator>,
    fallback: Option<Arc<ScriptedGenerator>>,
    notices: Option<Arc<MemoryQueue>>,
    pub pause: Followed<Option<Pause>>,
    clock: Clock,
    driver: Arc<TimeDriver>,
}

/// Moves the paused clock on, except while the CPU pool works: tokio would take that for idleness and jump to the next
/// timer, so that every lease and time-out ran out during the first picture.
struct TimeDriver {
    workers: Mutex<Vec<Arc<Worker>>>,
    /// Ends the blocking task whose existence keeps tokio from moving the clock by itself.
    _release: mpsc::Sender<()>,
}

const TIME_STEP: Duration = Duration::from_millis(50);

impl TimeDriver {
    fn start() -> Arc<Self> {
        let (release, released) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || released.recv());
        let driver = Arc::new(Self { workers: Mutex::default(), _release: release });
        let driven = Arc::downgrade(&driver);
        tokio::spawn(async move {
            while let Some(driver) = driven.upgrade() {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                if driver.workers.lock().unwrap().iter().any(|worker| worker.cpu_tasks() > 0) {
                    std::thread::sleep(Duration::from_micros(50));
                } else {
                    tokio::time::advance(TIME_STEP).await;
                }
            }
        });
        driver
    }
}

impl World {
    pub fn new() -> Self {
        // Wall clock that follows tokio's, so that paused tests can let claims run out.
        let (wall, start) = (Timestamp::now(), Instant::now());
        let clock: Clock = Arc::new(move || wall + SignedDuration::try_from(start.elapsed()).expect("tests are short"));
        Self {
            queue: Arc::new(MemoryQueue::new(LEASE, Duration::from_secs(5), MAX_RECEIVE_COUNT)),
            store: Arc::default(),
            model: Arc::default(),
            fallback: None,
            notices: None,
            pause: Followed::default(),
            clock,
            driver: TimeDriver::start(),
        }
    }

    /// Makes one with a second model, `second`, that stands in for the first.
    pub fn with_fallback() -> (Self, Arc<ScriptedGenerator>) {
        let second = Arc::new(ScriptedGenerator::named("second"));
        (Self { fallback: Some(second.clone()), ..Self::new() }, second)
    }

    /// Makes one with a webhook queue.
    pub fn with_webhooks() -> (Self, Arc<MemoryQueue>) {
        let queue = Arc::new(MemoryQueue::new(LEASE, Duration::from_secs(5), MAX_RECEIVE_COUNT));
        (Self { notices: Some(queue.clone()), ..Self::new() }, queue)
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub fn job(&self, prompt: &str) -> Job {
        job(prompt, self.now())
    }

    pub fn submit(&self, prompt: &str) -> Job {
        let job = self.job(prompt);
        self.queue.send(job.encode());
        job
    }

    pub fn submit_with(&self, prompt: &str, renditions: &[RenditionSpec]) -> Job {
        let mut job = self.job(prompt);
        job.spec = job.spec.with_renditions(renditions.iter().copied());
        self.queue.send(job.encode());
        job
    }

    pub fn start(&self) -> TestWorker {
        self.start_with(&[])
    }

    pub fn start_with(&self, extra: &[&str]) -> TestWorker {
        let required = ["image-worker", "--sqs-queue-url", "q", "--s3-bucket-name", "b", "--render-method", "0"];
        let settings = Settings::try_parse_from(required.iter().chain(extra)).unwrap();
        settings.validate().unwrap();
        let ports = Ports {
            batch: None,
            notices: self.notices.clone().map(|queue| queue as Arc<dyn Entrance>),
            queue: self.queue.clone(),
            store: self.store.clone(),
            generator: self.model.clone(),
            fallback: self.fallback.clone().map(|second| second as Arc<dyn Generator>),
            pause: self.pause.clone(),
            timetable: Some(self.store.clone()),
            clock: self.clock.clone(),
        };
        let (readiness, stopping) = (Readiness::default(), CancellationToken::new());
        let worker = Arc::new(Worker::new(&settings, ports, readiness.clone(), stopping.clone()));
        self.driver.workers.lock().unwrap().push(worker.clone());
        let running = tokio::spawn({
            let worker = worker.clone();
            async move { worker.run().await }
        });
        TestWorker { world: self.clone(), worker, readiness, stopping, running: Some(running), expect_left: 0 }
    }

    /// Waits until the record of `job` satisfies `condition`.
    pub async fn record_when(&self, job: &Job, condition: impl Fn(&Record) -> bool) -> Record {
        self.when("the record", || self.store.record(&job.id).filter(&condition)).await
    }

    pub async fn status(&self, job: &Job, status: Status) -> Record {
        self.record_when(job, |record| record.status == status).await
    }

    /// Polls on the paused clock; gives up after a day of it.
    pub async fn when<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let give_up = Instant::now() + Duration::from_secs(86_400);
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < give_up, "waited a day for {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn settled(&self) {
        self.when("an empty queue", || (self.queue.len() == 0).then_some(())).await;
    }
}

/// A running worker.
pub struct TestWorker {
    world: World,
    worker: Arc<Worker>,
    pub readiness: Readiness,
    pub stopping: CancellationToken,
    running: Option<JoinHandle<Drained>>,
    expect_left: usize,
}

impl TestWorker {
    pub fn in_flight(&self) -> usize {
        self.worker.in_flight()
    }

    /// Stops like SIGTERM.
    pub async fn stop(mut self) -> Drained {
        self.stopping.cancel();
        self.running.take().unwrap().await.unwrap()
    }

    /// Stops like SIGTERM, where this many messages are meant to stay in the queue.
    pub async fn stop_leaving(mut self, messages: usize) -> Drained {
        self.expect_left = messages;
        self.stop().await
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(self.running.is_none(), "a test must stop its worker");
        assert_eq!(self.world.queue.len(), self.expect_left, "messages left in the queue");
        assert_eq!(self.world.queue.visible(), self.expect_left, "messages left invisible");
        assert_eq!(self.worker.in_flight(), 0, "a slot was lost");
    }
}
