//! `RecordStore`: where the state of jobs is read, listed, and written by the API's few writes; `S3Records` is the bucket behind it.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use axum::body::Bytes;
use job::{IndexEntry, JobId, ObjectKind, Pauses, Place, Record, TenantId, index_prefix, pauses_key, record_key};
use service::detail;
use thiserror::Error;

use crate::problem::{Code, Problem};

/// Version of a stored record, as the store names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// Keeps records. Writes are conditional, so that a record has one writer at a time.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// Returns the record and its version, or `None` when no record has been written yet.
    ///
    /// # Errors
    /// When the store cannot tell.
    async fn read(&self, id: &JobId) -> Result<Option<(Record, ETag)>, StoreError>;

    /// Writes the first record of a job.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when there is one already, or another writer is at it.
    async fn create(&self, record: &Record) -> Result<(), WriteError>;

    /// Replaces the record of version `expected`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when the record has another version by now, or none.
    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError>;

    /// Returns up to `max` (1 to 1000) entries of a tenant's list, newest first, from the first one behind `after` on. Fewer
    /// than `max` means that there are no more.
    ///
    /// # Errors
    /// When the store cannot tell.
    async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&IndexEntry>,
        max: usize,
    ) -> Result<Vec<IndexEntry>, StoreError>;
}

/// The store did not do what was asked. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It cannot be reached, timed out or failed.
    #[error("record store is unavailable: {0}")]
    Unavailable(String),
    /// It does not exist or refuses us: an operator has to act.
    #[error("record store refuses us: {0}")]
    Misconfigured(String),
    /// What is stored is not a record that this version reads.
    #[error("record cannot be read: {0}")]
    Unreadable(String),
}

/// Why a conditional write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Somebody else has written in between: read again.
    #[error("record was written by somebody else")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        match error {
            StoreError::Unavailable(_) => Self::fault(Code::StoreUnavailable, cause).retry_after(2),
            StoreError::Misconfigured(_) => Self::fault(Code::StoreUnavailable, cause).retry_after(30),
            StoreError::Unreadable(_) => Self::fault(Code::InternalError, cause),
        }
    }
}

/// S3 lists at most this many objects in one call.
const MAX_LISTED: usize = 1000;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(9);

/// `records/` and `index/` of an S3 bucket.
pub struct S3Records {
    client: Client,
    bucket: String,
}

impl S3Records {
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Makes the adapter for a process whose one use of it is reading: a call has nine seconds, and one more attempt.
    pub fn of(config: &aws_config::SdkConfig, bucket: String) -> Self {
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(service::aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
            .retry_config(service::aws::retries(2))
            .force_path_style(service::aws::s3_needs_path_style(config));
        Self::new(Client::from_conf(config.build()), bucket)
    }

    /// Returns what operators have stopped. No object means that nothing is.
    ///
    /// # Errors
    /// When the store cannot tell, or the object cannot be read.
    pub async fn pauses(&self) -> Result<Pauses, StoreError> {
        let Some((bytes, _)) = self.get(pauses_key().to_owned()).await? else { return Ok(Pauses::default()) };
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Unreadable(format!("{}: {}", pauses_key(), Place::from(error))))
    }

    /// Returns an object and its version, or `None` where there is none.
    async fn get(&self, key: String) -> Result<Option<(Bytes, ETag)>, StoreError> {
        let got = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let output = match got {
            Ok(output) => output,
            // A missing bucket is a 404 as well, and a 403 means that we may not list it: neither says 'no object'.
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(store_error(&error)),
        };
        let version =
            output.e_tag.map(ETag).ok_or_else(|| StoreError::Unreadable("no ETag in the answer".to_owned()))?;
        let bytes = output.body.collect().await.map_err(|error| StoreError::Unavailable(detail::causes(&error)))?;
        Ok(Some((bytes.into_bytes(), version)))
    }

    async fn put(&self, record: &Record, condition: Condition<'_>) -> Result<(), WriteError> {
        let body = serde_json::to_vec(record).expect("a record always serialises");
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(record_key(&record.id))
            .content_type(ObjectKind::Record.content_type())
            .cache_control(ObjectKind::Record.cache_control())
            .body(ByteStream::from(body));
        let put = match condition {
            Condition::Absent => put.if_none_match("*"),
            Condition::Unchanged(ETag(expected)) => put.if_match(expected),
        };
        put.send().await.map(drop).map_err(|error| match error.code() {
            // 409: two conditional writes met. `NoSuchKey`: If-Match on a record that has expired.
            Some("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey") => WriteError::Conflict,
            _ => store_error(&error).into(),
        })
    }
}

enum Condition<'a> {
    Absent,
    Unchanged(&'a ETag),
}

#[async_trait]
impl RecordStore for S3Records {
    async fn read(&self, id: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        let Some((bytes, version)) = self.get(record_key(id)).await? else { return Ok(None) };
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Unreadable(format!("{id}: {}", Place::from(error))))?;
        Ok(Some((record, version)))
    }

    async fn create(&self, record: &Record) -> Result<(), WriteError> {
        self.put(record, Condition::Absent).await
    }

    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError> {
        self.put(record, Condition::Unchanged(expected)).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&IndexEntry>,
        max: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        let max = i32::try_from(max.clamp(1, MAX_LISTED)).expect("1 to 1000");
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(index_prefix(tenant)).max_keys(max);
        let list = list.set_start_after(after.map(|entry| entry.key(tenant)));
        let output = list.send().await.map_err(|error| store_error(&error))?;
        let keys = output.contents.unwrap_or_default().into_iter().filter_map(|object| object.key);
        // Nobody but the workers writes there, and they write nothing else.
        Ok(keys.filter_map(|key| IndexEntry::of_key(&key, tenant)).collect())
    }
}

/// Without a code nothing answered, so it is the network, a timeout or our credentials.
fn store_error<E: ProvideErrorMetadata + StdError + 'static>(error: &SdkError<E>) -> StoreError {
    let detail = detail::answer(error.code(), error.message(), error);
    let Some(code) = error.code() else { return StoreError::Unavailable(detail) };
    match code {
        "AccessDenied"
        | "NoSuchBucket"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "PermanentRedirect"
        | "AuthorizationHeaderMalformed" => StoreError::Misconfigured(detail),
        _ => StoreError::Unavailable(detail),
    }
}
