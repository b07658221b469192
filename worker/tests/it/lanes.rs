//! Two lanes: single jobs are not kept waiting by batches, nor one tenant by another, and nothing starves or gets lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use job::{Job, Record, RenditionSpec, Status};
use service::following::Followed;
use service::readiness::Readiness;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use worker::app::{Ports, Worker};
use worker::consumer::Drained;
use worker::error::{JobError, Kind};
use worker::generate::{GenerateRequest, Generator, SourceImage};
use worker::lane::BatchLane;
use worker::pipeline::Clock;
use worker::queue::QueueError;
use worker::quota::TimetableStore;
use worker::render::{Provenance, RenderError, Rendered, Rendition};
use worker::renderer::Renderer;
use worker::settings::Settings;

use crate::quota::fleet::{self as quota, Fleet};
use crate::support::{LEASE, MAX_RECEIVE_COUNT, MemoryQueue, MemoryStore, ScriptedGenerator, job_of};

/// What a model call takes.
const CALL: Duration = Duration::from_secs(5);
/// What a batch has.
const BATCH: usize = 1000;
/// Pictures of the small tenant, one a minute.
const PICTURES: u32 = 20;

/// Takes no time and makes no pixels.
struct NoPixels;

#[async_trait]
impl Renderer for NoPixels {
    async fn render(
        &self,
        _: Bytes,
        _: &[RenditionSpec],
        _: &Provenance,
    ) -> Result<Result<Rendered, RenderError>, JobError> {
        let rendition =
            Rendition { spec: RenditionSpec::STANDARD, bytes: Bytes::from_static(b"webp"), sha256: String::new() };
        let none = Duration::ZERO;
        let thumbhash = String::new();
        Ok(Ok(Rendered { rendition, extra: vec![], thumbhash, decode: none, resize: none, encode: none }))
    }
}

/// A model that admits so many calls a minute, and not one more.
struct Metered {
    model: Arc<ScriptedGenerator>,
    quota: Arc<quota::Site>,
}

#[async_trait]
impl Generator for Metered {
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        match self.quota.admits() {
            true => self.model.generate(request).await,
            false => Err(JobError::new(Kind::ModelThrottled, "the quota is used up")),
        }
    }

    fn model_id(&self) -> &str {
        self.model.model_id()
    }

    fn max_seed(&self) -> u32 {
        self.model.max_seed()
    }
}

/// Two queues, bucket, model and clock.
struct Site {
    interactive: Arc<MemoryQueue>,
    batch: Arc<MemoryQueue>,
    store: Arc<MemoryStore>,
    model: Arc<ScriptedGenerator>,
    clock: Clock,
}

struct Running {
    stopping: CancellationToken,
    readiness: Readiness,
    consumer: JoinHandle<Drained>,
}

impl Running {
    async fn stop(self) {
        self.stopping.cancel();
        assert_eq!(self.consumer.await.unwrap(), Drained::Clean);
    }
}

impl Site {
    fn new() -> Self {
        let (wall, start) = (Timestamp::now(), Instant::now());
        let queue = || Arc::new(MemoryQueue::new(LEASE, Duration::from_secs(10), MAX_RECEIVE_COUNT));
        let model = Arc::new(ScriptedGenerator::default());
        model.take(CALL);
        Self {
            interactive: queue(),
            batch: queue(),
            store: Arc::default(),
            model,
            clock: Arc::new(move || wall + SignedDuration::try_from(start.elapsed()).expect("tests are short")),
        }
    }

    /// Starts a worker of four slots.
    fn start(&self, lanes: bool) -> Running {
        self.start_on(lanes, None)
    }

    /// Starts one whose model has a quota, which it keeps by a timetable.
    fn start_on(&self, lanes: bool, quota: Option<(&Fleet, &Arc<quota::Site>)>) -> Running {
        let mut args = "image-worker --sqs-queue-url q --s3-bucket-name b --worker-slots 4 --cpu-threads 1".to_owned();
        if lanes {
            args.push_str(" --sqs-batch-queue-url batches");
        }
        if let Some((fleet, _)) = quota {
            args.push_str(&format!(" --model-requests-per-minute {}", fleet.per_minute));
        }
        let settings = Settings::try_parse_from(args.split(' ')).unwrap();
        settings.validate().unwrap();
        let batch = BatchLane { queue: self.batch.clone(), entrance: self.batch.clone() };
        let ports = Ports {
            batch: lanes.then_some(batch),
            notices: None,
            queue: self.interactive.clone(),
            store: self.store.clone(),
            generator: match quota {
                Some((_, quota)) => Arc::new(Metered { model: self.model.clone(), quota: Arc::clone(quota) }),
                None => self.model.clone(),
            },
            fallback: None,
            pause: Followed::default(),
            timetable: quota.map(|(_, quota)| Arc::clone(quota) as Arc<dyn TimetableStore>),
            clock: self.clock.clone(),
        };
        let (stopping, readiness) = (CancellationToken::new(), Readiness::default());
        let consumer = Worker::around(&settings, ports, Arc::new(NoPixels), readiness.clone(), stopping.clone());
        Running { stopping, readiness, consumer: tokio::spawn(async move { consumer.run().await }) }
    }

    fn submit(&self, queue: &MemoryQueue, tenant: &str, prompt: &str) -> Job {
        let job = job_of(tenant, prompt, (self.clock)());
        queue.send(job.encode());
        job
    }

    fn submit_many(&self, queue: &MemoryQueue, tenant: &str, count: usize) -> Vec<Job> {
        (0..count).map(|n| self.submit(queue, tenant, &format!("{tenant} {n}"))).collect()
    }

    async fn ended(&self, job: &Job) -> Record {
        let give_up = Instant::now() + Duration::from_secs(86_400);
        loop {
            if let Some(record) = self.store.record(&job.id).filter(|record| record.status.is_final()) {
                assert_eq!(record.status, Status::Succeeded);
                return record;
            }
            assert!(Instant::now() < give_up, "waited a day for a picture");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// One picture a minute; returns the seconds to each.
    async fn a_picture_a_minute(&self, pictures: u32) -> Vec<f64> {
        let (mut took, began) = (vec![], Instant::now());
        let mut jobs = vec![];
        for n in 0..pictures {
            sleep_until(began + Duration::from_secs(60) * n + Duration::from_millis(700)).await;
            jobs.push(self.submit(&self.interactive, "south", &format!("south {n}")));
        }
        for job in jobs {
            let finished_at = self.ended(&job).await.finished_at.unwrap();
            took.push(finished_at.duration_since(job.submitted_at).as_secs_f64());
        }
        took
    }

    async fn all_ended(&self, jobs: &[Job]) {
        for job in jobs {
            self.ended(job).await;
            assert_eq!(self.model.paid(job.spec.prompt()), 1, "paid once");
        }
        while self.interactive.len() + self.batch.len() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!((self.interactive.dead(), self.batch.dead()), (vec![], vec![]));
    }
}

fn p95(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[(seconds.len() * 95).div_ceil(100) - 1]
}

async fn idle() -> f64 {
    let site = Site::new();
    let worker = site.start(true);
    let idle = p95(site.a_picture_a_minute(PICTURES).await);
    worker.stop().await;
    idle
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_thousand_does_not_keep_a_picture_a_minute_waiting() {
    let idle = idle().await;
    let site = Site::new();
    let batch = site.submit_many(&site.batch, "north", BATCH);
    let worker = site.start(true);
    let beside = p95(site.a_picture_a_minute(PICTURES).await);
    assert!(site.batch.len() > 100, "the batch must be under way all the time");
    println!("p95: {idle} s idle, {beside} s beside the batch");
    assert!(beside <= 1.5 * idle, "{beside} s beside the batch, {idle} s idle");
    site.all_ended(&batch).await;
    worker.stop().await;
}

/// Where the quota is what there is too little of, calls are what a single job must not wait for.
#[tokio::test(start_paused = true)]
async fn a_batch_that_uses_up_the_quota_does_not_keep_a_picture_a_minute_waiting() {
    let idle = idle().await;
    let fleet = Fleet { workers: 1, per_minute: 30, ..Fleet::of_eight(1) };
    let quota = quota::Site::new(&fleet);
    let clock = {
        let quota = Arc::clone(&quota);
        Arc::new(move || quota.now())
    };
    let site = Site { clock, ..Site::new() };
    site.submit_many(&site.batch, "north", BATCH);
    let worker = site.start_on(true, Some((&fleet, &quota)));
    let beside = p95(site.a_picture_a_minute(PICTURES).await);
    let used = quota.used_in_the_last(Duration::from_secs(600));
    println!("p95: {idle} s idle, {beside} s beside the batch, {} calls in ten minutes", used.calls);
    assert!(used.admitted() > 270, "the quota must be used up: {used:?}");
    assert!(beside <= 1.5 * idle, "{beside} s beside the batch, {idle} s idle");
    assert!(site.batch.len() > 100, "the batch must be under way all the time");
    worker.stop().await;
}

/// What the first test is there to prevent.
#[tokio::test(start_paused = true)]
async fn with_one_queue_a_picture_waits_for_the_whole_batch() {
    let site = Site::new();
    site.submit_many(&site.interactive, "north", BATCH);
    let worker = site.start(false);
    let took = site.a_picture_a_minute(1).await;
    println!("{} s with one queue", took[0]);
    assert!(took[0] > 1000.0, "{took:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_single_jobs_of_a_tenant_do_not_keep_another_waiting() {
    let idle = idle().await;
    let site = Site::new();
    let flood = site.submit_many(&site.interactive, "north", BATCH);
    let worker = site.start(true);
    let beside = p95(site.a_picture_a_minute(PICTURES).await);
    assert!(site.batch.len() > 100, "the flood must be under way all the time");
    println!("p95: {idle} s idle, {beside} s beside the flood");
    assert!(beside <= 1.5 * idle, "{beside} s beside the flood, {idle} s idle");
    site.all_ended(&flood).await;
    assert!(site.batch.sent() > 900, "most of it has changed lanes: {}", site.batch.sent());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_jobs_of_a_class_wait_for_their_turn_and_change_no_lanes() {
    let site = Site::new();
    let worker = site.start(true);
    let class = site.submit_many(&site.interactive, "north", 9);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(site.model.in_flight(), 3, "one slot of four is left for others");
    let other = site.submit(&site.interactive, "south", "south");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((site.model.in_flight(), site.model.paid("south")), (4, 1));
    site.all_ended(&class).await;
    site.ended(&other).await;
    assert_eq!(site.batch.sent(), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn neither_lane_starves_the_other() {
    let site = Site::new();
    let batch = site.submit_many(&site.batch, "north", 300);
    let tenants: Vec<String> = (0..100).map(|n| format!("tenant-{n}")).collect();
    let single: Vec<Job> =
        (0..900).map(|n| site.submit(&site.interactive, &tenants[n % tenants.len()], &format!("single {n}"))).collect();
    let worker = site.start(true);
    sleep(CALL * 100).await;
    let paid = |jobs: &[Job]| jobs.iter().filter(|job| site.model.paid(job.spec.prompt()) > 0).count();
    let (batch_paid, single_paid) = (paid(&batch), paid(&single));
    assert!(batch_paid + single_paid >= 390, "the slots are used: {batch_paid} and {single_paid}");
    assert!((60..=100).contains(&batch_paid), "about one in five is a batch's: {batch_paid} and {single_paid}");
    site.all_ended(&batch).await;
    site.all_ended(&single).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_costs_the_other_nothing_but_the_slots_kept_for_it() {
    let site = Site::new();
    let batch = site.submit_many(&site.batch, "north", 60);
    let worker = site.start(true);
    sleep(CALL * 4).await;
    assert_eq!(site.model.most_in_flight(), 3);
    site.all_ended(&batch).await;
    for n in 0..4 {
        site.submit(&site.interactive, &format!("tenant-{n}"), &format!("single {n}"));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(site.model.in_flight(), 4, "nothing waits for the long poll of the batch lane");
    sleep(CALL * 2).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_lanes_is_done_where_it_is() {
    let site = Site::new();
    site.batch.close_entrance(QueueError::Unavailable("down".into()));
    let flood = site.submit_many(&site.interactive, "north", 60);
    let worker = site.start(true);
    site.all_ended(&flood).await;
    assert_eq!(site.batch.sent(), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_is_given_back_at_a_stop() {
    let site = Site::new();
    site.submit_many(&site.interactive, "north", 9);
    let worker = site.start(true);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((site.interactive.visible(), site.model.in_flight()), (0, 3));
    worker.stop().await;
    assert_eq!((site.interactive.len(), site.interactive.visible()), (6, 6), "and what was paid for is finished");
    assert_eq!(site.model.paid_in_all(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fails_is_named_and_the_other_goes_on() {
    let site = Site::new();
    for _ in 0..4 {
        site.batch.fail_next_receive(QueueError::Misconfigured("AccessDenied".into()));
    }
    let worker = site.start(true);
    let job = site.submit(&site.interactive, "north", "a red fox");
    site.ended(&job).await;
    let reasons = format!("{:?}", worker.readiness);
    assert!(reasons.contains("batch queue") && !worker.readiness.is_ready(), "{reasons}");
    sleep(Duration::from_secs(30)).await;
    assert!(worker.readiness.is_ready());
    worker.stop().await;
}
