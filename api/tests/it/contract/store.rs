//! The promises of `RecordStore`.

use api::store::{ETag, RecordStore, S3Records, StoreError, WriteError};
use aws_sdk_s3::primitives::ByteStream;
use devstack::embedded::s3_client;
use devstack::stack::BUCKET;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use job::{IndexEntry, Record, Status, TenantId, record_key};

use super::{Server, job, kept_everywhere, kept_on_servers, nobody};

kept_everywhere!(
    one_of_many_creates_wins,
    one_of_many_replacements_wins,
    a_record_is_read_as_it_was_written,
    a_replacement_needs_the_version_that_is_there,
    what_is_not_there_is_none,
);

mod servers {
    use super::{
        Server, a_list_is_newest_first_and_its_tenants_own, a_missing_bucket_is_a_setting_to_mend, kept_on_servers,
        nobody_there_is_a_passing_fault, records_are_not_cached, what_is_no_record_is_an_error_and_not_none,
    };
    kept_on_servers!(
        a_list_is_newest_first_and_its_tenants_own,
        records_are_not_cached,
        what_is_no_record_is_an_error_and_not_none,
        a_missing_bucket_is_a_setting_to_mend,
        nobody_there_is_a_passing_fault,
    );
}

const WRITERS: usize = 16;

fn record() -> Record {
    Record::begin(&job("north", "a red fox"), Timestamp::now())
}

/// Returns who has written. Everybody else must have been told of a conflict: AWS answers 412, or 409 to writers that
/// met.
fn winner(written: &[Result<(), WriteError>]) -> usize {
    let lost = written.iter().filter(|result| **result == Err(WriteError::Conflict)).count();
    assert_eq!(lost, WRITERS - 1, "{written:?}");
    written.iter().position(Result::is_ok).expect("a winner")
}

fn rivals(first: &Record) -> Vec<Record> {
    (1..=WRITERS).map(|n| Record { attempts: n.try_into().unwrap(), ..first.clone() }).collect()
}

async fn one_of_many_creates_wins(server: Server) {
    let tested = server.store().await;
    let first = record();
    let records = rivals(&first);
    let written = join_all(records.iter().map(|record| tested.store.create(record))).await;
    assert_eq!(tested.store.read(&first.id).await.unwrap().unwrap().0, records[winner(&written)]);
    assert_eq!(tested.store.create(&first).await, Err(WriteError::Conflict));
}

async fn one_of_many_replacements_wins(server: Server) {
    let tested = server.store().await;
    let first = record();
    tested.store.create(&first).await.unwrap();
    let (_, version) = tested.store.read(&first.id).await.unwrap().unwrap();
    let records = rivals(&first);
    let written = join_all(records.iter().map(|record| tested.store.replace(record, &version))).await;
    assert_eq!(tested.store.read(&first.id).await.unwrap().unwrap().0, records[winner(&written)]);
}

async fn a_record_is_read_as_it_was_written(server: Server) {
    let tested = server.store().await;
    let mut record = record();
    record.last_fault = Some("störung \u{1F98A}".to_owned());
    record.timings.queue_wait_seconds = Some(0.1 + 0.2);
    tested.store.create(&record).await.unwrap();
    assert_eq!(tested.store.read(&record.id).await.unwrap().unwrap().0, record);
}

async fn a_replacement_needs_the_version_that_is_there(server: Server) {
    let tested = server.store().await;
    let mut record = record();
    tested.store.create(&record).await.unwrap();
    let (_, first) = tested.store.read(&record.id).await.unwrap().unwrap();
    record.attempts = 1;
    tested.store.replace(&record, &first).await.unwrap();
    let (read, second) = tested.store.read(&record.id).await.unwrap().unwrap();
    assert_eq!(read, record);
    assert_ne!(second, first);
    record.finish(Status::Canceled, Timestamp::now());
    assert_eq!(tested.store.replace(&record, &first).await, Err(WriteError::Conflict));
    tested.store.replace(&record, &second).await.unwrap();
    assert_eq!(tested.store.read(&record.id).await.unwrap().unwrap().0, record);
}

async fn what_is_not_there_is_none(server: Server) {
    let tested = server.store().await;
    let (here, missing) = (record(), record());
    tested.store.create(&here).await.unwrap();
    let (_, version) = tested.store.read(&here.id).await.unwrap().unwrap();
    assert_eq!(tested.store.read(&missing.id).await, Ok(None));
    // The record has expired since it was read.
    assert_eq!(tested.store.replace(&missing, &version).await, Err(WriteError::Conflict));
    assert_eq!(tested.store.read(&missing.id).await, Ok(None));
}

async fn a_list_is_newest_first_and_its_tenants_own(server: Server) {
    let tested = server.store().await;
    let client = tested.client.as_ref().unwrap();
    // Names of its own: the bucket may be shared.
    let north: TenantId = format!("north-{}", uuid::Uuid::new_v4().simple()).parse().unwrap();
    let south: TenantId = format!("{north}-2").parse().unwrap();
    assert_eq!(tested.store.list(&north, None, 10).await, Ok(vec![]));
    let now = Timestamp::now();
    let mut newest_first = Vec::new();
    for age in 0..5 {
        for tenant in [&north, &south] {
            let entry = IndexEntry::new(job("north", "a red fox").id, now - SignedDuration::from_millis(age));
            client.put_object().bucket(BUCKET).key(entry.key(tenant)).send().await.unwrap();
            if tenant == &north {
                newest_first.push(entry);
            }
        }
    }
    assert_eq!(tested.store.list(&north, None, 1000).await.unwrap(), newest_first);
    assert_eq!(tested.store.list(&north, None, 2).await.unwrap(), newest_first[..2]);
    assert_eq!(tested.store.list(&north, Some(&newest_first[1]), 2).await.unwrap(), newest_first[2..4]);
    assert_eq!(tested.store.list(&north, newest_first.last(), 2).await, Ok(vec![]));
    assert_eq!(tested.store.list(&south, None, 1000).await.unwrap().len(), 5);
}

async fn records_are_not_cached(server: Server) {
    let tested = server.store().await;
    let record = record();
    tested.store.create(&record).await.unwrap();
    let client = tested.client.unwrap();
    let head = client.head_object().bucket(BUCKET).key(record_key(&record.id)).send().await.unwrap();
    assert_eq!((head.content_type(), head.cache_control()), (Some("application/json"), Some("private, no-store")));
}

async fn what_is_no_record_is_an_error_and_not_none(server: Server) {
    let tested = server.store().await;
    let id = record().id;
    let put = tested.client.as_ref().unwrap().put_object().bucket(BUCKET).key(record_key(&id));
    put.body(ByteStream::from_static(b"{}")).send().await.unwrap();
    let read = tested.store.read(&id).await;
    assert!(matches!(read, Err(StoreError::Unreadable(_))), "{read:?}");
}

async fn a_missing_bucket_is_a_setting_to_mend(server: Server) {
    let tested = server.store().await;
    let store = S3Records::new(tested.client.clone().unwrap(), "no-such-bucket".to_owned());
    let record = record();
    let read = store.read(&record.id).await;
    assert!(matches!(read, Err(StoreError::Misconfigured(_))), "{read:?}");
    for written in [store.create(&record).await, store.replace(&record, &ETag("\"0\"".to_owned())).await] {
        assert!(matches!(written, Err(WriteError::Store(StoreError::Misconfigured(_)))), "{written:?}");
    }
    let listed = store.list(&record.tenant, None, 10).await;
    assert!(matches!(listed, Err(StoreError::Misconfigured(_))), "{listed:?}");
}

async fn nobody_there_is_a_passing_fault(_: Server) {
    let store = S3Records::new(s3_client(&nobody()), BUCKET.to_owned());
    let read = store.read(&record().id).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
}
