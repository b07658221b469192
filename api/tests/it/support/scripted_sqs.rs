//! `ScriptedSqs`: an SQS that answers `SendMessageBatch` as a test wants it, over real HTTP.

use std::sync::{Arc, Mutex};

use api::queue::SqsQueue;
use aws_sdk_sqs::config::retry::RetryConfig;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use devstack::embedded::sdk_config;
use job::Job;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    /// Refused, with this code.
    Refused(&'static str),
    /// Named nowhere in the answer.
    Forgotten,
}

pub(crate) type Fates = dyn Fn(&Job) -> Fate + Send + Sync;

/// A server on a free port of loopback. It ends with its runtime.
pub(crate) struct ScriptedSqs {
    pub(crate) queue: Arc<SqsQueue>,
    seen: Arc<Seen>,
    _server: JoinSet<()>,
}

struct Seen {
    calls: Mutex<Vec<Vec<Job>>>,
    fates: Box<Fates>,
    /// Answers to whole calls in their order; `None` is an answer entry by entry.
    whole: Mutex<Vec<Option<&'static str>>>,
    /// One permit for each answer.
    answers: Arc<Semaphore>,
}

impl ScriptedSqs {
    /// Starts it: each call waits for a permit of `answers`; the first calls fail as `whole` says.
    pub(crate) async fn start(
        fates: impl Fn(&Job) -> Fate + Send + Sync + 'static,
        mut whole: Vec<Option<&'static str>>,
        answers: Arc<Semaphore>,
    ) -> Self {
        whole.reverse();
        let (calls, fates, whole) = (Mutex::default(), Box::new(fates), Mutex::new(whole));
        let seen = Arc::new(Seen { calls, fates, whole, answers });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = aws_sdk_sqs::config::Builder::from(&sdk_config())
            .endpoint_url(&url)
            .retry_config(RetryConfig::disabled())
            .build();
        let client = aws_sdk_sqs::Client::from_conf(config);
        let queue = Arc::new(SqsQueue::new(client, format!("{url}/000000000000/image-jobs"), None));
        Self { queue, seen, _server: server }
    }

    /// Returns the jobs of every call so far.
    pub(crate) fn calls(&self) -> Vec<Vec<Job>> {
        self.seen.calls.lock().unwrap().clone()
    }
}

async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["x-amz-target"], "AmazonSQS.SendMessageBatch");
    let request: Value = serde_json::from_slice(&body).unwrap();
    let entries = request["Entries"].as_array().unwrap();
    let jobs: Vec<Job> =
        entries.iter().map(|entry| Job::decode(entry["MessageBody"].as_str().unwrap()).unwrap()).collect();
    for (entry, job) in entries.iter().zip(&jobs) {
        assert_eq!(entry["MessageGroupId"], job.tenant.as_str());
    }
    let whole = {
        // Both under one lock: the number of a call tells what its answer was.
        let mut calls = seen.calls.lock().unwrap();
        calls.push(jobs.clone());
        seen.whole.lock().unwrap().pop().flatten()
    };
    seen.answers.acquire().await.unwrap().forget();
    if let Some(code) = whole {
        return (StatusCode::BAD_REQUEST, json!({ "__type": code, "message": "as the script says" }).to_string())
            .into_response();
    }
    // Backwards: an answer is in no order that anybody has promised.
    let (mut successful, mut failed) = (vec![], vec![]);
    for (entry, job) in entries.iter().zip(&jobs).rev() {
        match (seen.fates)(job) {
            Fate::Taken => {
                successful.push(json!({ "Id": entry["Id"], "MessageId": job.id, "MD5OfMessageBody": "unread" }));
            }
            Fate::Refused(code) => failed.push(json!({ "Id": entry["Id"], "Code": code, "SenderFault": false })),
            Fate::Forgotten => {}
        }
    }
    let answer = json!({ "Successful": successful, "Failed": failed }).to_string();
    ([("content-type", "application/x-amz-json-1.0")], answer).into_response()
}
