//! Every end is told to the webhook queue before its message is deleted, and an outage of that queue loses nothing.

use std::time::Duration;

use job::{Failure, FailureCode, Notice, Record, Status};
use worker::error::{JobError, Kind};
use worker::queue::QueueError;

use crate::support::{Answer, LEASE, MAX_RECEIVE_COUNT, MemoryQueue, World};

/// The jobs that were told, in order.
fn told(queue: &MemoryQueue) -> Vec<Notice> {
    queue.bodies().iter().map(|body| Notice::decode(body).unwrap()).collect()
}

fn refused(kind: Kind) -> Answer {
    Answer::Fail(JobError::new(kind, "scripted"))
}

#[tokio::test(start_paused = true)]
async fn each_end_sends_one_notice() {
    let (world, webhooks) = World::with_webhooks();
    let worker = world.start();
    let succeeded = world.submit("a red fox");
    world.status(&succeeded, Status::Succeeded).await;
    world.model.always(Some(refused(Kind::ContentFiltered)));
    let blocked = world.submit("a grey owl");
    world.status(&blocked, Status::Blocked).await;
    world.model.always(Some(refused(Kind::RequestRejected)));
    let failed = world.submit("a brown bear");
    world.status(&failed, Status::Failed).await;
    let mut expired = world.job("a blue hen");
    expired.deadline_at = Some(world.now());
    world.queue.send(expired.encode());
    world.status(&expired, Status::Expired).await;
    let canceled = world.job("a white swan");
    world.store.put_record(Record::canceled_before_start(canceled.id, canceled.tenant.clone(), world.now()));
    world.queue.send(canceled.encode());
    world.settled().await;
    worker.stop().await;
    let jobs = [&succeeded, &blocked, &failed, &expired, &canceled];
    assert_eq!(told(&webhooks), jobs.map(Notice::of));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_for_want_of_attempts_is_told_once_and_before_it_is_a_dead_letter() {
    let (world, webhooks) = World::with_webhooks();
    world.model.always(Some(refused(Kind::ModelFailed)));
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Failed).await;
    world.when("a dead letter", || (world.queue.dead().len() == 1).then_some(())).await;
    worker.stop().await;
    assert_eq!(told(&webhooks), [Notice::of(&job)]);
}

/// A process that was killed between the end and the notice: the next hand-over finds the end, and tells.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_written_and_not_told_is_told_at_redelivery() {
    let (world, webhooks) = World::with_webhooks();
    let mut job = world.job("a red fox");
    job.retries = 2;
    let mut record = Record::begin(&job, world.now());
    record.retries = 2;
    record.finish(Status::Succeeded, world.now());
    world.store.put_record(record.clone());
    world.queue.send(job.encode());
    let worker = world.start();
    world.settled().await;
    worker.stop().await;
    assert_eq!(told(&webhooks), [Notice { retries: 2, ..Notice::of(&job) }]);
    assert_eq!((world.store.record(&job.id), world.model.calls()), (Some(record), 0));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_webhook_queue_loses_neither_job_nor_notice() {
    for fault in [QueueError::Unavailable("503".into()), QueueError::Misconfigured("AccessDenied".into())] {
        let (world, webhooks) = World::with_webhooks();
        webhooks.close_entrance(fault.clone());
        let worker = world.start();
        let jobs: Vec<_> = (0..20).map(|n| world.submit(&format!("picture {n}"))).collect();
        world.status(&jobs[0], Status::Succeeded).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(world.queue.len() > 0 && told(&webhooks).is_empty(), "{fault}");
        if matches!(fault, QueueError::Misconfigured(_)) {
            assert!(worker.readiness.reasons()["circuit"].contains("webhook_queue_refused"));
        }
        webhooks.open_entrance();
        for job in &jobs {
            world.status(job, Status::Succeeded).await;
        }
        world.settled().await;
        assert!(worker.readiness.is_ready(), "{fault}");
        worker.stop().await;
        assert!(world.queue.dead().is_empty());
        assert_eq!((world.model.paid_in_all(), told(&webhooks).len()), (20, 20), "{fault}");
        assert!(world.store.history().iter().all(|record| record.status != Status::Failed), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_outage_gives_the_message_back_and_the_next_worker_tells() {
    let (world, webhooks) = World::with_webhooks();
    webhooks.close_entrance(QueueError::Unavailable("503".into()));
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Succeeded).await;
    worker.stopping.cancel();
    world.when("the message back", || (world.queue.visible() == 1).then_some(())).await;
    worker.stop_leaving(1).await;
    assert!(told(&webhooks).is_empty());
    webhooks.open_entrance();
    let next = world.start();
    world.settled().await;
    next.stop().await;
    assert_eq!((world.model.calls(), told(&webhooks)), (1, vec![Notice::of(&job)]));
}

/// Nobody receives the message again, so what could not be told is not ended: the reconciler does both.
#[tokio::test(start_paused = true)]
async fn the_last_hand_over_does_not_end_what_it_could_not_tell() {
    let (world, webhooks) = World::with_webhooks();
    webhooks.close_entrance(QueueError::Unavailable("503".into()));
    world.model.always(Some(refused(Kind::ModelFailed)));
    let worker = world.start();
    let job = world.submit("a red fox");
    let last = |record: &Record| record.attempts == MAX_RECEIVE_COUNT && record.claim.is_some();
    world.record_when(&job, last).await;
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(world.store.record(&job.id).unwrap().status, Status::Generating, "held");
    worker.stop().await;
    assert_eq!(world.queue.dead(), [job.encode()]);
    let record = world.store.record(&job.id).unwrap();
    assert_eq!(
        (record.status, record.claim, record.last_fault.as_deref()),
        (Status::Queued, None, Some("model_failed"))
    );
    assert!(told(&webhooks).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_redriven_job_is_told_again_with_its_new_end() {
    let (world, webhooks) = World::with_webhooks();
    let job = world.job("a red fox");
    let mut record = Record::begin(&job, world.now());
    record.finish(Status::Failed, world.now());
    record.error = Some(Failure::new(FailureCode::AttemptsExhausted, "earlier"));
    world.store.put_record(record);
    world.queue.send(job.encode());
    let worker = world.start();
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
    assert_eq!(told(&webhooks), [Notice::of(&job)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_webhook_queue_nothing_changes() {
    let world = World::new();
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}
