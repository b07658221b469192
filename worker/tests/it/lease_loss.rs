//! A lease that is kept, and one that is lost while the work goes on.

use std::time::Duration;

use job::Status;

use crate::support::{LEASE, World};

#[tokio::test(start_paused = true)]
async fn a_call_longer_than_the_lease_is_not_handed_over_again() {
    let world = World::new();
    world.model.take(LEASE + Duration::from_secs(30));
    let worker = world.start();
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    world.when("a call", || (world.model.in_flight() == 1).then_some(())).await;
    tokio::time::sleep(LEASE + Duration::from_secs(20)).await;
    assert_eq!((world.model.in_flight(), world.queue.receive_count(&message)), (1, Some(1)));
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.attempts, 1);
    assert_eq!(world.model.paid("a red fox"), 1);
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_steps_back_and_the_paid_picture_is_kept_for_the_next_delivery() {
    let world = World::new();
    world.model.take(Duration::from_secs(40));
    // One slot: the second delivery can only start once the first has stepped back.
    let worker = world.start_with(&["--worker-slots", "1", "--cpu-threads", "1"]);
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    world.when("a call", || (world.model.in_flight() == 1).then_some(())).await;
    world.queue.expire(&message);
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!(record.attempts, 2);
    world.settled().await;
    assert!(world.model.paid("a red fox") <= 2, "one call was in flight when the lease was lost");
    assert_eq!(world.store.history().iter().filter(|record| record.status == Status::Succeeded).count(), 1);
    worker.stop().await;
}
