//! The port to the text-to-image model.

pub mod bedrock;
mod classify;
mod http1;
mod intake;
pub mod openai;
pub mod register;
mod stability;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::JobError;

pub use bedrock::{BedrockGenerator, client};
pub use openai::OpenAiGenerator;
pub use register::BedrockRegister;
pub use stability::{OutputFormat, StabilityModel, UnknownModel, parse_answer};

/// What to ask the model for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateRequest {
    pub prompt: String,
    pub negative_prompt: Option<String>,
    /// 1 ..= the model's largest seed.
    pub seed: u32,
}

/// Encoded bytes as the model returned them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImage {
    /// An encoded picture, as far as the model is to be believed: nothing here has been decoded.
    pub bytes: Bytes,
    /// Seed as the model reports it.
    pub seed: u32,
}

/// A text-to-image model. One call is one paid picture, so an implementation retries only what was certainly not
/// charged.
#[async_trait]
pub trait Generator: Send + Sync + 'static {
    /// Asks for one picture.
    ///
    /// # Errors
    /// Classified by [`Kind`](crate::error::Kind); a refusal is `ContentFiltered`.
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError>;

    /// Returns the model's id, for records and metrics.
    fn model_id(&self) -> &str;

    /// Returns the largest seed the model takes.
    fn max_seed(&self) -> u32;
}
