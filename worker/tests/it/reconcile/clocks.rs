//! Times that cannot be relied on: of the workers' clocks, and of a ledger that somebody has damaged.

use super::*;

/// A worker's clock is ahead of the store's: by the one the record is due, by the other it is not yet abandoned.
#[tokio::test(start_paused = true)]
async fn a_record_whose_writers_clock_is_ahead_of_the_stores_is_not_forgotten() {
    let site = Site::new();
    site.store.is_behind_its_writers(SignedDuration::from_mins(2));
    let job = site.job();
    site.abandoned(&job, "nowhere");
    site.passes(RETENTION_DAYS * 24 + 12);
    let report = site.pass().await;
    assert_eq!((report.read, report.expired, report.swept), (1, 0, true), "due by the store, not by its writer");
    site.passes(1);
    assert_eq!(site.pass().await.expired, 1, "the sweep that did not end it left it to this one");
    assert_eq!(site.store.record(&job.id).unwrap().status, Status::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_held_when_it_was_read_is_read_again() {
    let site = Site::new();
    let job = site.job();
    let mut record = site.abandoned(&job, "in hand");
    site.passes(RETENTION_DAYS * 24 + 13);
    record.claim = Some(claim("in hand", site.now() + SignedDuration::from_hours(2)));
    site.store.put_record(record);
    assert_eq!(site.pass().await.expired, 0);
    site.passes(3);
    assert_eq!(site.pass().await.expired, 1, "its worker died without another word");
}

/// What parses and cannot be: believed, it would stop the reconciler for good, or hide records from it.
#[tokio::test(start_paused = true)]
async fn a_ledger_from_the_future_is_not_believed() {
    let site = Site::new();
    let job = site.job();
    site.abandoned(&job, "nowhere");
    site.passes(RETENTION_DAYS * 24 + 13);
    let future: Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
    let ledger = |change: &dyn Fn(&mut Ledger)| {
        let mut ledger = Ledger { holder: "nobody/0".to_owned(), ..Ledger::default() };
        change(&mut ledger);
        serde_json::to_vec(&ledger).unwrap()
    };
    for damaged in [
        ledger(&|ledger| ledger.until = future),
        ledger(&|ledger| ledger.judged_before = Some(future)),
        ledger(&|ledger| ledger.judged_before = Some(site.now())),
        ledger(&|ledger| (ledger.began_at, ledger.after) = (Some(future), Some("records/~".to_owned()))),
    ] {
        let said = String::from_utf8(damaged.clone()).unwrap();
        let version = site.store.read_control(ledger_key()).await.unwrap().map(|(_, version)| version);
        site.store.write_control(ledger_key(), damaged.into(), version.as_ref()).await.unwrap();
        let mut record = Record::begin(&job, site.now());
        record.updated_at = site.now() - SignedDuration::from_hours(RETENTION_DAYS * 24 + 13);
        site.store.put_record(record);
        let report = site.pass().await;
        assert_eq!((report.expired, report.swept), (1, true), "{said}");
        assert!(site.ledger().await.judged_before < Some(site.now()), "{said}");
    }
}
