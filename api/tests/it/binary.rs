//! The real binary: its exit codes, and the pause that it reads.

use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use devstack::embedded::{ACCESS_KEY_ID, EmbeddedS3, REGION, SECRET_ACCESS_KEY, s3_client};
use devstack::stack::{BUCKET, provision};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{ID_KEYS, NORTH_KEY};

#[test]
fn the_exit_code_tells_settings_from_faults() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let keys = format!("north:{NORTH_KEY}");
    for (name, value, code, said) in [
        ("S3_BUCKET_NAME", "", 64, "--s3-bucket-name"),
        ("MAX_WAITERS", "many", 64, "--max-waiters"),
        ("API_KEYS", "north:short", 64, "API_KEYS"),
        ("POLLS_PER_MINUTE", "1", 64, "POLLS_PER_MINUTE contradicts JOBS_PER_MINUTE"),
        ("LOG_FILTER", "info=loud", 64, "LOG_FILTER"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", 64, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("ADMIN_ADDR", taken.as_str(), 1, "ADMIN_ADDR"),
        ("LISTEN_ADDR", taken.as_str(), 1, "LISTEN_ADDR"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_image-api"))
            .env_clear()
            .envs([("SQS_QUEUE_URL", "http://127.0.0.1:1/000000000000/q"), ("S3_BUCKET_NAME", "b")])
            .envs([("CLOUDFRONT_DOMAIN", "cdn.example.com"), ("API_KEYS", &keys), ("JOB_ID_KEYS", ID_KEYS)])
            .envs([("LISTEN_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")])
            .envs([("AWS_REGION", "us-west-2"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")])
            .env(name, value)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(text.starts_with("error: ") && !text.contains("error: error") && text.contains(said), "{text}");
    }
}

#[test]
fn the_health_command_needs_no_setting_and_tells_why_it_fails() {
    let health = |addr: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-api"));
        command.env_clear().env("ADMIN_ADDR", addr).arg("health").args(args).output().unwrap()
    };
    // Bound and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = health(&free, &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.contains(&free) && text.lines().count() == 1, "{text}");
    let output = health("nowhere", &["--live"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(64) && text.contains("--admin-addr"), "{text}");
}

#[tokio::test]
async fn a_pause_in_the_bucket_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = EmbeddedS3::start("127.0.0.1:0".parse().unwrap(), dir.path().to_owned()).await.unwrap();
    let client = s3_client(&s3.url());
    provision::bucket(&client).await.unwrap();
    let pauses = r#"{"v":1,"intake":{"reason":"Maintenance.","by":"operator","since":"2026-11-26T08:00:00Z"}}"#;
    let put = client.put_object().bucket(BUCKET).key(job::pauses_key());
    put.body(ByteStream::from_static(pauses.as_bytes())).send().await.unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_image-api"))
        .env_clear()
        .envs([("SQS_QUEUE_URL", "http://127.0.0.1:1/000000000000/q"), ("S3_BUCKET_NAME", BUCKET)])
        .envs([("CLOUDFRONT_DOMAIN", "cdn.example.com"), ("JOB_ID_KEYS", ID_KEYS)])
        .env("API_KEYS", format!("north:{NORTH_KEY}"))
        .envs([("LISTEN_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")])
        .envs([("AWS_REGION", REGION), ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)])
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_ENDPOINT_URL_S3", s3.url())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let paused = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("intake is paused") {
                return line;
            }
        }
        panic!("it ended without a word of the pause")
    };
    let line = tokio::time::timeout(Duration::from_secs(120), paused).await.expect("it is read at the start");
    assert!(line.contains("Maintenance.") && line.contains("operator"), "{line}");
}
