//! `Faults`: what looks like an outage, told from the bad luck of a few jobs.

use std::collections::HashSet;
use std::time::Duration;

use job::JobId;
use tokio::time::Instant;

use crate::error::Kind;

/// So many outage-like faults with no success between them are an outage.
pub(super) const OUTAGE_AFTER: usize = 5;
/// Faults that may be a job's own must come from so many jobs.
const JOBS_OF_AN_OUTAGE: usize = 3;
/// More of them are not remembered.
const MOST: usize = 4 * OUTAGE_AFTER;
/// Beyond the longest backoff between two attempts of a job, so that a worker with little to do notices an outage as well.
pub(super) const FAULTS_LAPSE_AFTER: Duration = Duration::from_secs(600);

/// The outage-like faults since the last success, in their order.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
}

#[derive(Debug)]
struct Fault {
    job: JobId,
    at: Instant,
    may_be_its_own: bool,
}

impl Faults {
    /// Notes one more, and returns whether they are an outage.
    pub(super) fn note(&mut self, job: JobId, kind: Kind) -> bool {
        // One job that fails again and again must not push the others out.
        let of_this_job = |fault: &Fault| fault.job == job;
        if self.list.iter().filter(|fault| of_this_job(fault)).count() >= OUTAGE_AFTER {
            let oldest = self.list.iter().position(of_this_job).expect("there are five");
            self.list.remove(oldest);
        } else if self.list.len() >= MOST {
            self.list.remove(0);
        }
        let may_be_its_own = kind.is_outage_of_several_jobs();
        self.list.push(Fault { job, at: Instant::now(), may_be_its_own });
        if may_be_its_own {
            let jobs: HashSet<_> = self.list.iter().map(|fault| fault.job).collect();
            return self.list.len() >= OUTAGE_AFTER && jobs.len() >= JOBS_OF_AN_OUTAGE;
        }
        // A job with a fault of its own says once, and not with each attempt, that a service may be down.
        let (own, of_service): (Vec<_>, Vec<_>) = self.list.iter().partition(|fault| fault.may_be_its_own);
        let own: HashSet<_> = own.into_iter().map(|fault| fault.job).collect();
        own.len() + of_service.len() >= OUTAGE_AFTER
    }

    /// Forgets those that are too old to belong to the next one.
    pub(super) fn lapse(&mut self) {
        self.list.retain(|fault| fault.at.elapsed() < FAULTS_LAPSE_AFTER);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }
}
