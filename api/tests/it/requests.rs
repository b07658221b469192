//! What a client gets wrong is named, with the way to mend it, before anything happens.

use axum::body::Body;
use axum::http::Method;
use proptest::prelude::*;
use serde_json::json;

use crate::support::{TestApi, get, post, post_text, request, with};

#[tokio::test]
async fn each_kind_of_bad_body_has_its_problem() {
    let api = TestApi::new();
    let send = async |text: &str| api.send(post_text("/v1/jobs", text)).await;

    let answer = send("{\n  \"prompt\": }").await;
    answer.assert_problem(400, "malformed_json");
    insta::assert_snapshot!(answer.body["detail"].as_str().unwrap(), @"the body is not JSON at line 2, column 13: expected value at line 2 column 13");
    send("").await.assert_problem(400, "malformed_json");
    send(r#"{"prompt": "fox"} trailing"#).await.assert_problem(400, "malformed_json");

    for (text, field) in [
        (r#"{"prompt": "fox", "size": 3}"#, "size"),
        (r#"{"prompt": "fox", "prompt": "hen"}"#, "prompt"),
        (r#"{"seed": 3}"#, "prompt"),
        (r#"{"prompt": 3}"#, "prompt"),
        (r#"{"prompt": null}"#, "prompt"),
        (r#"{"prompt": "fox", "seed": "three"}"#, "seed"),
        (r#"{"prompt": "fox", "seed": -1}"#, "seed"),
        (r#"{"prompt": "fox", "seed": 1.5}"#, "seed"),
        (r#"{"prompt": "fox", "seed": 1e300}"#, "seed"),
        (r#"{"prompt": "fox", "seed": 4294967296}"#, "seed"),
        (r#"{"prompt": "fox", "deadline_seconds": 0}"#, "deadline_seconds"),
        (r#"{"prompt": "fox", "deadline_seconds": 86401}"#, "deadline_seconds"),
        (r#"{"prompt": "fox", "alt_text": ""}"#, "alt_text"),
        (r#"{"prompt": "fox", "alt_text": "two\nlines"}"#, "alt_text"),
        (r#"{"prompt": "fox", "alt_text": 7}"#, "alt_text"),
        (r#"{"prompt": "fox", "renditions": {}}"#, "renditions"),
        (r#"{"prompt": "fox", "renditions": [{"width": 300, "format": "webp"}]}"#, "renditions[0].width"),
        (r#"{"prompt": "fox", "renditions": [{"width": 256, "format": "png"}]}"#, "renditions[0].format"),
        (r#"{"prompt": "fox", "renditions": [{"width": 256}]}"#, "renditions[0].format"),
        (r#"{"prompt": "fox", "renditions": [{"width": 256, "format": "webp", "height": 9}]}"#, "renditions[0].height"),
        (r#"{"prompt": ""}"#, "prompt"),
        (r#"{"prompt": " \n "}"#, "prompt"),
        (r#"{"prompt": "a\u0000b"}"#, "prompt"),
        (r#"{"prompt": "a\uffffb"}"#, "prompt"),
        (r#"{"prompt": "fox", "negative_prompt": ""}"#, "negative_prompt"),
        (r#"["fox"]"#, "body"),
        (r#""fox""#, "body"),
        ("null", "body"),
    ] {
        let answer = send(text).await;
        assert_eq!(answer.status, 422, "{text}: {}", answer.body);
        answer.assert_invalid(field);
    }
    let many = vec![json!({"width": 256, "format": "webp"}); 17];
    send(&json!({"prompt": "fox", "renditions": many}).to_string()).await.assert_invalid("renditions");
    let long = json!({"prompt": "x".repeat(10_001)}).to_string();
    send(&long).await.assert_invalid("prompt");
    assert!(api.queue.jobs().is_empty());
}

#[tokio::test]
async fn every_field_to_mend_is_in_one_answer() {
    let api = TestApi::new();
    let answer = api.submit(json!({"prompt": " ", "deadline_seconds": 0})).await;
    insta::assert_json_snapshot!(answer.body, @r#"
    {
      "code": "invalid_request",
      "detail": "2 fields are invalid",
      "errors": [
        {
          "detail": "prompt is empty: describe the picture in 1 to 10000 characters",
          "field": "prompt"
        },
        {
          "detail": "deadline_seconds is not 1 to 86400",
          "field": "deadline_seconds"
        }
      ],
      "status": 422,
      "title": "The request has invalid fields",
      "type": "tag:image-api,2026:problem:invalid_request"
    }
    "#);
}

#[tokio::test]
async fn the_edges_of_what_is_valid_are_accepted() {
    let api = TestApi::new();
    for body in [
        json!({"prompt": "狐".repeat(10_000), "negative_prompt": null, "seed": null, "deadline_seconds": null}),
        // JSON Schema counts this as a whole number.
        json!({"prompt": "x", "seed": 7.0, "deadline_seconds": 60.0}),
        json!({"prompt": "x", "seed": 4_294_967_295_u32, "deadline_seconds": 86_400}),
        json!({"prompt": "x", "renditions": null}),
        json!({"prompt": "x", "alt_text": null}),
        json!({"prompt": "x", "alt_text": "狐".repeat(1000)}),
        json!({"prompt": "x", "renditions": vec![json!({"width": 1024, "format": "webp"}); 16]}),
        json!({"prompt": "line one\r\n\tline two", "seed": 0, "deadline_seconds": 1}),
    ] {
        assert_eq!(api.submit(body).await.status, 202);
    }
    let typed = with(post("/v1/jobs", &json!({"prompt": "fox"})), "content-type", "Application/JSON; charset=utf-8");
    assert_eq!(api.send(typed).await.status, 202);
}

#[tokio::test]
async fn callers_without_a_valid_key_are_refused_everywhere() {
    let api = TestApi::new();
    for authorization in ["Bearer unknown-key-unknown-key", "Basic bm9ydGg6eA==", "Bearer"] {
        for request in [
            post("/v1/jobs", &json!({"prompt": "fox"})),
            post("/v1/batches", &json!({"jobs": []})),
            get("/v1/jobs"),
            get("/v1/jobs/x"),
            get("/v1/jobs/x/events"),
            post("/v1/jobs/x/cancel", &json!({})),
            post("/v1/jobs/x/retry", &json!({"prompt": "fox"})),
        ] {
            let answer = api.send(with(request, "authorization", authorization)).await;
            answer.assert_problem(401, "unauthenticated");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
    let mut anonymous = post("/v1/jobs", &json!({"prompt": "fox"}));
    anonymous.headers_mut().remove("authorization");
    api.send(anonymous).await.assert_problem(401, "unauthenticated");
    assert!(api.queue.jobs().is_empty());
}

#[tokio::test]
async fn a_correlation_id_that_no_log_can_carry_is_refused_on_every_route() {
    let api = TestApi::new();
    for bad in ["", "two words", &"c".repeat(129)] {
        for request in [get("/nowhere"), get("/v1/jobs/x"), post("/v1/jobs", &json!({"prompt": "fox"}))] {
            let answer = api.send(with(request, "x-correlation-id", bad)).await;
            answer.assert_invalid("X-Correlation-Id");
            assert_eq!(answer.header("x-correlation-id").unwrap().len(), 36);
        }
    }
    let mut twice = with(get("/nowhere"), "x-correlation-id", "one");
    twice.headers_mut().append("x-correlation-id", "two".parse().unwrap());
    api.send(twice).await.assert_invalid("X-Correlation-Id");
}

#[tokio::test]
async fn the_correlation_id_is_on_every_answer() {
    let api = TestApi::new();
    for (request, status) in [
        (get("/nowhere"), 404),
        (get("/v1/batches"), 405),
        (get("/openapi.json"), 200),
        (get("/docs/"), 200),
        (post("/v1/jobs", &json!({})), 422),
        (post("/v1/jobs", &json!({"prompt": "fox"})), 202),
    ] {
        let answer = api.send(with(request, "x-correlation-id", "assignment-42")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-correlation-id"), Some("assignment-42"));
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let api = TestApi::new();
    api.get("/nowhere").await.assert_problem(404, "route_not_found");
    api.get("/v1/jobs/").await.assert_problem(404, "route_not_found");
    for (method, path, allow) in [
        (Method::DELETE, "/v1/jobs", "POST,GET,HEAD"),
        (Method::DELETE, "/v1/batches", "POST"),
        (Method::PATCH, "/v1/jobs/x", "GET,HEAD"),
        (Method::TRACE, "/v1/jobs/x/cancel", "POST"),
    ] {
        let answer = api.send(request(method, path, Body::empty())).await;
        answer.assert_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}

#[tokio::test]
async fn the_content_type_must_be_json() {
    let api = TestApi::new();
    for path in ["/v1/jobs", "/v1/batches"] {
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            let answer = api.send(with(post(path, &json!({"prompt": "fox"})), "content-type", bad)).await;
            answer.assert_problem(415, "unsupported_media_type");
        }
        let mut untyped = post(path, &json!({"prompt": "fox"}));
        untyped.headers_mut().remove("content-type");
        api.send(untyped).await.assert_problem(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_announced_or_not() {
    let api = TestApi::with_args(&["--body-limit-bytes=1024"]);
    let body = json!({"prompt": "x".repeat(2000)}).to_string();
    let announced = with(post_text("/v1/jobs", &body), "content-length", &body.len().to_string());
    api.send(announced).await.assert_problem(413, "body_too_large");
    api.send(post_text("/v1/jobs", &body)).await.assert_problem(413, "body_too_large");
    // A batch may have 32 times as much.
    assert_eq!(api.send(post("/v1/batches", &json!({"jobs": [{"prompt": "x".repeat(2000)}]}))).await.status, 202);
    let many: Vec<_> = (0..20).map(|_| json!({"prompt": "x".repeat(2000)})).collect();
    api.send(post("/v1/batches", &json!({"jobs": many}))).await.assert_problem(413, "body_too_large");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_body_is_our_fault(body in any_body(), path in prop_oneof![Just("/v1/jobs"), Just("/v1/batches")]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(TestApi::new().send(post_text(path, &body)));
        prop_assert!(answer.status.as_u16() < 500, "{body}: {}", answer.body);
        prop_assert!(answer.status.is_success() || !answer.code().is_empty(), "{body}");
    }
}

/// Text, text that is nearly a request, and requests with arbitrary values.
fn any_body() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,40}".prop_map(|text| json!(text)),
        any::<String>().prop_map(|text| json!(text)),
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
    ];
    let field = prop_oneof![
        Just("prompt"),
        Just("negative_prompt"),
        Just("seed"),
        Just("deadline_seconds"),
        Just("idempotency_key"),
        Just("jobs")
    ];
    let object = proptest::collection::btree_map(field, value, 0..5).prop_map(|fields| json!(fields));
    prop_oneof![
        any::<String>(),
        object.clone().prop_map(|object| object.to_string()),
        proptest::collection::vec(object, 0..4).prop_map(|jobs| json!({"jobs": jobs}).to_string()),
    ]
}
