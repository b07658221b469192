//! `BedrockGenerator`: a Stability model behind Amazon Bedrock's `InvokeModel`.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::{Builder, Region, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::Blob;

use super::http1::Http1Client;
use super::intake::{Intake, Landing};
use super::stability::{OutputFormat, StabilityModel, UnknownModel, parse_answer};
use super::{GenerateRequest, Generator, SourceImage, classify};
use crate::error::JobError;

/// One call is one attempt: `InvokeModel` has no idempotency token, so a call that timed out may have been charged and
/// its retry would be charged again. The queue retries, by jobs, and counts.
const ATTEMPTS: u32 = 1;

/// What the operation may take beyond its attempt: resolving credentials and endpoint happens outside of it.
const OPERATION_ALLOWANCE: Duration = Duration::from_secs(5);

/// Makes the client of the model's service in `region`, which need not be the region we run in.
///
/// `attempt_timeout` bounds the call until the last byte of the picture: keep it well above the model's slowest answers.
pub fn client(config: &SdkConfig, region: &str, attempt_timeout: Duration) -> Client {
    let http = Http1Client::new(service::aws::CONNECT_TIMEOUT, service::aws::POOL_IDLE_TIMEOUT);
    let config = Builder::from(config)
        .http_client(Intake::new(SharedHttpClient::new(http)))
        .region(Region::new(region.to_owned()))
        .timeout_config(service::aws::timeouts(attempt_timeout, attempt_timeout + OPERATION_ALLOWANCE))
        .retry_config(service::aws::retries(ATTEMPTS))
        // The timeouts above are the only clock: two would make the same silence two kinds of error.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// A Stability model on Bedrock.
#[derive(Debug, Clone)]
pub struct BedrockGenerator {
    client: Client,
    model_id: String,
    model: StabilityModel,
    output_format: OutputFormat,
}

impl BedrockGenerator {
    /// Takes a client made by [`client`], the id, or foundation-model ARN, of the model to call, and a format that it
    /// [returns](StabilityModel::returns).
    ///
    /// # Errors
    /// When the model is not one we speak to.
    pub fn new(client: Client, model_id: String, output_format: OutputFormat) -> Result<Self, UnknownModel> {
        let model = StabilityModel::for_id(&model_id)?;
        Ok(Self { client, model_id, model, output_format })
    }
}

#[async_trait]
impl Generator for BedrockGenerator {
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        let landing = Landing::default();
        let request_landing = landing.clone();
        let output = self
            .client
            .invoke_model()
            .model_id(&self.model_id)
            .content_type("application/json")
            .accept("application/json")
            .body(Blob::new(self.model.request_body(request, self.output_format)))
            .customize()
            .mutate_request(move |http| http.add_extension(request_landing.clone()))
            .send()
            .await
            .map_err(|error| classify::invoke_error(&error, request))?;
        // Under a millisecond for a picture of 2 MB: not worth a hop to the CPU pool.
        match landing.take() {
            Some(received) => parse_answer(&received.map_err(classify::receive_error)?.body, request),
            None => parse_answer(output.body.as_ref(), request),
        }
    }

    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn max_seed(&self) -> u32 {
        self.model.max_seed()
    }
}
