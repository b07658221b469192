//! `Prefer: wait` holds the answer until the job is final, and never longer than it should.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{TestApi, claimed, get, job, succeeded, with};

#[tokio::test(start_paused = true)]
async fn a_held_answer_comes_when_the_job_is_final() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&claimed(&job));
    let started = Instant::now();
    let finish = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        api.records.put(&succeeded(&job));
    };
    let (answer, ()) = tokio::join!(api.send(with(get(&format!("/v1/jobs/{}", job.id)), "prefer", "wait=10")), finish);
    assert_eq!(answer.body["status"], "succeeded");
    assert_eq!(answer.header("preference-applied"), Some("wait=10"));
    assert!((Duration::from_secs(3)..=Duration::from_secs(4)).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(api.records.reads() <= 6, "{} reads", api.records.reads());
}

#[tokio::test(start_paused = true)]
async fn a_pending_job_is_answered_when_the_wait_is_over() {
    let api = TestApi::new();
    let path = format!("/v1/jobs/{}", job().id);
    for (asked, applied) in [("wait=0", 0), ("wait=2", 2), ("wait=99", 20)] {
        let started = Instant::now();
        let answer = api.send(with(get(&path), "prefer", asked)).await;
        assert_eq!(answer.body["status"], "queued");
        assert_eq!(answer.header("preference-applied"), Some(&*format!("wait={applied}")));
        assert_eq!(started.elapsed(), Duration::from_secs(applied));
    }
    let started = Instant::now();
    let ignored = api.send(with(get(&path), "prefer", "wait=soon")).await;
    assert_eq!(ignored.header("preference-applied"), None);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_wait() {
    let api = TestApi::new();
    let started = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        api.stopping.cancel();
    };
    let path = format!("/v1/jobs/{}", job().id);
    let (answer, ()) = tokio::join!(api.send(with(get(&path), "prefer", "wait=20")), stop);
    assert_eq!(answer.status, 200);
    assert_eq!(started.elapsed(), Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_places_for_waiters_the_answer_comes_at_once() {
    let api = TestApi::with_args(&["--max-waiters=1"]);
    let path = format!("/v1/jobs/{}", job().id);
    let ask = || api.send(with(get(&path), "prefer", "wait=5"));
    let started = Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = ask().await;
        (answer, started.elapsed())
    };
    let (first, (second, second_after)) = tokio::join!(ask(), second);
    assert_eq!(first.header("preference-applied"), Some("wait=5"));
    assert_eq!(second.status, 200);
    assert_eq!(second.header("preference-applied"), None);
    assert_eq!(second_after, Duration::from_secs(1));
    // The place is free again.
    assert_eq!(ask().await.header("preference-applied"), Some("wait=5"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_gives_its_place_back() {
    let api = TestApi::with_args(&["--max-waiters=1"]);
    let path = format!("/v1/jobs/{}", job().id);
    let ask = || api.send(with(get(&path), "prefer", "wait=20"));
    tokio::time::timeout(Duration::from_secs(1), ask()).await.map(|_| ()).unwrap_err();
    let reads = api.records.reads();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(api.records.reads(), reads, "nobody waits, so nobody reads");
    assert_eq!(ask().await.header("preference-applied"), Some("wait=20"));
}
