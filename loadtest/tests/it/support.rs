//! The committed plans, and changes to them.

use std::collections::BTreeMap;

use loadtest::simulate::baseline::Contender;
use loadtest::simulate::committed;
use loadtest::simulate::document::Document;
use loadtest::simulate::outcome::Runs;
use loadtest::simulate::plan::{PlanError, ScalingPlan};
use loadtest::simulate::scenario::{PlanKind, Scenario};
use serde_json::Value;

/// Interruptions an hour: none, so that what a test sees is the scaling.
const SPOT: f64 = 0.0;

pub(crate) const NEEDED: &str = "aws_cloudwatch_metric_alarm.workers_needed";
pub(crate) const SURPLUS: &str = "aws_cloudwatch_metric_alarm.workers_surplus";
pub(crate) const IDLE: &str = "aws_cloudwatch_metric_alarm.queue_idle";

/// A plan as JSON.
pub(crate) struct Changed(pub(crate) Value);

impl Changed {
    pub(crate) fn committed(kind: PlanKind) -> Self {
        Self(serde_json::from_str(&std::fs::read_to_string(committed(kind)).unwrap()).unwrap())
    }

    pub(crate) fn resources(&mut self) -> &mut Vec<Value> {
        self.0["planned_values"]["root_module"]["resources"].as_array_mut().unwrap()
    }

    pub(crate) fn values(&mut self, address: &str) -> &mut Value {
        let found = self.resources().iter_mut().find(|resource| resource["address"] == address);
        &mut found.unwrap_or_else(|| panic!("no {address}"))["values"]
    }

    pub(crate) fn expression(&mut self, alarm: &str, text: &str) {
        let queries = self.values(alarm)["metric_query"].as_array_mut().unwrap();
        queries.iter_mut().find(|query| query["return_data"] == true).unwrap()["expression"] = text.into();
    }

    pub(crate) fn periods(&mut self, alarm: &str, periods: u32) {
        self.values(alarm)["evaluation_periods"] = periods.into();
        self.values(alarm)["datapoints_to_alarm"] = periods.into();
    }

    pub(crate) fn remove(&mut self, address: &str) {
        self.resources().retain(|resource| resource["address"] != address);
    }

    pub(crate) fn read(&self) -> Result<ScalingPlan, PlanError> {
        ScalingPlan::of(&Document::parse(self.0.clone())?, &BTreeMap::new())
    }
}

pub(crate) fn run(plan: &ScalingPlan, contender: Contender, scenario: &Scenario, runs: u64) -> Runs {
    contender.runs(plan, scenario, 1..1 + runs, SPOT, || {})
}

/// Returns what the policy of the plan breaks.
pub(crate) fn broken(plan: &Changed, scenario: &Scenario, runs: u64) -> String {
    let plan = plan.read().unwrap();
    scenario.broken(&plan, &run(&plan, Contender::Plan, scenario, runs)).join("\n")
}
