//! `FaultPlan`: faults that come by rate or last until they are cleared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::fault::Fault;
use super::foundation_model::Life;
use super::latency::Latency;

/// Faults that no prompt asked for. This is the JSON of `PUT /_standin/faults`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultPlan {
    /// Share of calls that get each fault, 0.0 ..= 1.0; together at most 1.0.
    pub rates: BTreeMap<Fault, f64>,
    /// Replaces the latency the stand-in was started with.
    pub latency: Option<Latency>,
    /// Every call gets this one until it is cleared.
    pub outage: Option<Fault>,
    /// What the list of models says of every model.
    pub life: Life,
}

/// A plan that cannot be followed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidFaultPlan {
    /// A rate is not a share.
    #[error("rates.{fault} is {rate}: expected a share between 0.0 and 1.0")]
    Rate { fault: Fault, rate: f64 },
    /// The rates are more than all calls.
    #[error("rates add up to {sum}: expected at most 1.0")]
    Sum { sum: f64 },
    /// The latency cannot be drawn from.
    #[error("latency cannot be used: {reason}")]
    Latency { reason: &'static str },
}

impl FaultPlan {
    /// Checks that the plan can be followed.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidFaultPlan> {
        for (&fault, &rate) in &self.rates {
            if !(0.0..=1.0).contains(&rate) {
                return Err(InvalidFaultPlan::Rate { fault, rate });
            }
        }
        let sum: f64 = self.rates.values().sum();
        // Ten times 0.1 is a little more than one.
        if sum > 1.0 + 1e-9 {
            return Err(InvalidFaultPlan::Sum { sum });
        }
        match self.latency.as_ref().and_then(Latency::defect) {
            Some(reason) => Err(InvalidFaultPlan::Latency { reason }),
            None => Ok(()),
        }
    }

    /// Returns the fault of one call; `draw` is uniform in 0.0 .. 1.0.
    pub(crate) fn fault_by_rate(&self, draw: f64) -> Option<Fault> {
        let mut reached = 0.0;
        self.rates.iter().find_map(|(&fault, rate)| {
            reached += rate;
            (draw < reached).then_some(fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> FaultPlan {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rates_divide_the_calls() {
        let plan = plan(r#"{"rates":{"throttle":0.25,"close":0.5}}"#);
        assert_eq!(plan.fault_by_rate(0.0), Some(Fault::Throttle));
        assert_eq!(plan.fault_by_rate(0.26), Some(Fault::Close));
        assert_eq!(plan.fault_by_rate(0.74), Some(Fault::Close));
        assert_eq!(plan.fault_by_rate(0.76), None);
    }

    #[test]
    fn plans_that_cannot_be_followed_are_refused() {
        let why = |json| plan(json).validate().unwrap_err().to_string();
        assert_eq!(why(r#"{"rates":{"close":1.5}}"#), "rates.close is 1.5: expected a share between 0.0 and 1.0");
        assert_eq!(why(r#"{"rates":{"close":0.75,"throttle":0.5}}"#), "rates add up to 1.25: expected at most 1.0");
        assert!(why(r#"{"latency":{"kind":"uniform","min_ms":2,"max_ms":1}}"#).starts_with("latency"));
        assert!(serde_json::from_str::<FaultPlan>(r#"{"outages":null}"#).is_err());
        assert_eq!(plan(r#"{"rates":{"close":1.0},"outage":"retired"}"#).validate(), Ok(()));
    }
}
