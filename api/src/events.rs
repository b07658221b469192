//! `GET /v1/jobs/{id}/events`: the states of a job as a stream of server-sent events, until it is final.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use job::JobId;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::app::Api;
use crate::extract::CallersJob;
use crate::metrics::{self, Held};
use crate::problem::{Code, Problem};
use crate::status;
use crate::view::JobView;
use crate::watch::{Pace, Paused, Place};

pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The type of every event.
const EVENT: &str = "job";

/// Longest pause between two reads of a job in which nothing changes.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A comment so often: load balancers close a connection after 60 s of silence.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest life of a stream: a place is not taken for days, and a key that was withdrawn does not read on for ever.
const LONGEST: Duration = Duration::from_secs(600);
/// How soon a client is to come back: to another process when this one stops, and to a place when there was none.
const COME_BACK: Duration = Duration::from_secs(2);
const COME_BACK_LATER: Duration = Duration::from_secs(5);

/// The problems that the handler answers with: those of a poll.
pub const PROBLEMS: &[Code] = status::PROBLEMS;

// What is sent is axum's `Event`.
/// One event of the stream, field by field, as a client's parser hands it out.
#[derive(ToSchema)]
#[schema(as = JobEvent)]
#[expect(dead_code, reason = "it is read by the document alone")]
struct EventView {
    /// `job`.
    #[schema(nullable = false)]
    event: Option<String>,
    /// Names the state, for `Last-Event-ID`.
    #[schema(nullable = false)]
    id: Option<String>,
    /// The state as JSON.
    #[schema(nullable = false)]
    data: Option<String>,
    /// Milliseconds after which to come back.
    #[schema(nullable = false)]
    retry: Option<u32>,
}

/// Follows a job
///
/// Server-sent events of the type `job`: `data` is the state as `GET /v1/jobs/{id}` tells it, `id` is that state's `ETag`
/// without its quotes. The first one comes at once, unless `Last-Event-ID` names it; one more for each change; the stream
/// ends after the final state. It also ends after ten minutes, when the server stops, and at once when too many streams are
/// open: `retry` says after how many milliseconds to come back. 204 tells a client that comes back that nothing will follow.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    operation_id = "get_job_events",
    tag = "jobs",
    responses(
        (status = 200, description = "States of the job", body = EventView, content_type = "text/event-stream"),
        (status = 204, description = "The job is final, and Last-Event-ID names its state")
    ),
    security(("api_key" = []))
)]
pub async fn get_job_events(
    State(api): State<Arc<Api>>,
    job: CallersJob,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).map(|id| id.trim_matches('"'));
    let view = api.read(&job.id).await.map_err(|error| Problem::from(error).about(&job.id))?;
    metrics::polled(view.status);
    let (data, id) = view.encode();
    let is_known = known == Some(&*id);
    if view.status.is_final() && is_known {
        return Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response());
    }
    let place = api.streams.take();
    let come_back = if place.is_some() { COME_BACK } else { COME_BACK_LATER };
    let hello = Event::default().retry(come_back);
    let first = if is_known { hello.comment("nothing has changed") } else { state(hello, &view, data, &id) };
    let next = match place {
        Some(place) if !view.status.is_final() => Some(Following {
            api,
            id: job.id,
            known: id,
            place,
            pace: Pace::up_to(MAX_PAUSE),
            until: Instant::now() + LONGEST,
            is_failing: false,
            _held: Held::stream(),
        }),
        _ => None,
    };
    let heartbeat = KeepAlive::new().interval(HEARTBEAT);
    let events = Sse::new(events(first, next)).keep_alive(heartbeat);
    // A proxy that collects an answer before it passes it on would keep every event to itself.
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, events).into_response())
}

fn events(first: Event, next: Option<Following>) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::unfold((Some(first), next), |(first, following)| async move {
        match (first, following) {
            (Some(first), following) => Some((Ok(first), (None, following))),
            (None, Some(following)) => {
                let (event, following) = following.next().await;
                Some((Ok(event), (None, following)))
            }
            (None, None) => None,
        }
    })
}

fn state(event: Event, view: &JobView, data: String, id: &str) -> Event {
    metrics::told(view.status);
    event.event(EVENT).id(id).data(data)
}

/// A stream that is open. Dropped when the client goes away, and its place with it.
struct Following {
    api: Arc<Api>,
    id: JobId,
    /// The state that the client has.
    known: String,
    place: Place,
    pace: Pace,
    until: Instant,
    is_failing: bool,
    _held: Held,
}

impl Following {
    /// Returns the next event, and itself if there will be another.
    async fn next(mut self) -> (Event, Option<Self>) {
        loop {
            if self.place.pause(&mut self.pace, self.until).await == Paused::Stopping {
                return (leave("the server stops"), None);
            }
            match self.api.read(&self.id).await {
                Ok(view) => {
                    self.is_failing = false;
                    let (data, id) = view.encode();
                    if id != self.known {
                        let event = state(Event::default(), &view, data, &id);
                        self.known = id;
                        self.pace.quicken();
                        return (event, (!view.status.is_final()).then_some(self));
                    }
                }
                // A bucket that is away for a while is no reason to send everybody away, who would all come back.
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(job.id = %self.id, %error, "a stream cannot read its job, trying on");
                    }
                    self.pace.slow_down();
                }
            }
            if Instant::now() >= self.until {
                return (leave("this took long"), None);
            }
        }
    }
}

fn leave(why: &str) -> Event {
    Event::default().retry(COME_BACK).comment(format!("{why}: come back with Last-Event-ID"))
}
