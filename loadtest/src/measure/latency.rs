//! `Latency`: the histograms of one metric, as it was measured and as it is judged, and their `Quantiles`.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Timing;

/// Longest latency that is told apart, in microseconds: an hour. A longer one counts as this.
const MAX_MICROS: u64 = 3_600_000_000;
/// Significant digits of totals: a quantile is off by a thousandth at most.
const DIGITS: u8 = 3;
/// Of pieces of time, of which there are many: a hundredth, and a tenth of the memory.
const COARSE_DIGITS: u8 = 2;

/// What is known of one metric.
#[derive(Debug, Clone)]
pub struct Latency {
    measured: Histogram<u64>,
    judged: Histogram<u64>,
}

/// Quantiles of one metric, in seconds. A quantile is the smallest latency that at least this share of all is not above.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Latencies measured.
    pub samples: u64,
    /// Added by the correction for coordinated omission, closed users only.
    pub added: u64,
    #[serde(serialize_with = "brief")]
    pub mean: f64,
    #[serde(serialize_with = "brief")]
    pub p50: f64,
    #[serde(serialize_with = "brief")]
    pub p90: f64,
    #[serde(serialize_with = "brief")]
    pub p95: f64,
    #[serde(serialize_with = "brief")]
    pub p99: f64,
    #[serde(serialize_with = "brief")]
    pub max: f64,
    /// p95 of the samples alone: without the correction, and from the begin instead of the due time.
    #[serde(serialize_with = "brief")]
    pub measured_p95: f64,
}

/// What is told of a piece of time: as much as is drawn, since a report has hundreds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    pub samples: u64,
    #[serde(serialize_with = "brief")]
    pub p50: f64,
    #[serde(serialize_with = "brief")]
    pub p95: f64,
    #[serde(serialize_with = "brief")]
    pub p99: f64,
}

impl From<Quantiles> for Outline {
    fn from(all: Quantiles) -> Self {
        Self { samples: all.samples, p50: all.p50, p95: all.p95, p99: all.p99 }
    }
}

/// Rounds to a millionth, and to four digits above: the histograms know no more.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    let digits = if value > 0.0 { (3.0 - value.log10().floor()).clamp(0.0, 6.0) } else { 6.0 };
    let scale = 10.0_f64.powf(digits);
    (value * scale).round() / scale
}

/// Writes a number [`rounded`].
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn brief<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*value))
}

impl Default for Latency {
    fn default() -> Self {
        Self::with_digits(DIGITS)
    }
}

impl Latency {
    /// Makes one that is kept many times.
    #[must_use]
    pub fn coarse() -> Self {
        Self::with_digits(COARSE_DIGITS)
    }

    fn with_digits(digits: u8) -> Self {
        // They grow with the values they get.
        let histogram = || Histogram::new(digits).expect("one to five digits are valid");
        Self { measured: histogram(), judged: histogram() }
    }

    /// Adds one latency.
    pub fn add(&mut self, timing: Timing) {
        // `saturating_record` would not let the histograms grow.
        let recorded = self.measured.record(micros(timing.measured)).is_ok() && self.judge(timing);
        debug_assert!(recorded, "the histograms grow");
    }

    fn judge(&mut self, timing: Timing) -> bool {
        let judged = micros(timing.judged);
        match timing.cadence {
            Some(cadence) => self.judged.record_correct(judged, micros(cadence)).is_ok(),
            None => self.judged.record(judged).is_ok(),
        }
    }

    /// Returns the number of latencies measured.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.measured.len()
    }

    /// Returns the quantiles, None without a sample.
    #[must_use]
    pub fn quantiles(&self) -> Option<Quantiles> {
        if self.measured.is_empty() {
            return None;
        }
        let at = |quantile| seconds(self.judged.value_at_quantile(quantile));
        Some(Quantiles {
            samples: self.measured.len(),
            added: self.judged.len() - self.measured.len(),
            mean: self.judged.mean() / 1e6,
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
            max: seconds(self.judged.max()),
            measured_p95: seconds(self.measured.value_at_quantile(0.95)),
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS).clamp(1, MAX_MICROS)
}

#[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() <= right * 0.002
    }

    #[test]
    fn nothing_measured_is_no_quantile() {
        assert_eq!(Latency::default().quantiles(), None);
    }

    #[test]
    fn a_stall_of_a_closed_user_stands_for_the_requests_it_kept_back() {
        let mut latency = Latency::default();
        let usual = Timing { cadence: Some(Duration::from_secs(1)), ..Timing::of(Duration::from_millis(10)) };
        (0..90).for_each(|_| latency.add(usual));
        let stall = Duration::from_secs(10);
        latency.add(Timing { measured: stall, judged: stall, cadence: Some(Duration::from_secs(1)) });
        let quantiles = latency.quantiles().unwrap();
        // 9 s, 8 s, ... 1 s, beside the one of 10 s.
        assert_eq!((quantiles.samples, quantiles.added), (91, 9));
        assert!(close(quantiles.p95, 5.0), "{quantiles:?}");
        assert!(close(quantiles.measured_p95, 0.01), "{quantiles:?}");
    }

    #[test]
    fn numbers_are_written_with_as_many_digits_as_are_known() {
        let written = [0.016_571_428_571, 0.003_327, 0.000_887, 2.782_939_4, 18.416_2, 1234.56, 0.0].map(rounded);
        assert_eq!(written, [0.016_57, 0.003_327, 0.000_887, 2.783, 18.42, 1235.0, 0.0]);
    }

    #[test]
    fn more_than_an_hour_counts_as_an_hour() {
        let mut latency = Latency::default();
        latency.add(Timing { cadence: Some(Duration::from_secs(1800)), ..Timing::of(Duration::from_secs(90_000)) });
        assert!(close(latency.quantiles().unwrap().max, 3600.0));
    }
}
