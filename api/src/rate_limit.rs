//! `RateLimits`: how fast one tenant may submit and poll.

use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use job::TenantId;

use crate::metrics::{self, Limit};
use crate::problem::{Code, Problem};
use crate::settings::LimitSettings;

/// The limits of all tenants, kept in this process: a fleet of n allows n times as much. Memory is bounded, since only
/// tenants with a key have an entry.
pub struct RateLimits {
    submits: DefaultKeyedRateLimiter<TenantId>,
    polls: DefaultKeyedRateLimiter<TenantId>,
    burst: NonZeroU32,
    polls_at_once: NonZeroU32,
    clock: DefaultClock,
}

impl RateLimits {
    /// Makes full buckets.
    pub fn new(settings: &LimitSettings) -> Self {
        let submits = Quota::per_minute(settings.jobs_per_minute).allow_burst(settings.jobs_burst);
        Self {
            submits: RateLimiter::dashmap(submits),
            polls: RateLimiter::dashmap(Quota::per_minute(settings.polls_per_minute)),
            burst: settings.jobs_burst,
            polls_at_once: settings.polls_per_minute,
            clock: DefaultClock::default(),
        }
    }

    /// Takes `jobs` from the tenant's bucket of submissions, all of them or none.
    ///
    /// # Errors
    /// 429 with the seconds to wait; 422 when so many jobs would never fit.
    pub fn submit(&self, tenant: &TenantId, jobs: NonZeroU32) -> Result<(), Problem> {
        match self.submits.check_key_n(tenant, jobs) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(self.limited(Limit::Submit, not_until.wait_time_from(self.clock.now()))),
            Err(_) => {
                let detail = format!("has {jobs} items: this server takes at most {} at once", self.burst);
                Err(Problem::field("jobs", detail))
            }
        }
    }

    /// Takes one from the tenant's bucket of reads.
    ///
    /// # Errors
    /// 429 with the seconds to wait.
    pub fn poll(&self, tenant: &TenantId) -> Result<(), Problem> {
        self.polls
            .check_key(tenant)
            .map_err(|not_until| self.limited(Limit::Poll, not_until.wait_time_from(self.clock.now())))
    }

    /// Takes `reads` at once from the tenant's bucket of reads, or all that it can hold.
    ///
    /// # Errors
    /// 429 with the seconds to wait.
    pub fn polls(&self, tenant: &TenantId, reads: usize) -> Result<(), Problem> {
        let reads = u32::try_from(reads).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        match self.polls.check_key_n(tenant, reads.min(self.polls_at_once)) {
            Ok(Err(not_until)) => Err(self.limited(Limit::Poll, not_until.wait_time_from(self.clock.now()))),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn limited(&self, limit: Limit, wait: std::time::Duration) -> Problem {
        metrics::rate_limited(limit);
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let detail = format!("your limit of {} is used up: wait {seconds} s", limit.unit());
        Problem::new(Code::RateLimited, detail).retry_after(seconds)
    }
}
