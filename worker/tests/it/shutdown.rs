//! Stopping: nothing stays invisible, what is under way is finished or given back, within the grace.

use std::time::Duration;

use job::{FailureCode, Status};
use worker::consumer::Drained;
use worker::error::{JobError, Kind};

use crate::support::{Answer, World};

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_finished() {
    let world = World::new();
    world.model.take(Duration::from_secs(20));
    let worker = world.start();
    let jobs: Vec<_> = (0..8).map(|n| world.submit(&format!("picture {n}"))).collect();
    world.when("calls", || (world.model.in_flight() == 8).then_some(())).await;
    assert_eq!(worker.stop().await, Drained::Clean);
    for job in &jobs {
        assert_eq!(world.store.record(&job.id).unwrap().status, Status::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_after_the_signal_is_given_back_at_once() {
    let world = World::new();
    let worker = world.start();
    // The worker is inside its long poll now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.stopping.cancel();
    let job = world.submit("a red fox");
    assert_eq!(worker.stop_leaving(1).await, Drained::Clean);
    assert_eq!(world.queue.visible(), 1);
    assert!(world.store.record(&job.id).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_limiter_or_the_circuit_is_given_back_unpaid() {
    for kind in [Kind::ModelThrottled, Kind::AccessDenied] {
        let world = World::new();
        world.model.always(Some(Answer::Fail(JobError::new(kind, "scripted"))));
        let worker = world.start();
        for n in 0..5 {
            world.submit(&format!("picture {n}"));
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let before = world.now();
        assert_eq!(worker.stop_leaving(5).await, Drained::Clean, "{kind:?}");
        assert!(world.now().duration_since(before).as_secs() < 30, "{kind:?}: nothing was waited for");
        assert_eq!(world.model.paid_in_all(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_grace_is_over_the_rest_is_given_back() {
    let world = World::new();
    world.model.script("a stalled picture", [Answer::Stall]);
    let worker = world.start();
    let stalled = world.submit("a stalled picture");
    let done = world.submit("a red fox");
    world.status(&done, Status::Succeeded).await;
    let before = world.now();
    assert_eq!(worker.stop_leaving(1).await, Drained::GraceOver);
    // The long poll, the grace, and the time to give back.
    let took = world.now().duration_since(before).as_secs();
    assert!((110..=110 + 5 + 5).contains(&took), "{took} s");

    // A worker that starts afterwards ends the job.
    let worker = world.start();
    world.status(&stalled, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_grace_is_over_the_last_hand_over_leaves_a_word_in_the_record() {
    let world = World::new();
    world.model.script("a stalled picture", [Answer::Stall]);
    let worker = world.start_with(&["--max-receive-count", "1"]);
    let stalled = world.submit("a stalled picture");
    world.status(&stalled, Status::Generating).await;
    assert_eq!(worker.stop_leaving(1).await, Drained::GraceOver);
    let record = world.store.record(&stalled.id).unwrap();
    assert_eq!((record.status, record.claim, record.attempts), (Status::Failed, None, 1));
    assert_eq!(record.error.unwrap().code, FailureCode::AttemptsExhausted);

    // As after a redrive.
    let worker = world.start();
    world.status(&stalled, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}
