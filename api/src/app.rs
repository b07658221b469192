//! `Application`: the routes, what the handlers share, and the way from listening to stopped.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use job::{IdKeys, JobId, Pauses, Record};
use service::following::Followed;
use service::readiness::Readiness;
use service::serve::{Bounds, HEAD_TIMEOUT, serve};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::auth::ApiKeys;
use crate::forecast::Forecast;
use crate::problem::{Code, Problem};
use crate::queue::JobQueue;
use crate::rate_limit::RateLimits;
use crate::settings::{ApiSettings, Secrets};
use crate::store::{RecordStore, StoreError};
use crate::view::{JobView, Links};
use crate::watch::Places;
use crate::{batch, cancel, context, events, fleet, list, openapi, retry, status, submit};

/// Connections at a time: far more than `MAX_WAITERS` and `MAX_STREAMS` keep open, and few enough for a descriptor each.
const MAX_CONNECTIONS: usize = 8192;

/// What the API reaches outside its process.
#[derive(Clone)]
pub struct Ports {
    pub queue: Arc<dyn JobQueue>,
    pub records: Arc<dyn RecordStore>,
    /// What operators have stopped.
    pub pauses: Followed<Pauses>,
    /// The clock: [`Timestamp::now`] but in tests.
    pub now: fn() -> Timestamp,
}

/// What the handlers share.
pub struct Api {
    pub queue: Arc<dyn JobQueue>,
    pub records: Arc<dyn RecordStore>,
    pub pauses: Followed<Pauses>,
    pub now: fn() -> Timestamp,
    pub api_keys: ApiKeys,
    pub job_id_keys: IdKeys,
    pub limits: RateLimits,
    /// For requests held by `Prefer: wait`.
    pub waiters: Places,
    /// For streams of events.
    pub streams: Places,
    pub links: Links,
    pub queue_retention: Duration,
    /// Tells when pending jobs will be done, where a promise is made.
    pub forecast: Option<Forecast>,
    /// Bytes of one job's body.
    pub body_limit: usize,
}

impl Api {
    fn new(settings: &ApiSettings, secrets: Secrets, ports: Ports, stopping: CancellationToken) -> Self {
        Self {
            queue: ports.queue,
            records: ports.records,
            pauses: ports.pauses,
            now: ports.now,
            api_keys: secrets.api_keys,
            job_id_keys: secrets.job_id_keys,
            limits: RateLimits::new(&settings.limits),
            waiters: Places::new(settings.limits.max_waiters, stopping.clone()),
            streams: Places::new(settings.limits.max_streams, stopping),
            links: Links { api: settings.public_base_url.clone(), cdn: settings.backend.cloudfront_domain.clone() },
            queue_retention: Duration::from_secs(u64::from(settings.backend.queue_retention_days) * 24 * 60 * 60),
            forecast: settings.backend.picture_within_seconds.map(|_| Forecast::default()),
            body_limit: usize::try_from(settings.limits.body_limit_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Reads a job as a client sees it now.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn read(&self, id: &JobId) -> Result<JobView, StoreError> {
        let record = self.records.read(id).await?;
        Ok(self.view(id, record.as_ref().map(|(record, _)| record)))
    }

    /// Returns a job as a client sees it now.
    pub fn view(&self, id: &JobId, record: Option<&Record>) -> JobView {
        let now = (self.now)();
        let mut view = JobView::new(id, record, now, self.queue_retention, &self.links);
        if let Some(forecast) = &self.forecast {
            record.into_iter().for_each(|record| forecast.saw(record, now));
            view.eta_seconds = match record {
                _ if view.status.is_final() => None,
                Some(record) => forecast.of(record, view.status, now),
                None => forecast.of_waiting(view.created_at, now),
            };
        }
        view
    }

    /// Returns the seconds until a job that is accepted now will probably be done.
    pub fn eta_of_accepted(&self) -> Option<u64> {
        let now = (self.now)();
        self.forecast.as_ref().and_then(|forecast| forecast.of_waiting(Some(now), now))
    }
}

/// Makes the whole service: routes, documents, error answers, context. Held requests end when `stopping` is cancelled.
pub fn router(settings: &ApiSettings, secrets: Secrets, ports: Ports, stopping: CancellationToken) -> Router {
    router_of(Arc::new(Api::new(settings, secrets, ports, stopping)))
}

fn router_of(api: Arc<Api>) -> Router {
    let (routes, document) = documented_routes().split_for_parts();
    let docs: Router<Arc<Api>> = SwaggerUi::new("/docs").url("/openapi.json", openapi::complete(document)).into();
    routes
        .merge(docs)
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(context::panicked))
        .layer(axum::middleware::from_fn(context::observe))
        .with_state(api)
}

/// Returns the routes of the API with their part of the `OpenAPI` document.
pub fn documented_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(submit::submit_job, list::list_jobs))
        .routes(routes!(batch::submit_batch))
        .routes(routes!(status::get_job))
        .routes(routes!(events::get_job_events))
        .routes(routes!(cancel::cancel_job))
        .routes(routes!(retry::retry_job))
        .routes(routes!(fleet::get_queue))
}

async fn route_not_found() -> Response {
    Problem::new(Code::RouteNotFound, "see /openapi.json for what is here").into_response()
}

async fn method_not_allowed() -> Response {
    Problem::new(Code::MethodNotAllowed, "the Allow header says which methods this address takes").into_response()
}

/// The service could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("public port {addr} cannot be opened ({source}): set LISTEN_ADDR to a free one")]
    Listen { addr: SocketAddr, source: io::Error },
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every request got its answer.
    Drained,
    /// The grace ran out first; the rest was cut off.
    GraceRanOut,
}

/// The service, listening.
pub struct Application {
    listener: TcpListener,
    local_addr: SocketAddr,
    api: Arc<Api>,
    readiness: Readiness,
    stopping: CancellationToken,
    grace: Duration,
}

impl Application {
    /// Opens the public port; connections are taken from [`run_until_stopped`](Self::run_until_stopped) on.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn build(
        settings: &ApiSettings,
        secrets: Secrets,
        ports: Ports,
        readiness: Readiness,
    ) -> Result<Self, ServeError> {
        let addr = settings.listen_addr;
        let failed = |source| ServeError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let stopping = CancellationToken::new();
        let api = Arc::new(Api::new(settings, secrets, ports, stopping.clone()));
        Ok(Self { listener, local_addr, api, readiness, stopping, grace: settings.shutdown_grace() })
    }

    /// Returns the address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready, then lets requests in flight finish within the grace.
    pub async fn run_until_stopped(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let bounds = Bounds { connections: MAX_CONNECTIONS, head_timeout: HEAD_TIMEOUT };
        let serving = serve(self.listener, router_of(Arc::clone(&self.api)), bounds, self.stopping.clone());
        let forecasting = async {
            if let Some(forecast) = &self.api.forecast {
                forecast.follow(self.api.queue.as_ref(), self.api.now, &self.stopping).await;
            }
        };
        let serving = async {
            tokio::pin!(serving, forecasting);
            tokio::select! {
                () = &mut serving => return,
                () = &mut forecasting => {}
            }
            serving.await;
        };
        tokio::pin!(serving);
        self.readiness.clear("starting");
        tokio::select! {
            () = &mut serving => return Stopped::Drained,
            () = shutdown => {}
        }
        self.readiness.block("stopping", "the process is finishing its requests");
        self.stopping.cancel();
        match tokio::time::timeout(self.grace, serving).await {
            Ok(()) => Stopped::Drained,
            Err(_) => {
                tracing::warn!(
                    grace_seconds = self.grace.as_secs(),
                    "grace ran out: cutting off the remaining requests"
                );
                Stopped::GraceRanOut
            }
        }
    }
}
