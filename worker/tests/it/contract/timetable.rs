//! The promises of `TimetableStore`.

use bytes::Bytes;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use worker::store::StoreError;

use super::{Server, kept_everywhere, kept_on_servers};

kept_everywhere!(a_timetable_has_one_writer_at_a_time_and_comes_with_the_time);

const WRITERS: usize = 8;

async fn a_timetable_has_one_writer_at_a_time_and_comes_with_the_time(server: Server) {
    let tested = server.store().await;
    let timetable = &tested.timetable;
    // The first answer says that there is none; not where another test run left one.
    let before = timetable.read_timetable().await.unwrap();
    let version = before.found.map(|(_, version)| version);
    let body = |n: usize| Bytes::from(format!("{{\"v\":1,\"due\":{n}}}"));
    let written = join_all((0..WRITERS).map(|n| timetable.write_timetable(body(n), version.as_ref()))).await;
    let winner = written.iter().position(Result::is_ok).expect("a winner");
    let lost = written.iter().filter(|result| **result == Err(StoreError::Conflict)).count();
    assert_eq!(lost, WRITERS - 1, "{written:?}");
    let after = timetable.read_timetable().await.unwrap();
    assert_eq!(after.found.as_ref().map(|(body, _)| body), Some(&body(winner)));
    let newer = after.found.map(|(_, version)| version);
    timetable.write_timetable(body(100), newer.as_ref()).await.unwrap();
    assert_eq!(timetable.write_timetable(body(101), newer.as_ref()).await, Err(StoreError::Conflict));
    for shown in [before.store_time, after.store_time] {
        // A fake has no clock of its own.
        let Some(shown) = shown else {
            assert!(matches!(server, Server::Memory), "the time of the answer");
            continue;
        };
        let age = Timestamp::now().duration_since(shown);
        assert!(age.abs() < SignedDuration::from_secs(60), "{age:?}");
    }
}
