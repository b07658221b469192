//! The model's quota as one budget of all workers, at full use, through crashes, wrong clocks and a store that is gone.

pub mod fleet;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::World;
use fleet::{Fleet, Site, Use};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets a fleet work for the first minutes, and then measures.
async fn at_full_use(fleet: &Fleet, minutes: u32) -> Use {
    let site = Site::new(fleet);
    let _workers = site.start_all(fleet);
    sleep(MINUTE * (2 + minutes)).await;
    site.used_in_the_last(MINUTE * minutes)
}

#[tokio::test(start_paused = true)]
async fn eight_workers_at_full_use_are_throttled_less_than_once_in_a_hundred_calls() {
    let governed = Fleet::of_eight(1);
    let shared = at_full_use(&governed, 60).await;
    let alone = at_full_use(&Fleet { is_governed: false, ..governed }, 60).await;
    println!("shared {shared:?}, each for itself {alone:?}");
    assert!(shared.throttled_percent() < 1.0, "{shared:?}");
    assert!(shared.admitted() >= 90 * 60 * 97 / 100, "{shared:?}");
    // What it is for: each for itself they are throttled again and again, and leave more of the quota unused.
    assert!(alone.throttled_percent() > 2.0, "{alone:?}");
    assert!(alone.admitted() < shared.admitted(), "{alone:?} {shared:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_gets_what_idle_ones_leave() {
    let site = Site::new(&Fleet::of_eight(2));
    let idle = Fleet { slots: 0, workers: 7, ..Fleet::of_eight(2) };
    let (_idle, _busy) = (site.start_all(&idle), site.start(&Fleet { slots: 32, ..idle }));
    sleep(MINUTE * 12).await;
    let used = site.used_in_the_last(MINUTE * 10);
    assert!(used.admitted() >= 90 * 10 * 97 / 100 && used.throttled_percent() < 1.0, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn the_share_of_the_dead_is_used_by_the_living() {
    let fleet = Fleet::of_eight(3);
    let site = Site::new(&fleet);
    let mut workers = site.start_all(&fleet);
    sleep(MINUTE * 3).await;
    // Six of eight at once, with all that they have taken.
    workers.truncate(2);
    sleep(MINUTE * 5).await;
    let used = site.used_in_the_last(MINUTE * 5);
    assert!(used.admitted() >= 90 * 5 * 94 / 100 && used.throttled_percent() < 1.0, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_stops_nobody() {
    let fleet = Fleet::of_eight(4);
    let site = Site::new(&fleet);
    let _workers = site.start_all(&fleet);
    sleep(MINUTE * 3).await;
    site.is_offline.store(true, Ordering::SeqCst);
    sleep(MINUTE).await;
    let first = site.used_in_the_last(MINUTE);
    // As before, by the last shares: those of the last minute may have been in any order.
    assert!((70..=100).contains(&first.admitted()) && first.throttled_percent() < 10.0, "{first:?}");
    for minute in 2..=10 {
        sleep(MINUTE).await;
        let used = site.used_in_the_last(MINUTE);
        assert!(used.admitted() >= 30, "minute {minute}: {used:?}");
    }
    site.is_offline.store(false, Ordering::SeqCst);
    // The limiters of the processes forget after five minutes.
    sleep(MINUTE * 12).await;
    let used = site.used_in_the_last(MINUTE * 5);
    assert!(used.admitted() >= 90 * 5 * 97 / 100 && used.throttled_percent() < 1.0, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_no_work_writes_nothing() {
    let fleet = Fleet { slots: 0, ..Fleet::of_eight(5) };
    let site = Site::new(&fleet);
    let _workers = site.start_all(&fleet);
    sleep(MINUTE * 60).await;
    assert_eq!(site.writes.load(Ordering::SeqCst), 0);
}

/// One seed: any fleet, any clocks, processes that end at any time and come back.
async fn simulate(seed: u64) -> (Fleet, Use, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let fleet = Fleet {
        seed,
        workers: rng.usize(2..=50),
        slots: rng.usize(4..=16),
        per_minute: [10, 30, 90, 300, 1000][rng.usize(0..5)],
        round_trip: Duration::from_millis(rng.u64(20..200)),
        clocks_off: Duration::from_millis([0, 50, 3_000, 120_000][rng.usize(0..4)]),
        is_governed: true,
    };
    let site = Site::new(&fleet);
    let mut workers = site.start_all(&fleet);
    for _ in 0..rng.usize(0..12) {
        sleep(Duration::from_millis(rng.u64(100..40_000))).await;
        let seat = rng.usize(0..workers.len());
        // Killed, and another one in its place: its clock is off by something else.
        workers[seat] = JoinSet::new();
        sleep(Duration::from_millis(rng.u64(0..10_000))).await;
        workers[seat] = site.start(&fleet);
    }
    sleep(MINUTE * 6).await;
    (fleet, site.used_in_the_last(MINUTE * 5), site.writes.load(Ordering::SeqCst))
}

#[test]
fn every_fleet_keeps_the_quota_and_uses_it() {
    for seed in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (fleet, used, writes) = runtime.block_on(simulate(seed));
        let told = format!("seed {seed}: {fleet:?} {used:?} {writes} writes");
        assert!(used.throttled_percent() < 1.0, "{told}");
        // As many as the fleet can do: a call takes five seconds, and a little around it.
        let able = fleet.workers * fleet.slots * 60 * 5 / 7;
        let possible = (fleet.per_minute as usize * 5).min(able);
        assert!(used.admitted() * 100 >= possible * 90, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn whole_workers_share_a_quota() {
    let world = World::new();
    let workers = [(); 2].map(|()| world.start_with(&["--model-requests-per-minute", "6"]));
    for job in 0..9 {
        world.submit(&format!("a red fox {job}"));
    }
    sleep(Duration::from_secs(55)).await;
    let calls = world.model.calls();
    assert!((5..=6).contains(&calls), "{calls} calls in the first minute");
    world.settled().await;
    assert_eq!((world.model.paid_in_all(), world.model.calls()), (9, 9));
    for worker in workers {
        worker.stop().await;
    }
}
