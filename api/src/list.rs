//! `GET /v1/jobs`: the caller's jobs, newest first, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt, TryStreamExt};
use job::{IndexEntry, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Api;
use crate::extract::Caller;
use crate::metrics;
use crate::problem::{Code, FieldError, Problem};
use crate::store::StoreError;
use crate::view::JobView;

pub const DEFAULT_LIMIT: usize = 20;
pub const MAX_LIMIT: usize = 100;
/// Records looked at for one page of jobs in a certain state: 0.00012 USD, and less than a second.
const MAX_LOOKED_AT: usize = 300;
const READS_AT_A_TIME: usize = 20;

/// Form of a cursor: [`IndexEntry`].
pub const CURSOR_PATTERN: &str = "^[0-9]{13}-[0-9a-f]{32}-[0-9a-f]{16}$";

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] =
    &[Code::Unauthenticated, Code::InvalidRequest, Code::RateLimited, Code::InternalError, Code::StoreUnavailable];

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The jobs, newest first. There may be fewer than `limit` before the end, even none.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
    /// The next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_url: Option<String>,
}

/// Lists jobs
///
/// The jobs of the caller, newest first, as far as records are kept. A job is in the list once a worker has taken it. With
/// `status`, a page looks at 300 jobs at most, and may have none of them: go on as long as there is a `next_url`. A page
/// counts as `limit` polls, with `status` as 300.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "list_jobs",
    tag = "jobs",
    responses((status = 200, description = "A page of jobs", body = JobList)),
    security(("api_key" = []))
)]
pub async fn list_jobs(
    State(api): State<Arc<Api>>,
    Caller { tenant, .. }: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let Page { after, limit, status } = Page::parse(&query)?;
    let most = if status.is_some() { MAX_LOOKED_AT } else { limit };
    api.limits.polls(&tenant, most)?;
    // One more, which tells whether there is a next page.
    let entries = api.records.list(&tenant, after.as_ref(), most + 1).await?;
    let read = async |entry: &IndexEntry| match api.records.read(&entry.id()).await {
        // Of another secret that was retired, the id would be 404 elsewhere; and nobody's word is taken for whose job it is.
        Ok(Some((record, _))) if record.tenant == tenant && api.job_id_keys.verify(&entry.id(), &tenant) => {
            Ok(Some(api.view(&entry.id(), Some(&record))))
        }
        // Expired before its entry.
        Ok(_) => Ok(None),
        // A poll of it says 500; all the others are to be seen.
        Err(StoreError::Unreadable(error)) => {
            tracing::warn!(job.id = %entry.id(), %error, "record cannot be read, its job is left out of a list");
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let mut views = stream::iter(entries.iter().take(most)).map(read).buffered(READS_AT_A_TIME).boxed();
    let (mut jobs, mut looked_at) = (Vec::new(), 0);
    while jobs.len() < limit
        && let Some(view) = views.try_next().await?
    {
        looked_at += 1;
        jobs.extend(view.filter(|view| status.is_none_or(|status| view.status == status)));
    }
    drop(views);
    metrics::listed(jobs.len());
    let last = entries.get(..looked_at).and_then(<[_]>::last).filter(|_| looked_at < entries.len());
    let next_cursor = last.map(IndexEntry::to_string);
    let next_url = next_cursor.as_ref().map(|cursor| api.links.list(cursor, limit, status));
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(JobList { jobs, next_cursor, next_url })).into_response())
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    after: Option<IndexEntry>,
    limit: usize,
    status: Option<Status>,
}

impl Page {
    fn parse(query: &[(String, String)]) -> Result<Self, Problem> {
        let mut page = Self { after: None, limit: DEFAULT_LIMIT, status: None };
        let mut errors = Vec::new();
        for (index, (name, value)) in query.iter().enumerate() {
            if query.iter().take(index).any(|(earlier, _)| earlier == name) {
                errors.push((name, "is given more than once: send it once".to_owned()));
                continue;
            }
            match name.as_str() {
                "cursor" => match value.parse() {
                    Ok(entry) => page.after = Some(entry),
                    Err(_) => errors.push((name, "is not a next_cursor of ours: begin without one".to_owned())),
                },
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MAX_LIMIT).contains(&limit) && value.bytes().all(|b| b.is_ascii_digit()) => {
                        page.limit = limit;
                    }
                    _ => errors.push((name, format!("is not a whole number from 1 to {MAX_LIMIT}"))),
                },
                "status" => match Status::ALL.into_iter().find(|status| status.as_str() == value) {
                    Some(status) => page.status = Some(status),
                    None => {
                        let words = Status::ALL.map(Status::as_str).join(", ");
                        errors.push((name, format!("is none of {words}")));
                    }
                },
                _ => errors.push((name, "is not a parameter of this address: use cursor, limit and status".to_owned())),
            }
        }
        if errors.is_empty() {
            return Ok(page);
        }
        let errors = errors.into_iter().map(|(field, detail)| FieldError { field: field.clone(), detail });
        Err(Problem::fields(errors.collect()))
    }
}
