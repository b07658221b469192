//! A teacher's classes: their codes, who has joined, and a way back for who forgot a PIN.

use maud::{Markup, html};

use super::{View, csrf, page};
use crate::accounts::{Class, Student};

/// The page.
pub fn classes(view: &View<'_>, classes: &[Class], students: &[Student]) -> Markup {
    page(
        view,
        "Classes",
        &html! {
            h1 { "Classes" }
            p { "Students join with the class code of their class." }
            @for class in classes {
                section.class {
                    h2 { (class.name) }
                    p { "Class code " strong.code { (grouped(&class.code)) } }
                    ul.students {
                        @for student in students.iter().filter(|student| student.class_id == class.id) {
                            li {
                                span { (student.name) }
                                @if student.has_pin {
                                    form method="post" action=(format!("/students/{}/pin", student.id)) {
                                        (csrf(view))
                                        button.quiet type="submit" {
                                            "Reset PIN" span.hidden { " of " (student.name) }
                                        }
                                    }
                                } @else { span.small { "chooses a new PIN" } }
                            }
                        }
                    }
                }
            }
            h2 { "Another class" }
            form.wide method="post" action="/classes" {
                (csrf(view))
                label for="name" { "Name" }
                input #name name="name" required maxlength="80" autocomplete="off";
                button type="submit" { "Add" }
            }
        },
    )
}

/// Four characters at a time: easier to read from a blackboard.
fn grouped(code: &str) -> String {
    let chars: Vec<char> = code.chars().collect();
    chars.chunks(4).map(|four| four.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}
