//! `LocalWatch`: looks at the local stack through its admin ports, its SQS, its stand-ins and `/proc`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::proc::{self, CpuMeter};
use super::{AlarmLook, CdnLook, GroupLook, Look, ModelLook, QueueLook, RequestsLook, exposition};
use crate::target::LocalSite;

/// `WORKER_SLOTS` where the variable is not set (docs/operations.md).
const DEFAULT_SLOTS: u64 = 16;

/// An admin port answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at the stack of `cargo dev up`.
#[derive(Debug)]
pub struct LocalWatch {
    site: LocalSite,
    http: Client,
    sqs: aws_sdk_sqs::Client,
    meter: CpuMeter,
    pids: HashMap<String, u32>,
    before: Option<Counters>,
    /// What each worker had counted when it last answered, by the URL of its admin port.
    workers: HashMap<String, Counters>,
}

/// Counters that only say something as a difference.
#[derive(Debug, Clone, Default)]
struct Counters {
    waits: f64,
    waited_seconds: f64,
    writes: f64,
    write_errors: f64,
    calls: f64,
    throttled: f64,
    cdn: CdnStats,
}

/// What the CDN's stand-in counts.
#[derive(Debug, Clone, Default, Deserialize)]
struct CdnStats {
    hits: f64,
    refresh_hits: f64,
    misses: f64,
    errors: f64,
}

#[derive(Deserialize)]
struct Ledger {
    by_prompt: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    paid: u64,
    paid_unanswered: u64,
}

impl Counters {
    /// Adds what a worker has counted.
    fn add(&mut self, worker: Option<&Self>) {
        let Some(worker) = worker else { return };
        self.waits += worker.waits;
        self.waited_seconds += worker.waited_seconds;
        self.writes += worker.writes;
        self.write_errors += worker.write_errors;
        self.calls += worker.calls;
        self.throttled += worker.throttled;
    }
}

impl LocalWatch {
    /// Makes one for a running stack.
    #[must_use]
    pub fn new(site: LocalSite, http: Client) -> Self {
        // The stack's SQS checks no signature; a developer's own account must not be involved.
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(Credentials::new("local", "local-secret", None, None, "the local stack"))
            .endpoint_url(&site.sqs_url)
            .build();
        let sqs = aws_sdk_sqs::Client::from_conf(config);
        Self {
            site,
            http,
            sqs,
            meter: CpuMeter::default(),
            pids: HashMap::new(),
            before: None,
            workers: HashMap::new(),
        }
    }

    /// Looks once.
    pub async fn look(&mut self) -> Look {
        let mut look = Look { at: Timestamp::now(), target: "local".to_owned(), ..Look::default() };
        self.queues(&mut look).await;
        let mut counters = Counters::default();
        self.processes(&mut look, &mut counters).await;
        match self.get::<CdnStats>(&format!("{}/_standin/stats", self.site.cdn_url)).await {
            Ok(stats) => counters.cdn = stats,
            Err(reason) => look.gaps.push(format!("CDN: {reason}")),
        }
        if let Some(before) = &self.before {
            difference(before, &counters, &mut look);
        }
        self.before = Some(counters);
        self.cpu(&mut look);
        look
    }

    /// Returns the calls that the model's stand-in was paid for, by prompt.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn paid_by_prompt(&self) -> Result<HashMap<String, u64>, String> {
        // Without that patience: after a long run it is long.
        let url = format!("{}/_standin/ledger", self.site.bedrock_url);
        let answer = async { self.http.get(url).send().await?.error_for_status()?.json::<Ledger>().await };
        let ledger = answer.await.map_err(|error: reqwest::Error| error.to_string())?;
        let paid = |(prompt, entry): (String, Entry)| (prompt, entry.paid + entry.paid_unanswered);
        Ok(ledger.by_prompt.into_iter().map(paid).collect())
    }

    async fn queues(&self, look: &mut Look) {
        // Both lanes are what workers have to do.
        let depth = async {
            let (mut visible, mut in_flight) = self.depth(&self.site.queue_url).await?;
            if let Some(url) = &self.site.batch_queue_url {
                let batches = self.depth(url).await?;
                visible += batches.0;
                in_flight += batches.1;
            }
            Ok::<_, String>((visible, in_flight))
        };
        match depth.await {
            Ok((visible, in_flight)) => {
                look.queue = QueueLook { visible: Some(visible), in_flight: Some(in_flight), ..QueueLook::default() };
            }
            Err(reason) => look.gaps.push(format!("queue: {reason}")),
        }
        match self.depth(&self.site.dead_letter_url).await {
            Ok((visible, _)) => {
                look.queue.dead_letters = Some(visible);
                look.alarms.push(alarm("dead-letter-queue-not-empty", visible > 0));
            }
            Err(reason) => look.gaps.push(format!("dead-letter queue: {reason}")),
        }
    }

    /// Returns the messages that are visible and in flight.
    async fn depth(&self, queue_url: &str) -> Result<(u64, u64), String> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let request = self.sqs.get_queue_attributes().queue_url(queue_url);
        let answer = request.attribute_names(Visible).attribute_names(InFlight).send().await;
        let answer = answer.map_err(|error| DisplayErrorContext(error).to_string())?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|text| text.parse().ok()).ok_or("an attribute is missing");
        Ok((number(Visible)?, number(InFlight)?))
    }

    async fn processes(&mut self, look: &mut Look, counters: &mut Counters) {
        let (mut alive, mut ready, mut busy, mut circuits) = (0, 0, 0.0, 0.0);
        let (api, workers) =
            self.site.admin_urls.split_first().map_or((None, &[][..]), |(api, rest)| (Some(api), rest));
        for (url, name) in workers.iter().zip(1..) {
            let text = match self.text(&format!("{url}/metrics")).await {
                Ok(text) => text,
                Err(reason) => {
                    look.gaps.push(format!("worker {name}: {reason}"));
                    // As it was: what it has counted is not gone, and would come back as if it had just happened.
                    counters.add(self.workers.get(url));
                    continue;
                }
            };
            alive += 1;
            ready += u64::from(self.is_ready(url).await);
            let sum = |name, labels: &[&str]| exposition::sum(&text, name, labels);
            busy += sum("worker_deliveries_in_flight", &[]);
            circuits += sum("worker_circuit_open", &[]);
            let counted = Counters {
                waits: sum("worker_queue_wait_seconds_count", &[]),
                waited_seconds: sum("worker_queue_wait_seconds_sum", &[]),
                writes: sum("worker_step_duration_seconds_count", &["step=\"publish\""])
                    + sum("worker_step_duration_seconds_count", &["step=\"checkpoint\""]),
                write_errors: sum("worker_errors_total", &["kind=\"store_unavailable\""]),
                calls: sum("worker_model_calls_total", &[]),
                throttled: sum("worker_model_calls_total", &["result=\"throttled\""]),
                cdn: CdnStats::default(),
            };
            counters.add(Some(&counted));
            self.workers.insert(url.clone(), counted);
        }
        let workers = workers.len() as u64;
        look.group = GroupLook { desired: Some(workers), in_service: Some(alive), healthy: Some(ready) };
        look.slots.busy = (alive > 0).then_some(whole(busy));
        // Nobody there to ask is no good news.
        let circuit = (alive > 0).then_some(circuits > 0.0);
        look.alarms.push(circuit.map_or_else(|| unknown("circuit-open"), |open| alarm("circuit-open", open)));
        look.alarms.push(alarm("workers-not-ready", ready < workers));
        if let Some(url) = api {
            look.alarms.push(alarm("api-not-ready", !self.is_ready(url).await));
        }
    }

    fn cpu(&mut self, look: &mut Look) {
        let port = |url: &str| Url::parse(url).ok().and_then(|url| url.port());
        let mut named = vec![("stand-ins".to_owned(), port(&self.site.cdn_url))];
        for (index, url) in self.site.admin_urls.iter().enumerate() {
            named.push((if index == 0 { "api".to_owned() } else { format!("worker-{index}") }, port(url)));
        }
        let mut processes = vec![("loadtest".to_owned(), std::process::id())];
        for (name, port) in named {
            // A restarted process has another id, and its old one is gone.
            let known = self.pids.get(&name).copied().filter(|pid| proc::is_alive(*pid));
            if let Some(pid) = known.or_else(|| proc::pid_of_port(port?)) {
                self.pids.insert(name.clone(), pid);
                processes.push((name, pid));
            }
        }
        let is_worker = |name: &str| name.starts_with("worker-");
        let slots = processes.iter().filter(|(name, _)| is_worker(name)).map(|(_, pid)| {
            proc::variable(*pid, "WORKER_SLOTS").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SLOTS)
        });
        look.slots.all = Some(slots.sum());
        look.processes = self.meter.look(&processes);
        look.machine = self.meter.machine();
        let workers: Vec<f64> = look
            .processes
            .iter()
            .filter(|process| is_worker(&process.name))
            .map(|process| process.cpu_percent)
            .collect();
        look.worker_cpu_percent = (!workers.is_empty()).then(|| workers.iter().sum());
    }

    async fn is_ready(&self, admin_url: &str) -> bool {
        self.text(&format!("{admin_url}/ready")).await.is_ok()
    }

    async fn text(&self, url: &str) -> Result<String, String> {
        // A process that hangs must not keep the others waiting.
        let answer = async { self.http.get(url).timeout(PATIENCE).send().await?.error_for_status()?.text().await };
        answer.await.map_err(|error: reqwest::Error| error.to_string())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        serde_json::from_str(&self.text(url).await?).map_err(|error| error.to_string())
    }
}

fn difference(before: &Counters, now: &Counters, look: &mut Look) {
    // A process that was started again counts from 0.
    let since = |of: fn(&Counters) -> f64| (of(now) - of(before)).max(0.0);
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    look.queue.age_seconds = ratio(since(|counters| counters.waited_seconds), since(|counters| counters.waits));
    let (requests, errors) = (since(|counters| counters.writes), since(|counters| counters.write_errors));
    look.storage = RequestsLook { requests: Some(requests), errors: Some(errors), refusals: None };
    look.model = ModelLook {
        calls: Some(since(|counters| counters.calls)),
        throttled: Some(since(|counters| counters.throttled)),
    };
    let hits = since(|counters| counters.cdn.hits + counters.cdn.refresh_hits);
    let requests = hits + since(|counters| counters.cdn.misses + counters.cdn.errors);
    look.cdn = CdnLook { requests: Some(requests), hit_percent: ratio(100.0 * hits, requests) };
}

fn alarm(name: &str, on: bool) -> AlarmLook {
    AlarmLook { name: name.to_owned(), state: if on { "ALARM" } else { "OK" }.to_owned() }
}

/// An alarm that nobody can tell of, in the word of `CloudWatch`.
fn unknown(name: &str) -> AlarmLook {
    AlarmLook { name: name.to_owned(), state: "INSUFFICIENT_DATA".to_owned() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a gauge of at most some thousand slots")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_as_differences_and_a_restart_is_no_negative_one() {
        let cdn = |hits, misses| CdnStats { hits, misses, ..CdnStats::default() };
        let before =
            Counters { waits: 10.0, waited_seconds: 5.0, writes: 100.0, cdn: cdn(10.0, 10.0), ..Counters::default() };
        let now =
            Counters { waits: 14.0, waited_seconds: 7.0, writes: 3.0, cdn: cdn(40.0, 20.0), ..Counters::default() };
        let mut look = Look::default();
        difference(&before, &now, &mut look);
        assert_eq!(look.queue.age_seconds, Some(0.5));
        assert_eq!(look.storage.requests, Some(0.0));
        assert_eq!(look.cdn, CdnLook { requests: Some(40.0), hit_percent: Some(75.0) });
        difference(&now, &now, &mut look);
        assert_eq!((look.queue.age_seconds, look.cdn.hit_percent), (None, None));
    }
}
