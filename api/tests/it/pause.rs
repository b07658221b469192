//! What operators have paused is refused with their reason, and shown.

use jiff::Timestamp;
use job::{Part, Pause, Pauses};
use serde_json::json;

use crate::support::{TestApi, job, post};

fn paused(part: Part) -> Pauses {
    let mut pauses = Pauses::default();
    let since: Timestamp = "2026-11-26T08:00:00Z".parse().unwrap();
    pauses.set(part, Some(Pause::new("The model is being changed.", "someone@example.com", since).unwrap()));
    pauses
}

#[tokio::test]
async fn submissions_are_refused_while_intake_is_paused_and_all_else_goes_on() {
    let api = TestApi::new();
    api.pauses.set(paused(Part::Intake));
    for (path, body) in [("/v1/jobs", json!({"prompt": "fox"})), ("/v1/batches", json!({"jobs": [{"prompt": "fox"}]}))]
    {
        let answer = api.send(post(path, &body)).await;
        answer.assert_problem(503, "intake_paused");
        assert_eq!(answer.header("retry-after"), Some("60"));
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("The model is being changed."), "{detail}");
        assert!(!answer.body.to_string().contains("someone@example.com"), "who did it is for operators");
    }
    assert_eq!(api.queue.jobs().len(), 0);
    let path = format!("/v1/jobs/{}", job().id);
    assert_eq!(api.get(&path).await.status, 200);
    assert_eq!(api.send(post(&format!("{path}/cancel"), &json!(null))).await.status, 200);
    api.pauses.set(Pauses::default());
    assert_eq!(api.submit(json!({"prompt": "fox"})).await.status, 202);
}

#[tokio::test]
async fn a_pause_of_generation_refuses_nothing_and_is_shown_with_its_reason() {
    let api = TestApi::new();
    let open = json!({"paused": false});
    assert_eq!(api.get("/v1/queue").await.body, json!({"intake": open, "generation": open}));
    api.pauses.set(paused(Part::Generation));
    let shown = api.get("/v1/queue").await;
    assert_eq!((shown.status.as_u16(), shown.header("cache-control")), (200, Some("no-store")));
    let reason = "The model is being changed.";
    let closed = json!({"paused": true, "reason": reason, "since": "2026-11-26T08:00:00Z"});
    assert_eq!(shown.body, json!({"intake": open, "generation": closed}));
    assert_eq!(api.submit(json!({"prompt": "fox"})).await.status, 202);
}
