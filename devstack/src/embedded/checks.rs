//! What S3 checks before it stores or hands out an object: size, checksums, conditions, tags.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, ETagCondition, PutObjectInput, StreamingBlob};
use s3s::{S3Error, S3Result, s3_error};

use super::object_files::Attributes;

/// The largest object taken; it is held in memory while it is written.
const MAX_OBJECT_BYTES: usize = 64 * 1024 * 1024;
pub(super) async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(mut stream) = body else { return Ok(Bytes::new()) };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.try_next().await.map_err(|error| s3_error!(IncompleteBody, "{error}"))? {
        if bytes.len() + chunk.len() > MAX_OBJECT_BYTES {
            return Err(s3_error!(EntityTooLarge, "this store takes objects of at most {MAX_OBJECT_BYTES} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Computes what the client sent a checksum for, in a header or in a trailer, and refuses the body when one differs.
pub(super) fn verify_checksums(
    input: &PutObjectInput,
    trailers: Option<&HeaderMap>,
    body: &[u8],
) -> S3Result<Checksum> {
    let sent = |header: &Option<String>, name: &str| {
        let trailer = trailers.and_then(|trailers| trailers.get(name)).and_then(|value| value.to_str().ok());
        header.clone().or(trailer.map(str::to_owned))
    };
    let expected = Checksum {
        checksum_crc32: sent(&input.checksum_crc32, "x-amz-checksum-crc32"),
        checksum_crc32c: sent(&input.checksum_crc32c, "x-amz-checksum-crc32c"),
        checksum_crc64nvme: sent(&input.checksum_crc64nvme, "x-amz-checksum-crc64nvme"),
        checksum_sha1: sent(&input.checksum_sha1, "x-amz-checksum-sha1"),
        checksum_sha256: sent(&input.checksum_sha256, "x-amz-checksum-sha256"),
        ..Checksum::default()
    };
    let mut hasher = ChecksumHasher {
        crc32: expected.checksum_crc32.is_some().then(Default::default),
        crc32c: expected.checksum_crc32c.is_some().then(Default::default),
        crc64nvme: expected.checksum_crc64nvme.is_some().then(Default::default),
        sha1: expected.checksum_sha1.is_some().then(Default::default),
        sha256: expected.checksum_sha256.is_some().then(Default::default),
    };
    hasher.update(body);
    let computed = hasher.finalize();
    if checksum_names(&computed) == checksum_names(&expected) {
        Ok(computed)
    } else {
        Err(s3_error!(BadDigest, "the checksum sent does not match the one of the body received"))
    }
}

pub(super) fn checksum_names(checksum: &Checksum) -> BTreeMap<String, String> {
    [
        ("crc32", &checksum.checksum_crc32),
        ("crc32c", &checksum.checksum_crc32c),
        ("crc64nvme", &checksum.checksum_crc64nvme),
        ("sha1", &checksum.checksum_sha1),
        ("sha256", &checksum.checksum_sha256),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
    .collect()
}

/// Returns the body's MD5 in hexadecimal, after comparing it with the one sent, if one was.
pub(super) fn verified_md5(sent: Option<&str>, body: &[u8]) -> S3Result<String> {
    let digest = Md5::checksum(body);
    if sent.is_some_and(|sent| base64_simd::STANDARD.encode_to_string(digest) != sent) {
        return Err(s3_error!(BadDigest, "the Content-MD5 sent does not match the body received"));
    }
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn check_write(
    current: Option<&Attributes>,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if let Some(condition) = if_match {
        let current = current.ok_or_else(no_such_key)?;
        if !names(condition, current) {
            return Err(s3_error!(PreconditionFailed, "at least one of the preconditions did not hold: If-Match"));
        }
    }
    match (if_none_match, current) {
        (Some(condition), Some(current)) if names(condition, current) => {
            Err(s3_error!(PreconditionFailed, "at least one of the preconditions did not hold: If-None-Match"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_read(
    current: &Attributes,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if if_match.is_some_and(|condition| !names(condition, current)) {
        return Err(s3_error!(PreconditionFailed, "at least one of the preconditions did not hold: If-Match"));
    }
    if if_none_match.is_some_and(|condition| names(condition, current)) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn names(condition: &ETagCondition, current: &Attributes) -> bool {
    condition.as_etag().is_none_or(|etag| etag.value() == current.etag)
}

pub(super) fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "the specified key does not exist")
}

/// Tags travel as a query string: `a=1&b=2`.
pub(super) fn parse_tags(header: &str) -> S3Result<Vec<(String, String)>> {
    let uri = format!("/?{header}").parse().map_err(|_| s3_error!(InvalidTag, "the tags are not a query string"))?;
    axum::extract::Query::try_from_uri(&uri)
        .map(|axum::extract::Query(tags)| tags)
        .map_err(|_| s3_error!(InvalidTag, "the tags are not a query string"))
}
