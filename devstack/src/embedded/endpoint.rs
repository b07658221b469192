//! A router on a loopback listener, with a stop that does not wait for idle clients.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a stop waits for requests that are being answered.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub(super) struct Endpoint {
    local_addr: SocketAddr,
    stopping: CancellationToken,
    serving: JoinSet<io::Result<()>>,
}

impl Endpoint {
    /// Serves `router` until `stopping` is cancelled, by [`Endpoint::stop`] or by the caller.
    pub(super) fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        let mut serving = JoinSet::new();
        let stopped = stopping.clone().cancelled_owned();
        serving.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Ok(Self { local_addr, stopping, serving })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        if tokio::time::timeout(STOP_GRACE, self.serving.join_next()).await.is_err() {
            tracing::warn!(endpoint = %self.local_addr, "requests are still open: their connections are dropped");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
