//! The routes, and what the handlers share.

pub mod assets;
mod form;
mod headers;
mod visitor;
mod failure;
mod sign_in;
mod gallery;
mod create;
mod picture;
mod answer;
mod classes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::courier::Desk;
use crate::database::Database;
use crate::limits::SignInLimits;
use crate::page;
use failure::{PageError, page_response};
use visitor::Visitor;

/// Largest form: 30 descriptions of 2000 characters, each of which may take 12 bytes URL-encoded, and the rest.
const BODY_LIMIT: usize = 1_048_576;
/// A page waits for the database and, at a sign-in, for two hashes before its own.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the handlers share.
#[derive(Debug)]
pub struct Portal {
    pub database: Database,
    pub desk: Desk,
    pub limits: SignInLimits,
    /// Whether cookies are for https alone.
    pub https: bool,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: u8,
    /// How long a person stays signed in.
    pub session: Duration,
    /// Origin of the pictures.
    pub cdn: String,
}

/// Makes the router.
pub fn router(portal: Arc<Portal>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in::page))
        .route("/sign-in/teacher", post(sign_in::teacher))
        .route("/sign-in/student", post(sign_in::student))
        .route("/sign-out", post(sign_in::out))
        .route("/assignments", get(gallery::gallery).post(create::create))
        .route("/assignments/new", get(create::blank).post(create::another_row))
        .route("/assignments/{id}", get(gallery::assignment))
        .route("/assignments/{id}/answer", get(answer::back).post(answer::answer))
        .route("/assignments/{id}/cancel", post(picture::cancel_all))
        .route("/pictures", get(picture::states))
        .route("/pictures/{id}", post(picture::revise))
        .route("/pictures/{id}/edit", get(picture::edit))
        .route("/pictures/{id}/cancel", post(picture::cancel))
        .route("/pictures/{id}/again", post(picture::again))
        .route("/classes", get(classes::list).post(classes::add))
        .route("/students/{id}/pin", post(classes::forget_pin))
        .route("/live", get(async || "live"))
        .route("/ready", get(ready))
        .fallback(nothing_here)
        .layer(middleware::from_fn(headers::of_ours))
        .layer(middleware::from_fn_with_state(Arc::clone(&portal), headers::of_pages))
        .route("/static/{file}", get(assets::file))
        .route("/placeholders/{file}", get(assets::placeholder_png))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, TIMEOUT))
        .layer(CatchPanicLayer::new())
        // Around the time-out and the panic, whose answers are answers too.
        .layer(middleware::from_fn_with_state(Arc::clone(&portal), headers::of_everything))
        .with_state(portal)
}

async fn home(visitor: Visitor) -> Redirect {
    Redirect::to(if visitor.who.is_some() { "/assignments" } else { "/sign-in" })
}

async fn nothing_here(State(portal): State<Arc<Portal>>, visitor: Visitor) -> Response {
    let view = visitor.view(&portal);
    page_response(StatusCode::NOT_FOUND, page::message(&view, "Nothing here", "There is no such page."))
}

/// Ready is who can serve a page. Without the picture API the portal serves pages, and says on them what is missing.
async fn ready(State(portal): State<Arc<Portal>>) -> Response {
    match portal.database.ping().await {
        Ok(()) => "ready".into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer").into_response()
        }
    }
}

/// The answer of a handler.
type Answer = Result<Response, PageError>;
