//! `POST /v1/jobs/{id}/cancel`: a record that the API writes, conditionally like every write of a record.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use job::{Notice, Record, Status};

use crate::app::Api;
use crate::extract::CallersJob;
use crate::metrics;
use crate::problem::{Code, Problem};
use crate::status;
use crate::store::{ETag, WriteError};

/// Times that a worker may write in between before the client has to ask again: a job's record is written three times
/// in its life.
const MAX_TRIES: u32 = 5;

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[
    Code::Unauthenticated,
    Code::JobNotFound,
    Code::JobAlreadyFinal,
    Code::InvalidRequest,
    Code::RateLimited,
    Code::InternalError,
    Code::StoreUnavailable,
];

/// Withdraws a job
///
/// A worker that is at it loses its claim and cannot publish. A job that is canceled already stays so: 200 again.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    operation_id = "cancel_job",
    tag = "jobs",
    responses((status = 200, description = "The job is canceled", body = crate::view::JobView)),
    security(("api_key" = []))
)]
pub async fn cancel_job(State(api): State<Arc<Api>>, job: CallersJob) -> Result<Response, Problem> {
    for _ in 0..MAX_TRIES {
        let found = api.records.read(&job.id).await.map_err(|error| Problem::from(error).about(&job.id))?;
        let view = api.view(&job.id, found.as_ref().map(|(record, _)| record));
        if view.status == Status::Canceled {
            return Ok(status::answer(&view, None));
        }
        if view.status.is_final() {
            let detail = format!("the job has {}: it can no longer be canceled", view.status);
            return Err(Problem::new(Code::JobAlreadyFinal, detail).about(&job.id));
        }
        match write(&api, &job, found).await {
            Ok(record) => {
                metrics::canceled();
                tell(&api, &record).await;
                return Ok(status::answer(&api.view(&job.id, Some(&record)), None));
            }
            Err(WriteError::Conflict) => {}
            Err(WriteError::Store(error)) => return Err(Problem::from(error).about(&job.id)),
        }
    }
    let cause = format!("lost {MAX_TRIES} conditional writes in a row");
    Err(Problem::fault(Code::StoreUnavailable, cause).about(&job.id).retry_after(1))
}

/// A cancel that is not told here is told by the worker that receives the job's message: it need not fail for that.
async fn tell(api: &Api, record: &Record) {
    let notice = Notice { tenant: record.tenant.clone(), id: record.id, retries: record.retries };
    if let Err(error) = api.queue.tell(&notice).await {
        tracing::warn!(job.id = %record.id, %error, "cancel could not be told to the webhook queue, a worker will");
    }
}

async fn write(api: &Api, job: &CallersJob, found: Option<(Record, ETag)>) -> Result<Record, WriteError> {
    let now = (api.now)();
    match found {
        None => {
            let record = Record::canceled_before_start(job.id, job.tenant.clone(), now);
            api.records.create(&record).await?;
            Ok(record)
        }
        Some((mut record, version)) => {
            record.finish(Status::Canceled, now);
            api.records.replace(&record, &version).await?;
            Ok(record)
        }
    }
}
