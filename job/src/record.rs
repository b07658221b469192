//! `Record`: `records/{id}.json`, the state of a job. Writing it is the commit point of every step.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::is_zero;
use crate::{Failure, FailureCode, Job, JobId, Status, TenantId, TraceContext};

/// Version written into every record.
pub const RECORD_VERSION: u32 = 1;

/// State of one job. Created with `If-None-Match: *`, replaced with `If-Match`, so that it has one writer at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub v: u32,
    /// Identity.
    pub id: JobId,
    /// Whose job it is.
    pub tenant: TenantId,
    /// Where it is on its way.
    pub status: Status,
    /// When the API accepted it; absent if it was canceled before a worker saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<Timestamp>,
    /// When the first worker took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When this record was written.
    pub updated_at: Timestamp,
    /// When it reached a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The caller's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    /// Attempts begun.
    pub attempts: u32,
    /// How often its caller asked for it again after an end: [`Job::retries`] of the newest message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// When the caller did so last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<Timestamp>,
    /// [`JobSpec::fingerprint`](crate::JobSpec::fingerprint) of what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_fingerprint: Option<String>,
    /// What ties its logs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// Who works on it; absent when nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Until when a model call under this claim, or under one that it took over, may still bring a checkpoint. Whoever takes
    /// over waits for that before asking the model again: the holder may be alive, and only cut off from the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paying_until: Option<Timestamp>,
    /// Until when a call under a claim that this one took over may still bring a checkpoint, by the clock of who took over.
    /// Here and not in its memory: the claim may be written by a call whose answer is lost, and given back by another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_call_until: Option<Timestamp>,
    /// What the picture shows, in the caller's words. Never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt_text: Option<String>,
    /// What the model returned, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceInfo>,
    /// The published picture; present exactly when succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInfo>,
    /// What was asked for beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<RenditionInfo>,
    /// Why it ended without a picture; present when failed or blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The code of the passing fault that ended the last attempt, while the job waits for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
    /// When the reconciler wrote the end, because no worker was left to do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<Timestamp>,
    /// How long each step took.
    #[serde(default)]
    pub timings: Timings,
}

/// Our conditional-write hold on the record: fences duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Names this hold; two holds never share it.
    pub token: Uuid,
    /// Who holds it (host and process), for operators.
    pub worker: String,
    /// The SQS message it was taken for.
    pub message_id: String,
    /// How often that message had been received.
    pub receive_count: u32,
    /// When anyone may take it over.
    pub deadline_at: Timestamp,
}

impl Claim {
    /// Returns whether a delivery of `message_id` with `receive_count` may take this claim over at `now`.
    ///
    /// A later delivery of the same message means that SQS no longer counts on the holder. A delivery of *another*
    /// message (a repeated `Idempotency-Key`) says nothing about the holder and waits for the deadline.
    pub fn may_be_taken_over(&self, message_id: &str, receive_count: u32, now: Timestamp) -> bool {
        let redelivered = self.message_id == message_id && receive_count > self.receive_count;
        redelivered || self.deadline_at <= now
    }
}

/// What the model returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Model id.
    pub model: String,
    /// Seed of this picture as the model reports it; 0 when its source knows no seeds.
    pub seed: u32,
    /// Encoded size.
    pub bytes: u64,
    /// Calls to the model that returned a picture: 1, or 2 after an undecodable one.
    pub generation: u32,
    /// When the model returned it; absent in what was written before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
}

/// The published picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Object key; the URL is the CDN's domain and this key.
    pub key: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Encoded size.
    pub bytes: u64,
    /// Media type.
    pub content_type: String,
    /// SHA-256 of the encoded bytes, hex.
    pub sha256: String,
    /// ThumbHash of the picture, base64: lets a page paint before the picture arrives.
    pub thumbhash: String,
}

/// A published picture of another size or format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionInfo {
    /// Object key; the URL is the CDN's domain and this key.
    pub key: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Encoded size.
    pub bytes: u64,
    /// Media type.
    pub content_type: String,
    /// SHA-256 of the encoded bytes, hex.
    pub sha256: String,
}

/// How long the steps of the last attempt took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Submitted until first taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_wait_seconds: Option<f64>,
    /// The model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_seconds: Option<f64>,
    /// Decode, resize and encode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render_seconds: Option<f64>,
    /// The upload of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_seconds: Option<f64>,
}

impl Record {
    /// Makes the first record of a job, in state `generating` and without a claim.
    pub fn begin(job: &Job, now: Timestamp) -> Self {
        Self {
            v: RECORD_VERSION,
            id: job.id,
            tenant: job.tenant.clone(),
            status: Status::Generating,
            submitted_at: Some(job.submitted_at),
            started_at: Some(now),
            updated_at: now,
            finished_at: None,
            deadline_at: job.deadline_at,
            attempts: 0,
            retries: 0,
            retried_at: None,
            spec_fingerprint: Some(job.spec.fingerprint()),
            trace: Some(job.trace.clone()),
            claim: None,
            paying_until: None,
            earlier_call_until: None,
            alt_text: job.spec.alt_text().map(str::to_owned),
            source: None,
            image: None,
            renditions: Vec::new(),
            error: None,
            last_fault: None,
            reconciled_at: None,
            timings: Timings::default(),
        }
    }

    /// Makes the record of a job that was canceled before a worker took it.
    pub fn canceled_before_start(id: JobId, tenant: TenantId, now: Timestamp) -> Self {
        Self {
            v: RECORD_VERSION,
            id,
            tenant,
            status: Status::Canceled,
            submitted_at: id.issued_at(),
            started_at: None,
            updated_at: now,
            finished_at: Some(now),
            deadline_at: None,
            attempts: 0,
            retries: 0,
            retried_at: None,
            spec_fingerprint: None,
            trace: None,
            claim: None,
            paying_until: None,
            earlier_call_until: None,
            alt_text: None,
            source: None,
            image: None,
            renditions: Vec::new(),
            error: None,
            last_fault: None,
            reconciled_at: None,
            timings: Timings::default(),
        }
    }

    /// Ends the job: sets the state, drops the claim, notes the time. A call that is under way while somebody else ends the
    /// job may still bring a picture, for whoever asks for the job again.
    pub fn finish(&mut self, status: Status, now: Timestamp) {
        debug_assert!(status.is_final());
        self.status = status;
        self.claim = None;
        if status == Status::Succeeded {
            self.paying_until = None;
        }
        self.earlier_call_until = None;
        self.last_fault = None;
        self.updated_at = now;
        self.finished_at = Some(now);
    }

    /// Returns whether the caller may ask for the job again after this end (docs/adr/0022).
    ///
    /// Where the model has answered, the same request gets the same answer: a picture that is there, a refusal, or bytes
    /// that nobody can decode and that are checkpointed all the same.
    pub fn may_be_retried(&self) -> bool {
        match self.status {
            Status::Queued | Status::Generating | Status::Processing | Status::Succeeded | Status::Blocked => false,
            Status::Failed => self.error.as_ref().is_none_or(|failure| failure.code == FailureCode::AttemptsExhausted),
            Status::Canceled | Status::Expired => true,
        }
    }

    /// Makes the job wait again, as `job`, the message of its caller's newest wish, says. What was paid for stays known.
    pub fn retry(&mut self, job: &Job, now: Timestamp) {
        debug_assert!(job.retries > self.retries);
        self.status = Status::Queued;
        self.retries = job.retries;
        self.retried_at = Some(job.submitted_at);
        self.deadline_at = job.deadline_at;
        self.trace = Some(job.trace.clone());
        // Canceled before any worker had seen it.
        self.submitted_at.get_or_insert(job.submitted_at);
        self.spec_fingerprint.get_or_insert_with(|| job.spec.fingerprint());
        self.claim = None;
        self.error = None;
        self.last_fault = None;
        self.finished_at = None;
        self.reconciled_at = None;
        self.updated_at = now;
    }

    /// Returns the state as a client should see it at `now`: a pending record whose claim has run out is waiting for
    /// redelivery, whatever its last writer said before it died.
    pub fn status_at(&self, now: Timestamp) -> Status {
        let claimed = self.claim.as_ref().is_some_and(|claim| claim.deadline_at > now);
        if self.status.is_final() || claimed { self.status } else { Status::Queued }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            token: Uuid::nil(),
            worker: "host-1".into(),
            message_id: "m-1".into(),
            receive_count: 2,
            deadline_at: "2026-11-24T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn only_a_later_delivery_of_the_same_message_or_the_deadline_takes_over() {
        let before = "2026-11-24T09:59:59Z".parse().unwrap();
        let after = "2026-11-24T10:00:00Z".parse().unwrap();
        assert!(claim().may_be_taken_over("m-1", 3, before));
        assert!(!claim().may_be_taken_over("m-1", 2, before), "a duplicate of the same delivery");
        assert!(!claim().may_be_taken_over("m-1", 1, before), "an older delivery");
        assert!(!claim().may_be_taken_over("m-2", 9, before), "another message for the same job");
        assert!(claim().may_be_taken_over("m-2", 1, after));
    }

    #[test]
    fn only_an_end_without_an_answer_of_the_model_may_be_asked_for_again() {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let id = "018f3a5e7c007cc4a1f00123456789ab-0011223344556677".parse().unwrap();
        let mut record = Record::canceled_before_start(id, "north".parse().unwrap(), now);
        let retried = |record: &Record| Status::ALL.map(|status| Record { status, ..record.clone() }.may_be_retried());
        // In the order of `Status::ALL`; failed without a reason does not happen, and asks for nothing twice.
        assert_eq!(retried(&record), [false, false, false, false, true, false, true, true]);
        for code in FailureCode::ALL {
            record.error = Some(Failure::new(code, ""));
            assert_eq!(retried(&record)[4], code == FailureCode::AttemptsExhausted, "{}", code.as_str());
        }
    }

    #[test]
    fn a_job_that_is_asked_for_again_waits_as_its_newest_message_says_and_knows_what_is_paid_for() {
        let [submitted, failed, again, written] = ["09:00", "09:10", "10:00", "10:01"]
            .map(|time| format!("2026-11-24T{time}:00Z").parse::<Timestamp>().unwrap());
        let job = Job {
            id: "018f3a5e7c007cc4a1f00123456789ab-0011223344556677".parse().unwrap(),
            tenant: "north".parse().unwrap(),
            spec: crate::JobSpec::new("a fox".into(), None, None).unwrap(),
            submitted_at: submitted,
            deadline_at: None,
            retries: 0,
            trace: TraceContext::generate(),
        };
        let mut record = Record::begin(&job, submitted);
        record.claim = Some(claim());
        record.last_fault = Some("model_failed".into());
        record.paying_until = Some(again);
        record.error = Some(Failure::new(FailureCode::AttemptsExhausted, ""));
        record.finish(Status::Failed, failed);
        record.reconciled_at = Some(failed);

        let trace = TraceContext::generate();
        let wish = Job { submitted_at: again, deadline_at: Some(written), retries: 1, trace, ..job.clone() };
        record.retry(&wish, written);
        let mut expected = Record::begin(&job, submitted);
        expected.status = Status::Queued;
        expected.retries = 1;
        expected.retried_at = Some(again);
        expected.deadline_at = Some(written);
        expected.trace = Some(wish.trace.clone());
        expected.paying_until = Some(again);
        expected.updated_at = written;
        assert_eq!(record, expected);
    }

    #[test]
    fn a_call_under_way_is_remembered_by_every_end_but_success() {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let id = "018f3a5e7c007cc4a1f00123456789ab-0011223344556677".parse().unwrap();
        let mut record = Record::canceled_before_start(id, "north".parse().unwrap(), now);
        record.paying_until = Some(now);
        record.finish(Status::Canceled, now);
        assert_eq!(record.paying_until, Some(now));
        record.finish(Status::Succeeded, now);
        assert_eq!(record.paying_until, None);
    }

    #[test]
    fn an_orphan_reads_as_queued_once_its_claim_has_run_out() {
        let golden = r#"{"v":1,"id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","tenant":"north",
            "status":"generating","updated_at":"2026-11-24T09:58:00Z","attempts":1,"claim":{
            "token":"00000000-0000-0000-0000-000000000000","worker":"host-1","message_id":"m-1","receive_count":1,
            "deadline_at":"2026-11-24T10:00:00Z"}}"#;
        let mut record: Record = serde_json::from_str(golden).unwrap();
        assert_eq!(record.status_at("2026-11-24T09:59:00Z".parse().unwrap()), Status::Generating);
        assert_eq!(record.status_at("2026-11-24T10:00:00Z".parse().unwrap()), Status::Queued);
        record.finish(Status::Expired, "2026-11-24T10:01:00Z".parse().unwrap());
        assert_eq!(record.status_at("2026-11-24T11:00:00Z".parse().unwrap()), Status::Expired);
        assert_eq!(record.claim, None);
    }
}
