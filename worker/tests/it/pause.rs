//! A pause of generation: nothing is received, what is in hand is finished, and afterwards all goes on.

use std::time::Duration;

use job::{Pause, Status};

use crate::support::World;

fn pause(world: &World) -> Option<Pause> {
    Some(Pause::new("The model is being changed.", "operator", world.now()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_paused_receives_nothing_until_it_may_go_on() {
    let world = World::new();
    world.pause.set(pause(&world));
    let worker = world.start();
    let job = world.submit("a red fox");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.store.record(&job.id).is_none());
    assert_eq!((world.queue.visible(), world.queue.receive_count("message-1")), (1, Some(0)), "not even looked at");
    assert!(worker.readiness.is_ready(), "a pause is no fault: nothing has to be replaced or repaired");
    world.pause.set(None);
    world.status(&job, Status::Succeeded).await;
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_hand_is_finished_during_a_pause() {
    let world = World::new();
    world.model.take(Duration::from_secs(20));
    let worker = world.start();
    let job = world.submit("a red fox");
    world.status(&job, Status::Generating).await;
    world.pause.set(pause(&world));
    // The long poll that was under way is the last one.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let late = world.submit("too late");
    world.status(&job, Status::Succeeded).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(world.store.record(&late.id).is_none());
    worker.stop_leaving(1).await;
}
