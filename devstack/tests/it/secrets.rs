//! What no process may log, at any level that a stack runs at: keys, secrets and prompts.

use std::fs;
use std::path::Path;

use devstack::embedded::SECRET_ACCESS_KEY;
use devstack::stack::read_secrets;

/// Shorter prompts are words that a log may well have.
const MIN_PROMPT_CHARS: usize = 12;

/// Returns the secrets of a stack, each with what it is.
pub fn of(dir: &Path, prompts: &[String]) -> Vec<(String, String)> {
    let secrets = read_secrets(dir).unwrap().expect("a stack that has run has secrets");
    let keys = [
        ("the API key", secrets.api_key),
        ("the secret of job ids", secrets.job_id_key),
        ("the secret access key", SECRET_ACCESS_KEY.to_owned()),
    ];
    let long = prompts.iter().filter(|prompt| prompt.chars().count() >= MIN_PROMPT_CHARS);
    let prompts = long.map(|prompt| ("a prompt".to_owned(), prompt.clone()));
    keys.into_iter().map(|(what, secret)| (what.to_owned(), secret)).chain(prompts).collect()
}

/// Looks for them in every log.
///
/// # Panics
/// When there is one, or no log at all.
pub fn assert_not_told(logs: &Path, secrets: &[(String, String)]) {
    let mut lines = 0;
    for entry in fs::read_dir(logs).unwrap() {
        let path = entry.unwrap().path();
        // What a tool of a test keeps for itself.
        if path.is_dir() {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        lines += text.lines().count();
        let told = told_in(&text, secrets);
        assert!(told.is_empty(), "{} tells:\n{}", path.display(), told.join("\n"));
    }
    assert!(lines > 0, "no line in {}: nothing was looked at", logs.display());
}

/// Returns what a log tells, with the line. A prompt is looked for as it is and as JSON escapes it.
fn told_in(text: &str, secrets: &[(String, String)]) -> Vec<String> {
    let escaped = |secret: &str| serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
    let forms: Vec<_> = secrets.iter().map(|(what, secret)| (what, secret, escaped(secret))).collect();
    let is_told = |line: &str, secret: &str, escaped: &str| line.contains(secret) || line.contains(escaped);
    let told = |line: &str| {
        let found = forms.iter().find(|(_, secret, escaped)| is_told(line, secret, escaped));
        found.map(|(what, ..)| format!("{what}: {line}"))
    };
    text.lines().filter_map(told).collect()
}

#[test]
fn a_log_that_tells_is_found_out() {
    let secrets = [("a key", "s3cret-s3cret-s3cret"), ("a prompt", "a \"red\" fox in the snow")]
        .map(|(what, secret)| (what.to_owned(), secret.to_owned()));
    assert_eq!(told_in("{\"message\":\"job handled\"}\nready\n", &secrets), [""; 0]);
    assert_eq!(told_in("ready\nkey s3cret-s3cret-s3cret is odd", &secrets), ["a key: key s3cret-s3cret-s3cret is odd"]);
    for line in [r#"painting a "red" fox in the snow"#, r#"{"prompt":"a \"red\" fox in the snow"}"#] {
        assert_eq!(told_in(line, &secrets), [format!("a prompt: {line}")]);
    }
}
