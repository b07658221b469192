//! `DeployedWatch`: looks at a deployment through SQS, Auto Scaling and `CloudWatch`.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricStat, ScanBy};
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;

use super::{AlarmLook, CdnLook, GroupLook, Look, QueueLook, RequestsLook};
use crate::target::Outputs;

/// Where `CloudFront` publishes its metrics, whatever the region of everything else.
const CDN_REGION: &str = "us-east-1";
/// Datapoints are looked for this far back: some are published with a delay of minutes.
const LOOK_BACK: Duration = Duration::from_secs(15 * 60);
/// Period of sums, in seconds.
const SUM_PERIOD: i32 = 300;
/// Period of states, in seconds.
const STATE_PERIOD: i32 = 60;
/// Name of the bucket's request metrics in terraform/storage.tf.
const REQUEST_METRICS_FILTER: &str = "all";

/// Looks at a deployment. It needs `sqs:GetQueueAttributes`, `autoscaling:DescribeAutoScalingGroups`,
/// `cloudwatch:GetMetricData` and `cloudwatch:DescribeAlarms`.
#[derive(Debug)]
pub struct DeployedWatch {
    outputs: Outputs,
    sqs: aws_sdk_sqs::Client,
    groups: aws_sdk_autoscaling::Client,
    here: aws_sdk_cloudwatch::Client,
    cdn: aws_sdk_cloudwatch::Client,
}

/// One metric of `CloudWatch`.
struct Wanted {
    id: &'static str,
    namespace: &'static str,
    name: &'static str,
    dimensions: Vec<(&'static str, String)>,
    statistic: &'static str,
    period: i32,
}

impl DeployedWatch {
    /// Makes one with the credentials of the environment. `AWS_ENDPOINT_URL` is followed, as by every AWS tool.
    pub async fn new(outputs: Outputs) -> Self {
        let config = async |region: String| -> SdkConfig {
            aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region)).load().await
        };
        let here = config(outputs.s3_bucket_region.clone()).await;
        let cdn = config(CDN_REGION.to_owned()).await;
        Self {
            outputs,
            sqs: aws_sdk_sqs::Client::new(&here),
            groups: aws_sdk_autoscaling::Client::new(&here),
            here: aws_sdk_cloudwatch::Client::new(&here),
            cdn: aws_sdk_cloudwatch::Client::new(&cdn),
        }
    }

    /// Looks once.
    pub async fn look(&self) -> Look {
        let (mut look, here, cdn, alarms, cdn_alarms) = tokio::join!(
            self.look_at_load(),
            latest(&self.here, self.wanted_here()),
            latest(&self.cdn, self.wanted_of_cdn()),
            self.alarms(&self.here),
            self.alarms_of_cdn(),
        );
        let mut gaps = std::mem::take(&mut look.gaps);
        let here = seen(here, "metrics", &mut gaps).unwrap_or_default();
        let of = |id: &str| here.get(id).copied();
        (look.queue.age_seconds, look.worker_cpu_percent) = (of("age"), of("cpu"));
        look.storage = RequestsLook { requests: of("s3_all"), errors: of("s3_5xx"), refusals: of("s3_4xx") };
        let cdn = seen(cdn, "CloudFront's metrics", &mut gaps).unwrap_or_default();
        look.cdn = CdnLook { requests: cdn.get("requests").copied(), hit_percent: cdn.get("hit_rate").copied() };
        look.alarms = seen(alarms, "alarms", &mut gaps).unwrap_or_default();
        look.alarms.extend(seen(cdn_alarms, "CloudFront's alarms", &mut gaps).unwrap_or_default());
        look.gaps = gaps;
        look
    }

    /// Looks at queues and workers alone.
    pub async fn look_at_load(&self) -> Look {
        let mut look = Look { at: Timestamp::now(), target: "deployed".to_owned(), ..Look::default() };
        let (queue, dead_letters, group) =
            tokio::join!(self.waiting(), self.depth(&self.outputs.dead_letter_queue_url), self.group(),);
        let (visible, in_flight) = seen(queue, "queue", &mut look.gaps).unzip();
        let dead_letters = seen(dead_letters, "dead-letter queue", &mut look.gaps).map(|(visible, _)| visible);
        look.queue = QueueLook { visible, in_flight, dead_letters, age_seconds: None };
        look.group = seen(group, "Auto Scaling group", &mut look.gaps).unwrap_or_default();
        look
    }

    /// Returns the messages of both lanes that are visible and in flight.
    async fn waiting(&self) -> Result<(u64, u64), String> {
        let (mut visible, mut in_flight) = self.depth(&self.outputs.queue_url).await?;
        if let Some(url) = &self.outputs.batch_queue_url {
            let batches = self.depth(url).await?;
            visible += batches.0;
            in_flight += batches.1;
        }
        Ok((visible, in_flight))
    }

    async fn depth(&self, queue_url: &str) -> Result<(u64, u64), String> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let request = self.sqs.get_queue_attributes().queue_url(queue_url);
        let answer = request.attribute_names(Visible).attribute_names(InFlight).send().await;
        let attributes = answer.map_err(|error| said(&error))?.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|text| text.parse().ok()).ok_or("an attribute is missing");
        Ok((number(Visible)?, number(InFlight)?))
    }

    async fn group(&self) -> Result<GroupLook, String> {
        let name = &self.outputs.worker_group_name;
        let request = self.groups.describe_auto_scaling_groups().auto_scaling_group_names(name);
        let answer = request.send().await.map_err(|error| said(&error))?;
        let group = answer.auto_scaling_groups().first().ok_or_else(|| format!("there is no group {name}"))?;
        let serving = || {
            let instances = group.instances().iter();
            instances.filter(|instance| instance.lifecycle_state().is_some_and(|state| state.as_str() == "InService"))
        };
        let healthy = serving().filter(|instance| instance.health_status() == Some("Healthy")).count();
        Ok(GroupLook {
            desired: group.desired_capacity().and_then(|size| u64::try_from(size).ok()),
            in_service: Some(serving().count() as u64),
            healthy: Some(healthy as u64),
        })
    }

    async fn alarms_of_cdn(&self) -> Result<Vec<AlarmLook>, String> {
        // Everything may be there: then they are among those of this region already.
        if self.outputs.s3_bucket_region == CDN_REGION { Ok(Vec::new()) } else { self.alarms(&self.cdn).await }
    }

    async fn alarms(&self, client: &aws_sdk_cloudwatch::Client) -> Result<Vec<AlarmLook>, String> {
        // terraform/ names every alarm `NAME-...`, and the dashboard `NAME`; but so does the deployment `NAME-staging`.
        let prefix = format!("{}-", self.outputs.cloudwatch_dashboard_name);
        let mut pages = client.describe_alarms().alarm_name_prefix(&prefix).into_paginator().send();
        let mut alarms = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| said(&error))?;
            alarms.extend(page.metric_alarms().iter().filter_map(|alarm| {
                let actions = alarm.alarm_actions();
                // One that does nothing is rather shown than missed.
                let is_ours = actions.is_empty() || actions.iter().any(|action| self.is_ours(action));
                let name = alarm.alarm_name().filter(|_| is_ours)?.strip_prefix(&prefix)?.to_owned();
                Some(AlarmLook { name, state: alarm.state_value()?.as_str().to_owned() })
            }));
        }
        Ok(alarms)
    }

    /// Returns whether what an alarm does is done to this deployment: every alarm of terraform/ tells one of its topics, or
    /// scales its workers.
    fn is_ours(&self, action: &str) -> bool {
        let Outputs { sns_topic_arn, sns_topic_arn_us_east_1, worker_group_name, .. } = &self.outputs;
        action == sns_topic_arn
            || action == sns_topic_arn_us_east_1
            || action.contains(&format!(":autoScalingGroupName/{worker_group_name}:"))
    }

    fn wanted_here(&self) -> Vec<Wanted> {
        let queue_name = self.outputs.queue_url.rsplit('/').next().unwrap_or_default().to_owned();
        let s3 = |id, name| Wanted {
            id,
            namespace: "AWS/S3",
            name,
            dimensions: vec![
                ("BucketName", self.outputs.s3_bucket_name.clone()),
                ("FilterId", REQUEST_METRICS_FILTER.to_owned()),
            ],
            statistic: "Sum",
            period: SUM_PERIOD,
        };
        vec![
            Wanted {
                id: "age",
                namespace: "AWS/SQS",
                name: "ApproximateAgeOfOldestMessage",
                dimensions: vec![("QueueName", queue_name)],
                statistic: "Maximum",
                period: STATE_PERIOD,
            },
            Wanted {
                id: "cpu",
                namespace: "AWS/EC2",
                name: "CPUUtilization",
                dimensions: vec![("AutoScalingGroupName", self.outputs.worker_group_name.clone())],
                statistic: "Average",
                period: STATE_PERIOD,
            },
            s3("s3_all", "AllRequests"),
            s3("s3_4xx", "4xxErrors"),
            s3("s3_5xx", "5xxErrors"),
        ]
    }

    fn wanted_of_cdn(&self) -> Vec<Wanted> {
        let distribution = |id, name, statistic| Wanted {
            id,
            namespace: "AWS/CloudFront",
            name,
            dimensions: vec![
                ("Region", "Global".to_owned()),
                ("DistributionId", self.outputs.cloudfront_distribution_id.clone()),
            ],
            statistic,
            period: SUM_PERIOD,
        };
        vec![distribution("requests", "Requests", "Sum"), distribution("hit_rate", "CacheHitRate", "Average")]
    }
}

/// Returns the latest datapoint of each metric that has one.
async fn latest(client: &aws_sdk_cloudwatch::Client, wanted: Vec<Wanted>) -> Result<HashMap<String, f64>, String> {
    let now = Timestamp::now().as_second();
    let from = now - i64::try_from(LOOK_BACK.as_secs()).unwrap_or_default();
    let request = client
        .get_metric_data()
        .start_time(DateTime::from_secs(from))
        .end_time(DateTime::from_secs(now))
        .scan_by(ScanBy::TimestampDescending)
        .set_metric_data_queries(Some(wanted.into_iter().map(query).collect()));
    let answer = request.send().await.map_err(|error| said(&error))?;
    let newest = answer.metric_data_results().iter().filter_map(|result| {
        // Sorted by us as well: not everything that speaks this protocol sorts.
        let points = result.timestamps().iter().zip(result.values());
        let (_, value) = points.max_by_key(|(at, _)| at.secs())?;
        Some((result.id()?.to_owned(), *value))
    });
    Ok(newest.collect())
}

fn query(wanted: Wanted) -> MetricDataQuery {
    let dimensions =
        wanted.dimensions.into_iter().map(|(name, value)| Dimension::builder().name(name).value(value).build());
    let metric = Metric::builder().namespace(wanted.namespace).metric_name(wanted.name);
    let metric = metric.set_dimensions(Some(dimensions.collect())).build();
    let stat = MetricStat::builder().metric(metric).period(wanted.period).stat(wanted.statistic).build();
    MetricDataQuery::builder().id(wanted.id).metric_stat(stat).build()
}

fn seen<T>(answer: Result<T, String>, what: &str, gaps: &mut Vec<String>) -> Option<T> {
    answer.map_err(|reason| gaps.push(format!("{what}: {reason}"))).ok()
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    DisplayErrorContext(error).to_string()
}
