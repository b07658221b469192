//! `Outputs`: what `terraform output -json` tells of a deployment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// The outputs of terraform/outputs.tf that are used here; others are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Origin of API and pictures, without a slash at its end.
    pub cloudfront_url: String,
    /// Host of the distribution itself.
    pub cloudfront_domain_name: String,
    pub cloudfront_distribution_id: String,
    pub s3_bucket_name: String,
    /// Region of everything but CloudFront's metrics and alarms.
    pub s3_bucket_region: String,
    pub queue_url: String,
    /// Of the second lane, if there is one.
    #[serde(default)]
    pub batch_queue_url: Option<String>,
    pub dead_letter_queue_url: String,
    pub worker_group_name: String,
    pub api_group_name: String,
    /// Also what alarm names begin with (`var.name`).
    pub cloudwatch_dashboard_name: String,
    /// What alarms tell, and those of CloudFront.
    pub sns_topic_arn: String,
    pub sns_topic_arn_us_east_1: String,
}

/// One output as Terraform prints it.
#[derive(Deserialize)]
struct Output {
    value: Value,
}

impl Outputs {
    /// Runs `terraform output -json` in a folder that has been applied.
    ///
    /// # Errors
    /// When Terraform cannot be run or fails, or an output is missing.
    pub fn of_folder(folder: &Path) -> Result<Self, Failure> {
        let what = format!("--terraform-dir {}", folder.display());
        if !folder.is_dir() {
            return Err(Failure::usage(format!(
                "{what}: there is no such folder; name that of an applied configuration"
            )));
        }
        let output =
            Command::new("terraform").args(["output", "-json", "-no-color"]).current_dir(folder).output().map_err(
                |error| {
                    Failure::usage(format!(
                        "{what}: terraform cannot be run ({error}): install it, or give its output with --outputs"
                    ))
                },
            )?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::usage(format!("{what}: terraform output failed: {}", said.trim())));
        }
        Self::parse(&what, &String::from_utf8_lossy(&output.stdout))
    }

    /// Reads what `terraform output -json` has written to a file.
    ///
    /// # Errors
    /// When the file cannot be read, or an output is missing.
    pub fn of_file(path: &Path) -> Result<Self, Failure> {
        let what = format!("--outputs {}", path.display());
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{what} cannot be read: {error}")))?;
        Self::parse(&what, &text)
    }

    fn parse(what: &str, text: &str) -> Result<Self, Failure> {
        let outputs: BTreeMap<String, Output> = serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("{what} is not what `terraform output -json` prints: {error}")))?;
        // An empty text is as good as none.
        let values = outputs.into_iter().map(|(name, output)| (name, output.value)).filter(|(_, value)| *value != "");
        let read: Result<Self, _> = serde_path_to_error::deserialize(Value::Object(values.collect()));
        let mut outputs = read.map_err(|error| {
            Failure::usage(format!("{what}: outputs: {error}; apply terraform/ of this release first"))
        })?;
        outputs.cloudfront_url.truncate(outputs.cloudfront_url.trim_end_matches('/').len());
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every output has its own name as its value.
    fn outputs() -> serde_json::Map<String, Value> {
        let Value::Object(fields) = serde_json::to_value(Outputs::default()).unwrap() else { panic!("an object") };
        let output = |name: String| {
            let output = serde_json::json!({ "sensitive": false, "type": "string", "value": name });
            (name, output)
        };
        fields.into_iter().map(|(name, _)| output(name)).collect()
    }

    fn parse(outputs: serde_json::Map<String, Value>) -> Result<Outputs, String> {
        Outputs::parse("--outputs o.json", &Value::Object(outputs).to_string()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_outputs_that_are_read_are_outputs_of_terraform() {
        let declared = include_str!("../../../terraform/outputs.tf");
        for name in outputs().keys() {
            assert!(declared.contains(&format!("output \"{name}\"")), "{name}");
        }
        let mut all = outputs();
        all.insert("log_group_names".to_owned(), serde_json::json!({ "value": { "image-api": "x" } }));
        all["cloudfront_url"]["value"] = "https://d1.cloudfront.net/".into();
        let read = parse(all).unwrap();
        assert_eq!((read.queue_url.as_str(), read.cloudfront_url.as_str()), ("queue_url", "https://d1.cloudfront.net"));
    }

    #[test]
    fn an_output_that_cannot_be_used_is_named() {
        for name in outputs().keys().filter(|name| *name != "batch_queue_url") {
            let mut missing = outputs();
            missing.remove(name);
            let (mut empty, mut number) = (outputs(), outputs());
            empty[name]["value"] = "".into();
            number[name]["value"] = 7.into();
            for outputs in [missing, empty, number] {
                let error = parse(outputs).unwrap_err();
                assert!(error.contains(name) && error.contains("o.json") && error.contains("apply"), "{error}");
            }
        }
        // A deployment with one lane, and one of a release that knew no other.
        let (mut none, mut unknown) = (outputs(), outputs());
        none["batch_queue_url"]["value"] = Value::Null;
        unknown.remove("batch_queue_url");
        for outputs in [none, unknown] {
            assert_eq!(parse(outputs).unwrap().batch_queue_url, None);
        }
        assert!(Outputs::parse("here", "{}").unwrap_err().to_string().contains("apply"));
        assert!(Outputs::parse("here", "[]").unwrap_err().to_string().contains("terraform output -json"));
    }
}
