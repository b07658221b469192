//! `GET /v1/queue`: whether jobs are accepted and pictures made, or what operators have paused.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use job::{Part, Pause};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Api;
use crate::extract::Caller;
use crate::problem::{Code, Problem};

/// When to send a request again that a pause has refused: operators pause for minutes, not for seconds.
pub const RETRY_AFTER_PAUSE_SECONDS: u64 = 60;

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[Code::Unauthenticated, Code::InvalidRequest, Code::RateLimited, Code::InternalError];

/// State of the queue, the same for every tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueView {
    /// Whether new jobs are accepted. While they are not, submissions are answered with 503 `intake_paused`.
    pub intake: PartView,
    /// Whether pictures are made. While they are not, jobs wait; nothing is lost.
    pub generation: PartView,
}

/// State of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = QueuePart)]
pub struct PartView {
    /// Whether operators have stopped it.
    pub paused: bool,
    /// Why, in a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub since: Option<Timestamp>,
}

impl From<Option<&Pause>> for PartView {
    fn from(pause: Option<&Pause>) -> Self {
        let reason = pause.map(|pause| pause.reason.clone());
        Self { paused: pause.is_some(), reason, since: pause.map(|pause| pause.since) }
    }
}

/// Tells whether jobs are accepted and pictures made
///
/// What operators pause for the whole fleet is shown here within seconds, with their reason.
#[utoipa::path(
    get,
    path = "/v1/queue",
    operation_id = "get_queue",
    tag = "jobs",
    responses((status = 200, description = "State of the queue", body = QueueView)),
    security(("api_key" = []))
)]
pub async fn get_queue(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    api.limits.poll(&caller.tenant)?;
    let pauses = api.pauses.get();
    let [intake, generation] = Part::ALL.map(|part| PartView::from(pauses.of(part)));
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(QueueView { intake, generation })).into_response())
}

/// Refuses submissions while operators have paused intake.
///
/// # Errors
/// 503 with the reason, and when to come back.
pub fn accepting(api: &Api) -> Result<(), Problem> {
    match api.pauses.get().of(Part::Intake) {
        None => Ok(()),
        Some(pause) => Err(Problem::new(Code::IntakePaused, format!("no new jobs are accepted: {}", pause.reason))
            .retry_after(RETRY_AFTER_PAUSE_SECONDS)),
    }
}
