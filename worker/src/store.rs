//! The port to the object store, and its S3 adapter.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use jiff::Timestamp;
use job::{
    IndexEntry, JobId, ObjectKind, Pauses, Place, RECORDS, Record, RenditionSpec, SourceInfo, TenantId, TraceContext,
    pauses_key, record_key, rendition_key, source_key,
};
use thiserror::Error;

use crate::error::{JobError, Kind};
use crate::quota::{Sheet, TimetableStore, timetable_key};

/// Version of a stored record, for the next conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// A checkpointed source: the bytes and what we knew about them when we paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub bytes: Bytes,
    pub info: SourceInfo,
}

/// The store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Somebody else has written the record since we read it.
    #[error("the record was written by somebody else")]
    Conflict,
    /// Everything else, classified.
    #[error(transparent)]
    Failed(#[from] JobError),
}

/// Records and pictures with conditional writes, sources without.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    async fn read_record(&self, id: &JobId) -> Result<Option<(Record, ETag)>, JobError>;

    /// Writes the record if there is none.
    async fn create_record(&self, record: &Record) -> Result<ETag, StoreError>;

    /// Writes the record if it is still the version `expected`.
    async fn replace_record(&self, record: &Record, expected: &ETag) -> Result<ETag, StoreError>;

    async fn read_source(&self, id: &JobId) -> Result<Option<Source>, JobError>;

    async fn write_source(&self, id: &JobId, source: &Source) -> Result<(), JobError>;

    /// Writes one picture that the CDN serves, tagged for the standard retention, if there is none.
    async fn create_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        trace: &TraceContext,
    ) -> Result<(), StoreError>;

    /// Writes it over one that is there: only for whoever has just proved the claim.
    async fn write_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        trace: &TraceContext,
    ) -> Result<(), JobError>;

    /// Enters a job into its tenant's list. Once more changes nothing.
    async fn write_index(&self, tenant: &TenantId, entry: &IndexEntry) -> Result<(), JobError>;
}

/// A record as a listing shows it: where it is and when it was written, not what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub modified_at: Timestamp,
}

/// What is in the bucket beside single jobs: the list of all records, and the objects that steer the fleet.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// Returns up to `max` (1 to 1000) records in the order of their keys, from the first one behind `after` on. Fewer
    /// than `max` means that there are no more.
    async fn list_records(&self, after: Option<&str>, max: usize) -> Result<Vec<Listed>, JobError>;

    async fn read_control(&self, key: &str) -> Result<Option<(Bytes, ETag)>, JobError>;

    /// Writes the object if it is still the version `expected`, or with `None` if there is none.
    async fn write_control(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<ETag, StoreError>;
}

/// Returns what operators have stopped. No object means that nothing is.
///
/// # Errors
/// When the store cannot tell, or the object cannot be read.
pub async fn read_pauses(shelf: &dyn Shelf) -> Result<Pauses, JobError> {
    let Some((body, _)) = shelf.read_control(pauses_key()).await? else { return Ok(Pauses::default()) };
    serde_json::from_slice(&body).map_err(|error| {
        JobError::new(Kind::StoreUnavailable, format!("{} cannot be read: {}", pauses_key(), Place::from(error)))
    })
}

/// The store on S3.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(45);
const MAX_ATTEMPTS: u32 = 3;

/// S3 lists at most this many objects in one call.
pub const MAX_LISTED: usize = 1000;

const META_MODEL: &str = "model";
const META_SEED: &str = "seed";
const META_GENERATION: &str = "generation";
const META_MADE_AT: &str = "made-at";

impl S3Store {
    pub fn new(config: &aws_config::SdkConfig, bucket: String) -> Self {
        let settings = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(service::aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
            .retry_config(service::aws::retries(MAX_ATTEMPTS))
            .force_path_style(service::aws::s3_needs_path_style(config))
            .build();
        Self { client: Client::from_conf(settings), bucket }
    }

    fn put(&self, key: String, kind: ObjectKind, body: Bytes) -> PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(kind.content_type())
            .cache_control(kind.cache_control())
            .body(ByteStream::from(body))
    }

    fn put_record(&self, record: &Record) -> PutObjectFluentBuilder {
        let body = serde_json::to_vec(record).expect("a record always serialises");
        self.put(record_key(&record.id), ObjectKind::Record, body.into())
    }

    fn put_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        trace: &TraceContext,
    ) -> PutObjectFluentBuilder {
        self.put(rendition_key(id, spec), ObjectKind::Image(spec.format()), encoded)
            .tagging(job::STANDARD_RETENTION_TAG)
            .metadata("job-id", id.to_string())
            .metadata("correlation-id", trace.correlation_id.as_str())
    }

    /// Returns the object's bytes and metadata, or `None` where there is none.
    async fn get(&self, key: String) -> Result<Option<(Bytes, GetObjectOutput)>, JobError> {
        read(self.client.get_object().bucket(&self.bucket).key(key).send().await).await
    }
}

/// Reads the body of an object that was asked for.
async fn read(
    answer: Result<GetObjectOutput, SdkError<GetObjectError>>,
) -> Result<Option<(Bytes, GetObjectOutput)>, JobError> {
    match answer {
        Ok(mut object) => {
            let body = std::mem::replace(&mut object.body, ByteStream::from_static(b""));
            let body = body
                .collect()
                .await
                .map_err(|error| JobError::new(Kind::StoreUnavailable, format!("object body broke off: {error}")))?;
            Ok(Some((body.into_bytes(), object)))
        }
        Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
        Err(error) => Err(classify(&error)),
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn read_record(&self, id: &JobId) -> Result<Option<(Record, ETag)>, JobError> {
        let Some((body, object)) = self.get(record_key(id)).await? else { return Ok(None) };
        let record = serde_json::from_slice(&body).map_err(|error| {
            JobError::new(Kind::StoreUnavailable, format!("record cannot be read: {}", Place::from(error)))
        })?;
        Ok(Some((record, ETag(object.e_tag.unwrap_or_default()))))
    }

    async fn create_record(&self, record: &Record) -> Result<ETag, StoreError> {
        let written = self.put_record(record).if_none_match("*").send().await.map_err(conditional)?;
        Ok(ETag(written.e_tag.unwrap_or_default()))
    }

    async fn replace_record(&self, record: &Record, expected: &ETag) -> Result<ETag, StoreError> {
        let written = self.put_record(record).if_match(&expected.0).send().await.map_err(conditional)?;
        Ok(ETag(written.e_tag.unwrap_or_default()))
    }

    async fn read_source(&self, id: &JobId) -> Result<Option<Source>, JobError> {
        let Some((bytes, object)) = self.get(source_key(id)).await? else { return Ok(None) };
        let metadata = object.metadata.unwrap_or_default();
        let number = |name: &str| metadata.get(name).and_then(|value| value.parse().ok());
        let info = SourceInfo {
            model: metadata.get(META_MODEL).cloned().unwrap_or_default(),
            seed: number(META_SEED).unwrap_or_default(),
            bytes: bytes.len() as u64,
            generation: number(META_GENERATION).unwrap_or(1),
            made_at: metadata.get(META_MADE_AT).and_then(|value| value.parse().ok()),
        };
        Ok(Some(Source { bytes, info }))
    }

    async fn write_source(&self, id: &JobId, source: &Source) -> Result<(), JobError> {
        let mut put = self
            .put(source_key(id), ObjectKind::Source, source.bytes.clone())
            .metadata(META_MODEL, &source.info.model)
            .metadata(META_SEED, source.info.seed.to_string())
            .metadata(META_GENERATION, source.info.generation.to_string());
        if let Some(made_at) = source.info.made_at {
            put = put.metadata(META_MADE_AT, made_at.to_string());
        }
        put.customize()
            // A SHA-256 of 3 MB for the signature: the signed checksum header (CRC-32) covers the bytes already.
            .disable_payload_signing()
            .send()
            .await
            .map_err(|error| classify(&error))?;
        Ok(())
    }

    async fn create_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        trace: &TraceContext,
    ) -> Result<(), StoreError> {
        let put = self.put_image(id, spec, encoded, trace).if_none_match("*");
        // As for the source.
        put.customize().disable_payload_signing().send().await.map_err(conditional)?;
        Ok(())
    }

    async fn write_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        trace: &TraceContext,
    ) -> Result<(), JobError> {
        let put = self.put_image(id, spec, encoded, trace);
        put.customize().disable_payload_signing().send().await.map_err(|error| classify(&error))?;
        Ok(())
    }

    async fn write_index(&self, tenant: &TenantId, entry: &IndexEntry) -> Result<(), JobError> {
        let put = self.put(entry.key(tenant), ObjectKind::Index, Bytes::new());
        put.send().await.map_err(|error| classify(&error))?;
        Ok(())
    }
}

#[async_trait]
impl Shelf for S3Store {
    async fn list_records(&self, after: Option<&str>, max: usize) -> Result<Vec<Listed>, JobError> {
        let max = i32::try_from(max.clamp(1, MAX_LISTED)).expect("1 to 1000");
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(RECORDS).max_keys(max);
        let output = list.set_start_after(after.map(str::to_owned)).send().await.map_err(|error| classify(&error))?;
        let listed = output.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let modified_at = object.last_modified?.to_millis().ok()?;
            Some(Listed { key: object.key?, modified_at: Timestamp::from_millisecond(modified_at).ok()? })
        });
        Ok(listed.collect())
    }

    async fn read_control(&self, key: &str) -> Result<Option<(Bytes, ETag)>, JobError> {
        let found = self.get(key.to_owned()).await?;
        Ok(found.map(|(body, object)| (body, ETag(object.e_tag.unwrap_or_default()))))
    }

    async fn write_control(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<ETag, StoreError> {
        let put = self.put(key.to_owned(), ObjectKind::Control, body);
        let put = match expected {
            Some(ETag(expected)) => put.if_match(expected),
            None => put.if_none_match("*"),
        };
        Ok(ETag(put.send().await.map_err(conditional)?.e_tag.unwrap_or_default()))
    }
}

#[async_trait]
impl TimetableStore for S3Store {
    async fn read_timetable(&self) -> Result<Sheet, JobError> {
        let date = Arc::new(OnceLock::new());
        let get = self.client.get_object().bucket(&self.bucket).key(timetable_key()).customize();
        let found = read(get.interceptor(ServiceTime(Arc::clone(&date))).send().await).await?;
        let found = found.map(|(body, object)| (body, ETag(object.e_tag.unwrap_or_default())));
        Ok(Sheet { found, store_time: date.get().copied() })
    }

    async fn write_timetable(&self, body: Bytes, expected: Option<&ETag>) -> Result<(), StoreError> {
        self.write_control(timetable_key(), body, expected).await.map(drop)
    }
}

/// Keeps the `Date` of an answer, be it a refusal.
#[derive(Debug)]
struct ServiceTime(Arc<OnceLock<Timestamp>>);

impl Intercept for ServiceTime {
    fn name(&self) -> &'static str {
        "ServiceTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            // That of the first attempt, if there were several: each is between the question and the answer.
            self.0.get_or_init(|| date.timestamp());
        }
        Ok(())
    }
}

/// 412: another version is there. 409: another conditional write is under way. 404: the record to replace is gone.
/// None of them is a modelled variant of the SDK.
fn conditional<E>(error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey") => StoreError::Conflict,
        _ => StoreError::Failed(classify(&error)),
    }
}

fn classify<E>(error: &SdkError<E>) -> JobError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let mut detail = service::detail::answer(error.code(), error.message(), error);
    if let (None, Some(status)) = (error.code(), status) {
        detail = format!("status {status}: {detail}");
    }
    let kind = match error.code() {
        Some("NoSuchBucket") => Kind::BucketNotFound,
        Some("ExpiredToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
            Kind::CredentialsUnavailable
        }
        Some("AccessDenied" | "AllAccessDisabled" | "AccountProblem") => Kind::AccessDenied,
        _ if status == Some(403) => Kind::AccessDenied,
        _ if lacks_credentials(error) => Kind::CredentialsUnavailable,
        _ => Kind::StoreUnavailable,
    };
    JobError::new(kind, detail)
}

/// Returns whether the call failed because no credentials could be had: then it was never sent.
pub(crate) fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| cause.is::<CredentialsError>())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::config::http::HttpResponse;
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::from("a-very-private-fox"))
    }

    #[test]
    fn no_error_quotes_the_raw_answer() {
        let unread: SdkError<GetObjectError> = SdkError::response_error("unexpected end", answer(200));
        let refused = SdkError::service_error(GetObjectError::generic(ErrorMetadata::builder().build()), answer(403));
        let slow = ErrorMetadata::builder().code("SlowDown").message("reduce your rate").build();
        let slow = SdkError::service_error(GetObjectError::generic(slow), answer(503));
        for (error, kind, detail) in [
            (unread, Kind::StoreUnavailable, "status 200: response error: unexpected end"),
            (refused, Kind::AccessDenied, "status 403: service error: unhandled error"),
            (slow, Kind::StoreUnavailable, "SlowDown: reduce your rate"),
        ] {
            let told = classify(&error);
            assert_eq!(told.kind, kind);
            assert!(told.detail.starts_with(detail), "{told}");
            assert!(!told.detail.contains("fox"), "{told}");
        }
    }
}
