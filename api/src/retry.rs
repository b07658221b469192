//! `POST /v1/jobs/{id}/retry`: a job that ended without a picture is asked for again, under its own id.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use job::{FailureCode, Job, Record, Status};

use crate::app::Api;
use crate::extract::{self, Caller, CallersJob};
use crate::fleet;
use crate::metrics::{self, Enqueued};
use crate::problem::{BODY, Code, Problem};
use crate::store::{ETag, WriteError};
use crate::submit::{AcceptedJob, SubmitRequest, accepted};

/// Times that workers may write in between: those of the message before and of the new one, three times each.
const MAX_TRIES: u32 = 7;

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[
    Code::MalformedJson,
    Code::Unauthenticated,
    Code::JobNotFound,
    Code::RequestTimeout,
    Code::JobNotRetryable,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidRequest,
    Code::RateLimited,
    Code::InternalError,
    Code::QueueUnavailable,
    Code::StoreUnavailable,
    Code::IntakePaused,
];

/// Asks for a job again
///
/// For a job that is canceled, expired, or failed for want of attempts. The body is that of the first request, since
/// prompts are not kept: another prompt, `negative_prompt`, seed or renditions are refused, `deadline_seconds` counts
/// anew. A picture that was paid for before is used, and not paid for again. A job that is under way stays as it is: 202.
/// Until a worker has taken a job nothing is known of its first request: a job that waits for its first worker, or was
/// canceled before it had one, becomes what this request says, once, and later ones are held to that.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/retry",
    operation_id = "retry_job",
    tag = "jobs",
    request_body = SubmitRequest,
    responses((status = 202, description = "Accepted", body = AcceptedJob)),
    security(("api_key" = []))
)]
pub async fn retry_job(
    State(api): State<Arc<Api>>,
    caller: Caller,
    job: CallersJob,
    request: Request,
) -> Result<Response, Problem> {
    fleet::accepting(&api)?;
    api.limits.submit(&job.tenant, NonZeroU32::MIN)?;
    let request: SubmitRequest = extract::json(request, api.body_limit).await?;
    let mut again = request.into_job_again(&api, &job, &caller.context.trace)?;
    let found = api.records.read(&job.id).await.map_err(|error| Problem::from(error).about(&job.id))?;
    let record = found.as_ref().map(|(record, _)| record);
    if record.is_some_and(|record| is_of_another_spec(record, &again)) {
        return Err(another_description().about(&job.id));
    }
    let view = api.view(&job.id, record);
    let mut answer = AcceptedJob::queued(&api, &again);
    answer.created_at = view.created_at.unwrap_or(again.submitted_at);
    match record {
        Some(_) if !view.status.is_final() => {
            (answer.status, answer.eta_seconds) = (view.status, view.eta_seconds);
            return Ok(accepted(answer));
        }
        Some(record) if is_answered(record) => {
            return Err(not_retryable(record).about(&job.id));
        }
        // Also where no worker has seen it: its message may wait still, and that one's deadline must not end this wish.
        record => again.retries = record.map_or(0, |record| record.retries) + 1,
    }
    // First the message, which is the promise: a worker that receives it before the record says so takes the job all the same.
    match api.queue.enqueue(&again).await {
        Ok(()) => metrics::enqueued(Enqueued::Accepted),
        Err(error) => {
            metrics::enqueued(Enqueued::Failed);
            return Err(Problem::from(error).about(&job.id));
        }
    }
    metrics::retried();
    match reopen(&api, &again, found).await {
        Ok(Reopened::Waits) => {}
        // The first message was taken meanwhile, and no worker does ours beside it.
        Ok(Reopened::IsAnother) => return Err(another_description().about(&job.id)),
        Err(error) => {
            tracing::warn!(job.id = %again.id, %error, "record of a retried job cannot be written, it tells the old end");
        }
    }
    Ok(accepted(answer))
}

/// What the record says once the message is sent.
enum Reopened {
    /// That the job waits again; or a worker was faster, and it says more than that.
    Waits,
    /// That the job is of another description.
    IsAnother,
}

/// Makes the record say that the job waits again, so that a poll does not read the end before, and the message before has no
/// say. Where that fails, a poll reads the old end until a worker takes the message.
///
/// A worker that has taken the message before meanwhile loses its claim, as by a cancel; what it pays for is waited for.
async fn reopen(api: &Api, again: &Job, mut found: Option<(Record, ETag)>) -> Result<Reopened, WriteError> {
    for _ in 0..MAX_TRIES {
        let now = (api.now)();
        let written = match found {
            None => {
                let mut record = Record { started_at: None, ..Record::begin(again, now) };
                record.submitted_at = again.id.issued_at().or(record.submitted_at);
                record.retry(again, now);
                api.records.create(&record).await
            }
            Some((record, _)) if is_of_another_spec(&record, again) => return Ok(Reopened::IsAnother),
            Some((record, _)) if record.retries >= again.retries || is_answered(&record) => return Ok(Reopened::Waits),
            Some((mut record, version)) => {
                record.retry(again, now);
                api.records.replace(&record, &version).await
            }
        };
        match written {
            Ok(()) => return Ok(Reopened::Waits),
            Err(WriteError::Conflict) => found = api.records.read(&again.id).await?,
            Err(error) => return Err(error),
        }
    }
    Err(WriteError::Conflict)
}

fn is_of_another_spec(record: &Record, job: &Job) -> bool {
    record.spec_fingerprint.as_ref().is_some_and(|known| *known != job.spec.fingerprint())
}

/// Whether the job has an end that no retry changes.
fn is_answered(record: &Record) -> bool {
    record.status.is_final() && !record.may_be_retried()
}

fn another_description() -> Problem {
    let detail = "is not what the job was submitted with: send the same prompt, negative_prompt, seed and renditions, or \
                  submit another job";
    Problem::field(BODY, detail)
}

fn not_retryable(record: &Record) -> Problem {
    let code = record.error.as_ref().map(|failure| failure.code);
    let detail = match (record.status, code) {
        (Status::Succeeded, _) => "the job has succeeded: its picture is there",
        (_, Some(FailureCode::SourceUndecodable)) => {
            "the model's pictures could not be read, and both are paid for: submit another job if it is worth a third"
        }
        _ => "the model refuses this description, and would again: change it and submit another job",
    };
    Problem::new(Code::JobNotRetryable, detail)
}
