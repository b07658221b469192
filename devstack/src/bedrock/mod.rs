//! A stand-in for Amazon Bedrock's `InvokeModel` with the three Stability text-to-image models.
//!
//! - `POST /model/{modelId}/invoke`: the protocol of the service. A prompt may ask for faults with `[[fault:NAME]]`,
//!   `[[fault:NAME*N]]` (the first N calls with this prompt), and for a latency with `[[latency:2s]]`.
//! - `POST /v1/images/generations`: the same pictures as `OpenAI`'s images endpoint has them, for a second source.
//! - `GET /foundation-models/{modelId}`: where the model is in its life, as the control plane tells it ([`Life`]).
//! - `GET | PUT | DELETE /_standin/faults`: faults by rate, latency, and outages ([`FaultPlan`]).
//! - `GET | DELETE /_standin/ledger`: what was called and what was billed ([`LedgerReport`]).
//! - `GET /_standin/health`.

mod args;
mod connection;
mod exception;
mod fault;
mod fault_plan;
mod foundation_model;
mod invoke;
mod latency;
mod ledger;
mod noise;
mod odd_png;
mod openai;
mod paint;
mod palette;
mod picture;
mod quota;
mod request;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::args::BedrockArgs;
pub use self::fault::{Fault, InvalidDirective};
pub use self::fault_plan::{FaultPlan, InvalidFaultPlan};
pub use self::foundation_model::Life;
pub use self::latency::{InvalidLatency, Latency};
pub use self::ledger::{LedgerReport, PromptEntry, Totals};
pub use self::picture::Detail;
pub use self::quota::QuotaCount;

#[cfg(test)]
pub(crate) use self::odd_png::push_chunk;
pub(crate) use self::odd_png::with_crcs_mended;

use self::connection::{CuttableListener, Scissors};
use self::exception::Exception;
use self::ledger::Ledger;
use self::picture::Pictures;
use self::quota::Quota;

/// About sixteen PNGs of 1536x1536, in base64.
const DEFAULT_CACHE_BYTES: usize = 64 << 20;

/// How the stand-in behaves. The default answers at once and never fails.
#[derive(Debug, Clone, PartialEq)]
pub struct BedrockOptions {
    /// Time from request to answer, where neither prompt nor plan says otherwise.
    pub latency: Latency,
    /// How much work goes into a picture.
    pub detail: Detail,
    /// The plan at the start, and again after `DELETE /_standin/faults`.
    pub faults: FaultPlan,
    /// Calls beyond this many a minute are throttled; the first minute's worth may come at once.
    pub requests_per_minute: Option<NonZeroU32>,
    /// How they are counted.
    pub quota_count: QuotaCount,
    /// Bound of the cache of encoded pictures, in bytes of base64.
    pub cache_bytes: usize,
    /// Pictures painted at the same time.
    pub painters: NonZeroUsize,
}

/// A running stand-in. It stops when dropped.
#[derive(Debug)]
pub struct BedrockStandIn {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
}

/// What all calls share.
struct Shared {
    latency: Latency,
    initial_plan: FaultPlan,
    plan: Mutex<FaultPlan>,
    quota: Option<Quota>,
    ledger: Ledger,
    pictures: Pictures,
    stopping: CancellationToken,
}

impl Default for BedrockOptions {
    fn default() -> Self {
        Self {
            latency: Latency::NONE,
            detail: Detail::default(),
            faults: FaultPlan::default(),
            requests_per_minute: None,
            quota_count: QuotaCount::default(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            painters: NonZeroUsize::MIN,
        }
    }
}

impl BedrockStandIn {
    /// Binds `addr` and serves it in the background until [`stop`](Self::stop) or drop.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(addr: SocketAddr, options: BedrockOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared {
            latency: options.latency,
            plan: Mutex::new(options.faults.clone()),
            initial_plan: options.faults,
            quota: options
                .requests_per_minute
                .map(|per_minute| Quota::new(per_minute, options.quota_count, Instant::now())),
            ledger: Ledger::default(),
            pictures: Pictures::new(options.detail, options.cache_bytes, options.painters),
            stopping: stopping.clone(),
        });
        let service = router(Arc::clone(&shared)).into_make_service_with_connect_info::<Scissors>();
        let server = axum::serve(CuttableListener(listener), service);
        let server = server.with_graceful_shutdown(stopping.clone().cancelled_owned());
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "bedrock stand-in stopped");
            }
        });
        tasks.close();
        Ok(Self { local_addr, shared, tasks, _stop_on_drop: stopping.drop_guard() })
    }

    /// Returns the address that is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns what was called and billed so far.
    pub fn ledger(&self) -> LedgerReport {
        self.shared.ledger.report()
    }

    /// Replaces the plan of faults.
    ///
    /// # Errors
    /// When the plan cannot be followed.
    pub fn set_faults(&self, plan: FaultPlan) -> Result<(), InvalidFaultPlan> {
        plan.validate()?;
        self.shared.set_plan(plan);
        Ok(())
    }

    /// Stops listening, cuts the calls in flight and returns when the last connection has ended.
    pub async fn stop(self) {
        self.shared.stopping.cancel();
        self.tasks.wait().await;
    }
}

impl Shared {
    fn plan(&self) -> FaultPlan {
        self.plan.lock().expect("nothing panics while it holds this lock").clone()
    }

    fn set_plan(&self, plan: FaultPlan) {
        *self.plan.lock().expect("nothing panics while it holds this lock") = plan;
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("latency", &self.latency).field("plan", &self.plan()).finish_non_exhaustive()
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/model/{model_id}/invoke", post(invoke::invoke))
        .route("/v1/images/generations", post(openai::images_generations))
        .route("/foundation-models/{model_id}", get(foundation_model::get_foundation_model))
        .route("/_standin/health", get(async || "healthy\n"))
        .route("/_standin/faults", get(get_faults).put(put_faults).delete(delete_faults))
        .route("/_standin/ledger", get(get_ledger).delete(delete_ledger))
        .fallback(async || Exception::unknown_operation())
        .with_state(shared)
}

async fn get_faults(State(shared): State<Arc<Shared>>) -> Json<FaultPlan> {
    Json(shared.plan())
}

async fn put_faults(State(shared): State<Arc<Shared>>, plan: Result<Json<FaultPlan>, JsonRejection>) -> Response {
    let refuse = |why: String| (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "message": why }))).into_response();
    let plan = match plan {
        Ok(Json(plan)) => plan,
        Err(rejection) => return refuse(rejection.body_text()),
    };
    if let Err(error) = plan.validate() {
        return refuse(error.to_string());
    }
    tracing::info!(outage = ?plan.outage, rates = ?plan.rates, life = ?plan.life, "faults replaced");
    shared.set_plan(plan.clone());
    Json(plan).into_response()
}

async fn delete_faults(State(shared): State<Arc<Shared>>) -> Json<FaultPlan> {
    shared.set_plan(shared.initial_plan.clone());
    Json(shared.plan())
}

async fn get_ledger(State(shared): State<Arc<Shared>>) -> Json<LedgerReport> {
    Json(shared.ledger.report())
}

async fn delete_ledger(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.ledger.clear();
    StatusCode::NO_CONTENT
}
