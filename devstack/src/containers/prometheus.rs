//! `Prometheus`: asks the one of the compose file what it scrapes, and what the queries of the dashboard find.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::dashboard::{Query, SCRAPE_SECONDS};
use super::{ContainersError, wrong};

/// DNS is asked every 5 s and a target scraped every 5 s; a rate needs two scrapes.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Prometheus {
    http: reqwest::Client,
    addr: SocketAddr,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    labels: BTreeMap<String, String>,
    health: String,
}

#[derive(Debug, Deserialize)]
struct Matrix {
    result: Vec<Series>,
}

/// One curve.
#[derive(Debug, Deserialize)]
struct Series {
    /// Seconds since the epoch, and the value as text.
    values: Vec<(f64, String)>,
}

impl Series {
    /// Returns the largest value that a panel can draw; None when there is none, as where a quantile is one of nothing.
    fn max(&self) -> Option<f64> {
        let values = self.values.iter().filter_map(|(_, value)| value.parse::<f64>().ok());
        values.filter(|value| value.is_finite()).reduce(f64::max)
    }
}

impl Prometheus {
    pub(super) fn new(addr: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        Self { http: http.expect("a client without TLS has nothing to load"), addr }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until what a job scrapes with success is exactly these addresses.
    pub(super) async fn scrapes(&self, job: &str, addresses: &BTreeSet<String>) -> Result<(), ContainersError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let targets: Targets = self.ask("targets", &[("state", "active")]).await?;
            let found = healthy(targets, job);
            if found == *addresses {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong(
                    format!("what Prometheus scrapes of {job}"),
                    format!("{found:?}, not {addresses:?}"),
                ));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until each query has found something since a moment, and returns the largest value of each.
    ///
    /// # Errors
    /// Names every query that a panel would have nothing to draw of.
    pub(super) async fn finds(
        &self,
        queries: &[Query],
        since: SystemTime,
    ) -> Result<BTreeMap<String, f64>, ContainersError> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = BTreeMap::new();
        loop {
            for query in queries {
                if !found.contains_key(&query.name)
                    && let Some(max) = self.max(&query.promql, since).await?
                {
                    found.insert(query.name.clone(), max);
                }
            }
            let missing: Vec<String> = queries
                .iter()
                .filter(|query| !found.contains_key(&query.name))
                .map(|query| format!("{}: {}", query.name, query.promql))
                .collect();
            if missing.is_empty() {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(wrong("panels without data", format!("\n  {}", missing.join("\n  "))));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn max(&self, promql: &str, since: SystemTime) -> Result<Option<f64>, ContainersError> {
        let of = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64().to_string()
        };
        let (start, end, step) = (of(since), of(SystemTime::now()), SCRAPE_SECONDS.to_string());
        let form = [("query", promql), ("start", start.as_str()), ("end", end.as_str()), ("step", step.as_str())];
        let matrix: Matrix = self.ask("query_range", &form).await?;
        Ok(matrix.result.iter().filter_map(Series::max).reduce(f64::max))
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, form: &[(&str, &str)]) -> Result<T, ContainersError> {
        #[derive(Deserialize)]
        struct Answer<T> {
            data: Option<T>,
            error: Option<String>,
        }
        let failed = |error: reqwest::Error| wrong(format!("Prometheus, {what}"), error);
        let url = format!("{}/api/v1/{what}", self.url());
        // A query is a form, so that its length does not matter; only GET knows the targets.
        let request = if what == "targets" { self.http.get(url) } else { self.http.post(url).form(form) };
        let answer: Answer<T> = request.send().await.map_err(failed)?.json().await.map_err(failed)?;
        let none = || wrong(format!("Prometheus, {what} {form:?}"), answer.error.unwrap_or_default());
        answer.data.ok_or_else(none)
    }
}

/// Returns the addresses that a job has scraped with success.
fn healthy(targets: Targets, job: &str) -> BTreeSet<String> {
    let is_of_job = |target: &Target| target.labels.get("job").is_some_and(|of| of == job) && target.health == "up";
    targets.active_targets.into_iter().filter(is_of_job).filter_map(|mut of| of.labels.remove("instance")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_healthy_targets_of_the_job_count() {
        let targets = r#"{"activeTargets":[
            {"labels":{"job":"worker","instance":"10.0.0.2:9100"},"health":"up"},
            {"labels":{"job":"worker","instance":"10.0.0.3:9100"},"health":"down"},
            {"labels":{"job":"api","instance":"10.0.0.4:9100"},"health":"up"}],"droppedTargets":[]}"#;
        let found = healthy(serde_json::from_str(targets).unwrap(), "worker");
        assert_eq!(found, BTreeSet::from(["10.0.0.2:9100".to_owned()]));
    }

    #[test]
    fn a_quantile_of_nothing_is_no_data_and_zero_is() {
        let series = |json: &str| serde_json::from_str::<Series>(json).unwrap().max();
        assert_eq!(series(r#"{"metric":{},"values":[[1.5,"NaN"],[6.5,"+Inf"]]}"#), None);
        assert_eq!(series(r#"{"metric":{},"values":[[1.5,"NaN"],[6.5,"0"]]}"#), Some(0.0));
        assert_eq!(series(r#"{"metric":{},"values":[[1.5,"0.25"],[6.5,"3"],[11.5,"2"]]}"#), Some(3.0));
    }
}
