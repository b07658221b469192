//! The same pictures behind an images endpoint as `OpenAI` has it: `POST /v1/images/generations`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};

use super::Shared;
use super::connection::Scissors;
use super::fault::{Directives, Fault};
use super::invoke::{Call, STALL, picture, read, total_bytes, with_length};
use super::request::{InvokeRequest, OutputFormat};

/// Fields that are known. Another one is refused, as `OpenAI` does it and many servers do not.
const FIELDS: [&str; 9] =
    ["model", "prompt", "n", "size", "response_format", "output_format", "quality", "negative_prompt", "seed"];

/// An error in the form of the endpoint.
struct Refusal {
    /// How the ledger calls it.
    kind: &'static str,
    status: u16,
    code: &'static str,
    param: Option<&'static str>,
    message: String,
    retry_after_ms: Option<u64>,
}

impl Refusal {
    fn new(kind: &'static str, status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, code, param: None, message: message.into(), retry_after_ms: None }
    }

    fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new("invalid", 400, "invalid_value", message) }
    }

    /// Returns what a fault looks like here, or `None` if it is one of the picture or the connection.
    fn of_fault(fault: Fault) -> Option<Self> {
        let (status, code, message) = match fault {
            Fault::Throttle | Fault::NotReady => (429, "rate_limit_exceeded", "Rate limit reached for images"),
            Fault::Quota => (429, "insufficient_quota", "You exceeded your current quota"),
            Fault::AccessDenied => (403, "access_denied", "Your project may not use this model"),
            Fault::ExpiredCredentials => (401, "invalid_api_key", "Incorrect API key provided"),
            Fault::Retired | Fault::Legacy => (404, "model_not_found", "The model does not exist"),
            Fault::Internal | Fault::ModelError | Fault::InferenceError => {
                (500, "server_error", "The server had an error")
            }
            Fault::Unavailable => (503, "server_error", "The engine is overloaded"),
            Fault::ModelTimeout => (504, "timeout", "Upstream timed out"),
            Fault::Validation => (400, "invalid_value", "Invalid prompt"),
            Fault::RefusePrompt | Fault::RefuseOutput | Fault::ContentFilteredValidation => {
                (400, "moderation_blocked", "Your request was rejected by the safety system")
            }
            _ => return None,
        };
        Some(Self::new(fault.as_str(), status, code, message))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": {
            "message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code,
        } });
        let status = StatusCode::from_u16(self.status).expect("the table holds three-digit codes");
        let mut response = (status, Json(body)).into_response();
        if let Some(ms) = self.retry_after_ms {
            response.headers_mut().insert("retry-after-ms", HeaderValue::from(ms));
        }
        response
    }
}

/// `POST /v1/images/generations`.
pub(super) async fn images_generations(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
) -> Response {
    let _in_flight = shared.ledger.call();
    let answer = async {
        match admit(&shared, request).await {
            Ok(call) => perform(&shared, &scissors, call).await,
            Err(refusal) => {
                shared.ledger.error(refusal.kind);
                refusal.into_response()
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.stopping.cancelled() => {
            scissors.cut();
            Response::default()
        }
        response = answer => response,
    }
}

async fn admit(shared: &Shared, request: Request) -> Result<Call, Refusal> {
    let (head, body) = request.into_parts();
    let body = read(body).await.map_err(|_| Refusal::new("too_large", 413, "too_large", "body cannot be read"))?;
    if !has_key(&head.headers) {
        return Err(Refusal::new("unauthenticated", 401, "invalid_api_key", "You didn't provide an API key"));
    }
    let body: Value = serde_json::from_slice(&body).map_err(|error| Refusal::invalid("body", error.to_string()))?;
    let fields = body.as_object().ok_or_else(|| Refusal::invalid("body", "expected an object"))?;
    if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(Refusal::invalid("unknown", format!("Unknown parameter: '{unknown}'")));
    }
    let prompt = body["prompt"].as_str().filter(|prompt| !prompt.is_empty());
    let prompt = prompt.ok_or_else(|| Refusal::invalid("prompt", "prompt is required"))?;
    let model = body["model"].as_str().ok_or_else(|| Refusal::invalid("model", "model is required"))?;
    let number = shared.ledger.call_for(prompt);
    let side = match body["size"].as_str() {
        Some("1024x1024") | None => 1024,
        Some("512x512") => 512,
        Some(_) => return Err(Refusal::invalid("size", "size is not one of 512x512, 1024x1024")),
    };
    let plan = shared.plan();
    if shared.quota.as_ref().is_some_and(|quota| !quota.take(Instant::now())) {
        return Err(Refusal { kind: "over_quota", ..Refusal::of_fault(Fault::Throttle).expect("it is an error") });
    }
    let directives = Directives::parse(prompt).map_err(|error| Refusal::invalid("prompt", error.to_string()))?;
    let fault = plan.outage.map(|fault| (fault, None)).or_else(|| directives.fault_of_call(number));
    let fault = fault.or_else(|| plan.fault_by_rate(rand::random()).map(|fault| (fault, None)));
    let latency = match directives.latency_ms {
        Some(ms) => Duration::from_millis(ms),
        None => plan.latency.unwrap_or(shared.latency).sample(),
    };
    let request = InvokeRequest {
        prompt: prompt.to_owned(),
        negative_prompt: body["negative_prompt"].as_str().unwrap_or_default().to_owned(),
        width: side,
        height: side,
        output_format: OutputFormat::Png,
        seed: body["seed"].as_u64().and_then(|seed| u32::try_from(seed).ok()).unwrap_or_default(),
    };
    Ok(Call { model_id: model.to_owned(), request: request.with_seed_drawn(), fault, latency })
}

/// Only the form is checked: a stand-in has no secrets to check a key with.
fn has_key(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.len() > "Bearer ".len() && value.starts_with("Bearer "))
}

async fn perform(shared: &Shared, scissors: &Scissors, call: Call) -> Response {
    let fault = call.fault.map(|(fault, _)| fault);
    if let Some((fault, retry_after_ms)) = call.fault {
        if let Some(refusal) = Refusal::of_fault(fault) {
            if refusal.code == "moderation_blocked" {
                shared.ledger.refused();
            } else {
                shared.ledger.error(refusal.kind);
            }
            return Refusal { retry_after_ms, ..refusal }.into_response();
        }
        shared.ledger.error(fault.as_str());
        if fault == Fault::Close {
            scissors.cut();
            return Response::default();
        }
    }
    let bill = shared.ledger.bill(&call.request.prompt);
    let ([head, rest], ()) = tokio::join!(picture(shared, &call, fault), tokio::time::sleep(call.latency));
    if matches!(fault, Some(Fault::Stall | Fault::HalfAnswer)) {
        tokio::time::sleep(STALL).await;
        scissors.cut();
        return Response::default();
    }
    bill.answered();
    let start = Bytes::from_static(br#"{"created":1764150000,"data":[{"b64_json":""#);
    let body = [start, head, rest, Bytes::from_static(br#""}]}"#)];
    let length = total_bytes(&body);
    with_length(Body::from_stream(stream::iter(body.map(Ok::<_, io::Error>))), length)
}
