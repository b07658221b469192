//! Status, a job, and the costs, as the records tell them.

use bytes::Bytes;
use imagectl::cost::cost;
use imagectl::fault::Fault;
use imagectl::settings::{CostSettings, JobSettings, StatusSettings};
use imagectl::show::show;
use imagectl::status::status;
use jiff::{SignedDuration, Timestamp};
use job::{Record, Status, pauses_key};

use crate::support::{Embedded, claim, job, succeeded};

const COST: CostSettings = CostSettings { hours: 24, max_records: 1000, max_keys: 10_000, usd_per_call: Some(0.04) };

#[tokio::test]
async fn the_status_tells_depths_and_who_holds_what() {
    let embedded = Embedded::start().await;
    let now = Timestamp::now();
    for (worker, until) in [("host/1", 60), ("host/1", 60), ("host/2", 60), ("gone/3", -1)] {
        let mut record = Record::begin(&job(), now);
        record.claim = Some(claim(worker, now + SignedDuration::from_secs(until)));
        embedded.put(&record).await;
    }
    embedded.put(&succeeded(&job(), 1)).await;
    let mut old = Record::begin(&job(), now);
    old.claim = Some(claim("host/4", now + SignedDuration::from_secs(60)));
    embedded.put(&old).await;
    embedded.dead("not a job").await;
    let send = embedded.sqs.send_message().queue_url(&embedded.urls.queue_url).message_body(job().encode());
    send.send().await.unwrap();
    let seen = status(&embedded.site, &StatusSettings { claims_minutes: 60, max_records: 1000 }).await;
    let (jobs, dead_letters, claims) = (seen.jobs.unwrap(), seen.dead_letters.unwrap(), seen.claims.as_ref().unwrap());
    assert_eq!((jobs.waiting, jobs.in_flight, dead_letters.waiting, &seen.gaps[..]), (1, 0, 1, &[][..]));
    let held: Vec<_> = claims.holders.iter().map(|(name, holder)| (name.as_str(), holder.jobs)).collect();
    assert_eq!(held, [("host/1", 2), ("host/2", 1), ("host/4", 1)]);
    assert_eq!((claims.run_out, claims.records_read, claims.unreadable, claims.is_complete), (1, 6, 0, true));
    let text = seen.to_string();
    assert!(text.contains("host/1") && text.contains("not seen: instances"), "{text}");
}

#[tokio::test]
async fn what_is_damaged_hides_nothing_else() {
    let embedded = Embedded::start().await;
    let now = Timestamp::now();
    let mut record = Record::begin(&job(), now);
    record.claim = Some(claim("host/1", now + SignedDuration::from_secs(60)));
    embedded.put(&record).await;
    let damaged = job();
    embedded.damage(&damaged).await;
    embedded.dead(damaged.encode()).await;
    embedded.site.objects.write(pauses_key(), Bytes::from_static(b"not json"), None).await.unwrap();
    let seen = status(&embedded.site, &StatusSettings { claims_minutes: 60, max_records: 1000 }).await;
    let claims = seen.claims.as_ref().unwrap();
    assert_eq!((claims.records_read, claims.unreadable, claims.holders["host/1"].jobs), (2, 1, 1));
    assert_eq!((seen.dead_letters.unwrap().waiting, &seen.pauses), (1, &None));
    assert!(matches!(&seen.gaps[..], [gap] if gap.contains(pauses_key())), "{seen:?}");
    let text = seen.to_string();
    for words in
        ["dead letters  1", "host/1", "1 of them are DAMAGED", "not seen: what is paused: pauses: control/pause.json"]
    {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    let shown = show(&embedded.site, &JobSettings { id: damaged.id, max_letters: 1000 }).await.unwrap();
    assert_eq!((shown.objects.len(), shown.dead_letters.len(), shown.gaps.len()), (1, 1, 0));
    assert_eq!(shown.trace_id.as_deref(), Some(damaged.trace.traceparent.trace_id()), "its message tells the trace");
    let text = shown.to_string();
    assert!(text.contains(&format!("DAMAGED: records/{}.json", damaged.id)), "{text}");
}

#[tokio::test]
async fn the_costs_are_calls_beside_pictures() {
    let embedded = Embedded::start().await;
    let twice = job();
    embedded.put(&succeeded(&job(), 1)).await;
    embedded.put(&succeeded(&twice, 2)).await;
    let mut lost = succeeded(&job(), 1);
    (lost.status, lost.image) = (Status::Canceled, None);
    embedded.put(&lost).await;
    embedded.put(&Record::begin(&job(), Timestamp::now())).await;
    let counted = cost(&embedded.site, &COST).await.unwrap();
    assert_eq!((counted.calls_paid, counted.pictures_delivered, counted.records), (4, 2, 4));
    assert_eq!((counted.calls_per_picture, counted.is_complete), (Some(2.0), true));
    assert_eq!(counted.paid_more_than_once, [twice.id]);
    assert_eq!((counted.jobs["succeeded"], counted.jobs["canceled"], counted.jobs["generating"]), (2, 1, 1));
    assert_eq!((counted.usd_paid, counted.usd_per_picture), (Some(0.16), Some(0.08)));
    let cut = cost(&embedded.site, &CostSettings { max_records: 3, ..COST }).await.unwrap();
    assert_eq!((cut.records, cut.is_complete), (3, false));
    assert!(cut.to_string().contains("NOT ALL"), "{cut}");
}

#[tokio::test]
async fn calls_that_the_sources_alone_tell_are_costs_as_well() {
    let embedded = Embedded::start().await;
    let now = Timestamp::now();
    // Canceled while the model drew: the worker kept the picture, and the record had ended.
    let canceled = async |generation, source: Option<Option<u32>>, told: u32| {
        let job = job();
        let mut record = Record::begin(&job, now);
        record.attempts = 1;
        record.source = (told > 0).then(|| succeeded(&job, told).source.unwrap());
        record.paying_until = generation;
        record.finish(Status::Canceled, now);
        embedded.put(&record).await;
        if let Some(source) = source {
            embedded.put_source(&job, source).await;
        }
        job
    };
    let paying = Some(now + SignedDuration::from_secs(60));
    canceled(None, Some(Some(1)), 0).await;
    canceled(None, Some(None), 0).await;
    // A second call after a first one that the record knows.
    let twice = canceled(paying, Some(Some(2)), 1).await;
    // No call came back.
    canceled(paying, None, 0).await;
    canceled(paying, Some(Some(1)), 1).await;
    let counted = cost(&embedded.site, &COST).await.unwrap();
    assert_eq!((counted.calls_paid, counted.calls_by_source_alone, counted.records), (5, 3, 5));
    assert_eq!((counted.unreadable, counted.paid_more_than_once.clone()), (0, vec![twice.id]));
    let text = counted.to_string();
    assert!(
        text.contains("calls paid          5 (3 of") && text.contains("not counted         calls repeated"),
        "{text}"
    );
}

#[tokio::test]
async fn a_job_is_shown_across_everything_that_knows_it() {
    let embedded = Embedded::start().await;
    let failed = embedded.exhausted("model_failed").await;
    let settings = |id| JobSettings { id, max_letters: 1000 };
    let shown = show(&embedded.site, &settings(failed.id)).await.unwrap();
    assert_eq!((shown.status, shown.dead_letters.len()), (Some(Status::Failed), 1));
    assert_eq!(shown.trace_id.as_deref(), Some(failed.trace.traceparent.trace_id()));
    assert_eq!(shown.objects.len(), 1);
    let text = shown.to_string();
    assert!(text.contains("last fault: model_failed") && text.contains("in the dead-letter queue as"), "{text}");
    let unseen = job();
    embedded.dead(unseen.encode()).await;
    let shown = show(&embedded.site, &settings(unseen.id)).await.unwrap();
    assert!(shown.record.is_none() && shown.trace_id.is_some(), "its message tells the trace");
    assert!(matches!(show(&embedded.site, &settings(job().id)).await, Err(Fault::NotFound(_))));
}
