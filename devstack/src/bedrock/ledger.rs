//! `Ledger`: what was asked of the model and what it charged for.
//!
//! It keeps every prompt until it is cleared: it is meant for test runs, not for months.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

/// What happened since the start, or since the ledger was cleared. This is the JSON of `GET /_standin/ledger`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerReport {
    /// Over all prompts.
    pub totals: Totals,
    /// Per prompt, word for word.
    pub by_prompt: BTreeMap<String, PromptEntry>,
}

/// Sums over all calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests to `InvokeModel`, whatever came of them.
    pub calls: u64,
    /// Calls answered with a picture, sound or not: each is billed.
    pub paid: u64,
    /// Pictures that were made and never reached the caller: stalled, cut in half, or the caller had left. Billed too.
    pub paid_unanswered: u64,
    /// Calls refused by the content policy.
    pub refused: u64,
    /// Calls that ended otherwise, by kind: the name of a fault, or `unauthenticated`, `invalid`, `too_large`,
    /// `unknown_model`, `retired_model`, `over_quota`.
    pub errors: BTreeMap<String, u64>,
    /// Calls that are not answered yet.
    pub in_flight: u64,
    /// Most calls that were in flight at one time.
    pub max_in_flight: u64,
}

/// Sums over the calls for one prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptEntry {
    /// Requests with this prompt, whatever came of them.
    pub calls: u64,
    /// Those answered with a picture.
    pub paid: u64,
    /// Those whose picture never reached the caller.
    pub paid_unanswered: u64,
    /// Those whose picture is being made: they will be one or the other.
    #[serde(default)]
    pub in_making: u64,
}

/// Shared by all calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<LedgerReport>>);

/// One call in flight, until dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Ledger);

/// A picture that is being made. It is paid for whatever happens; dropped before `answered`, nobody got it.
#[derive(Debug)]
pub(crate) struct Bill {
    ledger: Ledger,
    prompt: String,
    settled: bool,
}

impl Ledger {
    pub(crate) fn report(&self) -> LedgerReport {
        self.lock().clone()
    }

    /// Forgets everything but the calls in flight.
    pub(crate) fn clear(&self) {
        let mut report = self.lock();
        let in_flight = report.totals.in_flight;
        *report = LedgerReport::default();
        report.totals.in_flight = in_flight;
        report.totals.max_in_flight = in_flight;
    }

    pub(crate) fn call(&self) -> InFlight {
        let totals = &mut self.lock().totals;
        totals.calls += 1;
        totals.in_flight += 1;
        totals.max_in_flight = totals.max_in_flight.max(totals.in_flight);
        InFlight(self.clone())
    }

    /// Counts a call for a prompt and returns its number, from 1.
    pub(crate) fn call_for(&self, prompt: &str) -> u64 {
        let mut report = self.lock();
        let entry = report.by_prompt.entry(prompt.to_owned()).or_default();
        entry.calls += 1;
        entry.calls
    }

    pub(crate) fn refused(&self) {
        self.lock().totals.refused += 1;
    }

    pub(crate) fn error(&self, kind: &str) {
        *self.lock().totals.errors.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn bill(&self, prompt: &str) -> Bill {
        self.lock().by_prompt.entry(prompt.to_owned()).or_default().in_making += 1;
        Bill { ledger: self.clone(), prompt: prompt.to_owned(), settled: false }
    }

    fn lock(&self) -> MutexGuard<'_, LedgerReport> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Bill {
    /// The answer is on its way.
    pub(crate) fn answered(mut self) {
        self.settled = true;
        let mut report = self.ledger.lock();
        report.totals.paid += 1;
        let entry = report.by_prompt.entry(std::mem::take(&mut self.prompt)).or_default();
        entry.paid += 1;
        // Nothing is left to take off when the ledger was cleared in between.
        entry.in_making = entry.in_making.saturating_sub(1);
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if !self.settled {
            let mut report = self.ledger.lock();
            report.totals.paid_unanswered += 1;
            let entry = report.by_prompt.entry(std::mem::take(&mut self.prompt)).or_default();
            entry.paid_unanswered += 1;
            entry.in_making = entry.in_making.saturating_sub(1);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut report = self.0.lock();
        report.totals.in_flight = report.totals.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_paid_once_whatever_happens() {
        let ledger = Ledger::default();
        let (first, second) = (ledger.bill("a"), ledger.bill("a"));
        assert_eq!(ledger.report().by_prompt["a"], PromptEntry { in_making: 2, ..PromptEntry::default() });
        first.answered();
        drop(second);
        let report = ledger.report();
        assert_eq!((report.totals.paid, report.totals.paid_unanswered), (1, 1));
        assert_eq!(report.by_prompt["a"], PromptEntry { paid: 1, paid_unanswered: 1, ..PromptEntry::default() });
    }

    #[test]
    fn clearing_keeps_what_is_in_flight() {
        let ledger = Ledger::default();
        let (first, second) = (ledger.call(), ledger.call());
        drop(second);
        assert_eq!((ledger.report().totals.in_flight, ledger.report().totals.max_in_flight), (1, 2));
        ledger.clear();
        assert_eq!((ledger.report().totals.in_flight, ledger.report().totals.max_in_flight), (1, 1));
        drop(first);
        assert_eq!(ledger.report().totals.in_flight, 0);
    }
}
