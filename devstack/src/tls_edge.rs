//! `TlsEdge`: ends TLS on loopback in front of what has none, as an emulator or its distribution.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use reqwest::Client;
use reqwest::redirect::Policy;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::stack::ports::loopback;

/// What the emulator takes for a viewer that came over TLS.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Of one connection, and not of what goes over it.
const OF_THE_CONNECTION: [HeaderName; 4] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE];
/// A submission is a few kilobytes.
const MAX_BODY: usize = 1 << 20;
const LINE_OF_PEM: usize = 64;

/// Ends TLS for one host with a certificate of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct TlsEdge {
    addr: SocketAddr,
    certificate: String,
    _serving: JoinSet<()>,
}

/// What is behind the edge.
#[derive(Debug, Clone)]
struct Emulator {
    endpoint: Arc<str>,
    http: Client,
}

impl TlsEdge {
    /// Starts on a free loopback port, in front of an emulator.
    pub(crate) async fn start(host: &str, endpoint: &str) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).map_err(io::Error::other)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into())
            })
            .map_err(io::Error::other)?;
        let http = Client::builder().no_proxy().no_gzip().redirect(Policy::none()).build().map_err(io::Error::other)?;
        let router = Router::new().fallback(forward).with_state(Emulator { endpoint: endpoint.into(), http });
        let listener = TcpListener::bind(loopback(0)).await?;
        let addr = listener.local_addr()?;
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the edge ended");
            }
        });
        Ok(Self { addr, certificate: pem(made.cert.der()), _serving: serving })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns what a client has to trust, as PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }
}

fn pem(der: &[u8]) -> String {
    let text = base64_simd::STANDARD.encode_to_string(der);
    let characters: Vec<char> = text.chars().collect();
    let lines: Vec<String> = characters.chunks(LINE_OF_PEM).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let accepted = async {
                let (stream, addr) = self.listener.accept().await?;
                Ok::<_, io::Error>((self.acceptor.accept(stream).await?, addr))
            };
            match accepted.await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the edge failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Hands a request on as it came, `Host` included, and says that it came over TLS.
async fn forward(State(emulator): State<Emulator>, request: Request) -> Response {
    match forwarded(&emulator, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn forwarded(emulator: &Emulator, request: Request) -> Result<Response, Box<dyn std::error::Error>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers;
    OF_THE_CONNECTION.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    let url = format!("{}{path}", emulator.endpoint);
    let body = axum::body::to_bytes(body, MAX_BODY).await?;
    let answer = emulator.http.request(parts.method, url).headers(headers).body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(name)) {
        response = response.header(name, value);
    }
    Ok(response.body(Body::from(answer.bytes().await?))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_reaches_what_is_behind_and_another_does_not() {
        let behind = TcpListener::bind(loopback(0)).await.unwrap();
        let endpoint = format!("http://{}", behind.local_addr().unwrap());
        let router = Router::new().fallback(async |request: Request| {
            let header = |name: HeaderName| request.headers()[name].to_str().unwrap().to_owned();
            format!("{} {} {}", request.uri(), header(header::HOST), header(FORWARDED_PROTO))
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(behind, router).await.unwrap() });

        let edge = TlsEdge::start("d1.cloudfront.net", &endpoint).await.unwrap();
        let client = || Client::builder().no_proxy().resolve("d1.cloudfront.net", edge.addr());
        let trusted = reqwest::Certificate::from_pem(edge.certificate().as_bytes()).unwrap();
        let url = "https://d1.cloudfront.net/images/a.webp?b=c";
        let answer = client().tls_certs_only([trusted]).build().unwrap().get(url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "/images/a.webp?b=c d1.cloudfront.net https");
        let error = client().build().unwrap().get(url).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }
}
