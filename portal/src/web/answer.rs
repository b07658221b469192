//! Answering: saved by the script while it is written, by a button without one; submitted once.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::Visitor;
use super::{Answer, Portal};
use crate::accounts::Student;
use crate::answers::{Answer as Written, MAX_ANSWER_CHARS};
use crate::page::{self, StudentView};
use crate::sessions::Who;

/// `GET /assignments/{id}/answer`: where a reload of the answer's own page ends up.
pub(super) async fn back(Path(id): Path<String>) -> Redirect {
    Redirect::to(&format!("/assignments/{id}"))
}

/// `POST /assignments/{id}/answer`
pub(super) async fn answer(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let form = Form::parse(&body);
    let student = visitor.student(&portal, &form).await?;
    let scope = Who::Student(student.clone()).scope();
    portal.database.assignment(&scope, &id).await?.ok_or(PageError::NotFound)?;
    let (text, submit) = (form.text("text"), form.raw("action") == "submit");
    let chars = text.chars().count();
    let refused = match chars {
        0 if submit => Some("Write your answer before you submit it.".to_owned()),
        chars if chars > MAX_ANSWER_CHARS => {
            Some(format!("Your answer has {chars} characters. Shorten it to {MAX_ANSWER_CHARS}. It is not saved yet."))
        }
        _ => None,
    };
    if let Some(words) = refused {
        if visitor.wants_json {
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": words }))).into_response());
        }
        let written = Written { text, submitted: false };
        return show(&portal, &visitor, &id, written, &words, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    let saved = portal.database.save_answer(&id, student, &text, submit).await?;
    if visitor.wants_json {
        let status = if saved { StatusCode::OK } else { StatusCode::CONFLICT };
        let words = if saved { "Saved." } else { "This answer was submitted before. It can no longer be changed." };
        return Ok((status, Json(json!({ "said": words }))).into_response());
    }
    let Some(kept) = portal.database.answer(&id, student).await? else { return Err(PageError::Unavailable) };
    let words = match (saved, submit) {
        (true, true) => "Submitted. Thank you!",
        (true, false) => "Saved. You can go on writing, now or later.",
        (false, _) => "You had submitted this answer before: that one counts, and nothing was changed.",
    };
    show(&portal, &visitor, &id, kept, words, StatusCode::OK).await
}

/// Shows what somebody wrote whose session had ended.
pub(super) async fn resume(
    portal: &Portal,
    visitor: &Visitor,
    student: &Student,
    id: &str,
    form: &Form,
    notice: &str,
) -> Result<Option<Response>, PageError> {
    let scope = Who::Student(student.clone()).scope();
    if portal.database.assignment(&scope, id).await?.is_none() {
        return Ok(None);
    }
    // A submitted answer is shown as it was submitted.
    let kept = portal.database.answer(id, student).await?.filter(|answer| answer.submitted);
    let written = kept.unwrap_or_else(|| Written { text: form.text("text"), submitted: false });
    show(portal, visitor, id, written, notice, StatusCode::OK).await.map(Some)
}

async fn show(
    portal: &Portal,
    visitor: &Visitor,
    id: &str,
    answer: Written,
    notice: &str,
    status: StatusCode,
) -> Answer {
    let scope = visitor.reader()?.scope();
    let assignment = portal.database.assignment(&scope, id).await?.ok_or(PageError::NotFound)?;
    let pictures = portal.database.pictures(id).await?;
    let shown = StudentView {
        assignment: &assignment,
        pictures: &pictures,
        answer: Some(&answer),
        notice: Some(notice),
        failed: !status.is_success(),
    };
    Ok(page_response(status, page::for_student(&visitor.view(portal), &shown)))
}
