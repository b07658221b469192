//! `Report`: what a run measured, held against the limits.

use std::fmt;

use serde::Serialize;

/// Peak of a worker's resident memory.
pub(super) const MAX_PEAK_RSS_MIB: f64 = 1024.0;
/// CPU time outside decoding, resizing and encoding, as a share of the time inside.
pub(super) const MAX_OUTSIDE_PERCENT: f64 = 10.0;

/// One run. CPU in milliseconds a job, memory in MiB.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub jobs: u32,
    pub slots: u16,
    pub wall_seconds: f64,
    pub jobs_per_second: f64,
    pub peak_in_flight: u32,
    pub jobs_per_cpu_second: f64,
    pub cpu_total_ms: f64,
    /// On the CPU pool: decode, resize, placeholder, encode.
    pub cpu_inside_ms: f64,
    pub cpu_outside_ms: f64,
    pub outside_percent: f64,
    /// Deliveries in one `DeleteMessageBatch`.
    pub jobs_per_delete: f64,
    pub lease_extensions: u32,
    /// Deliveries in one `ChangeMessageVisibilityBatch`; NaN where there was none.
    pub extensions_per_call: f64,
    pub idle_rss_mib: f64,
    pub peak_rss_mib: f64,
    /// Spans that the collector got; none where traces were off.
    pub spans: Option<usize>,
}

impl Report {
    /// Returns whether both limits are kept.
    pub fn passed(&self) -> bool {
        self.is_lean() && self.is_small()
    }

    fn is_lean(&self) -> bool {
        self.outside_percent <= MAX_OUTSIDE_PERCENT
    }

    fn is_small(&self) -> bool {
        self.peak_rss_mib < MAX_PEAK_RSS_MIB
    }
}

/// The table. It is Markdown as well.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |kept| if kept { "PASS" } else { "FAIL" };
        let lean = format!("<= {MAX_OUTSIDE_PERCENT:.0} % {}", verdict(self.is_lean()));
        let small = format!("< {MAX_PEAK_RSS_MIB:.0} MiB {}", verdict(self.is_small()));
        let rows = [
            ("jobs", self.jobs.to_string(), String::new()),
            ("slots", self.slots.to_string(), String::new()),
            ("spans exported", self.spans.map_or_else(|| "off".to_owned(), |count| count.to_string()), String::new()),
            ("deliveries in flight, peak", self.peak_in_flight.to_string(), String::new()),
            ("wall time", format!("{:.1} s", self.wall_seconds), String::new()),
            ("jobs a second", format!("{:.1}", self.jobs_per_second), String::new()),
            ("jobs a CPU-second", format!("{:.1}", self.jobs_per_cpu_second), String::new()),
            ("CPU a job", format!("{:.1} ms", self.cpu_total_ms), String::new()),
            ("- inside decode/resize/encode", format!("{:.1} ms", self.cpu_inside_ms), String::new()),
            ("- outside", format!("{:.1} ms", self.cpu_outside_ms), String::new()),
            ("outside / inside", format!("{:.1} %", self.outside_percent), lean),
            ("deliveries in one delete", format!("{:.2}", self.jobs_per_delete), String::new()),
            ("lease extensions", self.lease_extensions.to_string(), String::new()),
            ("- in one call", format!("{:.2}", self.extensions_per_call), String::new()),
            ("RSS before the first job", format!("{:.0} MiB", self.idle_rss_mib), String::new()),
            ("RSS, peak", format!("{:.0} MiB", self.peak_rss_mib), small),
        ];
        let mut line = |name: &str, value: &str, limit: &str| writeln!(f, "| {name:<29} | {value:>9} | {limit:<15} |");
        line("worker", "measured", "limit")?;
        line("-----------------------------", "--------:", "---------------")?;
        rows.iter().try_for_each(|(name, value, limit)| line(name, value, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outside_percent: f64, peak_rss_mib: f64) -> Report {
        Report {
            jobs: 600,
            slots: 200,
            wall_seconds: 60.0,
            jobs_per_second: 10.0,
            peak_in_flight: 200,
            jobs_per_cpu_second: 9.1,
            cpu_total_ms: 110.0,
            cpu_inside_ms: 100.0,
            cpu_outside_ms: 10.0,
            outside_percent,
            jobs_per_delete: 1.5,
            lease_extensions: 0,
            extensions_per_call: f64::NAN,
            idle_rss_mib: 20.0,
            peak_rss_mib,
            spans: None,
        }
    }

    #[test]
    fn both_limits_must_be_kept() {
        assert!(report(10.0, 1023.9).passed());
        assert!(!report(10.1, 500.0).passed());
        assert!(!report(5.0, 1024.0).passed());
        assert!(!report(f64::NAN, 500.0).passed());
    }

    #[test]
    fn the_table_says_which_limit_is_broken_and_its_columns_line_up() {
        let table = report(12.34, 812.0).to_string();
        assert!(table.contains("12.3 % | <= 10 % FAIL"), "{table}");
        assert!(table.contains("812 MiB | < 1024 MiB PASS"), "{table}");
        assert!(table.lines().all(|line| line.len() == 63), "{table}");
    }
}
