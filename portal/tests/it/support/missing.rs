//! Tests that need a program of the system: without it they say so, and fail where they must not be skipped.

/// Says that something was not tested. In hosted CI that is a failure.
pub fn missing(what: &str, how: &str) {
    eprintln!("\nSKIPPED: {what}. {how}. Hosted CI fails when this happens.\n");
    #[expect(clippy::disallowed_methods, reason = "a variable of the hosted CI, not a setting")]
    let hosted = std::env::var_os("GITHUB_ACTIONS").is_some();
    assert!(!hosted, "not everything was tested: {what}");
}
