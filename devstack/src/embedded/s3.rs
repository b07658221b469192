//! `EmbeddedS3`: s3s's protocol over object files, with conditional writes that have exactly one winner.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::checks::{
    check_read, check_write, checksum_names, collect, no_such_key, parse_tags, verified_md5, verify_checksums,
};
use super::endpoint::Endpoint;
use super::object_files::{self, Attributes, ObjectFiles};
use super::{ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY};

/// Writers of different keys rarely meet on one of so many locks.
const LOCKS: usize = 64;
/// S3's own page size.
const MAX_KEYS: i32 = 1000;

/// S3 on a loopback port, over a folder.
///
/// Objects are files `{root}/{bucket}/{key, percent-encoded}`: the bytes, then their attributes, committed together by
/// one rename. A kill leaves the old object or the new one; a power failure may lose the last writes. Requests must be
/// signed with [`ACCESS_KEY_ID`]. Not there: multipart uploads, versions, copies, policies.
#[derive(Debug)]
pub struct EmbeddedS3 {
    endpoint: Endpoint,
}

impl EmbeddedS3 {
    /// Starts serving `root` on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or the folder cannot be used.
    pub async fn start(addr: SocketAddr, root: PathBuf) -> io::Result<Self> {
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        let objects = Objects { files: ObjectFiles::open(root)?, locks, hasher: RandomState::new() };
        let mut builder = S3ServiceBuilder::new(objects);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let router = Router::new().fallback(serve).with_state(builder.build());
        let listener = TcpListener::bind(addr).await?;
        Ok(Self { endpoint: Endpoint::serve(listener, router, CancellationToken::new())? })
    }

    /// Returns the address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Returns the endpoint for `AWS_ENDPOINT_URL_S3`.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr())
    }

    /// Stops after the requests in progress.
    pub async fn stop(self) {
        self.endpoint.stop().await;
    }
}

async fn serve(State(service): State<S3Service>, request: Request) -> Response<Body> {
    match service.call(request.map(s3s::Body::http_body_unsync)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::warn!(?error, "a request to S3 could not be answered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

struct Objects {
    files: ObjectFiles,
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Objects {
    /// Returns the place of an object in a bucket that exists.
    fn path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        self.require_bucket(bucket)?;
        self.files.path(bucket, key).map_err(|error| s3_error!(error, KeyTooLongError))
    }

    fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.files.has_bucket(bucket) {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket, "the specified bucket does not exist"))
        }
    }

    /// Serialises the writers of one object, so that a condition still holds when its write happens.
    async fn lock(&self, path: &Path) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(path) % LOCKS as u64;
        self.locks[usize::try_from(index).expect("an index below 64 fits")].lock().await
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if self.files.create_bucket(&req.input.bucket).map_err(S3Error::internal_error)? {
            Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", req.input.bucket)) }))
        } else {
            Err(s3_error!(BucketAlreadyOwnedByYou))
        }
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require_bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() }))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.files.buckets().map_err(S3Error::internal_error)?;
        let buckets = names.into_iter().map(|name| Bucket { name: Some(name), ..Bucket::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = req.input;
        let path = self.path(&input.bucket, &input.key)?;
        let body = collect(input.body.take()).await?;
        let trailers = req.trailing_headers.and_then(|trailers| trailers.take());
        let checksums = verify_checksums(&input, trailers.as_ref(), &body)?;
        let etag = verified_md5(input.content_md5.as_deref(), &body)?;
        let attributes = Attributes {
            etag,
            size: body.len() as u64,
            last_modified: now_ms(),
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            tags: parse_tags(input.tagging.as_deref().unwrap_or_default())?,
            checksums: checksum_names(&checksums),
        };

        let _write = self.lock(&path).await;
        if input.if_match.is_some() || input.if_none_match.is_some() {
            let current = object_files::read_attributes(&path).await.map_err(S3Error::internal_error)?;
            check_write(current.as_ref(), input.if_match.as_ref(), input.if_none_match.as_ref())?;
        }
        object_files::write(&path, &attributes, &body).await.map_err(S3Error::internal_error)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(attributes.etag)),
            checksum_crc32: checksums.checksum_crc32,
            checksum_crc32c: checksums.checksum_crc32c,
            checksum_sha1: checksums.checksum_sha1,
            checksum_sha256: checksums.checksum_sha256,
            checksum_crc64nvme: checksums.checksum_crc64nvme,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let path = self.path(&input.bucket, &input.key)?;
        let found = object_files::read(&path).await.map_err(S3Error::internal_error)?;
        let (attributes, body) = found.ok_or_else(no_such_key)?;
        check_read(&attributes, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let (body, content_range) = match input.range {
            None => (body, None),
            Some(range) => {
                let range = range.check(attributes.size)?;
                let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, attributes.size);
                let index = |position: u64| usize::try_from(position).expect("an object fits in memory");
                (body.slice(index(range.start)..index(range.end)), Some(content_range))
            }
        };
        let whole = content_range.is_none();
        let checksum = |name: &str| attributes.checksums.get(name).filter(|_| whole).cloned();
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(body.len()).ok(),
            content_range,
            checksum_crc32: checksum("crc32"),
            checksum_crc32c: checksum("crc32c"),
            checksum_sha1: checksum("sha1"),
            checksum_sha256: checksum("sha256"),
            checksum_crc64nvme: checksum("crc64nvme"),
            body: Some(StreamingBlob::from(s3s::Body::from(body))),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(attributes.last_modified)),
            e_tag: Some(ETag::Strong(attributes.etag)),
            tag_count: i32::try_from(attributes.tags.len()).ok().filter(|count| *count > 0),
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            content_language: attributes.content_language,
            cache_control: attributes.cache_control,
            metadata: Some(attributes.metadata.into_iter().collect()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let path = self.path(&input.bucket, &input.key)?;
        let found = object_files::read_attributes(&path).await.map_err(S3Error::internal_error)?;
        let attributes = found.ok_or_else(no_such_key)?;
        check_read(&attributes, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let checksum = |name: &str| attributes.checksums.get(name).cloned();
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(attributes.size).ok(),
            checksum_crc32: checksum("crc32"),
            checksum_crc32c: checksum("crc32c"),
            checksum_sha1: checksum("sha1"),
            checksum_sha256: checksum("sha256"),
            checksum_crc64nvme: checksum("crc64nvme"),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(attributes.last_modified)),
            e_tag: Some(ETag::Strong(attributes.etag)),
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            content_language: attributes.content_language,
            cache_control: attributes.cache_control,
            metadata: Some(attributes.metadata.into_iter().collect()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let path = self.path(&req.input.bucket, &req.input.key)?;
        let _write = self.lock(&path).await;
        if req.input.if_match.is_some() {
            let current = object_files::read_attributes(&path).await.map_err(S3Error::internal_error)?;
            check_write(current.as_ref(), req.input.if_match.as_ref(), None)?;
        }
        object_files::remove(&path).await.map_err(S3Error::internal_error)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.require_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let after = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();

        let mut contents = Vec::new();
        let mut common_prefixes: Vec<String> = Vec::new();
        let (mut last, mut next) = (String::new(), None);
        for key in self.files.keys(&input.bucket).await.map_err(S3Error::internal_error)? {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let folder = (delimiter.as_ref())
                .and_then(|delimiter| rest.split_once(delimiter).map(|(head, _)| format!("{prefix}{head}{delimiter}")));
            let entry = folder.as_ref().unwrap_or(&key);
            if *entry <= after || common_prefixes.last() == Some(entry) {
                continue;
            }
            if i32::try_from(contents.len() + common_prefixes.len()).is_ok_and(|count| count >= max_keys) {
                next = Some(last);
                break;
            }
            last.clone_from(entry);
            if let Some(folder) = folder {
                common_prefixes.push(folder);
            } else {
                let path = self.path(&input.bucket, &key)?;
                // Gone since the folder was read: not an error, it is no longer there.
                if let Some(object) = object_files::read_attributes(&path).await.map_err(S3Error::internal_error)? {
                    contents.push(Object {
                        key: Some(key),
                        size: i64::try_from(object.size).ok(),
                        last_modified: Some(timestamp(object.last_modified)),
                        e_tag: Some(ETag::Strong(object.etag)),
                        ..Object::default()
                    });
                }
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            contents: Some(contents),
            common_prefixes: Some(
                common_prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: Some(max_keys),
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let path = self.path(&req.input.bucket, &req.input.key)?;
        let found = object_files::read_attributes(&path).await.map_err(S3Error::internal_error)?;
        let tags = found.ok_or_else(no_such_key)?.tags;
        let tag_set = tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let path = self.path(&req.input.bucket, &req.input.key)?;
        let _write = self.lock(&path).await;
        let found = object_files::read(&path).await.map_err(S3Error::internal_error)?;
        let (mut attributes, body) = found.ok_or_else(no_such_key)?;
        attributes.tags = (req.input.tagging.tag_set.into_iter())
            .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
            .collect();
        object_files::write(&path, &attributes, &body).await.map_err(S3Error::internal_error)?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}
