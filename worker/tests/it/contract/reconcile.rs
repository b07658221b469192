//! The reconciler on real servers: a message that SQS itself has moved to the dead-letter queue, and a bucket.

use std::sync::Arc;
use std::time::Duration;

use devstack::stack::DEAD_LETTER_QUEUE;
use jiff::Timestamp;
use job::{Claim, FailureCode, Record, Status};
use uuid::Uuid;
use worker::app::system_clock;
use worker::queue::SqsQueue;
use worker::reconcile::{Bounds, Judged, Passed, Reconciler};

use super::{Server, kept_on_servers};
use crate::support::{MAX_RECEIVE_COUNT, job};

kept_on_servers!(a_job_whose_last_worker_died_without_a_word_ends_and_its_message_stays);

const LEASE: Duration = Duration::from_secs(600);

async fn a_job_whose_last_worker_died_without_a_word_ends_and_its_message_stays(server: Server) {
    let queue = server.queue(Duration::from_secs(2), LEASE).await;
    let store = server.store().await;
    let job = job("a red fox", Timestamp::now());
    queue.backstage.send(&job.encode()).await;
    queue.backstage.send("not a job").await;
    let mut first = None;
    for _ in 0..MAX_RECEIVE_COUNT * 2 {
        for delivery in queue.queue.receive(1).await.unwrap() {
            if delivery.body != "not a job" {
                first = Some(delivery.message_id.clone());
            }
            queue.queue.set_visibility(&delivery.receipt, Duration::ZERO).await.unwrap();
        }
    }
    assert!(queue.queue.receive(1).await.unwrap().is_empty(), "both have been moved");
    let mut record = Record::begin(&job, Timestamp::now());
    record.attempts = MAX_RECEIVE_COUNT;
    record.claim = Some(Claim {
        token: Uuid::new_v4(),
        worker: "gone/1".to_owned(),
        message_id: first.unwrap(),
        receive_count: MAX_RECEIVE_COUNT,
        deadline_at: Timestamp::now(),
    });
    store.store.create_record(&record).await.unwrap();

    let config = queue.config.as_ref().unwrap();
    let client = aws_sdk_sqs::Client::new(config);
    let url = client.get_queue_url().queue_name(DEAD_LETTER_QUEUE).send().await.unwrap().queue_url.unwrap();
    let dead_letters = Arc::new(SqsQueue::new(config, url, Duration::from_secs(1), LEASE));
    let reconciler = Reconciler {
        notices: None,
        dead_letters: dead_letters.clone(),
        store: store.store.clone(),
        shelf: store.shelf.clone(),
        clock: system_clock(),
        retention: Duration::from_secs(4 * 24 * 3600),
        bounds: Bounds::default(),
        name: "this/1".to_owned(),
    };
    let Passed::Done(report) = reconciler.pass().await.unwrap() else { panic!("nobody else is at it") };
    assert_eq!((report.letters_that_are(Judged::Ended), report.letters_that_are(Judged::Poison)), (1, 1));
    assert!(report.saw_every_letter && report.swept && report.unreadable == 0, "{report:?}");

    let (found, _) = store.store.read_record(&job.id).await.unwrap().unwrap();
    assert_eq!((found.status, found.claim), (Status::Failed, None));
    assert_eq!(found.error.unwrap().code, FailureCode::AttemptsExhausted);
    assert!(found.reconciled_at.is_some());
    // Put back: they are there for an operator, and for the next pass.
    let again = reconciler.pass().await.unwrap();
    let Passed::Done(again) = again else { panic!("the lease was given back") };
    assert_eq!((again.letters_that_are(Judged::AlreadyFinal), again.letters_that_are(Judged::Poison)), (1, 1));
}
