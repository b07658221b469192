//! `Limit`: what a rate that failed ran into, from what was seen while it did.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Found, Step};
use crate::measure::Metric;
use crate::report::{Observation, Report};
use crate::threshold::error_percent;

/// Late arrivals beyond this, in percent, are no chance.
const LATE_PERCENT: f64 = 1.0;
/// CPU of the generator beyond this, in percent of one core: its runtime has several, but it shares them.
const GENERATOR_PERCENT: f64 = 60.0;
/// A share of throttled calls beyond this is the model's quota, in percent.
const THROTTLED_PERCENT: f64 = 5.0;
/// A machine that is busier than this has no CPU left, in percent of all cores: the scheduler never gets to 100.
const MACHINE_PERCENT: f64 = 90.0;
/// Slots in use beyond this are all slots, in percent.
const SLOTS_PERCENT: f64 = 95.0;
/// The loaded part of a run: without its begin, while queues fill, and its end, while they empty. Shares of the duration.
const LOADED: std::ops::Range<f64> = 0.3..1.0;

/// A resource that had nothing left, with the numbers that say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// `load generator`, `rate limit of the API`, `quota of the model`, `CPU of this machine`, `slots of the workers`, or
    /// `not seen`.
    pub resource: String,
    pub because: String,
}

/// Averages over the loaded part of a run.
#[derive(Debug, Default)]
struct Means {
    machine: Option<f64>,
    slots: Option<f64>,
    cpu: BTreeMap<String, f64>,
}

/// Names the limit of a run that failed.
#[must_use]
pub fn limit(report: &Report) -> Limit {
    let means = Means::of(report);
    let is = |resource: &str, because: String| Limit { resource: resource.to_owned(), because };
    let late = report.generator.late_percent.unwrap_or_default();
    let own = report.generator.cpu_percent.unwrap_or_default();
    if own > GENERATOR_PERCENT {
        return is("load generator", format!("it used {own:.0} % of one core itself"));
    }
    let refused = report.errors.get("rate_limited").copied().unwrap_or_default();
    if refused > 0 && error_percent(&report.counts).is_some_and(|percent| percent > 1.0) {
        return is("rate limit of the API", format!("{refused} requests refused with rate_limited: JOBS_PER_MINUTE"));
    }
    let (calls, throttled) = (report.model_calls, report.model_throttled);
    if calls > 0.0 && 100.0 * throttled / calls > THROTTLED_PERCENT {
        return is("quota of the model", format!("{throttled:.0} of {calls:.0} calls throttled"));
    }
    // Before the lateness of arrivals: without CPU everybody is late.
    if let Some(machine) = means.machine.filter(|percent| *percent > MACHINE_PERCENT) {
        let (cores, shares) = (report.generator.cores, means.shares(report));
        return is("CPU of this machine", format!("{machine:.0} % of {cores} cores busy: {shares}"));
    }
    // Late because every user waits for its picture is the system's doing; late with free users is not.
    if late > LATE_PERCENT && report.counts.missed_starts == 0 {
        return is("load generator", format!("{late:.1} % of arrivals late on a machine that was not busy"));
    }
    if let Some(slots) = means.slots.filter(|percent| *percent > SLOTS_PERCENT) {
        return is("slots of the workers", format!("{slots:.0} % in use; more workers or WORKER_SLOTS"));
    }
    let seen = |percent: Option<f64>| percent.map_or_else(|| "unknown".to_owned(), |percent| format!("{percent:.0} %"));
    is("not seen", format!("machine {}, slots {}", seen(means.machine), seen(means.slots)))
}

impl Means {
    fn of(report: &Report) -> Self {
        let loaded = |look: &&Observation| LOADED.contains(&(look.at_seconds / report.plan.duration.as_secs_f64()));
        let looks: Vec<&Observation> = report.looks.iter().filter(loaded).collect();
        let mut cpu: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, percent) in looks.iter().flat_map(|look| &look.cpu_percent) {
            cpu.entry(name.clone()).or_default().push(*percent);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few thousand slots at most")]
        let slots =
            |look: &Observation| Some(100.0 * look.slots_busy? as f64 / look.slots_all.filter(|all| *all > 0)? as f64);
        Self {
            machine: mean(looks.iter().filter_map(|look| look.machine_percent)),
            slots: mean(looks.iter().filter_map(|look| slots(look))),
            cpu: cpu.into_iter().filter_map(|(name, all)| Some((name, mean(all)?))).collect(),
        }
    }

    /// Who has the CPU, most first, in % of all cores. What nobody of ours used is somebody else's.
    fn shares(&self, report: &Report) -> String {
        let cores = f64::from(report.generator.cores);
        let mut shares: Vec<(String, f64)> = self.cpu.iter().map(|(name, cpu)| (name.clone(), cpu / cores)).collect();
        let ours: f64 = shares.iter().map(|(_, share)| share).sum();
        shares.push(("others".to_owned(), (self.machine.unwrap_or_default() - ours).max(0.0)));
        shares.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        shares.iter().map(|(name, share)| format!("{name} {share:.0} %")).collect::<Vec<_>>().join(", ")
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

impl Step {
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub(super) fn new(rate: f64, report: &Report) -> Self {
        let p95 = |metric| report.latencies.get(&metric).map(|quantiles| quantiles.p95);
        Self {
            rate,
            pictures_per_second: report.counts.pictures as f64 / report.wall_seconds,
            backlog_growth_percent: report.backlog_growth_percent,
            queue_wait_p95: p95(Metric::QueueWaitSeconds),
            time_to_picture_p95: p95(Metric::TimeToPictureSeconds),
            error_percent: error_percent(&report.counts),
            machine_percent: Means::of(report).machine,
            generator_percent: report.generator.cpu_percent,
            late_percent: report.generator.late_percent,
            passed: report.passed,
            broken: report.broken().map(crate::report::told).collect(),
        }
    }

    /// One row of the table.
    pub(super) fn line(&self) -> String {
        let cell = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        format!(
            "| {:>8.2} | {:>10.2} | {:>11} | {:>17} | {:>20} | {:>6} | {:>9} | {:>11} | {:>6} | {} |",
            self.rate,
            self.pictures_per_second,
            cell(self.backlog_growth_percent, 0),
            cell(self.queue_wait_p95, 2),
            cell(self.time_to_picture_p95, 2),
            cell(self.error_percent, 2),
            cell(self.machine_percent, 0),
            cell(self.generator_percent, 1),
            cell(self.late_percent, 2),
            if self.passed { "passed".to_owned() } else { self.broken.join("; ") }
        )
    }
}

impl Found {
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        putln!(
            text,
            "\n| jobs a s | pictures/s | piling up % | queue wait p95, s | time to picture, p95 | errors | machine % | generator % | late % | result |"
        );
        putln!(
            text,
            "|---------:|-----------:|------------:|------------------:|---------------------:|-------:|----------:|------------:|-------:|--------|"
        );
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|left, right| left.rate.total_cmp(&right.rate));
        steps.into_iter().for_each(|step| {
            putln!(text, "{}", step.line());
        });
        match self.capacity {
            Some(rate) => putln!(text, "\ncapacity: {rate:.2} jobs a second"),
            None => putln!(text, "\ncapacity: below the first step"),
        }
        match (&self.limit, &self.ended_early) {
            (Some(limit), _) => putln!(text, "limit: {}: {}", limit.resource, limit.because),
            (None, Some(reason)) => putln!(text, "limit: not reached: {reason}"),
            (None, None) => putln!(text, "limit: not reached; raise --max"),
        }
        if let (Some(_), Some(reason)) = (&self.limit, &self.ended_early) {
            putln!(text, "the search is not over: {reason}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    fn loaded(machine: f64, busy: u64) -> Report {
        let look = Observation {
            at_seconds: 30.0,
            slots_busy: Some(busy),
            slots_all: Some(32),
            machine_percent: Some(machine),
            cpu_percent: [("worker-1".to_owned(), 120.0), ("api".to_owned(), 10.0)].into(),
            ..Observation::default()
        };
        let idle = Observation { at_seconds: 1.0, machine_percent: Some(0.0), slots_busy: Some(0), ..look.clone() };
        Report { looks: vec![idle, look], ..report() }
    }

    fn resource(report: &Report) -> String {
        limit(report).resource
    }

    #[test]
    fn each_resource_is_named_by_what_it_lacks() {
        let cpu = limit(&loaded(97.0, 32));
        assert_eq!(cpu.resource, "CPU of this machine");
        assert!(cpu.because.contains("worker-1 60 %, others 32 %, api 5 %"), "{}", cpu.because);
        assert_eq!(resource(&loaded(50.0, 32)), "slots of the workers");
        assert_eq!(resource(&loaded(50.0, 10)), "not seen");
        let throttled = Report { model_calls: 100.0, model_throttled: 10.0, ..loaded(50.0, 32) };
        assert_eq!(resource(&throttled), "quota of the model");
        let mut refused = loaded(50.0, 32);
        refused.errors.insert("rate_limited".to_owned(), 20);
        (refused.counts.operations, refused.counts.failed) = (1000, 20);
        assert_eq!(resource(&refused), "rate limit of the API");
    }

    #[test]
    fn the_load_generator_is_the_limit_when_it_has_no_excuse() {
        let mut late = loaded(50.0, 32);
        late.generator.late_percent = Some(2.0);
        assert_eq!(resource(&late), "load generator");
        // Every user waited for a picture: the system was the reason.
        late.counts.missed_starts = 5;
        assert_eq!(resource(&late), "slots of the workers");
        // Nobody had CPU; unless it was the generator that used it up.
        let mut starved = loaded(97.0, 32);
        starved.generator.late_percent = Some(12.0);
        assert_eq!(resource(&starved), "CPU of this machine");
        starved.generator.cpu_percent = Some(80.0);
        assert_eq!(resource(&starved), "load generator");
    }
}
