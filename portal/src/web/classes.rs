//! A teacher's classes.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};

use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::Visitor;
use super::{Answer, Portal};
use crate::page;

const MAX_NAME_CHARS: usize = 80;

/// `GET /classes`
pub(super) async fn list(State(portal): State<Arc<Portal>>, visitor: Visitor) -> Answer {
    let teacher = visitor.reading_teacher()?;
    let classes = portal.database.classes(teacher).await?;
    let students = portal.database.students(teacher).await?;
    Ok(page_response(StatusCode::OK, page::classes(&visitor.view(&portal), &classes, &students)))
}

/// `POST /classes`
pub(super) async fn add(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    let form = Form::parse(&body);
    let teacher = visitor.teacher(&portal, &form).await?;
    let name: String = form.text("name").chars().take(MAX_NAME_CHARS).collect();
    if !name.is_empty() {
        portal.database.add_class(teacher, &name).await?;
    }
    Ok(Redirect::to("/classes").into_response())
}

/// `POST /students/{id}/pin`: the student chooses a new PIN at the next sign-in.
pub(super) async fn forget_pin(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let teacher = visitor.teacher(&portal, &Form::parse(&body)).await?;
    let known = portal.database.forget_pin(teacher, &id).await?;
    if known { Ok(Redirect::to("/classes").into_response()) } else { Err(PageError::NotFound) }
}
