//! The OpenAPI document held against the running server, by schemathesis.

use std::process::Stdio;

use devstack::bedrock::{BedrockOptions, Detail};
use devstack::stack::LocalAwsKind;
use devstack::venv;
use tokio::process::Command;

use crate::support::{Live, workspace};

const SCHEMATHESIS: &str = "4.32.5";

/// Without workers every job stays queued, so every valid request must be accepted. Not every sequence of them: a retry
/// says what a job is of that no worker has seen, and holds what comes later to it.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_the_server_does_while_jobs_wait() {
    schemathesis(0, &["--phases", "examples,coverage,fuzzing"]).await;
}

/// With a worker, jobs end in every way, and requests follow each other. An idempotency key that comes back with another prompt is then refused (422),
/// which is right and which no schema can say.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_the_server_does_while_jobs_end() {
    schemathesis(1, &["--exclude-checks", "positive_data_acceptance"]).await;
}

async fn schemathesis(workers: usize, extra: &[&str]) {
    let bedrock = BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() };
    let live = Live::start(LocalAwsKind::Embedded, bedrock, |options| {
        options.workers = workers;
        // It sends thousands of requests, and the limits have tests of their own.
        let unlimited = ["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"];
        options.api_env.extend(unlimited.map(|name| (name.to_owned(), "1000000".to_owned())));
        // A stream of a job that waits lasts ten minutes; without a place, it has one event and ends.
        options.api_env.push(("MAX_STREAMS".to_owned(), "0".to_owned()));
    })
    .await;
    let venv = venv::install(&workspace().join(".dev/venvs"), "schemathesis", SCHEMATHESIS).await.unwrap();
    let output = Command::new(venv.join("bin/st"))
        .args(["run", &format!("{}/openapi.json", live.stack.api_url()), "--checks", "all"])
        .args(["--header", &format!("Authorization: Bearer {}", live.stack.api_key())])
        .args(["--max-examples", "25", "--seed", "1", "--no-color"])
        .args(extra)
        .current_dir(live.stack.logs_dir())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("8 selected / 8 total"), "it did not see every operation: {report}");
    live.stop().await;
}
