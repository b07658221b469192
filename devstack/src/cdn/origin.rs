//! `Origin`: where the CDN fetches what it does not have, and S3 as one.

use async_trait::async_trait;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::DateTimeFormat;
use bytes::Bytes;
use thiserror::Error;

/// One object as the origin returned it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginObject {
    pub body: Bytes,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    /// With its quotation marks.
    pub etag: Option<String>,
    /// As an HTTP date.
    pub last_modified: Option<String>,
    /// Without the prefix `x-amz-meta-`.
    pub metadata: Vec<(String, String)>,
}

/// What a fetch returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The object.
    Object(OriginObject),
    /// The object still has the `ETag` that was asked about.
    NotModified,
}

/// Why there is no object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OriginError {
    /// 403: there is no such object, or it may not be read. S3 does not tell those without `s3:ListBucket` apart.
    #[error("access denied")]
    AccessDenied,
    /// Another error status.
    #[error("status {0}")]
    Status(u16),
    /// No answer.
    #[error("unreachable: {0}")]
    Unreachable(String),
}

/// Where objects come from.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Fetches the object of `key`, unless it still has the `ETag` given.
    ///
    /// # Errors
    /// When there is no object, for whatever reason.
    async fn fetch(&self, key: &str, if_none_match: Option<&str>) -> Result<Fetched, OriginError>;
}

/// An S3 bucket, read as CloudFront reads it with origin access control: objects, but no listing.
#[derive(Debug, Clone)]
pub struct S3Origin {
    client: aws_sdk_s3::Client,
    bucket: String,
}

impl S3Origin {
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }
}

#[async_trait]
impl Origin for S3Origin {
    async fn fetch(&self, key: &str, if_none_match: Option<&str>) -> Result<Fetched, OriginError> {
        let request = self.client.get_object().bucket(&self.bucket).key(key);
        let request = request.set_if_none_match(if_none_match.map(str::to_owned));
        let object = match request.send().await {
            Ok(object) => object,
            Err(SdkError::ServiceError(error)) => {
                return match error.raw().status().as_u16() {
                    304 => Ok(Fetched::NotModified),
                    // Whoever may list the bucket, as this client may, is told 404; CloudFront is not.
                    403 | 404 => Err(OriginError::AccessDenied),
                    status => Err(OriginError::Status(status)),
                };
            }
            // A 304 has no body to parse, so some versions of the SDK do not call it a service error.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 304) => {
                return Ok(Fetched::NotModified);
            }
            Err(error) => {
                return Err(OriginError::Unreachable(aws_sdk_s3::error::DisplayErrorContext(error).to_string()));
            }
        };
        let last_modified = object.last_modified.and_then(|time| time.fmt(DateTimeFormat::HttpDate).ok());
        let body = object.body.collect().await.map_err(|error| OriginError::Unreachable(error.to_string()))?;
        Ok(Fetched::Object(OriginObject {
            body: body.into_bytes(),
            content_type: object.content_type,
            cache_control: object.cache_control,
            etag: object.e_tag,
            last_modified,
            metadata: object.metadata.into_iter().flatten().collect(),
        }))
    }
}
