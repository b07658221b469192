//! Reading: the gallery and one assignment.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;

use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::Visitor;
use super::{Answer, Portal};
use crate::page::{self, Gallery, StudentView, TeacherView};
use crate::sessions::Who;

/// Longest search; what is longer is cut.
const MAX_SEARCH_CHARS: usize = 200;

/// `GET /assignments?q=WORDS&page=NUMBER`
pub(super) async fn gallery(State(portal): State<Arc<Portal>>, visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    let scope = visitor.reader()?.scope();
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let search: String = query.text("q").chars().take(MAX_SEARCH_CHARS).collect();
    let number = query.raw("page").parse::<i64>().unwrap_or(1).clamp(1, 1_000_000) - 1;
    let found = portal.database.gallery(&scope, &search, number).await?;
    let shown = Gallery { found: &found, search: &search, page: number };
    Ok(page_response(StatusCode::OK, page::gallery(&visitor.view(&portal), &shown)))
}

/// `GET /assignments/{id}`
pub(super) async fn assignment(State(portal): State<Arc<Portal>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let who = visitor.reader()?;
    let assignment = portal.database.assignment(&who.scope(), &id).await?.ok_or(PageError::NotFound)?;
    let pictures = portal.database.pictures(&id).await?;
    let view = visitor.view(&portal);
    let shown = match who {
        Who::Teacher(_) => {
            let (answers, begun) = portal.database.answers(&id).await?;
            let shown = TeacherView { assignment: &assignment, pictures: &pictures, answers: &answers, begun };
            page::for_teacher(&view, &shown)
        }
        Who::Student(student) => {
            let answer = portal.database.answer(&id, student).await?;
            let shown = StudentView {
                assignment: &assignment,
                pictures: &pictures,
                answer: answer.as_ref(),
                notice: None,
                failed: false,
            };
            page::for_student(&view, &shown)
        }
    };
    Ok(page_response(StatusCode::OK, shown))
}
