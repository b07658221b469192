//! Asking for a job again: what is put into the queue, what the record says meanwhile, and what is refused.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use api::app::Ports;
use api::queue::QueueError;
use axum::body::Body;
use axum::http::Request;
use jiff::{Timestamp, ToSpan};
use job::{Failure, FailureCode, Job, Record, Status};
use serde_json::{Value, json};

use crate::support::{
    Answer, BrokenQueue, ContendedRecords, MemoryQueue, MemoryRecords, SOUTH_KEY, TestApi, claimed, job, post,
    succeeded, with,
};

fn request(job: &Job, body: &Value) -> Request<Body> {
    post(&format!("/v1/jobs/{}/retry", job.id), body)
}

async fn retry(api: &TestApi, job: &Job) -> Answer {
    api.send(request(job, &json!({"prompt": "a red fox"}))).await
}

fn failed(job: &Job, code: FailureCode) -> Record {
    let mut record = claimed(job);
    record
        .finish(if code == FailureCode::ContentFiltered { Status::Blocked } else { Status::Failed }, Timestamp::now());
    record.error = Some(Failure::new(code, "of no matter here"));
    record
}

#[tokio::test]
async fn an_exhausted_job_waits_again_under_its_own_id() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&failed(&job, FailureCode::AttemptsExhausted));
    let answer = api.send(request(&job, &json!({"prompt": "a red fox", "deadline_seconds": 60}))).await;
    assert_eq!((answer.status.as_u16(), answer.id(), &answer.body["status"]), (202, job.id, &json!("queued")));
    assert_eq!(answer.header("location"), Some(&*format!("/v1/jobs/{}", job.id)));
    assert_eq!(answer.header("retry-after"), Some("2"));

    let sent = api.queue.jobs();
    let [again] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((again.id, &again.spec, again.retries), (job.id, &job.spec, 1));
    assert!(again.deadline_at.is_some_and(|deadline| deadline > Timestamp::now() + 50.seconds()), "{again:?}");
    let record = api.records.record(&job.id).unwrap();
    assert_eq!(
        (record.status, record.retries, record.error.clone(), record.claim.clone()),
        (Status::Queued, 1, None, None)
    );
    assert_eq!((record.attempts, record.deadline_at, record.finished_at), (1, again.deadline_at, None));

    let view = api.get(&format!("/v1/jobs/{}", job.id)).await.body;
    assert_eq!((&view["status"], &view["retries"], view.get("error")), (&json!("queued"), &json!(1), None));
    assert_eq!(view["created_at"], answer.body["created_at"], "it is the same job");

    // The answer was lost, and the client asks once more: the job is under way.
    let repeated = retry(&api, &job).await;
    assert_eq!((repeated.status.as_u16(), &repeated.body["status"]), (202, &json!("queued")));
    assert_eq!(api.queue.jobs().len(), 1);
}

#[tokio::test]
async fn a_canceled_job_can_be_wanted_again_and_withdrawn_again() {
    let api = TestApi::new();
    let job = job();
    let cancel = async || api.send(post(&format!("/v1/jobs/{}/cancel", job.id), &json!(null))).await.status.as_u16();
    // Before any worker has seen it, and while one asks the model.
    assert_eq!((cancel().await, retry(&api, &job).await.status.as_u16()), (200, 202));
    let mut record = api.records.record(&job.id).unwrap();
    assert_eq!((record.status, record.spec_fingerprint), (Status::Queued, Some(job.spec.fingerprint())));
    record = claimed(&job);
    record.retries = 1;
    record.paying_until = Some(Timestamp::now() + 60.seconds());
    api.records.put(&record);
    assert_eq!((cancel().await, retry(&api, &job).await.status.as_u16()), (200, 202));
    assert_eq!(api.queue.jobs().iter().map(|job| job.retries).collect::<Vec<_>>(), [1, 2]);
    let waiting = api.records.record(&job.id).unwrap();
    assert_eq!((waiting.status, waiting.retries, waiting.paying_until), (Status::Queued, 2, record.paying_until));
    assert_eq!(cancel().await, 200);
    assert_eq!(api.records.record(&job.id).unwrap().status, Status::Canceled);
}

#[tokio::test]
async fn where_the_model_has_answered_nothing_is_asked_again() {
    let api = TestApi::new();
    for record in [
        succeeded(&job()),
        failed(&job(), FailureCode::ContentFiltered),
        failed(&job(), FailureCode::RequestRejected),
        failed(&job(), FailureCode::SourceUndecodable),
    ] {
        api.records.put(&record);
        let job = Job { id: record.id, ..job() };
        let answer = retry(&api, &job).await;
        answer.assert_problem(409, "job_not_retryable");
        assert_eq!(answer.body["instance"], format!("/v1/jobs/{}", job.id));
        assert_eq!(api.records.record(&job.id), Some(record));
    }
    assert!(api.queue.jobs().is_empty());
}

#[tokio::test]
async fn another_description_is_another_job() {
    let api = TestApi::new();
    let job = job();
    for record in [failed(&job, FailureCode::AttemptsExhausted), claimed(&job), succeeded(&job)] {
        api.records.put(&record);
        for body in [
            json!({"prompt": "a blue hen"}),
            json!({"prompt": "a red fox", "seed": 7}),
            json!({"prompt": "a red fox", "renditions": [{"width": 256, "format": "webp"}]}),
        ] {
            let answer = api.send(request(&job, &body)).await;
            answer.assert_invalid("body");
            assert!(answer.body["detail"].as_str().unwrap().contains("same prompt"), "{}", answer.body);
        }
    }
    api.send(request(&job, &json!({"prompt": " "}))).await.assert_invalid("prompt");
    api.send(request(&job, &json!({"prompt": "a red fox", "id": 1}))).await.assert_invalid("id");
    assert!(api.queue.jobs().is_empty());
}

#[tokio::test]
async fn a_job_that_no_worker_has_seen_is_put_into_the_queue_again() {
    fn in_five_days() -> Timestamp {
        Timestamp::now() + (5 * 24).hours()
    }
    // Its message may wait, or be lost. Where it waits, with a deadline that has passed, the number in the record takes its word.
    let api = TestApi::new();
    let waiting = job();
    let answer = api.send(request(&waiting, &json!({"prompt": "a red fox", "deadline_seconds": 600}))).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (202, &json!("queued")));
    let again = api.queue.jobs().remove(0);
    let record = api.records.record(&waiting.id).unwrap();
    assert_eq!((again.retries, record.retries, record.status), (1, 1, Status::Queued));
    assert_eq!((record.deadline_at, record.retried_at), (again.deadline_at, Some(again.submitted_at)));
    assert_eq!((record.submitted_at, record.started_at, record.attempts), (waiting.id.issued_at(), None, 0));
    // From here on it is known what is asked for.
    api.send(request(&waiting, &json!({"prompt": "a blue hen"}))).await.assert_invalid("body");
    assert_eq!(retry(&api, &waiting).await.status, 202);
    assert_eq!(api.queue.jobs().len(), 1, "it is under way");

    // It is lost: without a record, and with that of a worker that died.
    for record in [None, Some(claimed(&waiting))] {
        let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
        let ports =
            Ports { queue: queue.clone(), records: records.clone(), now: in_five_days, pauses: Default::default() };
        let api = TestApi::with_ports(&[], queue, records, ports);
        if let Some(record) = &record {
            api.records.put(record);
        }
        let path = format!("/v1/jobs/{}", waiting.id);
        assert_eq!(api.get(&path).await.body["status"], "expired");
        assert_eq!(retry(&api, &waiting).await.status, 202);
        assert_eq!(api.queue.jobs()[0].retries, 1);
        let view = api.get(&path).await.body;
        assert_eq!(view["status"], "queued", "it has the whole retention again: {view}");
        let issued: Timestamp = view["created_at"].as_str().unwrap().parse().unwrap();
        assert!(issued < Timestamp::now() + 1.hours(), "{view}");
    }
}

/// Sends a retry with `body`, and lets a worker write `rival` right before each of the first `times` writes of the record.
async fn retry_beside(rival: &Record, times: usize, first: Option<&Record>, body: &Value) -> (TestApi, Answer) {
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    first.into_iter().for_each(|first| records.put(first));
    let store =
        ContendedRecords { records: records.clone(), rival: rival.clone(), rivals_left: AtomicUsize::new(times) };
    let ports =
        Ports { queue: queue.clone(), records: Arc::new(store), now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    let job = Job { id: rival.id, ..job() };
    let answer = api.send(request(&job, body)).await;
    (api, answer)
}

#[tokio::test]
async fn a_worker_that_was_faster_keeps_its_claim() {
    let job = job();
    let rival = Record { retries: 1, ..claimed(&job) };
    for first in [Some(failed(&job, FailureCode::AttemptsExhausted)), None] {
        let (api, answer) = retry_beside(&rival, 1, first.as_ref(), &json!({"prompt": "a red fox"})).await;
        assert_eq!(answer.status, 202);
        assert_eq!(api.records.record(&job.id).as_ref(), Some(&rival));
    }
}

#[tokio::test]
async fn a_worker_that_takes_the_message_before_meanwhile_does_not_have_the_last_word() {
    let job = job();
    let paying_until = Some(Timestamp::now() + 60.seconds());
    let deadline_at = Some(Timestamp::now() + 1.second());
    let at_work = Record { paying_until, deadline_at, ..claimed(&job) };
    let mut expired = at_work.clone();
    expired.finish(Status::Expired, Timestamp::now());
    let body = json!({"prompt": "a red fox", "deadline_seconds": 600});
    for (rival, times) in [(&at_work, 1), (&expired, 1), (&at_work, 3)] {
        let (api, answer) = retry_beside(rival, times, None, &body).await;
        assert_eq!((answer.status.as_u16(), api.queue.jobs()[0].retries), (202, 1));
        let record = api.records.record(&job.id).unwrap();
        // Without the number, a cancel from now on would be undone by the message that was sent.
        assert_eq!((record.status, record.retries, record.claim), (Status::Queued, 1, None));
        assert_eq!((record.deadline_at, record.attempts), (api.queue.jobs()[0].deadline_at, 1));
        assert_eq!(record.paying_until, paying_until, "whoever is next waits for the call that may be under way");
    }
    // The picture is there already, or it is one of something else.
    let (api, answer) = retry_beside(&succeeded(&job), 1, None, &body).await;
    assert_eq!((answer.status.as_u16(), api.records.record(&job.id).unwrap().status), (202, Status::Succeeded));
    let (api, answer) = retry_beside(&at_work, 1, None, &json!({"prompt": "a blue hen"})).await;
    answer.assert_invalid("body");
    assert_eq!(api.records.record(&job.id), Some(at_work));
}

#[tokio::test]
async fn without_the_queue_the_old_end_stands() {
    let job = job();
    let records = Arc::new(MemoryRecords::default());
    let record = failed(&job, FailureCode::AttemptsExhausted);
    records.put(&record);
    let queue = Arc::new(BrokenQueue(QueueError::Unavailable("secret-host".into())));
    let ports = Ports { queue, records: records.clone(), now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], Arc::default(), records, ports);
    retry(&api, &job).await.assert_problem(503, "queue_unavailable");
    assert_eq!(api.records.record(&job.id), Some(record));
}

#[tokio::test]
async fn it_takes_what_a_submission_takes() {
    let api = TestApi::with_args(&["--jobs-per-minute=1", "--jobs-burst=1"]);
    let job = job();
    let south = with(request(&job, &json!({"prompt": "a red fox"})), "authorization", &format!("Bearer {SOUTH_KEY}"));
    api.send(south).await.assert_problem(404, "job_not_found");
    let untyped = with(request(&job, &json!({"prompt": "a red fox"})), "content-type", "text/plain");
    api.send(untyped).await.assert_problem(415, "unsupported_media_type");
    retry(&api, &job).await.assert_problem(429, "rate_limited");
    assert!(api.queue.jobs().is_empty());
}
