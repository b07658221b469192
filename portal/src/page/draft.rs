//! The forms that make a picture: a new assignment, and a picture that is to be made again.

use maud::{Markup, html};

use super::{FORM_KEY, View, csrf, errors, invalid, page};
use crate::accounts::Class;
use crate::assignments::MAX_PICTURES;
use crate::pictures::Picture;
use crate::style::{MAX_ALT_CHARS, MAX_PROMPT_CHARS, Style};

/// A new assignment as far as it has been filled in.
#[derive(Debug, Clone)]
pub struct Draft {
    pub class_id: String,
    pub title: String,
    pub question: String,
    pub style: Style,
    /// Description and alternative text of each picture.
    pub pictures: Vec<(String, String)>,
    pub form_key: String,
    /// Field and sentence of what has to be mended.
    pub errors: Vec<(String, String)>,
    pub notice: Option<String>,
}

/// A picture that is to be made again.
#[derive(Debug, Clone)]
pub struct EditDraft {
    pub prompt: String,
    pub alt: String,
    pub style: Style,
    pub form_key: String,
    pub errors: Vec<(String, String)>,
    pub notice: Option<String>,
}

/// The page of a new assignment.
pub fn new(view: &View<'_>, classes: &[Class], draft: &Draft) -> Markup {
    page(
        view,
        "New assignment",
        &html! {
            h1 { "New assignment" }
            (notice(draft.notice.as_deref()))
            (errors(&draft.errors))
            form.wide #new-assignment method="post" action="/assignments" {
                (csrf(view))
                input type="hidden" name=(FORM_KEY) value=(draft.form_key);
                label for="title" { "Title" }
                input #title name="title" maxlength="200" required value=(draft.title)
                    aria-invalid=[invalid(&draft.errors, "title")];
                label for="class" { "Class" }
                select #class name="class" {
                    @for class in classes {
                        option value=(class.id) selected[class.id == draft.class_id] { (class.name) }
                    }
                }
                label for="question" { "Question" }
                textarea #question name="question" rows="4" maxlength="5000" required
                    aria-invalid=[invalid(&draft.errors, "question")] { (draft.question) }
                (styles(draft.style))
                div #rows {
                    @for (index, (prompt, alt)) in draft.pictures.iter().enumerate() {
                        (row(&index.to_string(), &(index + 1).to_string(), prompt, alt, &draft.errors))
                    }
                }
                template #row { (row("NUMBER", "ORDINAL", "", "", &[])) }
                p.small #more { "Up to " (MAX_PICTURES) " pictures. One whose description is empty is left out." }
                div.row {
                    button type="submit" { "Create" }
                    button.quiet #add type="submit" formaction="/assignments/new" formnovalidate
                        data-most=(MAX_PICTURES) { "Add another picture" }
                }
            }
        },
    )
}

/// The page of a picture that is to be made again.
pub fn edit(view: &View<'_>, picture: &Picture, draft: &EditDraft) -> Markup {
    page(
        view,
        "Edit the picture",
        &html! {
            h1 { "Edit the picture" }
            (notice(draft.notice.as_deref()))
            (errors(&draft.errors))
            @if let Some(problem) = &picture.problem {
                p.errors #problem { (problem) }
            }
            form.wide method="post" action=(format!("/pictures/{}", picture.id)) {
                (csrf(view))
                input type="hidden" name=(FORM_KEY) value=(draft.form_key);
                (styles(draft.style))
                (fields("0", &draft.prompt, &draft.alt, &draft.errors, true))
                div.row {
                    button type="submit" name="action" value="again" { "Make the picture again" }
                    button.quiet type="submit" name="action" value="alt" { "Save the alternative text alone" }
                }
            }
            p { a href=(format!("/assignments/{}", picture.assignment_id)) { "Back to the assignment" } }
        },
    )
}

fn notice(text: Option<&str>) -> Markup {
    html! { @if let Some(text) = text { p.done role="status" { (text) } } }
}

fn styles(chosen: Style) -> Markup {
    html! {
        fieldset.styles {
            legend { "Style" }
            @for style in Style::ALL {
                label {
                    input type="radio" name="style" value=(style.as_str()) checked[style == chosen];
                    " " (style.label())
                }
            }
        }
    }
}

fn row(index: &str, ordinal: &str, prompt: &str, alt: &str, errors: &[(String, String)]) -> Markup {
    html! {
        fieldset.picture-row {
            legend { "Picture " (ordinal) }
            (fields(index, prompt, alt, errors, index == "0"))
        }
    }
}

fn fields(index: &str, prompt: &str, alt: &str, errors: &[(String, String)], required: bool) -> Markup {
    let [prompt_id, alt_id] = [format!("prompt-{index}"), format!("alt-{index}")];
    html! {
        label for=(prompt_id) { "Description for the picture" }
        textarea id=(prompt_id) name="prompt" rows="3" maxlength=(MAX_PROMPT_CHARS) required[required]
            data-prompt aria-invalid=[invalid(errors, &prompt_id)] { (prompt) }
        label for=(alt_id) { "Alternative text, for those who cannot see it" }
        input id=(alt_id) name="alt" maxlength=(MAX_ALT_CHARS) required[required] value=(alt)
            aria-invalid=[invalid(errors, &alt_id)];
    }
}
