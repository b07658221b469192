//! `Intake`: receives the model's answers, a bounded number at the same time, and past the SDK's own copies of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers received at once. An answer of 5 MB is in memory twice until the picture is out of it, so 200 at once would
/// take more than a gigabyte; eight keep a fast network busy.
const PLACES: usize = 8;

/// After so long an answer is received without a place: the picture is paid for, and a body that stalls (or shares an
/// HTTP/2 window with one that waits) must not cost others their attempt timeout.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer taken. Amazon Bedrock's own limit is 25 MB (AWS documentation, `InvokeModel`, `body`); a picture of
/// 1536x1536 with noise for content is 9.4 MB.
const MAX_BYTES: usize = 32 << 20;

/// Where the body of a call's answer lands: an extension of its request. The SDK would copy the body into its output
/// once more, which for 5 MB is a tenth of what the worker does beside rendering (docs/benchmarks.md).
#[derive(Debug, Clone, Default)]
pub(super) struct Landing(Arc<Mutex<Option<Result<Received, BoxError>>>>);

/// A body, and the place it takes up until it is dropped.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) body: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Landing {
    /// Takes what landed. None when the request was not answered with success, or by a client without an [`Intake`].
    pub(super) fn take(&self) -> Option<Result<Received, BoxError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, received: Result<Received, BoxError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(received);
    }
}

/// An HTTP client that begins to receive an answer when there is room for it. Until then the body stays in the socket,
/// and TCP slows the sender.
///
/// Waiting and receiving are part of the attempt, so the attempt timeout holds. The read timeout, which ends with the
/// headers, does not see them.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    http: SharedHttpClient,
    places: Arc<Semaphore>,
}

impl Intake {
    pub(super) fn new(http: SharedHttpClient) -> Self {
        Self { http, places: Arc::new(Semaphore::new(PLACES)) }
    }
}

/// Returns a connector that receives as an [`Intake`] does, for a client that is not the SDK's.
pub(super) fn receiving(connector: SharedHttpConnector) -> SharedHttpConnector {
    SharedHttpConnector::new(Receiving { connector, places: Arc::new(Semaphore::new(PLACES)) })
}

impl HttpClient for Intake {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.http.http_connector(settings, components);
        SharedHttpConnector::new(Receiving { connector, places: Arc::clone(&self.places) })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_base_client_config(&self.http, components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        HttpClient::validate_final_config(&self.http, components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.http.connector_metadata()
    }
}

#[derive(Debug)]
struct Receiving {
    connector: SharedHttpConnector,
    places: Arc<Semaphore>,
}

impl HttpConnector for Receiving {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let landing = request.extension::<Landing>().cloned();
        let (answer, places) = (self.connector.call(request), Arc::clone(&self.places));
        HttpConnectorFuture::new(async move {
            let mut response = answer.await?;
            // What is no success is small and the SDK's to read.
            let Some(landing) = landing.filter(|_| response.status().is_success()) else { return Ok(response) };
            let place = tokio::time::timeout(PATIENCE, places.acquire_owned()).await.ok();
            let place = place.map(|place| place.expect("the semaphore is never closed"));
            let body = receive(&mut response).await;
            landing.put(body.map(|body| Received { body, _place: place }));
            Ok(response)
        })
    }
}

/// Takes the body out of a response.
async fn receive(response: &mut HttpResponse) -> Result<Vec<u8>, BoxError> {
    let announced = response.headers().get("content-length").and_then(|length| length.parse().ok());
    let mut frames = std::mem::replace(response.body_mut(), SdkBody::empty());
    let mut body = Vec::with_capacity(announced.unwrap_or(0).min(MAX_BYTES));
    while let Some(frame) = frames.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if body.len() + data.len() > MAX_BYTES {
            return Err(format!("the answer is larger than {MAX_BYTES} bytes").into());
        }
        body.extend_from_slice(&data);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;
    use tokio::time::Instant;

    use super::*;

    /// Answers at once.
    #[derive(Debug)]
    struct Prompt(u16, Vec<u8>);

    impl HttpConnector for Prompt {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(self.0).unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(self.1.clone()))))
        }
    }

    fn receiving(status: u16, body: Vec<u8>) -> Receiving {
        let connector = SharedHttpConnector::new(Prompt(status, body));
        Receiving { connector, places: Arc::new(Semaphore::new(PLACES)) }
    }

    fn request() -> (HttpRequest, Landing) {
        let (mut request, landing) = (HttpRequest::empty(), Landing::default());
        request.add_extension(landing.clone());
        (request, landing)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_until_another_has_been_used_but_not_for_ever() {
        let receiving = receiving(200, b"{}".to_vec());
        let mut landed = Vec::new();
        for _ in 0..PLACES {
            let (request, landing) = request();
            receiving.call(request).await.unwrap();
            landed.push(landing.take().unwrap().unwrap());
        }
        let (waiting, landing) = request();
        let mut next = Box::pin(receiving.call(waiting));
        assert!(futures::poll!(&mut next).is_pending());
        landed.pop();
        let began = Instant::now();
        next.await.unwrap();
        landed.push(landing.take().unwrap().unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (without_a_place, landing) = request();
        receiving.call(without_a_place).await.unwrap();
        assert!(began.elapsed() >= PATIENCE);
        drop((landed, landing));
        assert_eq!(receiving.places.available_permits(), PLACES);
    }

    #[tokio::test]
    async fn the_body_lands_and_leaves_the_response() {
        let (request, landing) = request();
        let response = receiving(200, b"picture".to_vec()).call(request).await.unwrap();
        assert_eq!(response.body().bytes(), Some(&b""[..]));
        assert_eq!(landing.take().unwrap().unwrap().body, b"picture");
        assert!(landing.take().is_none());
    }

    #[tokio::test]
    async fn an_error_is_left_to_the_sdk() {
        let (request, landing) = request();
        let response = receiving(400, b"why".to_vec()).call(request).await.unwrap();
        assert_eq!(response.body().bytes(), Some(&b"why"[..]));
        assert!(landing.take().is_none());
    }

    #[tokio::test]
    async fn an_answer_beyond_all_measure_is_refused() {
        let (request, landing) = request();
        let receiving = receiving(200, vec![b' '; MAX_BYTES + 1]);
        receiving.call(request).await.unwrap();
        assert!(landing.take().unwrap().unwrap_err().to_string().contains("larger than"));
        assert_eq!(receiving.places.available_permits(), PLACES);
    }
}
