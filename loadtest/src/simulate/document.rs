//! `Document`: the output of `terraform show -json`, and what is left of it when only the simulator reads it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::plan::PlanError;

/// A resource with the values that are known.
#[derive(Debug, Deserialize)]
pub struct Resource {
    pub address: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub values: Value,
}

/// A document of `terraform show -json`, of a plan or of a state.
#[derive(Debug)]
pub struct Document {
    root: Value,
    resources: Vec<Resource>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is not there, or no such document.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let fail = |problem: String| PlanError::Read(path.to_owned(), problem);
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Self::parse(serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?)
    }

    /// # Errors
    /// When there are neither `planned_values` nor `values`.
    pub fn parse(root: Value) -> Result<Self, PlanError> {
        let values = root.get("planned_values").or_else(|| root.get("values"));
        let found = values.and_then(|values| values.pointer("/root_module/resources"));
        let found = found.ok_or_else(|| PlanError::Missing("planned_values or values".to_owned()))?;
        let resources = decode("root_module.resources", found)?;
        Ok(Self { root, resources })
    }

    /// Decodes the values of one resource.
    ///
    /// # Errors
    /// When it is missing or has another form.
    pub fn one<T: DeserializeOwned>(&self, address: &str) -> Result<T, PlanError> {
        let found = self.resources.iter().find(|resource| resource.address == address);
        let resource = found.ok_or_else(|| PlanError::Missing(address.to_owned()))?;
        decode(address, &resource.values)
    }

    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| resource.kind == kind)
    }

    /// # Errors
    /// When it is neither given nor in the document.
    pub fn variable(&self, name: &'static str, given: &BTreeMap<String, f64>) -> Result<f64, PlanError> {
        let value = self.root.pointer(&format!("/variables/{name}/value"));
        // Terraform keeps what comes from the command line as text.
        let value =
            value.and_then(|value| value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok())));
        given.get(name).copied().or(value).ok_or(PlanError::Variable(name))
    }

    /// Returns what an alarm's actions refer to: addresses in a plan, where no ARN is known yet, and ARNs in a state.
    #[must_use]
    pub fn actions(&self, alarm: &Resource) -> Vec<String> {
        let of_plan = self.root.pointer("/configuration/root_module/resources").and_then(Value::as_array);
        let configured = of_plan.into_iter().flatten().find(|resource| resource["address"] == alarm.address.as_str());
        let references = configured.and_then(|resource| resource.pointer("/expressions/alarm_actions/references"));
        let references = references.and_then(Value::as_array).into_iter().flatten();
        let references = references.filter_map(Value::as_str).map(str::to_owned);
        let arns = alarm.values["alarm_actions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        references.chain(arns.map(str::to_owned)).collect()
    }

    /// Returns the document with nothing in it but what [`super::plan::ScalingPlan::of`] reads.
    #[must_use]
    pub fn reduced(&self) -> Value {
        const VARIABLES: [&str; 7] = [
            "worker_slots",
            "worker_backlog_per_instance",
            "picture_within_seconds",
            "worker_shutdown_grace_seconds",
            "model_requests_per_minute",
            "model_seconds_per_call",
            "queue_max_receive_count",
        ];
        let keep = |value: &Value, keys: &[&str]| -> Value {
            let known = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(*key)?.clone())));
            Value::Object(known.collect::<Map<_, _>>())
        };
        let keys_of = |resource: &Resource| -> Option<&[&str]> {
            Some(match resource.kind.as_str() {
                "aws_autoscaling_group" if resource.address.ends_with(".worker") => &[
                    "name",
                    "min_size",
                    "max_size",
                    "default_instance_warmup",
                    "capacity_rebalance",
                    "enabled_metrics",
                    "mixed_instances_policy",
                ],
                "aws_autoscaling_lifecycle_hook" => {
                    &["autoscaling_group_name", "lifecycle_transition", "heartbeat_timeout"]
                }
                "aws_sqs_queue" if resource.address.ends_with(".jobs") => &["name", "visibility_timeout_seconds"],
                "aws_autoscaling_policy" => {
                    &["arn", "autoscaling_group_name", "policy_type", "adjustment_type", "step_adjustment"]
                }
                "aws_cloudwatch_metric_alarm" if self.invokes_a_policy(resource) => &[
                    "comparison_operator",
                    "threshold",
                    "evaluation_periods",
                    "datapoints_to_alarm",
                    "treat_missing_data",
                    "actions_enabled",
                    "alarm_actions",
                    "metric_query",
                ],
                _ => return None,
            })
        };
        let resources: Vec<Value> = self
            .resources
            .iter()
            .filter_map(|resource| {
                let values = keep(&resource.values, keys_of(resource)?);
                Some(json!({ "address": resource.address, "type": resource.kind, "values": values }))
            })
            .collect();
        let configured: Vec<Value> = (self.all("aws_cloudwatch_metric_alarm"))
            .filter(|resource| self.invokes_a_policy(resource))
            .filter_map(|resource| {
                let configured = self.root.pointer("/configuration/root_module/resources")?.as_array()?;
                let configured =
                    configured.iter().find(|configured| configured["address"] == resource.address.as_str())?;
                let expressions = keep(&configured["expressions"], &["alarm_actions"]);
                Some(json!({ "address": resource.address, "expressions": expressions }))
            })
            .collect();
        let of_what = if self.root.get("planned_values").is_some() { "planned_values" } else { "values" };
        let mut reduced = keep(&self.root, &["format_version", "terraform_version"]);
        reduced["variables"] = self.root.get("variables").map_or(json!({}), |variables| keep(variables, &VARIABLES));
        reduced[of_what] = json!({ "root_module": { "resources": resources } });
        reduced["configuration"] = json!({ "root_module": { "resources": configured } });
        reduced
    }

    fn invokes_a_policy(&self, resource: &Resource) -> bool {
        let actions = self.actions(resource);
        actions.iter().any(|action| action.contains("aws_autoscaling_policy.") || action.contains(":scalingPolicy:"))
    }
}

/// # Errors
/// Names the resource and the field that has another form.
pub fn decode<T: DeserializeOwned>(address: &str, value: &Value) -> Result<T, PlanError> {
    serde_path_to_error::deserialize(value).map_err(|error| PlanError::Field {
        address: address.to_owned(),
        problem: format!("{}: {}; the simulator reads provider 5.100's form", error.path(), error.inner()),
    })
}
