//! Ends without a picture that no retry can change: the record says why, and the delivery is deleted.

use job::{FailureCode, Status};
use worker::error::{JobError, Kind};

use crate::support::{Answer, World};

#[tokio::test(start_paused = true)]
async fn a_refusal_is_blocked_at_once_with_a_sentence_for_people() {
    let world = World::new();
    world.model.script("something", [Answer::Fail(JobError::new(Kind::ContentFiltered, "Filter reason: prompt"))]);
    let worker = world.start();
    let job = world.submit("something");
    let record = world.status(&job, Status::Blocked).await;
    let error = record.error.unwrap();
    assert_eq!((error.code, error.retryable), (FailureCode::ContentFiltered, false));
    assert!(error.title.contains("content policy"), "{}", error.title);
    world.settled().await;
    assert_eq!(world.model.calls(), 1);
    assert!(world.queue.dead().is_empty());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_fails_at_once() {
    let world = World::new();
    world.model.script("something", [Answer::Fail(JobError::new(Kind::RequestRejected, "ValidationException"))]);
    let worker = world.start();
    let job = world.submit("something");
    let record = world.status(&job, Status::Failed).await;
    assert_eq!(record.error.unwrap().code, FailureCode::RequestRejected);
    world.settled().await;
    assert_eq!(world.model.calls(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_picture_is_asked_for_once_more_with_another_seed() {
    let world = World::new();
    world.model.script("a red fox", [Answer::Garbage]);
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.source.unwrap().generation, 2);
    let seeds = world.model.seeds();
    assert_eq!(seeds.len(), 2);
    assert_ne!(seeds[0], seeds[1]);
    assert_eq!(world.store.source(&job.id).unwrap().info.generation, 2, "the bad checkpoint was replaced");
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn undecodable_twice_fails_and_never_a_third_call() {
    let world = World::new();
    world.model.always(Some(Answer::Garbage));
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Failed).await;
    assert_eq!(record.error.unwrap().code, FailureCode::SourceUndecodable);
    world.settled().await;
    assert_eq!(world.model.paid("a red fox"), 2);
    worker.stop().await;
}
