//! `Event`: what a webhook says: which end a job has come to, and the job as its owner would read it.

use jiff::Timestamp;
use job::Record;
use serde::Serialize;
use utoipa::ToSchema;

use crate::view::JobView;

/// A job has come to an end. The body of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookEvent)]
pub struct Event {
    /// `job.` and the state: job.succeeded, job.failed, job.blocked, job.canceled or job.expired.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the job came to this end.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// The job, as it reads when this is sent.
    pub data: JobView,
}

impl Event {
    /// Makes the event of a record that has an end.
    pub fn of(record: &Record, view: JobView) -> Self {
        let timestamp = record.finished_at.unwrap_or(record.updated_at);
        Self { kind: format!("job.{}", view.status), timestamp, data: view }
    }
}

/// Returns the id of the webhook of this end, the same however often it is sent: a receiver that has seen it drops it. Another
/// end of the same job, after a retry or a redrive, is another event.
pub fn webhook_id(record: &Record) -> String {
    format!("job_{}_{}_{}", record.id, record.retries, record.status)
}
