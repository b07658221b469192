//! The pages as HTML. Everything that varies is escaped by the templates; nothing here waits or reads a database.

mod picture;
mod gallery;
mod assignment;
mod draft;
mod sign_in;
mod classes;

use maud::{DOCTYPE, Markup, html};

use crate::sessions::Who;
use crate::web::assets;

pub use assignment::{StudentView, TeacherView, for_student, for_teacher};
pub use classes::classes;
pub use draft::{Draft, EditDraft, edit, new};
pub use gallery::{Gallery, gallery};
pub use picture::{controls, figure, summary};
pub use sign_in::{Resume, SignIn, sign_in};

/// What every page needs to know.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub who: Option<&'a Who>,
    /// Goes into every form.
    pub csrf: String,
    /// What keeps pictures from being made at the moment.
    pub trouble: Option<String>,
}

/// Field of every form: see [`crate::secret::csrf_token`].
pub const CSRF: &str = "csrf";
/// Field of the forms that must not be obeyed twice.
pub const FORM_KEY: &str = "form_key";

/// A whole page.
pub fn page(view: &View<'_>, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Assignments" }
                link rel="stylesheet" href=(assets::css());
                link rel="icon" href=(assets::icon()) type="image/svg+xml";
                script src=(assets::script()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.inner {
                        a.brand href="/" { "Assignments" }
                        @if let Some(who) = view.who {
                            nav aria-label="Main" {
                                a href="/assignments" { "All" }
                                @if matches!(who, Who::Teacher(_)) {
                                    a href="/assignments/new" { "New" }
                                    a href="/classes" { "Classes" }
                                }
                            }
                            form.sign-out method="post" action="/sign-out" {
                                (csrf(view))
                                span.who { (who.name()) }
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                }
                main #main tabindex="-1" {
                    p.trouble #trouble role="status" { @if let Some(words) = &view.trouble { span { (words) } } }
                    (body)
                }
            }
        }
    }
}

/// A page with a heading and a sentence: what went wrong and what to do.
pub fn message(view: &View<'_>, title: &str, text: &str) -> Markup {
    page(view, title, &html! { h1 { (title) } p { (text) } p { a href="/" { "To the assignments" } } })
}

/// The hidden field that proves where a form comes from.
fn csrf(view: &View<'_>) -> Markup {
    html! { input type="hidden" name=(CSRF) value=(view.csrf); }
}

/// A list of what has to be mended, with links to the fields.
fn errors(list: &[(String, String)]) -> Markup {
    html! {
        @if !list.is_empty() {
            div.errors #errors role="alert" tabindex="-1" {
                h2 { "Please look at this again" }
                ul { @for (field, text) in list { li { a href=(format!("#{field}")) { (text) } } } }
            }
        }
    }
}

/// Whether a field is among what has to be mended.
fn invalid(list: &[(String, String)], field: &str) -> Option<&'static str> {
    list.iter().any(|(named, _)| named == field).then_some("true")
}
