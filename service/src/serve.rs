//! Serves HTTP/1.1 within bounds that `axum::serve` has not: on connections, and on the time that a request's head takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long a connection may be without a complete head of a request, whether a half one has arrived or none.
///
/// Longer than the 60 s of idleness after which load balancers close: the end that sends requests should be the one to
/// close, or a request meets a connection that is just being closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// What a connection without a request has left when the service stops: time to send the rest of its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time. One more waits in the kernel's queue until another one ends.
    pub connections: usize,
    /// See [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
}

/// Serves until `stopping` is cancelled, then until every request under way has its answer; connections without one
/// are closed. Dropped before, it leaves them to end with the runtime.
pub async fn serve(mut listener: TcpListener, router: Router, bounds: Bounds, stopping: CancellationToken) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let tasks = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
            // Waits a second and goes on where axum does: a process without a free descriptor may get one.
            (Listener::accept(&mut listener).await.0, permit)
        };
        let (stream, permit) = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = accepted => accepted,
        };
        tasks.spawn(connection(stream, router.clone(), bounds.head_timeout, stopping.clone(), permit));
    }
    // From here on nobody is let in.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head_timeout: Duration,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection cannot be set to send at once");
    }
    let under_way = Arc::new(AtomicUsize::new(0));
    let answer = hyper::service::service_fn(|request: Request<Incoming>| {
        let counted = Counted::begin(&under_way);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let response = answer.await?;
            // Under way until the last byte of the body has been handed on.
            Ok::<_, std::convert::Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &counted;
                    frame
                })
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    ended = connection.as_mut() => break ended,
                    () = tokio::time::sleep(LINGER) => {}
                }
                if under_way.load(Ordering::SeqCst) == 0 {
                    break Ok(());
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// A request under way on its connection.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);
    const HALF: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n";
    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    struct Served {
        addr: SocketAddr,
        stopping: CancellationToken,
        serving: JoinSet<()>,
    }

    async fn served(connections: usize, head_timeout: Duration) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, stopping) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/", get(async || "here"));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, Bounds { connections, head_timeout }, stopping.clone()));
        Served { addr, stopping, serving }
    }

    impl Served {
        async fn send(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }

        async fn answered(&self) -> TcpStream {
            let mut stream = self.send(WHOLE).await;
            let mut answer = vec![0; 4096];
            let mut read = 0;
            while !answer[..read].ends_with(b"here") {
                let more = stream.read(&mut answer[read..]).await.unwrap();
                assert_ne!(more, 0, "{:?}", String::from_utf8_lossy(&answer[..read]));
                read += more;
            }
            stream
        }
    }

    async fn closed(mut stream: TcpStream) {
        // A reset is an end as well.
        let mut rest = vec![];
        drop(stream.read_to_end(&mut rest).await);
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    #[tokio::test]
    async fn half_a_request_and_none_are_closed_within_the_timeout() {
        let served = served(10, Duration::from_millis(200)).await;
        let idle = served.answered().await;
        let (half, nothing) = (served.send(HALF).await, served.send(b"").await);
        tokio::join!(closed(half), closed(nothing), closed(idle));
        served.answered().await;
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_connection_without_a_request() {
        let mut served = served(10, LONG).await;
        let open = (served.send(b"").await, served.answered().await, served.send(HALF).await);
        let mut half_of_the_second = served.answered().await;
        half_of_the_second.write_all(HALF).await.unwrap();
        let before = Instant::now();
        served.stopping.cancel();
        served.serving.join_next().await.unwrap().unwrap();
        assert!(before.elapsed() < LINGER * 10, "{:?}", before.elapsed());
        TcpStream::connect(served.addr).await.unwrap_err();
        drop(open);
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_another_to_end() {
        let served = served(2, LONG).await;
        let first = served.answered().await;
        let _second = served.answered().await;
        let mut third = Box::pin(served.answered());
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut third).await.is_err());
        drop(first);
        third.await;
    }
}
