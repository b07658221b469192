//! One `InvokeModel` call, from the request to the answer, the refusal or the fault.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Shared;
use super::connection::Scissors;
use super::exception::Exception;
use super::fault::{Directives, Fault};
use super::ledger::Bill;
use super::picture::{Form, PictureKey};
use super::request::{InvokeRequest, Model, OutputFormat};

/// Largest body `InvokeModel` takes (Bedrock's service model).
const MAX_BODY_BYTES: usize = 25_000_000;
/// How long a stalled call holds its connection.
pub(super) const STALL: Duration = Duration::from_secs(600);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const INVOCATION_LATENCY: HeaderName = HeaderName::from_static("x-amzn-bedrock-invocation-latency");

/// A call that passed validation: what to make, and what is to go wrong.
pub(super) struct Call {
    pub(super) model_id: String,
    pub(super) request: InvokeRequest,
    pub(super) fault: Option<(Fault, Option<u64>)>,
    pub(super) latency: Duration,
}

/// `POST /model/{modelId}/invoke`.
pub(super) async fn invoke(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path(model_id): Path<String>,
    request: Request,
) -> Response {
    let _in_flight = shared.ledger.call();
    let answer = async {
        let call = match admit(&shared, model_id, request).await {
            Ok(call) => call,
            Err(exception) => {
                shared.ledger.error(exception.kind);
                return exception.into_response();
            }
        };
        perform(&shared, &scissors, call).await
    };
    let mut response = tokio::select! {
        biased;
        () = shared.stopping.cancelled() => {
            scissors.cut();
            return Response::default();
        }
        response = answer => response,
    };
    let id = Uuid::new_v4().to_string();
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(&id).expect("a UUID is ASCII"));
    response
}

/// Decides whether the model gets to see the request.
async fn admit(shared: &Shared, model_id: String, request: Request) -> Result<Call, Exception> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    if !is_signed(&head.headers) {
        return Err(Exception::unauthenticated());
    }
    let body: Result<Value, _> = serde_json::from_slice(&body);
    let prompt = body.as_ref().ok().and_then(|body| body.get("prompt")).and_then(Value::as_str);
    let number = prompt.map_or(1, |prompt| shared.ledger.call_for(prompt));

    let plan = shared.plan();
    if let Some(exception) = plan.outage.and_then(|fault| Exception::of_fault(fault, &model_id, None)) {
        return Err(exception);
    }
    let model = Model::of_id(&model_id)?;
    let body = body.map_err(|error| Exception::invalid(&format!("body is not JSON ({error})")))?;
    let request = InvokeRequest::parse(model, &body)?;
    if shared.quota.as_ref().is_some_and(|quota| !quota.take(Instant::now())) {
        return Err(Exception::over_quota());
    }
    let directives = Directives::parse(&request.prompt).map_err(|error| Exception::invalid(&error.to_string()))?;
    let fault = plan
        .outage
        .map(|fault| (fault, None))
        .or_else(|| directives.fault_of_call(number))
        .or_else(|| plan.fault_by_rate(rand::random()).map(|fault| (fault, None)));
    let latency = match directives.latency_ms {
        Some(ms) => Duration::from_millis(ms),
        None => plan.latency.unwrap_or(shared.latency).sample(),
    };
    Ok(Call { model_id, request: request.with_seed_drawn(), fault, latency })
}

/// Reads to the end even what is too large: a client that is still sending would miss the refusal.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, Exception> {
    let mut chunks = body.into_data_stream();
    let (mut read, mut total) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Exception::invalid(&format!("body broke off ({error})")))?;
        total += chunk.len();
        if total <= MAX_BODY_BYTES {
            read.extend_from_slice(&chunk);
        }
    }
    if total > MAX_BODY_BYTES { Err(Exception::too_large()) } else { Ok(read) }
}

/// Only the form is checked: a stand-in has no secrets to check a signature with.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 "))
}

async fn perform(shared: &Shared, scissors: &Scissors, call: Call) -> Response {
    let started = Instant::now();
    let fault = call.fault.map(|(fault, _)| fault);
    if let Some((fault, retry_after_ms)) = call.fault {
        if let Some(exception) = Exception::of_fault(fault, &call.model_id, retry_after_ms) {
            // Whatever is refused is refused at once; these two fail in the middle of the work.
            if matches!(fault, Fault::ModelTimeout | Fault::ModelError) {
                tokio::time::sleep(call.latency).await;
            }
            shared.ledger.error(exception.kind);
            return exception.into_response();
        }
        if fault == Fault::Close {
            shared.ledger.error(fault.as_str());
            scissors.cut();
            return Response::default();
        }
        if fault == Fault::RefusePrompt {
            shared.ledger.refused();
            return finish_reason("Filter reason: prompt");
        }
    }

    if let Some(fault @ (Fault::RefuseOutput | Fault::InferenceError)) = fault {
        tokio::time::sleep(call.latency).await;
        if fault == Fault::RefuseOutput {
            shared.ledger.refused();
            return finish_reason("Filter reason: output image");
        }
        shared.ledger.error(fault.as_str());
        return finish_reason("Inference error");
    }

    let bill = shared.ledger.bill(&call.request.prompt);
    // Painting takes place within the latency, not on top of it.
    let (parts, ()) = tokio::join!(picture(shared, &call, fault), tokio::time::sleep(call.latency));
    if let Some(fault) = fault {
        shared.ledger.error(fault.as_str());
        if fault == Fault::Stall {
            tokio::time::sleep(STALL).await;
            scissors.cut();
            return Response::default();
        }
    }
    let body = answer_body(call.request.seed, parts);
    let mut response = if fault == Some(Fault::HalfAnswer) {
        half_answer(shared, body, bill)
    } else {
        bill.answered();
        let length = total_bytes(&body);
        with_length(Body::from_stream(stream::iter(body.map(Ok::<_, io::Error>))), length)
    };
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    response.headers_mut().insert(INVOCATION_LATENCY, HeaderValue::from(ms));
    response
}

/// Returns the picture in base64, in two pieces, spoiled if the fault says so.
pub(super) async fn picture(shared: &Shared, call: &Call, fault: Option<Fault>) -> [Bytes; 2] {
    let form = match fault {
        Some(Fault::NotPng) => {
            let text = base64_simd::STANDARD.encode_to_string("<html><body>this is not a picture</body></html>");
            return [Bytes::from(text), Bytes::new()];
        }
        Some(Fault::Png16) => Form::Png16,
        Some(Fault::Grey) => Form::Grey,
        Some(Fault::Rgba) => Form::Rgba,
        Some(Fault::RgbaTransparent) => Form::RgbaTransparent,
        Some(Fault::Jpeg) => Form::Asked(OutputFormat::Jpeg),
        Some(Fault::Bomb) => Form::ClaimingBomb,
        Some(Fault::BombInflating) => Form::InflatingBomb,
        _ => Form::Asked(call.request.output_format),
    };
    let InvokeRequest { width, height, .. } = call.request;
    let key = PictureKey { width, height, form, key: call.request.picture_key(&call.model_id) };
    let [head, mut rest] = shared.pictures.base64(key).await;
    if fault == Some(Fault::TruncatedBase64) {
        // One character more than whole groups: no decoder takes that for complete.
        rest.truncate(rest.len() / 8 * 4 + 1);
    }
    [head, rest]
}

fn answer_body(seed: u32, [head, rest]: [Bytes; 2]) -> [Bytes; 4] {
    let start = format!(r#"{{"seeds":[{seed}],"finish_reasons":[null],"images":[""#);
    [Bytes::from(start), head, rest, Bytes::from_static(br#""]}"#)]
}

fn finish_reason(reason: &str) -> Response {
    Json(json!({ "finish_reasons": [reason] })).into_response()
}

pub(super) fn total_bytes(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

pub(super) fn with_length(body: Body, length: usize) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Promises the whole body, sends half of it, and keeps the connection open. The bill lives as long as the body: it is
/// never answered.
fn half_answer(shared: &Shared, parts: [Bytes; 4], bill: Bill) -> Response {
    let length = total_bytes(&parts);
    let mut whole = Bytes::from(parts.concat());
    whole.truncate(length / 2);
    let stopping = shared.stopping.clone();
    let stalled = async move {
        let _unanswered = bill;
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(STALL) => {}
        }
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    };
    let half = stream::iter([Ok(whole)]).chain(stream::once(stalled));
    with_length(Body::from_stream(half), length)
}
