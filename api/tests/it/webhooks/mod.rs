//! Webhooks against real receivers on 127.0.0.1: what they get, when they get it again, and where nothing connects.

mod process;
mod reach;
mod support;

use std::sync::Arc;
use std::time::Duration;

use api::webhooks::Stopped;
use job::{Failure, FailureCode, Job, Notice, Status};
use service::readiness::Readiness;
use standardwebhooks::Webhook;
use tokio_util::sync::CancellationToken;

use crate::support::{TestApi, claimed, get, job, succeeded};
use support::{Inbox, NEW_SECRET, OLD_SECRET, Office, Reply, Settled};

#[tokio::test]
async fn a_receiver_gets_what_the_owner_would_read_and_can_verify_it() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox);
    let job = job();
    let record = succeeded(&job);
    office.records.put(&record);
    assert_eq!(office.hand_over(Notice::of(&job)).await, Settled::Deleted);

    let got = inbox.only();
    let body: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(body["type"], "job.succeeded");
    assert_eq!(body["timestamp"], serde_json::to_value(record.finished_at).unwrap());
    let api = TestApi::new();
    api.records.put(&record);
    assert_eq!(body["data"], api.send(get(&format!("/v1/jobs/{}", job.id))).await.body);
    assert!(!got.text().contains("a red fox"), "no prompt");
    assert_eq!(got.header("webhook-id"), format!("job_{}_0_succeeded", job.id));
    assert_eq!((got.header("content-type"), got.path.as_str()), ("application/json", "/hook?token=not-for-a-log"));
    for secret in [NEW_SECRET, OLD_SECRET] {
        Webhook::new(secret).unwrap().verify(&got.body, &got.headers).unwrap();
    }
    let other = Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    assert!(other.verify(&got.body, &got.headers).is_err());
    let changed = [&got.body[..], b" "].concat();
    assert!(Webhook::new(NEW_SECRET).unwrap().verify(&changed, &got.headers).is_err());
}

#[tokio::test]
async fn each_end_has_a_name_and_another_end_is_another_event() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox);
    let job = job();
    let mut ids = vec![];
    for status in [Status::Failed, Status::Blocked, Status::Canceled, Status::Expired, Status::Succeeded] {
        let mut record = if status == Status::Succeeded { succeeded(&job) } else { claimed(&job) };
        record.finish(status, jiff::Timestamp::now());
        record.error = (status == Status::Failed).then(|| Failure::new(FailureCode::AttemptsExhausted, "why"));
        office.records.put(&record);
        // Twice, as after a crash between the notice and the delete of the job's message.
        for _ in 0..2 {
            assert_eq!(office.hand_over(Notice::of(&job)).await, Settled::Deleted);
        }
        let got = inbox.take();
        assert_eq!(got.len(), 2);
        let body: serde_json::Value = serde_json::from_slice(&got[0].body).unwrap();
        assert_eq!(body["type"], format!("job.{status}"));
        assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
        ids.push(got[0].header("webhook-id").to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
}

/// Seconds for which the queue hides a notice, for the receives and the age at a try.
async fn hidden(reply: Reply, receive_count: u32, age: u64) -> (u64, usize) {
    let inbox = Inbox::start().await;
    inbox.replies(reply);
    let office = Office::of(&inbox);
    let job = job();
    office.records.put(&succeeded(&job));
    let settled = office.hand_over_as(Notice::of(&job).encode(), receive_count, Duration::from_secs(age)).await;
    let Settled::Hidden(wait) = settled else { panic!("{settled:?}") };
    (wait.as_secs(), inbox.take().len())
}

#[tokio::test]
async fn what_was_not_taken_is_tried_again_after_what_the_schedule_says() {
    for (receive_count, age, wait) in [
        (1, 0, 5),
        (2, 6, 300),
        (3, 310, 1800),
        (4, 2200, 7200),
        (5, 9400, 18_000),
        (6, 27_500, 21_600),
        (7, 49_200, 36_000),
        (8, 85_500, 3600),
    ] {
        let (got, tries) = hidden(Reply::status(500), receive_count, age).await;
        assert!((wait..=wait + wait / 20 + 1).contains(&got), "try {receive_count}: {got} s");
        assert_eq!(tries, 1);
    }
    // Given up: the queue moves it to its dead letters.
    assert_eq!(hidden(Reply::status(500), 9, 90_000).await, (0, 0));
}

#[tokio::test]
async fn other_answers_are_later_as_well_and_a_hint_is_honoured() {
    for status in [300, 302, 400, 401, 404, 408, 500, 503] {
        let (wait, tries) = hidden(Reply::status(status), 1, 0).await;
        assert!((5..=6).contains(&wait) && tries == 1, "{status}: {wait}");
    }
    for (status, hint, wait) in [(429, "1000", 1000), (503, "999999999", 21_600), (503, "soon", 5), (500, "1000", 5)] {
        let (got, _) = hidden(Reply::status(status).with("retry-after", hint), 1, 0).await;
        assert!((wait..=wait + 1).contains(&got), "{status} {hint}: {got}");
    }
}

#[tokio::test]
async fn every_2xx_is_taken_and_410_ends_it() {
    for status in [200, 201, 202, 204, 410] {
        let inbox = Inbox::start().await;
        inbox.replies(Reply::status(status));
        let office = Office::of(&inbox);
        let job = job();
        office.records.put(&succeeded(&job));
        assert_eq!(office.hand_over(Notice::of(&job)).await, Settled::Deleted, "{status}");
        assert_eq!(inbox.take().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_says_nothing_is_given_up_in_time() {
    // It accepts in the kernel and says nothing; the clock jumps to the next timer while nobody has anything to do.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let office = Office::at(&format!("http://{}/", mute.local_addr().unwrap()));
    let job = job();
    office.records.put(&succeeded(&job));
    let began = tokio::time::Instant::now();
    let settled = office.hand_over(Notice::of(&job)).await;
    assert!(matches!(settled, Settled::Hidden(wait) if wait.as_secs() <= 6), "{settled:?}");
    assert!(began.elapsed() <= Duration::from_secs(16));
}

#[tokio::test]
async fn a_tenant_without_a_webhook_costs_one_delete() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox);
    let job = Job { tenant: "south".parse().unwrap(), ..job() };
    office.records.put(&succeeded(&job));
    assert_eq!(office.hand_over(Notice::of(&job)).await, Settled::Deleted);
    assert_eq!((inbox.take().len(), office.records.reads()), (0, 0));
}

#[tokio::test]
async fn a_job_without_an_end_is_looked_at_again_and_then_dropped() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox);
    let job = job();
    office.records.put(&claimed(&job));
    let unseen = crate::support::job();
    for notice in [Notice::of(&job), Notice::of(&unseen)] {
        let early = office.hand_over_as(notice.encode(), 1, Duration::from_secs(1)).await;
        assert_eq!(early, Settled::Hidden(Duration::from_secs(5)), "its end may be on its way");
        assert_eq!(office.hand_over_as(notice.encode(), 9, Duration::from_secs(66)).await, Settled::Deleted);
    }
    // Asked for again and ended again: the newer end has a notice of its own.
    let mut record = succeeded(&job);
    record.retries = 2;
    office.records.put(&record);
    assert_eq!(office.hand_over(Notice { retries: 1, ..Notice::of(&job) }).await, Settled::Deleted);
    assert_eq!(inbox.take().len(), 0);
    assert_eq!(office.hand_over(Notice { retries: 2, ..Notice::of(&job) }).await, Settled::Deleted);
    assert_eq!(inbox.only().header("webhook-id"), format!("job_{}_2_succeeded", job.id));
}

#[tokio::test]
async fn what_is_no_notice_is_left_for_the_dead_letters() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox);
    for body in ["not json", "{}", r#"{"v":9}"#] {
        let settled = office.hand_over_as(body.to_owned(), 1, Duration::ZERO).await;
        assert_eq!(settled, Settled::Hidden(Duration::from_secs(300)), "{body}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_no_try() {
    let inbox = Inbox::start().await;
    let office = Office::of(&inbox).with_broken_records();
    let settled = office.hand_over(Notice::of(&job())).await;
    assert!(matches!(settled, Settled::Hidden(wait) if (2..=3).contains(&wait.as_secs())), "{settled:?}");
    assert_eq!(inbox.take().len(), 0);
}

#[tokio::test]
async fn a_slow_receiver_leaves_places_for_the_others() {
    let (slow, quick) = (Inbox::start().await, Inbox::start().await);
    slow.replies(Reply::status(200).after(Duration::from_secs(3)));
    let office = Arc::new(Office::of_two(&slow, &quick));
    let jobs: Vec<Job> = (0..9).map(|_| job()).collect();
    jobs.iter().for_each(|job| office.records.put(&succeeded(job)));
    let mut tries = tokio::task::JoinSet::new();
    for job in jobs {
        let office = office.clone();
        tries.spawn(async move { office.hand_over(Notice::of(&job)).await });
    }
    // Eight places: the ninth comes back to the queue at once, and no try of it is used up.
    let first = tries.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Settled::Hidden(wait) if (2..=3).contains(&wait.as_secs())), "{first:?}");
    let other = Job { tenant: "south".parse().unwrap(), ..job() };
    office.records.put(&succeeded(&other));
    assert_eq!(office.hand_over(Notice::of(&other)).await, Settled::Deleted);
    assert_eq!((quick.take().len(), tries.len()), (1, 8), "while the slow ones are under way");
    while let Some(settled) = tries.join_next().await {
        assert_eq!(settled.unwrap(), Settled::Deleted);
    }
    assert_eq!(slow.take().len(), 8);
}

#[tokio::test]
async fn a_stop_lets_tries_end_and_gives_back_what_arrives() {
    let inbox = Inbox::start().await;
    inbox.replies(Reply::status(200).after(Duration::from_millis(500)));
    let office = Office::of(&inbox);
    let (first, late) = (job(), job());
    office.records.put(&succeeded(&first));
    office.queue.send(Notice::of(&first).encode());
    let (readiness, stopping) = (Readiness::starting(), CancellationToken::new());
    let running = {
        let (courier, readiness, stopping) = (office.courier.clone(), readiness.clone(), stopping.clone());
        let run = async move { courier.run(&readiness, &stopping, Duration::from_secs(60)).await };
        tokio::task::JoinSet::from_iter([run])
    };
    inbox.heard(1).await;
    assert!(readiness.is_ready());
    stopping.cancel();
    // The long poll that is under way brings one more.
    office.queue.send(Notice::of(&late).encode());
    assert_eq!(running.join_all().await, [Stopped::Drained]);
    assert!(!readiness.is_ready());
    let settled = office.queue.settled();
    assert!(settled.len() == 2 && settled.contains(&Settled::Hidden(Duration::ZERO)), "{settled:?}");
    assert!(settled.contains(&Settled::Deleted), "{settled:?}");
    assert_eq!(inbox.take().len(), 1);
}
