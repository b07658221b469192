//! `ScalingPlan`: group, hook, alarms, policies and limits, as `terraform show -json` says them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::alarm::{Alarm, Comparison, MetricName, MissingData};
use super::document::{Document, decode};
use super::expression::{Expression, ExpressionError};
use super::policy::{Adjustment, Step, StepPolicy};

/// What terraform/scaling.tf takes where neither a backlog nor a promise is set.
const BACKLOG_WITHOUT_A_PROMISE: f64 = 20.0;

/// What the simulator knows of the infrastructure.
#[derive(Debug, Clone)]
pub struct ScalingPlan {
    pub min_size: u32,
    pub max_size: u32,
    /// Seconds after the start of service during which a worker counts as warming up.
    pub warmup_seconds: f64,
    /// Replaces a Spot worker at its notice instead of at its end.
    pub capacity_rebalance: bool,
    pub on_demand_base: u32,
    /// Share of On-Demand above the base, in percent.
    pub on_demand_percentage: u32,
    /// Longest wait for a worker that drains, in seconds; `None` without a termination hook.
    pub heartbeat_seconds: Option<f64>,
    /// Seconds until a delivery of a dead worker can be received again: at most this.
    pub visibility_timeout_seconds: f64,
    pub rules: Vec<ScalingRule>,
    pub limits: Limits,
}

/// An alarm and the step policy that it invokes.
#[derive(Debug, Clone)]
pub struct ScalingRule {
    pub alarm: Alarm,
    pub policy: StepPolicy,
}

/// Variables of the plan that bound the work, by their names in `terraform/variables_pipeline.tf`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub worker_slots: usize,
    pub worker_backlog_per_instance: f64,
    pub worker_shutdown_grace_seconds: f64,
    pub model_requests_per_minute: f64,
    pub model_seconds_per_call: f64,
    pub queue_max_receive_count: u32,
}

/// Why a plan cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}: {1}; make one with loadtest/plans/plan, or `terraform show -json PLANFILE > FILE`")]
    Read(PathBuf, String),
    #[error(
        "no {0} in the plan: give the whole output of `terraform show -json` for terraform/, or name the file of another plan"
    )]
    Missing(String),
    #[error("{address}: {problem}")]
    Field { address: String, problem: String },
    #[error("{address}: metric_query {id:?}: {problem}")]
    Expression { address: String, id: String, problem: ExpressionError },
    #[error(
        "variable {0} is not in the plan; a state has no variables: give the output of `terraform show -json PLANFILE` instead, or --variable {0}=NUMBER"
    )]
    Variable(&'static str),
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    min_size: u32,
    max_size: u32,
    default_instance_warmup: Option<f64>,
    #[serde(default)]
    capacity_rebalance: Option<bool>,
    enabled_metrics: Option<Vec<String>>,
    #[serde(default)]
    mixed_instances_policy: Vec<MixedInstances>,
}

#[derive(Debug, Deserialize)]
struct MixedInstances {
    #[serde(default)]
    instances_distribution: Vec<Distribution>,
}

#[derive(Debug, Deserialize)]
struct Distribution {
    on_demand_base_capacity: u32,
    on_demand_percentage_above_base_capacity: u32,
}

#[derive(Debug, Deserialize)]
struct Hook {
    autoscaling_group_name: String,
    lifecycle_transition: String,
    heartbeat_timeout: f64,
}

#[derive(Debug, Deserialize)]
struct Queue {
    name: String,
    visibility_timeout_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct PolicyValues {
    arn: Option<String>,
    autoscaling_group_name: String,
    policy_type: String,
    adjustment_type: Option<String>,
    #[serde(default)]
    step_adjustment: Vec<StepValues>,
}

#[derive(Debug, Deserialize)]
struct StepValues {
    // Strings, because an absent bound is "".
    metric_interval_lower_bound: Option<String>,
    metric_interval_upper_bound: Option<String>,
    scaling_adjustment: i64,
}

#[derive(Debug, Deserialize)]
struct AlarmValues {
    comparison_operator: Comparison,
    threshold: f64,
    evaluation_periods: usize,
    datapoints_to_alarm: Option<usize>,
    treat_missing_data: MissingData,
    actions_enabled: Option<bool>,
    metric_query: Vec<QueryValues>,
}

#[derive(Debug, Deserialize)]
struct QueryValues {
    id: String,
    expression: Option<String>,
    return_data: Option<bool>,
    #[serde(default)]
    metric: Vec<MetricValues>,
}

#[derive(Debug, Deserialize)]
struct MetricValues {
    metric_name: String,
    period: u32,
    dimensions: BTreeMap<String, String>,
}

impl ScalingPlan {
    /// Extracts what is simulated. `given` variables take precedence over those of the document.
    ///
    /// # Errors
    /// Names the resource or field that is missing or that the simulator does not know, and what to do.
    pub fn of(document: &Document, given: &BTreeMap<String, f64>) -> Result<Self, PlanError> {
        const GROUP: &str = "aws_autoscaling_group.worker";
        let group: Group = document.one(GROUP)?;
        let queue: Queue = document.one("aws_sqs_queue.jobs")?;
        let distribution = group.mixed_instances_policy.iter().flat_map(|policy| &policy.instances_distribution).next();
        let mut heartbeat_seconds = None;
        for resource in document.all("aws_autoscaling_lifecycle_hook") {
            let hook: Hook = decode(&resource.address, &resource.values)?;
            if hook.autoscaling_group_name == group.name && hook.lifecycle_transition.ends_with("_TERMINATING") {
                heartbeat_seconds = Some(hook.heartbeat_timeout);
            }
        }
        let warmup_seconds = group.default_instance_warmup.ok_or_else(|| PlanError::Field {
            address: GROUP.to_owned(),
            problem: "default_instance_warmup is not set: set it, even to 0, so that it is known how long steps downwards are ignored".to_owned(),
        })?;
        Ok(Self {
            min_size: group.min_size,
            max_size: group.max_size,
            warmup_seconds,
            capacity_rebalance: group.capacity_rebalance == Some(true),
            on_demand_base: distribution.map_or(u32::MAX, |distribution| distribution.on_demand_base_capacity),
            on_demand_percentage: distribution.map_or(100, |values| values.on_demand_percentage_above_base_capacity),
            heartbeat_seconds,
            visibility_timeout_seconds: queue.visibility_timeout_seconds,
            rules: rules(document, &group, &queue)?,
            limits: Limits {
                worker_slots: whole(document.variable("worker_slots", given)?),
                worker_backlog_per_instance: backlog_per_instance(document, given)?,
                worker_shutdown_grace_seconds: document.variable("worker_shutdown_grace_seconds", given)?,
                model_requests_per_minute: document.variable("model_requests_per_minute", given)?,
                model_seconds_per_call: document.variable("model_seconds_per_call", given)?,
                queue_max_receive_count: u32::try_from(whole(document.variable("queue_max_receive_count", given)?))
                    .unwrap_or(u32::MAX),
            },
        })
    }
}

/// Returns what is set, or what terraform/scaling.tf makes of the promise: the jobs that one worker does within it.
fn backlog_per_instance(document: &Document, given: &BTreeMap<String, f64>) -> Result<f64, PlanError> {
    if let Ok(set) = document.variable("worker_backlog_per_instance", given) {
        return Ok(set);
    }
    let Ok(within_seconds) = document.variable("picture_within_seconds", given) else {
        return Ok(BACKLOG_WITHOUT_A_PROMISE);
    };
    let slots = document.variable("worker_slots", given)?;
    let jobs = within_seconds * slots / document.variable("model_seconds_per_call", given)?;
    Ok(jobs.floor().max(slots))
}

/// Returns the alarms that invoke a step policy of the group.
fn rules(document: &Document, group: &Group, queue: &Queue) -> Result<Vec<ScalingRule>, PlanError> {
    let mut policies = Vec::new();
    for resource in document.all("aws_autoscaling_policy") {
        let values: PolicyValues = decode(&resource.address, &resource.values)?;
        if values.autoscaling_group_name == group.name {
            policies.push((resource.address.clone(), values));
        }
    }
    let mut rules = Vec::new();
    for resource in document.all("aws_cloudwatch_metric_alarm") {
        let actions = document.actions(resource);
        let invokes = |(policy, known): &&(String, PolicyValues)| {
            actions.iter().any(|action| action == policy || known.arn.as_ref() == Some(action))
        };
        for (policy, known) in policies.iter().filter(invokes) {
            let address = &resource.address;
            let values: AlarmValues = decode(address, &resource.values)?;
            let alarm = alarm(address, &values, group, queue)?;
            rules.push(ScalingRule { alarm, policy: step_policy(policy, known)? });
        }
    }
    if rules.is_empty() {
        return Err(PlanError::Missing(format!(
            "aws_cloudwatch_metric_alarm that invokes an aws_autoscaling_policy of {:?}",
            group.name
        )));
    }
    Ok(rules)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "settings are small and not negative")]
fn whole(value: f64) -> usize {
    value as usize
}

fn alarm(address: &str, values: &AlarmValues, group: &Group, queue: &Queue) -> Result<Alarm, PlanError> {
    let fail = |problem: String| PlanError::Field { address: address.to_owned(), problem };
    let mut metrics = BTreeMap::new();
    let mut returned = None;
    for query in &values.metric_query {
        if let Some(metric) = query.metric.first() {
            let name = MetricName::parse(&metric.metric_name).map_err(fail)?;
            if metric.period != 60 {
                return Err(fail(format!(
                    "metric_query {:?}: period is {} and must be 60, as SQS and the group publish",
                    query.id, metric.period
                )));
            }
            let expected =
                if name.is_of_queue() { ("QueueName", &queue.name) } else { ("AutoScalingGroupName", &group.name) };
            if metric.dimensions.get(expected.0) != Some(expected.1) {
                return Err(fail(format!(
                    "metric_query {:?}: dimension {} must be {:?}",
                    query.id, expected.0, expected.1
                )));
            }
            let enabled = group.enabled_metrics.as_ref();
            if !name.is_of_queue() && enabled.is_none_or(|enabled| !enabled.contains(&metric.metric_name)) {
                return Err(fail(format!(
                    "metric_query {:?}: {} is not in enabled_metrics of the group, which then does not publish it: add it",
                    query.id, metric.metric_name
                )));
            }
            metrics.insert(query.id.clone(), name);
        }
        if query.return_data == Some(true) {
            let text = query.expression.as_deref().filter(|text| !text.is_empty()).unwrap_or(&query.id);
            let parsed = Expression::parse(text).map_err(|problem| PlanError::Expression {
                address: address.to_owned(),
                id: query.id.clone(),
                problem,
            })?;
            if returned.replace(parsed).is_some() {
                return Err(fail("two metric_query have return_data = true: leave one".to_owned()));
            }
        }
    }
    let expression =
        returned.ok_or_else(|| fail("no metric_query has return_data = true: set it on one".to_owned()))?;
    if let Some(unknown) = expression.ids().into_iter().find(|id| !metrics.contains_key(*id)) {
        return Err(fail(format!(
            "the expression refers to {unknown:?}, which is no metric_query with a metric: correct the id, or write the expression out"
        )));
    }
    Ok(Alarm {
        name: address.to_owned(),
        metrics,
        expression,
        comparison: values.comparison_operator,
        threshold: values.threshold,
        evaluation_periods: values.evaluation_periods,
        datapoints_to_alarm: values.datapoints_to_alarm.filter(|n| *n > 0).unwrap_or(values.evaluation_periods),
        missing_data: values.treat_missing_data,
        actions_enabled: values.actions_enabled != Some(false),
    })
}

fn step_policy(address: &str, values: &PolicyValues) -> Result<StepPolicy, PlanError> {
    let fail = |problem: String| PlanError::Field { address: address.to_owned(), problem };
    if values.policy_type != "StepScaling" {
        return Err(fail(format!(
            "policy_type is {:?}, and the simulator reads StepScaling: target tracking is simulated as the comparison only",
            values.policy_type
        )));
    }
    let adjustment = match values.adjustment_type.as_deref() {
        Some("ExactCapacity") => Adjustment::ExactCapacity,
        Some("ChangeInCapacity") => Adjustment::ChangeInCapacity,
        other => {
            return Err(fail(format!("adjustment_type is {other:?}, and must be ExactCapacity or ChangeInCapacity")));
        }
    };
    let bound = |text: &Option<String>, absent: f64| match text.as_deref() {
        None | Some("") => Ok(absent),
        Some(text) => text.parse().map_err(|_| fail(format!("step_adjustment: {text:?} is no number"))),
    };
    let steps = values.step_adjustment.iter().map(|step| {
        Ok(Step {
            lower: bound(&step.metric_interval_lower_bound, f64::NEG_INFINITY)?,
            upper: bound(&step.metric_interval_upper_bound, f64::INFINITY)?,
            adjustment: step.scaling_adjustment,
        })
    });
    Ok(StepPolicy { adjustment, steps: steps.collect::<Result<_, PlanError>>()? })
}
