//! Jobs as the API makes them.

use jiff::Timestamp;
use job::{IdKeys, Job, JobSpec, TenantId, TraceContext};

/// Makes a job of tenant `north`.
pub fn job(prompt: &str, now: Timestamp) -> Job {
    job_of("north", prompt, now)
}

/// Makes a job of a tenant.
pub fn job_of(tenant: &str, prompt: &str, now: Timestamp) -> Job {
    let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
    let tenant: TenantId = tenant.parse().unwrap();
    Job {
        id: keys.issue(&tenant),
        tenant,
        spec: JobSpec::new(prompt.to_owned(), None, None).unwrap(),
        submitted_at: now,
        deadline_at: None,
        retries: 0,
        trace: TraceContext::generate(),
    }
}
