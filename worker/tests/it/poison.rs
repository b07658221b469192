//! Bodies that are not jobs: to the dead-letter queue byte for byte, and no neighbour is disturbed.

use job::Status;

use crate::support::World;

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letter_queue_intact_and_its_neighbours_succeed() {
    let world = World::new();
    let garbage: String = (0..256 * 1024).map(|n| char::from(b' ' + (n % 95) as u8)).collect();
    let poison = ["not json", "{}", r#"{"v":0}"#, r#"{"v":1,"id":"x"}"#, &garbage];
    let worker = world.start();
    let mut jobs = vec![];
    for body in poison {
        jobs.push(world.submit("a red fox"));
        world.queue.send(body);
    }
    for job in &jobs {
        assert_eq!(world.status(job, Status::Succeeded).await.attempts, 1);
    }
    world.settled().await;
    let mut dead = world.queue.dead();
    dead.sort();
    let mut expected = poison.map(str::to_owned);
    expected.sort();
    assert_eq!(dead, expected);
    assert_eq!(world.model.paid_in_all(), jobs.len());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_waits_for_a_newer_worker_before_it_is_dead() {
    let world = World::new();
    let sent = world.now();
    let body = format!(r#"{{"v":{},"new":"form"}}"#, job::WIRE_VERSION + 1);
    world.queue.send(body.clone());
    let worker = world.start();
    world.settled().await;
    assert_eq!(world.queue.dead(), [body]);
    assert!(world.now().duration_since(sent).as_secs() > 30, "it was retried with backoff");
    worker.stop().await;
}
