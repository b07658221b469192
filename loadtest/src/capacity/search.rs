//! `Search`: which rate to try next: half as much again until one fails, then halfway between what passed and what failed.

/// Growth from step to step while nothing has failed.
const GROWTH: f64 = 1.5;

/// A search for the highest rate that passes.
#[derive(Debug, Clone)]
pub struct Search {
    next: Option<f64>,
    passed: Option<f64>,
    failed: Option<f64>,
    max: f64,
    precision: f64,
}

impl Search {
    /// Begins at `start` and ends at `max`, or when the best rate is known to a share of `precision`.
    #[must_use]
    pub fn new(start: f64, max: f64, precision: f64) -> Self {
        Self { next: Some(start), passed: None, failed: None, max, precision }
    }

    /// Returns the rate to try, None when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        self.next
    }

    /// Notes how a rate did.
    pub fn tried(&mut self, rate: f64, passed: bool) {
        if passed {
            self.passed = Some(self.passed.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |worst| worst.min(rate)));
        }
        self.next = match (self.passed, self.failed) {
            (Some(best), None) if best < self.max => Some((best * GROWTH).min(self.max)),
            (Some(best), Some(worst)) if worst > best * (1.0 + self.precision) => Some(f64::midpoint(best, worst)),
            _ => None,
        };
    }

    /// Returns the highest rate that passed.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(capacity: f64, max: f64) -> (Option<f64>, Vec<f64>) {
        let mut search = Search::new(1.0, max, 0.1);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.tried(rate, rate <= capacity);
            assert!(tried.len() < 100, "{tried:?}");
        }
        (search.best(), tried)
    }

    #[test]
    fn the_capacity_is_found_to_the_precision() {
        for capacity in [1.0, 3.3, 17.0, 123.0] {
            let (best, tried) = search(capacity, 1000.0);
            let best = best.unwrap();
            assert!(best <= capacity && best >= capacity / 1.1, "{best} of {capacity}: {tried:?}");
        }
    }

    #[test]
    fn a_search_ends_at_its_bounds() {
        assert_eq!(search(0.5, 1000.0), (None, vec![1.0]));
        assert_eq!(search(1e9, 2.0), (Some(2.0), vec![1.0, 1.5, 2.0]));
        assert_eq!(search(1e9, 1.0), (Some(1.0), vec![1.0]));
    }
}
