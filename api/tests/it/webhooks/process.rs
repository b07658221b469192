//! The real binary on the embedded queue and bucket: from a notice to a receiver, again after a failure, and to a stop.

use std::process::{Command, Stdio};
use std::time::Duration;

use api::queue::{JobQueue, SqsQueue};
use api::store::{RecordStore, S3Records};
use aws_sdk_sqs::types::QueueAttributeName;
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{ACCESS_KEY_ID, EmbeddedS3, EmbeddedSqs, REGION, SECRET_ACCESS_KEY, s3_client, sqs_client};
use devstack::stack::{BUCKET, provision};
use job::Notice;
use tokio::io::AsyncReadExt;

use super::support::{Inbox, NEW_SECRET, Reply, entry};
use crate::support::{job, succeeded};

/// Returns how many notices wait, and how many are hidden.
async fn depth(client: &aws_sdk_sqs::Client, url: &str) -> [String; 2] {
    use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};
    let names = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
    let request = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
    let attributes = request.send().await.unwrap().attributes.unwrap();
    names.map(|name| attributes[&name].clone())
}

#[tokio::test]
async fn a_notice_in_the_queue_reaches_its_receiver_and_what_fails_stays_hidden() {
    let any = || "127.0.0.1:0".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (sqs, s3) = (
        EmbeddedSqs::start(any(), SqsOptions::default()).await.unwrap(),
        EmbeddedS3::start(any(), dir.path().to_owned()).await.unwrap(),
    );
    let (queues, bucket) = (sqs_client(&sqs.url()), s3_client(&s3.url()));
    provision::bucket(&bucket).await.unwrap();
    let urls = provision::queues(&queues).await.unwrap();
    let records = S3Records::new(bucket, BUCKET.to_owned());
    let sends =
        SqsQueue::new(queues.clone(), urls.queue_url.clone(), None).with_webhooks(Some(urls.webhook_url.clone()));
    let inbox = Inbox::start().await;
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_image-api"))
        .arg("webhooks")
        .env_clear()
        .envs([("SQS_WEBHOOK_QUEUE_URL", urls.webhook_url.as_str()), ("S3_BUCKET_NAME", BUCKET)])
        .envs([("CLOUDFRONT_DOMAIN", "cdn.example.com"), ("ADMIN_ADDR", "127.0.0.1:0")])
        .env("WEBHOOKS", format!("{{{}}}", entry("north", &inbox.url())))
        .env("WEBHOOK_ALLOW_PRIVATE", "true")
        .envs([("AWS_REGION", REGION), ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)])
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .envs([("AWS_ENDPOINT_URL_S3", s3.url()), ("AWS_ENDPOINT_URL_SQS", sqs.url())])
        // A proxy that nobody runs: not for webhooks.
        .envs([("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let taken = job();
    records.create(&succeeded(&taken)).await.unwrap();
    sends.tell(&Notice::of(&taken)).await.unwrap();
    inbox.heard(1).await;
    let got = inbox.only();
    standardwebhooks::Webhook::new(NEW_SECRET).unwrap().verify(&got.body, &got.headers).unwrap();
    let settled = async |expected: [&str; 2]| {
        while depth(&queues, &urls.webhook_url).await != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, settled(["0", "0"])).await.expect("what was taken is deleted");

    inbox.replies(Reply::status(500));
    let refused = job();
    records.create(&succeeded(&refused)).await.unwrap();
    sends.tell(&Notice::of(&refused)).await.unwrap();
    // The first try, and the second after five seconds: so long does the queue hide it, and not for the first minute.
    inbox.heard(2).await;
    let ids: Vec<String> = inbox.take().iter().map(|got| got.header("webhook-id").to_owned()).collect();
    assert_eq!(ids[0], ids[1]);
    tokio::time::timeout(patience, settled(["0", "1"])).await.expect("what was refused is hidden");

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert!(child.wait().await.unwrap().success(), "{said}");
    for line in [
        "webhooks started",
        "WEBHOOK_ALLOW_PRIVATE is on",
        "webhook delivered",
        "webhook not delivered",
        "webhooks stopped",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains(&taken.id.to_string()) && said.contains("\"http.status\":500"), "{said}");
    for secret in ["not-for-a-log", "MfKQ9r8G", "whsec_", "v1,"] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn the_exit_code_and_the_message_tell_which_setting_is_wrong() {
    let base = [("SQS_WEBHOOK_QUEUE_URL", "http://127.0.0.1:1/q"), ("S3_BUCKET_NAME", "b"), ("WEBHOOKS", "{}")];
    let private = format!("{{{}}}", entry("north", "https://10.0.0.7/"));
    for (name, value, said) in [
        ("WEBHOOKS", "fox", "WEBHOOKS: syntax error"),
        ("WEBHOOKS", private.as_str(), "WEBHOOKS: url of tenant north is an address that is not public"),
        ("WEBHOOK_ALLOW_PRIVATE", "perhaps", "--webhook-allow-private"),
        ("SQS_WEBHOOK_QUEUE_URL", "", "--sqs-webhook-queue-url"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_image-api"))
            .arg("webhooks")
            .env_clear()
            .envs(base)
            .envs([("CLOUDFRONT_DOMAIN", "cdn.example.com"), ("ADMIN_ADDR", "127.0.0.1:0")])
            .env(name, value)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{name}: {text}");
        assert!(text.contains(said) && !text.contains("fox") && !text.contains("MfKQ9r8G"), "{text}");
    }
}
