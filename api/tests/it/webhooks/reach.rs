//! No request goes where it must not: not by a name that changes, an odd spelling, a redirect, or a certificate of nobody.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::webhooks::client::{Reach, SystemLookup};
use job::Notice;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::support::{Inbox, Names, Office, Reply, Settled, entry};
use crate::support::{job, succeeded};

/// Calls 127.0.0.1 private and the rest of the loopback public, so that a name can have both.
const SECOND_LOOPBACK: Reach =
    Reach { refusal: |ip| (ip == IpAddr::V4(Ipv4Addr::LOCALHOST)).then_some("the first loopback"), http: true };

/// Tries one webhook at an office and returns what was done with it.
async fn attempt(office: &Office) -> Settled {
    let job = job();
    office.records.put(&succeeded(&job));
    office.hand_over(Notice::of(&job)).await
}

#[track_caller]
fn assert_later(settled: Settled) {
    assert!(matches!(settled, Settled::Hidden(wait) if (5..=6).contains(&wait.as_secs())), "{settled:?}");
}

/// A port on which every connection is counted.
struct Trap {
    listener: TcpListener,
}

impl Trap {
    fn on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The kernel has taken whatever came, so this knows of it.
    #[track_caller]
    fn assert_untouched(&self) {
        let accepted = self.listener.accept();
        assert_eq!(accepted.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody has connected");
    }
}

#[tokio::test]
async fn a_name_that_becomes_private_between_two_tries_is_not_connected_to() {
    let trap = Trap::on("127.0.0.1:0");
    let public = Inbox::start_on(&format!("127.0.0.2:{}", trap.port())).await;
    public.replies(Reply::status(500));
    let url = format!("http://n.example:{}/", public.addr.port());
    let names = Names::new(&["127.0.0.2", "127.0.0.1", "127.0.0.2"]);
    let office = Office::with(&entry("north", &url), SECOND_LOOPBACK, names);
    assert_later(attempt(&office).await);
    assert_eq!(public.take().len(), 1, "the first try reached it");
    assert_later(attempt(&office).await);
    trap.assert_untouched();
    assert_eq!(public.take().len(), 0, "and no connection of the first try is used again");
    assert_later(attempt(&office).await);
    assert_eq!(public.take().len(), 1, "the name is looked up for each");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let public = Inbox::start_on("127.0.0.2:0").await;
    let trap = Trap::on("127.0.0.1:0");
    for status in [301, 302, 303, 307, 308] {
        public.replies(Reply::status(status).with("location", &format!("http://127.0.0.1:{}/", trap.port())));
        let office = Office::with(&entry("north", &public.url()), SECOND_LOOPBACK, Names::new(&[]));
        assert_later(attempt(&office).await);
        assert_eq!(public.take().len(), 1);
    }
    trap.assert_untouched();
}

/// As where an operator has taken back what a laptop was allowed: the setting was read, the address is refused.
#[tokio::test]
async fn an_address_in_the_url_is_checked_however_it_is_written() {
    let trap = Trap::on("127.0.0.1:0");
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{}/", trap.port());
            let reach = Reach { http: true, ..Reach::PUBLIC };
            let office = Office::with(&entry("north", &url), reach, Arc::new(SystemLookup));
            assert_later(attempt(&office).await);
        }
    }
    // By the resolver of this machine.
    let url = format!("https://localhost:{}/", trap.port());
    let office = Office::with(&entry("north", &url), Reach::PUBLIC, Arc::new(SystemLookup));
    assert_later(attempt(&office).await);
    trap.assert_untouched();
}

#[tokio::test]
async fn nothing_is_sent_by_plain_http() {
    let trap = Trap::on("127.0.0.2:0");
    let url = format!("http://n.example:{}/", trap.port());
    let reach = Reach { http: false, ..SECOND_LOOPBACK };
    let office = Office::with(&entry("north", &url), reach, Names::new(&["127.0.0.2"]));
    assert_later(attempt(&office).await);
    trap.assert_untouched();
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let made = rcgen::generate_simple_self_signed(vec!["n.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connections, handshakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut serving = JoinSet::new();
    let (connected, shaken) = (connections.clone(), handshakes.clone());
    serving.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connected.fetch_add(1, Ordering::SeqCst);
            if acceptor.accept(stream).await.is_ok() {
                shaken.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let url = format!("https://n.example:{port}/");
    let office = Office::with(&entry("north", &url), SECOND_LOOPBACK, Names::new(&["127.0.0.2"]));
    assert_later(attempt(&office).await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((connections.load(Ordering::SeqCst), handshakes.load(Ordering::SeqCst)), (1, 0));
}
