//! A stand-in for Amazon `CloudFront` in front of the bucket: one edge location that serves `images/*`.
//!
//! - `GET | HEAD /images/*`: cached by path, as the managed policy `CachingOptimized` does.
//! - `GET /_standin/stats` ([`CdnStats`]), `DELETE /_standin/cache`, `GET /_standin/health`.

mod args;
mod cache;
mod edge;
mod origin;
mod reply;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::args::CdnArgs;
pub use self::edge::CdnStats;
pub use self::origin::{Fetched, Origin, OriginError, OriginObject, S3Origin};

use self::edge::Edge;

/// Default TTL of `CachingOptimized`.
const DEFAULT_TTL_SECONDS: u64 = 86_400;
/// Some two thousand pictures.
const DEFAULT_MAX_BYTES: usize = 256 << 20;

/// How the stand-in behaves.
#[derive(Clone)]
pub struct CdnOptions {
    /// Where objects come from.
    pub origin: Arc<dyn Origin>,
    /// How long an error is cached. The own default of `CloudFront` is 10 s, ours (as in Terraform) is 0.
    pub error_caching_min_ttl: Duration,
    /// How long an object without `Cache-Control` is cached.
    pub default_ttl: Duration,
    /// Bound of the cache, in bytes of bodies.
    pub max_bytes: usize,
    /// What tells when something expires.
    pub clock: Clock,
}

/// A clock that a test can set.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

/// A running stand-in. It stops when dropped.
#[derive(Debug)]
pub struct CdnStandIn {
    local_addr: SocketAddr,
    stopping: CancellationToken,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
}

impl CdnOptions {
    /// Returns the options of our distribution for an origin.
    pub fn new(origin: impl Origin) -> Self {
        Self {
            origin: Arc::new(origin),
            error_caching_min_ttl: Duration::ZERO,
            default_ttl: Duration::from_secs(DEFAULT_TTL_SECONDS),
            max_bytes: DEFAULT_MAX_BYTES,
            clock: Clock::new(Instant::now),
        }
    }
}

impl Clock {
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> Instant {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl CdnStandIn {
    /// Binds `addr` and serves it in the background until [`stop`](Self::stop) or drop.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(addr: SocketAddr, options: CdnOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let server = axum::serve(listener, router(Arc::new(Edge::new(options))));
        let server = server.with_graceful_shutdown(stopping.clone().cancelled_owned());
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "cdn stand-in stopped");
            }
        });
        tasks.close();
        Ok(Self { local_addr, tasks, stopping: stopping.clone(), _stop_on_drop: stopping.drop_guard() })
    }

    /// Returns the address that is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening and returns when the requests in flight are answered.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/_standin/health", get(async || "healthy\n"))
        .route("/_standin/stats", get(async |State(edge): State<Arc<Edge>>| Json(edge.stats())))
        .route("/_standin/cache", delete(delete_cache))
        .fallback(view)
        .with_state(edge)
}

async fn delete_cache(State(edge): State<Arc<Edge>>) -> StatusCode {
    edge.clear_cache();
    StatusCode::NO_CONTENT
}

/// The default behaviour of the distribution.
async fn view(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return reply::method_refused();
    }
    // The query string is neither forwarded nor part of the cache key.
    match request.uri().path().strip_prefix('/') {
        Some(key) if key.starts_with("images/") => edge.serve(key, request.headers()).await,
        _ => reply::error(&OriginError::AccessDenied),
    }
}
