//! `Traffic`: jobs at a steady rate and in bursts, each submitted with an `Idempotency-Key` until it is accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use job::{IdKeys, Job, JobId, JobSpec, TenantId, TraceContext};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::verdict::Expected;

/// Share of the jobs whose prompt asks the model for something special.
const SPECIAL: f64 = 0.12;
/// Jobs of a burst, and seconds between two bursts.
const BURST: std::ops::Range<usize> = 5..20;
const BETWEEN_BURSTS: std::ops::Range<f64> = 15.0..40.0;
/// A client that has no answer for so long asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Its first pause before that; doubles up to the longest, and is up to half as long again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// What a prompt may ask for: the directive, what the job comes to, and the pictures that are spoiled on the way.
const WISHES: [(&str, Expected, u64); 14] = [
    ("[[fault:stall*1]]", Expected::Picture, 1),
    ("[[fault:half_answer*1]]", Expected::Picture, 1),
    ("[[fault:truncated_base64*1]]", Expected::Picture, 1),
    ("[[fault:not_png*1]]", Expected::Picture, 1),
    ("[[fault:bomb*1]]", Expected::Picture, 1),
    ("[[fault:png16]]", Expected::Picture, 0),
    ("[[fault:grey]]", Expected::Picture, 0),
    ("[[fault:rgba_transparent]]", Expected::Picture, 0),
    ("[[fault:jpeg]]", Expected::Picture, 0),
    ("[[fault:throttle*2]]", Expected::Picture, 0),
    ("[[fault:refuse_prompt]]", Expected::Blocked, 0),
    ("[[fault:refuse_output]]", Expected::Blocked, 0),
    ("[[fault:content_filtered_validation]]", Expected::Blocked, 0),
    ("[[fault:validation]]", Expected::Rejected, 0),
];

/// One job as its client knows it.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) prompt: String,
    pub(super) key: String,
    pub(super) expected: Expected,
    /// Pictures that the prompt asks the model to spoil.
    pub(super) spoiled: u64,
    /// Derived from tenant and key, so known before the answer.
    pub(super) id: JobId,
    /// It was answered with 202.
    pub(super) is_accepted: bool,
    /// What came instead, once it is given up.
    pub(super) refused: Option<String>,
}

impl Submission {
    fn new(source: &Source, number: usize, random: &mut StdRng) -> Self {
        let seed = source.seed;
        let wish = random.random_bool(SPECIAL).then(|| *WISHES.choose(random).expect("there are some"));
        let (directive, expected, spoiled) = wish.unwrap_or(("", Expected::Picture, 0));
        let key = format!("chaos-{seed}-{number}");
        Self {
            prompt: format!("a lighthouse, number {number} of run {seed} {directive}").trim_end().to_owned(),
            id: source.keys.derive(&source.tenant, &key),
            key,
            expected,
            spoiled,
            is_accepted: false,
            refused: None,
        }
    }

    /// Returns the body of a second message for the job.
    pub(super) fn second_message(&self, tenant: &TenantId) -> String {
        let spec = JobSpec::new(self.prompt.clone(), None, None).expect("the API has taken it");
        let (tenant, submitted_at, trace) = (tenant.clone(), Timestamp::now(), TraceContext::generate());
        Job { id: self.id, tenant, spec, submitted_at, deadline_at: None, retries: 0, trace }.encode()
    }
}

/// All submissions so far; the place in the list is the number of the job.
#[derive(Debug, Clone, Default)]
pub(super) struct Submissions(Arc<Mutex<Vec<Submission>>>);

impl Submissions {
    pub(super) fn all(&self) -> Vec<Submission> {
        self.lock().clone()
    }

    /// Returns the accepted ones.
    pub(super) fn accepted(&self) -> Vec<Submission> {
        self.lock().iter().filter(|submission| submission.is_accepted).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Submission>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes the jobs, the same for the same seed.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) seed: u64,
    /// The API's.
    pub(super) keys: Arc<IdKeys>,
    pub(super) tenant: TenantId,
}

/// Where jobs are submitted, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    pub(super) api_url: String,
    pub(super) api_key: String,
}

#[derive(Deserialize)]
struct Accepted {
    id: JobId,
}

/// Submits for `length`, and goes on asking for what has not been accepted until `give_up`.
pub(super) async fn run(
    client: Client,
    submissions: Submissions,
    source: Source,
    (per_second, length): (f64, Duration),
    give_up: CancellationToken,
) {
    let mut random = StdRng::seed_from_u64(source.seed);
    let started = Instant::now();
    let mut next = started;
    let mut burst_at = started + Duration::from_secs_f64(random.random_range(BETWEEN_BURSTS));
    let mut asking = JoinSet::new();
    let mut number = 0;
    while started.elapsed() < length && !give_up.is_cancelled() {
        tokio::time::sleep_until(next).await;
        let mut jobs = 1;
        if Instant::now() >= burst_at {
            jobs += random.random_range(BURST);
            burst_at += Duration::from_secs_f64(random.random_range(BETWEEN_BURSTS));
        }
        for _ in 0..jobs {
            let submission = Submission::new(&source, number, &mut random);
            submissions.lock().push(submission.clone());
            asking.spawn(submit(client.clone(), submissions.clone(), number, submission, give_up.clone()));
            number += 1;
        }
        next += Duration::from_secs_f64(random.random_range(0.5..1.5) / per_second);
    }
    while asking.join_next().await.is_some() {}
}

/// Asks until the job is accepted, as a client does that knows that its key makes the repeat harmless.
async fn submit(
    client: Client,
    submissions: Submissions,
    number: usize,
    submission: Submission,
    give_up: CancellationToken,
) {
    let mut pause = ASK_AGAIN;
    loop {
        let last = match client.submit(&submission).await {
            Ok(id) => {
                let known = &mut submissions.lock()[number];
                known.is_accepted = id == submission.id;
                known.refused = (!known.is_accepted).then(|| format!("accepted as {id} instead of {}", known.id));
                return;
            }
            Err(Refusal::Final(answer)) => {
                submissions.lock()[number].refused = Some(answer);
                return;
            }
            Err(Refusal::Passing(answer)) => answer,
        };
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))) => {}
            () = give_up.cancelled() => {
                submissions.lock()[number].refused = Some(last);
                return;
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Refusal {
    Passing(String),
    Final(String),
}

impl Client {
    async fn submit(&self, submission: &Submission) -> Result<JobId, Refusal> {
        let request = self.http.post(format!("{}/v1/jobs", self.api_url)).bearer_auth(&self.api_key);
        let request = request.header("Idempotency-Key", &submission.key).timeout(PATIENCE);
        let answer = request.json(&json!({ "prompt": submission.prompt })).send().await;
        let answer = answer.map_err(|error| Refusal::Passing(error.to_string()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| Refusal::Passing(error.to_string()))?;
        if status == StatusCode::ACCEPTED {
            let accepted: Result<Accepted, _> = serde_json::from_str(&text);
            return accepted.map(|accepted| accepted.id).map_err(|error| Refusal::Final(error.to_string()));
        }
        let answer = format!("{status}: {text}");
        let passes =
            status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        Err(if passes { Refusal::Passing(answer) } else { Refusal::Final(answer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(seed: u64) -> Source {
        let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        Source { seed, keys: Arc::new(keys), tenant: "dev".parse().unwrap() }
    }

    #[test]
    fn the_same_seed_makes_the_same_jobs_and_each_has_a_prompt_of_its_own() {
        let jobs = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..500).map(|number| Submission::new(&source(seed), number, &mut random).prompt).collect::<Vec<_>>()
        };
        assert_eq!(jobs(3), jobs(3));
        assert_ne!(jobs(3), jobs(4));
        let mut prompts = jobs(3);
        prompts.sort();
        prompts.dedup();
        assert_eq!(prompts.len(), 500);
        let special = prompts.iter().filter(|prompt| prompt.contains("[[fault:")).count();
        assert!((20..120).contains(&special), "{special}");
    }

    #[test]
    fn a_second_message_is_of_the_same_job() {
        let source = source(1);
        let submission = Submission::new(&source, 1, &mut StdRng::seed_from_u64(1));
        let job = Job::decode(&submission.second_message(&source.tenant)).unwrap();
        assert_eq!((job.id, job.spec.prompt()), (submission.id, submission.prompt.as_str()));
    }
}
