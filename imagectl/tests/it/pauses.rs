//! Pause and resume: one object for the whole fleet, and a line in the audit for each.

use std::sync::Arc;

use bytes::Bytes;
use imagectl::fault::Fault;
use imagectl::pause::{pause, read, resume};
use imagectl::site::Site;
use job::{Part, Pauses, pauses_key};

use crate::support::{Embedded, RefusingObjects};

#[tokio::test]
async fn a_pause_is_one_object_and_keeps_its_time() {
    let embedded = Embedded::start().await;
    let site = &embedded.site;
    assert_eq!(read(site).await.unwrap().pauses, Pauses::default());
    let first = pause(site, &[Part::Generation], "The model is being changed.").await.unwrap();
    let again = pause(site, &Part::ALL, "It takes longer.").await.unwrap();
    assert_eq!(read(site).await.unwrap(), again);
    let of = |view: &imagectl::pause::PausesView, part| view.pauses.of(part).cloned().unwrap();
    assert_eq!(of(&again, Part::Generation).since, of(&first, Part::Generation).since);
    assert_eq!(
        (of(&again, Part::Intake).reason.as_str(), of(&again, Part::Intake).by.as_str()),
        ("It takes longer.", "operator")
    );
    let text = again.to_string();
    assert!(text.contains("intake      paused since") && text.contains("It takes longer."), "{text}");
    let after = resume(site, &[Part::Intake]).await.unwrap();
    assert!(after.pauses.of(Part::Intake).is_none() && after.pauses.of(Part::Generation).is_some());
    assert_eq!(resume(site, &Part::ALL).await.unwrap().pauses, Pauses::default());
    let mut actions: Vec<_> =
        embedded.audit().await.iter().map(|line| format!("{} {}", line["action"], line["part"])).collect();
    actions.sort();
    let expected = [
        r#""pause" "generation""#,
        r#""pause" "generation""#,
        r#""pause" "intake""#,
        r#""resume" "generation""#,
        r#""resume" "intake""#,
        r#""resume" "intake""#,
    ];
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn a_reason_that_cannot_be_shown_changes_nothing() {
    let embedded = Embedded::start().await;
    for reason in ["", "two\nlines"] {
        let refused = pause(&embedded.site, &[Part::Intake], reason).await;
        assert!(matches!(&refused, Err(Fault::Usage(text)) if text.contains("--reason")), "{refused:?}");
    }
    assert_eq!(embedded.site.objects.read(pauses_key()).await.unwrap(), None);
    assert_eq!(embedded.audit().await.len(), 0);
}

#[tokio::test]
async fn of_operators_that_meet_each_has_a_say() {
    let embedded = Embedded::start().await;
    let site = &embedded.site;
    let (one, other) =
        tokio::join!(pause(site, &[Part::Intake], "One thing."), pause(site, &[Part::Generation], "Another thing."));
    assert!(one.is_ok() && other.is_ok());
    let pauses = read(site).await.unwrap().pauses;
    assert!(Part::ALL.iter().all(|part| pauses.of(*part).is_some()), "{pauses:?}");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named() {
    let embedded = Embedded::start().await;
    embedded.site.objects.write(pauses_key(), Bytes::from_static(b"not json"), None).await.unwrap();
    let paused = pause(&embedded.site, &Part::ALL, "Maintenance.").await.unwrap_err();
    let resumed = resume(&embedded.site, &Part::ALL).await.unwrap_err();
    for error in [read(&embedded.site).await.unwrap_err(), paused, resumed] {
        let error = error.to_string();
        assert!(error.contains("delete the object control/pause.json of the bucket"), "{error}");
    }
    assert_eq!(embedded.audit().await.len(), 0, "nothing was done, and the audit says nothing else");
    assert_eq!(embedded.site.objects.read(pauses_key()).await.unwrap().unwrap().0, "not json");
}

#[tokio::test]
async fn a_pause_that_could_not_be_written_is_in_the_audit_as_such() {
    let embedded = Embedded::start().await;
    let objects = RefusingObjects { objects: embedded.site.objects.clone(), refused: pauses_key() };
    let site = Site { objects: Arc::new(objects), ..embedded.site.clone() };
    let refused = pause(&site, &[Part::Intake], "Maintenance.").await;
    assert!(matches!(&refused, Err(Fault::Service { .. })), "{refused:?}");
    assert!(resume(&site, &[Part::Intake]).await.is_err());
    let mut actions: Vec<_> = embedded.audit().await.iter().map(|line| line["action"].clone()).collect();
    actions.sort_by_key(ToString::to_string);
    assert_eq!(actions, ["pause", "pause_failed", "resume", "resume_failed"]);
    assert_eq!(read(&embedded.site).await.unwrap().pauses, Pauses::default());
}
