//! The list of a tenant's jobs: whose, in which order, page by page, and by state.

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan};
use job::{IdKeys, IndexEntry, Job, JobId, Record, Status};
use serde_json::{Value, json};

use crate::support::{Answer, ID_KEYS, SOUTH_KEY, TestApi, claimed, get, job, succeeded, with};

/// Enters a job that was submitted so many minutes ago.
fn enter(api: &TestApi, minutes: i64, state: impl FnOnce(&Job) -> Record) -> String {
    let mut record = state(&job());
    record.submitted_at = Some(Timestamp::now() - minutes.minutes());
    api.records.enter(&record);
    record.id.to_string()
}

fn failed(job: &Job) -> Record {
    let mut record = claimed(job);
    record.finish(Status::Failed, Timestamp::now());
    record
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// Follows the pages to the end, and returns what each of them had.
async fn pages(api: &TestApi, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let answer = api.get(&path).await;
        pages.push(ids(&answer));
        next = answer.body["next_url"].as_str().map(str::to_owned);
        assert_eq!(next.is_some(), answer.body["next_cursor"].is_string());
    }
    pages
}

#[tokio::test]
async fn every_job_is_shown_once_newest_first() {
    let api = TestApi::new();
    assert_eq!(api.get("/v1/jobs").await.body, json!({"jobs": []}));
    let newest_first: Vec<String> = (0..45).map(|age| enter(&api, age, succeeded)).collect();
    for (path, sizes) in [
        ("/v1/jobs", vec![20, 20, 5]),
        ("/v1/jobs?limit=45", vec![45]),
        ("/v1/jobs?limit=44", vec![44, 1]),
        ("/v1/jobs?limit=15&status=succeeded", vec![15, 15, 15]),
        ("/v1/jobs?status=failed", vec![0]),
    ] {
        let pages = pages(&api, path).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{path}");
        if !path.contains("failed") {
            assert_eq!(pages.concat(), newest_first, "{path}");
        }
    }
    let page = api.get("/v1/jobs?limit=1").await;
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.body["jobs"][0], api.get(&format!("/v1/jobs/{}", newest_first[0])).await.body);
}

#[tokio::test]
async fn a_new_job_does_not_move_what_is_read_page_by_page() {
    let api = TestApi::new();
    let old: Vec<String> = (0..4).map(|age| enter(&api, age + 1, claimed)).collect();
    let first = api.get("/v1/jobs?limit=2").await;
    enter(&api, 0, claimed);
    let second = api.get(first.body["next_url"].as_str().unwrap()).await;
    assert_eq!([ids(&first), ids(&second)].concat(), old);
}

#[tokio::test]
async fn a_state_is_looked_for_a_bounded_way_and_found_in_the_end() {
    let api = TestApi::new();
    let wanted: BTreeSet<String> = [0, 150, 400, 640].map(|age| enter(&api, age, failed)).into();
    for age in 1..640 {
        if ![150, 400].contains(&age) {
            enter(&api, age, succeeded);
        }
    }
    let before = api.records.reads();
    let first = api.get("/v1/jobs?status=failed").await;
    assert_eq!(ids(&first).len(), 2);
    assert_eq!((api.records.reads() - before, api.records.lists()), (300, 1));
    let pages = pages(&api, "/v1/jobs?status=failed").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(pages.concat().into_iter().collect::<BTreeSet<_>>(), wanted);
    let one = api.get("/v1/jobs?status=failed&limit=1").await;
    let two = api.get(one.body["next_url"].as_str().unwrap()).await;
    assert_eq!([ids(&one), ids(&two)].concat(), ids(&first));
}

#[tokio::test]
async fn a_tenant_sees_its_own_jobs_and_no_cursor_changes_that() {
    let api = TestApi::new();
    let norths: Vec<String> = (0..3).map(|age| enter(&api, age, succeeded)).collect();
    let cursor = api.get("/v1/jobs?limit=1").await.body["next_cursor"].as_str().unwrap().to_owned();
    let south = |path: &str| with(get(path), "authorization", &format!("Bearer {SOUTH_KEY}"));
    for path in ["/v1/jobs".to_owned(), format!("/v1/jobs?cursor={cursor}")] {
        assert_eq!(api.send(south(&path)).await.body, json!({"jobs": []}), "{path}");
    }
    // An entry in the wrong list, by whatever mistake: its id is not that tenant's, nor is its record.
    let (keys, stranger): (IdKeys, _) = (ID_KEYS.parse().unwrap(), "south".parse().unwrap());
    let mut record = succeeded(&Job { id: keys.issue(&stranger), ..job() });
    record.submitted_at = Some(Timestamp::now());
    api.records.enter(&record);
    let mut record = succeeded(&job());
    record.submitted_at = Some(Timestamp::now());
    api.records.enter(&record);
    record.tenant = stranger;
    api.records.put(&record);
    assert_eq!(ids(&api.get("/v1/jobs").await), norths);
}

#[tokio::test]
async fn an_entry_whose_record_has_expired_is_passed_over() {
    let api = TestApi::new();
    let all: Vec<String> = (0..4).map(|age| enter(&api, age, succeeded)).collect();
    for gone in &all[1..3] {
        api.records.expire(&gone.parse::<JobId>().unwrap());
    }
    let pages = pages(&api, "/v1/jobs?limit=1").await;
    assert_eq!(pages, [vec![all[0].clone()], vec![], vec![], vec![all[3].clone()]]);
}

#[tokio::test]
async fn a_record_that_nobody_can_read_takes_no_other_job_out_of_the_list() {
    let api = TestApi::new();
    let all: Vec<String> = (0..4).map(|age| enter(&api, age, succeeded)).collect();
    api.records.spoil(&all[1].parse().unwrap());
    for (path, sizes) in
        [("/v1/jobs", vec![3]), ("/v1/jobs?status=succeeded", vec![3]), ("/v1/jobs?limit=2", vec![1, 2])]
    {
        let pages = pages(&api, path).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{path}");
        assert_eq!(pages.concat(), [&all[..1], &all[2..]].concat(), "{path}");
    }
    api.get(&format!("/v1/jobs/{}", all[1])).await.assert_problem(500, "internal_error");
}

#[tokio::test]
async fn each_wrong_parameter_is_named() {
    let api = TestApi::new();
    let entry = IndexEntry::new(job().id, Timestamp::now());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=%2B1", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("status=done", "status"),
        ("status=", "status"),
        ("cursor=", "cursor"),
        ("cursor=next", "cursor"),
        (&format!("cursor=x{entry}"), "cursor"),
        ("limit=1&limit=1", "limit"),
        ("page=2", "page"),
        ("Limit=2", "Limit"),
    ] {
        let answer = api.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.body);
        answer.assert_invalid(field);
    }
    let both: Value = api.get("/v1/jobs?limit=0&status=done").await.body;
    assert_eq!(both["errors"].as_array().unwrap().len(), 2, "{both}");
    assert_eq!(api.get(&format!("/v1/jobs?cursor={entry}&limit=100&status=queued")).await.status, 200);
    assert_eq!(api.records.lists(), 1);
}

#[tokio::test]
async fn a_page_counts_as_the_polls_that_it_replaces() {
    let api = TestApi::with_args(&["--polls-per-minute=100", "--jobs-per-minute=10"]);
    assert_eq!(api.get("/v1/jobs?limit=60").await.status, 200);
    api.get("/v1/jobs?limit=60").await.assert_problem(429, "rate_limited");
    assert_eq!(api.get("/v1/jobs?limit=20").await.status, 200);
    // More than the limit has room for, and not refused for ever.
    let api = TestApi::with_args(&["--polls-per-minute=100", "--jobs-per-minute=10"]);
    assert_eq!(api.get("/v1/jobs?status=failed").await.status, 200);
    api.get("/v1/jobs?limit=90").await.assert_problem(429, "rate_limited");
}
