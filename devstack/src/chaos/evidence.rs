//! Gathers the evidence when the faults are over: waits until nothing moves, redrives, and reads S3, queues, API, CDN and ledger.

use std::io::Cursor;
use std::time::Duration;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_sqs::types::QueueAttributeName;
use futures::stream::{self, StreamExt};
use image::{ImageFormat, ImageReader};
use job::{FailureCode, Job, JobId, Record, STANDARD_SIDE, Status, record_key};
use reqwest::StatusCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::ChaosError;
use super::traffic::{Client, Submission};
use super::verdict::{Depth, JobEvidence, Picture};
use crate::bedrock::LedgerReport;
use crate::stack::Stack;

/// How often the queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// They are empty when they were so often in a row: between a receive and its count they look empty.
const LOOKS: usize = 3;
/// Jobs looked at at the same time.
const AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages of both queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depths {
    pub(super) queue: Depth,
    pub(super) dead_letters: Depth,
}

/// What was found of a job, and when its record was last written (seconds since the epoch).
pub(super) struct Found {
    pub(super) job: JobEvidence,
    pub(super) written_at: Option<f64>,
}

/// Looks at both queues.
///
/// # Errors
/// When SQS does not answer.
pub(super) async fn depths(stack: &Stack) -> Result<Depths, ChaosError> {
    use QueueAttributeName::{
        ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
        ApproximateNumberOfMessagesNotVisible as InFlight,
    };
    let sqs = stack.sqs_client();
    let depth = async |url: &str| {
        let request = sqs.get_queue_attributes().queue_url(url);
        let request = request.attribute_names(Visible).attribute_names(InFlight).attribute_names(Delayed);
        let attributes = request.send().await.map_err(|error| failed("SQS", error))?.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok::<_, ChaosError>(Depth { visible: number(Visible), invisible: number(InFlight) + number(Delayed) })
    };
    Ok(Depths { queue: depth(stack.queue_url()).await?, dead_letters: depth(stack.dead_letter_url()).await? })
}

/// Waits until the queue is empty, or `patience` is over; returns what was seen last.
///
/// # Errors
/// When SQS does not answer.
pub(super) async fn drained(stack: &Stack, patience: Duration, show: impl Fn(Depths)) -> Result<Depths, ChaosError> {
    let deadline = Instant::now() + patience;
    let mut empty = 0;
    loop {
        let depths = depths(stack).await?;
        show(depths);
        empty = if depths.queue == Depth::default() { empty + 1 } else { 0 };
        if empty >= LOOKS || Instant::now() >= deadline {
            return Ok(depths);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What was sent back from the dead-letter queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Redriven {
    /// Messages of jobs that ran out of attempts, or have no end yet.
    pub(super) jobs: u64,
    /// Further messages of jobs that have ended.
    pub(super) copies: u64,
}

/// Sends every dead letter back to the queue, as an operator does when the fault is over.
///
/// # Errors
/// When SQS does not answer, or a dead letter is no job: nobody but this run sends any.
pub(super) async fn redrive(stack: &Stack) -> Result<Redriven, ChaosError> {
    let (sqs, s3) = (stack.sqs_client(), stack.s3_client());
    let mut redriven = Redriven::default();
    loop {
        let receive = sqs.receive_message().queue_url(stack.dead_letter_url()).max_number_of_messages(10);
        let received = receive.send().await.map_err(|error| failed("SQS", error))?.messages.unwrap_or_default();
        if received.is_empty() {
            return Ok(redriven);
        }
        for message in received {
            let body = message.body.unwrap_or_default();
            let job = Job::decode(&body).map_err(|error| ChaosError::Unexpected(format!("a dead letter: {error}")))?;
            let send = sqs.send_message().queue_url(stack.queue_url()).message_group_id(job.tenant.as_str());
            send.message_body(body).send().await.map_err(|error| failed("SQS", error))?;
            let delete = sqs.delete_message().queue_url(stack.dead_letter_url());
            let delete = delete.receipt_handle(message.receipt_handle.unwrap_or_default());
            delete.send().await.map_err(|error| failed("SQS", error))?;
            let record = record(&s3, stack.bucket(), &job.id).await?.map(|(record, _)| record);
            let has_ended = record.is_some_and(|record| {
                let is_exhausted = record.error.is_some_and(|error| error.code == FailureCode::AttemptsExhausted);
                record.status.is_final() && !is_exhausted
            });
            *(if has_ended { &mut redriven.copies } else { &mut redriven.jobs }) += 1;
        }
    }
}

/// Returns the jobs whose messages are in the dead-letter queue, without taking them out.
///
/// # Errors
/// When SQS does not answer.
pub(super) async fn dead_letters(stack: &Stack) -> Result<Vec<JobId>, ChaosError> {
    let sqs = stack.sqs_client();
    let receive = sqs.receive_message().queue_url(stack.dead_letter_url()).max_number_of_messages(10);
    let received = receive.visibility_timeout(0).send().await.map_err(|error| failed("SQS", error))?;
    let jobs = received.messages.unwrap_or_default().into_iter().filter_map(|message| message.body);
    Ok(jobs.filter_map(|body| Job::decode(&body).ok()).map(|job| job.id).collect())
}

/// Looks at every accepted job: its record, what the API says, its picture, and the ledger.
///
/// # Errors
/// When S3 or the API does not answer although nothing is wrong any more.
pub(super) async fn jobs(
    stack: &Stack,
    client: &Client,
    submissions: &[Submission],
    dead: &[JobId],
    progress: impl Fn(),
) -> Result<Vec<Found>, ChaosError> {
    let looking =
        Looking { s3: stack.s3_client(), bucket: stack.bucket(), ledger: stack.bedrock().ledger(), client, dead };
    let looks = stream::iter(submissions).map(|submission| looking.at(submission)).buffered(AT_ONCE);
    let found: Vec<Result<Found, ChaosError>> = looks.inspect(|_| progress()).collect().await;
    found.into_iter().collect()
}

struct Looking<'a> {
    s3: aws_sdk_s3::Client,
    bucket: &'a str,
    ledger: LedgerReport,
    client: &'a Client,
    dead: &'a [JobId],
}

impl Looking<'_> {
    async fn at(&self, submission: &Submission) -> Result<Found, ChaosError> {
        let (record, written_at) = record(&self.s3, self.bucket, &submission.id).await?.unzip();
        let view = view(self.client, &submission.id).await?;
        let picture = match view.as_ref().and_then(|view| view.image.as_ref()) {
            Some(image) => look_at(self.client, image, record.as_ref()).await,
            None => Picture::None,
        };
        let entry = self.ledger.by_prompt.get(&submission.prompt).copied().unwrap_or_default();
        let ending = |record: &Record| (record.status, record.error.as_ref().map(|error| error.code));
        let job = JobEvidence {
            id: submission.id.to_string(),
            expected: submission.expected,
            ending: record.as_ref().map(ending),
            told: view.map(|view| view.status),
            picture,
            is_dead_letter: self.dead.contains(&submission.id),
            billed: entry.paid + entry.paid_unanswered,
            spoiled: submission.spoiled,
            hit_by_signals: 0,
            hit_by_network: 0,
        };
        Ok(Found { job, written_at })
    }
}

async fn record(s3: &aws_sdk_s3::Client, bucket: &str, id: &JobId) -> Result<Option<(Record, f64)>, ChaosError> {
    let object = match s3.get_object().bucket(bucket).key(record_key(id)).send().await {
        Ok(object) => object,
        Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
        Err(error) => return Err(failed("S3", error)),
    };
    let written_at = object.last_modified.map_or(0.0, |at| at.as_secs_f64());
    let bytes = object.body.collect().await.map_err(|error| ChaosError::Unexpected(error.to_string()))?.into_bytes();
    let record = serde_json::from_slice(&bytes);
    record.map(|record| Some((record, written_at))).map_err(|error| ChaosError::Unexpected(format!("{id}: {error}")))
}

/// A job as the API shows it.
#[derive(Deserialize)]
struct View {
    status: Status,
    image: Option<ImageView>,
}

#[derive(Deserialize)]
struct ImageView {
    url: String,
}

async fn view(client: &Client, id: &JobId) -> Result<Option<View>, ChaosError> {
    let request = client.http.get(format!("{}/v1/jobs/{id}", client.api_url)).bearer_auth(&client.api_key);
    let answer = request.timeout(PATIENCE).send().await.map_err(|error| ChaosError::Unexpected(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => answer.json().await.map(Some).map_err(|error| ChaosError::Unexpected(error.to_string())),
        StatusCode::NOT_FOUND => Ok(None),
        status => Err(ChaosError::Unexpected(format!("the API answers {status} to a poll of {id}"))),
    }
}

/// Fetches the picture through the CDN, as a browser does, and looks whether it is the one that the record tells of.
async fn look_at(client: &Client, image: &ImageView, record: Option<&Record>) -> Picture {
    let fetch = async {
        let answer = client.http.get(&image.url).timeout(PATIENCE).send().await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
    };
    let bytes = match fetch.await {
        Ok((StatusCode::OK, bytes)) => bytes,
        Ok((status, _)) => return Picture::Broken(status.to_string()),
        Err(error) => return Picture::Broken(error.to_string()),
    };
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if record.and_then(|record| record.image.as_ref()).is_none_or(|image| image.sha256 != sha256) {
        return Picture::Broken("it is not the picture that the record tells of".to_owned());
    }
    match ImageReader::with_format(Cursor::new(bytes), ImageFormat::WebP).decode() {
        Ok(picture) if (picture.width(), picture.height()) == (STANDARD_SIDE, STANDARD_SIDE) => Picture::Works,
        Ok(picture) => Picture::Broken(format!("it has {} x {} pixels", picture.width(), picture.height())),
        Err(error) => Picture::Broken(error.to_string()),
    }
}

fn failed(what: &'static str, error: impl std::error::Error) -> ChaosError {
    let why = DisplayErrorContext(error);
    ChaosError::Unexpected(format!("{what} does not answer although nothing is wrong any more: {why}"))
}
