//! The few lines that a run ends with on the terminal.

use super::Report;
use crate::measure::Metric;
use crate::threshold::{Verdict, availability_percent, cache_hit_percent, error_percent};

impl Report {
    /// Returns the result in a few lines of Markdown.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let counts = &self.counts;
        let load = match self.plan.rate {
            Some(rate) => format!("{rate} arrivals a second"),
            None => format!("{} users", self.plan.users),
        };
        putln!(
            text,
            "\n## {}: {load} of {}, {:.0} s, {}\n",
            self.plan.scenario,
            self.plan.kind.as_str(),
            self.plan.duration.as_secs_f64(),
            if self.passed { "passed" } else { "FAILED" }
        );
        putln!(text, "| latency, s                 | samples |    p50 |    p95 |    p99 |    max | p95 as measured |");
        putln!(text, "|----------------------------|--------:|-------:|-------:|-------:|-------:|----------------:|");
        for metric in Metric::ALL {
            let Some(q) = self.latencies.get(&metric) else { continue };
            putln!(
                text,
                "| {:<26} | {:>7} | {:>6.3} | {:>6.3} | {:>6.3} | {:>6.3} | {:>15.3} |",
                metric.title(),
                q.samples,
                q.p50,
                q.p95,
                q.p99,
                q.max,
                q.measured_p95
            );
        }
        let percent = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} %"));
        putln!(
            text,
            "\n{} jobs accepted, {} pictures, {} unfinished, {} duplicates; {} operations, errors {}, availability {}, cache \
             hits {}",
            counts.jobs_accepted,
            counts.pictures,
            counts.jobs_unfinished,
            counts.duplicates,
            counts.operations,
            percent(error_percent(counts)),
            percent(availability_percent(counts)),
            percent(cache_hit_percent(counts)),
        );
        if let Some(off) = self.eta_error_percent {
            putln!(text, "the API's estimates at acceptance were off by {off:.1} % of what the jobs took (median)");
        }
        if !self.errors.is_empty() {
            let errors: Vec<String> = self.errors.iter().map(|(code, times)| format!("{code} {times}")).collect();
            putln!(text, "errors: {}", errors.join(", "));
        }
        putln!(text, "load generator: {}\n", self.generator_sentence());
        for verdict in self.thresholds.iter().filter(|verdict| verdict.applies) {
            let mark = if verdict.passed { "ok    " } else { "FAILED" };
            putln!(text, "{mark}  {}", told(verdict));
        }
        if !self.thresholds.iter().any(|verdict| verdict.applies) {
            putln!(text, "no threshold is for this run: it was held to nothing");
        }
        text
    }

    /// Returns what is known of the load generator's own share.
    #[must_use]
    pub(super) fn generator_sentence(&self) -> String {
        let cpu = match self.generator.cpu_percent {
            Some(percent) => format!("{percent:.1} % of one of {} cores", self.generator.cores),
            None => "CPU unknown".to_owned(),
        };
        match self.generator.late_percent {
            Some(late) => {
                format!("{cpu}; {late:.2} % of {} arrivals late", self.counts.arrivals + self.counts.missed_starts)
            }
            None => cpu,
        }
    }
}

/// Returns a verdict as a sentence.
#[must_use]
pub fn told(verdict: &Verdict) -> String {
    match verdict.measured {
        Some(value) => format!("{}: {} (measured {value:.3})", verdict.name, verdict.bound),
        None => format!("{}: {} (no samples)", verdict.name, verdict.bound),
    }
}
