//! The real binary: its exit codes, its stop, and servers that stall or close connections.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use job::{Pause, Pauses, Status};
use tokio::process::Command;

use crate::support::{BINARY, Idle, LoopbackProxy, Site, WorkerProcess, when};

/// Less than the model takes in these tests.
const IDLE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn settings_that_contradict_each_other_are_named_and_end_it_with_64() {
    let output = Command::new(BINARY)
        .env_clear()
        .envs([("SQS_QUEUE_URL", "http://127.0.0.1:1/000000000000/q"), ("S3_BUCKET_NAME", "b")])
        .envs([("MODEL_TIMEOUT_SECONDS", "200"), ("SHUTDOWN_GRACE_SECONDS", "100")])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("MODEL_TIMEOUT_SECONDS") && text.contains("SHUTDOWN_GRACE_SECONDS"), "{text}");
}

#[tokio::test]
async fn the_exit_code_tells_settings_from_faults() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (name, value, code, said) in [
        ("S3_BUCKET_NAME", "", 64, "--s3-bucket-name"),
        ("WORKER_SLOTS", "many", 64, "--worker-slots"),
        ("LOG_FILTER", "info=loud", 64, "LOG_FILTER"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", 64, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", 64, "--otel-exporter-otlp-protocol"),
        ("BEDROCK_MODEL_ID", "amazon.titan-image-generator-v2:0", 64, "BEDROCK_MODEL_ID"),
        ("ADMIN_ADDR", taken.as_str(), 1, "ADMIN_ADDR"),
    ] {
        let output = Command::new(BINARY)
            .env_clear()
            .envs([("SQS_QUEUE_URL", "http://127.0.0.1:1/000000000000/q"), ("S3_BUCKET_NAME", "b")])
            .env(name, value)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(text.starts_with("error: ") && !text.contains("error: error") && text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_pass_of_the_reconciler_is_one_command() {
    let site = Site::start().await;
    let job = site.dead("a red fox").await;
    let pass = async |extra: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("reconcile").args(extra).env_clear().envs(site.environment()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, log) = pass(&["--once"]).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(r#""letters.ended":1"#) && log.contains(r#""saw_every_letter":true"#), "{log}");
    assert!(!log.contains("fox"), "{log}");
    assert_eq!(site.record(&job).await.unwrap().status, Status::Failed);
    let (code, log) = pass(&["--once"]).await;
    assert!(code == Some(0) && log.contains(r#""letters.already_final":1"#), "{log}");
    let (code, log) =
        pass(&["--once", "--dead-letter-queue-url", &format!("{}/000000000000/no-such-queue", site.sqs.url())]).await;
    assert!(code == Some(1) && log.contains("error: the dead-letter queue: "), "{log}");
    let (code, log) = pass(&["--twice"]).await;
    assert!(code == Some(64) && log.contains("--twice"), "{log}");
}

/// Each look would be one of the hand-overs that its messages have, and after a few passes they were dead.
#[tokio::test]
async fn the_reconciler_does_not_look_into_the_queue_of_jobs() {
    let site = Site::start().await;
    site.submit("a red fox").await;
    let environment: HashMap<_, _> = site.environment().into_iter().collect();
    for once in [&["--once"][..], &[]] {
        let mut command = Command::new(BINARY);
        command.arg("reconcile").args(once).env_clear().envs(&environment).kill_on_drop(true);
        let output = command.env("DEAD_LETTER_QUEUE_URL", &environment["SQS_QUEUE_URL"]).output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains("error: DEAD_LETTER_QUEUE_URL: this queue has a redrive policy"), "{text}");
    }
    assert_eq!(site.backlog().await, (1, 0), "nobody has taken it");
}

#[tokio::test]
async fn a_worker_obeys_the_pause_in_the_bucket() {
    let site = Site::start().await;
    let pause = Pause::new("The model is being changed.", "operator", Timestamp::now()).unwrap();
    site.set_pauses(&Pauses { generation: Some(pause), ..Pauses::default() }).await;
    let mut worker = WorkerProcess::start(&site, &[]).await;
    let line = worker.logged("generation is paused").await;
    assert_eq!((&line["reason"], &line["by"]), (&"The model is being changed.".into(), &"operator".into()));
    let job = site.submit("a red fox").await;
    let metrics = worker.admin("/metrics").await;
    // It has not even asked: a receive that is under way is counted when it ends, but none may have begun.
    assert!(
        metrics.contains("worker_paused 1")
            && metrics.contains(r#"worker_receives_total{lane="interactive",result="empty"} 0"#),
        "{metrics}"
    );
    assert_eq!((site.backlog().await, site.record(&job).await), ((1, 0), None));
    site.set_pauses(&Pauses::default()).await;
    worker.logged("generation goes on").await;
    site.succeeded(&job).await;
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn what_arrives_after_sigterm_is_not_left_invisible() {
    let site = Site::start().await;
    let mut worker = WorkerProcess::start(&site, &[("RECEIVE_WAIT_SECONDS", "10")]).await;
    let first = site.submit("a red fox").await;
    // With that one done the worker is in its next long poll, or about to be.
    site.succeeded(&first).await;
    worker.terminate();
    worker.logged("signal received").await;
    let late = site.submit("too late").await;
    assert_eq!(worker.exit_code().await, Some(0));
    assert!(worker.has_logged("giving back what arrived after the signal"), "the poll did not see the message");
    assert_eq!(site.backlog().await, (1, 0));
    assert!(site.record(&late).await.is_none());
}

#[tokio::test]
async fn the_model_is_asked_for_the_format_that_is_set() {
    let site = Site::start().await;
    for (format, begin) in [("png", &b"\x89PNG"[..]), ("jpeg", b"\xff\xd8\xff")] {
        let mut worker = WorkerProcess::start(&site, &[("BEDROCK_OUTPUT_FORMAT", format)]).await;
        let job = site.submit("a red fox").await;
        let image = site.succeeded(&job).await.image.unwrap();
        assert_eq!((image.width, image.content_type.as_str()), (1024, "image/webp"));
        assert!(site.source(&job).await.starts_with(begin), "{format}");
        worker.terminate();
        assert_eq!(worker.exit_code().await, Some(0));
    }
}

/// Deliveries that end together are deleted by calls that they share: a stop waits for all of them.
#[tokio::test]
async fn a_stop_waits_for_the_deletes_that_jobs_share() {
    const JOBS: usize = 24;
    let site = Site::start().await;
    let mut worker = WorkerProcess::start(&site, &[("WORKER_SLOTS", &JOBS.to_string())]).await;
    let jobs: Vec<_> = futures::future::join_all((0..JOBS).map(|_| site.submit("a red fox [[latency:2s]]"))).await;
    site.model_calls(JOBS as u64).await;
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(site.backlog().await, (0, 0));
    for job in &jobs {
        assert_eq!(site.record(job).await.unwrap().status, Status::Succeeded);
    }
    assert_eq!(site.bedrock.ledger().totals.paid, JOBS as u64);
}

#[tokio::test]
async fn a_queue_that_stalls_does_not_stop_the_worker_for_good() {
    let site = Site::start().await;
    let proxy = LoopbackProxy::start(site.sqs.local_addr(), Idle::Kept).await;
    let mut worker = WorkerProcess::start(&site, &[("AWS_ENDPOINT_URL_SQS", &proxy.url())]).await;
    let job = site.submit("a red fox").await;
    site.succeeded(&job).await;
    proxy.stall();
    worker.blocked_by("queue").await;
    let job = site.submit("another fox").await;
    proxy.heal();
    site.succeeded(&job).await;
    worker.ready().await;
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_ends_although_the_queue_stalls() {
    let site = Site::start().await;
    let proxy = LoopbackProxy::start(site.sqs.local_addr(), Idle::Kept).await;
    let mut worker = WorkerProcess::start(&site, &[("AWS_ENDPOINT_URL_SQS", &proxy.url())]).await;
    worker.ready().await;
    proxy.stall();
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

/// One that refuses connections, and one that takes them and never answers.
#[tokio::test]
async fn a_collector_of_traces_that_is_away_costs_no_job_and_holds_up_no_exit() {
    let site = Site::start().await;
    let silent = LoopbackProxy::start(site.sqs.local_addr(), Idle::Kept).await;
    silent.stall();
    for endpoint in ["http://127.0.0.1:1".to_owned(), silent.url()] {
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
        let mut worker = WorkerProcess::start(&site, &env).await;
        let job = site.submit("a red fox").await;
        site.succeeded(&job).await;
        worker.logged("traces cannot be delivered").await;
        worker.terminate();
        assert_eq!(worker.exit_code().await, Some(0));
    }
}

/// While the model paints, connections to the store have nothing to do. Neither a store that closes them nor one that
/// forgets them may cost the job an attempt, or the picture that was paid for.
async fn store_connections_are_lost_during_the_model_call(idle: Idle) {
    let site = Site::start().await;
    let proxy = LoopbackProxy::start(site.s3.local_addr(), idle).await;
    let mut worker = WorkerProcess::start(&site, &[("AWS_ENDPOINT_URL_S3", &proxy.url())]).await;
    let job = site.submit("a red fox [[latency:2s]]").await;
    site.model_calls(1).await;
    when("a lost connection", async || (proxy.lost() > 0).then_some(())).await;
    let record = site.succeeded(&job).await;
    assert_eq!((record.attempts, site.bedrock.ledger().totals.paid), (1, 1));
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_store_that_closes_idle_connections_costs_nothing() {
    store_connections_are_lost_during_the_model_call(Idle::ClosedAfter(IDLE)).await;
}

#[tokio::test]
async fn a_store_that_forgets_idle_connections_costs_a_retry_and_no_attempt() {
    store_connections_are_lost_during_the_model_call(Idle::DeadAfter(IDLE)).await;
}
