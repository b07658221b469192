//! `Grafana`: asks the one of the compose file for its dashboard, and a question by its data source.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::dashboard::{TITLE, UID};
use super::{ContainersError, wrong};

/// It provisions after it has begun to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Grafana {
    http: reqwest::Client,
    addr: SocketAddr,
}

impl Grafana {
    pub(super) fn new(addr: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        Self { http: http.expect("a client without TLS has nothing to load"), addr }
    }

    /// Returns the page of the dashboard without Grafana's own menus.
    pub(super) fn page(&self, minutes: u64) -> String {
        format!("http://{}/d/{UID}?kiosk&theme=dark&refresh=&from=now-{minutes}m&to=now", self.addr)
    }

    /// Waits until the dashboard is there with its panels and the data source answers, as anybody without a login.
    pub(super) async fn shows(&self, panels: usize) -> Result<(), ContainersError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let problem = match self.dashboard(panels).await {
                Ok(()) => match self.question().await {
                    Ok(()) => return Ok(()),
                    Err(problem) => problem,
                },
                Err(problem) => problem,
            };
            if Instant::now() >= deadline {
                return Err(wrong("Grafana", problem));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn dashboard(&self, panels: usize) -> Result<(), String> {
        let url = format!("http://{}/api/dashboards/uid/{UID}", self.addr);
        let answer = answer(self.http.get(url)).await?;
        let title = answer.pointer("/dashboard/title").and_then(Value::as_str);
        let shown = answer.pointer("/dashboard/panels").and_then(Value::as_array).map(Vec::len);
        let is_provisioned = answer.pointer("/meta/provisioned") == Some(&Value::Bool(true));
        if title == Some(TITLE) && shown == Some(panels) && is_provisioned {
            return Ok(());
        }
        Err(format!("its dashboard is {title:?} with {shown:?} of {panels} panels, provisioned: {is_provisioned}"))
    }

    async fn question(&self) -> Result<(), String> {
        let query = json!({ "refId": "A", "datasource": { "uid": "prometheus" }, "expr": "up", "instant": true });
        let body = json!({ "queries": [query], "from": "now-5m", "to": "now" });
        let request = self.http.post(format!("http://{}/api/ds/query", self.addr)).json(&body);
        let answer = answer(request).await?;
        let frames = answer.pointer("/results/A/frames").and_then(Value::as_array);
        if frames.is_some_and(|frames| !frames.is_empty()) { Ok(()) } else { Err(format!("up is {answer}")) }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}
