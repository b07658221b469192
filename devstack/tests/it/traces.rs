//! What a collector of traces gets from the real binaries, for a job that goes well and for one that does not.

use std::time::{Duration, Instant};

use devstack::bedrock::{BedrockOptions, Detail};
use devstack::stack::{LocalAwsKind, StackOptions};
use devstack::traces::{CollectedSpan, TraceCollector};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Live;

/// Longer than the exporter keeps spans back, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);
const CALLER: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

async fn start(endpoint: &str) -> Live {
    let cheap = BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() };
    let export = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "200")];
    let export = export.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Live::start(LocalAwsKind::Embedded, cheap, |options: &mut StackOptions| {
        options.api_env.extend(export.clone());
        options.worker_env.extend(export);
        options.workers = 1;
    })
    .await
}

/// Returns the spans of a trace once the worker has ended `attempts` of it.
async fn trace(collector: &TraceCollector, trace_id: &str, attempts: usize) -> Vec<CollectedSpan> {
    let started = Instant::now();
    loop {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == trace_id);
        let ended = spans.iter().filter(|span| span.name == "process job").count();
        let accepted = spans.iter().any(|span| span.kind == "server");
        if ended == attempts && accepted {
            return spans;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?}; last seen {spans:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn named<'a>(spans: &'a [CollectedSpan], name: &str) -> &'a CollectedSpan {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no span {name} in {spans:#?}"));
    assert!(found.next().is_none(), "{name} more than once in {spans:#?}");
    span
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_shows_a_job_from_the_request_to_the_picture() {
    let collector = TraceCollector::start().await.unwrap();
    let live = start(&collector.endpoint()).await;
    let request = live.request(Method::POST, "/v1/jobs").json(&json!({ "prompt": "a secret fox" }));
    let traceparent = format!("00-{}-{}-01", CALLER.0, CALLER.1);
    let answer = request.header("traceparent", traceparent).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let id = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    live.ended(&id, "succeeded").await;
    let spans = trace(&collector, CALLER.0, 1).await;

    let submit = named(&spans, "POST /v1/jobs");
    assert_eq!((submit.service.as_str(), submit.kind), ("image-api", "server"));
    assert_eq!(submit.parent_id, CALLER.1);
    assert_eq!((&submit.attributes["job.id"], submit.attributes["tenant"].as_str()), (&id, "dev"));
    assert_eq!(submit.attributes["http.response.status_code"], "202");
    let enqueue = named(&spans, "enqueue");
    assert_eq!((enqueue.kind, &enqueue.parent_id), ("producer", &submit.span_id));

    // The call is no part of one request's trace: it may carry jobs of many. It ended before the request.
    let calls = collector.spans().into_iter().filter(|span| span.name == "send batch").collect::<Vec<_>>();
    let send = named(&calls, "send batch");
    assert_eq!((send.service.as_str(), send.kind, send.parent_id.as_str()), ("image-api", "client", ""));
    assert_eq!(send.links, [(enqueue.trace_id.clone(), enqueue.span_id.clone())]);
    assert_eq!(send.attributes["messaging.batch.message_count"], "1");

    let wait = named(&spans, "queue wait");
    let process = named(&spans, "process job");
    assert_eq!((process.service.as_str(), process.kind), ("image-worker", "consumer"));
    for span in [wait, process] {
        assert_eq!((&span.parent_id, &span.attributes["job.id"]), (&submit.span_id, &id), "{span:#?}");
    }
    assert_eq!(process.links, [(submit.trace_id.clone(), submit.span_id.clone())]);
    assert_eq!(process.attributes["outcome"], "published");
    assert!(wait.start_ns <= wait.end_ns && wait.end_ns <= process.start_ns, "{wait:#?}{process:#?}");

    let steps = ["claim", "limit", "generate", "checkpoint", "render", "publish"].map(|name| named(&spans, name));
    for step in steps {
        assert_eq!(step.parent_id, process.span_id, "{step:#?}");
        assert!(process.start_ns <= step.start_ns && step.end_ns <= process.end_ns, "{step:#?}");
    }
    assert!(steps.is_sorted_by(|before, after| before.end_ns <= after.start_ns), "{steps:#?}");
    assert_eq!(spans.len(), 10, "{spans:#?}");
    assert!(spans.iter().all(|span| !span.is_error && span.events.is_empty()), "{spans:#?}");
    assert!(!format!("{:?}", collector.spans()).contains("secret fox"), "a prompt left by the traces");

    // The lines of the logs are found by the id of the trace.
    for log in ["api.log", "worker-1.log"] {
        let log = std::fs::read_to_string(live.stack.logs_dir().join(log)).unwrap();
        assert!(log.lines().any(|line| line.contains(CALLER.0) && line.contains(&id)), "{log}");
        // ... whose spans are not those of the traces.
        assert!(!log.contains("otel.") && !log.contains("messaging."), "{log}");
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hand_over_is_a_span_linked_to_the_request() {
    let collector = TraceCollector::start().await.unwrap();
    let live = start(&collector.endpoint()).await;
    // Nobody sent a trace, so the API begins one.
    let id = live.submit_prompt("a fox [[fault:internal*1]]").await;
    live.ended(&id, "succeeded").await;
    let started = Instant::now();
    let trace_id = loop {
        let of_the_job = collector.spans().into_iter().find(|span| span.attributes.get("job.id") == Some(&id));
        if let Some(span) = of_the_job {
            break span.trace_id;
        }
        assert!(started.elapsed() < PATIENCE, "no span of the job");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let spans = trace(&collector, &trace_id, 2).await;
    let submit = named(&spans, "POST /v1/jobs");
    assert_eq!(submit.parent_id, "");
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "process job").collect();
    let link = (submit.trace_id.clone(), submit.span_id.clone());
    assert!(attempts.iter().all(|span| span.parent_id == submit.span_id && span.links == [link.clone()]));
    let seen: Vec<_> = attempts.iter().map(|span| (span.attributes["outcome"].as_str(), span.is_error)).collect();
    assert_eq!(seen, [("retried", true), ("published", false)]);
    assert_eq!(attempts[0].attributes["error.kind"], "model_unavailable");
    assert_eq!(attempts[0].events, ["attempt failed"]);
    named(&spans, "queue wait");

    // Polls belong to the caller's trace or to none.
    let polls = collector.spans().into_iter().filter(|span| span.name.starts_with("GET")).count();
    assert_eq!(polls, 0);
    live.stop().await;
}
