//! The load generator on what Terraform made: found by its outputs, sent through its distribution, seen by its monitor.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use reqwest::{Client, header};
use serde_json::Value;
use tokio::process::Command;

use super::pipeline::{PipelineError, Site, wrong};
use super::resources;
use super::user_data::resource;
use crate::stack::settings::FOREIGN;
use crate::tls_edge::TlsEdge;

/// Pictures made beforehand included.
const JOBS: u64 = 8;
/// The emulator's distribution caches nothing, so nothing is a hit.
const THRESHOLDS: &str = r#"
[[threshold]]
name = "error rate"
metric = "error_percent"
at_most = 0.0

[[threshold]]
name = "availability"
metric = "availability_percent"
above = 99.9

[[threshold]]
name = "upload to S3"
metric = "upload_seconds"
statistic = "p95"
below = 60.0

[[threshold]]
name = "CDN download"
metric = "cdn_download_seconds"
statistic = "p95"
below = 60.0
"#;

/// Starts the load generator where the configuration was applied.
pub(super) struct Load<'a> {
    pub(super) site: &'a Site<'a>,
    /// Of the report and what else is written.
    folder: PathBuf,
}

impl<'a> Load<'a> {
    pub(super) fn new(site: &'a Site<'a>) -> Self {
        Self { site, folder: site.logs.join("load") }
    }

    /// Sends a few jobs through the distribution, and returns what came of them.
    pub(super) async fn run(&self, http: &Client, api: SocketAddr, key: &str) -> Result<String, PipelineError> {
        let what = "load through the distribution";
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).map_err(wrong(what))?;
        }
        std::fs::create_dir_all(&self.folder).map_err(wrong(what))?;
        self.register(http, api).await?;
        let host = self.output("cloudfront_domain_name")?;
        let edge = TlsEdge::start(host, self.site.endpoint).await.map_err(wrong(what))?;
        let file = |name: &str, text: &str| -> Result<PathBuf, PipelineError> {
            let path = self.folder.join(name);
            std::fs::write(&path, text).map_err(wrong(what))?;
            Ok(path)
        };
        let certificate = file("edge.pem", edge.certificate())?;
        let thresholds = file("thresholds.toml", THRESHOLDS)?;
        let mut command = self.command("run baseline --quick --name report");
        command.arg("--max-jobs").arg(JOBS.to_string()).arg("--resolve").arg(format!("{host}:{}", edge.addr()));
        command.arg("--thresholds").arg(thresholds).arg("--reports").arg(&self.folder);
        command.env("LOADTEST_API_KEY", key).env("SSL_CERT_FILE", certificate);
        done(what, command).await?;

        let report = std::fs::read(self.folder.join("report/report.json")).map_err(wrong(what))?;
        let report: Value = serde_json::from_slice(&report).map_err(wrong(what))?;
        let count = |name: &str| report["counts"][name].as_u64().unwrap_or_default();
        let api = format!("{}/", self.output("cloudfront_url")?);
        let (jobs, pictures) = (count("jobs_accepted"), count("pictures"));
        // What is not written is 0.
        if report["target"] != "deployed"
            || report["api"] != api
            || jobs == 0
            || jobs != pictures
            || count("failed") > 0
        {
            return Err(wrong(what)(format!("{} {} {}", report["target"], report["api"], report["counts"])));
        }
        Ok(format!("{pictures} pictures of {jobs} jobs, {} requests", count("requests")))
    }

    /// Looks once at what was applied. `in_full`: the emulator speaks with the SDK about metrics and alarms too.
    pub(super) async fn monitor(&self, in_full: bool) -> Result<String, PipelineError> {
        let what = "monitor";
        let said = done(what, self.command("monitor --once --json")).await?;
        let look: Value = serde_json::from_str(&said).map_err(wrong(what))?;
        let group = resource(self.site.state, "aws_autoscaling_group", "worker")?;
        if look["queue"]["visible"] != 0 || look["queue"]["dead_letters"] != 0 {
            return Err(wrong(what)(&look));
        }
        if look["group"]["desired"].as_u64() != group["desired_capacity"].as_u64() {
            return Err(wrong(what)(format!("{} is not the group's {}", look["group"], group["desired_capacity"])));
        }
        let gaps: Vec<&str> = look["gaps"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if in_full {
            let seen = names(look["alarms"].as_array().into_iter().flatten().map(|alarm| &alarm["name"]), "");
            let prefix = format!("{}-", self.output("cloudwatch_dashboard_name")?);
            let alarms =
                resources(self.site.state).filter(|resource| resource["type"] == "aws_cloudwatch_metric_alarm");
            let applied = names(alarms.map(|alarm| &alarm["values"]["alarm_name"]), &prefix);
            if seen != applied || applied.is_empty() || !gaps.is_empty() {
                return Err(wrong(what)(format!("alarms {seen:?} instead of {applied:?}; not seen: {gaps:?}")));
            }
        } else if !gaps.iter().all(|gap| gap.contains("metrics:") || gap.contains("alarms:")) {
            return Err(wrong(what)(gaps.join("; ")));
        }
        let alarms = look["alarms"].as_array().map_or(0, Vec::len);
        Ok(format!("queue {}, workers {}, {alarms} alarms", look["queue"]["visible"], look["group"]["desired"]))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.site.binaries.join("loadtest"));
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .args(line.split(' '))
            .arg("--terraform-dir")
            .arg(self.site.folder)
            .env("AWS_ENDPOINT_URL", self.site.endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn output(&self, name: &str) -> Result<&'a str, PipelineError> {
        let value = &self.site.state["values"]["outputs"][name]["value"];
        value.as_str().ok_or_else(|| wrong("output")(format!("{name} is {value}")))
    }

    /// Puts the API behind the load balancer. On AWS its group does, which the emulator leaves out.
    async fn register(&self, http: &Client, api: SocketAddr) -> Result<(), PipelineError> {
        let what = "target group";
        let group = &resource(self.site.state, "aws_lb_target_group", "api")?["arn"];
        let group = group.as_str().ok_or("it has no ARN").map_err(wrong(what))?;
        let (ip, port) = (api.ip().to_string(), api.port().to_string());
        // The emulator looks at the name of the service alone, so no SDK is needed for one request.
        let request = http
            .post(self.site.endpoint)
            .header(header::AUTHORIZATION, "AWS4-HMAC-SHA256 Credential=test/20260101/ap-south-1/elasticloadbalancing/aws4_request, SignedHeaders=host, Signature=0")
            .form(&[
                ("Action", "RegisterTargets"),
                ("Version", "2015-12-01"),
                ("TargetGroupArn", group),
                ("Targets.member.1.Id", &ip),
                ("Targets.member.1.Port", &port),
            ]);
        request.send().await.and_then(reqwest::Response::error_for_status).map_err(wrong(what))?;
        Ok(())
    }
}

fn names<'a>(values: impl Iterator<Item = &'a Value>, prefix: &str) -> BTreeSet<String> {
    values.filter_map(|value| Some(value.as_str()?.strip_prefix(prefix)?.to_owned())).collect()
}

/// Runs a command to its end and returns what it printed.
async fn done(what: &'static str, mut command: Command) -> Result<String, PipelineError> {
    let output = command.output().await.map_err(|source| PipelineError::Start { what: "loadtest", source })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(wrong(what)(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr))))
}
