//! The real binary: where it finds the pipeline, what it prints, and how it ends.

use std::process::Output;

use devstack::stack::BUCKET;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Embedded, job};

async fn imagectl(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagectl"));
    command.env_clear().env("USER", "someone").envs(env.iter().copied()).args(args).kill_on_drop(true);
    command.output().await.unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn what_is_missing_is_named_and_ends_with_64() {
    for (args, word) in [
        (&["status"][..], "SQS_QUEUE_URL"),
        (&["status", "--dev-dir", "/nonexistent"], "cargo dev up"),
        (&["dead-letters", "redrive"], "--all"),
        (&["job", "show", "42"], "not a job id"),
    ] {
        let (code, _, error) = said(&imagectl(args, &[]).await);
        assert_eq!(code, Some(64), "{args:?}: {error}");
        assert!(error.contains(word), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn a_local_stack_is_found_by_its_folder_and_aws_by_its_variables() {
    let embedded = Embedded::start().await;
    let failed = embedded.exhausted("model_failed").await;
    let dir = tempfile::tempdir().unwrap();
    let endpoints = json!({
        "sqs_url": embedded.sqs_url, "s3_url": embedded.s3_url, "bucket": BUCKET,
        "queue_url": embedded.urls.queue_url, "dead_letter_url": embedded.urls.dead_letter_url,
        "admin_urls": ["http://127.0.0.1:1"], "api_url": "http://127.0.0.1:1",
    });
    std::fs::write(dir.path().join("endpoints.json"), endpoints.to_string()).unwrap();
    let local = ["--json", "--dev-dir", dir.path().to_str().unwrap()];
    let variables = [
        ("AWS_ENDPOINT_URL_SQS", embedded.sqs_url.as_str()),
        ("AWS_ENDPOINT_URL_S3", &embedded.s3_url),
        ("AWS_REGION", "us-west-2"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local-secret"),
        ("SQS_QUEUE_URL", &embedded.urls.queue_url),
        ("S3_BUCKET_NAME", BUCKET),
    ];
    for (target, env) in [(&local[..], &[][..]), (&["--json"], &variables[..])] {
        let run = async |args: &[&str]| said(&imagectl(&[args, target].concat(), env).await);
        let (code, text, error) = run(&["status"]).await;
        assert_eq!(code, Some(0), "{error}");
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["dead_letters"]["waiting"], 1, "{text}");
        let (code, text, _) = run(&["pause", "intake", "--reason", "Maintenance."]).await;
        let pauses: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &pauses["intake"]["by"]), (Some(0), &json!("someone")));
        assert_eq!(run(&["resume", "all"]).await.0, Some(0));
        let (code, text, _) = run(&["job", "show", &failed.id.to_string()]).await;
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &shown["status"]), (Some(0), &json!("failed")));
        assert_eq!(run(&["job", "show", &job().id.to_string()]).await.0, Some(2));
        assert_eq!(run(&["cost"]).await.0, Some(0));
    }
    let (code, text, log) = said(&imagectl(&[&["dead-letters", "redrive", "--all"], &local[1..]].concat(), &[]).await);
    assert_eq!(code, Some(0), "{log}");
    assert!(text.contains("1 redriven") && text.contains("audit: audit/"), "{text}");
    assert!(log.contains(r#""action":"redrive""#) && log.contains(r#""by":"someone""#), "{log}");
}
