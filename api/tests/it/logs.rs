//! One line per request says what happened, and never what was asked for.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use api::app::Ports;
use api::queue::QueueError;
use api::store::StoreError;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;

use crate::support::{BrokenQueue, BrokenRecords, MemoryQueue, MemoryRecords, NORTH_KEY, TestApi, get, post, with};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    /// Captures what this thread logs at info and above, until the guard is dropped.
    fn begin() -> (Self, DefaultGuard) {
        Self::begin_at(tracing::Level::INFO)
    }

    fn begin_at(level: tracing::Level) -> (Self, DefaultGuard) {
        // While there is one subscriber alone, tracing asks the thread that first comes to a line whether anybody wants it, and
        // remembers the answer for all threads: that of another test, which wants none. With a second one it asks both.
        LazyLock::force(&SECOND);
        let captured = Self::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        (captured, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_without_prompt_and_key() {
    let (captured, _guard) = Captured::begin();
    let api = TestApi::new();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = with(post("/v1/jobs", &json!({"prompt": "a-very-private-fox"})), "traceparent", traceparent);
    let id = api.send(with(request, "x-correlation-id", "assignment-42")).await.id();
    api.get(&format!("/v1/jobs/{id}")).await;
    api.get("/nowhere/with/a-very-private-fox").await;

    let lines = captured.lines();
    assert_eq!(lines.len(), 3, "{}", captured.text());
    let line = &lines[0];
    assert_eq!(
        (&line["method"], &line["route"], &line["status"], &line["tenant"]),
        (&json!("POST"), &json!("/v1/jobs"), &json!(202), &json!("north"))
    );
    assert_eq!(line["correlation.id"], "assignment-42");
    assert_eq!(line["trace.id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["job.id"], id.to_string());
    assert!(line["latency_ms"].is_u64());
    assert_eq!((&lines[1]["route"], &lines[1]["job.id"]), (&json!("/v1/jobs/{id}"), &json!(id.to_string())));
    assert_eq!((&lines[2]["route"], lines[2].get("tenant")), (&json!("unmatched"), None));
    for secret in ["a-very-private-fox", NORTH_KEY] {
        assert!(!captured.text().contains(secret), "{}", captured.text());
    }
}

#[tokio::test]
async fn a_failure_is_logged_once_with_its_cause_and_names() {
    let (captured, _guard) = Captured::begin();
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let broken = Arc::new(BrokenQueue(QueueError::Misconfigured("AccessDenied: no".into())));
    let ports = Ports { queue: broken, records: records.clone(), now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    api.send(with(post("/v1/jobs", &json!({"prompt": "fox"})), "x-correlation-id", "assignment-42")).await;

    let errors: Vec<_> = captured.lines().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{}", captured.text());
    assert_eq!(errors[0]["problem.code"], "queue_unavailable");
    assert_eq!(errors[0]["cause"], "queue refuses us: AccessDenied: no");
    assert_eq!(errors[0]["span"]["correlation.id"], "assignment-42");
}

#[tokio::test]
async fn a_failure_names_its_job_even_where_only_warnings_are_logged() {
    let (captured, _guard) = Captured::begin_at(tracing::Level::WARN);
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let broken = Arc::new(BrokenRecords(StoreError::Unavailable("down".into())));
    let ports = Ports { queue: queue.clone(), records: broken, now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    let id = crate::support::job().id;
    api.send(with(get(&format!("/v1/jobs/{id}")), "x-correlation-id", "assignment-42")).await;

    let lines = captured.lines();
    let [line] = &lines[..] else { panic!("{}", captured.text()) };
    assert_eq!(line["message"], "request failed");
    assert_eq!(line["span"]["job.id"], id.to_string());
    assert_eq!(line["span"]["correlation.id"], "assignment-42");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_line_too() {
    let (captured, _guard) = Captured::begin();
    let api = TestApi::new();
    let path = format!("/v1/jobs/{}", crate::support::job().id);
    {
        let mut held = Box::pin(api.send(with(get(&path), "prefer", "wait=20")));
        assert!(futures::poll!(held.as_mut()).is_pending());
        assert!(captured.lines().is_empty());
    }
    let lines = captured.lines();
    assert_eq!((lines.len(), &lines[0]["status"]), (1, &json!(499)));
}
