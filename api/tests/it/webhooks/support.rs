//! `Office`: a courier with everything around it in memory but the receivers, which are real.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::queue::QueueError;
use api::store::StoreError;
use api::view::Links;
use api::webhooks::Courier;
use api::webhooks::client::{Lookup, Reach, WebhookClient};
use api::webhooks::queue::{Delivery, NoticeQueue};
use api::webhooks::receivers::Receivers;
use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use jiff::{SignedDuration, Timestamp};
use job::Notice;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::{BrokenRecords, MemoryRecords};

pub(super) const NEW_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(super) const OLD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Returns an entry of `WEBHOOKS`.
pub(super) fn entry(tenant: &str, url: &str) -> String {
    format!(r#""{tenant}": {{"url": "{url}", "secrets": ["{NEW_SECRET}", "{OLD_SECRET}"]}}"#)
}

/// What a receiver answers.
#[derive(Clone)]
pub(super) struct Reply {
    status: StatusCode,
    header: Option<(&'static str, String)>,
    after: Duration,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), header: None, after: Duration::ZERO }
    }

    pub(super) fn with(self, name: &'static str, value: &str) -> Self {
        Self { header: Some((name, value.to_owned())), ..self }
    }

    pub(super) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// One webhook as it arrived.
pub(super) struct Got {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

/// A receiver: a real HTTP server that keeps what it gets.
pub(super) struct Inbox {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    got: Mutex<Vec<Got>>,
    reply: Mutex<Reply>,
    arrived: Notify,
}

impl Inbox {
    pub(super) async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub(super) async fn start_on(addr: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { got: Mutex::default(), reply: Mutex::new(Reply::status(204)), arrived: Notify::new() });
        let of_server = shared.clone();
        let router = Router::new().fallback(move |request: Request| answer(of_server.clone(), request));
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        Self { addr, shared, _serving: JoinSet::from_iter([serve]) }
    }

    /// Answers so from now on.
    pub(super) fn replies(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?token=not-for-a-log", self.addr)
    }

    /// Takes out what has arrived.
    pub(super) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut *self.shared.got.lock().unwrap())
    }

    pub(super) fn only(&self) -> Got {
        let mut got = self.take();
        assert_eq!(got.len(), 1);
        got.remove(0)
    }

    /// Waits until so many have arrived.
    pub(super) async fn heard(&self, count: usize) {
        loop {
            let arrived = self.shared.arrived.notified();
            if self.shared.got.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("webhooks arrive within a minute");
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request) -> (StatusCode, HeaderMap) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.to_string();
    shared.got.lock().unwrap().push(Got { path, headers: parts.headers, body });
    let reply = shared.reply.lock().unwrap().clone();
    shared.arrived.notify_waiters();
    tokio::time::sleep(reply.after).await;
    let header = reply.header.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    (reply.status, header.into_iter().collect())
}

/// What was done with a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Deleted,
    Hidden(Duration),
}

/// A queue that writes down what is done with its notices.
#[derive(Default)]
pub(super) struct MemoryNotices {
    waiting: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
    settled: Mutex<Vec<(String, Settled)>>,
}

impl MemoryNotices {
    pub(super) fn send(&self, body: String) {
        let delivery = Delivery { body, receipt: "sent".into(), receive_count: 1, sent_at: Some(Timestamp::now()) };
        self.waiting.lock().unwrap().push_back(delivery);
        self.arrived.notify_one();
    }

    /// What was done, in order.
    pub(super) fn settled(&self) -> Vec<Settled> {
        self.settled.lock().unwrap().iter().map(|(_, settled)| *settled).collect()
    }

    fn settle(&self, receipt: &str, settled: Settled) {
        self.settled.lock().unwrap().push((receipt.to_owned(), settled));
    }
}

#[async_trait]
impl NoticeQueue for MemoryNotices {
    async fn receive(&self, _: usize) -> Result<Vec<Delivery>, QueueError> {
        loop {
            if let Some(delivery) = self.waiting.lock().unwrap().pop_front() {
                return Ok(vec![delivery]);
            }
            self.arrived.notified().await;
        }
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        self.settle(receipt, Settled::Hidden(visibility));
        Ok(())
    }

    async fn delete(&self, receipt: &str) -> Result<(), QueueError> {
        self.settle(receipt, Settled::Deleted);
        Ok(())
    }
}

/// Says of every name what it is told to.
pub(super) struct Names(pub(super) Mutex<VecDeque<IpAddr>>);

impl Names {
    pub(super) fn new(ips: &[&str]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ips.iter().map(|ip| ip.parse().unwrap()).collect())))
    }
}

#[async_trait]
impl Lookup for Names {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let next = self.0.lock().unwrap().pop_front();
        next.map(|ip| vec![ip]).ok_or_else(|| io::Error::other("looked up once too often"))
    }
}

pub(super) struct Office {
    pub(super) queue: Arc<MemoryNotices>,
    pub(super) records: Arc<MemoryRecords>,
    pub(super) courier: Arc<Courier>,
}

impl Office {
    /// One whose tenant north has this receiver.
    pub(super) fn of(inbox: &Inbox) -> Self {
        Self::at(&inbox.url())
    }

    pub(super) fn at(url: &str) -> Self {
        Self::with(&entry("north", url), Reach::ANYWHERE, Names::new(&[]))
    }

    /// North has the one, south the other.
    pub(super) fn of_two(north: &Inbox, south: &Inbox) -> Self {
        let entries = [entry("north", &north.url()), entry("south", &south.url())].join(", ");
        Self::with(&entries, Reach::ANYWHERE, Names::new(&[]))
    }

    pub(super) fn with(entries: &str, reach: Reach, lookup: Arc<dyn Lookup>) -> Self {
        let (queue, records) = (Arc::new(MemoryNotices::default()), Arc::new(MemoryRecords::default()));
        let courier = Courier {
            queue: queue.clone(),
            records: records.clone(),
            receivers: Receivers::parse(&format!("{{{entries}}}"), true).unwrap(),
            client: WebhookClient::new(reach, lookup).unwrap(),
            links: Links { api: None, cdn: "cdn.example.com".parse().unwrap() },
            retention: Duration::from_secs(4 * 24 * 3600),
            now: Timestamp::now,
        };
        Self { queue, records, courier: Arc::new(courier) }
    }

    pub(super) fn with_broken_records(self) -> Self {
        let broken = Arc::new(BrokenRecords(StoreError::Unavailable("scripted".into())));
        let Ok(courier) = Arc::try_unwrap(self.courier) else { panic!("it has not been started") };
        Self { courier: Arc::new(Courier { records: broken, ..courier }), ..self }
    }

    /// Hands a notice over for the first time, and returns what was done with it.
    pub(super) async fn hand_over(&self, notice: Notice) -> Settled {
        self.hand_over_as(notice.encode(), 1, Duration::ZERO).await
    }

    /// Hands over what was handed over so often, this time included, and sent so long ago.
    pub(super) async fn hand_over_as(&self, body: String, receive_count: u32, age: Duration) -> Settled {
        let receipt = format!("receipt-{:x}", number_of(&body, receive_count));
        let sent_at = Some(Timestamp::now() - SignedDuration::try_from(age).unwrap());
        self.courier.handle(Delivery { body, receipt: receipt.clone(), receive_count, sent_at }).await;
        let settled = self.queue.settled.lock().unwrap();
        let mut ours = settled.iter().rev().filter(|(of, _)| *of == receipt);
        ours.next().expect("it is settled").1
    }
}

/// A number for a hand-over: those of one test run side by side.
fn number_of(body: &str, receive_count: u32) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one((body, receive_count))
}
