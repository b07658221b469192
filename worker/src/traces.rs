//! What is exported of a delivery: its wait in the queue, its span, and one span for each step.

use std::time::{Duration, SystemTime};

use job::Job;
use service::traces::{self, TARGET};
use tracing::Span;
use tracing::field::Empty;

use crate::queue::Delivery;

/// Opens the span of one delivery, in the trace of the request that submitted the job and linked to it: the link is what
/// holds for a second hand-over too, long after that request.
pub fn delivery(job: &Job, delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "process job",
        otel.kind = "consumer",
        otel.status_code = Empty,
        error.kind = Empty,
        outcome = Empty,
        job.id = %job.id,
        tenant = job.tenant.as_str(),
        correlation.id = job.trace.correlation_id.as_str(),
        delivery.receive_count = delivery.receive_count,
        messaging.system = "aws_sqs",
        messaging.operation.type = "process",
        messaging.message.id = delivery.message_id.as_str(),
    );
    let submit = job.trace.traceparent.as_str();
    traces::continue_from(&span, submit);
    traces::link(&span, submit);
    span
}

/// Records how long the job has waited for its first hand-over. How long it was hidden between two is not known: the
/// queue tells when it was sent, and no more.
pub fn queue_wait(job: &Job, delivery: &Delivery) {
    if delivery.receive_count > 1 {
        return;
    }
    let sent_at = delivery.sent_at.unwrap_or(job.submitted_at);
    let since_epoch = Duration::from_millis(u64::try_from(sent_at.as_millisecond()).unwrap_or_default());
    let from = SystemTime::UNIX_EPOCH + since_epoch;
    traces::record_wait("queue wait", job.trace.traceparent.as_str(), from, SystemTime::now(), || {
        vec![("job.id", job.id.to_string()), ("messaging.message.id", delivery.message_id.clone())]
    });
}

/// Opens the span of a step of ours.
pub fn step(name: &'static str) -> Span {
    tracing::info_span!(target: TARGET, "step", otel.name = name)
}

/// Opens the span of a call to the model.
pub fn model_call(model: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        "generate",
        otel.kind = "client",
        gen_ai.provider.name = "aws.bedrock",
        gen_ai.request.model = model,
    )
}
