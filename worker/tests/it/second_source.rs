//! A second source of pictures: asked alone, or while the first is out of order; each picture is paid for once all the same.

use std::time::Duration;

use devstack::bedrock::{BedrockOptions, BedrockStandIn, Detail, Fault, FaultPlan};
use job::{Claim, Record, Status};
use serde_json::Value;
use uuid::Uuid;
use worker::error::{JobError, Kind};

use crate::support::{Answer, Call, Site, WorkerProcess, World};

fn broken(kind: Kind) -> Option<Answer> {
    Some(Answer::Fail(JobError::new(kind, "scripted")))
}

fn made_by(record: &Record) -> &str {
    &record.source.as_ref().unwrap().model
}

#[tokio::test(start_paused = true)]
async fn jobs_go_on_by_the_second_source_and_return_to_the_first() {
    for kind in
        [Kind::AccessDenied, Kind::ModelRetired, Kind::ModelUnavailable, Kind::ModelTimedOut, Kind::ModelUnreachable]
    {
        let (world, second) = World::with_fallback();
        world.model.always(broken(kind));
        let worker = world.start();
        let jobs: Vec<_> = (0..20).map(|n| world.submit(&format!("picture {n}"))).collect();
        for job in &jobs {
            assert_eq!(made_by(&world.status(job, Status::Succeeded).await), "second", "{kind:?}");
        }
        world.when("readiness", || worker.readiness.is_ready().then_some(())).await;
        assert_eq!((world.model.paid_in_all(), second.paid_in_all()), (0, 20), "{kind:?}");

        world.model.always(None);
        // The first is looked at again after a minute at the latest, by a job that it then does.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let first_back = world.submit("back again");
        assert_eq!(made_by(&world.status(&first_back, Status::Succeeded).await), "scripted", "{kind:?}");
        let after = world.submit("and after");
        assert_eq!(made_by(&world.status(&after, Status::Succeeded).await), "scripted", "{kind:?}");
        world.settled().await;
        assert!(world.queue.dead().is_empty());
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_second_source_jobs_are_held_as_ever_and_with_both_broken_too() {
    let (world, second) = World::with_fallback();
    world.model.always(broken(Kind::AccessDenied));
    second.always(broken(Kind::CredentialsUnavailable));
    let worker = world.start();
    let job = world.submit("a red fox");
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert!(worker.readiness.reasons()["circuit"].contains("credentials_unavailable"));
    second.always(None);
    assert_eq!(made_by(&world.status(&job, Status::Succeeded).await), "second");
    world.settled().await;
    assert!(world.queue.dead().is_empty());
    worker.stop().await;
}

/// A call that timed out may be charged for: no other is made for the job within the attempt.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_paid_for_ends_the_attempt() {
    let (world, second) = World::with_fallback();
    world.model.script("a red fox", [Answer::Fail(JobError::new(Kind::ModelTimedOut, "scripted"))]);
    let worker = world.start();
    let job = world.submit("a red fox");
    let record = world.status(&job, Status::Succeeded).await;
    assert_eq!((made_by(&record), record.attempts), ("scripted", 2));
    assert_eq!(second.calls(), 0, "one time-out is no outage");
    world.settled().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_throttle_are_no_reason_to_ask_another() {
    let (world, second) = World::with_fallback();
    world.model.script("a rude fox", [Answer::Fail(JobError::new(Kind::ContentFiltered, "Filter reason: prompt"))]);
    let throttled = JobError::new(Kind::ModelThrottled, "429");
    world.model.script("a red fox", vec![Answer::Fail(throttled); 8]);
    let worker = world.start();
    let (rude, red) = (world.submit("a rude fox"), world.submit("a red fox"));
    world.status(&rude, Status::Blocked).await;
    assert_eq!(made_by(&world.status(&red, Status::Succeeded).await), "scripted");
    assert_eq!(second.calls(), 0);
    world.settled().await;
    worker.stop().await;
}

/// The fault is the bucket's, and the picture is there.
#[tokio::test(start_paused = true)]
async fn a_paid_picture_that_cannot_be_checkpointed_is_not_asked_for_elsewhere() {
    let (world, second) = World::with_fallback();
    world.store.fail(Call::WriteSource, usize::MAX, JobError::new(Kind::AccessDenied, "scripted"));
    let worker = world.start();
    let job = world.submit("a red fox");
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.store.heal();
    assert_eq!(made_by(&world.status(&job, Status::Succeeded).await), "scripted");
    assert_eq!((world.model.paid("a red fox"), second.calls()), (1, 0));
    world.settled().await;
    worker.stop().await;
}

/// Another worker's call to the first source may be under way: nobody is asked before it can no longer bring a picture.
#[tokio::test(start_paused = true)]
async fn the_second_source_waits_for_an_earlier_call_of_the_first() {
    let (world, second) = World::with_fallback();
    world.model.always(broken(Kind::AccessDenied));
    let job = world.job("a red fox");
    let message = world.queue.send(job.encode());
    let mut record = Record::begin(&job, world.now());
    let after = |seconds| world.now() + jiff::SignedDuration::from_secs(seconds);
    record.attempts = 1;
    record.claim = Some(Claim {
        token: Uuid::new_v4(),
        worker: "cut-off/1".into(),
        message_id: message,
        receive_count: 0,
        deadline_at: after(240),
    });
    record.paying_until = Some(after(100));
    world.store.put_record(record);
    let worker = world.start();
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!((world.model.calls(), second.calls()), (0, 0));
    assert_eq!(made_by(&world.status(&job, Status::Succeeded).await), "second");
    world.settled().await;
    worker.stop().await;
}

async fn other_source() -> BedrockStandIn {
    let options = BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() };
    BedrockStandIn::start("127.0.0.1:0".parse().unwrap(), options).await.unwrap()
}

fn env(other: &BedrockStandIn) -> [(&'static str, String); 3] {
    let url = format!("http://{}/v1", other.local_addr());
    [("OPENAI_BASE_URL", url), ("OPENAI_MODEL", "flux-2".into()), ("OPENAI_API_KEY", "sk-0123456789abcdef".into())]
}

fn text<'a>(env: &'a [(&'static str, String)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect()
}

/// The real binary and a real server: the contract of the adapter.
#[tokio::test]
async fn a_worker_can_do_without_bedrock() {
    let (site, other) = (Site::start().await, other_source().await);
    let env = env(&other);
    let mut worker = WorkerProcess::start(&site, &text(&env, &[("MODEL_SOURCE", "openai")])).await;
    worker.ready().await;
    let jobs = [
        site.submit("a red fox").await,
        site.submit("an owl [[fault:unavailable*1]]").await,
        site.submit("a hare [[fault:throttle*1 retry_after_ms=50]]").await,
        site.submit("a bad picture [[fault:not_png*1]]").await,
    ];
    for job in &jobs {
        assert_eq!(made_by(&site.succeeded(job).await), "flux-2");
    }
    let rude = site.submit("a rude fox [[fault:refuse_prompt]]").await;
    let blocked = crate::support::when("a final record", async || {
        site.record(&rude).await.filter(|record| record.status.is_final())
    });
    assert_eq!(blocked.await.status, Status::Blocked);
    let totals = other.ledger().totals;
    // The bad picture is asked for once more.
    assert_eq!((totals.paid, totals.paid_unanswered, totals.refused), (5, 0, 1));
    assert_eq!(site.bedrock.ledger().totals.calls, 0);
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    for line in worker.lines() {
        let line = Value::to_string(&line);
        assert!(!line.contains("sk-0123456789abcdef") && !line.contains("red fox"), "{line}");
    }
}

#[tokio::test]
async fn bedrock_fails_jobs_go_on_and_bedrock_has_them_again() {
    let (site, other) = (Site::start().await, other_source().await);
    let env = env(&other);
    let denied = FaultPlan { outage: Some(Fault::AccessDenied), ..FaultPlan::default() };
    site.bedrock.set_faults(denied).unwrap();
    let mut worker = WorkerProcess::start(&site, &text(&env, &[("MODEL_FALLBACK", "openai")])).await;
    worker.ready().await;
    for n in 0..3 {
        let job = site.submit(&format!("picture {n}")).await;
        assert_eq!(made_by(&site.succeeded(&job).await), "flux-2");
    }
    worker.logged("asking the fallback").await;
    assert!(worker.admin("/metrics").await.contains("worker_model_fallback 1"));
    worker.ready().await;
    site.bedrock.set_faults(FaultPlan::default()).unwrap();
    let mut n = 0;
    let back = async || {
        n += 1;
        let job = site.submit(&format!("and picture {n}")).await;
        (made_by(&site.succeeded(&job).await) == "stability.stable-image-core-v1:1").then_some(())
    };
    crate::support::when("a picture of the first source", back).await;
    assert!(worker.admin("/metrics").await.contains("worker_model_fallback 0"));
    let (first, second) = (site.bedrock.ledger(), other.ledger());
    for (prompt, entry) in second.by_prompt.iter().chain(&first.by_prompt) {
        let paid =
            |ledger: &devstack::bedrock::LedgerReport| ledger.by_prompt.get(prompt).map_or(0, |entry| entry.paid);
        assert_eq!(paid(&first) + paid(&second), 1, "{prompt}: {entry:?}");
    }
}
