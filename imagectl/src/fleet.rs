//! The port to the workers as seen from outside, and its adapters: an Auto Scaling group, and a local stack's admin ports.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::Dimension;
use jiff::Timestamp;
use serde::Serialize;
use service::health::{self, Unhealthy};
use service::{aws, detail};

/// What can be seen of the workers from outside. What could not be asked is among the gaps, and fails nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FleetLook {
    /// Instances that the group is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<u64>,
    /// Age of the oldest message of the job queue, in seconds: `CloudWatch` alone knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_message_seconds: Option<f64>,
    pub members: Vec<Member>,
    /// What could not be asked, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// An instance or a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    pub name: String,
    /// `InService`, `Terminating:Wait` and the like of a group; `ready`, `not_ready` or `silent` of a process.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The workers.
#[async_trait]
pub trait Fleet: Send + Sync {
    async fn look(&self) -> FleetLook;
}

/// Nobody said where the workers are.
#[derive(Debug, Clone, Copy)]
pub struct NoFleet;

#[async_trait]
impl Fleet for NoFleet {
    async fn look(&self) -> FleetLook {
        let gap = "instances and the age of the oldest message: give --autoscaling-group-name, or use --dev-dir";
        FleetLook { gaps: vec![gap.to_owned()], ..FleetLook::default() }
    }
}

/// The API and the workers of a local stack.
#[derive(Debug, Clone)]
pub struct LocalFleet {
    admin_urls: Vec<String>,
}

impl LocalFleet {
    /// Takes the origins of the admin ports: the API's, then the workers'.
    pub fn new(admin_urls: Vec<String>) -> Self {
        Self { admin_urls }
    }
}

#[async_trait]
impl Fleet for LocalFleet {
    async fn look(&self) -> FleetLook {
        let asked = self.admin_urls.iter().enumerate().map(|(index, origin)| async move {
            let name = if index == 0 { "api".to_owned() } else { format!("worker-{index}") };
            let member = |state: &str, detail| Member { name, state: state.to_owned(), detail };
            let Ok(url) = format!("{origin}/ready").parse::<http::Uri>() else {
                return member("silent", Some(format!("{origin} is no URL")));
            };
            match health::ask(&url).await {
                Ok(_) => member("ready", Some(origin.clone())),
                Err(Unhealthy::Refused { said, .. }) => member("not_ready", Some(said)),
                Err(error @ Unhealthy::Silent { .. }) => member("silent", Some(error.to_string())),
            }
        });
        let members = futures::future::join_all(asked).await;
        let gaps = vec!["the age of the oldest message: CloudWatch alone knows it".to_owned()];
        FleetLook { members, gaps, ..FleetLook::default() }
    }
}

/// An Auto Scaling group, and the queue's metrics. Needs `autoscaling:DescribeAutoScalingGroups` and
/// `cloudwatch:GetMetricStatistics`.
#[derive(Debug, Clone)]
pub struct AwsFleet {
    groups: aws_sdk_autoscaling::Client,
    metrics: aws_sdk_cloudwatch::Client,
    group: String,
    queue_name: String,
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(25);
/// Datapoints are looked for this far back: some are published with a delay of minutes.
const LOOK_BACK_SECONDS: i64 = 15 * 60;
/// The period of what SQS publishes.
const PERIOD_SECONDS: i32 = 60;

impl AwsFleet {
    pub fn new(config: &SdkConfig, group: String, queue_url: &str) -> Self {
        let timeouts = aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT);
        let groups = aws_sdk_autoscaling::config::Builder::from(config).timeout_config(timeouts.clone()).build();
        let metrics = aws_sdk_cloudwatch::config::Builder::from(config).timeout_config(timeouts).build();
        Self {
            groups: aws_sdk_autoscaling::Client::from_conf(groups),
            metrics: aws_sdk_cloudwatch::Client::from_conf(metrics),
            group,
            queue_name: queue_url.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }

    async fn members(&self) -> Result<(Option<u64>, Vec<Member>), String> {
        let request = self.groups.describe_auto_scaling_groups().auto_scaling_group_names(&self.group);
        let answer = request.send().await.map_err(|error| detail::causes(&error))?;
        let group = answer.auto_scaling_groups().first().ok_or_else(|| format!("there is no group {}", self.group))?;
        let members = group.instances().iter().map(|instance| Member {
            name: instance.instance_id().unwrap_or("?").to_owned(),
            state: instance.lifecycle_state().map_or("?", |state| state.as_str()).to_owned(),
            detail: instance.health_status().map(str::to_owned),
        });
        Ok((group.desired_capacity().and_then(|size| u64::try_from(size).ok()), members.collect()))
    }

    async fn oldest_message_seconds(&self) -> Result<Option<f64>, String> {
        let now = Timestamp::now().as_second();
        let answer = self
            .metrics
            .get_metric_statistics()
            .namespace("AWS/SQS")
            .metric_name("ApproximateAgeOfOldestMessage")
            .dimensions(Dimension::builder().name("QueueName").value(&self.queue_name).build())
            .start_time(DateTime::from_secs(now - LOOK_BACK_SECONDS))
            .end_time(DateTime::from_secs(now))
            .period(PERIOD_SECONDS)
            .statistics(aws_sdk_cloudwatch::types::Statistic::Maximum)
            .send()
            .await
            .map_err(|error| detail::causes(&error))?;
        let newest = answer.datapoints().iter().max_by_key(|point| point.timestamp().map(|at| at.secs()));
        Ok(newest.and_then(|point| point.maximum()))
    }
}

#[async_trait]
impl Fleet for AwsFleet {
    async fn look(&self) -> FleetLook {
        let (members, age) = tokio::join!(self.members(), self.oldest_message_seconds());
        let mut gaps = Vec::new();
        let mut seen = |what: &str, reason: String| gaps.push(format!("{what}: {reason}"));
        let (desired, members) = members.unwrap_or_else(|reason| {
            seen("instances", reason);
            (None, Vec::new())
        });
        let oldest_message_seconds = age.unwrap_or_else(|reason| {
            seen("the age of the oldest message", reason);
            None
        });
        FleetLook { desired, oldest_message_seconds, members, gaps }
    }
}
