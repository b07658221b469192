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

/// An S3 bucket, read as `CloudFront` reads it with origin access control: objects, but no listing.
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
    use axum::Router;
    use axum::extract::Path;
    use axum::http::HeaderMap;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn client(addr: SocketAddr) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(format!("http://{addr}"))
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// The few answers of S3 that matter here; the key is the status wanted.
    async fn answer(Path(key): Path<String>, headers: HeaderMap) -> Response {
        let status: u16 = key.parse().unwrap();
        if status != 200 {
            let code = if status == 404 { "NoSuchKey" } else { "Other" };
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            return (status, format!("<Error><Code>{code}</Code><Message>m</Message></Error>")).into_response();
        }
        if headers.get("if-none-match").is_some_and(|etag| etag == "\"tag\"") {
            return axum::http::StatusCode::NOT_MODIFIED.into_response();
        }
        let headers = [
            ("content-type", "image/webp"),
            ("cache-control", "public, max-age=60"),
            ("etag", "\"tag\""),
            ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT"),
            ("x-amz-meta-correlation-id", "c-1"),
        ];
        (headers, "picture").into_response()
    }

    #[tokio::test]
    async fn answers_of_s3_become_what_cloudfront_sees() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let server = tasks.spawn(async move {
            axum::serve(listener, Router::new().route("/pictures/{key}", get(answer))).await.unwrap();
        });
        let origin = S3Origin::new(client(addr), "pictures");
        let expected = OriginObject {
            body: "picture".into(),
            content_type: Some("image/webp".into()),
            cache_control: Some("public, max-age=60".into()),
            etag: Some("\"tag\"".into()),
            last_modified: Some("Tue, 24 Nov 2026 10:00:00 GMT".into()),
            metadata: vec![("correlation-id".into(), "c-1".into())],
        };
        assert_eq!(origin.fetch("200", None).await, Ok(Fetched::Object(expected)));
        assert_eq!(origin.fetch("200", Some("\"tag\"")).await, Ok(Fetched::NotModified));
        assert_eq!(origin.fetch("403", None).await, Err(OriginError::AccessDenied));
        assert_eq!(origin.fetch("404", None).await, Err(OriginError::AccessDenied));
        assert_eq!(origin.fetch("503", None).await, Err(OriginError::Status(503)));
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(matches!(origin.fetch("200", None).await, Err(OriginError::Unreachable(_))));
    }
}
