//! `OpenAiGenerator`: a model behind an images endpoint as `OpenAI` has it: a model server of one's own, or another cloud.

mod answer;
pub mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use service::detail::all_causes;

use self::answer::{error_of, picture_of};
use self::settings::{Dialect, OpenAiSource};
use super::http1::Http1Client;
use super::intake::{Landing, receiving};
use super::{GenerateRequest, Generator, SourceImage};
use crate::error::{JobError, Kind};

/// Longest answer without a picture that is read, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What a picture's seed is called where none could be asked for.
const NO_SEED: u32 = 0;

/// Calls `POST {base}/v1/images/generations`. One call is one attempt: it is not repeated, and redirects are not followed.
#[derive(Debug, Clone)]
pub struct OpenAiGenerator {
    connector: SharedHttpConnector,
    url: String,
    authorization: Option<HeaderValue>,
    source: OpenAiSource,
    timeout: Duration,
}

#[derive(Serialize)]
struct RequestBody<'a> {
    model: &'a str,
    prompt: &'a str,
    n: u8,
    size: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
}

impl OpenAiGenerator {
    /// Makes the generator; a call may take `timeout` from its start to the last byte of the picture.
    pub fn new(source: OpenAiSource, timeout: Duration) -> Self {
        let http = Http1Client::new(service::aws::CONNECT_TIMEOUT, service::aws::POOL_IDLE_TIMEOUT);
        let authorization = source.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).expect("it is visible ASCII");
            value.set_sensitive(true);
            value
        });
        let url = format!("{}/v1/images/generations", source.base_url);
        Self { connector: receiving(SharedHttpConnector::new(http)), url, authorization, source, timeout }
    }

    fn body(&self, request: &GenerateRequest) -> Vec<u8> {
        let with_negative;
        let mut body = RequestBody {
            model: &self.source.model,
            prompt: &request.prompt,
            n: 1,
            size: &self.source.size,
            response_format: None,
            output_format: None,
            negative_prompt: None,
            seed: None,
        };
        match self.source.dialect {
            Dialect::Compatible => {
                body.response_format = Some("b64_json");
                body.negative_prompt = request.negative_prompt.as_deref();
                body.seed = Some(request.seed.min(self.max_seed()));
            }
            Dialect::GptImage => {
                body.output_format = Some("png");
                // There is no field for it, and leaving it out would draw what was not wanted.
                if let Some(negative) = &request.negative_prompt {
                    with_negative = format!("{}\n\nNot in the picture: {negative}", request.prompt);
                    body.prompt = &with_negative;
                }
            }
        }
        serde_json::to_vec(&body).expect("texts and numbers always serialise")
    }

    fn request(&self, request: &GenerateRequest, landing: &Landing) -> Result<HttpRequest, JobError> {
        let odd = |error: &(dyn std::error::Error + 'static)| JobError::new(Kind::ModelNotFound, all_causes(error));
        let mut http = http::Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(SdkBody::from(self.body(request)))
            .map_err(|error| odd(&error))?;
        if let Some(authorization) = &self.authorization {
            http.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let mut http = HttpRequest::try_from(http).map_err(|error| odd(&error))?;
        http.add_extension(landing.clone());
        Ok(http)
    }

    async fn ask(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        let landing = Landing::default();
        let call = self.connector.call(self.request(request, &landing)?);
        let response = call.await.map_err(|error| JobError::new(Kind::ModelUnreachable, all_causes(&error)))?;
        if let Some(received) = landing.take() {
            let received = received.map_err(super::classify::receive_error)?;
            let seed = match self.source.dialect {
                Dialect::Compatible => request.seed.min(self.max_seed()),
                Dialect::GptImage => NO_SEED,
            };
            return Ok(SourceImage { bytes: picture_of(&received.body)?, seed });
        }
        Err(refusal(response, request).await)
    }
}

async fn refusal(response: HttpResponse, request: &GenerateRequest) -> JobError {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).map(str::to_owned);
    let (retry_after, retry_after_ms) = (header("retry-after"), header("retry-after-ms"));
    // Whatever cannot be read of it, the status is left.
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    error_of(status, &body, retry_after.as_deref(), retry_after_ms.as_deref(), request)
}

#[async_trait]
impl Generator for OpenAiGenerator {
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        let timed_out = |_| {
            let detail = format!("no answer within {} s", self.timeout.as_secs());
            Err(JobError::new(Kind::ModelTimedOut, detail))
        };
        tokio::time::timeout(self.timeout, self.ask(request)).await.unwrap_or_else(timed_out)
    }

    fn model_id(&self) -> &str {
        &self.source.model
    }

    /// Model servers count seeds in 32 bits, many of them with a sign.
    fn max_seed(&self) -> u32 {
        i32::MAX.unsigned_abs()
    }
}
