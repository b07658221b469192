//! `EmbeddedSqs`: rustack's queues on a loopback port, with their data in a folder.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Response;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::response::error_to_response;
use rustack_sqs_http::router::resolve_operation;
use rustack_sqs_model::error::SqsError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::REGION;
use super::endpoint::Endpoint;
use super::queues::Queues;

/// Ten messages of 256 KiB, each byte escaped as six characters, would be 15 MiB.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// How the embedded SQS keeps its data.
#[derive(Debug, Clone, Default)]
pub struct SqsOptions {
    /// Folder for queues and messages; None keeps them in memory.
    pub dir: Option<PathBuf>,
}

/// SQS on a loopback port.
///
/// With a folder it survives a second start, and a kill: every queue with its attributes and tags, every message that
/// was sent and not deleted, with its id, body, attributes, message group, sent time and receive count. A restart makes
/// messages in flight visible at once and their receipt handles stale. Not kept: the first-receive time, the messages of
/// FIFO queues, and what a power failure takes from the page cache.
#[derive(Debug)]
pub struct EmbeddedSqs {
    endpoint: Endpoint,
}

impl EmbeddedSqs {
    /// Starts serving on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken, or the folder cannot be read or written.
    pub async fn start(addr: SocketAddr, options: SqsOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let provider = Arc::new(RustackSqs::new(SqsConfig {
            default_region: REGION.to_owned(),
            host: local_addr.ip().to_string(),
            port: local_addr.port(),
            ..SqsConfig::default()
        }));
        let stopping = CancellationToken::new();
        let queues = Arc::new(Queues::open(provider, options.dir, local_addr, stopping.clone()).await?);
        let router = Router::new().fallback(serve).with_state(queues);
        Ok(Self { endpoint: Endpoint::serve(listener, router, stopping)? })
    }

    /// Returns the address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Returns the endpoint for `AWS_ENDPOINT_URL_SQS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr())
    }

    /// Ends every long poll with an empty answer and stops.
    pub async fn stop(self) {
        self.endpoint.stop().await;
    }
}

async fn serve(State(queues): State<Arc<Queues>>, request: Request) -> Response<Body> {
    let request_id = Uuid::new_v4().to_string();
    let (parts, body) = request.into_parts();
    let answer = async {
        let operation = resolve_operation(&parts.headers)?;
        let body = to_bytes(body, MAX_REQUEST_BYTES)
            .await
            .map_err(|error| SqsError::invalid_parameter_value(format!("the request cannot be read: {error}")))?;
        queues.answer(operation, body).await
    };
    answer.await.unwrap_or_else(|error| error_to_response(&error, &request_id)).map(Body::new)
}
