//! `LoopbackProxy`: a TCP proxy that can stall, or do away with idle connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of a connection on which nothing is asked for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    Kept,
    /// Closed as servers close it.
    ClosedAfter(Duration),
    /// Left open, and nothing that is sent arrives any more: what a lost NAT entry looks like.
    DeadAfter(Duration),
}

/// Passes bytes on to one address. Dropping it closes all connections.
pub struct LoopbackProxy {
    addr: SocketAddr,
    stalled: watch::Sender<bool>,
    lost: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl LoopbackProxy {
    pub async fn start(target: SocketAddr, idle: Idle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stalled, stall) = watch::channel(false);
        let lost = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let counter = lost.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(pass(client, target, idle, stall.clone(), counter.clone()));
            }
        });
        Self { addr, stalled, lost, _serving: serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on connections are accepted, and nothing is answered.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// New connections work again; what was stalled is closed.
    pub fn heal(&self) {
        self.stalled.send_replace(false);
    }

    /// Returns how many idle connections were done away with.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: TcpStream,
    target: SocketAddr,
    idle: Idle,
    mut stall: watch::Receiver<bool>,
    lost: Arc<AtomicUsize>,
) {
    let mut server = TcpStream::connect(target).await.unwrap();
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut idle_now = false;
    loop {
        if *stall.borrow() {
            // Held open and silent until the proxy is healed or dropped.
            let _ended = stall.wait_for(|stalled| !stalled).await;
            return;
        }
        let idle_time = match idle {
            Idle::ClosedAfter(time) | Idle::DeadAfter(time) if idle_now => Some(time),
            _ => None,
        };
        let passed = tokio::select! {
            _ = stall.changed() => continue,
            read = client.read(&mut asked) => {
                idle_now = false;
                match read {
                    Ok(bytes) if bytes > 0 => server.write_all(&asked[..bytes]).await,
                    _ => return,
                }
            }
            read = server.read(&mut answered) => {
                idle_now = true;
                match read {
                    Ok(bytes) if bytes > 0 => client.write_all(&answered[..bytes]).await,
                    _ => return,
                }
            }
            () = tokio::time::sleep(idle_time.unwrap_or_default()), if idle_time.is_some() => {
                lost.fetch_add(1, Ordering::Relaxed);
                if let Idle::DeadAfter(_) = idle {
                    std::future::pending::<()>().await;
                }
                return;
            }
        };
        if passed.is_err() {
            return;
        }
    }
}
