//! Jobs of many requests in one call: each request gets the answer to its own job, whatever becomes of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::app::Ports;
use api::metrics;
use api::queue::{JobQueue, MAX_BATCH_ENTRIES, QueueError};
use jiff::Timestamp;
use job::Job;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::contract::job;
use crate::support::{Fate, MemoryQueue, MemoryRecords, ScriptedSqs, TestApi, post};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2))
}

fn api(sqs: &ScriptedSqs) -> TestApi {
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let ports =
        Ports { queue: sqs.queue.clone(), records: records.clone(), now: Timestamp::now, pauses: Default::default() };
    TestApi::with_ports(&[], queue, records, ports)
}

fn by_prompt(job: &Job) -> Fate {
    match job.spec.prompt().split(' ').next() {
        Some("throttled") => Fate::Refused("RequestThrottled"),
        Some("denied") => Fate::Refused("KmsAccessDenied"),
        Some("broken") => Fate::Refused("InternalError"),
        Some("forgotten") => Fate::Forgotten,
        _ => Fate::Taken,
    }
}

fn is_as_told(result: &Result<(), QueueError>, fate: Fate) -> bool {
    match fate {
        Fate::Taken => *result == Ok(()),
        Fate::Refused("RequestThrottled") => matches!(result, Err(QueueError::Throttled(_))),
        Fate::Refused("KmsAccessDenied") => matches!(result, Err(QueueError::Misconfigured(_))),
        Fate::Refused(_) | Fate::Forgotten => matches!(result, Err(QueueError::Unavailable(_))),
    }
}

#[tokio::test]
async fn requests_that_come_during_a_call_share_the_next_and_fail_alone() {
    let answers = Arc::new(Semaphore::new(0));
    let sqs = ScriptedSqs::start(by_prompt, vec![], Arc::clone(&answers)).await;
    let api = Arc::new(api(&sqs));
    let mut requests = JoinSet::new();
    let mut submit = |prompt: &'static str| {
        let api = Arc::clone(&api);
        requests.spawn(async move { (prompt, api.submit(json!({ "prompt": prompt })).await) });
    };
    submit("first");
    until("the first call", || sqs.calls().len() == 1).await;
    // A full call does not wait for the first.
    for _ in 1..MAX_BATCH_ENTRIES - 3 {
        submit("second");
    }
    ["throttled", "denied", "broken", "forgotten"].into_iter().for_each(&mut submit);
    until("the other calls", || sqs.calls().concat().len() == 1 + MAX_BATCH_ENTRIES).await;
    // Two, but on a machine so busy that requests come further apart than they wait for each other.
    let calls: Vec<usize> = sqs.calls().iter().map(Vec::len).collect();
    assert!(calls[0] == 1 && calls.iter().any(|&entries| entries > 1), "{calls:?}");

    answers.add_permits(calls.len());
    for (prompt, answer) in requests.join_all().await {
        let retry_after = answer.header("retry-after");
        match prompt {
            "throttled" => assert_eq!((answer.code(), retry_after), ("queue_unavailable", Some("2"))),
            "denied" => assert_eq!((answer.code(), retry_after), ("queue_unavailable", Some("30"))),
            "broken" | "forgotten" => assert_eq!((answer.code(), retry_after), ("queue_unavailable", Some("5"))),
            _ => {
                assert_eq!(answer.status, 202, "{}", answer.body);
                let own = sqs.calls().concat().into_iter().find(|job| job.id == answer.id());
                assert_eq!(own.unwrap().spec.prompt(), prompt);
            }
        }
    }
}

#[tokio::test]
async fn no_202_before_the_queue_has_confirmed() {
    let answers = Arc::new(Semaphore::new(0));
    let sqs = ScriptedSqs::start(by_prompt, vec![], Arc::clone(&answers)).await;
    let api = api(&sqs);
    let submit = api.submit(json!({ "prompt": "fox" }));
    tokio::pin!(submit);
    tokio::select! {
        answer = &mut submit => panic!("answered {} before the queue", answer.status),
        () = until("the call", || sqs.calls().len() == 1) => {}
    }
    answers.add_permits(1);
    assert_eq!(submit.await.status, 202);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nobody_along_and_its_job_is_told_of() {
    let recorder = service::telemetry::recorder(metrics::BUCKETS).unwrap().build_recorder();
    let told = recorder.handle();
    // One thread runs this test and whatever it starts.
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    metrics::describe();
    let answers = Arc::new(Semaphore::new(0));
    let sqs = ScriptedSqs::start(by_prompt, vec![], Arc::clone(&answers)).await;
    let api = api(&sqs);
    {
        let gone = api.send(post("/v1/jobs", &json!({ "prompt": "nobody reads the answer to this" })));
        let waits = async {
            until("its call", || sqs.calls().len() == 1).await;
            assert!(told.render().contains("api_jobs_sending 1"), "{}", told.render());
        };
        tokio::select! {
            _ = gone => panic!("answered before the queue"),
            () = waits => {}
        }
    }
    let stays = api.submit(json!({ "prompt": "fox" }));
    tokio::pin!(stays);
    tokio::select! {
        _ = &mut stays => panic!("answered before the queue"),
        () = until("the other's call", || sqs.calls().len() == 2) => {}
    }
    answers.add_permits(2);
    assert_eq!(stays.await.status, 202);
    sqs.queue.drained().await;
    let told = told.render();
    for line in [
        r#"api_jobs_enqueued_total{result="unheard"} 1"#,
        r#"api_jobs_enqueued_total{result="accepted"} 1"#,
        r#"api_send_duration_seconds_count{result="ok"} 2"#,
        "api_send_entries_sum 2",
        "api_jobs_sending 0",
    ] {
        assert!(told.contains(line), "{line} is missing in\n{told}");
    }
}

/// A whole call's error, told by a code of AWS.
const WHOLE: [&str; 3] = ["AccessDenied", "RequestThrottled", "InternalFailure"];

fn whole() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::weighted(0.3, (0..WHOLE.len()).prop_map(|index| WHOLE[index]))
}

fn prompt() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("fine"), 1 => Just("throttled"), 1 => Just("denied"), 1 => Just("broken"), 1 => Just("forgotten")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn each_of_many_submits_gets_exactly_its_own_result(
        // One element is one request: how many jobs, what becomes of them, and whether its client stays.
        requests in proptest::collection::vec((proptest::collection::vec(prompt(), 1..25), 0..4_u8), 1..60),
        whole in proptest::collection::vec(whole(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let sqs = ScriptedSqs::start(by_prompt, whole.clone(), open()).await;
            let mut all = JoinSet::new();
            for (index, (prompts, stays)) in requests.into_iter().enumerate() {
                let jobs: Vec<Job> =
                    prompts.iter().map(|prompt| job("north", &format!("{prompt} {index}"))).collect();
                let queue = Arc::clone(&sqs.queue);
                all.spawn(async move {
                    let send = async {
                        match &jobs[..] {
                            [one] => vec![queue.enqueue(one).await],
                            many => queue.enqueue_batch(many).await,
                        }
                    };
                    // One in four is gone before anything can have answered.
                    let patience = if stays == 0 { Duration::from_micros(50) } else { PATIENCE };
                    let results = tokio::time::timeout(patience, send).await;
                    (jobs, results.ok())
                });
            }
            let outcomes = all.join_all().await;
            sqs.queue.drained().await;

            let calls = sqs.calls();
            let mut call_of = HashMap::new();
            for (number, jobs) in calls.iter().enumerate() {
                assert!(jobs.len() <= MAX_BATCH_ENTRIES);
                for job in jobs {
                    assert_eq!(call_of.insert(job.id, number), None, "{} was sent twice", job.id);
                }
            }
            for (jobs, results) in outcomes {
                // Whoever went away has nothing to be compared.
                for (job, result) in jobs.iter().zip(results.unwrap_or_default()) {
                    let number = call_of[&job.id];
                    let own = match whole.get(number).copied().flatten() {
                        Some("AccessDenied") => matches!(result, Err(QueueError::Misconfigured(_))),
                        Some("RequestThrottled") => matches!(result, Err(QueueError::Throttled(_))),
                        Some(_) => matches!(result, Err(QueueError::Unavailable(_))),
                        None => is_as_told(&result, by_prompt(job)),
                    };
                    assert!(own, "{result:?} for {:?} in call {number}: {:?}", job.spec.prompt(), whole.get(number));
                }
            }
        });
    }
}
