//! One trace in the form of Jaeger's query API, `GET /api/traces/{trace_id}`: shown by the collector, and asked of either.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{CollectedSpan, Kept};

/// The answer of the query API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    pub data: Vec<Trace>,
}

/// The spans of one trace, and the services that sent them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    #[serde(rename = "traceID")]
    pub trace_id: String,
    pub spans: Vec<Span>,
    /// By the id that the spans name.
    pub processes: BTreeMap<String, Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub service_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    #[serde(rename = "spanID")]
    pub span_id: String,
    pub operation_name: String,
    #[serde(default)]
    pub references: Vec<Reference>,
    /// Microseconds since the epoch.
    pub start_time: u64,
    /// Microseconds.
    pub duration: u64,
    #[serde(rename = "processID")]
    pub process_id: String,
}

/// A parent (`CHILD_OF`) or a link (`FOLLOWS_FROM`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub ref_type: String,
    #[serde(rename = "traceID")]
    pub trace_id: String,
    #[serde(rename = "spanID")]
    pub span_id: String,
}

impl Trace {
    /// Puts together what was collected of one trace; None when that is nothing.
    pub fn of(trace_id: &str, collected: &[CollectedSpan]) -> Option<Self> {
        let mut ids: BTreeMap<&str, String> = BTreeMap::new();
        let mut spans = Vec::new();
        for span in collected.iter().filter(|span| span.trace_id == trace_id) {
            let next = format!("p{}", ids.len() + 1);
            let process_id = ids.entry(&span.service).or_insert(next).clone();
            spans.push(shown(span, process_id));
        }
        spans.sort_by_key(|span| span.start_time);
        let named = |(name, id): (&str, String)| (id, Process { service_name: name.to_owned() });
        let processes = ids.into_iter().map(named).collect();
        (!spans.is_empty()).then(|| Self { trace_id: trace_id.to_owned(), spans, processes })
    }

    /// Returns the only span of this name, with the service that sent it; None when there is none, or another.
    pub fn only(&self, name: &str) -> Option<(&str, &Span)> {
        let mut found = self.spans.iter().filter(|span| span.operation_name == name);
        let span = found.next().filter(|_| found.next().is_none())?;
        Some((self.processes.get(&span.process_id)?.service_name.as_str(), span))
    }
}

impl Span {
    /// Returns whether it has this reference to another span of its trace.
    pub fn refers_to(&self, other: &Self, ref_type: &str) -> bool {
        self.references.iter().any(|to| to.ref_type == ref_type && to.span_id == other.span_id)
    }
}

fn shown(span: &CollectedSpan, process_id: String) -> Span {
    let reference = |ref_type: &str, trace_id: &str, span_id: &str| Reference {
        ref_type: ref_type.to_owned(),
        trace_id: trace_id.to_owned(),
        span_id: span_id.to_owned(),
    };
    let parent = (!span.parent_id.is_empty()).then(|| reference("CHILD_OF", &span.trace_id, &span.parent_id));
    let links = span.links.iter().map(|(trace_id, span_id)| reference("FOLLOWS_FROM", trace_id, span_id));
    Span {
        span_id: span.span_id.clone(),
        operation_name: span.name.clone(),
        references: parent.into_iter().chain(links).collect(),
        start_time: span.start_ns / 1000,
        duration: span.end_ns.saturating_sub(span.start_ns) / 1000,
        process_id,
    }
}

pub(super) fn router(kept: Kept) -> Router {
    Router::new().route("/api/traces/{trace_id}", get(find)).with_state(kept)
}

async fn find(State(kept): State<Kept>, Path(trace_id): Path<String>) -> Response {
    let found = Trace::of(&trace_id, &kept.lock().unwrap_or_else(PoisonError::into_inner));
    match found {
        Some(trace) => Json(Traces { data: vec![trace] }).into_response(),
        None => (StatusCode::NOT_FOUND, Json(Traces { data: vec![] })).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(service: &str, name: &str, parent: &str, start_ns: u64) -> CollectedSpan {
        CollectedSpan {
            service: service.into(),
            name: name.into(),
            kind: "internal",
            trace_id: "a".into(),
            span_id: format!("{name}-id"),
            parent_id: parent.into(),
            links: vec![("b".into(), "far".into())],
            start_ns,
            end_ns: start_ns + 2_000_500,
            is_error: false,
            attributes: BTreeMap::new(),
            events: vec![],
        }
    }

    #[test]
    fn a_trace_has_its_spans_in_order_with_services_parents_and_links() {
        let other = CollectedSpan { trace_id: "c".into(), ..span("api", "other", "", 0) };
        let spans = [span("worker", "render", "submit-id", 9_000), other, span("api", "submit", "", 3_000)];
        let trace = Trace::of("a", &spans).unwrap();
        assert_eq!(
            trace.spans.iter().map(|span| span.operation_name.as_str()).collect::<Vec<_>>(),
            ["submit", "render"]
        );
        let ((api, submit), (worker, render)) = (trace.only("submit").unwrap(), trace.only("render").unwrap());
        assert_eq!((api, worker, submit.start_time, submit.duration), ("api", "worker", 3, 2000));
        assert!(render.refers_to(submit, "CHILD_OF") && !submit.refers_to(render, "CHILD_OF"));
        assert_eq!(submit.references.len(), 1, "a root has no parent, and a link");
        assert!(trace.only("other").is_none() && Trace::of("d", &spans).is_none());
        let twice = [spans[0].clone(), spans[0].clone()];
        assert!(Trace::of("a", &twice).unwrap().only("render").is_none());
    }

    #[test]
    fn the_form_is_that_of_jaeger() {
        // As its user interface reads it: references instead of a parent, microseconds, services apart.
        let answer = r#"{"data":[{"traceID":"a","spans":[{"traceID":"a","spanID":"1","operationName":"POST /v1/jobs",
            "references":[{"refType":"CHILD_OF","traceID":"a","spanID":"0"}],"startTime":1,"duration":2,
            "tags":[{"key":"span.kind","type":"string","value":"server"}],"logs":[],"processID":"p1","warnings":null}],
            "processes":{"p1":{"serviceName":"image-api","tags":[]}},"warnings":null}],"total":0,"limit":0,"offset":0,
            "errors":null}"#;
        let read: Traces = serde_json::from_str(answer).unwrap();
        let shown: Traces = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(shown, read);
        assert_eq!(read.data[0].only("POST /v1/jobs").unwrap().0, "image-api");
    }
}
