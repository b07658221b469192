//! Tests of the verdict: each breach, alone, and what is none.

use super::*;

fn job(change: impl FnOnce(&mut JobEvidence)) -> JobEvidence {
    let mut job = JobEvidence {
        id: "job-1".to_owned(),
        expected: Expected::Picture,
        ending: Some((Status::Succeeded, None)),
        told: Some(Status::Succeeded),
        picture: Picture::Works,
        is_dead_letter: false,
        billed: 1,
        spoiled: 0,
        hit_by_signals: 0,
        hit_by_network: 0,
    };
    change(&mut job);
    job
}

fn ended(expected: Expected, status: Status, code: Option<FailureCode>) -> JobEvidence {
    job(|job| {
        (job.expected, job.ending, job.told) = (expected, Some((status, code)), Some(status));
        (job.picture, job.billed) = (Picture::None, 0);
    })
}

fn judge(jobs: Vec<JobEvidence>) -> Verdict {
    Verdict::of(&Evidence { jobs, ..Evidence::default() })
}

#[track_caller]
fn breach(jobs: Vec<JobEvidence>, word: &str) {
    let breaches = judge(jobs).breaches;
    assert!(breaches.len() == 1 && breaches[0].contains(word), "{breaches:?}");
}

#[test]
fn a_run_in_which_everything_was_kept() {
    let blocked = ended(Expected::Blocked, Status::Blocked, Some(FailureCode::ContentFiltered));
    let rejected = ended(Expected::Rejected, Status::Failed, Some(FailureCode::RequestRejected));
    let hit = job(|job| (job.billed, job.hit_by_signals, job.spoiled) = (3, 2, 1));
    let verdict = judge(vec![job(|_| {}), blocked, rejected, hit]);
    assert!(verdict.is_kept(), "{:?}", verdict.breaches);
    assert_eq!((verdict.accepted, verdict.succeeded, verdict.lost, verdict.urls), (4, 2, 0, 2));
    assert_eq!(verdict.failed, BTreeMap::from([("content_filtered".into(), 1), ("request_rejected".into(), 1)]));
    assert_eq!(verdict.beyond_one, Beyond { spoiled: 1, signals: 1, network: 0, unexplained: 0 });
}

#[test]
fn nothing_proves_nothing() {
    breach(vec![], "no job was accepted");
}

#[test]
fn a_lost_job() {
    for ending in [None, Some((Status::Generating, None))] {
        let lost = job(|job| (job.ending, job.told, job.picture) = (ending, Some(Status::Queued), Picture::None));
        assert_eq!(judge(vec![lost.clone()]).lost, 1);
        breach(vec![lost], "lost");
    }
}

#[test]
fn a_job_in_the_dead_letter_queue_is_not_lost() {
    let dead = job(|job| (job.ending, job.picture, job.is_dead_letter) = (None, Picture::None, true));
    assert_eq!(judge(vec![dead]).lost, 0);
}

#[test]
fn a_second_payment_that_nothing_excuses() {
    breach(vec![job(|job| job.billed = 2)], "paid 2 times");
    breach(vec![job(|job| (job.billed, job.spoiled) = (3, 1))], "paid 3 times");
    breach(vec![job(|job| (job.billed, job.hit_by_signals) = (3, 1))], "paid 3 times");
    breach(vec![job(|job| (job.billed, job.hit_by_network) = (3, 1))], "paid 3 times");
}

#[test]
fn an_excuse_is_of_one_job_alone() {
    let hit = job(|job| job.hit_by_signals = 5);
    breach(vec![hit, job(|job| job.billed = 2)], "paid 2 times");
}

#[test]
fn a_refused_prompt_that_was_paid_for() {
    let mut blocked = ended(Expected::Blocked, Status::Blocked, Some(FailureCode::ContentFiltered));
    blocked.billed = 1;
    breach(vec![blocked], "paid 1 times");
}

#[test]
fn a_picture_that_nobody_paid_for() {
    breach(vec![job(|job| job.billed = 0)], "nobody paid");
}

#[test]
fn a_dead_url_and_a_missing_one() {
    breach(vec![job(|job| job.picture = Picture::Broken("404".to_owned()))], "does not work: 404");
    breach(vec![job(|job| job.picture = Picture::None)], "has no URL");
}

#[test]
fn an_end_that_is_not_the_jobs_own() {
    breach(vec![ended(Expected::Picture, Status::Failed, Some(FailureCode::AttemptsExhausted))], "instead of");
    breach(vec![ended(Expected::Picture, Status::Blocked, Some(FailureCode::ContentFiltered))], "instead of");
    let undeserved = job(|job| (job.expected, job.billed) = (Expected::Blocked, 0));
    assert!(judge(vec![undeserved]).breaches.iter().any(|breach| breach.contains("instead of")));
}

#[test]
fn an_api_that_says_something_else() {
    breach(vec![job(|job| job.told = Some(Status::Queued))], "the API says");
    breach(vec![job(|job| job.told = None)], "the API says");
}

#[test]
fn messages_that_are_left() {
    let of = |evidence: Evidence| Verdict::of(&Evidence { jobs: vec![job(|_| {})], ..evidence }).breaches;
    let invisible = of(Evidence { queue: Depth { visible: 0, invisible: 1 }, ..Evidence::default() });
    assert!(invisible.len() == 1 && invisible[0].contains("1 invisible"), "{invisible:?}");
    let visible = of(Evidence { queue: Depth { visible: 2, invisible: 0 }, ..Evidence::default() });
    assert!(visible.len() == 1 && visible[0].contains("2 visible"), "{visible:?}");
    let dead = of(Evidence { dead_letters: Depth { visible: 1, invisible: 1 }, ..Evidence::default() });
    assert!(dead.len() == 1 && dead[0].starts_with("2 messages"), "{dead:?}");
}

#[test]
fn a_submission_that_is_never_accepted() {
    let evidence = Evidence { jobs: vec![job(|_| {})], refused: vec!["422".to_owned()], ..Evidence::default() };
    assert!(Verdict::of(&evidence).breaches[0].contains("422"));
}

#[test]
fn the_longest_recovery_is_to_the_next_picture() {
    let seconds = Duration::from_secs;
    let healed =
        [(seconds(10), "first".to_owned()), (seconds(20), "second".to_owned()), (seconds(90), "last".to_owned())];
    let pictures = [seconds(35), seconds(5), seconds(12), seconds(36)];
    let longest = longest_recovery(&healed, &pictures).unwrap();
    assert_eq!(longest, Recovery { after: "second".to_owned(), seconds: 15.0 });
    assert_eq!(longest_recovery(&healed, &[]), None);
}
