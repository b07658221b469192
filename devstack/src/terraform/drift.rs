//! `Gaps`: what a second plan still wants to change because the emulator forgot it, held to a list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

/// A difference: `TYPE.ATTRIBUTE`, or `TYPE (create)` and the like when the whole resource differs.
pub(super) type Difference = String;

/// The known differences of one emulator, each with what the emulator does.
#[derive(Debug)]
pub(super) struct Gaps(BTreeMap<Difference, String>);

/// A list of gaps cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GapsError {
    #[error("{path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("line {line} of {path} gives no reason: write `TYPE.ATTRIBUTE  what the emulator does`")]
    NoReason { path: String, line: usize },
}

/// How a plan compares with the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) known: Vec<Difference>,
    /// Not in the list: a fault of the configuration, or of the list.
    pub(super) unknown: Vec<Difference>,
    /// In the list and not in the plan: the list promises less than there is.
    pub(super) stale: Vec<Difference>,
}

impl Gaps {
    /// Reads a list: `TYPE.ATTRIBUTE  reason` a line; empty lines and lines with `#` are skipped.
    ///
    /// # Errors
    /// When the file is missing, or a line gives no reason.
    pub(super) fn read(path: &Path) -> Result<Self, GapsError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| GapsError::Unreadable { path: shown.clone(), reason: error.to_string() })?;
        Self::parse(&text, &shown)
    }

    fn parse(text: &str, path: &str) -> Result<Self, GapsError> {
        let mut gaps = BTreeMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (difference, reason) = line.split_once("  ").unwrap_or((line, ""));
            if reason.trim().is_empty() {
                return Err(GapsError::NoReason { path: path.to_owned(), line: index + 1 });
            }
            gaps.insert(difference.trim().to_owned(), reason.trim().to_owned());
        }
        Ok(Self(gaps))
    }

    /// Compares with a plan in the form of `terraform show -json`.
    pub(super) fn compare(&self, plan: &Value) -> Compared {
        let found = differences(plan);
        let (known, unknown) = found.iter().cloned().partition(|difference| self.0.contains_key(difference));
        let stale = self.0.keys().filter(|difference| !found.contains(*difference)).cloned().collect();
        Compared { known, unknown, stale }
    }
}

fn differences(plan: &Value) -> BTreeSet<Difference> {
    let changes = plan["resource_changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    changes.iter().flat_map(differences_of).collect()
}

fn differences_of(resource: &Value) -> Vec<Difference> {
    let kind = resource["type"].as_str().unwrap_or("?");
    let change = &resource["change"];
    let actions: Vec<_> = change["actions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match actions[..] {
        ["no-op" | "read"] => vec![],
        ["update"] => {
            let (before, after, unknown) = (&change["before"], &change["after"], &change["after_unknown"]);
            let names = [before, after, unknown].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys());
            let names: BTreeSet<_> = names.collect();
            // Whatever is computed is unknown in an update; it differs only because something else does.
            let computed = |name: &str| unknown[name] == Value::Bool(true);
            let differs = names.into_iter().filter(|&name| !computed(name) && before[name] != after[name]);
            differs.map(|name| format!("{kind}.{name}")).collect()
        }
        _ => vec![format!("{kind} ({})", actions.join(", "))],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Value {
        let change = |actions: &[&str], before: Value, after: Value, unknown: Value| json!({ "actions": actions, "before": before, "after": after, "after_unknown": unknown });
        json!({ "resource_changes": [
            { "type": "aws_vpc", "change": change(&["no-op"], json!({}), json!({}), json!({})) },
            { "type": "aws_lb", "change": change(&["update"], json!({ "a": 1, "b": 2, "arn": "x" }),
                json!({ "a": 1, "b": 3 }), json!({ "arn": true })) },
            { "type": "aws_eip", "change": change(&["delete", "create"], json!({}), json!({}), json!({})) },
        ] })
    }

    #[test]
    fn only_what_the_list_knows_may_differ() {
        let gaps = Gaps::parse("# moto\n\naws_lb.b  forgets it\naws_lb.gone  mended since\n", "moto").unwrap();
        let expected = Compared {
            known: vec!["aws_lb.b".into()],
            unknown: vec!["aws_eip (delete, create)".into()],
            stale: vec!["aws_lb.gone".into()],
        };
        assert_eq!(gaps.compare(&plan()), expected);
    }

    #[test]
    fn a_gap_without_a_reason_is_refused() {
        let error = Gaps::parse("# moto\naws_lb.b\n", "moto.gaps").unwrap_err();
        assert_eq!(error, GapsError::NoReason { path: "moto.gaps".into(), line: 2 });
    }
}
