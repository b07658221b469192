//! `BedrockRegister`: where a model is in its life, as Amazon Bedrock's control plane has it.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_types::service_config::ServiceConfigKey;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use job::Place;
use serde::Deserialize;
use service::detail::{all_causes, bounded};

use super::http1::Http1Client;
use super::{StabilityModel, UnknownModel};
use crate::model_life::{ModelLife, ModelRegister};

/// Time for the answer, from the credentials to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer read, in bytes; one has about a thousand.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Name of the service in a signature.
const SIGNING_NAME: &str = "bedrock";

/// `GetFoundationModel`, signed by hand: the SDK's crate of the control plane has 205,000 lines for this one call
/// (docs/adr/0027).
#[derive(Debug, Clone)]
pub struct BedrockRegister {
    http: Http1Client,
    credentials: Option<SharedCredentialsProvider>,
    region: String,
    url: String,
}

impl BedrockRegister {
    /// Makes the register of `model_id` in `region`.
    ///
    /// None when the calls of the model go to an endpoint of their own and the control plane has none (`AWS_ENDPOINT_URL_BEDROCK`):
    /// what is behind it is not Amazon Bedrock, and its models are not in Amazon's list.
    ///
    /// # Errors
    /// When the model is not one we speak to.
    pub fn new(config: &SdkConfig, region: &str, model_id: &str) -> Result<Option<Self>, UnknownModel> {
        let model = StabilityModel::for_id(model_id)?;
        let endpoint = match (own_endpoint(config, "Bedrock"), own_endpoint(config, "Bedrock Runtime")) {
            (Some(own), _) => own,
            (None, Some(_)) => return Ok(None),
            (None, None) => format!("https://bedrock.{region}.amazonaws.com"),
        };
        Ok(Some(Self {
            http: Http1Client::new(service::aws::CONNECT_TIMEOUT, service::aws::POOL_IDLE_TIMEOUT),
            credentials: config.credentials_provider(),
            region: region.to_owned(),
            url: format!("{}/foundation-models/{}", endpoint.trim_end_matches('/'), model.id().replace(':', "%3A")),
        }))
    }

    async fn ask(&self) -> Result<ModelLife, String> {
        let request = self.signed().await?;
        let response = self.http.call(request).await.map_err(|error| all_causes(&error))?;
        let status = response.status().as_u16();
        let code = response.headers().get("x-amzn-errortype").unwrap_or_default();
        let code = code.split(':').next().unwrap_or_default().to_owned();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| e.to_string())?;
        match (status, code.as_str()) {
            (200, _) => life(&body.to_bytes()),
            (404, "ResourceNotFoundException") => Ok(ModelLife::Missing),
            (403, "AccessDeniedException") => {
                Err("AccessDeniedException (status 403): allow bedrock:GetFoundationModel on the model".to_owned())
            }
            _ => Err(format!("{} (status {status})", if code.is_empty() { "no code" } else { &code })),
        }
    }

    async fn signed(&self) -> Result<HttpRequest, String> {
        let provider = self.credentials.as_ref().ok_or("there are no credentials")?;
        let credentials = provider.provide_credentials().await.map_err(|error| all_causes(&error))?;
        let identity = Identity::from(credentials);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SIGNING_NAME)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .expect("every part is given")
            .into();
        let unsigned = SignableRequest::new("GET", &self.url, std::iter::empty(), SignableBody::Bytes(&[]))
            .map_err(|error| all_causes(&error))?;
        let (instructions, _) = sign(unsigned, &params).map_err(|error| all_causes(&error))?.into_parts();
        let mut request = http::Request::get(&self.url).body(SdkBody::empty()).map_err(|error| all_causes(&error))?;
        instructions.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|error| all_causes(&error))
    }
}

#[async_trait]
impl ModelRegister for BedrockRegister {
    async fn life(&self) -> Result<ModelLife, String> {
        let timed_out = |_| Err(format!("no answer within {} s", TIMEOUT.as_secs()));
        tokio::time::timeout(TIMEOUT, self.ask()).await.unwrap_or_else(timed_out).map_err(bounded)
    }
}

/// Returns the endpoint that the environment or the profile names for a service, as the SDK's clients find it.
fn own_endpoint(config: &SdkConfig, service_id: &str) -> Option<String> {
    let key =
        ServiceConfigKey::builder().service_id(service_id).env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let named = config.service_config().and_then(|services| services.load_config(key.ok()?));
    named.or_else(|| config.endpoint_url().map(str::to_owned)).filter(|url| !url.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    model_details: Details,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    /// Optional in the service's model.
    #[serde(default)]
    model_lifecycle: Option<Lifecycle>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    status: String,
    /// Newer than the status; absent where no date has been set.
    #[serde(default)]
    end_of_life_time: Option<Timestamp>,
}

fn life(body: &[u8]) -> Result<ModelLife, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| format!("answer is odd: {}", Place::from(error)))?;
    let Some(Lifecycle { status, end_of_life_time }) = answer.model_details.model_lifecycle else {
        return Err("answer says nothing of its life".to_owned());
    };
    match status.as_str() {
        "ACTIVE" => Ok(ModelLife::Active { ends_at: end_of_life_time }),
        "LEGACY" => Ok(ModelLife::Legacy { ends_at: end_of_life_time }),
        other => Err(format!("unknown state '{}'", other.chars().take(40).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_with_and_without_a_date() {
        let answer = |lifecycle: &str| {
            life(format!(r#"{{"modelDetails":{{"modelId":"m","modelLifecycle":{lifecycle}}}}}"#).as_bytes())
        };
        assert_eq!(answer(r#"{"status":"ACTIVE"}"#), Ok(ModelLife::Active { ends_at: None }));
        let ends_at = Some("2027-03-01T00:00:00Z".parse().unwrap());
        let dated =
            r#"{"status":"LEGACY","legacyTime":"2026-09-01T00:00:00Z","endOfLifeTime":"2027-03-01T00:00:00+00:00"}"#;
        assert_eq!(answer(dated), Ok(ModelLife::Legacy { ends_at }));
        assert_eq!(answer("null").unwrap_err(), "answer says nothing of its life");
        assert_eq!(answer(r#"{"status":"ASLEEP"}"#).unwrap_err(), "unknown state 'ASLEEP'");
        assert!(life(b"<html>").is_err());
    }

    #[test]
    fn a_model_behind_an_endpoint_of_its_own_is_not_in_amazons_list() {
        let config = SdkConfig::builder().build();
        let register = BedrockRegister::new(&config, "us-west-2", StabilityModel::ImageCore.id()).unwrap().unwrap();
        let url = "https://bedrock.us-west-2.amazonaws.com/foundation-models/stability.stable-image-core-v1%3A1";
        assert_eq!(register.url, url);
        let emulator = SdkConfig::builder().endpoint_url("http://127.0.0.1:4566/").build();
        let register = BedrockRegister::new(&emulator, "us-west-2", StabilityModel::Sd35Large.id()).unwrap().unwrap();
        assert_eq!(register.url, "http://127.0.0.1:4566/foundation-models/stability.sd3-5-large-v1%3A0");
        assert!(BedrockRegister::new(&config, "us-west-2", "amazon.nova-canvas-v1:0").is_err());
    }
}
