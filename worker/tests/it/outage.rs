//! Faults of the environment: the fleet pauses and says why; no job is lost, dead-lettered or failed.

use std::time::Duration;

use job::{Job, Status};
use worker::error::{JobError, Kind};
use worker::queue::QueueError;

use crate::support::{Answer, Call, World};

#[tokio::test(start_paused = true)]
async fn a_misconfigured_model_is_held_for_an_hour_and_recovers_by_itself() {
    for kind in [Kind::AccessDenied, Kind::ModelRetired, Kind::ModelNotFound, Kind::CredentialsUnavailable] {
        let world = World::new();
        world.model.always(Some(Answer::Fail(JobError::new(kind, "scripted"))));
        let worker = world.start();
        let jobs: Vec<_> = (0..30).map(|n| world.submit(&format!("picture {n}"))).collect();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(worker.readiness.reasons()["circuit"].contains(kind.as_str()), "{kind:?}");
        assert!(world.model.calls() < 120, "{} calls while the circuit was open", world.model.calls());
        world.model.always(None);
        for job in &jobs {
            world.status(job, Status::Succeeded).await;
        }
        world.settled().await;
        assert!(worker.readiness.is_ready());
        assert!(world.queue.dead().is_empty(), "{kind:?}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_down_for_an_hour_costs_time_and_not_jobs() {
    let world = World::new();
    world.model.always(Some(Answer::Fail(JobError::new(Kind::ModelUnavailable, "503"))));
    let worker = world.start();
    let jobs: Vec<_> = (0..30).map(|n| world.submit(&format!("picture {n}"))).collect();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    world.model.always(None);
    for job in &jobs {
        world.status(job, Status::Succeeded).await;
    }
    world.settled().await;
    assert!(world.queue.dead().is_empty());
    assert!(world.store.history().iter().all(|record| record.status != Status::Failed), "no client was told 'failed'");
    assert_eq!(world.model.paid_in_all(), 30);
    worker.stop().await;
}

/// Prompts on which the model always fails look like an outage for a while. Held for as long as only they probe, they would
/// hold everybody up.
#[tokio::test(start_paused = true)]
async fn jobs_on_which_the_model_always_fails_do_not_hold_the_others_up_and_end() {
    let world = World::new();
    let bad: Vec<_> = (0..6)
        .map(|n| {
            let (prompt, kind) = (format!("bad {n}"), [Kind::ModelTimedOut, Kind::ModelFailed][n % 2]);
            world.model.script(&prompt, vec![Answer::Fail(JobError::new(kind, "scripted")); 10_000]);
            world.submit(&prompt)
        })
        .collect();
    let worker = world.start();
    world.when("an open circuit", || worker.readiness.reasons().contains_key("circuit").then_some(())).await;
    let good: Vec<_> = (0..60).map(|n| world.submit(&format!("picture {n}"))).collect();
    for job in &good {
        world.status(job, Status::Succeeded).await;
    }
    let is_failed = |job: &Job| world.store.record(&job.id).is_some_and(|record| record.status == Status::Failed);
    for n in 0.. {
        if bad.iter().all(is_failed) {
            break;
        }
        assert!(n < 400, "they are tried as often as any job, and no more");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let job = world.submit(&format!("later picture {n}"));
        world.status(&job, Status::Succeeded).await;
    }
    world.settled().await;
    assert_eq!(world.queue.dead().len(), bad.len());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_is_held_before_anything_is_paid_for() {
    let world = World::new();
    let missing = JobError::new(Kind::BucketNotFound, "NoSuchBucket");
    world.store.fail(Call::ReadRecord, usize::MAX, missing.clone());
    world.store.fail(Call::WriteRecord, usize::MAX, missing);
    let worker = world.start();
    let job = world.submit("a red fox");
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(world.model.calls(), 0);
    assert!(worker.readiness.reasons()["circuit"].contains("bucket_not_found"));
    world.store.heal();
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paid_picture_waits_for_a_bucket_that_went_away_and_is_not_paid_again() {
    for kind in [Kind::BucketNotFound, Kind::AccessDenied, Kind::StoreUnavailable] {
        let world = World::new();
        world.store.fail(Call::WriteSource, usize::MAX, JobError::new(kind, "scripted"));
        let worker = world.start();
        let job = world.submit("a red fox");
        tokio::time::sleep(Duration::from_secs(600)).await;
        world.store.heal();
        world.status(&job, Status::Succeeded).await;
        assert_eq!(world.model.paid("a red fox"), 1, "{kind:?}");
        world.settled().await;
        assert!(worker.readiness.is_ready(), "{kind:?}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fails_is_polled_again_with_pauses() {
    let world = World::new();
    for _ in 0..5 {
        world.queue.fail_next_receive(QueueError::Unavailable("503".into()));
        world.queue.fail_next_receive(QueueError::Misconfigured("AccessDenied".into()));
    }
    let worker = world.start();
    let job = world.submit("a red fox");
    world.when("a reason", || worker.readiness.reasons().contains_key("queue").then_some(())).await;
    world.status(&job, Status::Succeeded).await;
    assert!(worker.readiness.is_ready());
    world.settled().await;
    worker.stop().await;
}
