//! `Http1Client`: an HTTP client for the SDK that speaks HTTP/1.1 only.

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{Layer, timeout::TimeoutLayer};

/// Opens connections, within a time.
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// One connection for each request under way.
///
/// The SDK's own client offers HTTP/2, and Amazon Bedrock takes it. Then all calls of a process share one connection:
/// its receive window of 5 MB is full with the first few pictures that wait for a place in the
/// [`Intake`](super::intake::Intake), and the pictures that have one starve behind them. It also holds no more calls
/// than the server allows streams on a connection. The SDK has no setting for it.
#[derive(Debug, Clone)]
pub(super) struct Http1Client(Client<Connector, SdkBody>);

impl Http1Client {
    /// Trusts the system's root certificates. Without any, as the SDK's own client, only `http` will work.
    pub(super) fn new(connect_timeout: Duration, pool_idle_timeout: Duration) -> Self {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3");
        let roots = builder.clone().with_native_roots().unwrap_or_else(|error| {
            tracing::warn!(%error, "no root certificates: install the ca-certificates of the system");
            builder.with_root_certificates(RootCertStore::empty())
        });
        Self::with_tls(roots.with_no_client_auth(), connect_timeout, pool_idle_timeout)
    }

    fn with_tls(tls: ClientConfig, connect_timeout: Duration, pool_idle_timeout: Duration) -> Self {
        let mut tcp = TcpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        // The connector's own time-out would not hold for the TLS handshake.
        let connector = BoxCloneSyncService::new(TimeoutLayer::new(connect_timeout).layer(https));
        let mut builder = Client::builder(TokioExecutor::new());
        Self(builder.pool_timer(TokioTimer::new()).pool_idle_timeout(pool_idle_timeout).build(connector))
    }
}

impl HttpClient for Http1Client {
    /// The settings' time-outs are not looked at: connecting has ours, and the attempt timeout holds for the rest.
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("hyper", Some("1.x".into())))
    }
}

impl HttpConnector for Http1Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let response = answer.await.map_err(connector_error)?.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Nothing here is retried by the SDK, so only what `classify` asks for matters: whether it was a time-out.
fn connector_error(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let slow = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source())
        .any(|cause| cause.is::<tower::timeout::error::Elapsed>());
    if slow { ConnectorError::io(format!("connect timeout: {error}").into()) } else { ConnectorError::io(error.into()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A certificate of `localhost`, and a client that trusts it.
    fn tls() -> (ServerConfig, Http1Client) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, Http1Client::with_tls(client, TIMEOUT, TIMEOUT))
    }

    #[tokio::test]
    async fn a_server_that_prefers_http2_is_spoken_to_in_http1() {
        let (mut server, client) = tls();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await.unwrap();
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            String::from_utf8(head[..length].to_vec()).unwrap()
        };
        let request = HttpRequest::get(format!("https://localhost:{port}/model")).unwrap();
        let (asked, response) = tokio::join!(serve, client.call(request));
        assert_eq!(response.unwrap().status().as_u16(), 200);
        assert!(asked.starts_with("GET /model HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_handshake_that_hangs_is_a_connection_not_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Http1Client::new(Duration::from_millis(50), TIMEOUT);
        let request = HttpRequest::get(format!("https://localhost:{port}/")).unwrap();
        let error = client.call(request).await.unwrap_err();
        assert!(error.is_io() && error.to_string().contains("io error"), "{error:?}");
        assert!(error.source().unwrap().to_string().contains("connect timeout"), "{error:?}");
    }
}
