//! The reconciler: every job ends, a success is never overwritten, and nothing is taken from the dead-letter queue.

mod clocks;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use job::{Claim, Failure, FailureCode, IdKeys, Job, Notice, Record, Status};
use uuid::Uuid;
use worker::error::{JobError, Kind};
use worker::lane::Entrance;
use worker::queue::QueueError;
use worker::reconcile::{Bounds, Judged, Ledger, Passed, Reconciler, Report, ledger_key};
use worker::store::Shelf;

use crate::support::{Call, MemoryQueue, MemoryStore, World, job};

const RETENTION_DAYS: i64 = 4;
const HIDDEN: Duration = Duration::from_secs(120);

/// A dead-letter queue, a bucket, and a clock that is set by hand.
struct Site {
    letters: Arc<MemoryQueue>,
    store: Arc<MemoryStore>,
    notices: Option<Arc<MemoryQueue>>,
    millis: Arc<AtomicI64>,
    bounds: Bounds,
}

impl Site {
    fn new() -> Self {
        let letters = Arc::new(MemoryQueue::new(HIDDEN, Duration::from_secs(1), u32::MAX));
        let millis = Arc::new(AtomicI64::new(Timestamp::now().as_millisecond()));
        Self { letters, store: Arc::default(), notices: None, millis, bounds: Bounds::default() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.millis.load(Ordering::SeqCst)).unwrap()
    }

    fn passes(&self, hours: i64) {
        self.millis.fetch_add(hours * 3_600_000, Ordering::SeqCst);
    }

    fn reconciler(&self, name: &str) -> Reconciler {
        let millis = self.millis.clone();
        Reconciler {
            notices: self.notices.clone().map(|queue| queue as Arc<dyn Entrance>),
            dead_letters: self.letters.clone(),
            store: self.store.clone(),
            shelf: self.store.clone(),
            clock: Arc::new(move || Timestamp::from_millisecond(millis.load(Ordering::SeqCst)).unwrap()),
            retention: Duration::from_secs(u64::try_from(RETENTION_DAYS).unwrap() * 24 * 3600),
            bounds: self.bounds,
            name: name.to_owned(),
        }
    }

    async fn pass(&self) -> Report {
        match self.reconciler("one/1").pass().await.unwrap() {
            Passed::Done(report) => report,
            Passed::Elsewhere { holder } => panic!("{holder} is at it"),
        }
    }

    fn job(&self) -> Job {
        job("a red fox", self.now())
    }

    /// As of an `Idempotency-Key`: without a time in it.
    fn keyed_job(&self, key: &str) -> Job {
        let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        let job = self.job();
        Job { id: keys.derive(&job.tenant, key), ..job }
    }

    /// Writes the record of a job that a worker took and left without a word.
    fn abandoned(&self, job: &Job, message_id: &str) -> Record {
        let mut record = Record::begin(job, self.now());
        record.attempts = 5;
        record.claim = Some(claim(message_id, self.now()));
        self.store.put_record(record.clone());
        record
    }

    async fn ledger(&self) -> Ledger {
        serde_json::from_slice(&self.store.read_control(ledger_key()).await.unwrap().unwrap().0).unwrap()
    }
}

fn claim(message_id: &str, deadline_at: Timestamp) -> Claim {
    let (token, worker) = (Uuid::new_v4(), "gone/1".to_owned());
    Claim { token, worker, message_id: message_id.to_owned(), receive_count: 5, deadline_at }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_without_an_end_becomes_failed_and_stays_where_it_is() {
    let site = Site::new();
    let job = site.job();
    let id = site.letters.send(job.encode());
    site.abandoned(&job, &id);
    let report = site.pass().await;
    assert_eq!((report.letters_that_are(Judged::Ended), report.saw_every_letter), (1, true));
    let record = site.store.record(&job.id).unwrap();
    assert_eq!((record.status, record.claim, record.finished_at), (Status::Failed, None, Some(site.now())));
    assert_eq!(record.error.as_ref().unwrap().code, FailureCode::AttemptsExhausted);
    assert_eq!(record.reconciled_at, Some(site.now()));
    assert_eq!((site.letters.len(), site.letters.visible()), (1, 1), "an operator must still see it");
    let again = site.pass().await;
    assert_eq!(again.letters_that_are(Judged::AlreadyFinal), 1);
    assert_eq!(site.store.history().len(), 2, "nothing is written twice");
}

#[tokio::test(start_paused = true)]
async fn the_last_fault_is_told_and_a_job_without_a_record_gets_one() {
    let site = Site::new();
    let (waiting, unseen) = (site.job(), site.job());
    let mut record = site.abandoned(&waiting, "another");
    (record.claim, record.last_fault, record.status) = (None, Some("model_failed".to_owned()), Status::Queued);
    site.store.put_record(record);
    site.letters.send(waiting.encode());
    site.letters.send(unseen.encode());
    assert_eq!(site.pass().await.letters_that_are(Judged::Ended), 2);
    assert_eq!(site.store.record(&waiting.id).unwrap().error.unwrap().detail, "last fault: model_failed");
    let made = site.store.record(&unseen.id).unwrap();
    assert_eq!((made.status, made.attempts, made.started_at), (Status::Failed, 0, None));
    assert_eq!(made.submitted_at, Some(unseen.submitted_at));
}

#[tokio::test(start_paused = true)]
async fn a_success_that_is_written_meanwhile_is_never_overwritten() {
    let site = Site::new();
    let (dead, old) = (site.job(), site.job());
    let id = site.letters.send(dead.encode());
    let mut success = site.abandoned(&dead, &id);
    success.finish(Status::Succeeded, site.now());
    site.store.write_first(success.clone());
    let report = site.pass().await;
    assert_eq!((report.letters_that_are(Judged::Ended), report.letters_that_are(Judged::AlreadyFinal)), (0, 1));
    assert_eq!(site.store.record(&dead.id), Some(success));

    let mut success = site.abandoned(&old, "nowhere");
    site.passes(RETENTION_DAYS * 24 + 13);
    success.finish(Status::Succeeded, site.now());
    site.store.write_first(success.clone());
    assert_eq!(site.pass().await.expired, 0);
    assert_eq!(site.store.record(&old.id), Some(success));
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_a_claim_is_left_alone() {
    let site = Site::new();
    let job = site.job();
    let id = site.letters.send(job.encode());
    let mut record = site.abandoned(&job, &id);
    record.claim = Some(claim(&id, site.now() + SignedDuration::from_secs(60)));
    site.store.put_record(record.clone());
    assert_eq!(site.pass().await.letters_that_are(Judged::InHand), 1);
    assert_eq!(site.store.record(&job.id), Some(record.clone()));
    // The claim has run out, and its call may still bring a picture.
    record.claim = Some(claim(&id, site.now()));
    record.paying_until = Some(site.now() + SignedDuration::from_secs(60));
    site.store.put_record(record);
    assert_eq!(site.pass().await.letters_that_are(Judged::InHand), 1);
    site.passes(1);
    assert_eq!(site.pass().await.letters_that_are(Judged::Ended), 1);
    assert_eq!(site.store.record(&job.id).unwrap().paying_until, None);
}

#[tokio::test(start_paused = true)]
async fn the_letter_of_an_earlier_wish_does_not_end_a_job_that_is_wanted_again() {
    let site = Site::new();
    let job = site.job();
    let id = site.letters.send(job.encode());
    let mut record = site.abandoned(&job, &id);
    record.finish(Status::Failed, site.now());
    let again = Job { retries: 1, submitted_at: site.now(), ..job.clone() };
    record.retry(&again, site.now());
    site.store.put_record(record.clone());
    assert_eq!(site.pass().await.letters_that_are(Judged::Repeat), 1);
    assert_eq!(site.store.record(&job.id), Some(record));
    // The newer one is dead as well: that is the end.
    site.letters.send(again.encode());
    assert_eq!(site.pass().await.letters_that_are(Judged::Ended), 1);
    assert_eq!(site.store.record(&job.id).unwrap().status, Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_waits_for_the_other_message_of_its_job() {
    let site = Site::new();
    let (repeated, own) = (site.keyed_job("assignment-1"), site.keyed_job("assignment-2"));
    site.letters.send(repeated.encode());
    site.abandoned(&repeated, "the first of the two");
    let id = site.letters.send(own.encode());
    site.abandoned(&own, &id);
    let report = site.pass().await;
    assert_eq!((report.letters_that_are(Judged::Repeat), report.letters_that_are(Judged::Ended)), (1, 1));
    assert_eq!(site.store.record(&own.id).unwrap().status, Status::Failed);
    site.passes(12);
    assert_eq!(site.pass().await.letters_that_are(Judged::Ended), 1);
    assert_eq!(site.store.record(&repeated.id).unwrap().status, Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_job_of_ours_is_counted_and_left_alone() {
    let site = Site::new();
    let (first, mut second) = (site.keyed_job("one"), site.keyed_job("one"));
    second.spec = job("a blue hen", site.now()).spec;
    let record = site.abandoned(&first, "gone");
    site.letters.send("not json");
    site.letters.send(r#"{"v":99}"#);
    site.letters.send(second.encode());
    let report = site.pass().await;
    for judged in [Judged::Poison, Judged::Newer, Judged::OtherJob] {
        assert_eq!(report.letters_that_are(judged), 1, "{judged:?}");
    }
    assert_eq!(site.store.record(&first.id), Some(record));
    assert_eq!(site.letters.visible(), 3);
}

#[tokio::test(start_paused = true)]
async fn more_letters_than_the_bound_are_no_endless_pass() {
    let mut site = Site::new();
    site.bounds.letters = 20;
    for _ in 0..45 {
        site.letters.send(site.job().encode());
    }
    let report = site.pass().await;
    assert!(!report.saw_every_letter);
    assert_eq!((report.letters_that_are(Judged::Ended), site.letters.visible()), (20, 45));
    site.bounds.letters = 1000;
    let report = site.pass().await;
    assert!(report.saw_every_letter);
    assert_eq!(report.letters.values().sum::<u64>(), 45);
}

#[tokio::test(start_paused = true)]
async fn a_job_expires_when_its_message_can_no_longer_be_anywhere() {
    let site = Site::new();
    let (lost, ended, held) = (site.job(), site.job(), site.job());
    site.abandoned(&lost, "nowhere");
    let mut record = site.abandoned(&ended, "done");
    record.finish(Status::Canceled, site.now());
    site.store.put_record(record);
    site.passes(RETENTION_DAYS * 24 + 11);
    let mut record = site.abandoned(&held, "in hand");
    record.claim = Some(claim("in hand", site.now() + SignedDuration::from_hours(2)));
    record.updated_at = site.now() - SignedDuration::from_hours(200);
    site.store.put_record(record);
    assert_eq!(site.pass().await.expired, 0, "a message may be held for twelve hours");
    site.passes(1);
    let report = site.pass().await;
    assert_eq!((report.expired, report.swept), (0, true), "to the millisecond it is not yet over");
    site.millis.fetch_add(1, Ordering::SeqCst);
    assert_eq!(site.pass().await.expired, 1);
    let record = site.store.record(&lost.id).unwrap();
    assert_eq!((record.status, record.error, record.claim), (Status::Expired, None, None));
    assert_eq!(record.reconciled_at, Some(site.now()));
    assert_eq!(site.store.record(&ended.id).unwrap().status, Status::Canceled);
    assert_eq!(site.store.record(&held.id).unwrap().status, Status::Generating);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_where_the_last_pass_ended_and_reads_no_record_twice() {
    let mut site = Site::new();
    site.bounds.keys = 1000;
    for _ in 0..2500 {
        site.abandoned(&site.job(), "nowhere");
    }
    site.passes(RETENTION_DAYS * 24 + 13);
    let mut read = 0;
    for (listed, swept) in [(1000, false), (1000, false), (500, true)] {
        let report = site.pass().await;
        assert_eq!((report.listed, report.swept, report.expired), (listed, swept, listed));
        read += report.read;
    }
    assert_eq!(read, 2500);
    let ledger = site.ledger().await;
    assert_eq!((ledger.after, ledger.began_at), (None, None));
    assert!(ledger.judged_before.is_some() && ledger.until <= site.now());
    site.bounds = Bounds::default();
    assert_eq!((site.pass().await.read, site.pass().await.listed), (0, 2500), "what they were then they still are");
    // Its end is younger than what has been judged, and is read once.
    site.passes(RETENTION_DAYS * 24 + 13);
    assert_eq!((site.pass().await.read, site.pass().await.read), (2500, 0));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_tried_again_by_the_next_sweep() {
    let site = Site::new();
    let jobs: Vec<_> = (0..3).map(|_| site.job()).collect();
    jobs.iter().for_each(|job| drop(site.abandoned(job, "nowhere")));
    site.passes(RETENTION_DAYS * 24 + 13);
    site.store.fail(Call::ReadRecord, 1, JobError::new(Kind::StoreUnavailable, "not JSON"));
    let report = site.pass().await;
    assert_eq!((report.expired, report.unreadable, report.swept), (2, 1, true));
    let report = site.pass().await;
    assert_eq!((report.expired, report.unreadable), (1, 0));
    assert!(jobs.iter().all(|job| site.store.record(&job.id).unwrap().status == Status::Expired));
}

/// Told before it is written: what has an end is not looked at again.
#[tokio::test(start_paused = true)]
async fn an_end_is_told_before_it_is_written_and_waits_for_the_webhook_queue() {
    let webhooks = Arc::new(MemoryQueue::new(HIDDEN, Duration::from_secs(1), 30));
    let site = Site { notices: Some(webhooks.clone()), ..Site::new() };
    let (dead, lost) = (site.job(), site.job());
    site.abandoned(&lost, "nowhere");
    site.passes(RETENTION_DAYS * 24 + 13);
    let id = site.letters.send(dead.encode());
    site.abandoned(&dead, &id);
    webhooks.close_entrance(QueueError::Unavailable("503".into()));
    let report = site.pass().await;
    assert_eq!((report.letters_that_are(Judged::Unreadable), report.expired, report.unreadable), (1, 0, 2));
    assert!([&dead, &lost].iter().all(|job| !site.store.record(&job.id).unwrap().status.is_final()));
    webhooks.close_entrance(QueueError::Misconfigured("AccessDenied".into()));
    let error = site.reconciler("one/1").pass().await.unwrap_err().to_string();
    assert!(error.contains("webhook_queue_refused"), "{error}");

    webhooks.open_entrance();
    let report = site.pass().await;
    assert_eq!((report.letters_that_are(Judged::Ended), report.expired), (1, 1));
    assert_eq!(webhooks.bodies(), [&dead, &lost].map(|job| Notice::of(job).encode()));
    site.pass().await;
    assert_eq!(webhooks.sent(), 2, "each once");
}

#[tokio::test(start_paused = true)]
async fn of_two_reconcilers_one_steps_back_and_a_dead_one_is_replaced() {
    let site = Site::new();
    let job = site.job();
    let id = site.letters.send(job.encode());
    site.abandoned(&job, &id);
    let (one, other) = (site.reconciler("one/1"), site.reconciler("other/2"));
    let (first, second) = tokio::join!(one.pass(), other.pass());
    let elsewhere =
        [first.unwrap(), second.unwrap()].into_iter().filter(|passed| matches!(passed, Passed::Elsewhere { .. }));
    assert_eq!(elsewhere.count(), 1);

    let mut dead = site.ledger().await;
    (dead.holder, dead.until) = ("dead/3".to_owned(), site.now() + SignedDuration::from_mins(10));
    let (_, version) = site.store.read_control(ledger_key()).await.unwrap().unwrap();
    let body = serde_json::to_vec(&dead).unwrap().into();
    site.store.write_control(ledger_key(), body, Some(&version)).await.unwrap();
    assert_eq!(one.pass().await.unwrap(), Passed::Elsewhere { holder: "dead/3".to_owned() });
    site.passes(1);
    assert!(matches!(one.pass().await.unwrap(), Passed::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_leaves_nothing_hidden_and_no_lease() {
    let site = Site::new();
    let job = site.job();
    let id = site.letters.send(job.encode());
    let record = site.abandoned(&job, &id);
    site.store.fail(Call::ReadRecord, 1, JobError::new(Kind::AccessDenied, "not you"));
    let error = site.reconciler("one/1").pass().await.unwrap_err().to_string();
    assert!(error.contains("access_denied"), "{error}");
    assert_eq!((site.letters.visible(), site.store.record(&job.id)), (1, Some(record)));
    site.letters.fail_next_receive(QueueError::Misconfigured("AccessDenied".into()));
    let error = site.reconciler("one/1").pass().await.unwrap_err().to_string();
    assert!(error.starts_with("the dead-letter queue: "), "{error}");
    assert_eq!(site.pass().await.letters_that_are(Judged::Ended), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_reconciler_ended_is_done_all_the_same_when_its_message_turns_up() {
    let world = World::new();
    let (failed, expired, refused) = (world.job("a red fox"), world.job("a blue hen"), world.job("a grey owl"));
    for (job, status, failure) in [
        (&failed, Status::Failed, Some(Failure::new(FailureCode::AttemptsExhausted, "in the dead-letter queue"))),
        (&expired, Status::Expired, None),
    ] {
        let mut record = Record::begin(job, world.now());
        record.finish(status, world.now());
        (record.error, record.reconciled_at) = (failure, Some(world.now()));
        world.store.put_record(record);
    }
    // By a worker, because its deadline had passed: that is the last word.
    let mut record = Record::begin(&refused, world.now());
    record.finish(Status::Expired, world.now());
    world.store.put_record(record);
    for job in [&failed, &expired, &refused] {
        world.queue.send(job.encode());
    }
    let worker = world.start();
    for job in [&failed, &expired] {
        let record = world.status(job, Status::Succeeded).await;
        assert_eq!((record.reconciled_at, record.error), (None, None));
    }
    world.settled().await;
    assert_eq!(world.store.record(&refused.id).unwrap().status, Status::Expired);
    assert_eq!(world.model.paid("a grey owl"), 0);
    worker.stop().await;
}
