//! `Trend`: the line through what one process used, and whether it is flat.

use std::fmt;

use serde::Serialize;

use super::sample::Sample;

/// What a process may use, how it is read from a sample, and growth that means nothing however little there was at first: pages
/// of the allocator, a connection of a pool, a task of one that is just being made.
pub(super) type Kind = (&'static str, fn(&Sample) -> f64, f64);
pub(super) const KINDS: [Kind; 3] = [
    ("RSS, MiB", |sample| sample.rss_mib, 8.0),
    ("open files", |sample| sample.open_files, 4.0),
    ("tasks", |sample| sample.tasks, 4.0),
];
/// A line through fewer points is no trend.
const FEWEST_SAMPLES: usize = 10;
/// Growth over the whole time, as a share of the mean.
const MOST_GROWTH: f64 = 0.1;

/// One process and one thing that it uses, from the end of the warm-up on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    pub process: String,
    pub what: &'static str,
    /// Means of the first and of the last tenth.
    pub first: f64,
    pub last: f64,
    pub highest: f64,
    /// Of the line of least squares.
    pub slope_per_hour: f64,
    /// What that line rises by from the first to the last sample.
    pub growth: f64,
    /// What the line through the last half rises by.
    pub growth_at_last: f64,
    /// Most that the whole may rise by.
    pub limit: f64,
}

impl Trend {
    /// Returns whether it grew by no more than the limit, or stopped growing: a leak goes on in the last half, and what an
    /// allocator keeps after the busiest minute so far is a step.
    pub fn is_flat(&self) -> bool {
        self.growth <= self.limit || self.growth_at_last <= self.limit / 2.0
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:+.2} | {:+.2} | {:+.2} | {:.1} | {} |",
            self.process,
            self.what,
            self.first,
            self.last,
            self.highest,
            self.slope_per_hour,
            self.growth,
            self.growth_at_last,
            self.limit,
            if self.is_flat() { "flat" } else { "GROWS" }
        )
    }
}

/// Returns a trend for each process and each thing, without the first `warm_up` (a share) of the time.
pub(super) fn of_all(samples: &[Sample], warm_up: f64) -> Vec<Trend> {
    let end = samples.iter().map(|sample| sample.minutes).fold(0.0, f64::max);
    let warm = |sample: &&Sample| sample.minutes >= end * warm_up;
    let mut processes: Vec<&str> = samples.iter().map(|sample| sample.process.as_str()).collect();
    processes.sort_unstable();
    processes.dedup();
    let mut trends = Vec::new();
    for process in processes {
        let its: Vec<&Sample> = samples.iter().filter(warm).filter(|sample| sample.process == process).collect();
        for (what, value, floor) in KINDS {
            let points: Vec<(f64, f64)> = its.iter().map(|sample| (sample.minutes / 60.0, value(sample))).collect();
            trends.extend(of(process, what, &points, floor));
        }
    }
    trends
}

/// Points are hours and values. None where there are too few of them.
fn of(process: &str, what: &'static str, points: &[(f64, f64)], floor: f64) -> Option<Trend> {
    if points.len() < FEWEST_SAMPLES {
        return None;
    }
    let half = &points[points.len() / 2..];
    let (slope_per_hour, slope_at_last) = (slope(points)?, slope(half)?);
    let hours = |points: &[(f64, f64)]| points[points.len() - 1].0 - points[0].0;
    let y = mean(&mut points.iter().map(|point| point.1));
    let tenth = points.len().div_ceil(10);
    Some(Trend {
        process: process.to_owned(),
        what,
        first: mean(&mut points[..tenth].iter().map(|point| point.1)),
        last: mean(&mut points[points.len() - tenth..].iter().map(|point| point.1)),
        highest: points.iter().map(|point| point.1).fold(f64::MIN, f64::max),
        slope_per_hour,
        growth: slope_per_hour * hours(points),
        growth_at_last: slope_at_last * hours(half),
        limit: (y * MOST_GROWTH).max(floor),
    })
}

/// Returns the slope of the line of least squares. None if all points are of one moment.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let (x, y) = (mean(&mut points.iter().map(|point| point.0)), mean(&mut points.iter().map(|point| point.1)));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    (spread > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread)
}

fn mean(values: &mut dyn ExactSizeIterator<Item = f64>) -> f64 {
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hours, a sample a minute: `rss` of the minute.
    fn samples(rss: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |minute: u32| {
            let minutes = f64::from(minute);
            Sample { minutes, process: "image-worker 1".into(), rss_mib: rss(minutes), open_files: 30.0, tasks: 20.0 }
        };
        (0..=120).map(sample).collect()
    }

    fn rss(samples: &[Sample]) -> Trend {
        let trends = of_all(samples, 0.2);
        assert_eq!(trends.len(), 3);
        trends.into_iter().find(|trend| trend.what == "RSS, MiB").unwrap()
    }

    #[test]
    fn a_leak_grows_and_noise_does_not() {
        let leaks = rss(&samples(|minute| 100.0 + minute / 4.0));
        assert!((leaks.slope_per_hour - 15.0).abs() < 1e-9 && (leaks.growth - 24.0).abs() < 1e-9, "{leaks:?}");
        assert!(!leaks.is_flat());
        let noisy = rss(&samples(|minute| 100.0 + (minute * 7.0) % 13.0));
        assert!(noisy.is_flat(), "{noisy:?}");
        assert!(leaks.to_string().ends_with("| GROWS |"), "{leaks}");
    }

    #[test]
    fn a_step_is_no_leak_and_one_near_the_end_may_be() {
        let step_at = |at: f64| rss(&samples(move |minute| if minute < at { 90.0 } else { 110.0 }));
        let early = step_at(60.0);
        assert!(early.growth > early.limit && early.growth_at_last.abs() < 1e-9 && early.is_flat(), "{early:?}");
        assert!(!step_at(95.0).is_flat(), "more minutes are needed to tell");
        let slow = rss(&samples(|minute| 100.0 + minute / 8.0));
        assert!(!slow.is_flat(), "{slow:?}");
    }

    #[test]
    fn warming_up_does_not_count() {
        let warm = rss(&samples(|minute| minute.min(20.0) * 10.0));
        assert_eq!((warm.growth, warm.is_flat()), (0.0, true), "{warm:?}");
    }

    #[test]
    fn a_few_samples_are_no_trend() {
        assert_eq!(of_all(&samples(|_| 1.0)[..5], 0.2), []);
        assert_eq!(of_all(&[], 0.2), []);
    }
}
