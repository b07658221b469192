//! `Outcome`: what one run shows, and what several runs show together.

use super::assumptions::FLAP_SECONDS;

/// The system at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub seconds: f64,
    pub visible: usize,
    /// Held by workers, or by the lease of a dead one.
    pub in_flight: usize,
    pub in_service: usize,
    /// Age of the oldest job that is not done.
    pub age_seconds: f64,
}

/// What one run shows. Times are from the event of the scenario, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Until the first instance that was launched after the event is in service.
    pub first_in_service_seconds: Option<f64>,
    /// Until the first of these receives.
    pub first_receive_seconds: Option<f64>,
    /// Until nothing waited any more, of those runs in which something did.
    pub drained_seconds: Option<f64>,
    pub changes: u32,
    /// Changes back within [`FLAP_SECONDS`].
    pub flaps: u32,
    /// Workers with jobs in flight that scale-in chose, and drained.
    pub busy_chosen: u64,
    /// Of these, workers that were stopped while the model worked for a job of theirs. A job that only waits for the quota
    /// is given back and costs nothing.
    pub busy_ended: u64,
    pub spot_notices: u64,
    /// Jobs that a stopping worker returned to the queue.
    pub given_back: u64,
    /// Jobs that ended with their instance, to be done again.
    pub cut_off: u64,
    pub submitted: u64,
    pub done: u64,
    /// Jobs in the dead-letter queue or unaccounted for.
    pub lost: u64,
    pub instance_hours: f64,
    pub final_desired: u32,
    pub samples: Vec<Sample>,
    has_waited: bool,
    last_change: Option<(f64, bool)>,
}

impl Outcome {
    pub fn record_change(&mut self, now: f64, from: u32, to: u32) {
        let is_out = to > from;
        self.changes += 1;
        if self.last_change.is_some_and(|(at, was_out)| was_out != is_out && now - at < FLAP_SECONDS) {
            self.flaps += 1;
        }
        self.last_change = Some((now, is_out));
    }

    /// `drains_after` is when the event of the scenario ends, from which the time to an empty queue counts.
    pub fn record_sample(&mut self, sample: Sample, drains_after: Option<f64>) {
        if let Some(event) = drains_after.filter(|event| sample.seconds >= *event) {
            self.has_waited |= sample.visible > 0;
            if self.has_waited && sample.visible == 0 && self.drained_seconds.is_none() {
                self.drained_seconds = Some(sample.seconds - event);
            }
        }
        self.samples.push(sample);
    }

    #[must_use]
    pub fn age_seconds(&self, quantile: f64) -> f64 {
        let mut ages: Vec<f64> = self.samples.iter().map(|sample| sample.age_seconds).collect();
        ages.sort_by(f64::total_cmp);
        at_quantile(&ages, quantile)
    }

    #[must_use]
    pub fn max_fleet(&self) -> usize {
        self.samples.iter().map(|sample| sample.in_service).max().unwrap_or(0)
    }
}

/// Runs of one policy in one scenario, with different seeds.
#[derive(Debug)]
pub struct Runs {
    pub outcomes: Vec<Outcome>,
}

/// Median and worst; a run that never got there is the worst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: Option<f64>,
    pub worst: Option<f64>,
}

impl Runs {
    #[must_use]
    pub fn spread(&self, of: impl Fn(&Outcome) -> Option<f64>) -> Spread {
        let mut values: Vec<f64> = self.outcomes.iter().map(|outcome| of(outcome).unwrap_or(f64::INFINITY)).collect();
        values.sort_by(f64::total_cmp);
        let finite = |value: f64| value.is_finite().then_some(value);
        Spread { median: finite(at_quantile(&values, 0.5)), worst: finite(at_quantile(&values, 1.0)) }
    }

    #[must_use]
    pub fn total(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).sum()
    }

    #[must_use]
    pub fn most(&self, of: impl Fn(&Outcome) -> u32) -> u32 {
        self.outcomes.iter().map(of).max().unwrap_or(0)
    }
}

/// Nearest rank of sorted values; 0 of none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
fn at_quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_back_is_flapping_when_it_is_soon() {
        let mut outcome = Outcome::default();
        outcome.record_change(0.0, 0, 3);
        outcome.record_change(1000.0, 3, 1);
        assert_eq!(outcome.flaps, 0);
        outcome.record_change(1100.0, 1, 2);
        assert_eq!((outcome.flaps, outcome.changes), (1, 3));
    }

    #[test]
    fn a_run_that_never_drains_is_the_worst() {
        let drained = Outcome { drained_seconds: Some(5.0), ..Outcome::default() };
        let runs = Runs { outcomes: vec![Outcome::default(), drained.clone(), drained] };
        let spread = runs.spread(|outcome| outcome.drained_seconds);
        assert_eq!(spread, Spread { median: Some(5.0), worst: None });
    }
}
