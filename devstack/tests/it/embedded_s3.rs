//! The embedded S3 answers the SDK as AWS does; a conditional write has exactly one winner.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, Tag, Tagging};
use devstack::embedded::{EmbeddedS3, s3_client};
use tokio::task::JoinSet;

const BUCKET: &str = "images-under-test";

struct Fixture {
    _dir: tempfile::TempDir,
    _s3: EmbeddedS3,
    client: Client,
}

impl Fixture {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let s3 = EmbeddedS3::start("127.0.0.1:0".parse().unwrap(), dir.path().join("s3")).await.unwrap();
        let client = s3_client(&s3.url());
        client.create_bucket().bucket(BUCKET).send().await.unwrap();
        Self { _dir: dir, _s3: s3, client }
    }

    async fn put(&self, key: &str, body: &str) -> String {
        let body = ByteStream::from(body.as_bytes().to_vec());
        let output = self.client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
        output.e_tag.unwrap()
    }

    async fn text(&self, key: &str) -> String {
        let output = self.client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        String::from_utf8(output.body.collect().await.unwrap().to_vec()).unwrap()
    }
}

/// Status and code, as a caller that classifies errors reads them.
fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E>) -> (u16, String) {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (status, error.code().unwrap_or("none").to_owned())
}

#[tokio::test]
async fn an_object_keeps_everything_it_was_stored_with() {
    let fixture = Fixture::start().await;
    let put = fixture.client.put_object().bucket(BUCKET).key("images/a.webp").body(ByteStream::from_static(b"picture"));
    let put = put
        .content_type("image/webp")
        .cache_control("public, max-age=31536000, immutable")
        .metadata("correlation-id", "abc 123")
        .tagging("retention=standard&owner=a%20b")
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .send()
        .await
        .unwrap();

    let get = fixture.client.get_object().bucket(BUCKET).key("images/a.webp").checksum_mode(ChecksumMode::Enabled);
    let get = get.send().await.unwrap();
    assert_eq!(get.content_type(), Some("image/webp"));
    assert_eq!(get.cache_control(), Some("public, max-age=31536000, immutable"));
    assert_eq!(get.metadata().unwrap()["correlation-id"], "abc 123");
    assert_eq!(get.e_tag(), put.e_tag());
    assert!(get.checksum_crc32().is_some());
    assert_eq!(get.tag_count(), Some(2));
    assert_eq!(get.body.collect().await.unwrap().to_vec(), b"picture");

    let head = fixture.client.head_object().bucket(BUCKET).key("images/a.webp").send().await.unwrap();
    assert_eq!((head.content_length(), head.e_tag()), (Some(7), put.e_tag()));
    assert!(head.last_modified().is_some());

    let tags = fixture.client.get_object_tagging().bucket(BUCKET).key("images/a.webp").send().await.unwrap();
    let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("retention", "standard"), ("owner", "a b")]);
    let tagging = Tagging::builder().tag_set(Tag::builder().key("retention").value("long").build().unwrap());
    let put_tags = fixture.client.put_object_tagging().bucket(BUCKET).key("images/a.webp");
    put_tags.tagging(tagging.build().unwrap()).send().await.unwrap();
    let tags = fixture.client.get_object_tagging().bucket(BUCKET).key("images/a.webp").send().await.unwrap();
    assert_eq!(tags.tag_set()[0].value(), "long");
    assert_eq!(fixture.text("images/a.webp").await, "picture");
}

#[tokio::test]
async fn of_16_concurrent_creates_one_wins() {
    let fixture = Fixture::start().await;
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let put = fixture.client.put_object().bucket(BUCKET).key("records/one.json").if_none_match("*");
        let put = put.body(ByteStream::from(writer.to_string().into_bytes()));
        writers.spawn(async move { put.send().await.map(|_| writer) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
    let winner = won[0].as_ref().unwrap();
    assert_eq!(won.len(), 1);
    for error in lost {
        assert_eq!(refusal(&error.unwrap_err()), (412, "PreconditionFailed".into()));
    }
    assert_eq!(fixture.text("records/one.json").await, winner.to_string());
}

#[tokio::test]
async fn of_16_concurrent_replaces_one_wins() {
    let fixture = Fixture::start().await;
    let etag = fixture.put("records/one.json", "first").await;
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let put = fixture.client.put_object().bucket(BUCKET).key("records/one.json").if_match(&etag);
        let put = put.body(ByteStream::from(writer.to_string().into_bytes()));
        writers.spawn(async move { put.send().await.map(|_| writer) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for error in lost {
        assert_eq!(refusal(&error.unwrap_err()), (412, "PreconditionFailed".into()));
    }
    assert_eq!(fixture.text("records/one.json").await, won[0].as_ref().unwrap().to_string());
}

#[tokio::test]
async fn a_replace_of_nothing_is_no_such_key() {
    let fixture = Fixture::start().await;
    let put = fixture.client.put_object().bucket(BUCKET).key("k").if_match("\"abc\"");
    let error = put.body(ByteStream::from_static(b"x")).send().await.unwrap_err();
    assert_eq!(refusal(&error), (404, "NoSuchKey".into()));
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_and_stores_nothing() {
    let fixture = Fixture::start().await;
    let kept = fixture.put("k", "kept").await;
    let put = fixture.client.put_object().bucket(BUCKET).key("k").checksum_crc32("AAAAAA==");
    let error = put.body(ByteStream::from_static(b"changed on the way")).send().await.unwrap_err();
    assert_eq!(refusal(&error), (400, "BadDigest".into()));
    let md5 = fixture.client.put_object().bucket(BUCKET).key("k").content_md5("AAAAAAAAAAAAAAAAAAAAAA==");
    let error = md5.body(ByteStream::from_static(b"changed on the way")).send().await.unwrap_err();
    assert_eq!(refusal(&error), (400, "BadDigest".into()));
    let head = fixture.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.e_tag(), Some(kept.as_str()));
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let key = client.get_object().bucket(BUCKET).key("none").send().await.unwrap_err();
    assert_eq!(refusal(&key), (404, "NoSuchKey".into()));
    let head = client.head_object().bucket(BUCKET).key("none").send().await.unwrap_err();
    assert!(head.into_service_error().is_not_found());
    let bucket = client.get_object().bucket("no-such-bucket").key("k").send().await.unwrap_err();
    assert_eq!(refusal(&bucket), (404, "NoSuchBucket".into()));
    let put = client.put_object().bucket("no-such-bucket").key("k").body(ByteStream::from_static(b"x"));
    assert_eq!(refusal(&put.send().await.unwrap_err()), (404, "NoSuchBucket".into()));
    assert!(
        client.head_bucket().bucket("no-such-bucket").send().await.unwrap_err().into_service_error().is_not_found()
    );
    let again = client.create_bucket().bucket(BUCKET).send().await.unwrap_err();
    assert!(again.into_service_error().is_bucket_already_owned_by_you());
    client.delete_object().bucket(BUCKET).key("none").send().await.unwrap();
}

#[tokio::test]
async fn conditional_and_partial_reads_work() {
    let fixture = Fixture::start().await;
    let etag = fixture.put("k", "0123456789").await;
    let get = || fixture.client.get_object().bucket(BUCKET).key("k");
    let unchanged = get().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(unchanged.raw_response().unwrap().status().as_u16(), 304);
    let changed = get().if_match("\"other\"").send().await.unwrap_err();
    assert_eq!(refusal(&changed).0, 412);
    let part = get().range("bytes=2-4").send().await.unwrap();
    assert_eq!(part.content_range(), Some("bytes 2-4/10"));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), b"234");
    assert_ne!(fixture.put("k", "other").await, etag);
}

#[tokio::test]
async fn a_listing_has_pages_prefixes_and_folders() {
    let fixture = Fixture::start().await;
    for key in ["images/1", "images/2", "images/3", "records/1", "top"] {
        fixture.put(key, key).await;
    }
    let list = || fixture.client.list_objects_v2().bucket(BUCKET);
    let mut keys = Vec::new();
    let mut pages = list().prefix("images/").max_keys(2).into_paginator().send();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(keys, ["images/1", "images/2", "images/3"]);

    let folders = list().delimiter("/").send().await.unwrap();
    let prefixes: Vec<_> = folders.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap()).collect();
    assert_eq!(prefixes, ["images/", "records/"]);
    assert_eq!(folders.contents()[0].key(), Some("top"));
    assert_eq!(folders.contents()[0].size(), Some(3));
    let first = list().delimiter("/").max_keys(1).send().await.unwrap();
    let second =
        list().delimiter("/").continuation_token(first.next_continuation_token().unwrap()).send().await.unwrap();
    assert_eq!(second.common_prefixes()[0].prefix(), Some("records/"));

    fixture.client.delete_object().bucket(BUCKET).key("top").send().await.unwrap();
    assert_eq!(list().send().await.unwrap().key_count(), Some(4));
    let buckets = fixture.client.list_buckets().send().await.unwrap();
    assert_eq!(buckets.buckets()[0].name(), Some(BUCKET));
}

#[tokio::test]
async fn objects_survive_a_second_start() {
    let dir = tempfile::tempdir().unwrap();
    let start = || EmbeddedS3::start("127.0.0.1:0".parse().unwrap(), dir.path().to_owned());
    let first = start().await.unwrap();
    let client = s3_client(&first.url());
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    client.put_object().bucket(BUCKET).key("a/b").body(ByteStream::from_static(b"kept")).send().await.unwrap();
    first.stop().await;

    let second = start().await.unwrap();
    let get = s3_client(&second.url()).get_object().bucket(BUCKET).key("a/b").send().await.unwrap();
    assert_eq!(get.body.collect().await.unwrap().to_vec(), b"kept");
}

#[tokio::test]
async fn another_secret_is_refused() {
    let fixture = Fixture::start().await;
    let wrong = aws_sdk_s3::config::Credentials::new("local", "another-secret", None, None, "test");
    let config = fixture.client.config().to_builder().credentials_provider(wrong).build();
    let error = Client::from_conf(config).get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!(refusal(&error), (403, "SignatureDoesNotMatch".into()));
}
