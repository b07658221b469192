//! `Embedded`: SQS and S3 of a test's own, with what a pipeline would have left in them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{EmbeddedS3, EmbeddedSqs, s3_client, sqs_client};
use devstack::stack::provision::{self, Queues as Urls};
use devstack::stack::{BUCKET, MAX_RECEIVE_COUNT};
use imagectl::fault::Fault;
use imagectl::fleet::NoFleet;
use imagectl::objects::{ETag, Listed, ObjectInfo, Objects, S3Objects};
use imagectl::queues::{Depth, Queues, RawLetter, SqsQueues};
use imagectl::site::Site;
use jiff::Timestamp;
use job::{
    Claim, Failure, FailureCode, IdKeys, ImageInfo, Job, JobSpec, Record, SourceInfo, Status, TenantId, TraceContext,
    image_key, record_key, source_key,
};
use uuid::Uuid;

pub struct Embedded {
    pub site: Site,
    pub urls: Urls,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    pub sqs_url: String,
    pub s3_url: String,
    _servers: (EmbeddedSqs, EmbeddedS3, tempfile::TempDir),
}

impl Embedded {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any_port = "127.0.0.1:0".parse().unwrap();
        let sqs_server = EmbeddedSqs::start(any_port, SqsOptions::default()).await.unwrap();
        let s3_server = EmbeddedS3::start(any_port, dir.path().to_owned()).await.unwrap();
        let (sqs_url, s3_url) = (sqs_server.url(), s3_server.url());
        let (sqs, s3) = (sqs_client(&sqs_url), s3_client(&s3_url));
        let urls = provision::queues(&sqs).await.unwrap();
        provision::bucket(&s3).await.unwrap();
        // The dead-letter queue is found by the redrive policy.
        let queues = SqsQueues::open(sqs.clone(), urls.queue_url.clone(), None).await.unwrap();
        let queues = queues.with_batches(Some(urls.batch_url.clone()));
        let site = Site {
            queues: Arc::new(queues),
            objects: Arc::new(S3Objects::new(s3.clone(), BUCKET.to_owned())),
            fleet: Arc::new(NoFleet),
            now: Timestamp::now,
            by: "operator".to_owned(),
            log: |_| {},
        };
        Self { site, urls, sqs, s3, sqs_url, s3_url, _servers: (sqs_server, s3_server, dir) }
    }

    pub async fn dead(&self, body: impl Into<String>) -> String {
        let send = self.sqs.send_message().queue_url(&self.urls.dead_letter_url).message_body(body);
        send.send().await.unwrap().message_id.unwrap()
    }

    pub async fn put(&self, record: &Record) {
        let body = ByteStream::from(serde_json::to_vec(record).unwrap());
        self.s3.put_object().bucket(BUCKET).key(record_key(&record.id)).body(body).send().await.unwrap();
    }

    /// The picture that so many calls have brought, as the worker keeps it.
    pub async fn put_source(&self, job: &Job, generation: Option<u32>) {
        let put = self.s3.put_object().bucket(BUCKET).key(source_key(&job.id)).body(ByteStream::from_static(b"png"));
        put.set_metadata(generation.map(|number| [("generation".to_owned(), number.to_string())].into()))
            .send()
            .await
            .unwrap();
    }

    /// A record that was cut off while it was written.
    pub async fn damage(&self, job: &Job) {
        let body = ByteStream::from_static(br#"{"v":1"#);
        self.s3.put_object().bucket(BUCKET).key(record_key(&job.id)).body(body).send().await.unwrap();
    }

    /// A dead letter whose record says that its attempts ended with this fault.
    pub async fn exhausted(&self, fault: &str) -> Job {
        let job = job();
        let mut record = Record::begin(&job, Timestamp::now());
        record.finish(Status::Failed, Timestamp::now());
        record.error = Some(Failure::new(FailureCode::AttemptsExhausted, format!("last fault: {fault}")));
        self.put(&record).await;
        self.dead(job.encode()).await;
        job
    }

    /// Takes everything out of the job queue: bodies with their message groups.
    pub async fn received(&self) -> Vec<(String, Option<String>)> {
        self.received_from(&self.urls.queue_url).await
    }

    /// A job of a batch that was handed over until it was dead.
    pub async fn dead_of_a_batch(&self) -> Job {
        let job = job();
        let url = &self.urls.batch_url;
        self.sqs.send_message().queue_url(url).message_body(job.encode()).send().await.unwrap();
        // The receive after the last one moves it.
        for _ in 0..=MAX_RECEIVE_COUNT {
            self.sqs.receive_message().queue_url(url).visibility_timeout(0).send().await.unwrap();
        }
        job
    }

    /// Takes everything out of a queue: bodies with their message groups.
    pub async fn received_from(&self, queue_url: &str) -> Vec<(String, Option<String>)> {
        let mut received = Vec::new();
        loop {
            let request = self.sqs.receive_message().queue_url(queue_url).max_number_of_messages(10);
            let request = request.message_system_attribute_names("All".into()).wait_time_seconds(1);
            let messages = request.send().await.unwrap().messages.unwrap_or_default();
            if messages.is_empty() {
                return received;
            }
            received.extend(messages.into_iter().map(|message| {
                let group = message.attributes.as_ref().and_then(|all| all.get(&"MessageGroupId".into()).cloned());
                (message.body.unwrap(), group)
            }));
        }
    }

    /// Returns every line below `audit/`, in the order of the keys.
    pub async fn audit(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for one in self.site.objects.list(imagectl::audit::AUDIT, None).await.unwrap() {
            let (body, _) = self.site.objects.read(&one.key).await.unwrap().unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        }
        lines
    }
}

pub fn job() -> Job {
    let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
    let tenant: TenantId = "north".parse().unwrap();
    Job {
        id: keys.issue(&tenant),
        tenant,
        spec: JobSpec::new("a red fox".to_owned(), None, None).unwrap(),
        submitted_at: Timestamp::now(),
        deadline_at: None,
        retries: 0,
        trace: TraceContext::generate(),
    }
}

pub fn claim(worker: &str, deadline_at: Timestamp) -> Claim {
    let message_id = "message-1".to_owned();
    Claim { token: Uuid::new_v4(), worker: worker.to_owned(), message_id, receive_count: 1, deadline_at }
}

/// A job with a picture that took so many calls.
pub fn succeeded(job: &Job, generation: u32) -> Record {
    let mut record = Record::begin(job, Timestamp::now());
    record.attempts = 1;
    let model = "stability.stable-image-core-v1:1".to_owned();
    record.source = Some(SourceInfo { model, seed: 7, bytes: 3, generation, made_at: None });
    record.image = Some(ImageInfo {
        key: image_key(&job.id),
        width: 1024,
        height: 1024,
        bytes: 5,
        content_type: "image/webp".to_owned(),
        sha256: "ab".repeat(32),
        thumbhash: "3OcRJYB4d3h/iIeHeEh3eIhw+j2w".to_owned(),
    });
    record.finish(Status::Succeeded, Timestamp::now());
    record
}

/// The bucket, of which one object cannot be written.
pub struct RefusingObjects {
    pub objects: Arc<dyn Objects>,
    pub refused: &'static str,
}

#[async_trait]
impl Objects for RefusingObjects {
    async fn read(&self, key: &str) -> Result<Option<(Bytes, ETag)>, Fault> {
        self.objects.read(key).await
    }

    async fn write(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<Option<ETag>, Fault> {
        if key == self.refused {
            return Err(Fault::Service { what: "S3", reason: "AccessDenied: no".to_owned() });
        }
        self.objects.write(key, body, expected).await
    }

    async fn look(&self, key: &str) -> Result<Option<ObjectInfo>, Fault> {
        self.objects.look(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, Fault> {
        self.objects.list(prefix, after).await
    }
}

/// The queues, of which the job queue takes so many messages and then no more.
pub struct RefusingQueues {
    pub queues: Arc<dyn Queues>,
    pub takes: Mutex<usize>,
}

#[async_trait]
impl Queues for RefusingQueues {
    async fn jobs(&self) -> Result<Depth, Fault> {
        self.queues.jobs().await
    }

    async fn batches(&self) -> Result<Option<Depth>, Fault> {
        self.queues.batches().await
    }

    async fn dead_letters(&self) -> Result<Depth, Fault> {
        self.queues.dead_letters().await
    }

    async fn look(&self) -> Result<Vec<RawLetter>, Fault> {
        self.queues.look().await
    }

    async fn put_back(&self, receipt: &str) -> Result<(), Fault> {
        self.queues.put_back(receipt).await
    }

    fn knows_origin(&self, letter: &RawLetter) -> bool {
        self.queues.knows_origin(letter)
    }

    async fn send_back(&self, letter: &RawLetter, tenant: &TenantId) -> Result<String, Fault> {
        {
            let mut takes = self.takes.lock().unwrap();
            if *takes == 0 {
                return Err(Fault::Service { what: "SQS", reason: "OverLimit: no more".to_owned() });
            }
            *takes -= 1;
        }
        self.queues.send_back(letter, tenant).await
    }

    async fn remove(&self, receipt: &str) -> Result<(), Fault> {
        self.queues.remove(receipt).await
    }
}
