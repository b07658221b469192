//! The scenarios: what arrives, what the model does, and what the policy of the plan promises.

use std::f64::consts::TAU;

use super::outcome::{Outcome, Runs};
use super::plan::ScalingPlan;

/// Which committed plan a scenario runs on, unless the command line names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// The defaults of terraform/: 90 requests a minute.
    Production,
    /// Variables for a million images a day; see docs/scaling.md.
    MillionADay,
}

/// A load over time. Seconds are those of the simulation, from 0.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub plan: PlanKind,
    /// Jobs at once, at a second of the first minute that the seed chooses.
    pub burst: u64,
    /// Mean arrivals in jobs a second, and how far they swing around it in a day, as a share of it.
    pub mean_rate: f64,
    pub swing: f64,
    /// From, to (seconds), and the share of the quota that is left in between.
    pub throttle: Option<(f64, f64, f64)>,
    pub seconds: f64,
    /// Runs with different seeds.
    pub replications: u64,
    pub promises: Promises,
}

/// What breaks the command when the policy of the plan does not keep it.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    pub first_in_service_seconds: Option<f64>,
    /// Age of the oldest job, of every sample.
    pub max_age_seconds: Option<f64>,
    pub must_drain: bool,
    /// Changes of size back within 15 minutes, in one run.
    pub flaps: u32,
    pub ends_at_minimum: bool,
}

/// "Less than five minutes", the target of the pipeline.
pub const FIVE_MINUTES: f64 = 300.0;
const DAY: f64 = 86_400.0;

/// A thousand jobs at once, and no worker.
pub const BURST: Scenario = Scenario {
    name: "burst",
    title: "1,000 jobs at once, from zero workers",
    plan: PlanKind::Production,
    burst: 1000,
    mean_rate: 0.0,
    swing: 0.0,
    throttle: None,
    seconds: 3600.0,
    replications: 100,
    promises: Promises {
        first_in_service_seconds: Some(FIVE_MINUTES),
        max_age_seconds: None,
        must_drain: true,
        flaps: 0,
        ends_at_minimum: true,
    },
};

/// A million images in a day: 11.6 a second on average, 20.8 at noon and 2.3 at midnight.
pub const DAY_CURVE: Scenario = Scenario {
    name: "day",
    title: "1,000,000 images in a day",
    plan: PlanKind::MillionADay,
    burst: 0,
    mean_rate: 1e6 / DAY,
    swing: 0.8,
    throttle: None,
    seconds: DAY,
    replications: 3,
    promises: Promises {
        first_in_service_seconds: None,
        max_age_seconds: Some(FIVE_MINUTES),
        must_drain: false,
        // Arrivals are random: noise may ask for a worker that left a moment ago, once in four hours.
        flaps: 6,
        ends_at_minimum: false,
    },
};

/// One job a second, two thirds of the quota, of which a tenth is left for 20 minutes.
pub const THROTTLED: Scenario = Scenario {
    name: "throttled",
    title: "60 jobs a minute, and a tenth of the model's quota for 20 minutes",
    plan: PlanKind::Production,
    burst: 0,
    mean_rate: 1.0,
    swing: 0.0,
    throttle: Some((1800.0, 3000.0, 0.1)),
    seconds: 10_800.0,
    replications: 20,
    promises: Promises {
        first_in_service_seconds: None,
        max_age_seconds: None,
        must_drain: true,
        flaps: 0,
        ends_at_minimum: false,
    },
};

pub const ALL: [&Scenario; 3] = [&BURST, &DAY_CURVE, &THROTTLED];

impl Scenario {
    /// Mean arrivals at a time, in jobs a second. Midnight is the quietest.
    #[must_use]
    pub fn rate(&self, seconds: f64) -> f64 {
        self.mean_rate * (1.0 - self.swing * (TAU * seconds / DAY).cos())
    }

    /// Share of the model's quota that is there at a time.
    #[must_use]
    pub fn quota_share(&self, seconds: f64) -> f64 {
        let share = self.throttle.filter(|(from, to, _)| *from <= seconds && seconds < *to);
        share.map_or(1.0, |(.., share)| share)
    }

    /// When the time to a drained backlog begins; `None` when nothing is to drain.
    #[must_use]
    pub fn drains_after(&self, burst_at: f64) -> Option<f64> {
        let burst = (self.burst > 0).then_some(burst_at);
        burst.or(self.throttle.map(|(_, to, _)| to))
    }

    /// Workers that are in service when the scenario begins: as many slots as there are calls, by Little's law.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a fleet")]
    pub fn starts_with(&self, plan: &ScalingPlan) -> u32 {
        let calls = self.rate(0.0) * plan.limits.model_seconds_per_call;
        let workers = (calls / plan.limits.worker_slots as f64).ceil() as u32;
        workers.clamp(plan.min_size, plan.max_size)
    }

    /// Returns what the runs break, a sentence each.
    #[must_use]
    pub fn broken(&self, plan: &ScalingPlan, runs: &Runs) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |keeps: bool, sentence: String| {
            if !keeps {
                broken.push(format!("{}: {sentence}", self.name));
            }
        };
        let count = |breaks: &dyn Fn(&Outcome) -> bool| runs.outcomes.iter().filter(|o| breaks(o)).count();
        let of = runs.outcomes.len();
        if let Some(limit) = self.promises.first_in_service_seconds {
            let late = count(&|outcome| outcome.first_in_service_seconds.is_none_or(|seconds| seconds >= limit));
            must(
                late == 0,
                format!("the first scaled instance is in service after {limit:.0} s or never in {late} of {of} runs"),
            );
        }
        if let Some(limit) = self.promises.max_age_seconds {
            let old = count(&|outcome| outcome.age_seconds(1.0) >= limit);
            must(old == 0, format!("the oldest job is {limit:.0} s old or older in {old} of {of} runs"));
        }
        if self.promises.must_drain {
            let left = count(&|outcome| outcome.drained_seconds.is_none());
            must(left == 0, format!("the backlog is not drained in {left} of {of} runs"));
        }
        if self.promises.ends_at_minimum {
            let awake = count(&|outcome| outcome.final_desired != plan.min_size);
            must(awake == 0, format!("the fleet is not back at {} workers in {awake} of {of} runs", plan.min_size));
        }
        let flaps = runs.most(|outcome| outcome.flaps);
        let bound = self.promises.flaps;
        must(flaps <= bound, format!("the size changes back within 15 minutes {flaps} times, and {bound} are allowed"));
        let busy = runs.total(|outcome| outcome.busy_ended);
        must(busy == 0, format!("scale-in ended {busy} workers before their jobs were done"));
        let lost = runs.total(|outcome| outcome.lost);
        must(lost == 0, format!("{lost} jobs were lost"));
        broken
    }
}
