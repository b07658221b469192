//! Dead letters are listed without being taken, and redriven one by one, each written down before it moves.

use std::sync::{Arc, Mutex};

use imagectl::delete::delete;
use imagectl::fault::Fault;
use imagectl::letters::{NO_RECORD, POISON, Saw, UNREADABLE, find, list};
use imagectl::queues::SqsQueues;
use imagectl::redrive::{Redriven, redrive};
use imagectl::settings::{DeleteSettings, JobSettings, RedriveSettings};
use imagectl::show::show;
use imagectl::site::Site;
use tokio_util::sync::CancellationToken;

use crate::support::{Embedded, RefusingQueues, job};

fn which(id: Option<&str>, code: Option<&str>) -> RedriveSettings {
    let all = id.is_none() && code.is_none();
    let (id, code) = (id.map(str::to_owned), code.map(str::to_owned));
    RedriveSettings { id, code, all, rate: 500, limit: 10_000, dry_run: false }
}

async fn redriven(site: &Site, settings: &RedriveSettings) -> Redriven {
    let done = redrive(site, settings, &CancellationToken::new()).await;
    assert_eq!(done.fault, None);
    done
}

#[tokio::test]
async fn a_damaged_record_is_told_and_holds_up_no_other() {
    let embedded = Embedded::start().await;
    let damaged = embedded.exhausted("model_failed").await;
    embedded.damage(&damaged).await;
    for _ in 0..3 {
        embedded.exhausted("model_failed").await;
    }
    let listed = list(&embedded.site, None, 1000).await.unwrap();
    assert_eq!((listed.letters.len(), listed.saw.is_complete), (4, true));
    let listed = list(&embedded.site, Some(UNREADABLE), 1000).await.unwrap();
    assert_eq!(listed.letters.iter().map(|one| one.job_id).collect::<Vec<_>>(), [Some(damaged.id)]);
    let id = damaged.id.to_string();
    let shown = find(&embedded.site, &id, 1000).await.unwrap().to_string();
    assert!(shown.contains(&format!("DAMAGED: records/{id}.json")), "{shown}");
    let one = redrive(&embedded.site, &which(Some(&id), None), &CancellationToken::new()).await;
    assert_eq!((one.redriven, one.unreadable), (0, 1));
    assert!(matches!(&one.fault, Some(Fault::Service { reason, .. }) if reason.contains(&id)), "{one:?}");
    let done = redriven(&embedded.site, &which(None, None)).await;
    assert_eq!((done.redriven, done.unreadable, done.saw.is_complete), (3, 1, true));
    assert!(done.to_string().contains("1 have a record that cannot be read"), "{done}");
    assert_eq!((embedded.received().await.len(), embedded.audit().await.len()), (3, 3));
    assert_eq!(embedded.site.queues.dead_letters().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn each_is_listed_with_its_code_and_stays() {
    let embedded = Embedded::start().await;
    let failed = embedded.exhausted("model_failed").await;
    let unseen = job();
    embedded.dead(unseen.encode()).await;
    let poison = embedded.dead("a-very-private-fox").await;
    for _ in 0..2 {
        let listed = list(&embedded.site, None, 1000).await.unwrap();
        assert!(listed.saw.is_complete);
        let mut codes: Vec<_> = listed.letters.iter().map(|one| (one.code.as_str(), one.fault.as_deref())).collect();
        codes.sort();
        assert_eq!(codes, [("attempts_exhausted", Some("model_failed")), (NO_RECORD, None), (POISON, None)]);
        assert!(!serde_json::to_string(&listed).unwrap().contains("fox"), "a list shows no prompt");
    }
    for (code, id) in [("model_failed", failed.id), ("attempts_exhausted", failed.id), (NO_RECORD, unseen.id)] {
        let listed = list(&embedded.site, Some(code), 1000).await.unwrap();
        assert_eq!(listed.letters.iter().map(|one| one.job_id).collect::<Vec<_>>(), [Some(id)], "{code}");
    }
    let shown = find(&embedded.site, &poison, 1000).await.unwrap();
    assert_eq!((shown.body.as_str(), shown.letter.job_id), ("a-very-private-fox", None));
    assert_eq!(find(&embedded.site, &failed.id.to_string(), 1000).await.unwrap().body, failed.encode());
    assert!(matches!(find(&embedded.site, "nobody", 1000).await, Err(Fault::NotFound(_))));
    assert_eq!(embedded.site.queues.dead_letters().await.unwrap().waiting, 3);
}

#[tokio::test]
async fn what_another_look_hides_is_not_taken_for_nothing() {
    let embedded = Embedded::start().await;
    let (one, two) = (embedded.exhausted("model_failed").await, embedded.exhausted("model_failed").await);
    let other = embedded.site.queues.look().await.unwrap();
    assert_eq!(other.len(), 2);
    embedded.site.queues.put_back(&other.iter().find(|raw| raw.body == two.encode()).unwrap().receipt).await.unwrap();
    let hint = "1 more are hidden by another look: try again in two minutes";
    let listed = list(&embedded.site, None, 1000).await.unwrap();
    assert_eq!(
        (listed.letters.len(), listed.saw),
        (1, Saw { is_complete: false, hidden: 1 }),
        "what it holds itself is seen"
    );
    assert!(listed.to_string().contains(&format!("1 dead letters; {hint}")), "{listed}");
    assert!(serde_json::to_string(&listed).unwrap().contains(r#""is_complete":false,"hidden":1"#));
    let id = one.id.to_string();
    let is_hint = |fault: &Fault| matches!(fault, Fault::NotFound(text) if text.contains(hint));
    let found = find(&embedded.site, &id, 1000).await.unwrap_err();
    assert!(is_hint(&found), "{found}");
    let done = redrive(&embedded.site, &which(Some(&id), None), &CancellationToken::new()).await;
    assert!(done.redriven == 0 && done.fault.as_ref().is_some_and(is_hint), "{done:?}");
    let shown = show(&embedded.site, &JobSettings { id: one.id, max_letters: 1000 }).await.unwrap();
    assert_eq!((shown.saw_every_letter, shown.hidden_letters), (false, 1));
    assert!(shown.to_string().contains(hint), "{shown}");
    let done = redriven(&embedded.site, &which(None, None)).await;
    assert_eq!((done.redriven, done.saw.hidden), (1, 1));
    assert!(done.to_string().contains(hint), "{done}");
}

#[tokio::test]
async fn each_goes_back_to_the_lane_that_it_came_from() {
    let embedded = Embedded::start().await;
    let of_a_batch = embedded.dead_of_a_batch().await;
    let single = embedded.exhausted("model_failed").await;
    assert_eq!(embedded.site.queues.batches().await.unwrap().unwrap().waiting, 0);
    let done = redriven(&embedded.site, &which(None, None)).await;
    assert_eq!((done.redriven, done.left_behind), (2, 0));
    assert_eq!(embedded.site.queues.batches().await.unwrap().unwrap().waiting, 1);
    let north = Some("north".to_owned());
    let batches = embedded.received_from(&embedded.urls.batch_url).await;
    assert_eq!(batches, [(of_a_batch.encode(), north.clone())]);
    assert_eq!(embedded.received().await, [(single.encode(), north)]);
}

#[tokio::test]
async fn a_letter_of_an_unknown_lane_stays_and_the_setting_is_named() {
    let embedded = Embedded::start().await;
    embedded.dead_of_a_batch().await;
    let single = embedded.exhausted("model_failed").await;
    // As a shell without SQS_BATCH_QUEUE_URL has it.
    let queues = SqsQueues::open(embedded.sqs.clone(), embedded.urls.queue_url.clone(), None).await.unwrap();
    let site = Site { queues: Arc::new(queues), ..embedded.site.clone() };
    for dry_run in [true, false] {
        let settings = RedriveSettings { dry_run, ..which(None, None) };
        let done = redrive(&site, &settings, &CancellationToken::new()).await;
        assert_eq!((done.redriven, done.elsewhere, done.saw.is_complete), (1, 1, true));
        let is_named = |text: &str| text.contains("SQS_BATCH_QUEUE_URL") && text.contains("image-batches");
        assert!(matches!(&done.fault, Some(Fault::Usage(text)) if is_named(text)), "{done:?}");
    }
    assert_eq!(embedded.received().await, [(single.encode(), Some("north".to_owned()))], "not into the other lane");
    assert_eq!((site.queues.dead_letters().await.unwrap().waiting, embedded.audit().await.len()), (1, 1));
    // With it, the letter goes home.
    assert_eq!(redriven(&embedded.site, &which(None, None)).await.redriven, 1);
    assert_eq!(embedded.received_from(&embedded.urls.batch_url).await.len(), 1);
}

#[tokio::test]
async fn those_with_a_code_go_back_and_the_others_stay() {
    let embedded = Embedded::start().await;
    let wanted = [embedded.exhausted("model_failed").await, embedded.exhausted("model_failed").await];
    embedded.exhausted("render_failed").await;
    embedded.dead("not a job").await;
    let done = redriven(&embedded.site, &which(None, Some("model_failed"))).await;
    assert_eq!((done.redriven, done.others, done.refused, done.left_behind), (2, 2, 0, 0));
    assert!(done.saw.is_complete);
    let mut received = embedded.received().await;
    let mut expected = wanted.each_ref().map(|job| (job.encode(), Some("north".to_owned()))).to_vec();
    received.sort();
    expected.sort();
    assert_eq!(received, expected, "byte for byte, in the tenant's group");
    assert_eq!(embedded.site.queues.dead_letters().await.unwrap().waiting, 2);
    let audit = embedded.audit().await;
    assert_eq!(audit.len(), 2);
    for line in &audit {
        assert_eq!(
            (&line["action"], &line["by"], &line["which"]),
            (&"redrive".into(), &"operator".into(), &"model_failed".into())
        );
        assert!(wanted.iter().any(|job| line["job_id"] == job.id.to_string()), "{line}");
        assert!(!line.to_string().contains("fox"));
    }
}

#[tokio::test]
async fn all_that_are_jobs_go_back_within_the_limit_and_poison_never() {
    let embedded = Embedded::start().await;
    for _ in 0..12 {
        embedded.exhausted("model_failed").await;
    }
    embedded.dead("not a job").await;
    let mut settings = which(None, None);
    settings.dry_run = true;
    let done = redriven(&embedded.site, &settings).await;
    assert_eq!((done.redriven, done.refused, done.audit), (12, 1, None));
    assert_eq!((embedded.received().await.len(), embedded.audit().await.len()), (0, 0), "only said");
    (settings.dry_run, settings.limit) = (false, 5);
    let done = redriven(&embedded.site, &settings).await;
    assert_eq!((done.redriven, embedded.received().await.len()), (5, 5));
    settings.limit = 100;
    let done = redriven(&embedded.site, &settings).await;
    assert_eq!((done.redriven, done.refused, embedded.received().await.len()), (7, 1, 7));
    assert_eq!((embedded.site.queues.dead_letters().await.unwrap().waiting, embedded.audit().await.len()), (1, 12));
}

#[tokio::test]
async fn one_goes_back_by_the_id_of_its_job_or_message() {
    let embedded = Embedded::start().await;
    let (first, _) = (embedded.exhausted("model_failed").await, embedded.exhausted("model_failed").await);
    let other = job();
    let message = embedded.dead(other.encode()).await;
    for (id, body) in [(first.id.to_string(), first.encode()), (message, other.encode())] {
        assert_eq!(redriven(&embedded.site, &which(Some(&id), None)).await.redriven, 1);
        assert_eq!(embedded.received().await.into_iter().map(|(body, _)| body).collect::<Vec<_>>(), [body]);
    }
    let nobody = redrive(&embedded.site, &which(Some("nobody"), None), &CancellationToken::new()).await;
    assert!(matches!(nobody.fault, Some(Fault::NotFound(_))), "{nobody:?}");
    assert_eq!(embedded.site.queues.dead_letters().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn what_cannot_be_sent_stays_and_the_audit_says_so() {
    let embedded = Embedded::start().await;
    for _ in 0..3 {
        embedded.exhausted("model_failed").await;
    }
    let queues = RefusingQueues { queues: embedded.site.queues.clone(), takes: Mutex::new(1) };
    let site = Site { queues: Arc::new(queues), ..embedded.site.clone() };
    let failed = redrive(&site, &which(None, None), &CancellationToken::new()).await;
    assert!(matches!(failed.fault, Some(Fault::Service { .. })), "{failed:?}");
    assert_eq!(failed.redriven, 1, "it says how many had gone");
    assert!(serde_json::to_string(&failed).unwrap().contains(r#""fault":"SQS: OverLimit: no more""#));
    assert_eq!((embedded.received().await.len(), site.queues.dead_letters().await.unwrap().waiting), (1, 2));
    let actions: Vec<_> = embedded.audit().await.iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["redrive", "redrive", "redrive_failed"]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_deleted_one_by_one_and_written_down() {
    let embedded = Embedded::start().await;
    let poison = embedded.dead("a-very-private-fox").await;
    let ended = embedded.exhausted("model_failed").await;
    let (unseen, damaged) = (job(), job());
    embedded.dead(unseen.encode()).await;
    embedded.damage(&damaged).await;
    embedded.dead(damaged.encode()).await;
    let settings = |id: &str, force| DeleteSettings {
        id: id.to_owned(),
        reason: "It is no job.".to_owned(),
        force,
        max_letters: 1000,
    };
    let deleted = async |id: &str, force| delete(&embedded.site, &settings(id, force)).await;
    for job in [&unseen, &damaged] {
        let refused = deleted(&job.id.to_string(), false).await;
        assert!(matches!(&refused, Err(Fault::Usage(text)) if text.contains("--force")), "{refused:?}");
    }
    assert!(matches!(deleted("nobody", true).await, Err(Fault::NotFound(_))));
    let waiting = async || embedded.site.queues.dead_letters().await.unwrap().waiting;
    assert_eq!((waiting().await, embedded.audit().await.len()), (4, 0));
    assert_eq!(deleted(&poison, false).await.unwrap().code, POISON);
    assert_eq!(deleted(&ended.id.to_string(), false).await.unwrap().job_id, Some(ended.id));
    assert_eq!(deleted(&unseen.id.to_string(), true).await.unwrap().code, NO_RECORD);
    assert_eq!(waiting().await, 1);
    let audit = embedded.audit().await;
    assert_eq!(audit.len(), 3);
    for line in &audit {
        assert_eq!((&line["action"], &line["reason"]), (&"delete".into(), &"It is no job.".into()));
        assert!(!line.to_string().contains("fox"));
    }
}

#[tokio::test]
async fn a_signal_ends_it_between_two_letters() {
    let embedded = Embedded::start().await;
    embedded.exhausted("model_failed").await;
    let stopping = CancellationToken::new();
    stopping.cancel();
    let done = redrive(&embedded.site, &which(None, None), &stopping).await;
    assert!(done.interrupted && done.redriven == 0 && done.fault.is_none());
    assert_eq!(embedded.site.queues.dead_letters().await.unwrap().waiting, 1);
}
