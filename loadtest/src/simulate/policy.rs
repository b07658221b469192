//! Scaling policies: what an alarm's value makes of the size of the group.

/// What happens when an alarm invokes its policy.
#[derive(Debug, Clone)]
pub enum Policy {
    Step(StepPolicy),
    Target(TargetTracking),
}

/// Step scaling: the interval that the breach lies in gives the adjustment.
#[derive(Debug, Clone)]
pub struct StepPolicy {
    pub adjustment: Adjustment,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    ExactCapacity,
    ChangeInCapacity,
}

/// Bounds are relative to the alarm's threshold.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub lower: f64,
    pub upper: f64,
    pub adjustment: i64,
}

/// One of the two alarms that target tracking makes for itself.
///
/// AWS documents neither the arithmetic nor the alarms. Observed (shared facts, 4.2): three datapoints of three above the
/// target to go out, fifteen of fifteen below nine tenths of it to come in; out in proportion, in "more gradually".
#[derive(Debug, Clone, Copy)]
pub struct TargetTracking {
    pub target: f64,
    pub is_out: bool,
}

/// The group when a policy is invoked.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub desired: u32,
    /// In service and warmed up.
    pub warm: u32,
    /// Whether an instance starts or warms up.
    pub is_warming: bool,
    pub min_size: u32,
    pub max_size: u32,
}

impl Policy {
    /// Returns the new desired capacity, or `None` when the policy leaves it.
    ///
    /// While an instance starts or warms up, a smaller size is ignored: "it blocks scale-in activities until the new
    /// instances have finished warming up",
    /// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-default-instance-warmup.html>.
    #[must_use]
    pub fn desired(&self, value: f64, threshold: f64, capacity: Capacity) -> Option<u32> {
        let wanted = match self {
            Self::Step(policy) => policy.wanted(value - threshold, capacity)?,
            Self::Target(policy) => policy.wanted(value, capacity),
        };
        let bounded = u32::try_from(wanted).unwrap_or(0).clamp(capacity.min_size, capacity.max_size);
        let is_blocked = bounded < capacity.desired && capacity.is_warming;
        (bounded != capacity.desired && !is_blocked).then_some(bounded)
    }
}

impl StepPolicy {
    fn wanted(&self, breach: f64, capacity: Capacity) -> Option<i64> {
        // Above the threshold the lower bound belongs to the interval, below it the upper one.
        let holds = |step: &&Step| {
            if breach >= 0.0 {
                step.lower <= breach && breach < step.upper
            } else {
                step.lower < breach && breach <= step.upper
            }
        };
        let adjustment = self.steps.iter().find(holds)?.adjustment;
        Some(match self.adjustment {
            Adjustment::ExactCapacity => adjustment,
            // What still warms up counts as part of the step that started it.
            Adjustment::ChangeInCapacity if adjustment > 0 => {
                (i64::from(capacity.warm) + adjustment).max(i64::from(capacity.desired))
            }
            Adjustment::ChangeInCapacity => i64::from(capacity.desired) + adjustment,
        })
    }
}

impl TargetTracking {
    #[expect(clippy::cast_possible_truncation, reason = "a size of a fleet, bounded by the caller")]
    fn wanted(self, value: f64, capacity: Capacity) -> i64 {
        let proportional = (f64::from(capacity.warm) * value / self.target).ceil() as i64;
        let desired = i64::from(capacity.desired);
        if self.is_out {
            proportional.max(desired)
        } else {
            // Gradual, an assumption: an action takes a tenth of the fleet and at least one.
            proportional.max(desired - 1 - desired / 10).min(desired)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(desired: u32, is_warming: bool) -> Capacity {
        Capacity { desired, warm: desired, is_warming, min_size: 0, max_size: 3 }
    }

    fn exact() -> Policy {
        let step = |lower, upper, adjustment| Step { lower, upper, adjustment };
        let steps = vec![step(0.0, 0.5, 1), step(0.5, 1.5, 2), step(1.5, f64::INFINITY, 9)];
        Policy::Step(StepPolicy { adjustment: Adjustment::ExactCapacity, steps })
    }

    #[test]
    fn the_step_of_the_breach_sets_the_size_within_the_limits() {
        for (value, expected) in [(1.0, Some(1)), (2.0, Some(2)), (3.0, Some(3)), (50.0, Some(3)), (0.5, None)] {
            assert_eq!(exact().desired(value, 1.0, capacity(0, false)), expected, "{value}");
        }
        assert_eq!(exact().desired(2.0, 1.0, capacity(2, false)), None, "the same size is no change");
    }

    #[test]
    fn a_smaller_size_waits_for_the_warm_up_and_a_larger_one_does_not() {
        assert_eq!(exact().desired(1.0, 1.0, capacity(3, true)), None);
        assert_eq!(exact().desired(1.0, 1.0, capacity(3, false)), Some(1));
        assert_eq!(exact().desired(3.0, 1.0, capacity(1, true)), Some(3));
    }

    #[test]
    fn below_the_threshold_the_upper_bound_belongs_to_the_interval() {
        let steps = vec![Step { lower: f64::NEG_INFINITY, upper: -2.0, adjustment: 1 }];
        let policy = Policy::Step(StepPolicy { adjustment: Adjustment::ExactCapacity, steps });
        assert_eq!(policy.desired(8.0, 10.0, capacity(3, false)), Some(1));
        assert_eq!(policy.desired(9.0, 10.0, capacity(3, false)), None);
    }

    #[test]
    fn a_change_counts_what_still_warms_up() {
        let steps = vec![Step { lower: 0.0, upper: f64::INFINITY, adjustment: 1 }];
        let policy = Policy::Step(StepPolicy { adjustment: Adjustment::ChangeInCapacity, steps });
        let warming = Capacity { warm: 1, ..capacity(2, true) };
        assert_eq!(policy.desired(5.0, 1.0, warming), None, "the one that warms up is the one wanted");
        assert_eq!(policy.desired(5.0, 1.0, capacity(2, false)), Some(3));
    }

    #[test]
    fn target_tracking_goes_out_in_proportion_and_in_gradually() {
        let policy = |is_out| Policy::Target(TargetTracking { target: 20.0, is_out });
        assert_eq!(policy(true).desired(30.0, 20.0, capacity(2, false)), Some(3));
        assert_eq!(policy(false).desired(0.0, 18.0, capacity(3, false)), Some(2));
        assert_eq!(policy(false).desired(0.0, 18.0, capacity(1, false)), Some(0));
    }
}
