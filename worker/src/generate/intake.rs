//! `Intake`: bounds how many of the model's answers are being received at the same time.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use tokio::sync::Semaphore;

/// Answers received at once. An answer of 5 MB is in memory up to three times until the picture is out of it, so 200 at
/// once would take more than a gigabyte; eight keep a fast network busy.
const PLACES: usize = 8;

/// After so long an answer is received without a place: the picture is paid for, and a body that stalls (or shares an
/// HTTP/2 window with one that waits) must not cost others their attempt timeout.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP client that hands a response out when there is room to receive its body. Until then the body stays in the
/// socket, and TCP slows the sender.
///
/// The wait is part of the attempt, so the attempt timeout holds. The read timeout, which ends with the headers, does
/// not see it.
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
        let (answer, places) = (self.connector.call(request), Arc::clone(&self.places));
        HttpConnectorFuture::new(async move {
            let mut response = answer.await?;
            if let Ok(place) = tokio::time::timeout(PATIENCE, places.acquire_owned()).await {
                let place = place.expect("the semaphore is never closed");
                // The SDK keeps the response until it has read the body and made the output of it.
                response.add_extension(Arc::new(place));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use tokio::time::Instant;

    use super::*;

    /// Answers at once.
    #[derive(Debug)]
    struct Prompt;

    impl HttpConnector for Prompt {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(200).unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::empty())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_waits_until_another_has_been_read_but_not_for_ever() {
        let receiving =
            Receiving { connector: SharedHttpConnector::new(Prompt), places: Arc::new(Semaphore::new(PLACES)) };
        let mut received = Vec::new();
        for _ in 0..PLACES {
            received.push(receiving.call(HttpRequest::empty()).await.unwrap());
        }
        let mut next = Box::pin(receiving.call(HttpRequest::empty()));
        assert!(futures::poll!(&mut next).is_pending());
        received.pop();
        let began = Instant::now();
        received.push(next.await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);

        let without_a_place = receiving.call(HttpRequest::empty()).await.unwrap();
        assert!(began.elapsed() >= PATIENCE);
        drop((received, without_a_place));
        assert_eq!(receiving.places.available_permits(), PLACES);
    }
}
