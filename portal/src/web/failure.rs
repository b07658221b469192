//! `PageError`: every way in which a page can fail, as a page that says what to do.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::Markup;
use serde_json::json;

use crate::page::{View, message};

/// Why there is another answer than the one that was asked for.
#[derive(Debug)]
pub(super) enum PageError {
    /// Another page: the sign-in, or a form with what has to be mended.
    Answer(Box<Response>),
    NotFound,
    NotForStudents,
    NotForTeachers,
    /// The form was made for another session, and holds nothing that a person wrote.
    Stale,
    /// The form came from another site.
    Foreign,
    /// A script is told that its person is not signed in any more.
    SessionEnded,
    /// The database does not answer.
    Unavailable,
}

impl PageError {
    pub(super) fn answer(answer: impl IntoResponse) -> Self {
        Self::Answer(Box::new(answer.into_response()))
    }
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::RowNotFound) {
            return Self::NotFound;
        }
        tracing::error!(%error, "the database does not answer");
        Self::Unavailable
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Answer(answer) => return *answer,
            Self::SessionEnded => {
                return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "session_ended" }))).into_response();
            }
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Nothing here", "There is no such page, or it belongs to another class.")
            }
            Self::NotForStudents => (StatusCode::FORBIDDEN, "For teachers", "This page is for teachers."),
            Self::NotForTeachers => (StatusCode::FORBIDDEN, "For students", "Only students of the class can do this."),
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "Please try again",
                "This page was opened before you signed in. Nothing was changed. Go back, load the page again and repeat what you did.",
            ),
            Self::Foreign => (
                StatusCode::FORBIDDEN,
                "Not from here",
                "Another site has sent this. Nothing was changed. Open the portal itself and repeat what you want to do.",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not possible at the moment",
                "The portal cannot reach its data. Nothing was changed. Go back and try again in a minute: your browser keeps what you wrote.",
            ),
        };
        let view = View { who: None, csrf: String::new(), trouble: None };
        page_response(status, message(&view, title, text))
    }
}

/// A page with a status.
pub(super) fn page_response(status: StatusCode, page: Markup) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}
