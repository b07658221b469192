//! What the real client makes of answers given by a server on the loopback interface.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::settings::OpenAiSettings;
use super::*;

/// Long enough for a loopback call on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);
const PROMPT: &str = "a secret garden";

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: OpenAiSettings,
}

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    headers: HeaderMap,
    body: Value,
}

fn request() -> GenerateRequest {
    GenerateRequest { prompt: PROMPT.into(), negative_prompt: Some("crows in the sky".into()), seed: u32::MAX }
}

fn generator(url: &str, more: &[&str], timeout: Duration) -> OpenAiGenerator {
    let args = [&["test", "--openai-base-url", url, "--openai-model", "flux-2"], more].concat();
    OpenAiGenerator::new(Command::parse_from(args).settings.source("MODEL_SOURCE").unwrap(), timeout)
}

/// Answers every request with the same thing; returns what the generator makes of it and what it asked.
async fn answered(
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
    more: &[&str],
) -> (Result<SourceImage, JobError>, Vec<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let (status, body) = (StatusCode::from_u16(status).unwrap(), body.to_owned());
    let app = Router::new().fallback({
        let asked = Arc::clone(&asked);
        async move |uri: Uri, sent: HeaderMap, bytes: Bytes| {
            let body_sent = serde_json::from_slice(&bytes).unwrap();
            asked.lock().unwrap().push(Asked { path: uri.path().to_owned(), headers: sent, body: body_sent });
            (status, headers.clone(), body.clone()).into_response()
        }
    });
    let (generator, request) = (generator(&format!("http://{address}/v1"), more, PATIENT), request());
    let answer = tokio::select! {
        served = axum::serve(listener, app).into_future() => panic!("the server has ended: {served:?}"),
        answer = generator.generate(&request) => answer,
    };
    let asked = asked.lock().unwrap().clone();
    (answer, asked)
}

#[tokio::test]
async fn a_picture_is_asked_for_once_and_taken() {
    let body = json!({ "created": 1, "data": [{ "b64_json": "AAEC", "revised_prompt": "x" }, {}] }).to_string();
    let (image, asked) = answered(200, &[], &body, &["--openai-api-key", "sk-secret"]).await;
    assert_eq!(image, Ok(SourceImage { bytes: vec![0, 1, 2].into(), seed: 2_147_483_647 }));
    let [asked] = &asked[..] else { panic!("asked {} times", asked.len()) };
    assert_eq!(asked.path, "/v1/images/generations");
    assert_eq!(asked.headers["authorization"], "Bearer sk-secret");
    let expected = json!({
        "model": "flux-2", "prompt": PROMPT, "n": 1, "size": "1024x1024", "response_format": "b64_json",
        "negative_prompt": "crows in the sky", "seed": 2_147_483_647,
    });
    assert_eq!(asked.body, expected);
}

#[tokio::test]
async fn the_gpt_image_models_are_told_nothing_that_they_refuse() {
    let body = json!({ "data": [{ "b64_json": "AAEC" }] }).to_string();
    let (image, asked) = answered(200, &[], &body, &["--openai-dialect", "gpt-image"]).await;
    assert_eq!(image.unwrap().seed, NO_SEED);
    assert!(!asked[0].headers.contains_key("authorization"));
    let expected = json!({
        "model": "flux-2", "prompt": format!("{PROMPT}\n\nNot in the picture: crows in the sky"), "n": 1,
        "size": "1024x1024", "output_format": "png",
    });
    assert_eq!(asked[0].body, expected);
}

#[tokio::test]
async fn every_error_has_its_kind_and_is_asked_for_once() {
    let error =
        |code: &str, param: &str| json!({ "error": { "message": "no", "code": code, "param": param } }).to_string();
    let detail = |place: &str| json!({ "detail": [{ "loc": ["body", place], "msg": "odd" }] }).to_string();
    for (status, body, kind) in [
        (400, error("content_policy_violation", "prompt"), Kind::ContentFiltered),
        (400, error("moderation_blocked", ""), Kind::ContentFiltered),
        (400, error("billing_hard_limit_reached", ""), Kind::ModelQuotaExceeded),
        (400, error("invalid_value", "prompt"), Kind::RequestRejected),
        (400, error("unknown_parameter", "response_format"), Kind::ModelSettingsRefused),
        (400, error("invalid_value", "model"), Kind::ModelNotFound),
        (400, "nonsense".to_owned(), Kind::ModelSettingsRefused),
        (400, error("invalid_prompt", ""), Kind::RequestRejected),
        (400, error("context_length_exceeded", ""), Kind::RequestRejected),
        (401, error("invalid_api_key", ""), Kind::CredentialsUnavailable),
        (402, String::new(), Kind::ModelQuotaExceeded),
        (403, error("unsupported_country", ""), Kind::AccessDenied),
        (404, error("model_not_found", "model"), Kind::ModelNotFound),
        (404, json!({ "detail": "Not Found" }).to_string(), Kind::ModelNotFound),
        (302, String::new(), Kind::ModelNotFound),
        (408, String::new(), Kind::ModelTimedOut),
        (410, error("model_deprecated", ""), Kind::ModelRetired),
        (413, String::new(), Kind::RequestRejected),
        (422, detail("prompt"), Kind::RequestRejected),
        (422, detail("size"), Kind::ModelSettingsRefused),
        (424, String::new(), Kind::ModelFailed),
        (429, error("rate_limit_exceeded", ""), Kind::ModelThrottled),
        (429, error("insufficient_quota", ""), Kind::ModelQuotaExceeded),
        (500, json!({ "error": "out of memory" }).to_string(), Kind::ModelUnavailable),
        (503, "<html>busy</html>".to_owned(), Kind::ModelUnavailable),
        (504, String::new(), Kind::ModelTimedOut),
        (200, json!({ "data": [] }).to_string(), Kind::ModelAnswerMalformed),
        (200, json!({ "data": [{ "url": "http://elsewhere/x.png" }] }).to_string(), Kind::ModelAnswerMalformed),
        (200, json!({ "data": [{ "b64_json": "AA=C" }] }).to_string(), Kind::ModelAnswerMalformed),
        (200, json!({ "data": [{ "b64_json": "" }] }).to_string(), Kind::ModelAnswerMalformed),
        (200, r#"{"data":[{"b64_json":"AAEC"#.to_owned(), Kind::ModelAnswerMalformed),
    ] {
        let (answer, asked) = answered(status, &[("location", "http://127.0.0.1:1/")], &body, &[]).await;
        let error = answer.unwrap_err();
        assert_eq!((error.kind, asked.len()), (kind, 1), "{status} {body}: {error}");
        assert!(error.detail.chars().count() <= 300, "{error}");
    }
}

/// Taken for the job's fault, a setting of ours that is refused would fail the whole backlog for good.
#[tokio::test]
async fn what_does_not_speak_of_the_prompt_is_no_fault_of_the_job() {
    let vllm = |message: &str| {
        json!({ "error": { "message": message, "type": "BadRequestError", "param": null, "code": 400 } }).to_string()
    };
    let top = json!({ "object": "error", "message": "prompt is too long", "type": "BadRequestError", "code": 400 });
    let echo = format!("cannot read {{'model': 'flux-2', 'prompt': '{PROMPT}', 'size': '1024x1024'}}");
    let string = |detail: &str| json!({ "detail": detail }).to_string();
    let (ours, jobs) = (Kind::ModelSettingsRefused, Kind::RequestRejected);
    for (status, body, kind) in [
        (400, vllm("size 1024x1024 is not supported by this model"), ours),
        (400, vllm("no such adapter"), ours),
        (400, vllm(&format!("unexpected: {PROMPT}")), ours),
        (400, vllm(&echo), ours),
        (422, string("response_format must be url"), ours),
        (422, String::new(), ours),
        (400, json!({ "error": "unknown field" }).to_string(), ours),
        (400, vllm("The prompt is too long: 900 of at most 512 tokens"), jobs),
        (400, vllm("Rejected by the safety system"), jobs),
        (400, vllm("This model's maximum context length is 512"), jobs),
        (422, string("NSFW content detected"), jobs),
        (400, json!({ "error": "prompt must not be empty" }).to_string(), jobs),
        (400, top.to_string(), jobs),
    ] {
        let error = answered(status, &[], &body, &[]).await.0.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {body}: {error}");
    }
}

#[tokio::test]
async fn what_fastapi_refuses_is_told_without_the_request_that_it_quotes() {
    let detail =
        json!([{ "loc": ["body", "size"], "msg": "not one of ours", "input": { "prompt": PROMPT, "size": 1 } }]);
    let error = answered(422, &[], &json!({ "detail": detail }).to_string(), &[]).await.0.unwrap_err();
    assert!(error.detail.contains(r#"["body","size"] not one of ours"#), "{error}");
    assert!(!error.detail.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_hint_of_when_to_come_back_is_kept() {
    for (headers, expected) in [
        (&[("retry-after", "7")][..], Some(Duration::from_secs(7))),
        (&[("retry-after", "20"), ("retry-after-ms", "1500")], Some(Duration::from_millis(1500))),
        (&[("retry-after", "86400")], Some(Duration::from_secs(900))),
        (&[("retry-after", "Thu, 26 Nov 2026 10:00:00 GMT")], None),
        (&[("retry-after", "-1")], None),
        (&[], None),
    ] {
        let error = answered(429, headers, "{}", &[]).await.0.unwrap_err();
        assert_eq!((error.kind, error.retry_after), (Kind::ModelThrottled, expected), "{headers:?}");
    }
}

#[tokio::test]
async fn the_prompt_is_not_in_what_is_said_of_an_error() {
    let filler = "x".repeat(280);
    for words in [format!("not {PROMPT}"), format!("no crows in the sky, {PROMPT}"), format!("{filler} {PROMPT}")] {
        let body = json!({ "error": { "message": words, "code": "invalid_value", "param": "prompt" } }).to_string();
        let error = answered(400, &[], &body, &[]).await.0.unwrap_err();
        assert!(!error.detail.contains("secret") && !error.detail.contains("crows"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_and_one_that_is_silent_are_told_apart() {
    let closed = generator("http://127.0.0.1:1", &[], PATIENT).generate(&request()).await.unwrap_err();
    assert_eq!(closed.kind, Kind::ModelUnreachable, "{closed}");
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = generator(&url, &[], Duration::from_millis(50)).generate(&request()).await.unwrap_err();
    assert_eq!(silent.kind, Kind::ModelTimedOut, "{silent}");
}
