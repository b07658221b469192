//! `S3Front`: stands in front of S3 and answers some requests as S3 does when it is busy or when writers meet.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::stack::ports::loopback;

/// As the embedded S3.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Headers that concern one connection, and the one that the server has dealt with.
const OF_THE_CONNECTION: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT, HeaderName::from_static("keep-alive")];

/// An answer of S3 other than the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OddAnswer {
    /// 503 `SlowDown`, and nothing is done.
    SlowDown,
    /// 409 `ConditionalRequestConflict` to a conditional write, and nothing is done.
    Conflict,
    /// 412 `PreconditionFailed` to a conditional write that *is* done: what a client sees that sends its write again
    /// because the answer was lost.
    LostAnswer,
}

impl OddAnswer {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::SlowDown => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate."),
            Self::Conflict => (
                StatusCode::CONFLICT,
                "ConditionalRequestConflict",
                "The conditional request cannot succeed due to a conflicting operation against this resource.",
            ),
            Self::LostAnswer => (
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            ),
        }
    }
}

impl IntoResponse for OddAnswer {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
    }
}

/// A running front. Dropping it ends it.
#[derive(Debug)]
pub(super) struct S3Front {
    addr: SocketAddr,
    odd: Arc<Mutex<Option<(OddAnswer, f64)>>>,
    _serving: JoinSet<io::Result<()>>,
}

#[derive(Clone)]
struct Front {
    upstream: SocketAddr,
    http: reqwest::Client,
    odd: Arc<Mutex<Option<(OddAnswer, f64)>>>,
}

impl S3Front {
    /// Listens on a free port in front of the S3 at `upstream`, which need not be there yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub(super) async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await?;
        let addr = listener.local_addr()?;
        let odd = Arc::default();
        // As it comes and goes: neither unpacked nor followed.
        let http = reqwest::Client::builder().no_proxy().no_gzip().redirect(reqwest::redirect::Policy::none());
        let http = http.build().expect("a client without TLS has nothing to load");
        let front = Front { upstream, http, odd: Arc::clone(&odd) };
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, Router::new().fallback(answer).with_state(front)).await });
        Ok(Self { addr, odd, _serving: serving })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers a share of the requests (0.0 ..= 1.0) in this way from now on, or none.
    pub(super) fn set(&self, odd: Option<(OddAnswer, f64)>) {
        *self.odd.lock().unwrap_or_else(PoisonError::into_inner) = odd;
    }
}

async fn answer(State(front): State<Front>, request: Request) -> Response {
    let odd = *front.odd.lock().unwrap_or_else(PoisonError::into_inner);
    let odd = odd.filter(|(_, share)| rand::random_bool(*share)).map(|(odd, _)| odd);
    let is_conditional = request.method() == Method::PUT
        && [header::IF_MATCH, header::IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name));
    match odd {
        Some(OddAnswer::SlowDown) => refused(request, OddAnswer::SlowDown).await,
        Some(OddAnswer::Conflict) if is_conditional => refused(request, OddAnswer::Conflict).await,
        Some(OddAnswer::LostAnswer) if is_conditional => {
            let done = front.pass_on(request).await;
            if done.status().is_success() { OddAnswer::LostAnswer.into_response() } else { done }
        }
        _ => front.pass_on(request).await,
    }
}

/// Reads the request to its end: a client that is still sending would miss the answer.
async fn refused(request: Request, odd: OddAnswer) -> Response {
    match to_bytes(request.into_body(), MAX_BODY_BYTES).await {
        Ok(_) => odd.into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

impl Front {
    /// Passes the request on as it is, with its `Host`, which is part of its signature.
    async fn pass_on(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return StatusCode::BAD_REQUEST.into_response() };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = head.headers;
        for name in OF_THE_CONNECTION {
            headers.remove(name);
        }
        let passed = self.http.request(head.method, format!("http://{}{path}", self.upstream)).headers(headers);
        let answer = async {
            let answer = passed.body(body).send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        };
        match answer.await {
            Ok((status, headers, body)) => {
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                for name in OF_THE_CONNECTION {
                    response.headers_mut().remove(name);
                }
                response
            }
            // The service is gone: so is the answer.
            Err(error) => {
                tracing::debug!(%error, "S3 did not answer");
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ProvideErrorMetadata;
    use aws_sdk_s3::primitives::ByteStream;

    use super::*;
    use crate::embedded::{EmbeddedS3, s3_client};

    async fn client_of(front: &S3Front) -> aws_sdk_s3::Client {
        let client = s3_client(&format!("http://{}", front.addr()));
        let config = client.config().to_builder().retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled());
        aws_sdk_s3::Client::from_conf(config.build())
    }

    async fn put(client: &aws_sdk_s3::Client, key: &str) -> Result<(), String> {
        let body = ByteStream::from(vec![7; 100_000]);
        let put = client.put_object().bucket("pictures").key(key).if_none_match("*").body(body).send().await;
        put.map(|_| ()).map_err(|error| error.code().unwrap_or("no code").to_owned())
    }

    async fn is_there(client: &aws_sdk_s3::Client, key: &str) -> bool {
        client.get_object().bucket("pictures").key(key).send().await.is_ok()
    }

    #[tokio::test]
    async fn signatures_hold_through_it_and_odd_answers_are_those_of_s3() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pictures")).unwrap();
        let s3 = EmbeddedS3::start(loopback(0), dir.path().to_owned()).await.unwrap();
        let front = S3Front::start(s3.local_addr()).await.unwrap();
        let client = client_of(&front).await;
        put(&client, "records/1.json").await.unwrap();
        assert_eq!(put(&client, "records/1.json").await.unwrap_err(), "PreconditionFailed", "S3's own answer");

        front.set(Some((OddAnswer::SlowDown, 1.0)));
        assert_eq!(put(&client, "records/2.json").await.unwrap_err(), "SlowDown");
        front.set(Some((OddAnswer::Conflict, 1.0)));
        assert_eq!(put(&client, "records/2.json").await.unwrap_err(), "ConditionalRequestConflict");
        assert!(!is_there(&client, "records/2.json").await, "nothing was done, and a read is no conditional write");
        front.set(Some((OddAnswer::LostAnswer, 1.0)));
        assert_eq!(put(&client, "records/2.json").await.unwrap_err(), "PreconditionFailed");
        assert!(is_there(&client, "records/2.json").await, "it was done");
        front.set(None);
        put(&client, "records/3.json").await.unwrap();
        s3.stop().await;
        assert_eq!(put(&client, "records/4.json").await.unwrap_err(), "no code");
    }
}
