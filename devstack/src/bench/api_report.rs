//! `ApiReport`: what accepting a job cost on both sides, held against the goal.

use std::fmt;

use serde::Serialize;

/// How many times less CPU a job must cost than with the baseline, where requests come together.
const GOAL: f64 = 20.0;

/// What one of them did under one kind of load, in all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// CPU of the process for an accepted job, round by round, in microseconds.
    pub cpu_us: Vec<f64>,
    /// Latencies in milliseconds, medians over the rounds.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Jobs a second, the mean of the rounds.
    pub jobs_per_second: f64,
    /// Jobs in one call to SQS; none where nobody tells.
    pub jobs_per_call: Option<f64>,
}

/// One kind of load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    pub name: String,
    pub ours: Side,
    pub baseline: Side,
    /// Another image-api, where one was asked for.
    pub beside: Option<Side>,
    /// `SendMessage` by the load generator itself, at the same rate.
    pub direct_p50_ms: Option<f64>,
    pub direct_p99_ms: Option<f64>,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApiReport {
    pub rounds: u32,
    /// What the other image-api is.
    pub beside: Option<&'static str>,
    pub together: Load,
    pub apart: Load,
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX))
}

impl Load {
    /// Returns how many times as much CPU the baseline uses.
    fn times(&self) -> f64 {
        mean(&self.baseline.cpu_us) / mean(&self.ours.cpu_us)
    }
}

impl ApiReport {
    /// Returns whether the goal is met where requests come together.
    pub fn passed(&self) -> bool {
        self.together.times() >= GOAL
    }
}

/// The tables. They are Markdown as well.
impl fmt::Display for ApiReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for load in [&self.together, &self.apart] {
            writeln!(f, "{}, rounds: {}\n", load.name, self.rounds)?;
            let header = [
                "",
                "CPU-us a job",
                "rounds",
                "p50, ms",
                "p99, ms",
                "added p99, ms",
                "jobs a second",
                "jobs in a call",
            ];
            writeln!(f, "| {} |\n|---|{}", header.join(" | "), "---:|".repeat(header.len() - 1))?;
            let name = format!("image-api, {}", self.beside.unwrap_or("another"));
            let beside = load.beside.as_ref().map(|side| (name.as_str(), side));
            for (name, side) in
                [("image-api", &load.ours), ("FastAPI, boto3", &load.baseline)].into_iter().chain(beside)
            {
                let rounds = side.cpu_us.iter().map(|us| format!("{us:.0}")).collect::<Vec<_>>().join(", ");
                let added = load.direct_p99_ms.map_or("-".to_owned(), |direct| format!("{:.2}", side.p99_ms - direct));
                let per_call = side.jobs_per_call.map_or("-".to_owned(), |jobs| format!("{jobs:.2}"));
                writeln!(
                    f,
                    "| {name} | {:.0} | {rounds} | {:.2} | {:.2} | {added} | {:.0} | {per_call} |",
                    mean(&side.cpu_us),
                    side.p50_ms,
                    side.p99_ms,
                    side.jobs_per_second
                )?;
            }
            if let (Some(p50), Some(p99)) = (load.direct_p50_ms, load.direct_p99_ms) {
                writeln!(f, "| SendMessage alone | - | - | {p50:.2} | {p99:.2} | - | - | - |")?;
            }
            writeln!(f, "\n{:.1} times less CPU\n", load.times())?;
        }
        let verdict = if self.passed() { "met" } else { "NOT met" };
        writeln!(f, "Goal of {GOAL:.0} times less CPU where requests come together: {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(baseline_us: f64) -> ApiReport {
        let side = |cpu_us: f64, jobs_per_call| Side {
            cpu_us: vec![cpu_us - 1.0, cpu_us + 1.0],
            p50_ms: 1.0,
            p99_ms: 3.5,
            jobs_per_second: 900.0,
            jobs_per_call,
        };
        let load = |direct_p99_ms| Load {
            name: "64 clients".to_owned(),
            ours: side(60.0, Some(9.5)),
            baseline: side(baseline_us, None),
            beside: Some(side(200.0, Some(1.0))),
            direct_p50_ms: direct_p99_ms,
            direct_p99_ms,
        };
        ApiReport { rounds: 2, beside: Some("the other build"), together: load(None), apart: load(Some(1.25)) }
    }

    #[test]
    fn the_goal_is_a_ratio_and_the_tables_say_whether_it_is_met() {
        assert!(report(1200.0).passed() && !report(1199.0).passed());
        let text = report(1200.0).to_string();
        assert!(text.contains("20.0 times less CPU\n") && text.ends_with("together: met\n"), "{text}");
        assert!(report(1199.0).to_string().ends_with("together: NOT met\n"));
        assert!(text.contains("| image-api | 60 | 59, 61 | 1.00 | 3.50 | 2.25 | 900 | 9.50 |"), "{text}");
        assert!(
            text.contains("| image-api, the other build | 200 | 199, 201 | 1.00 | 3.50 | 2.25 | 900 | 1.00 |"),
            "{text}"
        );
        assert!(text.contains("| SendMessage alone | - | - | 1.25 | 1.25 |"), "{text}");
    }
}
