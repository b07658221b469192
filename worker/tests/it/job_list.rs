//! The list of a tenant's jobs: each job is entered once, whatever happens to it, and none waits or fails for its entry.

use std::time::Duration;

use job::{IndexEntry, Job, Record, Status};
use tokio::time::Instant;
use worker::error::{JobError, Kind};

use crate::support::{Answer, Call, World};

fn key(job: &Job) -> String {
    IndexEntry::new(job.id, job.submitted_at).key(&job.tenant)
}

fn unavailable() -> JobError {
    JobError::new(Kind::StoreUnavailable, "no")
}

#[tokio::test(start_paused = true)]
async fn every_job_is_entered_under_the_time_of_its_submission() {
    let world = World::new();
    world.model.script("something refused", [Answer::Fail(JobError::new(Kind::ContentFiltered, "no"))]);
    let worker = world.start();
    let mut keys = Vec::new();
    for (prompt, status) in [("a red fox", Status::Succeeded), ("something refused", Status::Blocked)] {
        let job = world.submit(prompt);
        world.status(&job, status).await;
        keys.push(key(&job));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    keys.reverse();
    world.settled().await;
    assert_eq!(world.store.index(), keys, "the newest first");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_attempts_and_wishes_are_one_entry() {
    let world = World::new();
    world.model.script("a red fox", [Answer::Fail(JobError::new(Kind::ModelFailed, "once"))]);
    let job = world.submit("a red fox");
    let worker = world.start();
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.attempts, 2);
    world.settled().await;
    // Canceled, and wanted again at another time.
    let mut record = Record { status: Status::Processing, ..record };
    record.finish(Status::Canceled, world.now());
    world.store.put_record(record);
    world.queue.send(Job { retries: 1, submitted_at: world.now(), ..job.clone() }.encode());
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    assert_eq!((world.store.index(), world.store.index_writes()), (vec![key(&job)], 3));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_before_any_worker_saw_it_is_entered_when_its_message_is_deleted() {
    let world = World::new();
    let job = world.job("a red fox");
    let record = Record::canceled_before_start(job.id, job.tenant.clone(), world.now());
    let expected = IndexEntry::new(job.id, record.submitted_at.unwrap()).key(&job.tenant);
    world.store.put_record(record);
    world.queue.send(job.encode());
    let worker = world.start();
    world.settled().await;
    world.when("the entry", || (world.store.index() == [expected.clone()]).then_some(())).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_fails_is_tried_again_and_holds_nothing_up() {
    for (failures, entered) in [(4, true), (5, false)] {
        let world = World::new();
        world.store.fail(Call::WriteIndex, failures, unavailable());
        let started = Instant::now();
        let worker = world.start();
        let job = world.submit("a red fox");
        world.status(&job, Status::Succeeded).await;
        world.settled().await;
        assert!(started.elapsed() < Duration::from_secs(10), "it waited for its entry: {:?}", started.elapsed());
        world.when("five tries", || (world.store.index_writes() == 5).then_some(())).await;
        assert_eq!(world.store.index().len(), usize::from(entered), "{failures} failures");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_one_more_try_and_not_for_the_pauses() {
    let world = World::new();
    world.store.fail(Call::WriteIndex, usize::MAX, unavailable());
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    let (started, tries) = (Instant::now(), world.store.index_writes());
    worker.stop().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(world.store.index_writes() <= tries + 1);
    assert!(world.store.index().is_empty());
}
