//! What a launch template starts an instance with.

use serde_json::Value;
use thiserror::Error;

/// A launch template does not carry what the test needs.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UserDataError {
    #[error("the state has no {0}")]
    Absent(String),
    #[error("the user data of aws_launch_template.{0} is not base64 of text")]
    NotText(String),
    #[error("the user data of aws_launch_template.{service} writes no /etc/image-pipeline/image-{service}.env")]
    NoEnvironment { service: String },
}

/// Returns the attributes of a resource in a state in the form of `terraform show -json`.
///
/// # Errors
/// When it is not in the state.
pub(super) fn resource<'a>(state: &'a Value, kind: &str, name: &str) -> Result<&'a Value, UserDataError> {
    let resources = state["values"]["root_module"]["resources"].as_array().into_iter().flatten();
    resources
        .into_iter()
        .find(|resource| resource["type"] == kind && resource["name"] == name)
        .map(|resource| &resource["values"])
        .ok_or_else(|| UserDataError::Absent(format!("{kind}.{name}")))
}

/// Returns the variables that the launch template of a service (`api`, `worker`) puts into its `EnvironmentFile`.
///
/// # Errors
/// When there is no such template, or it does not write the file.
pub(super) fn environment(state: &Value, service: &str) -> Result<Vec<(String, String)>, UserDataError> {
    let not_text = || UserDataError::NotText(service.to_owned());
    let template = resource(state, "aws_launch_template", service)?;
    let encoded = template["user_data"].as_str().ok_or_else(not_text)?;
    let script = base64_simd::STANDARD.decode_to_vec(encoded).map_err(|_| not_text())?;
    let script = String::from_utf8(script).map_err(|_| not_text())?;
    let start = format!("cat >/etc/image-pipeline/image-{service}.env <<'END_OF_FILE'\n");
    let (file, _) = script
        .split_once(&start)
        .and_then(|(_, rest)| rest.split_once("\nEND_OF_FILE"))
        .ok_or_else(|| UserDataError::NoEnvironment { service: service.to_owned() })?;
    let pairs = file.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_environment_file_is_read_out_of_the_script() {
        let script =
            "x\ncat >/etc/image-pipeline/image-api.env <<'END_OF_FILE'\nA=1\nURL=http://q?b=c\nEND_OF_FILE\ny\n";
        let state = |script: &str| {
            let user_data = base64_simd::STANDARD.encode_to_string(script);
            let values = json!({ "user_data": user_data });
            let template = json!({ "type": "aws_launch_template", "name": "api", "values": values });
            json!({ "values": { "root_module": { "resources": [template] } } })
        };
        let expected = [("A", "1"), ("URL", "http://q?b=c")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment(&state(script), "api").unwrap(), expected);
        assert_eq!(
            environment(&state("nothing"), "api").unwrap_err(),
            UserDataError::NoEnvironment { service: "api".into() }
        );
        assert!(environment(&state(script), "worker").unwrap_err().to_string().contains("aws_launch_template.worker"));
    }
}
