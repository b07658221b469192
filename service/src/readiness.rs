//! `Readiness`: whether this process can take work, and every reason why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Set of reasons against taking work; ready when it is empty. Cheap to clone and share.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Makes a readiness that is blocked by `starting` until that is cleared.
    pub fn starting() -> Self {
        let readiness = Self::default();
        readiness.block("starting", "the process has not finished starting");
        readiness
    }

    /// Adds or replaces the reason of `component`.
    pub fn block(&self, component: &'static str, reason: impl Into<String>) {
        self.lock().insert(component, reason.into());
    }

    /// Removes the reason of `component`, if it has one.
    pub fn clear(&self, component: &'static str) {
        self.lock().remove(component);
    }

    /// Returns every reason, by component.
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    /// Returns whether the process can take work.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
