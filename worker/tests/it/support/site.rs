//! `Site`: queue, bucket and model on loopback ports, for the real binary.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use devstack::bedrock::{BedrockOptions, BedrockStandIn, Detail};
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{
    ACCESS_KEY_ID, EmbeddedS3, EmbeddedSqs, REGION, SECRET_ACCESS_KEY, s3_client, sdk_config, sqs_client,
};
use devstack::stack::BUCKET;
use devstack::stack::provision::{Queues, bucket, queues};
use jiff::Timestamp;
use job::{Job, Pauses, Record, Status, pauses_key};
use tempfile::TempDir;
use tokio::time::Instant;
use worker::store::{ObjectStore, S3Store, Shelf};

use super::job;

/// Far beyond what any condition takes; reaching it is the failure.
const GIVE_UP: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a worker process talks to.
pub struct Site {
    pub sqs: EmbeddedSqs,
    pub s3: EmbeddedS3,
    pub bedrock: BedrockStandIn,
    queues: Queues,
    client: aws_sdk_sqs::Client,
    store: S3Store,
    _dir: TempDir,
}

impl Site {
    pub async fn start() -> Self {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let sqs = EmbeddedSqs::start(any_port, SqsOptions::default()).await.unwrap();
        let s3 = EmbeddedS3::start(any_port, dir.path().to_owned()).await.unwrap();
        let options = BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() };
        let bedrock = BedrockStandIn::start(any_port, options).await.unwrap();
        let client = sqs_client(&sqs.url());
        let queues = queues(&client).await.unwrap();
        bucket(&s3_client(&s3.url())).await.unwrap();
        let config = sdk_config().into_builder().endpoint_url(s3.url()).build();
        let store = S3Store::new(&config, BUCKET.to_owned());
        Self { sqs, s3, bedrock, queues, client, store, _dir: dir }
    }

    /// Returns the whole environment of a worker process.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SQS_QUEUE_URL", self.queues.queue_url.clone()),
            ("DEAD_LETTER_QUEUE_URL", self.queues.dead_letter_url.clone()),
            ("S3_BUCKET_NAME", BUCKET.to_owned()),
            ("RECEIVE_WAIT_SECONDS", "1".to_owned()),
            ("RENDER_METHOD", "0".to_owned()),
            ("ADMIN_ADDR", "127.0.0.1:0".to_owned()),
            ("AWS_ENDPOINT_URL_SQS", self.sqs.url()),
            ("AWS_ENDPOINT_URL_S3", self.s3.url()),
            ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", format!("http://{}", self.bedrock.local_addr())),
            ("AWS_ENDPOINT_URL_BEDROCK", format!("http://{}", self.bedrock.local_addr())),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    pub async fn submit(&self, prompt: &str) -> Job {
        let job = job(prompt, Timestamp::now());
        let send = self.client.send_message().queue_url(&self.queues.queue_url).message_body(job.encode());
        send.send().await.unwrap();
        job
    }

    /// Puts a job into the dead-letter queue.
    pub async fn dead(&self, prompt: &str) -> Job {
        let job = job(prompt, Timestamp::now());
        let send = self.client.send_message().queue_url(&self.queues.dead_letter_url).message_body(job.encode());
        send.send().await.unwrap();
        job
    }

    /// Pauses, or lets go on, as an operator does.
    pub async fn set_pauses(&self, pauses: &Pauses) {
        let found = self.store.read_control(pauses_key()).await.unwrap().map(|(_, version)| version);
        let body = serde_json::to_vec(pauses).unwrap().into();
        self.store.write_control(pauses_key(), body, found.as_ref()).await.unwrap();
    }

    /// Messages visible and hidden.
    pub async fn backlog(&self) -> (usize, usize) {
        let request = self.client.get_queue_attributes().queue_url(&self.queues.queue_url);
        let output = request.attribute_names(QueueAttributeName::All).send().await.unwrap();
        let count = |name| output.attributes.as_ref().unwrap()[&name].parse().unwrap();
        (
            count(QueueAttributeName::ApproximateNumberOfMessages),
            count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    }

    pub async fn record(&self, job: &Job) -> Option<Record> {
        self.store.read_record(&job.id).await.unwrap().map(|(record, _)| record)
    }

    /// Returns what the model returned.
    pub async fn source(&self, job: &Job) -> Vec<u8> {
        self.store.read_source(&job.id).await.unwrap().unwrap().bytes.to_vec()
    }

    /// Waits until the job has succeeded and its message is gone.
    pub async fn succeeded(&self, job: &Job) -> Record {
        let record = when("a final record", async || self.record(job).await.filter(|record| record.status.is_final()));
        let record = record.await;
        assert_eq!(record.status, Status::Succeeded, "{record:?}");
        when("an empty queue", async || (self.backlog().await == (0, 0)).then_some(())).await;
        record
    }

    /// Waits until the model has been called this often.
    pub async fn model_calls(&self, calls: u64) {
        when("calls of the model", async || (self.bedrock.ledger().totals.calls >= calls).then_some(())).await;
    }
}

/// Looks until something is found.
pub async fn when<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + GIVE_UP;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < give_up, "waited {} s for {what}", GIVE_UP.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
