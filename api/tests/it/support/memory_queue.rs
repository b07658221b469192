//! `MemoryQueue` keeps what it is given; `BrokenQueue` refuses.

use std::sync::Mutex;

use api::queue::{Depth, JobQueue, QueueError};
use async_trait::async_trait;
use job::{Job, Notice};

#[derive(Default)]
pub(crate) struct MemoryQueue {
    jobs: Mutex<Vec<Job>>,
    /// Prompts that a batch entry is refused for.
    refused_prompts: Mutex<Vec<String>>,
    depth: Mutex<Option<Depth>>,
    notices: Mutex<Vec<Notice>>,
}

impl MemoryQueue {
    /// Returns every job enqueued so far, as a worker would decode it.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().unwrap().clone()
    }

    pub(crate) fn refuse_prompt(&self, prompt: &str) {
        self.refused_prompts.lock().unwrap().push(prompt.to_owned());
    }

    /// What the webhook queue was told.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }

    /// What it says of itself from now on.
    pub(crate) fn says(&self, depth: Depth) {
        *self.depth.lock().unwrap() = Some(depth);
    }

    fn put(&self, job: &Job) -> Result<(), QueueError> {
        if self.refused_prompts.lock().unwrap().iter().any(|prompt| prompt == job.spec.prompt()) {
            return Err(QueueError::Unavailable("entry refused".into()));
        }
        self.jobs.lock().unwrap().push(Job::decode(&job.encode()).unwrap());
        Ok(())
    }
}

#[async_trait]
impl JobQueue for MemoryQueue {
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError> {
        self.put(job)
    }

    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>> {
        jobs.iter().map(|job| self.put(job)).collect()
    }

    async fn tell(&self, notice: &Notice) -> Result<(), QueueError> {
        self.notices.lock().unwrap().push(notice.clone());
        Ok(())
    }

    async fn depth(&self) -> Result<Option<Depth>, QueueError> {
        Ok(*self.depth.lock().unwrap())
    }
}

/// Gives every job the same error.
pub(crate) struct BrokenQueue(pub(crate) QueueError);

#[async_trait]
impl JobQueue for BrokenQueue {
    async fn enqueue(&self, _: &Job) -> Result<(), QueueError> {
        Err(self.0.clone())
    }

    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>> {
        jobs.iter().map(|_| Err(self.0.clone())).collect()
    }

    async fn tell(&self, _: &Notice) -> Result<(), QueueError> {
        Err(self.0.clone())
    }
}
