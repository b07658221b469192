//! What the real SDK client makes of answers given by a server on the loopback interface.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_bedrockruntime::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::generate::{BedrockGenerator, Generator, OutputFormat, SourceImage, client};

const MODEL: &str = "stability.stable-image-core-v1:1";
const PROMPT: &str = "a secret garden";

/// Long enough for a loopback call on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

fn request() -> GenerateRequest {
    GenerateRequest { prompt: PROMPT.to_owned(), negative_prompt: None, seed: 7 }
}

fn config(address: SocketAddr, credentials: Option<SharedCredentialsProvider>) -> SdkConfig {
    let mut builder =
        SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12()).endpoint_url(format!("http://{address}"));
    builder.set_credentials_provider(credentials);
    builder.build()
}

fn generator_at(address: SocketAddr, attempt_timeout: Duration) -> BedrockGenerator {
    let credentials = SharedCredentialsProvider::new(Credentials::new("id", "key", None, None, "test"));
    let client = client(&config(address, Some(credentials)), "us-west-2", attempt_timeout);
    BedrockGenerator::new(client, MODEL.to_owned(), OutputFormat::default()).unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn ask(generator: &BedrockGenerator) -> Result<SourceImage, JobError> {
    generator.generate(&request()).await
}

/// Answers every request with the same thing and returns what the generator makes of it and how often it asked.
async fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> (Result<SourceImage, JobError>, usize) {
    let (listener, address) = listener().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let (status, body) = (StatusCode::from_u16(status).unwrap(), body.to_owned());
    let app = Router::new().fallback({
        let asked = Arc::clone(&asked);
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            std::future::ready((status, headers, body).into_response())
        }
    });
    let generator = generator_at(address, PATIENT);
    let result = tokio::select! {
        result = ask(&generator) => result,
        ended = axum::serve(listener, app).into_future() => panic!("server ended: {ended:?}"),
    };
    (result, asked.load(Ordering::SeqCst))
}

async fn refused(status: u16, code: &str, message: &str) -> JobError {
    let headers: &[_] = if code.is_empty() { &[] } else { &[("x-amzn-errortype", code)] };
    let (result, asked) = answered(status, headers, &json!({"message": message}).to_string()).await;
    assert_eq!(asked, 1, "{status} {code}: a call that may have been charged is never repeated");
    result.unwrap_err()
}

#[tokio::test]
async fn every_code_of_the_service_has_its_kind() {
    let eol = "This model version has reached the end of its life. Please refer to the AWS documentation.";
    let legacy = "Access denied. This Model is marked by provider as Legacy and you have not been actively using the \
                  model in the last 30 days.";
    let filtered = "This request has been Blocked by our Content Filters. AUP or AWS Responsible AI Policy";
    for (status, code, message, kind) in [
        (429, "ThrottlingException", "Too many requests", Kind::ModelThrottled),
        (500, "InternalServerException", "oops", Kind::ModelUnavailable),
        (503, "ServiceUnavailableException", "busy", Kind::ModelUnavailable),
        (429, "ModelNotReadyException", "warming up", Kind::ModelUnavailable),
        (408, "ModelTimeoutException", "too slow", Kind::ModelTimedOut),
        (424, "ModelErrorException", "model failed", Kind::ModelFailed),
        (400, "ServiceQuotaExceededException", "quota", Kind::ModelQuotaExceeded),
        (400, "ValidationException", "Malformed input request", Kind::RequestRejected),
        (400, "ValidationException", filtered, Kind::ContentFiltered),
        (400, "ValidationException", legacy, Kind::ModelRetired),
        (400, "ValidationException", "The provided model identifier is invalid.", Kind::ModelNotFound),
        (
            400,
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn\u{2019}t supported.",
            Kind::ModelNotFound,
        ),
        (400, "ValidationException", "Operation not allowed", Kind::AccessDenied),
        (403, "AccessDeniedException", "You don't have access to the model", Kind::AccessDenied),
        (403, "AccessDeniedException", legacy, Kind::ModelRetired),
        (404, "ResourceNotFoundException", "Could not resolve the foundation model", Kind::ModelNotFound),
        (404, "ResourceNotFoundException", eol, Kind::ModelRetired),
        (404, "ResourceNotFoundException", legacy, Kind::ModelRetired),
        (403, "ExpiredTokenException", "token expired", Kind::CredentialsUnavailable),
        (403, "UnrecognizedClientException", "token invalid", Kind::CredentialsUnavailable),
        (403, "InvalidSignatureException", "signature", Kind::CredentialsUnavailable),
        (403, "MissingAuthenticationTokenException", "no token", Kind::CredentialsUnavailable),
        // Codes nobody has told us about: by status.
        (400, "OddException", "odd", Kind::RequestRejected),
        (403, "OddException", "odd", Kind::AccessDenied),
        (404, "OddException", "odd", Kind::ModelUnavailable),
        (413, "OddException", "odd", Kind::ModelUnavailable),
        (424, "OddException", "odd", Kind::ModelFailed),
        (429, "OddException", "odd", Kind::ModelThrottled),
        (500, "OddException", "odd", Kind::ModelUnavailable),
        (599, "OddException", "odd", Kind::ModelUnavailable),
        // A proxy's answers.
        (400, "", "odd", Kind::RequestRejected),
        (401, "", "odd", Kind::AccessDenied),
        (403, "", "odd", Kind::AccessDenied),
        (408, "", "odd", Kind::ModelTimedOut),
        (429, "", "odd", Kind::ModelThrottled),
        (502, "", "odd", Kind::ModelUnavailable),
    ] {
        let error = refused(status, code, message).await;
        assert_eq!(error.kind, kind, "{status} {code} {message}: {error}");
        assert!(error.detail.contains(message) && error.detail.contains(code), "{error}");
        assert_eq!(error.retry_after, None);
    }
}

#[tokio::test]
async fn a_code_in_the_body_counts_like_one_in_the_header() {
    let body = json!({"__type": "com.amazon.coral.service#ThrottlingException", "message": "slow"}).to_string();
    let (result, _) = answered(400, &[], &body).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.detail.as_str()), (Kind::ModelThrottled, "ThrottlingException (status 400): slow"));
}

#[tokio::test]
async fn errors_that_are_not_json_go_by_their_status() {
    for (status, kind) in [
        (502, Kind::ModelUnavailable),
        (403, Kind::AccessDenied),
        (404, Kind::ModelUnavailable),
        (429, Kind::ModelThrottled),
    ] {
        for body in ["<html>Bad Gateway</html>", ""] {
            let (result, asked) = answered(status, &[], body).await;
            assert_eq!((result.unwrap_err().kind, asked), (kind, 1), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn the_servers_hint_is_in_milliseconds() {
    for (value, expected) in [
        ("1500", Some(Duration::from_millis(1500))),
        ("0", Some(Duration::ZERO)),
        ("99999999999", Some(MAX_RETRY_AFTER)),
        ("soon", None),
        ("-1", None),
    ] {
        let headers = [("x-amz-retry-after", value), ("x-amzn-errortype", "ThrottlingException"), ("retry-after", "7")];
        let (result, _) = answered(429, &headers, "{}").await;
        assert_eq!(result.unwrap_err().retry_after, expected, "{value}");
    }
}

#[tokio::test]
async fn a_detail_is_bounded_and_never_quotes_the_prompt() {
    let error = refused(400, "ValidationException", &format!("{}{PROMPT}{}", "ä".repeat(10), "x".repeat(9000))).await;
    assert!(error.detail.contains("ää[prompt]xx"), "{error}");
    assert_eq!(error.detail.chars().count(), service::detail::MAX_DETAIL_CHARS);
}

#[tokio::test]
async fn a_picture_arrives_and_the_request_is_as_documented() {
    let (listener, address) = listener().await;
    let app = Router::new().fallback(|uri: Uri, headers: HeaderMap, body: Bytes| async move {
        assert_eq!(uri.path(), "/model/stability.stable-image-core-v1%3A1/invoke");
        assert_eq!(
            (&headers["content-type"], &headers["accept"]),
            (&"application/json".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(headers["authorization"].to_str().unwrap().contains("/us-west-2/bedrock/aws4_request"));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["prompt"], &body["seed"]), (&json!(PROMPT), &json!(7)));
        json!({"seeds": [9], "finish_reasons": [null], "images": ["AAEC"]}).to_string()
    });
    let generator = generator_at(address, PATIENT);
    let image = tokio::select! {
        result = ask(&generator) => result.unwrap(),
        ended = axum::serve(listener, app).into_future() => panic!("server ended: {ended:?}"),
    };
    assert_eq!(image, SourceImage { bytes: vec![0, 1, 2].into(), seed: 9 });
    assert_eq!((generator.model_id(), generator.max_seed()), (MODEL, u32::MAX));
}

#[tokio::test]
async fn a_refusal_by_answer_is_not_an_error_of_the_call() {
    let (result, asked) = answered(200, &[], r#"{"finish_reasons":["Filter reason: prompt"]}"#).await;
    assert_eq!(result, Err(JobError::new(Kind::ContentFiltered, "Filter reason: prompt")));
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_and_a_closed_port_is_not_reached() {
    // The kernel accepts for the listener; nobody ever reads or answers.
    let (silent, address) = listener().await;
    let error = ask(&generator_at(address, Duration::from_millis(200))).await.unwrap_err();
    assert_eq!(error.kind, Kind::ModelTimedOut, "{error}");

    drop(silent);
    let error = ask(&generator_at(address, PATIENT)).await.unwrap_err();
    assert_eq!(error.kind, Kind::ModelUnreachable, "{error}");
}

/// Sends `bytes` as soon as a client connects, then closes or, if `stalls`, keeps the connection open.
async fn raw(bytes: &str, stalls: bool, attempt_timeout: Duration) -> JobError {
    let (listener, address) = listener().await;
    let generator = generator_at(address, attempt_timeout);
    let server = async {
        let mut kept = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            // The whole request, whose body ends the JSON: an answer that comes earlier is an error of its own.
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") {
                assert_ne!(connection.read_buf(&mut asked).await.unwrap(), 0);
            }
            connection.write_all(bytes.as_bytes()).await.unwrap();
            if stalls {
                kept.push(connection);
            }
        }
    };
    tokio::select! {
        result = ask(&generator) => result.unwrap_err(),
        () = server => unreachable!("the loop has no end"),
    }
}

#[tokio::test]
async fn connections_that_break_are_transient() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"images\":[\"AAEC";
    for (bytes, stalls, timeout, kinds) in [
        (head, true, Duration::from_millis(200), [Kind::ModelTimedOut, Kind::ModelTimedOut]),
        // Whether the reset or the end of the body is seen first is the kernel's choice.
        (head, false, PATIENT, [Kind::ModelAnswerMalformed, Kind::ModelUnreachable]),
        ("", false, PATIENT, [Kind::ModelUnreachable, Kind::ModelUnreachable]),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", false, PATIENT, [Kind::ModelUnreachable, Kind::ModelUnreachable]),
    ] {
        let error = raw(bytes, stalls, timeout).await;
        assert!(kinds.contains(&error.kind), "{bytes}: {error}");
        assert_eq!(error.class(), crate::error::Class::Transient);
    }
}

#[derive(Debug)]
struct Failing;

impl ProvideCredentials for Failing {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::ready(Err(CredentialsError::not_loaded("no role")))
    }
}

#[tokio::test]
async fn missing_credentials_are_nobodys_fault_but_ours() {
    let (_listener, address) = listener().await;
    for provider in [None, Some(SharedCredentialsProvider::new(Failing))] {
        let client = client(&config(address, provider), "us-west-2", PATIENT);
        let error =
            ask(&BedrockGenerator::new(client, MODEL.to_owned(), OutputFormat::default()).unwrap()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CredentialsUnavailable, "{error}");
    }
}
