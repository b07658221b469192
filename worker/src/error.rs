//! `JobError`: how processing ends badly. Many kinds, four treatments, one exhaustive match.

use std::time::Duration;

use thiserror::Error;

/// Which of four treatments an error gets (ARCHITECTURE.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Passes by itself: try again later.
    Transient,
    /// This job will never succeed: say so in the record.
    Permanent,
    /// Not a job at all: leave the body to the dead-letter queue.
    Poison,
    /// Not the job's fault: stop receiving and hold what we have.
    Misconfigured,
}

/// What went wrong. Each kind has one class and one metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body is not a job of a version we know.
    MessageMalformed,
    /// The body is of a newer version than this worker reads.
    MessageFromNewerVersion,
    /// The model's quota is used up for the moment.
    ModelThrottled,
    /// The account's limit is used up; passes slowly.
    ModelQuotaExceeded,
    /// The model's service answered 5xx, or is not ready.
    ModelUnavailable,
    /// No answer within the time-out, ours or the service's.
    ModelTimedOut,
    /// No connection to the model's service.
    ModelUnreachable,
    /// The model itself failed ('Inference error', 424).
    ModelFailed,
    /// An answer without a usable picture in it.
    ModelAnswerMalformed,
    /// The content policy refused prompt or picture.
    ContentFiltered,
    /// The service called the request invalid.
    RequestRejected,
    /// The picture could not be decoded, after one regeneration.
    SourceUndecodable,
    /// S3 is slow, busy or unreachable.
    StoreUnavailable,
    /// A CPU task panicked.
    CpuTaskPanicked,
    /// The picture decodes, but cannot be encoded.
    RenderFailed,
    /// The attempt ran longer than one attempt may.
    AttemptTimedOut,
    /// Our role may not do this.
    AccessDenied,
    /// No credentials, or expired ones.
    CredentialsUnavailable,
    /// The model has reached its end of life, or is legacy and locked.
    ModelRetired,
    /// There is no such model in this region.
    ModelNotFound,
    /// The source does not take how we ask it, whatever the job.
    ModelSettingsRefused,
    /// There is no such bucket.
    BucketNotFound,
    /// The webhook queue has not confirmed that a job has ended.
    WebhookQueueUnavailable,
    /// There is no such webhook queue, or our role may not use it.
    WebhookQueueRefused,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 24] = [
        Self::MessageMalformed,
        Self::MessageFromNewerVersion,
        Self::ModelThrottled,
        Self::ModelQuotaExceeded,
        Self::ModelUnavailable,
        Self::ModelTimedOut,
        Self::ModelUnreachable,
        Self::ModelFailed,
        Self::ModelAnswerMalformed,
        Self::ContentFiltered,
        Self::RequestRejected,
        Self::SourceUndecodable,
        Self::StoreUnavailable,
        Self::CpuTaskPanicked,
        Self::RenderFailed,
        Self::AttemptTimedOut,
        Self::AccessDenied,
        Self::CredentialsUnavailable,
        Self::ModelRetired,
        Self::ModelNotFound,
        Self::ModelSettingsRefused,
        Self::BucketNotFound,
        Self::WebhookQueueUnavailable,
        Self::WebhookQueueRefused,
    ];

    /// Returns the treatment of this kind.
    pub fn class(self) -> Class {
        match self {
            Self::MessageMalformed => Class::Poison,
            Self::MessageFromNewerVersion
            | Self::ModelThrottled
            | Self::ModelQuotaExceeded
            | Self::ModelUnavailable
            | Self::ModelTimedOut
            | Self::ModelUnreachable
            | Self::ModelFailed
            | Self::ModelAnswerMalformed
            | Self::StoreUnavailable
            | Self::CpuTaskPanicked
            | Self::RenderFailed
            | Self::AttemptTimedOut
            | Self::WebhookQueueUnavailable => Class::Transient,
            Self::ContentFiltered | Self::RequestRejected | Self::SourceUndecodable => Class::Permanent,
            Self::AccessDenied
            | Self::CredentialsUnavailable
            | Self::ModelRetired
            | Self::ModelNotFound
            | Self::ModelSettingsRefused
            | Self::BucketNotFound
            | Self::WebhookQueueRefused => Class::Misconfigured,
        }
    }

    /// Returns whether this kind may be one job's own fault, and is an outage only when several jobs meet it in a row.
    pub fn is_outage_of_several_jobs(self) -> bool {
        matches!(self, Self::ModelFailed | Self::ModelAnswerMalformed | Self::ModelTimedOut)
    }

    /// Returns whether this kind, met again and again, means that a service is down. Such an outage is held like a
    /// misconfiguration: one that lasts longer than a few attempts would dead-letter the whole backlog.
    pub fn is_outage_when_repeated(self) -> bool {
        matches!(
            self,
            Self::ModelUnavailable
                | Self::ModelUnreachable
                | Self::ModelTimedOut
                | Self::ModelQuotaExceeded
                | Self::StoreUnavailable
        )
    }

    /// Returns the word used in logs, records and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageMalformed => "message_malformed",
            Self::MessageFromNewerVersion => "message_from_newer_version",
            Self::ModelThrottled => "model_throttled",
            Self::ModelQuotaExceeded => "model_quota_exceeded",
            Self::ModelUnavailable => "model_unavailable",
            Self::ModelTimedOut => "model_timed_out",
            Self::ModelUnreachable => "model_unreachable",
            Self::ModelFailed => "model_failed",
            Self::ModelAnswerMalformed => "model_answer_malformed",
            Self::ContentFiltered => "content_filtered",
            Self::RequestRejected => "request_rejected",
            Self::SourceUndecodable => "source_undecodable",
            Self::StoreUnavailable => "store_unavailable",
            Self::CpuTaskPanicked => "cpu_task_panicked",
            Self::RenderFailed => "render_failed",
            Self::AttemptTimedOut => "attempt_timed_out",
            Self::AccessDenied => "access_denied",
            Self::CredentialsUnavailable => "credentials_unavailable",
            Self::ModelRetired => "model_retired",
            Self::ModelNotFound => "model_not_found",
            Self::ModelSettingsRefused => "model_settings_refused",
            Self::BucketNotFound => "bucket_not_found",
            Self::WebhookQueueUnavailable => "webhook_queue_unavailable",
            Self::WebhookQueueRefused => "webhook_queue_refused",
        }
    }
}

/// One thing that went wrong: what, the words of whoever said so, and when to try again if they said that.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {detail}", kind.as_str())]
pub struct JobError {
    pub kind: Kind,
    /// For operators. Never contains the prompt.
    pub detail: String,
    /// The server's own hint; wins over our backoff.
    pub retry_after: Option<Duration>,
}

impl JobError {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// Adds the server's hint.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    pub fn class(&self) -> Class {
        self.kind.class()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_word() {
        let words: HashSet<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }
}
