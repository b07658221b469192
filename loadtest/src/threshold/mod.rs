//! `Thresholds`: what a run must keep to pass, from a TOML file. One that was broken, or has no samples, fails the run.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::measure::{Counts, Measured, Metric, Quantiles};
use crate::scenario::Scenario;

/// The file of the repository: the targets of the document that this system was first described in.
const DEFAULT: &str = include_str!("../../thresholds.toml");

/// A list of thresholds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    #[serde(default)]
    threshold: Vec<Threshold>,
}

/// One bound on one number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    name: String,
    metric: Subject,
    #[serde(default)]
    statistic: Option<Statistic>,
    below: Option<f64>,
    above: Option<f64>,
    at_most: Option<f64>,
    /// Scenarios that it is for; all without it.
    scenarios: Option<Vec<String>>,
    /// Scenarios that it is not for.
    #[serde(default)]
    except: Vec<String>,
    /// `local` or `deployed`; both without it.
    target: Option<Place>,
}

/// What a threshold is about.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
enum Subject {
    Latency(Metric),
    Number(Number),
}

/// A number that is no latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Failed operations, in % of all.
    ErrorPercent,
    /// Requests that the system answered, in % of all.
    AvailabilityPercent,
    /// Pictures from the CDN's cache, in % of those with an `X-Cache` that tells.
    CacheHitPercent,
    /// See [`Counts::duplicates`].
    Duplicates,
    /// From the first waiting job to the first additional worker in service.
    ScaleOutSeconds,
    /// Jobs that pile up, in % of those that come: see [`Seen`].
    BacklogGrowthPercent,
    /// See [`Measured::eta_error_percent`].
    EtaErrorPercent,
}

/// What was seen of the system itself while it was under load; None where it could not be, or did not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// From the first waiting job to the first additional worker in service.
    pub scale_out_seconds: Option<f64>,
    /// Jobs waiting and in flight: what the last third of the load had more than its middle third, in % of the jobs accepted
    /// in between. About 0 at a rate that can be kept up.
    #[serde(default)]
    pub backlog_growth_percent: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Statistic {
    Mean,
    P50,
    P90,
    P95,
    P99,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Local,
    Deployed,
}

/// What became of a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub name: String,
    /// The bound in words, such as `p95 of upload_seconds < 3`.
    pub bound: String,
    /// What was measured; None without samples.
    pub measured: Option<f64>,
    /// Where the threshold does not apply it is told, and passes.
    pub applies: bool,
    pub passed: bool,
}

impl Number {
    const ALL: [Self; 7] = [
        Self::ErrorPercent,
        Self::AvailabilityPercent,
        Self::CacheHitPercent,
        Self::Duplicates,
        Self::ScaleOutSeconds,
        Self::BacklogGrowthPercent,
        Self::EtaErrorPercent,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ErrorPercent => "error_percent",
            Self::AvailabilityPercent => "availability_percent",
            Self::CacheHitPercent => "cache_hit_percent",
            Self::Duplicates => "duplicates",
            Self::ScaleOutSeconds => "scale_out_seconds",
            Self::BacklogGrowthPercent => "backlog_growth_percent",
            Self::EtaErrorPercent => "eta_error_percent",
        }
    }
}

impl Subject {
    fn all() -> impl Iterator<Item = Self> {
        Metric::ALL.map(Self::Latency).into_iter().chain(Number::ALL.map(Self::Number))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Latency(metric) => metric.as_str(),
            Self::Number(number) => number.as_str(),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::all().find(|subject| subject.as_str() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::all().map(Self::as_str).collect();
            format!("there is no metric {name:?}: there are {}", known.join(", "))
        })
    }
}

impl Thresholds {
    /// Reads a file, or takes that of the repository.
    ///
    /// # Errors
    /// Names the file, the threshold and the field that cannot be used.
    pub fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let (name, text) = match file {
            Some(path) => (
                format!("--thresholds {}", path.display()),
                std::fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format!("--thresholds {} cannot be read: {error}", path.display()))
                })?,
            ),
            None => ("thresholds.toml".to_owned(), DEFAULT.to_owned()),
        };
        let parsed: Self = toml::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        if parsed.threshold.is_empty() {
            return Err(Failure::usage(format!(
                "{name} has no [[threshold]]: a run that is held to nothing cannot fail"
            )));
        }
        for threshold in &parsed.threshold {
            threshold.validate().map_err(|reason| Failure::usage(format!("{name}: {:?} {reason}", threshold.name)))?;
        }
        Ok(parsed)
    }

    /// Holds a run against the thresholds.
    #[must_use]
    pub fn judge(&self, scenario: &str, is_local: bool, measured: &Measured, seen: Seen) -> Vec<Verdict> {
        let judge = |threshold: &Threshold| {
            let value = threshold.value(measured, seen);
            let applies = threshold.applies(scenario, is_local);
            let passed = !applies || value.is_some_and(|value| threshold.holds(value));
            Verdict { name: threshold.name.clone(), bound: threshold.to_string(), measured: value, applies, passed }
        };
        self.threshold.iter().map(judge).collect()
    }
}

impl Threshold {
    fn validate(&self) -> Result<(), String> {
        let bounds: Vec<f64> = [self.below, self.above, self.at_most].into_iter().flatten().collect();
        if bounds.len() != 1 || !bounds[0].is_finite() {
            return Err("needs exactly one of below, above and at_most, a finite number".to_owned());
        }
        match (self.metric, self.statistic) {
            (Subject::Latency(metric), None) => {
                return Err(format!("is about {}: add a statistic, such as \"p95\"", metric.as_str()));
            }
            (Subject::Number(_), Some(_)) => return Err("is about one number: take statistic out".to_owned()),
            _ => {}
        }
        let known = |name: &String| Scenario::named(name).is_some();
        let named = self.scenarios.iter().flatten().chain(&self.except);
        match named.into_iter().find(|name| !known(name)) {
            Some(name) => Err(format!("names the scenario {name:?}: there are {}", Scenario::names().join(", "))),
            None => Ok(()),
        }
    }

    fn applies(&self, scenario: &str, is_local: bool) -> bool {
        let is_here = self.target.is_none_or(|place| (place == Place::Local) == is_local);
        let is_named = self.scenarios.as_ref().is_none_or(|names| names.iter().any(|name| name == scenario));
        is_here && is_named && !self.except.iter().any(|name| name == scenario)
    }

    fn value(&self, measured: &Measured, seen: Seen) -> Option<f64> {
        let counts = &measured.counts;
        match self.metric {
            Subject::Latency(metric) => {
                let quantiles = measured.latencies.get(&metric)?;
                Some(self.statistic?.of(quantiles))
            }
            Subject::Number(Number::ErrorPercent) => error_percent(counts),
            Subject::Number(Number::AvailabilityPercent) => availability_percent(counts),
            Subject::Number(Number::CacheHitPercent) => cache_hit_percent(counts),
            // Without a picture nothing could be a duplicate, and one that was seen is one, whatever was not seen.
            Subject::Number(Number::Duplicates) => {
                let is_told = counts.pictures > 0 && (counts.duplicates > 0 || !measured.duplicates_unseen);
                is_told.then_some(counts.duplicates).map(number)
            }
            Subject::Number(Number::ScaleOutSeconds) => seen.scale_out_seconds,
            Subject::Number(Number::BacklogGrowthPercent) => seen.backlog_growth_percent,
            Subject::Number(Number::EtaErrorPercent) => measured.eta_error_percent,
        }
    }

    fn holds(&self, value: f64) -> bool {
        self.below.is_none_or(|bound| value < bound)
            && self.above.is_none_or(|bound| value > bound)
            && self.at_most.is_none_or(|bound| value <= bound)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(statistic) = self.statistic {
            write!(f, "{} of ", format!("{statistic:?}").to_lowercase())?;
        }
        f.write_str(self.metric.as_str())?;
        for (sign, bound) in [("<", self.below), (">", self.above), ("<=", self.at_most)] {
            if let Some(bound) = bound {
                write!(f, " {sign} {bound}")?;
            }
        }
        Ok(())
    }
}

impl Statistic {
    fn of(self, quantiles: &Quantiles) -> f64 {
        match self {
            Self::Mean => quantiles.mean,
            Self::P50 => quantiles.p50,
            Self::P90 => quantiles.p90,
            Self::P95 => quantiles.p95,
            Self::P99 => quantiles.p99,
            Self::Max => quantiles.max,
        }
    }
}

/// Returns the failed operations in % of all, None without any.
#[must_use]
pub fn error_percent(counts: &Counts) -> Option<f64> {
    percent(counts.failed, counts.operations)
}

/// Returns the requests that the system answered in % of all, None without any.
#[must_use]
pub fn availability_percent(counts: &Counts) -> Option<f64> {
    percent(counts.requests - counts.unavailable, counts.requests)
}

/// Returns the downloads that came from the cache in % of those that tell, None without any.
#[must_use]
pub fn cache_hit_percent(counts: &Counts) -> Option<f64> {
    percent(counts.cache_hits, counts.cache_hits + counts.cache_misses)
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * number(part) / number(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
