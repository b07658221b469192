//! `Arrivals`: the schedule of the open model, which does not wait for the system.

use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp};
use serde::{Deserialize, Serialize};

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Independent of each other: exponential gaps, as requests of many people come.
    Poisson,
    /// At equal distances.
    Constant,
}

/// Due times, handed out one by one to whoever is free.
#[derive(Debug)]
pub struct Arrivals {
    rate: f64,
    spread: Spread,
    end: Duration,
    state: Mutex<(f64, StdRng)>,
}

impl Arrivals {
    /// Makes a schedule of `rate` arrivals a second (above 0) until `end`. The same seed gives the same schedule.
    #[must_use]
    pub fn new(rate: f64, spread: Spread, end: Duration, seed: u64) -> Self {
        Self { rate, spread, end, state: Mutex::new((0.0, StdRng::seed_from_u64(seed))) }
    }

    /// Returns when the next arrival is due, after the begin of the run; None when there are no more.
    pub fn next(&self) -> Option<Duration> {
        let mut state = self.state.lock().expect("nothing panics while it holds this lock");
        let (at, rng) = &mut *state;
        *at += match self.spread {
            Spread::Constant => 1.0 / self.rate,
            Spread::Poisson => Exp::new(self.rate).expect("the rate is above 0").sample(rng),
        };
        Duration::try_from_secs_f64(*at).ok().filter(|due| *due < self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(spread: Spread, seed: u64) -> Vec<Duration> {
        let arrivals = Arrivals::new(10.0, spread, Duration::from_secs(100), seed);
        std::iter::from_fn(|| arrivals.next()).collect()
    }

    #[test]
    fn a_constant_rate_is_met_exactly() {
        let due = all(Spread::Constant, 1);
        assert!((998..=1000).contains(&due.len()), "{}", due.len());
        assert!((due[9].as_secs_f64() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_poisson_rate_is_met_on_average_and_a_seed_repeats_it() {
        let due = all(Spread::Poisson, 7);
        // 1000 with a standard deviation of 32.
        assert!((850..=1150).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted());
        assert_eq!(due, all(Spread::Poisson, 7));
        assert_ne!(due, all(Spread::Poisson, 8));
    }
}
