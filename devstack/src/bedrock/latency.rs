//! How long a model takes: the distribution that the latency of every call is drawn from.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Standard deviations from the median to the 99th percentile of a normal distribution.
const P99_SIGMAS: f64 = 2.326_347_874;

/// Distribution of the time from request to answer. In JSON: `{"kind":"fixed","ms":800}`,
/// `{"kind":"uniform","min_ms":200,"max_ms":900}` or `{"kind":"lognormal","median_ms":800,"p99_ms":2500}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    Fixed { ms: u64 },
    /// Anything between two bounds.
    Uniform { min_ms: u64, max_ms: u64 },
    /// What services show: a median and a long tail.
    Lognormal { median_ms: u64, p99_ms: u64 },
}

/// A latency that cannot be drawn from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "latency {given:?} cannot be used: {reason}; expected `800ms`, `200ms..2s` or `lognormal:800ms,2500ms` (median, p99)"
)]
pub struct InvalidLatency {
    given: String,
    reason: &'static str,
}

impl Latency {
    /// No waiting at all.
    pub const NONE: Self = Self::Fixed { ms: 0 };

    /// Draws the latency of one call.
    pub fn sample(&self) -> Duration {
        match *self {
            Self::Fixed { ms } => Duration::from_millis(ms),
            Self::Uniform { min_ms, max_ms } => Duration::from_millis(rand::random_range(min_ms..=max_ms)),
            Self::Lognormal { median_ms, p99_ms } => {
                // Box-Muller; 1 - u keeps the logarithm away from zero.
                let (u, v): (f64, f64) = (rand::random(), rand::random());
                let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos();
                let sigma = (p99_ms as f64 / median_ms as f64).ln() / P99_SIGMAS;
                Duration::from_secs_f64(median_ms as f64 / 1000.0 * (sigma * normal).exp())
            }
        }
    }

    /// Returns why this cannot be drawn from, if it cannot.
    pub(crate) fn defect(&self) -> Option<&'static str> {
        match *self {
            Self::Uniform { min_ms, max_ms } if min_ms > max_ms => Some("the minimum is above the maximum"),
            Self::Lognormal { median_ms: 0, .. } => Some("the median is zero"),
            Self::Lognormal { median_ms, p99_ms } if p99_ms < median_ms => Some("the p99 is below the median"),
            _ => None,
        }
    }
}

impl FromStr for Latency {
    type Err = InvalidLatency;

    fn from_str(text: &str) -> Result<Self, InvalidLatency> {
        let invalid = |reason| InvalidLatency { given: text.to_owned(), reason };
        let ms = |part: &str| milliseconds(part).ok_or_else(|| invalid("not a duration with a unit"));
        let latency = if let Some(parts) = text.strip_prefix("lognormal:") {
            let (median, p99) = parts.split_once(',').ok_or_else(|| invalid("the p99 is missing"))?;
            Self::Lognormal { median_ms: ms(median)?, p99_ms: ms(p99)? }
        } else if let Some((min, max)) = text.split_once("..") {
            Self::Uniform { min_ms: ms(min)?, max_ms: ms(max)? }
        } else {
            Self::Fixed { ms: ms(text)? }
        };
        match latency.defect() {
            Some(reason) => Err(invalid(reason)),
            None => Ok(latency),
        }
    }
}

/// Parses `800ms`, `2s`, `1m`; a bare `0` is zero.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    if text.trim() == "0" {
        return Some(0);
    }
    let duration: jiff::SignedDuration = text.trim().parse().ok()?;
    u64::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_parse_and_nonsense_names_the_forms() {
        assert_eq!("0".parse(), Ok(Latency::NONE));
        assert_eq!("800ms".parse(), Ok(Latency::Fixed { ms: 800 }));
        assert_eq!("200ms..2s".parse(), Ok(Latency::Uniform { min_ms: 200, max_ms: 2000 }));
        assert_eq!("lognormal:3s,12s".parse(), Ok(Latency::Lognormal { median_ms: 3000, p99_ms: 12000 }));
        for bad in ["800", "2s..1s", "lognormal:3s", "lognormal:3s,1s", "lognormal:0,1s", "soon", "-1s"] {
            let error = bad.parse::<Latency>().unwrap_err().to_string();
            assert!(error.contains("lognormal:800ms,2500ms"), "{error}");
        }
    }

    #[test]
    fn samples_follow_the_distribution() {
        let uniform = Latency::Uniform { min_ms: 5, max_ms: 9 };
        assert!((0..500).all(|_| (5..=9).contains(&uniform.sample().as_millis())));
        let tailed = Latency::Lognormal { median_ms: 1000, p99_ms: 4000 };
        let mut samples: Vec<_> = (0..20_000).map(|_| tailed.sample().as_millis()).collect();
        samples.sort_unstable();
        // Twenty standard errors wide: this does not fail by chance.
        assert!((900..1100).contains(&samples[10_000]), "{}", samples[10_000]);
        assert!((3000..5500).contains(&samples[19_800]), "{}", samples[19_800]);
    }
}
