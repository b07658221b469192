//! `Edge`: answers from its cache, and asks the origin once however many viewers wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::http::HeaderMap;
use axum::response::Response;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use serde::{Deserialize, Serialize};

use super::cache::{Cache, Content, Lookup, Ttls};
use super::origin::{Fetched, Origin, OriginError, OriginObject};
use super::reply::{self, Served};
use super::{CdnOptions, Clock};

/// Counts since the start. This is the JSON of `GET /_standin/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdnStats {
    /// Answered from the cache, or together with a viewer whose fetch was under way.
    pub hits: u64,
    /// Answered from the cache after the origin said that nothing changed.
    pub refresh_hits: u64,
    /// Fetched from the origin.
    pub misses: u64,
    /// Answered with an error, cached or not.
    pub errors: u64,
    /// Requests to the origin.
    pub origin_requests: u64,
    /// Entries in the cache now.
    pub entries: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

/// What one fetch brought, for everybody who waited for it.
type Fetch = Shared<BoxFuture<'static, (Content, Served)>>;

/// One edge location.
pub(crate) struct Edge {
    origin: Arc<dyn Origin>,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    cache: Cache,
    /// Weak: a fetch whose last viewer has left is not carried on.
    fetches: HashMap<String, WeakShared<BoxFuture<'static, (Content, Served)>>>,
    stats: CdnStats,
}

impl Edge {
    pub(crate) fn new(options: CdnOptions) -> Self {
        let ttls = Ttls { default: options.default_ttl, errors: options.error_caching_min_ttl };
        let state =
            State { cache: Cache::new(ttls, options.max_bytes), fetches: HashMap::new(), stats: CdnStats::default() };
        Self { origin: options.origin, clock: options.clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Answers for the object of `key`.
    pub(crate) async fn serve(&self, key: &str, request: &HeaderMap) -> Response {
        let (content, served, age) = match self.look_up(key) {
            Found::Fresh { content, age } => (content, Served::Hit, Some(age)),
            Found::Fetch { fetch, leads } => {
                let (content, served) = fetch.await;
                (content, if leads || served == Served::RefreshHit { served } else { Served::Hit }, None)
            }
        };
        let stats = &mut lock(&self.state).stats;
        match &content {
            Ok(object) => {
                match served {
                    Served::RefreshHit => stats.refresh_hits += 1,
                    Served::Miss => stats.misses += 1,
                    Served::Hit | Served::Error => stats.hits += 1,
                }
                reply::object(object, request, served, age)
            }
            Err(error) => {
                stats.errors += 1;
                reply::error(error)
            }
        }
    }

    pub(crate) fn stats(&self) -> CdnStats {
        let state = lock(&self.state);
        let (entries, bytes) = state.cache.size();
        CdnStats { entries, bytes, ..state.stats }
    }

    pub(crate) fn clear_cache(&self) {
        lock(&self.state).cache.clear();
    }

    fn look_up(&self, key: &str) -> Found {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let stale = match state.cache.get(key, now) {
            Lookup::Fresh { content, age } => return Found::Fresh { content, age: age.as_secs() },
            Lookup::Stale(object) => Some(object),
            Lookup::Absent => None,
        };
        if let Some(fetch) = state.fetches.get(key).and_then(WeakShared::upgrade) {
            return Found::Fetch { fetch, leads: false };
        }
        state.stats.origin_requests += 1;
        let fetch = fetch(Arc::clone(&self.origin), Arc::clone(&self.state), self.clock.clone(), key.to_owned(), stale)
            .boxed()
            .shared();
        if let Some(weak) = fetch.downgrade() {
            state.fetches.insert(key.to_owned(), weak);
        }
        Found::Fetch { fetch, leads: true }
    }
}

/// What is to be done for a viewer.
enum Found {
    Fresh { content: Content, age: u64 },
    Fetch { fetch: Fetch, leads: bool },
}

async fn fetch(
    origin: Arc<dyn Origin>,
    state: Arc<Mutex<State>>,
    clock: Clock,
    key: String,
    stale: Option<Arc<OriginObject>>,
) -> (Content, Served) {
    let etag = stale.as_ref().and_then(|object| object.etag.as_deref());
    let fetched = origin.fetch(&key, etag).await;
    let now: Instant = clock.now();
    let mut state = lock(&state);
    state.fetches.remove(&key);
    let (content, served) = match (fetched, stale) {
        (Ok(Fetched::Object(object)), _) => (Ok(Arc::new(object)), Served::Miss),
        (Ok(Fetched::NotModified), Some(object)) => (Ok(object), Served::RefreshHit),
        (Ok(Fetched::NotModified), None) => {
            (Err(OriginError::Unreachable("304 to an unconditional request".into())), Served::Error)
        }
        // An origin in trouble does not take from viewers what the edge still has. It stays expired, so that the next
        // viewer asks again.
        (Err(OriginError::Unreachable(why)), Some(object)) => {
            tracing::warn!(object.key = key, error = why, "origin unreachable: serving an expired object");
            return (Ok(object), Served::Hit);
        }
        (Err(OriginError::Status(500..)), Some(object)) => return (Ok(object), Served::Hit),
        (Err(error), _) => (Err(error), Served::Error),
    };
    state.cache.put(&key, &content, now);
    (content, served)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nothing panics while it holds this lock")
}
