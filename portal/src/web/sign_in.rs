//! Signing in and out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::{PageError, page_response};
use super::form::Form;
use super::visitor::{Visitor, local_path, set_cookie};
use super::{Answer, Portal, create};
use crate::accounts::{Joined, folded};
use crate::page::{self, Resume, SignIn};
use crate::secret;
use crate::sessions::Who;

/// Shortest PIN: the limits of the sign-in make 10 000 of them a matter of a day and a half, in front of a class.
const MIN_PIN_CHARS: usize = 4;
const MAX_NAME_CHARS: usize = 80;

/// `GET /sign-in`
pub(super) async fn page(State(portal): State<Arc<Portal>>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let state = SignIn { next: query.raw("next").to_owned(), ..SignIn::default() };
    show(&portal, &visitor, StatusCode::OK, &state)
}

/// `POST /sign-in/teacher`
pub(super) async fn teacher(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    let form = Form::parse(&body);
    let email = form.text("email");
    let account = folded(&email);
    let state = SignIn { email: email.clone(), ..state(&form) };
    if let Some(refused) = refused(&portal, &visitor, &form, &account, &state) {
        return Ok(refused);
    }
    match portal.database.teacher_with_password(&email, form.raw("password").to_owned()).await? {
        Some(teacher) => enter(&portal, &visitor, Who::Teacher(teacher), state).await,
        None => {
            let error = Some("Address or password is wrong.".to_owned());
            Ok(show(&portal, &visitor, StatusCode::UNAUTHORIZED, &SignIn { error, ..state }))
        }
    }
}

/// `POST /sign-in/student`
pub(super) async fn student(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    let form = Form::parse(&body);
    let (code, name, pin) = (form.text("code"), form.text("name"), form.raw("pin").to_owned());
    let state = SignIn { code: code.clone(), name: name.clone(), ..state(&form) };
    // As the database compares them, so that no other way of writing them is another account.
    let account = format!("{} {}", secret::normalised_code(&code), folded(&name));
    if let Some(refused) = refused(&portal, &visitor, &form, &account, &state) {
        return Ok(refused);
    }
    let again = |words: &str| {
        let state = SignIn { error: Some(words.to_owned()), ..state.clone() };
        Ok(show(&portal, &visitor, StatusCode::UNAUTHORIZED, &state))
    };
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return again("Write your name, in at most 80 characters.");
    }
    if pin.chars().count() < MIN_PIN_CHARS {
        return again("The PIN needs four characters or more.");
    }
    match portal.database.join(&code, &name, pin).await? {
        Joined::As(student) => enter(&portal, &visitor, Who::Student(student), state).await,
        Joined::NoSuchClass => again("No class has this code. Ask your teacher for it."),
        Joined::WrongPin => again(
            "Somebody of this name is in the class already, with another PIN. If it is you, ask your teacher to reset \
             it; if not, add a letter to your name.",
        ),
    }
}

/// `POST /sign-out`
pub(super) async fn out(State(portal): State<Arc<Portal>>, visitor: Visitor, body: Bytes) -> Answer {
    if !visitor.made(&Form::parse(&body)) {
        return Err(PageError::Stale);
    }
    portal.database.end_session(visitor.token()).await?;
    Ok((set_cookie(&portal, "", Duration::ZERO), Redirect::to("/sign-in")).into_response())
}

/// Signed in, under a new token: one that somebody put into the browser before is worth nothing.
async fn enter(portal: &Portal, visitor: &Visitor, who: Who, state: SignIn) -> Answer {
    let token = portal.database.begin_session(&who, portal.session).await?;
    let cookie = set_cookie(portal, &token, portal.session);
    if let Some(resume) = &state.resume {
        let entered = visitor.entered(who, token);
        let notice = "You are signed in again. This is what you wrote: look at it and send it once more.";
        if let Some(page) = create::resume(portal, &entered, resume, notice).await? {
            return Ok((cookie, page).into_response());
        }
    }
    Ok((cookie, Redirect::to(local_path(&state.next))).into_response())
}

/// What comes before any password is looked at.
fn refused(portal: &Portal, visitor: &Visitor, form: &Form, account: &str, state: &SignIn) -> Option<Response> {
    if !visitor.made(form) {
        let error = "Your browser did not send back the cookie of this page. Allow cookies for it and try again.";
        let state = SignIn { error: Some(error.to_owned()), ..state.clone() };
        return Some(show(portal, visitor, StatusCode::FORBIDDEN, &state));
    }
    let address: IpAddr = visitor.address;
    let wait = portal.limits.check(account, address).err()?;
    let seconds = wait.as_secs() + 1;
    tracing::warn!(%address, seconds, "too many tries to sign in");
    let error = format!("Too many tries. Wait {seconds} seconds and try again.");
    let state = SignIn { error: Some(error), ..state.clone() };
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some((headers, show(portal, visitor, StatusCode::TOO_MANY_REQUESTS, &state)).into_response())
}

fn state(form: &Form) -> SignIn {
    let path = form.raw("resume_path");
    let resume = (!path.is_empty()).then(|| Resume { path: path.to_owned(), body: form.raw("resume_body").to_owned() });
    SignIn { next: form.raw("next").to_owned(), resume, ..SignIn::default() }
}

fn show(portal: &Portal, visitor: &Visitor, status: StatusCode, state: &SignIn) -> Response {
    let page = page_response(status, page::sign_in(&visitor.view(portal), state));
    (visitor.new_cookie(portal), page).into_response()
}
