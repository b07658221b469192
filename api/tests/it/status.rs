//! What a poll says about a job, in every state it can be in.

use std::sync::Arc;

use api::app::Ports;
use jiff::{Timestamp, ToSpan};
use job::{Failure, FailureCode, ImageFormat, Job, Record, RenditionSpec, Status};
use serde_json::json;

use crate::support::{MemoryQueue, MemoryRecords, SOUTH_KEY, TestApi, claimed, get, job, post, succeeded, with};

#[tokio::test]
async fn a_job_without_a_record_is_queued() {
    let api = TestApi::new();
    let job = job();
    let answer = api.get(&format!("/v1/jobs/{}", job.id)).await;
    assert_eq!(answer.status, 200);
    assert_eq!((answer.header("retry-after"), answer.header("cache-control")), (Some("2"), Some("no-store")));
    assert_eq!(answer.body["created_at"], json!(job.id.issued_at()));
    insta::assert_json_snapshot!(answer.redacted(), @r#"
    {
      "attempts": 0,
      "created_at": "[time]",
      "id": "[id]",
      "status": "queued",
      "urls": {
        "cancel": "/v1/jobs/[id]/cancel",
        "events": "/v1/jobs/[id]/events",
        "retry": "/v1/jobs/[id]/retry",
        "self": "/v1/jobs/[id]"
      }
    }
    "#);
}

#[tokio::test]
async fn a_finished_job_has_its_picture() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&succeeded(&job));
    let answer = api.get(&format!("/v1/jobs/{}", job.id)).await;
    assert_eq!((answer.header("retry-after"), answer.header("cache-control")), (None, Some("private, no-cache")));
    assert_eq!(answer.body["image"]["url"], format!("https://cdn.example.com/images/{}.webp", job.id));
    insta::assert_json_snapshot!(crate::support::redact_image(answer));
}

#[tokio::test]
async fn renditions_are_told_beside_the_picture() {
    let api = TestApi::new();
    let mut job = job();
    let avif = RenditionSpec::new(256, ImageFormat::Avif).unwrap();
    job.spec = job.spec.with_renditions([avif]);
    api.records.put(&succeeded(&job));
    let answer = api.get(&format!("/v1/jobs/{}", job.id)).await;
    let expected = json!([{
        "url": format!("https://cdn.example.com/images/{}-256.avif", job.id), "width": 256, "height": 256,
        "bytes": 12_345, "content_type": "image/avif", "sha256": "cd".repeat(32),
    }]);
    assert_eq!(answer.body["image"]["renditions"], expected);
}

#[tokio::test]
async fn an_alternative_text_is_told_as_it_was_sent() {
    let api = TestApi::new();
    let text = "Ein \"Fuchs\" – 狐";
    let answer = api.submit(json!({"prompt": "a red fox", "alt_text": text})).await;
    let [job] = &api.queue.jobs()[..] else { panic!("expected one job") };
    assert_eq!((job.id, job.spec.alt_text()), (answer.id(), Some(text)));
    api.records.put(&succeeded(job));
    assert_eq!(api.get(&format!("/v1/jobs/{}", job.id)).await.body["alt_text"], text);
}

#[tokio::test]
async fn every_state_is_told_with_what_belongs_to_it() {
    for status in Status::ALL {
        let api = TestApi::new();
        let job = job();
        let mut record = claimed(&job);
        match status {
            Status::Queued => record.claim = None,
            Status::Generating | Status::Processing => record.status = status,
            Status::Succeeded => record = succeeded(&job),
            Status::Failed => record.error = Some(Failure::new(FailureCode::AttemptsExhausted, "timed out 5 times")),
            Status::Blocked => record.error = Some(Failure::new(FailureCode::ContentFiltered, "Filter reason: prompt")),
            Status::Canceled | Status::Expired => {}
        }
        if status.is_final() && status != Status::Succeeded {
            record.finish(status, Timestamp::now());
        }
        api.records.put(&record);
        let answer = api.get(&format!("/v1/jobs/{}", job.id)).await;
        assert_eq!(answer.body["status"], status.as_str());
        assert_eq!(answer.body.get("image").is_some(), status == Status::Succeeded, "{status}");
        assert_eq!(answer.body.get("error").is_some(), matches!(status, Status::Failed | Status::Blocked), "{status}");
        assert_eq!(answer.body.get("finished_at").is_some(), status.is_final(), "{status}");
        assert_eq!(answer.header("retry-after").is_some(), !status.is_final(), "{status}");
        if status == Status::Blocked {
            assert_eq!(answer.body["error"]["code"], "content_filtered");
            assert_eq!(answer.body["error"]["retryable"], false);
        }
    }
}

#[tokio::test]
async fn no_url_is_handed_out_before_the_record_says_that_the_job_has_succeeded() {
    for status in Status::ALL.into_iter().filter(|status| *status != Status::Succeeded) {
        let api = TestApi::new();
        let job = job();
        // Whatever else a record tells.
        let record = Record { status, claim: claimed(&job).claim, ..succeeded(&job) };
        api.records.put(&record);
        let answer = api.get(&format!("/v1/jobs/{}", job.id)).await;
        assert_eq!(answer.body["status"], status.as_str());
        assert_eq!(answer.body.get("image"), None, "{status}");
    }
}

#[tokio::test]
async fn an_orphan_is_queued_again_once_its_claim_has_run_out() {
    let api = TestApi::new();
    let job = job();
    let mut record = claimed(&job);
    record.claim.as_mut().unwrap().deadline_at = Timestamp::now() - 1.second();
    api.records.put(&record);
    assert_eq!(api.get(&format!("/v1/jobs/{}", job.id)).await.body["status"], "queued");
}

#[tokio::test]
async fn nothing_is_queued_for_longer_than_the_queue_keeps_it() {
    fn in_five_days() -> Timestamp {
        Timestamp::now() + (5 * 24).hours()
    }
    fn in_three_days() -> Timestamp {
        Timestamp::now() + (3 * 24).hours()
    }
    for (now, unseen, orphan) in
        [(in_three_days as fn() -> Timestamp, "queued", "queued"), (in_five_days, "expired", "expired")]
    {
        let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
        let ports = Ports { queue: queue.clone(), records: records.clone(), now, pauses: Default::default() };
        let api = TestApi::with_ports(&[], queue, records, ports);
        let answer = api.get(&format!("/v1/jobs/{}", job().id)).await;
        assert_eq!(answer.body["status"], unseen);
        let job = job();
        api.records.put(&claimed(&job));
        assert_eq!(api.get(&format!("/v1/jobs/{}", job.id)).await.body["status"], orphan);
    }
}

#[tokio::test]
async fn a_job_that_a_redrive_has_brought_back_is_queued_however_old_it_is() {
    let api = TestApi::new();
    let old = Job { submitted_at: Timestamp::now() - (5 * 24).hours(), ..job() };
    // Given back by a worker just now; and asked for again, by a message that was sent since.
    let mut given_back = claimed(&old);
    (given_back.status, given_back.claim) = (Status::Queued, None);
    for (updated_at, retried_at, status) in [
        (Timestamp::now(), None, "queued"),
        (old.submitted_at, Some(Timestamp::now()), "queued"),
        (Timestamp::now() - (3 * 24).hours(), Some(old.submitted_at), "queued"),
        (old.submitted_at, None, "expired"),
    ] {
        api.records.put(&Record { updated_at, retried_at, ..given_back.clone() });
        let view = api.get(&format!("/v1/jobs/{}", old.id)).await.body;
        assert_eq!(view["status"], status, "{view}");
    }
}

/// The limit of the guarantee above, as README.md and docs/operations.md tell it.
#[tokio::test]
async fn an_id_from_a_key_reads_queued_as_long_as_it_has_no_record_and_a_repeat_mends_it() {
    fn in_five_days() -> Timestamp {
        Timestamp::now() + (5 * 24).hours()
    }
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let ports = Ports { queue: queue.clone(), records: records.clone(), now: in_five_days, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    let submit = async || api.send(with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "one")).await;
    let id = submit().await.id();
    let view = api.get(&format!("/v1/jobs/{id}")).await.body;
    assert_eq!((&view["status"], view.get("created_at")), (&json!("queued"), None));
    // The message may be lost; the same request puts it into the queue again.
    assert_eq!(submit().await.id(), id);
    assert_eq!(api.queue.jobs().len(), 2);
}

#[tokio::test]
async fn an_id_that_is_not_the_callers_is_not_there() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&succeeded(&job));
    let id = job.id.to_string();
    let (uuid, _) = id.split_once('-').unwrap();
    let forged = format!("{uuid}-0123456789abcdef");
    for bad in ["x", "%ff", &forged, &id.to_uppercase(), &format!("{id}0"), "%00"] {
        for path in [format!("/v1/jobs/{bad}"), format!("/v1/jobs/{bad}/cancel")] {
            let request = if path.ends_with("cancel") { post(&path, &json!(null)) } else { get(&path) };
            let answer = api.send(request).await;
            answer.assert_problem(404, "job_not_found");
        }
    }
    let south = with(get(&format!("/v1/jobs/{id}")), "authorization", &format!("Bearer {SOUTH_KEY}"));
    api.send(south).await.assert_problem(404, "job_not_found");
}

#[tokio::test]
async fn an_etag_names_the_state() {
    let api = TestApi::new();
    let job = job();
    let path = format!("/v1/jobs/{}", job.id);
    let queued = api.get(&path).await.header("etag").unwrap().to_owned();

    let unchanged = api.send(with(get(&path), "if-none-match", &queued)).await;
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.body, json!(null));
    assert_eq!(unchanged.header("etag"), Some(&*queued));
    assert_eq!(unchanged.header("retry-after"), Some("2"));

    api.records.put(&succeeded(&job));
    let changed = api.send(with(get(&path), "if-none-match", &queued)).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(&*queued));
    let list = format!("\"other\", W/{}", changed.header("etag").unwrap());
    assert_eq!(api.send(with(get(&path), "if-none-match", &list)).await.status, 304);
}
