//! The port to the bucket, and its S3 adapter.

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use jiff::Timestamp;
use job::{JobId, ObjectKind, Record, record_key};
use serde::Serialize;
use service::detail;

use crate::fault::Fault;

/// S3 lists at most this many objects in one call.
pub const MAX_LISTED: usize = 1000;

/// Version of an object, for the next conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub modified_at: Timestamp,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectInfo {
    pub key: String,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Of a source: how many calls it is the outcome of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// The bucket.
#[async_trait]
pub trait Objects: Send + Sync {
    async fn read(&self, key: &str) -> Result<Option<(Bytes, ETag)>, Fault>;

    /// Writes the object if it is still the version `expected`, or with `None` if there is none. Returns the new version,
    /// or `None` when somebody else was faster.
    async fn write(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<Option<ETag>, Fault>;

    /// Returns what is known of an object; `None` where there is none.
    async fn look(&self, key: &str) -> Result<Option<ObjectInfo>, Fault>;

    /// Returns up to [`MAX_LISTED`] objects in the order of their keys, from the first one behind `after` on. Fewer than
    /// that means that there are no more.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, Fault>;
}

/// What is kept of a job.
#[derive(Debug, Clone)]
pub enum Kept {
    Nothing,
    Record(Box<Record>),
    /// Something that cannot be read as a record: its key, and where it ceases to be one.
    Unreadable(String),
}

impl Kept {
    /// Returns the record that can be read.
    pub fn record(&self) -> Option<&Record> {
        if let Self::Record(record) = self { Some(record) } else { None }
    }

    /// Returns what is wrong with the one that cannot.
    pub fn damage(&self) -> Option<&str> {
        if let Self::Unreadable(damage) = self { Some(damage) } else { None }
    }
}

/// Reads the record of a job. One that is damaged is no fault: the tools are for such days.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn read_record(objects: &dyn Objects, id: &JobId) -> Result<Kept, Fault> {
    let key = record_key(id);
    let Some((body, _)) = objects.read(&key).await? else { return Ok(Kept::Nothing) };
    // What serde says has no word of the text but for the names of fields.
    Ok(serde_json::from_slice(&body)
        .map_or_else(|error| Kept::Unreadable(format!("{key}: {}", job::Place::from(error))), Kept::Record))
}

/// Metadata of a source, as the worker writes it.
const META_GENERATION: &str = "generation";

/// The bucket on S3.
#[derive(Debug, Clone)]
pub struct S3Objects {
    client: Client,
    bucket: String,
}

impl S3Objects {
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn read(&self, key: &str) -> Result<Option<(Bytes, ETag)>, Fault> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let version = ETag(object.e_tag.unwrap_or_default());
        let body = object.body.collect().await;
        let body = body.map_err(|error| Fault::Service { what: WHAT, reason: detail::causes(&error) })?;
        Ok(Some((body.into_bytes(), version)))
    }

    async fn write(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<Option<ETag>, Fault> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(ObjectKind::Control.content_type())
            .cache_control(ObjectKind::Control.cache_control())
            .body(ByteStream::from(body));
        let put = match expected {
            Some(ETag(expected)) => put.if_match(expected),
            None => put.if_none_match("*"),
        };
        match put.send().await {
            Ok(written) => Ok(Some(ETag(written.e_tag.unwrap_or_default()))),
            // 412, 409 when two writes met, 404 when what was to be replaced has gone: none is a modelled variant.
            Err(error)
                if matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey")) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    async fn look(&self, key: &str) -> Result<Option<ObjectInfo>, Fault> {
        let head = match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(head) => head,
            // An answer to HEAD has no body, and so no code of S3's.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let bytes = head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
        let modified_at = head.last_modified().and_then(timestamp);
        let generation = head.metadata().and_then(|all| all.get(META_GENERATION)).and_then(|text| text.parse().ok());
        Ok(Some(ObjectInfo { key: key.to_owned(), bytes, modified_at, content_type: head.content_type, generation }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, Fault> {
        let max = i32::try_from(MAX_LISTED).expect("a thousand");
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(max);
        let output = list.set_start_after(after.map(str::to_owned)).send().await.map_err(|error| failed(&error))?;
        let listed = output.contents.unwrap_or_default().into_iter().filter_map(|object| {
            Some(Listed { modified_at: object.last_modified.as_ref().and_then(timestamp)?, key: object.key? })
        });
        Ok(listed.collect())
    }
}

fn timestamp(time: &aws_sdk_s3::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(time.to_millis().ok()?).ok()
}

const WHAT: &str = "S3";

fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> Fault {
    Fault::Service { what: WHAT, reason: detail::answer(error.code(), error.message(), error) }
}
