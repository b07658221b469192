//! One picture: a frame that keeps its place from the first moment on, and what can be done about it.

use job::Status;
use maud::{Markup, html};

use super::{FORM_KEY, View, csrf};
use crate::pictures::{Picture, State};
use crate::secret;
use crate::sessions::Who;
use crate::web::assets;

/// Steps of a picture's way, for the bar.
const STEPS: u8 = 4;

/// The picture with what belongs to it, found again by the script.
pub(super) fn card(view: &View<'_>, picture: &Picture, with_controls: bool) -> Markup {
    html! {
        div.card tabindex="-1" data-picture=(picture.id) data-version=(picture.version) data-pending[picture.state.is_pending()] {
            div data-part="figure" { (figure(view, picture)) }
            @if with_controls {
                div.controls data-part="controls" { (controls(view, picture)) }
            }
        }
    }
}

/// The frame: a placeholder, the picture over it, and words while there is none.
pub fn figure(view: &View<'_>, picture: &Picture) -> Markup {
    let is_teacher = matches!(view.who, Some(Who::Teacher(_)));
    let says = words(picture);
    html! {
        div.frame {
            @if let Some(image) = &picture.image {
                @if let Some(placeholder) = assets::placeholder(&image.thumbhash) {
                    img.placeholder src=(placeholder) alt="" width=(image.width) height=(image.height);
                }
                img.picture src=(image.url) alt=(picture.alt) width=(image.width) height=(image.height)
                    loading="lazy" decoding="async";
            }
            @if picture.state.is_pending() {
                div.note {
                    p { (says) }
                    progress max=(STEPS) value=(step(picture.state)) aria-label=(format!("Progress: {says}")) {}
                }
            } @else if picture.state != State::Job(Status::Succeeded) {
                div.note {
                    @if is_teacher {
                        p { strong { (says) } }
                        @if let Some(problem) = &picture.problem { p { (problem) } }
                        @if picture.image.is_some() { p { "The picture before it is kept." } }
                    } @else if picture.image.is_none() {
                        p { "There is no picture yet." }
                        p { (picture.alt) }
                    }
                }
            }
        }
    }
}

/// What a teacher can do about a picture now. Always one row, so that nothing below it moves.
pub fn controls(view: &View<'_>, picture: &Picture) -> Markup {
    html! {
        @if picture.state.has_not_started() && !picture.cancel_wanted {
            form method="post" action=(format!("/pictures/{}/cancel", picture.id)) {
                (csrf(view))
                button.quiet type="submit" { "Cancel" span.hidden { ": " (picture.alt) } }
            }
        }
        @if !picture.state.is_pending() {
            form method="post" action=(format!("/pictures/{}/again", picture.id)) {
                (csrf(view))
                input type="hidden" name=(FORM_KEY) value=(secret::token());
                button.quiet type="submit" { (again(picture)) span.hidden { ": " (picture.alt) } }
            }
            a.button.quiet href=(format!("/pictures/{}/edit", picture.id)) {
                "Edit" span.hidden { " " (picture.alt) }
            }
        }
    }
}

/// How many pictures are ready, in a sentence.
pub fn summary(pictures: &[Picture]) -> String {
    let is = |state| move |picture: &&Picture| picture.state == State::Job(state);
    let ready = pictures.iter().filter(is(Status::Succeeded)).count();
    let pending = pictures.iter().filter(|picture| picture.state.is_pending()).count();
    let without = pictures.len() - ready - pending;
    let noun = if pictures.len() == 1 { "picture is" } else { "pictures are" };
    let mut sentence = format!("{ready} of {} {noun} ready", pictures.len());
    if pending > 0 {
        sentence.push_str(&format!(", {pending} on the way"));
    }
    if without > 0 {
        sentence.push_str(&format!(", {without} not made"));
    }
    sentence.push('.');
    sentence
}

/// Returns the state in words for the person who waits for it.
fn words(picture: &Picture) -> &'static str {
    match picture.state {
        state if picture.cancel_wanted && state.is_pending() => "Being cancelled",
        State::Unsent => "Waiting to be sent",
        State::Refused => "Not sent",
        State::Job(Status::Queued) => "In the queue",
        State::Job(Status::Generating) => "Being drawn",
        State::Job(Status::Processing) => "Being finished",
        State::Job(Status::Succeeded) => "Ready",
        State::Job(Status::Failed) => "Not made",
        State::Job(Status::Blocked) => "Refused",
        State::Job(Status::Canceled) => "Cancelled",
        State::Job(Status::Expired) => "Not made in time",
    }
}

fn step(state: State) -> u8 {
    match state {
        State::Unsent => 0,
        State::Job(Status::Queued) => 1,
        State::Job(Status::Generating) => 2,
        State::Job(Status::Processing) => 3,
        State::Job(_) | State::Refused => STEPS,
    }
}

/// What the button says that asks for another picture with the same description.
fn again(picture: &Picture) -> &'static str {
    if picture.state == State::Job(Status::Succeeded) { "Another one" } else { "Try again" }
}
