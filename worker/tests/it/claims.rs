//! A claim by itself: what it reads, what it knows of those before it.

use std::time::Duration;

use uuid::Uuid;
use worker::claim::{Claimant, Claimed, claim};
use worker::error::{JobError, Kind};
use worker::lane::Lane;

use crate::redelivery::killed_in_a_call;
use crate::support::{Call, World};

fn claimant(message_id: &str, receive_count: u32) -> Claimant {
    Claimant {
        token: Uuid::new_v4(),
        worker: "worker".into(),
        lane: Lane::Interactive,
        message_id: message_id.into(),
        receive_count,
        duration: Duration::from_secs(240),
        call_window: Duration::from_secs(115),
    }
}

/// A job costs one call to S3 less, and its record is read where there may be one.
#[tokio::test(start_paused = true)]
async fn a_first_delivery_reads_no_record_and_a_later_one_writes_none_blindly() {
    let world = World::new();
    let job = world.job("a red fox");
    let down = || JobError::new(Kind::StoreUnavailable, "503");
    world.store.fail(Call::ReadRecord, 1, down());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let claimed = claim(world.store.as_ref(), &job, &claimant("m-1", 1), || world.now()).await.unwrap();
    let Claimed::Held(held) = claimed else { panic!("{claimed:?}") };
    assert!(held.is_new());
    assert_eq!(held.record().retried_at, None, "nobody has asked for it again");
    let waited = held.record().timings.queue_wait_seconds.unwrap();
    assert!((2.9..3.1).contains(&waited), "{waited}");
    world.store.heal();

    world.store.fail(Call::WriteRecord, 1, down());
    let claimed = claim(world.store.as_ref(), &job, &claimant("m-2", 2), || world.now()).await.unwrap();
    assert!(matches!(claimed, Claimed::Elsewhere { .. }), "it was read, and nothing was written: {claimed:?}");
}

/// Whoever takes the job over waits for a call as long as one may last from the last write of the record on.
#[tokio::test(start_paused = true)]
async fn a_call_begins_under_a_claim_that_is_fresh_and_lasts() {
    let world = World::new();
    let job = world.job("a red fox");
    let claimed = claim(world.store.as_ref(), &job, &claimant("m-1", 1), || world.now()).await.unwrap();
    let Claimed::Held(mut held) = claimed else { panic!("{claimed:?}") };
    let (needed, too_much) = (Duration::from_secs(155), Duration::from_secs(241));
    assert!(held.covers_a_call(needed, world.now()));
    assert!(!held.covers_a_call(too_much, world.now()), "it ends before the call may");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!held.covers_a_call(needed, world.now()), "others would not wait for all of it");
    held.advance(world.store.as_ref(), world.now(), |_| {}).await.unwrap();
    assert!(held.covers_a_call(needed, world.now()));
}

#[tokio::test(start_paused = true)]
async fn a_claim_knows_of_the_call_before_it_however_often_it_is_taken_and_given_back() {
    let world = World::new();
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    killed_in_a_call(&world, &job, &message, 70);
    let call_window = Duration::from_secs(115);
    // A process takes it again after an outage, and once more to give it back at its end; then comes another one.
    for receive_count in 1..=2 {
        let claimant = Claimant { call_window, ..claimant(&message, receive_count) };
        for is_given_back in [false, false, true] {
            let claimed = claim(world.store.as_ref(), &job, &claimant, || world.now()).await.unwrap();
            let Claimed::Held(mut held) = claimed else { panic!("{claimed:?}") };
            assert_eq!(held.earlier_call(world.now()), call_window);
            if is_given_back {
                held.release(world.store.as_ref(), world.now(), "stopped").await.unwrap();
                let record = world.store.record(&job.id).unwrap();
                assert_eq!((record.claim, record.last_fault.as_deref()), (None, Some("stopped")));
            }
        }
    }
}
