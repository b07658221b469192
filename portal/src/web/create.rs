//! Creating an assignment, and showing a form again that could not be obeyed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::Visitor;
use super::{Answer, Portal, answer, picture};
use crate::accounts::Teacher;
use crate::assignments::{MAX_PICTURES, NewAssignment, NewPicture};
use crate::page::{self, Draft, FORM_KEY, Resume};
use crate::secret;
use crate::sessions::Who;
use crate::style::{MAX_ALT_CHARS, Style, check_description, suggested_alt};

const MAX_TITLE_CHARS: usize = 200;
const MAX_QUESTION_CHARS: usize = 5000;

/// `GET /assignments/new`
pub(super) async fn blank(State(portal): State<Arc<Portal>>, visitor: Visitor) -> Answer {
    let teacher = visitor.reading_teacher()?;
    let draft = Draft {
        class_id: String::new(),
        title: String::new(),
        question: String::new(),
        style: Style::AsDescribed,
        pictures: vec![(String::new(), String::new())],
        form_key: secret::token(),
        errors: Vec::new(),
        notice: None,
    };
    show(&portal, &visitor, teacher, StatusCode::OK, &draft).await
}

/// `POST /assignments/new`: the form with room for one more picture, for a browser that runs no script.
pub(super) async fn another_row(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    let form = Form::parse(&body);
    let teacher = visitor.teacher(&portal, &form).await?;
    let mut draft = draft(&form);
    if draft.pictures.len() < MAX_PICTURES {
        draft.pictures.push((String::new(), String::new()));
    }
    show(&portal, &visitor, teacher, StatusCode::OK, &draft).await
}

/// `POST /assignments`
pub(super) async fn create(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    let form = Form::parse(&body);
    let teacher = visitor.teacher(&portal, &form).await?;
    let mut draft = draft(&form);
    check(&mut draft);
    if !draft.errors.is_empty() {
        return show(&portal, &visitor, teacher, StatusCode::UNPROCESSABLE_ENTITY, &draft).await;
    }
    let pictures = draft.pictures.into_iter().map(|(prompt, alt)| NewPicture { prompt, alt }).collect();
    let new = NewAssignment {
        class_id: draft.class_id,
        title: draft.title,
        question: draft.question,
        style: draft.style,
        pictures,
        form_key: form.fingerprint(&draft.form_key),
    };
    let id = portal.database.create_assignment(teacher, &new).await?;
    portal.desk.wake();
    Ok(Redirect::to(&format!("/assignments/{id}")).into_response())
}

/// Shows what somebody wrote whose session had ended, or None if the form held nothing worth keeping. Nothing is done
/// with it: that takes another click.
pub(super) async fn resume(
    portal: &Portal,
    visitor: &Visitor,
    resume: &Resume,
    notice: &str,
) -> Result<Option<Response>, PageError> {
    let form = Form::parse(resume.body.as_bytes());
    let steps: Vec<&str> = resume.path.trim_start_matches('/').split('/').collect();
    match (&steps[..], &visitor.who) {
        (["assignments"] | ["assignments", "new"], Some(Who::Teacher(teacher))) => {
            let draft = Draft { notice: Some(notice.to_owned()), ..draft(&form) };
            show(portal, visitor, teacher, StatusCode::OK, &draft).await.map(Some)
        }
        (["pictures", id], Some(Who::Teacher(teacher))) => {
            picture::resume(portal, visitor, teacher, id, &form, notice).await
        }
        (["assignments", id, "answer"], Some(Who::Student(student))) => {
            answer::resume(portal, visitor, student, id, &form, notice).await
        }
        _ => Ok(None),
    }
}

async fn show(portal: &Portal, visitor: &Visitor, teacher: &Teacher, status: StatusCode, draft: &Draft) -> Answer {
    let classes = portal.database.classes(teacher).await?;
    Ok(page_response(status, page::new(&visitor.view(portal), &classes, draft)))
}

/// Reads the form. Descriptions and alternative texts come in pairs, in the order of the page.
fn draft(form: &Form) -> Draft {
    let mut pictures: Vec<(String, String)> =
        form.texts("prompt").into_iter().zip(form.texts("alt")).take(MAX_PICTURES).collect();
    if pictures.is_empty() {
        pictures.push((String::new(), String::new()));
    }
    Draft {
        class_id: form.text("class"),
        title: form.text("title"),
        question: form.text("question"),
        style: Style::of(form.raw("style")),
        pictures,
        form_key: form_key(form),
        errors: Vec::new(),
        notice: None,
    }
}

/// Returns the key that was made with the form. The API takes visible ASCII of at most 255 characters.
pub(super) fn form_key(form: &Form) -> String {
    let key = form.raw(FORM_KEY);
    let usable = (20..=100).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if usable { key.to_owned() } else { secret::token() }
}

/// Leaves out empty rows, and notes what has to be mended. A missing alternative text is suggested.
fn check(draft: &mut Draft) {
    let mut errors = Vec::new();
    let mut note = |field: &str, text: &str| errors.push((field.to_owned(), text.to_owned()));
    match draft.title.chars().count() {
        0 => note("title", "Give the assignment a title."),
        1..=MAX_TITLE_CHARS => {}
        _ => note("title", "Shorten the title to 200 characters."),
    }
    match draft.question.chars().count() {
        0 => note("question", "Write the question."),
        1..=MAX_QUESTION_CHARS => {}
        _ => note("question", "Shorten the question to 5000 characters."),
    }
    let is_blank = |(prompt, alt): &(String, String)| prompt.is_empty() && alt.is_empty();
    draft.pictures.retain(|picture| !is_blank(picture));
    if draft.pictures.is_empty() {
        draft.pictures.push((String::new(), String::new()));
    }
    for (index, (prompt, alt)) in draft.pictures.iter_mut().enumerate() {
        let field = format!("prompt-{index}");
        if let Err(words) = check_description(prompt) {
            note(&field, &format!("Picture {}: {words}", index + 1));
        }
        if let Err(words) = check_alt(alt, prompt) {
            note(&format!("alt-{index}"), &format!("Picture {}: {words}", index + 1));
        }
    }
    draft.errors = errors;
}

/// Checks an alternative text, and puts a suggestion in the place of an empty one.
///
/// # Errors
/// A sentence for the person who has to look at it.
pub(super) fn check_alt(alt: &mut String, prompt: &str) -> Result<(), String> {
    if alt.is_empty() {
        *alt = suggested_alt(prompt);
        return Err("Say what the picture shows, for those who cannot see it. A suggestion is filled in.".to_owned());
    }
    let chars = alt.chars().count();
    if chars > MAX_ALT_CHARS {
        return Err(format!("The alternative text has {chars} characters. Shorten it to {MAX_ALT_CHARS}."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &str) -> Draft {
        let mut draft = draft(&Form::parse(body.as_bytes()));
        check(&mut draft);
        draft
    }

    #[test]
    fn empty_rows_are_left_out_and_the_rest_is_kept() {
        let draft = checked("title=T&question=Q&prompt=a+fox&alt=A+fox&prompt=&alt=&prompt=a+hen&alt=A+hen");
        assert!(draft.errors.is_empty(), "{:?}", draft.errors);
        assert_eq!(draft.pictures.len(), 2);
        assert!(draft.form_key.len() >= 20);
    }

    #[test]
    fn what_has_to_be_mended_is_named_by_its_field_and_nothing_is_lost() {
        let draft = checked("title=&question=Q&prompt=a+fox&alt=&prompt=&alt=A+hen");
        let fields: Vec<&str> = draft.errors.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["title", "alt-0", "prompt-1"]);
        assert_eq!(draft.pictures[0], ("a fox".to_owned(), "A fox".to_owned()), "a suggestion is filled in");
        assert_eq!(draft.question, "Q");
    }

    #[test]
    fn there_are_thirty_pictures_at_most() {
        let row = "&prompt=a+fox&alt=A+fox";
        assert_eq!(checked(&format!("title=T&question=Q{}", row.repeat(40))).pictures.len(), MAX_PICTURES);
    }
}
