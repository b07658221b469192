//! The load on an API under test: clients that never rest, requests at fixed times, and the queue alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::ApiArgs;
use super::{BenchError, REQUEST_TIMEOUT};
use crate::stack::Stack;

/// Of the length that people write.
const PROMPT: &str = "a watercolour of a lake between wooded hills in the early morning, mist over the water, for a \
                      worksheet about the water cycle, no text";

/// Clients that send the next request when the last is answered.
///
/// # Errors
/// When a request is not answered with 202.
pub(super) async fn together(
    stack: &Stack,
    jobs_url: &str,
    requests: u32,
    clients: u32,
) -> Result<Latencies, BenchError> {
    let left = Arc::new(AtomicU32::new(requests));
    let http = client();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (left, request) = (Arc::clone(&left), submission(&http, stack, jobs_url));
        all.spawn(async move {
            let mut latencies = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                latencies.push(answered(request(), Instant::now()).await?);
            }
            Ok::<_, BenchError>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = all.join_next().await {
        latencies.extend(ended.expect("it does not panic")?);
    }
    Ok(Latencies::new(latencies))
}

/// Requests at fixed times; latency counts from when one was due.
///
/// # Errors
/// When a request is not answered with 202.
pub(super) async fn apart(stack: &Stack, jobs_url: &str, args: &ApiArgs) -> Result<Latencies, BenchError> {
    let http = client();
    let request = submission(&http, stack, jobs_url);
    paced(args, |due| answered(request(), due)).await
}

/// The same jobs by `SendMessage` from here.
///
/// # Errors
/// When SQS refuses one.
pub(super) async fn sent_directly(stack: &Stack, args: &ApiArgs) -> Result<Latencies, BenchError> {
    let sqs = stack.sqs_client();
    let body = json!({ "prompt": PROMPT, "padding": "x".repeat(300) }).to_string();
    paced(args, |due| {
        let call = sqs.send_message().queue_url(stack.queue_url()).message_body(&body).send();
        async move {
            let failed = |reason| BenchError::Http { what: "SQS", reason };
            call.await.map_err(|error| failed(service::detail::causes(&error)))?;
            Ok(due.elapsed())
        }
    })
    .await
}

async fn paced<F>(args: &ApiArgs, send: impl Fn(Instant) -> F) -> Result<Latencies, BenchError>
where
    F: Future<Output = Result<Duration, BenchError>> + Send + 'static,
{
    let began = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..args.rate * args.seconds {
        let due = began + Duration::from_secs(1) * number / args.rate;
        tokio::time::sleep_until(due).await;
        all.spawn(send(due));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = all.join_next().await {
        latencies.push(ended.expect("it does not panic")?);
    }
    Ok(Latencies::new(latencies))
}

fn submission(http: &reqwest::Client, stack: &Stack, jobs_url: &str) -> impl Fn() -> reqwest::RequestBuilder + use<> {
    let body = json!({ "prompt": PROMPT, "seed": 7 });
    let (http, url, key) = (http.clone(), jobs_url.to_owned(), stack.api_key().to_owned());
    move || http.post(&url).bearer_auth(&key).json(&body)
}

async fn answered(request: reqwest::RequestBuilder, since: Instant) -> Result<Duration, BenchError> {
    let failed = |reason| BenchError::Http { what: "the API under test", reason };
    let answer = request.send().await.map_err(|error| failed(error.to_string()))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|error| failed(error.to_string()))?;
    if status != 202 {
        return Err(failed(format!("{status}: {}", String::from_utf8_lossy(&body))));
    }
    Ok(since.elapsed())
}

pub(super) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
    client.expect("a client without TLS has nothing to load")
}

/// Latencies of one round, sorted.
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// Returns how many requests there were.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Returns a quantile in milliseconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a position"
    )]
    pub(super) fn at(&self, quantile: f64) -> f64 {
        let position = (self.0.len() as f64 * quantile).ceil() as usize;
        self.0.get(position.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_latencies() {
        let latencies = Latencies::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((latencies.at(0.5), latencies.at(0.99), latencies.at(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
