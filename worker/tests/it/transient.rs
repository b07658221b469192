//! Faults that pass: another attempt later, and after the last one a record that says so before the dead-letter queue.

use job::{FailureCode, Status};
use worker::error::{JobError, Kind};

use crate::support::{Answer, MAX_RECEIVE_COUNT, World};

fn fail(kind: Kind) -> Answer {
    Answer::Fail(JobError::new(kind, "scripted"))
}

#[tokio::test(start_paused = true)]
async fn each_kind_is_tried_again_and_succeeds() {
    for kind in [
        Kind::ModelUnavailable,
        Kind::ModelTimedOut,
        Kind::ModelUnreachable,
        Kind::ModelFailed,
        Kind::ModelAnswerMalformed,
        Kind::ModelQuotaExceeded,
    ] {
        let world = World::new();
        world.model.script("a red fox", [fail(kind), fail(kind)]);
        let worker = world.start();
        let job = world.submit("a red fox");
        let waiting = world.record_when(&job, |record| record.last_fault.is_some()).await;
        assert_eq!(waiting.status, Status::Queued, "a client reads that it waits");
        assert_eq!(waiting.last_fault.as_deref(), Some(kind.as_str()));
        let record = world.status(&job, Status::Succeeded).await;
        assert_eq!((record.attempts, record.last_fault), (3, None), "{kind:?}");
        assert_eq!(world.model.paid("a red fox"), 1);
        world.settled().await;
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_writes_failed_and_leaves_the_body_intact_to_the_dead_letter_queue() {
    let world = World::new();
    world.model.always(Some(fail(Kind::ModelFailed)));
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Failed).await;
    let error = record.error.unwrap();
    assert_eq!((error.code, error.retryable), (FailureCode::AttemptsExhausted, true));
    assert_eq!(record.attempts, MAX_RECEIVE_COUNT);
    world.settled().await;
    assert_eq!(world.queue.dead(), [job.encode()]);

    // An operator redrives it once the fault is mended.
    world.model.always(None);
    world.queue.send(job.encode());
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_reading_an_answer_is_one_failed_attempt() {
    let world = World::new();
    world.model.script("a red fox", [Answer::Panic]);
    let worker = world.start();
    let (job, neighbour) = (world.submit("a red fox"), world.submit("a hen"));
    assert_eq!(world.status(&job, Status::Succeeded).await.attempts, 2);
    assert_eq!(world.status(&neighbour, Status::Succeeded).await.attempts, 1);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn throttled_for_ten_minutes_loses_nothing_and_burns_no_receive_count() {
    let world = World::new();
    world.model.always(Some(fail(Kind::ModelThrottled)));
    let worker = world.start();
    let jobs: Vec<_> = (0..40).map(|n| world.submit(&format!("picture {n}"))).collect();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let calls_while_throttled = world.model.calls();
    assert!(calls_while_throttled < 200, "{calls_while_throttled} calls in ten minutes are a storm");
    world.model.always(None);
    for job in &jobs {
        assert_eq!(world.status(job, Status::Succeeded).await.attempts, 1);
    }
    assert!(world.queue.dead().is_empty());
    assert_eq!(world.model.paid_in_all(), 40);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_throttled_nothing_more_is_received() {
    let world = World::new();
    world.model.always(Some(fail(Kind::ModelThrottled)));
    let worker = world.start_with(&["--worker-slots", "100"]);
    for n in 0..5 {
        world.submit(&format!("early picture {n}"));
    }
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    for n in 0..200 {
        world.submit(&format!("picture {n}"));
    }
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    // A long poll that was under way when the first call was throttled may still bring ten.
    assert!(worker.in_flight() <= 15, "{} held", worker.in_flight());
    world.model.always(None);
    world.settled().await;
    worker.stop().await;
}
