//! The stand-in over HTTP, in front of an origin in memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use tokio::sync::Semaphore;

use super::*;

const KEY: &str = "images/one.webp";

/// Objects, or the error every fetch gets; `gate` holds fetches back until it is given permits.
#[derive(Clone, Default)]
struct MemoryOrigin(Arc<MemoryState>);

struct MemoryState {
    objects: Mutex<HashMap<String, OriginObject>>,
    failure: Mutex<Option<OriginError>>,
    fetches: AtomicU64,
    gate: Semaphore,
}

impl Default for MemoryState {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            failure: Mutex::default(),
            fetches: AtomicU64::default(),
            gate: Semaphore::new(1000),
        }
    }
}

#[async_trait]
impl Origin for MemoryOrigin {
    async fn fetch(&self, key: &str, if_none_match: Option<&str>) -> Result<Fetched, OriginError> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let _open = self.0.gate.acquire().await.unwrap();
        if let Some(failure) = self.0.failure.lock().unwrap().clone() {
            return Err(failure);
        }
        let object = self.0.objects.lock().unwrap().get(key).cloned().ok_or(OriginError::AccessDenied)?;
        let unchanged = if_none_match.is_some() && if_none_match == object.etag.as_deref();
        Ok(if unchanged { Fetched::NotModified } else { Fetched::Object(object) })
    }
}

/// A stand-in, its origin and the seconds its clock is ahead.
struct Fixture {
    cdn: CdnStandIn,
    origin: MemoryOrigin,
    ahead: Arc<AtomicU64>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn cached(&self) -> (u16, &str) {
        (self.status, self.header("x-cache").strip_suffix(" from cloudfront").unwrap())
    }
}

impl Fixture {
    async fn start(change: impl FnOnce(&mut CdnOptions)) -> Self {
        let (origin, ahead) = (MemoryOrigin::default(), Arc::new(AtomicU64::new(0)));
        let mut options = CdnOptions::new(origin.clone());
        let (start, seconds) = (Instant::now(), Arc::clone(&ahead));
        options.clock = Clock::new(move || start + Duration::from_secs(seconds.load(Ordering::SeqCst)));
        change(&mut options);
        let cdn = CdnStandIn::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.unwrap();
        Self { cdn, origin, ahead }
    }

    fn put(&self, key: &str, body: &'static str, cache_control: Option<&str>) {
        let object = OriginObject {
            body: body.into(),
            content_type: Some("image/webp".into()),
            cache_control: cache_control.map(str::to_owned),
            etag: Some(format!("\"{body}\"")),
            last_modified: Some("Tue, 24 Nov 2026 10:00:00 GMT".into()),
            metadata: vec![("correlation-id".into(), "c-1".into())],
        };
        self.origin.0.objects.lock().unwrap().insert(key.into(), object);
    }

    fn fail(&self, failure: Option<OriginError>) {
        *self.origin.0.failure.lock().unwrap() = failure;
    }

    fn fetches(&self) -> u64 {
        self.origin.0.fetches.load(Ordering::SeqCst)
    }

    fn pass(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Client::new().request(method, format!("http://{}/{path}", self.cdn.local_addr()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    async fn stats(&self) -> CdnStats {
        serde_json::from_slice(&self.get("_standin/stats").await.body).unwrap()
    }
}

#[tokio::test]
async fn the_second_request_is_a_hit_with_the_headers_of_an_edge() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put(KEY, "picture", Some("public, max-age=31536000, immutable"));
    let miss = fixture.get(KEY).await;
    assert_eq!((miss.cached(), miss.header("age")), ((200, "Miss"), ""));
    fixture.pass(42);
    // The query string makes no difference.
    let hit = fixture.get(&format!("{KEY}?v=2")).await;
    assert_eq!((hit.cached(), hit.header("age"), hit.body.as_slice()), ((200, "Hit"), "42", b"picture".as_slice()));
    for (name, value) in [
        ("content-type", "image/webp"),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("etag", "\"picture\""),
        ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT"),
        ("x-amz-meta-correlation-id", "c-1"),
        ("accept-ranges", "bytes"),
        ("access-control-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=31536000"),
        ("content-length", "7"),
    ] {
        assert_eq!(hit.header(name), value, "{name}");
    }
    for name in ["via", "x-amz-cf-pop", "x-amz-cf-id"] {
        assert!(!hit.header(name).is_empty(), "{name}");
    }
    let head = fixture.send(Method::HEAD, KEY, &[]).await;
    assert_eq!((head.cached(), head.header("content-length"), head.body.len()), ((200, "Hit"), "7", 0));
    let stats = fixture.stats().await;
    assert_eq!((stats.hits, stats.misses, stats.errors, stats.entries, stats.bytes), (2, 1, 0, 1, 7));
    assert_eq!(fixture.send(Method::DELETE, "_standin/cache", &[]).await.status, 204);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Miss"));
    assert_eq!(fixture.get("_standin/health").await.status, 200);
    fixture.cdn.stop().await;
}

#[tokio::test]
async fn only_images_are_served_and_only_read() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put("records/one.json", "{}", None);
    for path in ["records/one.json", "sources/one", "", "images"] {
        let answer = fixture.get(path).await;
        assert_eq!((answer.cached(), answer.header("content-type")), ((403, "Error"), "application/xml"), "{path}");
        assert!(String::from_utf8(answer.body).unwrap().contains("<Code>AccessDenied</Code>"));
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(fixture.send(method, KEY, &[]).await.cached(), (403, "Error"));
    }
    assert_eq!(fixture.fetches(), 0);
}

#[tokio::test]
async fn with_error_caching_zero_a_missing_picture_appears_as_soon_as_it_exists() {
    let fixture = Fixture::start(|_| {}).await;
    let missing = fixture.get(KEY).await;
    assert_eq!(missing.cached(), (403, "Error"));
    assert!(String::from_utf8(missing.body).unwrap().contains("AccessDenied"));
    fixture.put(KEY, "picture", None);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Miss"));
}

#[tokio::test]
async fn with_cloudfronts_own_default_a_cached_error_hides_the_picture_for_ten_seconds() {
    let fixture = Fixture::start(|options| options.error_caching_min_ttl = Duration::from_secs(10)).await;
    assert_eq!(fixture.get(KEY).await.cached(), (403, "Error"));
    fixture.put(KEY, "picture", None);
    fixture.pass(9);
    assert_eq!(fixture.get(KEY).await.cached(), (403, "Error"));
    assert_eq!(fixture.fetches(), 1);
    fixture.pass(1);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Miss"));
    assert_eq!(fixture.stats().await.errors, 2);
}

#[tokio::test]
async fn an_expired_object_is_revalidated() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put(KEY, "first", Some("max-age=60"));
    fixture.get(KEY).await;
    fixture.pass(59);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Hit"));
    fixture.pass(1);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "RefreshHit"));
    // A revalidated object is young again.
    fixture.pass(59);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Hit"));
    fixture.put(KEY, "second", Some("no-store"));
    fixture.pass(1);
    let changed = fixture.get(KEY).await;
    assert_eq!((changed.cached(), changed.body.as_slice()), ((200, "Miss"), b"second".as_slice()));
    // The policy's minimum of one second wins over no-store.
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Hit"));
    fixture.pass(1);
    assert_eq!(fixture.get(KEY).await.cached(), (200, "RefreshHit"));
}

#[tokio::test]
async fn an_origin_in_trouble_is_a_gateway_error_unless_there_is_an_expired_object() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.fail(Some(OriginError::Unreachable("connection refused".into())));
    let unreachable = fixture.get(KEY).await;
    assert_eq!((unreachable.cached(), unreachable.header("content-type")), ((502, "Error"), "text/html"));
    fixture.fail(Some(OriginError::Status(503)));
    assert_eq!(fixture.get(KEY).await.cached(), (503, "Error"));
    fixture.fail(None);
    fixture.put(KEY, "picture", Some("max-age=5"));
    assert_eq!(fixture.get(KEY).await.cached(), (200, "Miss"));
    fixture.pass(6);
    for trouble in [OriginError::Unreachable("connection refused".into()), OriginError::Status(503)] {
        fixture.fail(Some(trouble));
        let stale = fixture.get(KEY).await;
        assert_eq!((stale.status, stale.body.as_slice()), (200, b"picture".as_slice()));
    }
    // Gone is gone.
    fixture.fail(Some(OriginError::AccessDenied));
    assert_eq!(fixture.get(KEY).await.cached(), (403, "Error"));
}

#[tokio::test]
async fn conditional_and_range_requests_are_answered_from_the_cache() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put(KEY, "0123456789", None);
    fixture.get(KEY).await;
    let unchanged = fixture.send(Method::GET, KEY, &[("if-none-match", "\"0123456789\"")]).await;
    assert_eq!((unchanged.cached(), unchanged.body.len()), ((304, "Hit"), 0));
    assert_eq!(unchanged.header("etag"), "\"0123456789\"");
    let since = [("if-modified-since", "Tue, 24 Nov 2026 10:00:00 GMT")];
    assert_eq!(fixture.send(Method::GET, KEY, &since).await.status, 304);
    assert_eq!(fixture.send(Method::GET, KEY, &[("if-none-match", "\"other\"")]).await.status, 200);
    let part = fixture.send(Method::GET, KEY, &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.body.as_slice()), (206, b"234".as_slice()));
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 2-4/10", "3"));
    let stale_part = fixture.send(Method::GET, KEY, &[("range", "bytes=2-4"), ("if-range", "\"other\"")]).await;
    assert_eq!((stale_part.status, stale_part.body.len()), (200, 10));
    let beyond = fixture.send(Method::GET, KEY, &[("range", "bytes=10-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
    assert_eq!(fixture.fetches(), 1);
}

#[tokio::test]
async fn concurrent_misses_make_one_fetch() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put(KEY, "picture", None);
    fixture.origin.0.gate.forget_permits(usize::MAX);
    let viewers = futures::future::join_all((0..8).map(|_| fixture.get(KEY)));
    let opened = async {
        while fixture.fetches() == 0 {
            tokio::task::yield_now().await;
        }
        fixture.origin.0.gate.add_permits(8);
    };
    let (answers, ()) = tokio::join!(viewers, opened);
    assert!(answers.iter().all(|answer| answer.body == b"picture"));
    assert_eq!(answers.iter().filter(|answer| answer.cached() == (200, "Miss")).count(), 1);
    assert_eq!(fixture.fetches(), 1);
    assert_eq!(fixture.stats().await.origin_requests, 1);
}

#[tokio::test]
async fn a_viewer_that_leaves_does_not_block_the_next() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.put(KEY, "picture", None);
    fixture.origin.0.gate.forget_permits(usize::MAX);
    tokio::select! {
        _ = fixture.get(KEY) => panic!("answered through a closed gate"),
        () = async { while fixture.fetches() == 0 { tokio::task::yield_now().await } } => {}
    }
    fixture.origin.0.gate.add_permits(8);
    assert_eq!(fixture.get(KEY).await.status, 200);
}
