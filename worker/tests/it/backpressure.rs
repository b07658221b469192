//! A worker never takes more than it can start, whatever waits in the queue.

use std::time::Duration;

use crate::support::World;

#[tokio::test(start_paused = true)]
async fn never_more_in_flight_than_slots() {
    let world = World::new();
    world.model.take(Duration::from_secs(5));
    for n in 0..200 {
        world.submit(&format!("picture {n}"));
    }
    let worker = world.start_with(&["--worker-slots", "7", "--cpu-threads", "2"]);
    world.settled().await;
    assert_eq!((world.queue.most_in_flight(), world.model.most_in_flight()), (7, 7));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_has_nothing_in_flight() {
    let world = World::new();
    let worker = world.start();
    // In its long poll most of the time, with the slots for what that may bring.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(worker.in_flight(), 0);
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_gets_what_a_busy_worker_cannot_start() {
    let world = World::new();
    world.model.take(Duration::from_secs(60));
    let busy = world.start_with(&["--worker-slots", "2", "--cpu-threads", "1"]);
    for n in 0..4 {
        world.submit(&format!("picture {n}"));
    }
    world.when("a busy worker", || (busy.in_flight() == 2).then_some(())).await;
    let idle = world.start_with(&["--worker-slots", "2", "--cpu-threads", "1"]);
    world.when("two more calls", || (world.model.in_flight() == 4).then_some(())).await;
    world.settled().await;
    busy.stop().await;
    idle.stop().await;
}
