//! `Instance`: the metadata service of an EC2 instance, as far as the binaries and the SDK ask it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::stack::ports::loopback;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN: &str = "local";
const ROLE: &str = "image-pipeline";
/// The SDK asks for new credentials before these end; nothing here runs for so long.
const CREDENTIALS: &str = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"test","SecretAccessKey":"test",
"Token":"test","LastUpdated":"2026-01-01T00:00:00Z","Expiration":"2126-01-01T00:00:00Z"}"#;

/// A metadata service (`IMDSv2`) on loopback, until it is dropped.
#[derive(Debug)]
pub(super) struct Instance {
    addr: SocketAddr,
    target_state: Arc<Mutex<&'static str>>,
    _serving: JoinSet<()>,
}

impl Instance {
    pub(super) async fn start() -> std::io::Result<Self> {
        let target_state = Arc::new(Mutex::new("InService"));
        let router = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/{*path}", get(metadata))
            .with_state(Arc::clone(&target_state));
        let listener = TcpListener::bind(loopback(0)).await?;
        let addr = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the metadata service ended");
            }
        });
        Ok(Self { addr, target_state, _serving: serving })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What the Auto Scaling group does when it takes the instance.
    pub(super) fn terminate(&self) {
        *self.target_state.lock().unwrap_or_else(PoisonError::into_inner) = "Terminated";
    }
}

async fn token(headers: HeaderMap) -> Response {
    match headers.get(TTL_HEADER) {
        Some(ttl) => ([(TTL_HEADER, ttl.clone())], TOKEN).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn metadata(
    State(target_state): State<Arc<Mutex<&'static str>>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<&'static str, StatusCode> {
    if headers.get(TOKEN_HEADER).is_none_or(|token| token != TOKEN) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    match path.trim_end_matches('/') {
        "autoscaling/target-lifecycle-state" => Ok(*target_state.lock().unwrap_or_else(PoisonError::into_inner)),
        "instance-id" => Ok("i-0123456789abcdef0"),
        "iam/security-credentials" => Ok(ROLE),
        "iam/security-credentials/image-pipeline" => Ok(CREDENTIALS),
        _ => Err(StatusCode::NOT_FOUND),
    }
}
