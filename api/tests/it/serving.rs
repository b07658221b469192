//! The service on a real port: ready when it listens, drained when it stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::app::{Application, Ports, ServeError, Stopped};
use api::queue::Depth;
use jiff::Timestamp;
use job::{JobId, Record, Status};
use service::readiness::Readiness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::{MemoryQueue, MemoryRecords, NORTH_KEY, claimed, job, settings};

async fn build(args: &[&str], readiness: &Readiness, records: Arc<MemoryRecords>) -> Result<Application, ServeError> {
    let settings = settings(args);
    let ports =
        Ports { queue: Arc::new(MemoryQueue::default()), records, now: Timestamp::now, pauses: Default::default() };
    Application::build(&settings, settings.validate().unwrap(), ports, readiness.clone()).await
}

async fn open_poll(addr: std::net::SocketAddr, id: JobId, prefer: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "GET /v1/jobs/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {NORTH_KEY}\r\nPrefer: {prefer}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// What a poll of a job that waits is answered with, where 24 wait and 12 are in hand, and `record` is what is known of it.
async fn poll_of_a_waiting_job(args: &[&str], record: Option<&Record>) -> String {
    let (settings, queue) = (settings(args), Arc::new(MemoryQueue::default()));
    queue.says(Depth { waiting: 24, in_flight: 12 });
    let records = Arc::new(MemoryRecords::default());
    record.into_iter().for_each(|record| records.put(record));
    let id = record.map_or_else(|| job().id, |record| record.id);
    let ports = Ports { queue, records, now: Timestamp::now, pauses: Default::default() };
    let application = Application::build(&settings, settings.validate().unwrap(), ports, Readiness::starting()).await;
    let application = application.unwrap();
    let (addr, shutdown) = (application.local_addr(), CancellationToken::new());
    let serving = application.run_until_stopped(shutdown.clone().cancelled_owned());
    let client = async {
        let answer = read_all(open_poll(addr, id, "respond-async").await).await;
        shutdown.cancel();
        answer
    };
    tokio::join!(serving, client).1
}

#[tokio::test]
async fn with_a_promise_a_waiting_job_tells_when_it_will_be_done() {
    let answer = poll_of_a_waiting_job(&["--picture-within-seconds=60"], None).await;
    let after = |text: &str| -> u64 {
        let (_, rest) = answer.split_once(text).unwrap_or_else(|| panic!("no {text} in {answer}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    // Two a second leave the workers, each after six: 12 s behind the others and 6 in hand, less what this took.
    let (eta, retry_after) = (after(r#""eta_seconds":"#), after("retry-after: "));
    assert!((6..=18).contains(&eta), "{answer}");
    assert_eq!(retry_after, eta * 4 / 5);
}

#[tokio::test]
async fn without_a_promise_or_without_a_way_to_know_nothing_is_said() {
    // Nor is it, with a promise, of a job that waits for its next attempt, or in the dead-letter queue.
    let mut released = claimed(&job());
    (released.status, released.claim, released.last_fault) = (Status::Queued, None, Some("model_failed".to_owned()));
    for (args, record) in [(&[][..], None), (&["--picture-within-seconds=60"], Some(&released))] {
        let answer = poll_of_a_waiting_job(args, record).await;
        assert!(answer.contains("retry-after: 2") && !answer.contains("eta_seconds"), "{answer}");
    }
}

#[tokio::test]
async fn a_held_request_is_answered_before_the_service_stops() {
    let (readiness, records) = (Readiness::starting(), Arc::new(MemoryRecords::default()));
    let application = build(&[], &readiness, records.clone()).await.unwrap();
    let addr = application.local_addr();
    let shutdown = CancellationToken::new();
    let serving = application.run_until_stopped(shutdown.clone().cancelled_owned());
    let client = async {
        let stream = open_poll(addr, job().id, "wait=20").await;
        while records.reads() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(readiness.is_ready());
        shutdown.cancel();
        read_all(stream).await
    };
    let (stopped, answer) = tokio::join!(serving, client);
    assert_eq!(stopped, Stopped::Drained);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""status":"queued""#), "{answer}");
    assert!(readiness.reasons().contains_key("stopping"));
    TcpStream::connect(addr).await.unwrap_err();
}

#[tokio::test]
async fn an_open_stream_is_told_to_come_back_before_the_service_stops() {
    let (readiness, records) = (Readiness::starting(), Arc::new(MemoryRecords::default()));
    let application = build(&["--shutdown-grace-seconds=600"], &readiness, records.clone()).await.unwrap();
    let addr = application.local_addr();
    let shutdown = CancellationToken::new();
    let serving = application.run_until_stopped(shutdown.clone().cancelled_owned());
    let client = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let id = job().id;
        let head = format!("GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {NORTH_KEY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // Once to begin with, and again while it is open.
        while records.reads() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
        read_all(stream).await
    };
    let (stopped, answer) = tokio::join!(serving, client);
    assert_eq!(stopped, Stopped::Drained);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""status":"queued""#), "{answer}");
    assert!(answer.contains(": the server stops") && answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_after_the_grace() {
    let readiness = Readiness::starting();
    let application = build(&["--shutdown-grace-seconds=1"], &readiness, Arc::default()).await.unwrap();
    let addr = application.local_addr();
    let shutdown = CancellationToken::new();
    let serving = application.run_until_stopped(shutdown.clone().cancelled_owned());
    let client = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {NORTH_KEY}\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The interim answer shows that the handler is reading the body, which never comes.
        let mut interim = [0; 12];
        stream.read_exact(&mut interim).await.unwrap();
        shutdown.cancel();
        (interim, stream)
    };
    let (stopped, (interim, _stream)) = tokio::join!(serving, client);
    assert_eq!(&interim, b"HTTP/1.1 100");
    assert_eq!(stopped, Stopped::GraceRanOut);
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_stop() {
    let readiness = Readiness::starting();
    let application = build(&["--shutdown-grace-seconds=600"], &readiness, Arc::default()).await.unwrap();
    let addr = application.local_addr();
    let shutdown = CancellationToken::new();
    let serving = application.run_until_stopped(shutdown.clone().cancelled_owned());
    let client = async {
        let mut half = TcpStream::connect(addr).await.unwrap();
        half.write_all(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        // An answer on a later connection: the half request has been read.
        let answer = read_all(open_poll(addr, job().id, "wait=0").await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        shutdown.cancel();
        half
    };
    let before = Instant::now();
    let (stopped, _half) = tokio::join!(serving, client);
    assert_eq!(stopped, Stopped::Drained);
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let readiness = Readiness::starting();
    let first = build(&[], &readiness, Arc::default()).await.unwrap();
    let taken = format!("--listen-addr={}", first.local_addr());
    let mut settings = settings(&[]);
    settings.listen_addr = taken.split_once('=').unwrap().1.parse().unwrap();
    let ports = Ports {
        queue: Arc::new(MemoryQueue::default()),
        records: Arc::new(MemoryRecords::default()),
        now: Timestamp::now,
        pauses: Default::default(),
    };
    let error =
        Application::build(&settings, settings.validate().unwrap(), ports, readiness.clone()).await.err().unwrap();
    assert!(error.to_string().contains("LISTEN_ADDR"), "{error}");
    assert!(!readiness.is_ready());
}
