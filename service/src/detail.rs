//! What an error may say in a log line: its causes one by one, bounded, never the raw answer it came with.

use std::error::Error;

/// Longest detail in characters: it goes into logs, records and `/ready`.
pub const MAX_DETAIL_CHARS: usize = 500;

/// Returns an error and what caused it in one line, cut to what a line may hold.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    bounded(all_causes(error))
}

/// As [`causes`], in full: for whoever has something to take out before it is cut.
///
/// Display only: the SDK's debug form, and its own `DisplayErrorContext`, carry headers and whole answers.
pub fn all_causes(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns what a service said of a call that failed: its code and message, or the causes when nothing answered.
pub fn answer(code: Option<&str>, message: Option<&str>, error: &(dyn Error + 'static)) -> String {
    match code {
        Some(code) => bounded(format!("{code}: {}", message.unwrap_or("no message"))),
        None => causes(error),
    }
}

/// Cuts a text that others wrote to what a line may hold.
pub fn bounded(mut detail: String) -> String {
    if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL_CHARS) {
        detail.truncate(end);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_in_order_and_a_code_wins() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(causes(&error), "outer: inner");
        assert_eq!(answer(None, Some("unused"), &error), "outer: inner");
        assert_eq!(answer(Some("SlowDown"), Some("later"), &error), "SlowDown: later");
        assert_eq!(answer(Some("SlowDown"), None, &error), "SlowDown: no message");
    }

    #[test]
    fn no_text_is_longer_than_the_bound() {
        let error = Outer(std::io::Error::other("狐".repeat(2 * MAX_DETAIL_CHARS)));
        for text in [causes(&error), answer(Some("X"), Some(&"y".repeat(9999)), &error)] {
            assert_eq!(text.chars().count(), MAX_DETAIL_CHARS);
        }
    }
}
