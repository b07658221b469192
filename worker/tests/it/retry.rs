//! A job that its caller asks for again after its end: done once more, paid for once, and only by the newest message.

use std::time::Duration;

use jiff::SignedDuration;
use job::{Failure, FailureCode, Job, Record, Status};
use worker::error::{JobError, Kind};

use crate::support::{Answer, Call, World};

/// Makes the message that the API sends when the job is asked for again.
fn again(world: &World, job: &Job, retries: u32) -> Job {
    Job { retries, submitted_at: world.now(), ..job.clone() }
}

/// Cancels as the API does.
fn cancel(world: &World, job: &Job) {
    let mut record = world.store.record(&job.id).unwrap();
    record.finish(Status::Canceled, world.now());
    world.store.put_record(record);
}

/// Makes the job wait again, as the API does once the message is sent.
fn reopen(world: &World, again: &Job) {
    let mut record = world.store.record(&again.id).unwrap();
    record.retry(again, world.now());
    world.store.put_record(record);
}

fn ended(world: &World, job: &Job, status: Status) -> Record {
    let mut record = Record::begin(job, world.now());
    record.attempts = 1;
    record.finish(status, world.now());
    world.store.put_record(record.clone());
    record
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_under_way_at_the_cancel_is_the_one_that_is_paid() {
    // The API has made the record wait again, or could not.
    for reopened in [true, false] {
        let world = World::new();
        world.model.take(Duration::from_secs(30));
        let job = world.submit("a red fox");
        let worker = world.start_with(&["--worker-slots", "4", "--cpu-threads", "1"]);
        world.when("the call", || (world.model.calls() == 1).then_some(())).await;
        cancel(&world, &job);
        let again = again(&world, &job, 1);
        world.queue.send(again.encode());
        if reopened {
            reopen(&world, &again);
        }
        let record = world.status(&job, Status::Succeeded).await;
        assert_eq!((record.retries, record.retried_at), (1, Some(again.submitted_at)), "{reopened}");
        world.settled().await;
        assert_eq!((world.model.calls(), world.model.paid("a red fox")), (1, 1), "{reopened}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_job_uses_the_picture_that_was_paid_for() {
    let world = World::new();
    world.store.fail(Call::WriteImage, usize::MAX, JobError::new(Kind::RenderFailed, "no"));
    let job = world.submit("a red fox");
    let worker = world.start();
    world.status(&job, Status::Failed).await;
    world.store.heal();
    let again = again(&world, &job, 1);
    world.queue.send(again.encode());
    reopen(&world, &again);
    let record = world.status(&job, Status::Succeeded).await;
    assert!(record.error.is_none() && record.image.is_some());
    world.when("the dead letter", || (world.queue.dead().len() == 1 && world.queue.len() == 0).then_some(())).await;
    assert_eq!(world.model.paid("a red fox"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_message_of_an_earlier_wish_has_no_say() {
    let world = World::new();
    // Canceled before any worker saw it; its message still waits, with a deadline that has passed.
    let mut first = world.job("a red fox");
    first.deadline_at = Some(world.now() - SignedDuration::from_secs(1));
    ended(&world, &first, Status::Canceled);
    let again = Job { deadline_at: None, ..again(&world, &first, 1) };
    reopen(&world, &again);
    world.queue.send(first.encode());
    let worker = world.start();
    world.settled().await;
    assert_eq!(world.store.record(&first.id).unwrap().status, Status::Queued, "it waits for the newer message");
    world.queue.send(again.encode());
    world.status(&first, Status::Succeeded).await;
    world.settled().await;
    assert_eq!(world.model.paid("a red fox"), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_from_the_newest_wish() {
    let world = World::new();
    let mut job = world.job("a red fox");
    job.deadline_at = Some(world.now() - SignedDuration::from_secs(1));
    world.queue.send(job.encode());
    let worker = world.start();
    world.status(&job, Status::Expired).await;
    let again = Job { deadline_at: Some(world.now() + SignedDuration::from_secs(60)), ..again(&world, &job, 1) };
    world.queue.send(again.encode());
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.deadline_at, again.deadline_at);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_model_has_spoken_stands() {
    let world = World::new();
    let worker = world.start();
    world.model.script("something refused", [Answer::Fail(JobError::new(Kind::ContentFiltered, "no"))]);
    let refused = world.submit("something refused");
    world.status(&refused, Status::Blocked).await;
    let made = world.submit("a red fox");
    world.status(&made, Status::Succeeded).await;
    let unreadable = world.job("an unreadable picture");
    let mut record = ended(&world, &unreadable, Status::Failed);
    record.error = Some(Failure::new(FailureCode::SourceUndecodable, "twice"));
    world.store.put_record(record);
    let calls = world.model.calls();
    for job in [refused, made, unreadable] {
        let before = world.store.record(&job.id);
        world.queue.send(again(&world, &job, 1).encode());
        world.settled().await;
        assert_eq!(world.store.record(&job.id), before);
    }
    assert_eq!(world.model.calls(), calls);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_wish_twice_in_the_queue_is_one_job() {
    let world = World::new();
    let job = world.job("a red fox");
    ended(&world, &job, Status::Canceled);
    for _ in 0..2 {
        world.queue.send(again(&world, &job, 1).encode());
    }
    let worker = world.start_with(&["--worker-slots", "4", "--cpu-threads", "1"]);
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!(world.model.paid("a red fox"), 1);
    // Canceled in between: the second message does not bring it back.
    let job = world.job("a blue hen");
    ended(&world, &job, Status::Canceled);
    let again = again(&world, &job, 1);
    reopen(&world, &again);
    cancel(&world, &job);
    world.queue.send(again.encode());
    world.settled().await;
    assert_eq!(world.store.record(&job.id).unwrap().status, Status::Canceled);
    assert_eq!(world.model.paid("a blue hen"), 0);
    worker.stop().await;
}
