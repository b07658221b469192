//! One assignment: for its teacher with progress and answers, for a student with the question and a place to answer.

use maud::{Markup, html};

use super::gallery::without_script;
use super::picture::{card, summary};
use super::{View, csrf, page};
use crate::answers::{Answer, MAX_ANSWER_CHARS};
use crate::assignments::Assignment;
use crate::pictures::Picture;

/// What a teacher sees.
#[derive(Debug, Clone)]
pub struct TeacherView<'a> {
    pub assignment: &'a Assignment,
    pub pictures: &'a [Picture],
    /// Submitted answers with the names of who wrote them.
    pub answers: &'a [(String, Answer)],
    /// Students who have begun and not submitted.
    pub begun: usize,
}

/// What a student sees.
#[derive(Debug, Clone)]
pub struct StudentView<'a> {
    pub assignment: &'a Assignment,
    pub pictures: &'a [Picture],
    pub answer: Option<&'a Answer>,
    /// What has just happened.
    pub notice: Option<&'a str>,
    /// Whether the notice is bad news.
    pub failed: bool,
}

/// The teacher's page.
pub fn for_teacher(view: &View<'_>, shown: &TeacherView<'_>) -> Markup {
    let TeacherView { assignment, pictures, answers, begun } = shown;
    let waiting = pictures.iter().filter(|picture| picture.state.has_not_started() && !picture.cancel_wanted).count();
    page(
        view,
        &assignment.title,
        &html! {
            h1 { (assignment.title) }
            p.small { "For " (assignment.class_name) }
            p.question { (assignment.question) }
            h2 #pictures { "Pictures" }
            div.summary {
                p #summary role="status" { (summary(pictures)) }
                @if pictures.len() > 1 {
                    form #cancel-all .gone[waiting == 0] method="post"
                        action=(format!("/assignments/{}/cancel", assignment.id)) {
                        (csrf(view))
                        button.quiet type="submit" { "Cancel what has not started" }
                    }
                }
            }
            div.pictures { @for picture in *pictures { (card(view, picture, true)) } }
            (without_script())
            h2 #answers { "Answers" }
            @if answers.is_empty() { p { "Nobody has submitted an answer yet." } }
            @if *begun > 0 { p.small { (begun) " begun and not submitted." } }
            @for (name, answer) in *answers {
                article.answer {
                    h3 { (name) }
                    p.text { (answer.text) }
                }
            }
        },
    )
}

/// The student's page.
pub fn for_student(view: &View<'_>, shown: &StudentView<'_>) -> Markup {
    let StudentView { assignment, pictures, answer, notice, failed } = shown;
    let action = format!("/assignments/{}/answer", assignment.id);
    let submitted = answer.is_some_and(|answer| answer.submitted);
    let text = answer.map_or("", |answer| answer.text.as_str());
    page(
        view,
        &assignment.title,
        &html! {
            h1 { (assignment.title) }
            div.pictures { @for picture in *pictures { (card(view, picture, false)) } }
            (without_script())
            h2 { "Question" }
            p.question { (assignment.question) }
            h2 #answer { "Your answer" }
            @if let Some(words) = notice {
                @if *failed { p.errors role="alert" { (words) } } @else { p.done role="status" { (words) } }
            }
            @if submitted {
                p.small { "You have submitted this answer. It can no longer be changed." }
                p.text { (text) }
            } @else {
                form.answer-form method="post" action=(action) data-autosave {
                    (csrf(view))
                    label for="text" { "Answer" }
                    textarea #text name="text" rows="8" maxlength=(MAX_ANSWER_CHARS) required
                        aria-describedby="once saved" { (text) }
                    p.small #once { "It is saved while you write. You can submit it once." }
                    p.small #saved role="status" {}
                    div.row {
                        button type="submit" name="action" value="submit" { "Submit" }
                        button.quiet type="submit" name="action" value="save" { "Save" }
                    }
                }
            }
        },
    )
}
