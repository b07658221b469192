//! The gallery: every assignment with its first picture, searched and paged.

use maud::{Markup, html};

use super::picture::card;
use super::{View, page};
use crate::assignments::{GalleryPage, PAGE_LEN};
use crate::sessions::Who;

/// One page of the gallery.
#[derive(Debug, Clone)]
pub struct Gallery<'a> {
    pub found: &'a GalleryPage,
    /// What was searched for.
    pub search: &'a str,
    /// From 0.
    pub page: i64,
}

/// The page.
pub fn gallery(view: &View<'_>, gallery: &Gallery<'_>) -> Markup {
    let Gallery { found, search, page: number } = gallery;
    let pages = (found.total + PAGE_LEN - 1) / PAGE_LEN;
    let address = |number: i64| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", search)
            .append_pair("page", &(number + 1).to_string())
            .finish();
        format!("/assignments?{query}")
    };
    let is_teacher = matches!(view.who, Some(Who::Teacher(_)));
    page(
        view,
        "All assignments",
        &html! {
            div.head {
                h1 { "Assignments" }
                @if is_teacher { a.button href="/assignments/new" { "New assignment" } }
            }
            form.search role="search" method="get" action="/assignments" {
                label for="q" { "Search" }
                input #q name="q" type="search" value=(search) autocomplete="off";
                button type="submit" { "Search" }
            }
            @if found.items.is_empty() {
                p {
                    @if !search.is_empty() { "Nothing has all of these words." }
                    @else if is_teacher { "There are no assignments yet. Create the first one." }
                    @else { "There are no assignments yet." }
                }
            }
            ul.gallery {
                @for (assignment, picture, pictures) in &found.items {
                    li.tile {
                        (card(view, picture, false))
                        h2 { a href=(format!("/assignments/{}", assignment.id)) { (assignment.title) } }
                        p.small {
                            @if is_teacher { (assignment.class_name) " · " }
                            @if *pictures == 1 { "1 picture" } @else { (pictures) " pictures" }
                        }
                    }
                }
            }
            @if pages > 1 {
                nav.pages aria-label="Pages" {
                    @if *number > 0 { a rel="prev" href=(address(number - 1)) { "Newer" } }
                    span { "Page " (number + 1) " of " (pages) }
                    @if number + 1 < pages { a rel="next" href=(address(number + 1)) { "Older" } }
                }
            }
            (without_script())
        },
    )
}

/// What a page says to a browser that runs no script.
pub(super) fn without_script() -> Markup {
    html! { noscript { p.small { "Without JavaScript this page shows pictures that are still being made after a reload." } } }
}
