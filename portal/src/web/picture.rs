//! What can be done about a picture, and the states that the script asks for.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;

use super::create::{check_alt, form_key};
use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::Visitor;
use super::{Answer, Portal};
use crate::accounts::Teacher;
use crate::assignments::MAX_PICTURES;
use crate::page::{self, EditDraft};
use crate::pictures::{Picture, Revision};
use crate::secret;
use crate::sessions::{Scope, Who};
use crate::style::{Style, check_description};

/// When the script should ask again: the courier asks the API about every 2 s, so more often brings nothing.
const ASK_AFTER_MS: u32 = 1000;

/// What the script asks for.
#[derive(Debug, Serialize)]
struct States {
    pictures: Vec<PictureState>,
    /// How many are ready, in a sentence; of the assignment that the pictures asked for belong to.
    summary: String,
    /// Whether there is something left to cancel.
    cancellable: bool,
    /// What keeps pictures from being made.
    trouble: Option<String>,
    /// When to ask again; none if nothing is pending.
    ask_after_ms: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PictureState {
    id: String,
    version: i64,
    pending: bool,
    /// HTML of the frame.
    figure: String,
    /// HTML of the buttons.
    controls: String,
}

/// `GET /pictures?ids=ID.ID`: how far these pictures are. Those of others are left out.
pub(super) async fn states(State(portal): State<Arc<Portal>>, visitor: Visitor, RawQuery(query): RawQuery) -> Answer {
    visitor.refuse_if_unknown()?;
    let Some(who) = &visitor.who else { return Err(PageError::SessionEnded) };
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let ids: Vec<&str> = query.raw("ids").split('.').filter(|id| !id.is_empty()).take(MAX_PICTURES).collect();
    let pictures = portal.database.pictures_of(&who.scope(), &ids).await?;
    let siblings = match pictures.first() {
        Some(first) => portal.database.pictures(&first.assignment_id).await?,
        None => Vec::new(),
    };
    let view = visitor.view(&portal);
    let is_teacher = matches!(who, Who::Teacher(_));
    let pending = pictures.iter().any(|picture| picture.state.is_pending());
    let state = |picture: &Picture| PictureState {
        id: picture.id.clone(),
        version: picture.version,
        pending: picture.state.is_pending(),
        figure: page::figure(&view, picture).into_string(),
        controls: if is_teacher { page::controls(&view, picture).into_string() } else { String::new() },
    };
    let states = States {
        pictures: pictures.iter().map(state).collect(),
        summary: page::summary(&siblings),
        cancellable: siblings.iter().any(|picture| picture.state.has_not_started() && !picture.cancel_wanted),
        trouble: view.trouble.clone(),
        ask_after_ms: pending.then_some(ASK_AFTER_MS),
    };
    Ok(Json(states).into_response())
}

/// `GET /pictures/{id}/edit`
pub(super) async fn edit(State(portal): State<Arc<Portal>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let teacher = visitor.reading_teacher()?;
    let picture = find(&portal, teacher, &id).await?;
    let draft = EditDraft {
        prompt: picture.prompt.clone(),
        alt: picture.alt.clone(),
        style: picture.style,
        form_key: secret::token(),
        errors: Vec::new(),
        notice: None,
    };
    Ok(page_response(StatusCode::OK, page::edit(&visitor.view(&portal), &picture, &draft)))
}

/// `POST /pictures/{id}`: another alternative text, or another picture.
pub(super) async fn revise(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let form = Form::parse(&body);
    let teacher = visitor.teacher(&portal, &form).await?;
    let picture = find(&portal, teacher, &id).await?;
    let mut draft = draft(&form);
    let alone = form.raw("action") == "alt";
    if let Err(words) = check_alt(&mut draft.alt, &draft.prompt) {
        draft.errors.push(("alt-0".to_owned(), words));
    }
    if !alone && let Err(words) = check_description(&draft.prompt) {
        draft.errors.push(("prompt-0".to_owned(), words));
    }
    if !draft.errors.is_empty() {
        let page = page::edit(&visitor.view(&portal), &picture, &draft);
        return Ok(page_response(StatusCode::UNPROCESSABLE_ENTITY, page));
    }
    if alone {
        portal.database.set_alt(&picture, &draft.alt).await?;
    } else {
        let (prompt, alt, style) = (draft.prompt.clone(), draft.alt.clone(), draft.style);
        let form_key = form.fingerprint(&draft.form_key);
        if !portal.database.revise(&picture, &Revision { prompt, alt, style, form_key }).await? {
            let notice = "This picture is still being made. Your text is here: send it when the picture is there.";
            draft.notice = Some(notice.to_owned());
            let page = page::edit(&visitor.view(&portal), &picture, &draft);
            return Ok(page_response(StatusCode::CONFLICT, page));
        }
        portal.desk.wake();
    }
    Ok(back(&picture.assignment_id))
}

/// `POST /pictures/{id}/again`: the same description, another seed.
pub(super) async fn again(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let form = Form::parse(&body);
    let teacher = visitor.teacher(&portal, &form).await?;
    let picture = find(&portal, teacher, &id).await?;
    let (prompt, alt, style) = (picture.prompt.clone(), picture.alt.clone(), picture.style);
    portal.database.revise(&picture, &Revision { prompt, alt, style, form_key: form_key(&form) }).await?;
    portal.desk.wake();
    Ok(back(&picture.assignment_id))
}

/// `POST /pictures/{id}/cancel`
pub(super) async fn cancel(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let teacher = visitor.teacher(&portal, &Form::parse(&body)).await?;
    let picture = find(&portal, teacher, &id).await?;
    portal.database.cancel(&picture.assignment_id, Some(&picture.id)).await?;
    portal.desk.wake();
    Ok(back(&picture.assignment_id))
}

/// `POST /assignments/{id}/cancel`: everything of the assignment that has not started.
pub(super) async fn cancel_all(
    State(portal): State<Arc<Portal>>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let teacher = visitor.teacher(&portal, &Form::parse(&body)).await?;
    let scope = Scope { teacher: teacher.id.clone(), class: String::new() };
    let assignment = portal.database.assignment(&scope, &id).await?.ok_or(PageError::NotFound)?;
    portal.database.cancel(&assignment.id, None).await?;
    portal.desk.wake();
    Ok(back(&assignment.id))
}

/// Shows the form of a picture again, with what somebody wrote.
pub(super) async fn resume(
    portal: &Portal,
    visitor: &Visitor,
    teacher: &Teacher,
    id: &str,
    form: &Form,
    notice: &str,
) -> Result<Option<Response>, PageError> {
    let Some(picture) = portal.database.picture_of(teacher, id).await? else { return Ok(None) };
    let draft = EditDraft { notice: Some(notice.to_owned()), ..draft(form) };
    Ok(Some(page_response(StatusCode::OK, page::edit(&visitor.view(portal), &picture, &draft))))
}

fn draft(form: &Form) -> EditDraft {
    EditDraft {
        prompt: form.text("prompt"),
        alt: form.text("alt"),
        style: Style::of(form.raw("style")),
        form_key: form_key(form),
        errors: Vec::new(),
        notice: None,
    }
}

async fn find(portal: &Portal, teacher: &Teacher, id: &str) -> Result<Picture, PageError> {
    portal.database.picture_of(teacher, id).await?.ok_or(PageError::NotFound)
}

fn back(assignment: &str) -> Response {
    Redirect::to(&format!("/assignments/{assignment}")).into_response()
}
