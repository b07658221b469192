//! The policies of the comparison: backlog per instance as AWS documents it, and CPU.

use std::collections::BTreeMap;
use std::ops::Range;

use super::alarm::{Alarm, Comparison, MetricName, MissingData};
use super::expression::Expression;
use super::outcome::Runs;
use super::plan::ScalingPlan;
use super::policy::{Policy, TargetTracking};
use super::scenario::Scenario;
use super::world::World;

/// Who scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Plan,
    BacklogPerInstance,
    /// The same with `min_size` 1: what is left when somebody has found out why nothing starts.
    BacklogPerInstanceFromOne,
    Cpu,
}

impl Contender {
    pub const ALL: [Self; 4] = [Self::Plan, Self::BacklogPerInstance, Self::BacklogPerInstanceFromOne, Self::Cpu];

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Plan => "terraform/",
            Self::BacklogPerInstance => "backlog per instance",
            Self::BacklogPerInstanceFromOne => "the same, min_size 1",
            Self::Cpu => "CPU at 50 %",
        }
    }

    /// Returns the alarms with what they do. Everything else of the plan is the same for all.
    #[must_use]
    pub fn rules(self, plan: &ScalingPlan) -> Vec<(Alarm, Policy)> {
        match self {
            Self::Plan => {
                (plan.rules.iter()).map(|rule| (rule.alarm.clone(), Policy::Step(rule.policy.clone()))).collect()
            }
            // <https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-using-sqs-queue.html>: m1 / m2, visible messages by
            // instances in service. Its target is the acceptable latency by the time of a job; the plan's is taken, so
            // that both aim at the same.
            Self::BacklogPerInstance | Self::BacklogPerInstanceFromOne => target_tracking(
                plan.limits.worker_backlog_per_instance,
                "visible / inservice",
                &[("visible", MetricName::Visible), ("inservice", MetricName::InService)],
            ),
            // What terraform/scaling.tf has for the API, with metrics every minute.
            Self::Cpu => target_tracking(50.0, "cpu", &[("cpu", MetricName::Cpu)]),
        }
    }

    /// Runs a scenario once for each seed, and calls `ran` after each.
    #[must_use]
    pub fn runs(
        self,
        plan: &ScalingPlan,
        scenario: &Scenario,
        seeds: Range<u64>,
        spot_interruptions_per_hour: f64,
        ran: impl Fn(),
    ) -> Runs {
        let mut plan = plan.clone();
        if self == Self::BacklogPerInstanceFromOne {
            plan.min_size = plan.min_size.max(1);
        }
        let rules = self.rules(&plan);
        let outcomes = seeds.map(|seed| {
            let outcome = World::new(&plan, &rules, scenario, seed, spot_interruptions_per_hour).run();
            ran();
            outcome
        });
        Runs { outcomes: outcomes.collect() }
    }
}

/// The two alarms of a target-tracking policy: see [`TargetTracking`].
fn target_tracking(target: f64, expression: &str, metrics: &[(&str, MetricName)]) -> Vec<(Alarm, Policy)> {
    let alarm = |comparison, threshold, periods| Alarm {
        name: "target tracking".to_owned(),
        metrics: metrics.iter().map(|(id, name)| ((*id).to_owned(), *name)).collect::<BTreeMap<_, _>>(),
        expression: Expression::parse(expression).expect("a constant of this file"),
        comparison,
        threshold,
        evaluation_periods: periods,
        datapoints_to_alarm: periods,
        missing_data: MissingData::Missing,
        actions_enabled: true,
    };
    let policy = |is_out| Policy::Target(TargetTracking { target, is_out });
    vec![
        (alarm(Comparison::Greater, target, 3), policy(true)),
        (alarm(Comparison::Less, 0.9 * target, 15), policy(false)),
    ]
}
