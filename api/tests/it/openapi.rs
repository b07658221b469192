//! The document says what the server does.

use serde_json::Value;

use crate::support::TestApi;

#[tokio::test]
async fn the_document_is_served_and_complete() {
    let api = TestApi::new();
    let answer = api.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["openapi"], "3.1.0");
    insta::assert_json_snapshot!(answer.body);
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_requests_are_closed() {
    let document = TestApi::new().get("/openapi.json").await.body;
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for request in ["SubmitRequest", "BatchRequest", "BatchItem"] {
        let schema = &document["components"]["schemas"][request];
        assert_eq!(schema["additionalProperties"], false, "{request}: {schema}");
    }
}

/// Nothing in a request can make this service, or a worker, connect to a place of the client's choice.
#[tokio::test]
async fn no_field_of_a_request_names_a_place_to_connect_to() {
    let document = TestApi::new().get("/openapi.json").await.body;
    let mut fields = Vec::new();
    for request in ["SubmitRequest", "BatchRequest", "BatchItem", "RenditionRequest"] {
        let schema = &document["components"]["schemas"][request];
        let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{request}: {schema}"));
        fields.extend(properties.iter().map(|(name, schema)| (name.clone(), schema["format"].clone())));
    }
    assert!(fields.len() >= 8, "{fields:?}");
    for (name, format) in fields {
        let words = ["url", "uri", "host", "callback", "webhook", "endpoint", "address", "bucket", "origin"];
        assert!(!words.iter().any(|word| name.contains(word)), "{name}");
        assert!(format.is_null() || !format.as_str().unwrap().starts_with("uri"), "{name}: {format}");
    }
}

#[tokio::test]
async fn every_answer_tells_its_correlation_id() {
    let document = TestApi::new().get("/openapi.json").await.body;
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert_eq!(operation["security"][0]["api_key"], serde_json::json!([]));
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["headers"]["X-Correlation-Id"].is_object(), "{status}");
                if status.starts_with(['4', '5']) {
                    assert!(response["content"]["application/problem+json"].is_object(), "{status}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_page_is_served_from_the_binary() {
    let api = TestApi::new();
    let page = api.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html"));
    assert_eq!(api.get("/docs/swagger-ui.css").await.status, 200);
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => found.push(target),
                    other => collect_references(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}
