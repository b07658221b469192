//! A load on the containers that moves every panel of the dashboard: waves of jobs, and of what goes wrong with them.

use std::f64::consts::TAU;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::KEY;
use super::{ContainersError, wrong};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Jobs a second at the foot of a wave and at its crest: less than what a laptop does, or the waves would be a wall.
const RATE: (f64, f64) = (0.3, 1.6);
/// Two and a half waves in five minutes.
const WAVE: Duration = Duration::from_secs(120);
/// Share of jobs that meet a fault of the model, are refused by it, are withdrawn, are sent twice, are not valid.
const FAULT: f64 = 0.08;
const REFUSED: f64 = 0.05;
const CANCELED: f64 = 0.05;
const REPEATED: f64 = 0.06;
const INVALID: f64 = 0.05;

/// Makes the load for a time, and waits for what it has begun. Returns how many jobs were accepted.
pub(super) async fn run(api: SocketAddr, duration: Duration) -> Result<usize, ContainersError> {
    let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
    let http = http.expect("a client without TLS has nothing to load");
    let mut random = SmallRng::seed_from_u64(4);
    let started = Instant::now();
    let mut jobs = JoinSet::new();
    while started.elapsed() < duration {
        let job = Job::any(&mut random, jobs.len());
        jobs.spawn(job.follow(http.clone(), format!("http://{api}/v1/jobs")));
        let pause = 1.0 / rate(started.elapsed());
        tokio::time::sleep(Duration::from_secs_f64(pause * random.random_range(0.3..1.7))).await;
    }
    let accepted = jobs.join_all().await.into_iter().filter(|accepted| *accepted).count();
    if accepted == 0 { Err(wrong("the load", "the API accepted no job of it")) } else { Ok(accepted) }
}

/// Jobs a second at a moment of the wave.
fn rate(since_start: Duration) -> f64 {
    let (low, high) = RATE;
    let phase = TAU * since_start.as_secs_f64() / WAVE.as_secs_f64();
    low + (high - low) * (1.0 - phase.cos()) / 2.0
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Job {
    prompt: String,
    key: Option<String>,
    is_canceled: bool,
    is_repeated: bool,
}

impl Job {
    fn any(random: &mut SmallRng, number: usize) -> Self {
        let subject = ["a lighthouse", "a harbour", "a forest", "a storm", "a village"][number % 5];
        let fault = if random.random_bool(FAULT) {
            ["[[fault:throttle*1 retry_after_ms=800]]", "[[fault:unavailable*1]]", "[[fault:inference_error*1]]"]
                [number % 3]
        } else if random.random_bool(REFUSED) {
            "[[fault:refuse_prompt]]"
        } else {
            ""
        };
        let prompt = format!("{subject} at dawn, number {number} {fault}");
        let is_repeated = random.random_bool(REPEATED);
        Self {
            prompt: if random.random_bool(INVALID) { String::new() } else { prompt },
            key: is_repeated.then(|| format!("load-{number}")),
            is_canceled: random.random_bool(CANCELED),
            is_repeated,
        }
    }

    /// Does what its caller does, to the end. Returns whether it was accepted: a refusal is a part of the load.
    async fn follow(self, http: reqwest::Client, jobs: String) -> bool {
        let Some(id) = self.submit(&http, &jobs).await else { return false };
        let url = format!("{jobs}/{id}");
        if self.is_canceled {
            let cancel = http.post(format!("{url}/cancel")).bearer_auth(KEY);
            if let Err(error) = cancel.send().await {
                tracing::debug!(%error, "not canceled");
            }
        }
        // One caller waits, another one looks from time to time.
        loop {
            let held = http.get(&url).bearer_auth(KEY).header("prefer", "wait=5").send();
            let at_once = http.get(&url).bearer_auth(KEY).send();
            for answer in join_all([held, at_once]).await {
                let view: Option<Value> = match answer {
                    Ok(answer) if answer.status().is_success() => answer.json().await.ok(),
                    _ => None,
                };
                let Some(view) = view else { return true };
                if view["finished_at"].is_string() {
                    if self.is_repeated {
                        self.submit(&http, &jobs).await;
                    }
                    return true;
                }
            }
        }
    }

    async fn submit(&self, http: &reqwest::Client, jobs: &str) -> Option<String> {
        let mut request = http.post(jobs).bearer_auth(KEY).json(&json!({ "prompt": self.prompt }));
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        let accepted: Value = request.send().await.ok()?.error_for_status().ok()?.json().await.ok()?;
        Some(accepted["id"].as_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_goes_up_and_down_within_its_bounds() {
        let at = |seconds| rate(Duration::from_secs(seconds));
        assert!((at(0) - RATE.0).abs() < 1e-9 && (at(60) - RATE.1).abs() < 1e-9 && (at(120) - RATE.0).abs() < 1e-9);
        assert!((0..240).all(|seconds| at(seconds) >= RATE.0 - 1e-9 && at(seconds) <= RATE.1 + 1e-9));
    }

    #[test]
    fn every_kind_of_job_is_among_a_few_hundred() {
        let mut random = SmallRng::seed_from_u64(4);
        let jobs: Vec<Job> = (0..600).map(|number| Job::any(&mut random, number)).collect();
        let has = |holds: fn(&Job) -> bool| jobs.iter().any(holds);
        assert!(has(|job| job.prompt.is_empty()) && has(|job| job.is_canceled) && has(|job| job.is_repeated));
        for fault in ["throttle", "unavailable", "inference_error", "refuse_prompt"] {
            assert!(jobs.iter().any(|job| job.prompt.contains(fault)), "{fault}");
        }
        assert!(jobs.iter().all(|job| job.is_repeated == job.key.is_some()));
    }
}
