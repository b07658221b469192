//! The stand-in over HTTP: what a client of Bedrock would see of every answer and every fault.

use std::io::Cursor;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use image::{ColorType, DynamicImage, ImageReader};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const CORE: &str = "stability.stable-image-core-v1%3A1";
const SD35: &str = "stability.sd3-5-large-v1%3A0";
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20261124/us-west-2/bedrock/aws4_request, Signature=0";

async fn start(options: BedrockOptions) -> BedrockStandIn {
    BedrockStandIn::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.unwrap()
}

async fn cheap() -> BedrockStandIn {
    start(BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() }).await
}

impl BedrockStandIn {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.local_addr())
    }

    async fn send(&self, model: &str, body: &Value) -> reqwest::Result<Response> {
        let request = Client::new().post(self.url(&format!("/model/{model}/invoke")));
        request.header("authorization", AUTHORIZATION).json(body).send().await
    }

    async fn ask(&self, prompt: &str) -> Response {
        self.send(CORE, &json!({ "prompt": prompt, "seed": 7 })).await.unwrap()
    }

    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = Client::new().request(method, self.url(path));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
    }
}

/// Status, exception name and text.
async fn exception(response: Response) -> (u16, String, Value) {
    let name = response.headers()["x-amzn-errortype"].to_str().unwrap().split(':').next().unwrap().to_owned();
    assert!(response.headers().contains_key("x-amzn-requestid"));
    (response.status().as_u16(), name, response.json().await.unwrap())
}

async fn file(response: Response) -> Vec<u8> {
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["finish_reasons"], json!([null]));
    base64_simd::STANDARD.decode_to_vec(body["images"][0].as_str().unwrap()).unwrap()
}

fn decoded(file: &[u8]) -> DynamicImage {
    ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap().decode().unwrap()
}

/// Waits until the ledger says so; the test's own time limit is the runner's.
async fn until(standin: &BedrockStandIn, holds: impl Fn(&Totals) -> bool) -> Totals {
    loop {
        let totals = standin.ledger().totals;
        if holds(&totals) {
            return totals;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_returns_one_picture_and_its_seed_and_is_billed() {
    let standin = start(BedrockOptions::default()).await;
    let response = standin.ask("a lighthouse").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-amzn-bedrock-invocation-latency"));
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["seeds"], &body["finish_reasons"]), (&json!([7]), &json!([null])));
    let first = base64_simd::STANDARD.decode_to_vec(body["images"][0].as_str().unwrap()).unwrap();
    let picture = decoded(&first);
    assert_eq!((picture.width(), picture.height(), picture.color()), (1536, 1536, ColorType::Rgb8));
    assert_eq!(file(standin.ask("a lighthouse").await).await, first);

    let ledger = standin.ledger();
    assert_eq!((ledger.totals.calls, ledger.totals.paid, ledger.totals.paid_unanswered), (2, 2, 0));
    assert_eq!(ledger.by_prompt["a lighthouse"], PromptEntry { calls: 2, paid: 2, ..PromptEntry::default() });
    let (status, served) = standin.admin(Method::GET, "/_standin/ledger", None).await;
    assert_eq!((status, serde_json::from_value::<LedgerReport>(served).unwrap()), (StatusCode::OK, ledger));
    assert_eq!(standin.admin(Method::DELETE, "/_standin/ledger", None).await.0, 204);
    assert_eq!(standin.ledger(), LedgerReport::default());
    assert_eq!(standin.admin(Method::GET, "/_standin/health", None).await.0, 200);
    standin.stop().await;
}

#[tokio::test]
async fn formats_and_sizes_are_those_asked_for() {
    let standin = cheap().await;
    let ask = async |model, format, ratio| {
        let body = json!({ "prompt": "a", "output_format": format, "aspect_ratio": ratio });
        let file = file(standin.send(model, &body).await.unwrap()).await;
        let reader = ImageReader::new(Cursor::new(&file)).with_guessed_format().unwrap();
        (reader.format().unwrap(), reader.into_dimensions().unwrap())
    };
    assert_eq!(ask(CORE, "jpeg", "16:9").await, (image::ImageFormat::Jpeg, (1536, 864)));
    assert_eq!(ask(SD35, "png", "1:1").await, (image::ImageFormat::Png, (1024, 1024)));
    assert_eq!(ask(SD35, "webp", "9:21").await, (image::ImageFormat::WebP, (640, 1536)));
}

#[tokio::test]
async fn requests_the_models_would_refuse_are_refused() {
    let standin = cheap().await;
    let long = "x".repeat(10_001);
    for (model, body, defect) in [
        (CORE, json!({}), "required key [prompt] not found"),
        (CORE, json!([]), "expected type: JSONObject"),
        (CORE, json!({ "prompt": "a", "width": 1024 }), "extraneous key [width]"),
        (CORE, json!({ "prompt": "a", "mode": "text-to-image" }), "extraneous key [mode]"),
        (SD35, json!({ "prompt": "a", "mode": "image-to-image" }), "#/mode"),
        (CORE, json!({ "prompt": 1 }), "#/prompt: expected type: String"),
        (CORE, json!({ "prompt": long }), "#/prompt: expected maxLength: 10000, actual: 10001"),
        (CORE, json!({ "prompt": "a", "negative_prompt": long }), "#/negative_prompt"),
        (CORE, json!({ "prompt": "a", "seed": 4_294_967_296_u64 }), "#/seed"),
        (CORE, json!({ "prompt": "a", "seed": -1 }), "#/seed"),
        (SD35, json!({ "prompt": "a", "seed": 4_294_967_295_u64 }), "#/seed"),
        (CORE, json!({ "prompt": "a", "output_format": "webp" }), "#/output_format"),
        (CORE, json!({ "prompt": "a", "aspect_ratio": "1:2" }), "#/aspect_ratio"),
        (CORE, json!({ "prompt": "[[fault:nope]]" }), "unknown fault"),
    ] {
        let (status, name, answer) = exception(standin.send(model, &body).await.unwrap()).await;
        assert_eq!((status, name.as_str()), (400, "ValidationException"));
        assert!(answer["message"].as_str().unwrap().contains(defect), "{answer}");
    }
    for model in ["amazon.titan-image-generator-v2%3A0", "amazon.nova-canvas-v1%3A0", "stability.sd3-large-v1%3A0"] {
        let (status, name, answer) = exception(standin.send(model, &json!({})).await.unwrap()).await;
        assert_eq!((status, name.as_str()), (404, "ResourceNotFoundException"));
        assert!(answer["message"].as_str().unwrap().contains("reached the end of its life"), "{answer}");
    }
    let (status, name, _) = exception(standin.send("acme.paint-v1", &json!({ "prompt": "a" })).await.unwrap()).await;
    assert_eq!((status, name.as_str()), (404, "ResourceNotFoundException"));
    let totals = standin.ledger().totals;
    assert_eq!((totals.paid, totals.errors["invalid"], totals.errors["retired_model"]), (0, 14, 3));
}

#[tokio::test]
async fn unsigned_and_oversized_requests_are_refused() {
    let standin = cheap().await;
    let url = standin.url(&format!("/model/{CORE}/invoke"));
    let unsigned = Client::new().post(&url).json(&json!({ "prompt": "a" })).send().await.unwrap();
    assert_eq!(exception(unsigned).await.0, 403);
    let bearer = Client::new().post(&url).header("authorization", "Bearer x").body("{}").send().await.unwrap();
    assert_eq!(exception(bearer).await.0, 403);
    let big = Client::new().post(&url).header("authorization", AUTHORIZATION).body(vec![b' '; 25_000_001]);
    assert_eq!(exception(big.send().await.unwrap()).await.0, 413);
    let errors = standin.ledger().totals.errors;
    assert_eq!((errors["unauthenticated"], errors["too_large"]), (2, 1));
}

#[tokio::test]
async fn exceptions_have_the_services_status_name_and_text() {
    let standin = cheap().await;
    for (fault, status, name, text) in [
        ("throttle", 429, "ThrottlingException", "Too many requests"),
        ("model_timeout", 408, "ModelTimeoutException", "timed out"),
        ("model_error", 424, "ModelErrorException", "unexpected error"),
        ("internal", 500, "InternalServerException", "unexpected error"),
        ("unavailable", 503, "ServiceUnavailableException", "unable"),
        ("not_ready", 429, "ModelNotReadyException", "not ready"),
        ("quota", 400, "ServiceQuotaExceededException", "quota"),
        ("access_denied", 403, "AccessDeniedException", "access"),
        ("expired_credentials", 403, "ExpiredTokenException", "expired"),
        ("retired", 404, "ResourceNotFoundException", "end of its life"),
        ("legacy", 404, "ResourceNotFoundException", "Access denied. This Model is marked by provider as Legacy"),
        ("validation", 400, "ValidationException", "not valid"),
        ("content_filtered_validation", 400, "ValidationException", "blocked by our content filters"),
    ] {
        let response = standin.ask(&format!("[[fault:{fault}]]")).await;
        assert!(!response.headers().contains_key("x-amz-retry-after"));
        let (found_status, found_name, answer) = exception(response).await;
        assert_eq!((found_status, found_name.as_str()), (status, name), "{fault}");
        assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
        assert_eq!(answer.get("originalStatusCode").is_some(), fault == "model_error");
        assert_eq!(standin.ledger().totals.errors[fault], 1);
    }
    let hinted = standin.ask("[[fault:throttle retry_after_ms=1500]]").await;
    assert_eq!(hinted.headers()["x-amz-retry-after"], "1500");
    assert_eq!((standin.ledger().totals.paid, standin.ledger().totals.in_flight), (0, 0));
}

#[tokio::test]
async fn refusals_are_200_without_a_picture_and_without_a_bill() {
    let standin = cheap().await;
    for (fault, reason) in [
        ("refuse_prompt", "Filter reason: prompt"),
        ("refuse_output", "Filter reason: output image"),
        ("inference_error", "Inference error"),
    ] {
        let response = standin.ask(&format!("[[fault:{fault}]]")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "finish_reasons": [reason] }));
    }
    let totals = standin.ledger().totals;
    assert_eq!((totals.refused, totals.errors["inference_error"], totals.paid), (2, 1, 0));
}

#[tokio::test]
async fn odd_pictures_are_odd_in_the_way_named_and_are_billed() {
    let standin = cheap().await;
    for (fault, colour) in [
        ("png16", ColorType::Rgb16),
        ("grey", ColorType::L8),
        ("rgba", ColorType::Rgba8),
        ("rgba_transparent", ColorType::Rgba8),
        ("jpeg", ColorType::Rgb8),
    ] {
        let file = file(standin.ask(&format!("[[fault:{fault}]]")).await).await;
        assert_eq!(file.starts_with(b"\xFF\xD8"), fault == "jpeg");
        let picture = decoded(&file);
        assert_eq!((picture.color(), picture.width()), (colour, 1536), "{fault}");
        let opaque = picture.to_rgba8().pixels().all(|pixel| pixel.0[3] == 255);
        assert_eq!(opaque, fault != "rgba_transparent");
    }
    for (fault, side) in [("bomb", 60_000), ("bomb_inflating", 30_000)] {
        let file = file(standin.ask(&format!("[[fault:{fault}]]")).await).await;
        let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap();
        assert_eq!(reader.into_dimensions().unwrap(), (side, side));
    }
    assert!(file(standin.ask("[[fault:not_png]]").await).await.starts_with(b"<html>"));
    let truncated: Value = standin.ask("[[fault:truncated_base64]]").await.json().await.unwrap();
    assert!(base64_simd::STANDARD.decode_to_vec(truncated["images"][0].as_str().unwrap()).is_err());
    assert_eq!(standin.ledger().totals.paid, 9);
}

#[tokio::test]
async fn the_first_calls_fail_and_the_next_succeeds() {
    let standin = cheap().await;
    let prompt = "a [[fault:throttle*2]] cat";
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(standin.ask(prompt).await.status().as_u16());
    }
    assert_eq!(statuses, [429, 429, 200]);
    assert_eq!(standin.ledger().by_prompt[prompt], PromptEntry { calls: 3, paid: 1, ..PromptEntry::default() });
}

#[tokio::test]
async fn close_ends_the_connection_without_a_byte() {
    let standin = cheap().await;
    let mut connection = TcpStream::connect(standin.local_addr()).await.unwrap();
    let body = json!({ "prompt": "[[fault:close]]" }).to_string();
    let head = format!(
        "POST /model/{CORE}/invoke HTTP/1.1\r\nhost: x\r\nauthorization: {AUTHORIZATION}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    // A reset is as good an end as a close.
    drop(connection.read_to_end(&mut received).await);
    assert_eq!(received, b"");
    assert_eq!((standin.ledger().totals.errors["close"], standin.ledger().totals.paid), (1, 0));
}

#[tokio::test]
async fn a_stalled_call_is_billed_when_the_client_leaves_or_the_stand_in_stops() {
    let standin = cheap().await;
    let left = tokio::select! {
        answer = standin.ask("[[fault:stall]]") => Some(answer),
        _ = until(&standin, |totals| totals.errors.contains_key("stall")) => None,
    };
    assert!(left.is_none());
    let totals = until(&standin, |totals| totals.in_flight == 0).await;
    assert_eq!((totals.paid, totals.paid_unanswered), (0, 1));

    let ledger = standin.shared.ledger.clone();
    let prompt = json!({ "prompt": "[[fault:stall]]" });
    let request = Client::new().post(standin.url(&format!("/model/{CORE}/invoke"))).json(&prompt);
    let request = request.header("authorization", AUTHORIZATION).send();
    let (answer, ()) = tokio::join!(request, async {
        until(&standin, |totals| totals.in_flight == 1).await;
        standin.stop().await;
    });
    assert!(answer.is_err());
    assert_eq!(ledger.report().totals.in_flight, 0);
}

#[tokio::test]
async fn half_an_answer_promises_more_than_it_sends() {
    let standin = cheap().await;
    let mut response = standin.ask("[[fault:half_answer]]").await;
    let promised = usize::try_from(response.content_length().unwrap()).unwrap();
    let mut received = 0;
    while received < promised / 2 {
        received += response.chunk().await.unwrap().unwrap().len();
    }
    assert_eq!(received, promised / 2);
    assert_eq!(standin.ledger().totals.paid, 0);
    let (rest, ()) = tokio::join!(response.chunk(), standin.stop());
    assert!(rest.is_err());
}

#[tokio::test]
async fn a_caller_that_leaves_during_the_work_is_billed() {
    let standin = cheap().await;
    let admitted = async {
        while standin.ledger().by_prompt.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = standin.ask("[[latency:1h]]") => panic!("answered within the hour"),
        () = admitted => {}
    }
    until(&standin, |totals| totals.in_flight == 0).await;
    let entry = PromptEntry { calls: 1, paid_unanswered: 1, ..PromptEntry::default() };
    assert_eq!(standin.ledger().by_prompt["[[latency:1h]]"], entry);
}

#[tokio::test]
async fn outages_and_rates_last_until_cleared() {
    let standin = cheap().await;
    let put = async |plan| standin.admin(Method::PUT, "/_standin/faults", Some(plan)).await;
    assert_eq!(put(json!({ "outage": "retired" })).await.0, 200);
    assert_eq!(exception(standin.ask("a").await).await.0, 404);
    assert_eq!(put(json!({ "rates": { "unavailable": 1.0 } })).await.0, 200);
    assert_eq!(exception(standin.ask("a").await).await.0, 503);
    // What a prompt asks for wins over chance.
    assert_eq!(exception(standin.ask("[[fault:throttle]]").await).await.0, 429);
    let (status, refusal) = put(json!({ "rates": { "unavailable": 2.0 } })).await;
    assert_eq!(status, 400);
    assert!(refusal["message"].as_str().unwrap().contains("rates.unavailable"));
    assert!(put(json!({ "rates": { "nope": 0.5 } })).await.1["message"].as_str().unwrap().contains("nope"));
    let (_, plan) = standin.admin(Method::GET, "/_standin/faults", None).await;
    assert_eq!(plan["rates"], json!({ "unavailable": 1.0 }));
    standin.admin(Method::DELETE, "/_standin/faults", None).await;
    assert_eq!(standin.ask("a").await.status(), 200);
    standin.set_faults(FaultPlan { outage: Some(Fault::AccessDenied), ..FaultPlan::default() }).unwrap();
    assert_eq!(exception(standin.ask("a").await).await.0, 403);
}

#[tokio::test]
async fn calls_beyond_the_quota_are_throttled() {
    let options = BedrockOptions {
        requests_per_minute: NonZeroU32::new(2),
        detail: Detail::Cheap,
        // A fault leaves the bucket as a picture does: the quota counts requests.
        faults: FaultPlan { outage: Some(Fault::RefusePrompt), ..FaultPlan::default() },
        ..BedrockOptions::default()
    };
    let standin = start(options).await;
    let answers = futures::future::join_all((0..5).map(|_| standin.ask("a"))).await;
    let throttled = answers.iter().filter(|answer| answer.status() == 429).count();
    // At two a minute no third token arrives while five requests are answered.
    assert_eq!(throttled, 3);
    assert_eq!(standin.ledger().totals.errors["over_quota"], 3);
}

#[tokio::test]
async fn calls_in_flight_are_counted() {
    let latency = Latency::Fixed { ms: Duration::from_secs(3600).as_millis().try_into().unwrap() };
    let standin = start(BedrockOptions { latency, detail: Detail::Cheap, ..BedrockOptions::default() }).await;
    tokio::select! {
        _ = futures::future::join_all((0..3).map(|_| standin.ask("a"))) => panic!("answered within the hour"),
        totals = until(&standin, |totals| totals.in_flight == 3) => assert_eq!(totals.max_in_flight, 3),
    }
    until(&standin, |totals| totals.in_flight == 0).await;
}
