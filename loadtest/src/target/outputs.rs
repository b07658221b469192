//! `Outputs`: what `terraform output -json` tells of a deployment.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;

/// The outputs of terraform/outputs.tf that are used here; others are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub dead_letter_queue_url: String,
    pub worker_group_name: String,
    pub api_group_name: String,
    /// Also what alarm names begin with (`var.name`).
    pub cloudwatch_dashboard_name: String,
}

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
        let output = Command::new("terraform")
            .args(["output", "-json", "-no-color"])
            .current_dir(folder)
            .output()
            .map_err(|error| Failure::usage(format!("{what}: terraform cannot be run there ({error})")))?;
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
        let outputs: std::collections::BTreeMap<String, Output> = serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("{what} is not what `terraform output -json` prints: {error}")))?;
        let text = |name: &str| {
            let value = outputs.get(name).and_then(|output| output.value.as_str()).filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| {
                Failure::usage(format!("{what}: the output {name} is missing: apply terraform/ of this release first"))
            })
        };
        Ok(Self {
            cloudfront_url: text("cloudfront_url")?.trim_end_matches('/').to_owned(),
            cloudfront_domain_name: text("cloudfront_domain_name")?,
            cloudfront_distribution_id: text("cloudfront_distribution_id")?,
            s3_bucket_name: text("s3_bucket_name")?,
            s3_bucket_region: text("s3_bucket_region")?,
            queue_url: text("queue_url")?,
            dead_letter_queue_url: text("dead_letter_queue_url")?,
            worker_group_name: text("worker_group_name")?,
            api_group_name: text("api_group_name")?,
            cloudwatch_dashboard_name: text("cloudwatch_dashboard_name")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 10] = [
        "cloudfront_url",
        "cloudfront_domain_name",
        "cloudfront_distribution_id",
        "s3_bucket_name",
        "s3_bucket_region",
        "queue_url",
        "dead_letter_queue_url",
        "worker_group_name",
        "api_group_name",
        "cloudwatch_dashboard_name",
    ];

    fn json(names: &[&str]) -> String {
        let outputs: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| {
                ((*name).to_owned(), serde_json::json!({ "sensitive": false, "type": "string", "value": name }))
            })
            .collect();
        Value::Object(outputs).to_string()
    }

    #[test]
    fn the_outputs_that_are_read_are_outputs_of_terraform() {
        let declared = include_str!("../../../terraform/outputs.tf");
        for name in NAMES {
            assert!(declared.contains(&format!("output \"{name}\"")), "{name}");
        }
        assert_eq!(Outputs::parse("here", &json(&NAMES)).unwrap().queue_url, "queue_url");
    }

    #[test]
    fn a_missing_output_is_named() {
        for (index, name) in NAMES.iter().enumerate() {
            let mut names = NAMES.to_vec();
            names.remove(index);
            let error = Outputs::parse("--outputs o.json", &json(&names)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("o.json"), "{error}");
        }
        assert!(Outputs::parse("here", "{}").unwrap_err().to_string().contains("apply"));
        assert!(Outputs::parse("here", "[]").unwrap_err().to_string().contains("terraform output -json"));
    }
}
