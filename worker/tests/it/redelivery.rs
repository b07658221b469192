//! Duplicates, repeats, takeovers: a picture is paid for once, and a record has one writer.

use std::time::Duration;

use bytes::Bytes;
use job::{Claim, Failure, FailureCode, Record, SourceInfo, Status};
use uuid::Uuid;
use worker::error::{JobError, Kind};
use worker::store::Source;

use crate::support::{Answer, Call, World, picture};

#[tokio::test(start_paused = true)]
async fn the_same_job_twice_in_the_queue_is_paid_once() {
    let world = World::new();
    world.model.take(Duration::from_secs(5));
    let job = world.submit("a red fox");
    world.queue.send(job.encode());
    let worker = world.start();
    let record = world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!((record.attempts, world.model.paid("a red fox")), (1, 1), "the second stepped back");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_key_with_two_prompts_is_the_job_that_was_claimed_first() {
    // The second arrives while the first is worked on, and again when it has ended.
    for latency in [5, 0] {
        let world = World::new();
        world.model.take(Duration::from_secs(latency));
        let first = world.submit("a red fox");
        let mut second = world.job("a blue hen");
        second.id = first.id;
        let worker = world.start_with(&["--worker-slots", "4", "--cpu-threads", "1"]);
        world.record_when(&first, |record| latency > 0 || record.status == Status::Succeeded).await;
        world.queue.send(second.encode());
        let record = world.status(&first, Status::Succeeded).await;
        world.settled().await;
        assert_eq!(world.store.record(&first.id), Some(record.clone()));
        assert_eq!(record.spec_fingerprint, Some(first.spec.fingerprint()));
        assert_eq!((world.model.paid("a red fox"), world.model.paid("a blue hen")), (1, 0));
        assert_eq!(world.queue.dead(), [""; 0]);
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_with_two_prompts_is_told_apart_after_the_first_one_has_failed() {
    let world = World::new();
    let first = world.job("a red fox");
    // Exhausted, or given up by a worker: a record that may be claimed again, but only for its own spec.
    let mut record = Record::begin(&first, world.now());
    record.finish(Status::Failed, world.now());
    record.error = Some(Failure::new(FailureCode::AttemptsExhausted, "earlier"));
    world.store.put_record(record.clone());
    let mut second = world.job("a blue hen");
    second.id = first.id;
    world.queue.send(second.encode());
    let worker = world.start();
    world.settled().await;
    assert_eq!(world.store.record(&first.id), Some(record));
    assert_eq!(world.model.calls(), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_redelivered_does_not_take_a_live_claim_over() {
    let world = World::new();
    world.model.take(Duration::from_secs(90));
    let job = world.submit("a red fox");
    let worker = world.start();
    world.status(&job, Status::Generating).await;
    // Each of its hand-overs has a higher count than the claim's, but it is another message.
    let repeat = world.queue.send(job.encode());
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.queue.expire(&repeat);
    }
    let record = world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!((record.attempts, world.model.paid("a red fox")), (1, 1));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_after_its_end_changes_nothing() {
    let world = World::new();
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Succeeded).await;
    world.queue.send(job.encode());
    world.settled().await;
    assert_eq!(world.store.record(&job.id).unwrap(), record);
    assert_eq!(world.model.paid("a red fox"), 1);
    worker.stop().await;
}

/// What a worker that was killed in its call leaves behind: a claim, under which the call may last for `paying_for` more.
pub fn killed_in_a_call(world: &World, job: &job::Job, message_id: &str, paying_for: i64) {
    let mut record = Record::begin(job, world.now());
    record.attempts = 1;
    record.claim = Some(Claim {
        token: Uuid::new_v4(),
        worker: "killed/1".into(),
        message_id: message_id.into(),
        receive_count: 0,
        deadline_at: world.now() + jiff::SignedDuration::from_secs(240),
    });
    record.paying_until = Some(world.now() + jiff::SignedDuration::from_secs(paying_for));
    world.store.put_record(record);
}

/// And one that was killed after it: a claim and a checkpoint.
fn killed_after_paying(world: &World, job: &job::Job, message_id: &str) {
    killed_in_a_call(world, job, message_id, 100);
    let bytes = picture(7);
    let info =
        SourceInfo { model: "scripted".into(), seed: 7, bytes: bytes.len() as u64, generation: 1, made_at: None };
    world.store.put_source(job.id, Source { bytes, info });
}

#[tokio::test(start_paused = true)]
async fn the_next_delivery_takes_over_from_a_killed_worker_and_does_not_pay_again() {
    let world = World::new();
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    killed_after_paying(&world, &job, &message);
    let worker = world.start();
    let started = world.now();
    let record = world.status(&job, Status::Succeeded).await;
    assert!(world.now().duration_since(started).as_secs() < 60, "it did not wait for the dead worker's deadline");
    assert_eq!((record.attempts, record.source.unwrap().seed), (2, 7));
    assert_eq!(world.model.calls(), 0);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_comes_back_during_a_call_waits_for_its_picture() {
    let world = World::new();
    world.model.take(Duration::from_secs(20));
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    let (first, second) = (world.start(), world.start());
    world.status(&job, Status::Generating).await;
    // Cut off from the queue for longer than a lease: the message is somebody else's, and the call goes on.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.queue.expire(&message);
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!((record.attempts, world.model.paid("a red fox")), (2, 1));
    world.settled().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_in_a_call_the_model_is_asked_again_when_that_call_must_have_ended() {
    // By a clock that is right, one that is behind by ten minutes, one that is ahead; and long ago. 95 s is the default of
    // MODEL_TIMEOUT_SECONDS.
    for (paying_for, waits) in [(70, 95..130), (-600, 95..130), (3600, 95..130), (-3600, 0..10)] {
        let world = World::new();
        let job = world.job("a red fox");
        let message = world.queue.send(job.encode());
        killed_in_a_call(&world, &job, &message, paying_for);
        let worker = world.start();
        let started = world.now();
        world.status(&job, Status::Succeeded).await;
        let took = world.now().duration_since(started).as_secs();
        assert!(waits.contains(&took), "{paying_for}: {took}");
        assert_eq!(world.model.paid("a red fox"), 1);
        world.settled().await;
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_take_over_whose_answer_was_lost_waits_for_the_call_all_the_same() {
    let world = World::new();
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    killed_in_a_call(&world, &job, &message, 70);
    // The repeat of that write finds itself, and the record is ours by then.
    world.store.lose_next_answer();
    let worker = world.start();
    let started = world.now();
    world.status(&job, Status::Succeeded).await;
    let took = world.now().duration_since(started).as_secs();
    assert!((95..130).contains(&took), "{took}");
    assert_eq!(world.model.paid("a red fox"), 1);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_waits_for_the_call_that_the_last_attempt_was_waiting_for() {
    let world = World::new();
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    killed_in_a_call(&world, &job, &message, 70);
    // The last attempt fails before it could see whether the call brings a picture. The queue, which counts on more of
    // them, hands the message over again at once, as a redrive would.
    world.store.fail(Call::ReadSource, 1, JobError::new(Kind::StoreUnavailable, "away"));
    let worker = world.start_with(&["--max-receive-count", "1"]);
    let record = world.status(&job, Status::Succeeded).await;
    let failed = world.store.history().into_iter().find(|record| record.status == Status::Failed).unwrap();
    assert_eq!(failed.error.unwrap().code, FailureCode::AttemptsExhausted);
    let took = record.finished_at.unwrap().duration_since(failed.finished_at.unwrap()).as_secs();
    assert!((95..130).contains(&took), "{took}");
    assert_eq!(world.model.paid("a red fox"), 1);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_during_an_outage_does_not_wait_for_its_own_call() {
    let world = World::new();
    world.model.script("a red fox", [Answer::Fail(JobError::new(Kind::AccessDenied, "not yet"))]);
    let worker = world.start();
    let job = world.submit("a red fox");
    let started = world.now();
    world.status(&job, Status::Succeeded).await;
    let took = world.now().duration_since(started).as_secs();
    assert!(took < 20, "the first probe is after 5 s: {took}");
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_claim_of_another_message_is_taken_over_at_its_deadline() {
    let world = World::new();
    let job = world.job("a red fox");
    killed_after_paying(&world, &job, "message of an earlier request");
    world.queue.send(job.encode());
    let worker = world.start();
    let started = world.now();
    world.status(&job, Status::Succeeded).await;
    assert!(world.now().duration_since(started).as_secs() >= 240);
    assert_eq!(world.model.calls(), 0);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn our_own_write_whose_answer_was_lost_is_not_a_conflict() {
    let world = World::new();
    world.model.take(Duration::from_secs(10));
    world.store.lose_next_answer();
    let worker = world.start();
    let job = world.submit("a red fox");
    // The claim is written; the next write is the one after the model's answer.
    world.status(&job, Status::Generating).await;
    world.store.lose_next_answer();
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.attempts, 1);
    assert_eq!(world.model.paid("a red fox"), 1);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_store_refuses_for_a_moment_is_made_again_and_the_claim_is_not_given_up() {
    let world = World::new();
    world.model.take(Duration::from_secs(10));
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Generating).await;
    world.store.is_busy(3);
    let started = world.now();
    let record = world.status(&job, Status::Succeeded).await;
    // Taken for lost, the claim would have to run out first.
    assert!(world.now().duration_since(started).as_secs() < 30, "it waited");
    assert_eq!((record.attempts, world.model.paid("a red fox")), (1, 1));
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_step_that_fails_does_not_pay_again() {
    for call in [Call::WriteImage, Call::WriteSource] {
        let world = World::new();
        world.store.fail(call, 2, JobError::new(Kind::StoreUnavailable, "503 SlowDown"));
        let worker = world.start();
        let job = world.submit("a red fox");
        world.status(&job, Status::Succeeded).await;
        assert_eq!(world.model.paid("a red fox"), 1, "{call:?}");
        world.settled().await;
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_claim_leaves_the_published_picture_as_it_is() {
    let world = World::new();
    world.model.take(Duration::from_secs(10));
    let worker = world.start();
    let job = world.submit("a red fox");
    let mut published = world.status(&job, Status::Generating).await;
    published.finish(Status::Succeeded, world.now());
    let theirs = Bytes::from_static(b"the picture of whoever took over");
    world.store.publish_first(published.clone(), theirs.clone());
    world.settled().await;
    assert_eq!(world.store.image(&job.id), Some(theirs));
    assert_eq!(world.store.record(&job.id), Some(published));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_picture_without_a_record_is_replaced_by_the_one_that_the_record_describes() {
    let world = World::new();
    let worker = world.start();
    let job = world.job("a red fox");
    // Of a worker that died between the two, perhaps one with other settings.
    world.store.put_image(job.id, Bytes::from_static(b"left behind"));
    world.queue.send(job.encode());
    let record = world.status(&job, Status::Succeeded).await;
    let webp = world.store.image(&job.id).unwrap();
    assert_eq!(record.image.unwrap().bytes, webp.len() as u64);
    assert_eq!((record.attempts, world.model.paid("a red fox")), (1, 1));
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn cancel_wins_over_a_worker_that_holds_the_claim() {
    let world = World::new();
    world.model.take(Duration::from_secs(10));
    let worker = world.start();
    let job = world.submit("a red fox");
    let mut record = world.status(&job, Status::Generating).await;
    record.finish(Status::Canceled, world.now());
    world.store.put_record(record);
    world.settled().await;
    assert_eq!(world.store.record(&job.id).unwrap().status, Status::Canceled);
    assert!(world.store.image(&job.id).is_none());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_canceled_before_its_turn_is_not_paid_for() {
    let world = World::new();
    let job = world.submit("a red fox");
    world.store.put_record(Record::canceled_before_start(job.id, job.tenant.clone(), world.now()));
    let worker = world.start();
    world.settled().await;
    assert_eq!(world.model.calls(), 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_turns_exhausted_into_succeeded_and_leaves_other_failures_alone() {
    for (code, ends) in
        [(FailureCode::AttemptsExhausted, Status::Succeeded), (FailureCode::RequestRejected, Status::Failed)]
    {
        let world = World::new();
        let job = world.job("a red fox");
        let mut record = Record::begin(&job, world.now());
        record.finish(Status::Failed, world.now());
        record.error = Some(Failure::new(code, "earlier"));
        world.store.put_record(record);
        world.queue.send(job.encode());
        let worker = world.start();
        world.settled().await;
        assert_eq!(world.store.record(&job.id).unwrap().status, ends, "{code:?}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_job_is_not_paid_for() {
    let world = World::new();
    let mut job = world.job("a red fox");
    job.deadline_at = Some(world.now());
    world.queue.send(job.encode());
    let worker = world.start();
    world.status(&job, Status::Expired).await;
    world.settled().await;
    assert_eq!(world.model.calls(), 0);
    worker.stop().await;
}
