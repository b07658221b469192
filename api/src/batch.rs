//! `POST /v1/batches`: up to 100 jobs in one request, each with a result of its own.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use job::{Job, JobId, Status, TenantId, TraceContext};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::Api;
use crate::extract::{self, Caller, IDEMPOTENCY_KEY};
use crate::fleet;
use crate::metrics::{self, Enqueued};
use crate::problem::{Code, Problem, ProblemBody};
use crate::submit::{
    AcceptedJob, RenditionRequest, SubmitRequest, alt_text_schema, key_reused, negative_prompt_schema, prompt_schema,
    replayed,
};
use crate::view::{poll_after, status_schema};

/// Most jobs in one request.
pub const MAX_JOBS: usize = 100;

/// How many times the limit of one job's body a batch may have: 100 jobs of the largest prompts (80 kB in UTF-8 without
/// escapes) need 31 times the default.
pub const BODY_LIMIT_FACTOR: usize = 32;

/// Records read at a time to look up the idempotency keys of one batch.
const LOOKUPS_IN_FLIGHT: usize = 16;

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[
    Code::MalformedJson,
    Code::Unauthenticated,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidRequest,
    Code::RateLimited,
    Code::InternalError,
    Code::QueueUnavailable,
    Code::IntakePaused,
];

/// Jobs to submit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// The jobs, accepted or refused one by one.
    #[schema(value_type = Vec<BatchItem>, min_items = 1, max_items = 100)]
    pub jobs: Vec<Box<RawValue>>,
}

/// What to draw, in a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// Description of the picture.
    #[schema(schema_with = prompt_schema)]
    pub prompt: String,
    /// What must not be in the picture.
    #[schema(schema_with = negative_prompt_schema)]
    pub negative_prompt: Option<String>,
    /// The same seed and prompt give the same picture; 0 or none means any.
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_u32)]
    #[serde(default, deserialize_with = "extract::whole_number")]
    pub seed: Option<u32>,
    /// Seconds from now after which the picture is no longer wanted: the job then expires without being paid for.
    #[schema(minimum = 1, maximum = 86_400)]
    #[serde(default, deserialize_with = "extract::whole_number")]
    pub deadline_seconds: Option<u32>,
    /// Pictures wanted beside the WebP of 1024 x 1024 that every job ends with.
    #[schema(max_items = 16)]
    pub renditions: Option<Vec<RenditionRequest>>,
    /// What the picture shows, for those who cannot see it: handed out with the picture, and never drawn.
    #[schema(schema_with = alt_text_schema)]
    pub alt_text: Option<String>,
    /// What the `Idempotency-Key` header is to a single job: the same key is the same job.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    pub idempotency_key: Option<String>,
}

/// Result of each job, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// Jobs that are in the queue or known already.
    pub accepted: usize,
    /// Jobs that are not.
    pub refused: usize,
    /// One result for each job of the request.
    #[schema(min_items = 1, max_items = 100)]
    pub jobs: Vec<BatchResult>,
}

/// Result of one job: `id`, `status` and `status_url`, or `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult {
    Accepted {
        /// Position in the request, from 0.
        index: usize,
        /// The job's id.
        #[schema(value_type = String, pattern = "^[0-9a-f]{32}-[0-9a-f]{16}$")]
        id: JobId,
        /// `queued`, or what has become of the job if its idempotency key is known already.
        #[schema(schema_with = status_schema)]
        status: Status,
        /// Where to poll.
        status_url: String,
    },
    Refused {
        /// Position in the request, from 0.
        index: usize,
        /// Why it was not accepted: with code `queue_unavailable`, send it again.
        error: ProblemBody,
    },
}

/// What is known about one item so far.
type Outcome = Result<AcceptedJob, Problem>;

/// Submits up to 100 jobs
///
/// Every job has a result of its own; 202 means that at least one was accepted.
#[utoipa::path(
    post,
    path = "/v1/batches",
    operation_id = "submit_batch",
    tag = "jobs",
    request_body = BatchRequest,
    responses((status = 202, description = "At least one job was accepted", body = BatchAnswer)),
    security(("api_key" = []))
)]
pub async fn submit_batch(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    fleet::accepting(&api)?;
    if request.headers().contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::field("Idempotency-Key", "is for one job: give each item an idempotency_key instead"));
    }
    let limit = api.body_limit.saturating_mul(BODY_LIMIT_FACTOR);
    let BatchRequest { jobs: items } = extract::json(request, limit).await?;
    let count = items.len();
    if !(1..=MAX_JOBS).contains(&count) {
        return Err(Problem::field("jobs", format!("has {count} items: send 1 to {MAX_JOBS}")));
    }
    let cost = u32::try_from(count).ok().and_then(NonZeroU32::new).expect("1 to 100");
    api.limits.submit(&caller.tenant, cost)?;

    let parsed = items.iter().map(|item| into_job(item, &api, &caller.tenant, &caller.context.trace)).collect();
    let outcomes = accept(&api, parsed).await;
    outcomes.iter().for_each(count_outcome);
    answer(&api, outcomes)
}

fn into_job(item: &RawValue, api: &Api, tenant: &TenantId, trace: &TraceContext) -> Result<BatchJob, Problem> {
    let BatchItem { prompt, negative_prompt, seed, deadline_seconds, renditions, alt_text, idempotency_key } =
        extract::json_part(item.get())?;
    if let Some(key) = &idempotency_key {
        extract::check_idempotency_key("idempotency_key", key)?;
    }
    let request = SubmitRequest { prompt, negative_prompt, seed, deadline_seconds, renditions, alt_text };
    let job = request.into_job(api, tenant, trace, idempotency_key.as_deref())?;
    Ok(BatchJob { job, keyed: idempotency_key.is_some() })
}

struct BatchJob {
    job: Job,
    keyed: bool,
}

/// Enqueues what is valid and new. Returns the outcome of every item, in order.
async fn accept(api: &Api, parsed: Vec<Result<BatchJob, Problem>>) -> Vec<Outcome> {
    let lookups: Vec<_> = parsed.iter().map(|item| look_up(api, item)).collect();
    let known: Vec<Option<Outcome>> = futures::stream::iter(lookups).buffered(LOOKUPS_IN_FLIGHT).collect().await;

    // A key that is twice in one batch is one job: the first item is sent, the others share its fate.
    let mut first_of: HashMap<JobId, usize> = HashMap::new();
    let mut jobs: Vec<Job> = Vec::new();
    let mut plans: Vec<Plan> = Vec::with_capacity(parsed.len());
    for (item, known) in parsed.into_iter().zip(known) {
        plans.push(match (item, known) {
            (Err(problem), _) => Plan::Decided(Err(problem)),
            (Ok(_), Some(outcome)) => Plan::Decided(outcome),
            (Ok(BatchJob { job, .. }), None) => match first_of.get(&job.id) {
                Some(&sent) if jobs[sent].spec.fingerprint() == job.spec.fingerprint() => Plan::Sent(sent),
                Some(_) => Plan::Decided(Err(key_reused().about(&job.id))),
                None => {
                    first_of.insert(job.id, jobs.len());
                    jobs.push(job);
                    Plan::Sent(jobs.len() - 1)
                }
            },
        });
    }
    let sent = if jobs.is_empty() { Vec::new() } else { api.queue.enqueue_batch(&jobs).await };
    let outcome = |position: usize| match sent.get(position) {
        Some(Ok(())) => Ok(AcceptedJob::queued(api, &jobs[position])),
        // Without the id: a job that was never queued must not be polled for.
        Some(Err(error)) => Err(error.clone().into()),
        None => Err(Problem::fault(Code::QueueUnavailable, "the queue gave no result for this job")),
    };
    let decide = |plan| match plan {
        Plan::Decided(outcome) => outcome,
        Plan::Sent(position) => outcome(position),
    };
    plans.into_iter().map(decide).collect()
}

async fn look_up(api: &Api, item: &Result<BatchJob, Problem>) -> Option<Outcome> {
    match item {
        Ok(BatchJob { job, keyed: true }) => replayed(api, job).await.transpose(),
        _ => None,
    }
}

enum Plan {
    Decided(Outcome),
    /// At this position among the jobs handed to the queue.
    Sent(usize),
}

fn count_outcome(outcome: &Outcome) {
    match outcome {
        Ok(AcceptedJob { status: Status::Queued, .. }) => metrics::enqueued(Enqueued::Accepted),
        Ok(_) => metrics::enqueued(Enqueued::Replayed),
        Err(problem) if problem.code() == Code::QueueUnavailable => metrics::enqueued(Enqueued::Failed),
        Err(_) => {}
    }
}

/// 202 when at least one job was accepted; otherwise 503 if the queue is to blame, else 422 with every field to mend.
fn answer(api: &Api, outcomes: Vec<Outcome>) -> Result<Response, Problem> {
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    if accepted == 0 {
        let unqueued =
            outcomes.iter().find_map(|outcome| outcome.as_ref().err().filter(|p| p.code() == Code::QueueUnavailable));
        if let Some(problem) = unqueued {
            return Err(problem.clone());
        }
        let problems =
            outcomes.iter().enumerate().filter_map(|(index, outcome)| Some((index, outcome.as_ref().err()?)));
        let errors = problems.flat_map(|(index, problem)| problem.errors_under(&format!("jobs[{index}]")));
        return Err(Problem::fields(errors.collect()));
    }
    let refused = outcomes.len() - accepted;
    let result = |(index, outcome)| match outcome {
        Ok(AcceptedJob { id, status, status_url, .. }) => BatchResult::Accepted { index, id, status, status_url },
        Err(problem) => BatchResult::Refused { index, error: Problem::report(problem) },
    };
    let jobs = outcomes.into_iter().enumerate().map(result).collect();
    let headers = [
        (header::RETRY_AFTER, poll_after(api.eta_of_accepted()).to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::ACCEPTED, headers, Json(BatchAnswer { accepted, refused, jobs })).into_response())
}
