//! `Dashboard`: the queries of the dashboard that Grafana is given, as Grafana would send them.

use std::path::Path;

use serde::Deserialize;

use super::{ContainersError, unusable, wrong};

pub(super) const UID: &str = "image-pipeline";
pub(super) const TITLE: &str = "Image pipeline";
const FILE: &str = "observability/grafana/dashboards/pipeline.json";
/// `timeInterval` of the data source, which is the scrape interval of observability/prometheus.yml. In seconds.
pub(super) const SCRAPE_SECONDS: u64 = 5;

#[derive(Debug, Deserialize)]
pub(super) struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
struct Panel {
    title: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    expr: String,
}

/// One query, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// The panel and the letter of the query in it, for a message.
    pub(super) name: String,
    pub(super) promql: String,
}

impl Query {
    /// Returns whether only the process of the compose file's profile `webhooks` has the metric. Nothing here starts it.
    pub(super) fn is_of_webhooks(&self) -> bool {
        self.promql.contains("webhook_")
    }
}

impl Dashboard {
    pub(super) fn read(workspace: &Path) -> Result<Self, ContainersError> {
        let path = workspace.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(unusable(&path))?;
        serde_json::from_str(&text).map_err(|error| wrong(FILE, error))
    }

    pub(super) fn panels(&self) -> usize {
        self.panels.len()
    }

    /// Returns every query at a step.
    ///
    /// # Errors
    /// Names a query with a variable that only Grafana knows.
    pub(super) fn queries(&self, step_seconds: u64) -> Result<Vec<Query>, ContainersError> {
        let interval = format!("{}s", rate_interval_seconds(step_seconds));
        let mut queries = Vec::new();
        for panel in &self.panels {
            for target in &panel.targets {
                let name = format!("{} ({})", panel.title, target.ref_id);
                let promql = target.expr.replace("$__rate_interval", &interval);
                if promql.contains('$') {
                    return Err(wrong(name, format!("a variable is left in {promql}: teach this test to replace it")));
                }
                queries.push(Query { name, promql });
            }
        }
        Ok(queries)
    }
}

/// What Grafana puts in place of `$__rate_interval`: long enough for a rate to have two samples when one scrape failed.
fn rate_interval_seconds(step_seconds: u64) -> u64 {
    (step_seconds + SCRAPE_SECONDS).max(4 * SCRAPE_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_rate_is_the_one_that_grafana_takes() {
        assert_eq!((rate_interval_seconds(5), rate_interval_seconds(15), rate_interval_seconds(60)), (20, 20, 65));
    }

    #[test]
    fn every_query_of_the_dashboard_is_read_and_an_unknown_variable_is_named() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dashboard = Dashboard::read(workspace).unwrap();
        let queries = dashboard.queries(5).unwrap();
        assert!(queries.len() >= dashboard.panels() && dashboard.panels() > 20, "{} queries", queries.len());
        let first = &queries[0];
        assert_eq!(
            (first.name.as_str(), first.promql.as_str()),
            ("Workers that answer (A)", r#"sum(up{job="worker"})"#)
        );
        assert!(queries.iter().any(|query| query.promql.contains("[20s]")));
        let unknown = r#"{"panels":[{"title":"T","targets":[{"refId":"A","expr":"up{instance=\"$instance\"}"}]}]}"#;
        let unknown: Dashboard = serde_json::from_str(unknown).unwrap();
        assert!(unknown.queries(5).unwrap_err().to_string().contains("T (A)"));
    }

    #[test]
    fn the_data_source_and_the_scrapes_have_the_interval() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| std::fs::read_to_string(workspace.join("observability").join(path)).unwrap();
        let source = read("grafana/provisioning/datasources/prometheus.yml");
        assert!(source.contains(&format!("timeInterval: {SCRAPE_SECONDS}s\n")));
        assert!(read("prometheus.yml").contains(&format!("scrape_interval: {SCRAPE_SECONDS}s\n")));
    }
}
