//! The promises of `Shelf`.

use bytes::Bytes;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use job::{Pause, Pauses, Record, pauses_key, record_key};
use worker::error::Kind;
use worker::store::{MAX_LISTED, StoreError, read_pauses};

use super::{Server, kept_everywhere, kept_on_servers};
use crate::support::job;

kept_everywhere!(
    records_are_listed_in_the_order_of_their_keys_from_behind_one,
    a_control_object_has_one_writer_at_a_time,
    pauses_are_none_without_an_object_and_an_error_when_it_cannot_be_read,
);

const WRITERS: usize = 8;

async fn records_are_listed_in_the_order_of_their_keys_from_behind_one(server: Server) {
    let tested = server.store().await;
    let before = Timestamp::now();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let record = Record::begin(&job("a red fox", Timestamp::now()), Timestamp::now());
        tested.store.create_record(&record).await.unwrap();
        keys.push(record_key(&record.id));
    }
    keys.sort();
    // Other tests may have records in the same bucket.
    let listed = async |after: Option<&str>, max: usize| tested.shelf.list_records(after, max).await.unwrap();
    let all = listed(None, MAX_LISTED).await;
    let ours: Vec<_> = all.iter().filter(|one| keys.contains(&one.key)).collect();
    assert_eq!(ours.iter().map(|one| &one.key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    for one in ours {
        let age = one.modified_at.duration_since(before).abs();
        assert!(age < SignedDuration::from_secs(60), "{one:?} {before}");
    }
    let behind = listed(Some(&keys[0]), MAX_LISTED).await;
    assert!(behind.iter().all(|one| one.key > keys[0]) && behind.iter().any(|one| one.key == keys[1]));
    assert_eq!(listed(Some(&keys[0]), 1).await.len(), 1);
}

async fn a_control_object_has_one_writer_at_a_time(server: Server) {
    let tested = server.store().await;
    let key = format!("control/{}.json", job("a key of its own", Timestamp::now()).id);
    assert_eq!(tested.shelf.read_control(&key).await.unwrap(), None);
    let body = |n: usize| Bytes::from(format!("{{\"writer\":{n}}}"));
    let created = join_all((0..WRITERS).map(|n| tested.shelf.write_control(&key, body(n), None))).await;
    let winner = created.iter().position(Result::is_ok).expect("a winner");
    let lost = created.iter().filter(|result| **result == Err(StoreError::Conflict)).count();
    assert_eq!(lost, WRITERS - 1, "{created:?}");
    let first = created[winner].clone().unwrap();
    assert_eq!(tested.shelf.read_control(&key).await.unwrap(), Some((body(winner), first.clone())));
    let second = tested.shelf.write_control(&key, body(100), Some(&first)).await.unwrap();
    assert_eq!(tested.shelf.write_control(&key, body(101), Some(&first)).await, Err(StoreError::Conflict));
    assert_eq!(tested.shelf.read_control(&key).await.unwrap(), Some((body(100), second)));
}

async fn pauses_are_none_without_an_object_and_an_error_when_it_cannot_be_read(server: Server) {
    let tested = server.store().await;
    let before = tested.shelf.read_control(pauses_key()).await.unwrap();
    if before.is_none() {
        assert_eq!(read_pauses(tested.shelf.as_ref()).await, Ok(Pauses::default()));
    }
    let pause = Pause::new("The model is being changed.", "operator", Timestamp::now()).unwrap();
    let pauses = Pauses { generation: Some(pause), ..Pauses::default() };
    let body = Bytes::from(serde_json::to_vec(&pauses).unwrap());
    let version = before.map(|(_, version)| version);
    let version = tested.shelf.write_control(pauses_key(), body, version.as_ref()).await.unwrap();
    assert_eq!(read_pauses(tested.shelf.as_ref()).await, Ok(pauses));
    let version = tested.shelf.write_control(pauses_key(), "not json".into(), Some(&version)).await.unwrap();
    let error = read_pauses(tested.shelf.as_ref()).await.unwrap_err();
    assert_eq!(error.kind, Kind::StoreUnavailable);
    assert!(error.detail.contains(pauses_key()), "{error}");
    tested.shelf.write_control(pauses_key(), "{\"v\":1}".into(), Some(&version)).await.unwrap();
}
