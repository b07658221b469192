//! The admin port: `GET /live`, `GET /ready`, `GET /metrics`.
//!
//! It has a thread and a runtime of its own, so that a busy process still answers its health checks.

use std::net::{SocketAddr, TcpListener};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;
use crate::serve::{self, Bounds, HEAD_TIMEOUT};

/// Health checks and scrapers: more connections than these are a fault, and must not take descriptors from the work.
const BOUNDS: Bounds = Bounds { connections: 128, head_timeout: HEAD_TIMEOUT };

/// Of every process. A number that only rises is a leak.
const TASKS: &str = "process_tasks";

/// The admin port cannot be opened.
#[derive(Debug, Error)]
#[error("admin port {addr} cannot be opened ({source}): set ADMIN_ADDR to a free one")]
pub struct AdminError {
    addr: SocketAddr,
    source: std::io::Error,
}

#[derive(Clone)]
struct AdminState {
    metrics: PrometheusHandle,
    readiness: Readiness,
    /// The runtime that does the work, which is not the admin port's own.
    work: Option<Handle>,
}

/// Serves the admin port until the process ends, and counts the tasks of the runtime that this is called in. Returns the
/// address bound.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(addr: SocketAddr, metrics: PrometheusHandle, readiness: Readiness) -> Result<SocketAddr, AdminError> {
    let failed = |source| AdminError { addr, source };
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let app = router(metrics, readiness);
    describe_gauge!(TASKS, "Tasks alive on the runtime that does the work");
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            runtime.block_on(async move {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => serve::serve(listener, app, BOUNDS, CancellationToken::new()).await,
                    Err(error) => tracing::error!(%error, "admin port cannot be polled"),
                }
            });
        })
        .map_err(failed)?;
    Ok(bound)
}

/// Returns the routes of the admin port.
pub fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(AdminState { metrics, readiness, work: Handle::try_current().ok() })
}

async fn ready(State(state): State<AdminState>) -> Response {
    let reasons = state.readiness.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn render(State(state): State<AdminState>) -> Response {
    if let Some(work) = &state.work {
        let tasks = u32::try_from(work.metrics().num_alive_tasks()).unwrap_or(u32::MAX);
        gauge!(TASKS).set(tasks);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// No runtime here, and more threads at work than there are cores: what answers has a thread of its own.
    #[test]
    fn it_answers_while_the_process_does_nothing_but_work() {
        let metrics = telemetry::recorder(&[]).unwrap().build_recorder().handle();
        let addr = serve("127.0.0.1:0".parse().unwrap(), metrics, Readiness::default()).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let done = Arc::clone(&done);
                std::thread::spawn(move || while !done.load(Ordering::Relaxed) {})
            })
            .collect();
        for path in ["/live", "/ready", "/metrics"] {
            let mut connection = std::net::TcpStream::connect(addr).unwrap();
            write!(connection, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        }
        done.store(true, Ordering::Relaxed);
        for thread in busy {
            thread.join().unwrap();
        }
    }
    use crate::telemetry;

    #[tokio::test]
    async fn ready_tells_every_reason_and_metrics_are_histograms() {
        let recorder = telemetry::recorder(&[("wait_seconds", &[1.0, 5.0])]).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::histogram!("wait_seconds").record(2.0));
        let readiness = Readiness::starting();
        let addr = serve("127.0.0.1:0".parse().unwrap(), recorder.handle(), readiness.clone()).unwrap();
        let get = async |path: &str| {
            let response = reqwest::get(format!("http://{addr}{path}")).await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };

        assert_eq!(get("/live").await.0, 200);
        let (status, body) = get("/ready").await;
        assert_eq!(status, 503);
        assert!(body.contains("starting"), "{body}");
        readiness.clear("starting");
        assert_eq!(get("/ready").await, (200, r#"{"ready":true,"reasons":{}}"#.to_owned()));
        let (_, metrics) = get("/metrics").await;
        assert!(metrics.contains(r#"wait_seconds_bucket{le="5"} 1"#), "{metrics}");

        let taken = serve(addr, recorder.handle(), readiness).unwrap_err();
        assert!(taken.to_string().contains("ADMIN_ADDR"), "{taken}");
    }
}
