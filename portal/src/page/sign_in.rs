//! The sign-in: teachers by address and password, students by class code, name and PIN.

use maud::{Markup, html};

use super::{View, csrf, page};

/// A form that was sent when the session had ended: it is carried through the sign-in, shown again, and never obeyed.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Where it was sent.
    pub path: String,
    /// Its fields, URL-encoded.
    pub body: String,
}

/// The state of the sign-in page.
#[derive(Debug, Clone, Default)]
pub struct SignIn {
    /// Where to go afterwards.
    pub next: String,
    pub resume: Option<Resume>,
    /// What went wrong at the last try.
    pub error: Option<String>,
    pub email: String,
    pub code: String,
    pub name: String,
}

/// The page.
pub fn sign_in(view: &View<'_>, state: &SignIn) -> Markup {
    let kept = html! {
        (csrf(view))
        input type="hidden" name="next" value=(state.next);
        @if let Some(resume) = &state.resume {
            input type="hidden" name="resume_path" value=(resume.path);
            input type="hidden" name="resume_body" value=(resume.body);
        }
    };
    page(
        view,
        "Sign in",
        &html! {
            h1 { "Sign in" }
            @if state.resume.is_some() {
                p.done role="status" {
                    "Your session has ended. Sign in again: what you wrote is kept and shown afterwards."
                }
            }
            @if let Some(error) = &state.error { p.errors role="alert" { (error) } }
            div.two {
                section aria-labelledby="student" {
                    h2 #student { "Students" }
                    form method="post" action="/sign-in/student" {
                        (kept)
                        label for="code" { "Class code" }
                        input #code name="code" required autocomplete="off" autocapitalize="characters"
                            spellcheck="false" maxlength="20" value=(state.code);
                        label for="name" { "Your name" }
                        input #name name="name" required autocomplete="name" maxlength="80" value=(state.name);
                        label for="pin" { "PIN" }
                        input #pin name="pin" type="password" required minlength="4" maxlength="64"
                            autocomplete="current-password" aria-describedby="pin-hint";
                        p.small #pin-hint {
                            "Four characters or more. The first time you choose it, then it is how you come back."
                        }
                        button type="submit" { "Join" }
                    }
                }
                section aria-labelledby="teacher" {
                    h2 #teacher { "Teachers" }
                    form method="post" action="/sign-in/teacher" {
                        (kept)
                        label for="email" { "E-mail address" }
                        input #email name="email" type="email" required autocomplete="username" maxlength="200"
                            value=(state.email);
                        label for="password" { "Password" }
                        input #password name="password" type="password" required autocomplete="current-password"
                            maxlength="200";
                        button type="submit" { "Sign in" }
                    }
                }
            }
        },
    )
}
