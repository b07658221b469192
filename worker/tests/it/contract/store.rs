//! The promises of `ObjectStore`.

use bytes::Bytes;
use devstack::stack::BUCKET;
use futures::future::join_all;
use jiff::Timestamp;
use job::{
    ImageFormat, IndexEntry, JobId, Record, RenditionSpec, SourceInfo, Status, TraceContext, image_key, record_key,
    source_key,
};
use worker::error::Kind;
use worker::store::{ETag, ObjectStore, S3Store, Source, StoreError};

use super::{Server, StoreUnderTest, kept_everywhere, kept_on_servers};
use crate::support::job;

kept_everywhere!(
    one_of_many_creates_wins,
    one_of_many_replacements_wins,
    a_record_is_read_as_it_was_written,
    a_replacement_needs_the_version_that_is_there,
    what_is_not_there_is_none,
    a_source_keeps_what_is_known_about_it,
    a_picture_can_be_written_again,
    a_picture_is_created_once,
);

mod servers {
    use super::{
        Server, a_job_is_entered_into_its_tenants_list_once, a_missing_bucket_is_a_setting_to_mend,
        a_picture_is_stored_as_the_cdn_serves_it, kept_on_servers, nobody_there_is_a_passing_fault,
        records_and_sources_are_not_cached, renditions_are_stored_beside_each_other,
    };
    kept_on_servers!(
        a_job_is_entered_into_its_tenants_list_once,
        a_picture_is_stored_as_the_cdn_serves_it,
        renditions_are_stored_beside_each_other,
        records_and_sources_are_not_cached,
        a_missing_bucket_is_a_setting_to_mend,
        nobody_there_is_a_passing_fault,
    );
}

async fn a_job_is_entered_into_its_tenants_list_once(server: Server) {
    let tested = server.store().await;
    let (job, client) = (job("a red fox", Timestamp::now()), tested.client().unwrap());
    let entry = IndexEntry::new(job.id, job.submitted_at);
    for _ in 0..2 {
        tested.store.write_index(&job.tenant, &entry).await.unwrap();
    }
    let head = client.head_object().bucket(BUCKET).key(entry.key(&job.tenant)).send().await.unwrap();
    assert_eq!((head.content_length(), head.cache_control()), (Some(0), Some("private, no-store")));
    let list = client.list_objects_v2().bucket(BUCKET).prefix(job::INDEX).send().await.unwrap();
    let ours =
        list.contents().iter().filter(|object| object.key().is_some_and(|key| key.ends_with(&job.id.to_string())));
    assert_eq!(ours.count(), 1);
}

const WRITERS: usize = 16;

fn record() -> Record {
    let job = job("a red fox", Timestamp::now());
    Record::begin(&job, Timestamp::now())
}

fn source(generation: u32, bytes: &'static [u8]) -> Source {
    let info = SourceInfo {
        model: "stability.stable-image-core-v1:1".to_owned(),
        seed: 4_294_967_295,
        bytes: bytes.len() as u64,
        generation,
        made_at: Some("2026-11-26T09:30:00.125Z".parse().unwrap()),
    };
    Source { bytes: Bytes::from_static(bytes), info }
}

/// Returns the versions that were written. Every other writer must have been told of a conflict: AWS answers 412, or
/// 409 to writers that met.
fn winners(written: Vec<Result<ETag, StoreError>>) -> Vec<ETag> {
    let lost = written.iter().filter(|result| **result == Err(StoreError::Conflict)).count();
    let won: Vec<_> = written.iter().filter_map(|result| result.clone().ok()).collect();
    assert_eq!(won.len() + lost, WRITERS, "{written:?}");
    won
}

async fn one_of_many_creates_wins(server: Server) {
    let tested = server.store().await;
    let first = record();
    let records: Vec<_> = (0..WRITERS).map(|n| Record { attempts: n.try_into().unwrap(), ..first.clone() }).collect();
    let written = join_all(records.iter().map(|record| tested.store.create_record(record))).await;
    let winner = written.iter().position(Result::is_ok).expect("a winner");
    let [version] = &winners(written)[..] else { panic!("more than one winner") };
    assert_eq!(tested.store.read_record(&first.id).await.unwrap(), Some((records[winner].clone(), version.clone())));
    assert_eq!(tested.store.create_record(&first).await, Err(StoreError::Conflict));
}

async fn one_of_many_replacements_wins(server: Server) {
    let tested = server.store().await;
    let first = record();
    let version = tested.store.create_record(&first).await.unwrap();
    let records: Vec<_> = (1..=WRITERS).map(|n| Record { attempts: n.try_into().unwrap(), ..first.clone() }).collect();
    let written = join_all(records.iter().map(|record| tested.store.replace_record(record, &version))).await;
    let winner = written.iter().position(Result::is_ok).expect("a winner");
    assert_eq!(winners(written).len(), 1);
    assert_eq!(tested.store.read_record(&first.id).await.unwrap().unwrap().0, records[winner]);
}

async fn a_record_is_read_as_it_was_written(server: Server) {
    let tested = server.store().await;
    let mut record = record();
    record.last_fault = Some("störung \u{1F98A}".to_owned());
    record.timings.queue_wait_seconds = Some(0.1 + 0.2);
    let version = tested.store.create_record(&record).await.unwrap();
    assert_eq!(tested.store.read_record(&record.id).await.unwrap(), Some((record, version)));
}

async fn a_replacement_needs_the_version_that_is_there(server: Server) {
    let tested = server.store().await;
    let mut record = record();
    let first = tested.store.create_record(&record).await.unwrap();
    record.attempts = 1;
    let second = tested.store.replace_record(&record, &first).await.unwrap();
    assert_ne!(second, first);
    record.finish(Status::Canceled, Timestamp::now());
    assert_eq!(tested.store.replace_record(&record, &first).await, Err(StoreError::Conflict));
    let third = tested.store.replace_record(&record, &second).await.unwrap();
    assert_eq!(tested.store.read_record(&record.id).await.unwrap(), Some((record, third)));
}

async fn what_is_not_there_is_none(server: Server) {
    let tested = server.store().await;
    let (here, missing) = (record(), record());
    let version = tested.store.create_record(&here).await.unwrap();
    assert_eq!(tested.store.read_record(&missing.id).await.unwrap(), None);
    assert_eq!(tested.store.read_source(&missing.id).await.unwrap(), None);
    // The record has expired since it was read.
    assert_eq!(tested.store.replace_record(&missing, &version).await, Err(StoreError::Conflict));
    assert_eq!(tested.store.read_record(&missing.id).await.unwrap(), None);
}

async fn a_source_keeps_what_is_known_about_it(server: Server) {
    let tested = server.store().await;
    let id = record().id;
    for written in [source(1, b"first"), source(2, b"the second, after an undecodable one"), source(2, b"")] {
        tested.store.write_source(&id, &written).await.unwrap();
        assert_eq!(tested.store.read_source(&id).await.unwrap(), Some(written));
    }
}

impl StoreUnderTest {
    async fn stored_image(&self, id: &JobId) -> Bytes {
        match (&self.memory, self.client()) {
            (Some(memory), _) => memory.image(id).unwrap(),
            (None, Some(client)) => {
                let object = client.get_object().bucket(BUCKET).key(image_key(id)).send().await.unwrap();
                object.body.collect().await.unwrap().into_bytes()
            }
            (None, None) => unreachable!("a store is in memory or has a client"),
        }
    }
}

async fn a_picture_can_be_written_again(server: Server) {
    let tested = server.store().await;
    let id = record().id;
    // A redelivered job publishes again: it must neither fail nor leave the older picture.
    for picture in [&b"first"[..], b"second, longer"] {
        tested
            .store
            .write_image(&id, RenditionSpec::STANDARD, Bytes::from_static(picture), &TraceContext::generate())
            .await
            .unwrap();
        assert_eq!(tested.stored_image(&id).await, picture);
    }
}

async fn a_picture_is_created_once(server: Server) {
    let tested = server.store().await;
    let (id, trace) = (record().id, TraceContext::generate());
    let create = async |webp: &'static [u8]| {
        tested.store.create_image(&id, RenditionSpec::STANDARD, Bytes::from_static(webp), &trace).await
    };
    create(b"first").await.unwrap();
    assert_eq!(create(b"second, longer").await, Err(StoreError::Conflict));
    assert_eq!(tested.stored_image(&id).await, &b"first"[..]);
}

async fn renditions_are_stored_beside_each_other(server: Server) {
    let tested = server.store().await;
    let (id, trace) = (record().id, TraceContext::generate());
    let avif = RenditionSpec::new(256, ImageFormat::Avif).unwrap();
    for (spec, key, content_type) in [
        (RenditionSpec::STANDARD, format!("images/{id}.webp"), "image/webp"),
        (avif, format!("images/{id}-256.avif"), "image/avif"),
    ] {
        tested.store.create_image(&id, spec, Bytes::from_static(b"picture"), &trace).await.unwrap();
        let again = tested.store.create_image(&id, spec, Bytes::from_static(b"another"), &trace).await;
        assert_eq!(again, Err(StoreError::Conflict));
        let client = tested.client().unwrap();
        let head = client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.content_type(), Some(content_type));
    }
}

async fn a_picture_is_stored_as_the_cdn_serves_it(server: Server) {
    let tested = server.store().await;
    let (id, trace) = (record().id, TraceContext::generate());
    tested.store.create_image(&id, RenditionSpec::STANDARD, Bytes::from_static(b"webp"), &trace).await.unwrap();
    let client = tested.client().unwrap();
    let head = client.head_object().bucket(BUCKET).key(image_key(&id)).send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/webp"));
    assert_eq!(head.cache_control(), Some("public, max-age=31536000, immutable"));
    let metadata = head.metadata().unwrap();
    assert_eq!(metadata["job-id"], id.to_string());
    assert_eq!(metadata["correlation-id"], trace.correlation_id.as_str());
    assert_eq!(metadata.len(), 2, "nothing of what a client wrote but the id, which is visible ASCII: {metadata:?}");
    let tagging = client.get_object_tagging().bucket(BUCKET).key(image_key(&id)).send().await.unwrap();
    let tags: Vec<_> = tagging.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("retention", "standard")]);
}

async fn records_and_sources_are_not_cached(server: Server) {
    let tested = server.store().await;
    let record = record();
    tested.store.create_record(&record).await.unwrap();
    tested.store.write_source(&record.id, &source(1, b"png")).await.unwrap();
    let client = tested.client().unwrap();
    for (key, content_type) in
        [(record_key(&record.id), "application/json"), (source_key(&record.id), "application/octet-stream")]
    {
        let head = client.head_object().bucket(BUCKET).key(&key).send().await.unwrap();
        assert_eq!(
            (head.content_type(), head.cache_control()),
            (Some(content_type), Some("private, no-store")),
            "{key}"
        );
    }
}

async fn a_missing_bucket_is_a_setting_to_mend(server: Server) {
    let tested = server.store().await;
    let store = S3Store::new(tested.config.as_ref().unwrap(), "no-such-bucket".to_owned());
    let record = record();
    assert_eq!(store.read_record(&record.id).await.unwrap_err().kind, Kind::BucketNotFound);
    assert_eq!(store.read_source(&record.id).await.unwrap_err().kind, Kind::BucketNotFound);
    assert_eq!(store.write_source(&record.id, &source(1, b"png")).await.unwrap_err().kind, Kind::BucketNotFound);
    let etag = ETag("\"0\"".to_owned());
    for written in [store.create_record(&record).await, store.replace_record(&record, &etag).await] {
        let Err(StoreError::Failed(error)) = written else { panic!("{written:?}") };
        assert_eq!(error.kind, Kind::BucketNotFound);
    }
}

async fn nobody_there_is_a_passing_fault(server: Server) {
    let tested = server.store().await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = tested.config.clone().unwrap().into_builder().endpoint_url(format!("http://{free}")).build();
    let store = S3Store::new(&config, BUCKET.to_owned());
    assert_eq!(store.read_record(&record().id).await.unwrap_err().kind, Kind::StoreUnavailable);
}
