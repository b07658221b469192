//! `Link`: a TCP proxy between a process and a service, which can refuse, fall silent, cut, slow down and close what is idle.
//!
//! Looked at first: `noxious` (a port of Toxiproxy, not released since 2021; its library is the toxics, the proxy is a
//! server) and `toxiproxy_rust` (a client of Toxiproxy's server, which is Go). Neither falls silent on connections
//! that are already there, which is the fault that pooled clients know least about.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stack::ports::loopback;

const CHUNK_BYTES: usize = 64 * 1024;
/// How often a connection is looked at that is to be closed when it is idle.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How the network is between a process and a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Condition {
    /// Everything is passed on.
    #[default]
    Clear,
    /// New connections are reset, and those that are there are cut.
    Refused,
    /// Half-open: connections are accepted and kept, and no byte is passed on in either direction.
    Silent,
    /// A request and an answer each take so long to arrive, and up to `jitter` longer.
    Slow { delay: Duration, jitter: Duration },
    /// A connection on which nobody has said anything for so long after an answer is closed, as servers and load
    /// balancers do. One on which a request is being answered stays.
    IdleClosed { after: Duration },
}

/// A proxy on a loopback port. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Link {
    addr: SocketAddr,
    controls: Controls,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Controls {
    condition: watch::Sender<Condition>,
    /// Counts the cuts: a connection lives as long as the number that it began with.
    cuts: watch::Sender<u64>,
}

/// Who said something last, and when.
#[derive(Debug, Clone, Copy)]
struct LastWord {
    at: Instant,
    is_answer: bool,
}

impl Link {
    /// Listens on a free port and passes on to `upstream`, which need not be there yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub(super) async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await?;
        let addr = listener.local_addr()?;
        let controls = Controls { condition: watch::Sender::default(), cuts: watch::Sender::default() };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, controls.clone()));
        Ok(Self { addr, controls, _accepting: accepting })
    }

    /// Returns the endpoint to give to the process.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes the network from now on.
    pub(super) fn set(&self, condition: Condition) {
        self.controls.condition.send_replace(condition);
    }

    /// Ends a fault. What was held back while the link was silent is not passed on: whoever sent it may have left, and a
    /// service would see the request of nobody.
    pub(super) fn heal(&self) {
        if *self.controls.condition.borrow() == Condition::Silent {
            self.cut();
        }
        self.set(Condition::Clear);
    }

    /// Cuts every connection that is there.
    pub(super) fn cut(&self) {
        self.controls.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, controls: Controls) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((client, _)) => {
                connections.spawn(connection(client, upstream, controls.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Passes on between the two until one of them leaves or the network ends it.
async fn connection(mut client: TcpStream, upstream: SocketAddr, controls: Controls) {
    let (mut condition, mut cuts) = (controls.condition.subscribe(), controls.cuts.subscribe());
    let ended = tokio::select! {
        biased;
        () = refused(&mut condition) => Err(io::ErrorKind::ConnectionReset.into()),
        _ = cuts.changed() => Err(io::ErrorKind::ConnectionReset.into()),
        ended = pass_on(&mut client, upstream, controls.condition.subscribe()) => ended,
    };
    if ended.is_err()
        && let Err(error) = client.set_zero_linger()
    {
        tracing::debug!(%error, "a connection could not be reset: it is closed");
    }
}

async fn pass_on(
    client: &mut TcpStream,
    upstream: SocketAddr,
    mut condition: watch::Receiver<Condition>,
) -> io::Result<()> {
    audible(&mut condition).await;
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let last = Mutex::new(LastWord { at: Instant::now(), is_answer: true });
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        ended = direction(from_client, to_server, condition.clone(), &last, false) => ended,
        ended = direction(from_server, to_client, condition.clone(), &last, true) => ended,
        () = idle(condition, &last) => Ok(()),
    }
}

/// Passes on in one direction until its end.
async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut condition: watch::Receiver<Condition>,
    last: &Mutex<LastWord>,
    is_answer: bool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        audible(&mut condition).await;
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let now = LastWord { at: Instant::now(), is_answer };
        let before = std::mem::replace(&mut *last.lock().unwrap_or_else(PoisonError::into_inner), now);
        let slow = *condition.borrow();
        // The distance is felt when the turn changes; the bandwidth stays what it is.
        if let Condition::Slow { delay, jitter } = slow
            && before.is_answer != is_answer
        {
            tokio::time::sleep(delay + jitter.mul_f64(rand::random())).await;
        }
        // It may have fallen silent while the chunk was on its way: then that arrives late, as what is sent again does.
        audible(&mut condition).await;
        to.write_all(chunk.get(..length).unwrap_or_default()).await?;
    }
}

/// Waits until something may be passed on.
async fn audible(condition: &mut watch::Receiver<Condition>) {
    // The sender lives as long as the link, and the connections end with it.
    if condition.wait_for(|condition| *condition != Condition::Silent).await.is_err() {
        std::future::pending().await
    }
}

/// Resolves when connections are refused.
async fn refused(condition: &mut watch::Receiver<Condition>) {
    if condition.wait_for(|condition| *condition == Condition::Refused).await.is_err() {
        std::future::pending().await
    }
}

/// Resolves when the connection is to be closed because nobody uses it.
async fn idle(condition: watch::Receiver<Condition>, last: &Mutex<LastWord>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let LastWord { at, is_answer } = *last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Condition::IdleClosed { after } = *condition.borrow()
            && is_answer
            && at.elapsed() >= after
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says back what it hears.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        (addr, serving)
    }

    async fn connect(link: &Link) -> TcpStream {
        TcpStream::connect(link.addr).await.unwrap()
    }

    async fn say(stream: &mut TcpStream, word: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(word).await?;
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens within 30 s")
    }

    #[tokio::test]
    async fn a_clear_link_passes_everything_on() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        let long = vec![7; 3 * CHUNK_BYTES + 1];
        let mut stream = connect(&link).await;
        let (mut from, mut to) = stream.split();
        let mut heard = vec![0; long.len()];
        let (said, read) = within(async { tokio::join!(to.write_all(&long), from.read_exact(&mut heard)) }).await;
        said.unwrap();
        read.unwrap();
        assert!(heard == long);
    }

    #[tokio::test]
    async fn refusing_cuts_what_is_there_and_resets_what_comes() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        let mut before = connect(&link).await;
        assert_eq!(say(&mut before, b"hello").await.unwrap(), b"hello");
        link.set(Condition::Refused);
        assert!(within(before.read_u8()).await.is_err());
        let mut during = connect(&link).await;
        assert!(within(say(&mut during, b"hello")).await.is_err());
        link.set(Condition::Clear);
        assert_eq!(say(&mut connect(&link).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_there_and_nothing_else() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        let mut before = connect(&link).await;
        assert_eq!(say(&mut before, b"hello").await.unwrap(), b"hello");
        link.cut();
        assert!(within(before.read_u8()).await.is_err());
        assert_eq!(say(&mut connect(&link).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn after_a_silence_is_healed_nobody_hears_what_was_said_in_it() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        link.set(Condition::Silent);
        let mut during = connect(&link).await;
        during.write_all(b"?").await.unwrap();
        // Long enough for the link to have taken the connection: one that it takes later is not of the silence.
        tokio::time::timeout(Duration::from_millis(300), during.read_u8()).await.unwrap_err();
        link.heal();
        assert!(within(during.read_u8()).await.is_err());
        assert_eq!(say(&mut connect(&link).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_silent_link_keeps_connections_and_says_what_was_held_back_in_the_end() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        let mut before = connect(&link).await;
        assert_eq!(say(&mut before, b"hello").await.unwrap(), b"hello");
        link.set(Condition::Silent);
        let mut during = connect(&link).await;
        for stream in [&mut before, &mut during] {
            let silence = tokio::time::timeout(Duration::from_millis(200), say(stream, b"?")).await;
            assert!(silence.is_err(), "{silence:?}");
        }
        link.set(Condition::Clear);
        assert_eq!(within(before.read_u8()).await.unwrap(), b'?');
        assert_eq!(within(during.read_u8()).await.unwrap(), b'?');
    }

    #[tokio::test]
    async fn a_slow_link_takes_its_time() {
        let (addr, _echo) = echo().await;
        let link = Link::start(addr).await.unwrap();
        let delay = Duration::from_millis(150);
        link.set(Condition::Slow { delay, jitter: Duration::ZERO });
        let mut stream = connect(&link).await;
        let started = Instant::now();
        within(say(&mut stream, b"hello")).await.unwrap();
        assert!(started.elapsed() >= delay * 2, "once in each direction: {:?}", started.elapsed());
    }

    #[tokio::test]
    async fn what_is_idle_after_an_answer_is_closed_and_what_waits_for_one_is_not() {
        // Never answers.
        let mute = TcpListener::bind(loopback(0)).await.unwrap();
        let link = Link::start(mute.local_addr().unwrap()).await.unwrap();
        link.set(Condition::IdleClosed { after: Duration::from_millis(100) });
        let mut waiting = connect(&link).await;
        waiting.write_all(b"a request").await.unwrap();
        let (addr, _echo) = echo().await;
        let answered = Link::start(addr).await.unwrap();
        answered.set(Condition::IdleClosed { after: Duration::from_millis(100) });
        let mut idle = connect(&answered).await;
        assert_eq!(say(&mut idle, b"hello").await.unwrap(), b"hello");
        assert_eq!(within(idle.read(&mut [0])).await.unwrap(), 0, "closed in order");
        let open = tokio::time::timeout(Duration::from_millis(300), waiting.read_u8()).await;
        assert!(open.is_err(), "{open:?}");
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_resets_the_client() {
        let gone = TcpListener::bind(loopback(0)).await.unwrap();
        let addr = gone.local_addr().unwrap();
        drop(gone);
        let link = Link::start(addr).await.unwrap();
        assert!(within(say(&mut connect(&link).await, b"hello")).await.is_err());
    }
}
