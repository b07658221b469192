//! The SQS queue: what waits, what comes back, and what is given up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A job's message. Ordered by arrival, so that the oldest is received first; SQS promises that for no standard queue, but
/// roughly keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    pub arrived_ms: i64,
    pub receives: u32,
}

/// A standard queue with a redrive policy.
#[derive(Debug)]
pub struct Queue {
    visible: BinaryHeap<Reverse<Job>>,
    /// Deliveries of dead workers, by the time (ms) at which their lease ends.
    leased: BinaryHeap<Reverse<(i64, Job)>>,
    max_receives: u32,
    pub submitted: u64,
    pub dead_lettered: u64,
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds of a few days")]
pub fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

impl Queue {
    #[must_use]
    pub fn new(max_receives: u32) -> Self {
        Self { visible: BinaryHeap::new(), leased: BinaryHeap::new(), max_receives, submitted: 0, dead_lettered: 0 }
    }

    pub fn submit(&mut self, now: f64, count: u64) {
        self.submitted += count;
        let job = Reverse(Job { arrived_ms: milliseconds(now), receives: 0 });
        self.visible.extend((0..count).map(|_| job));
    }

    /// Hands out the oldest job. One that was handed out too often goes to the dead-letter queue instead.
    pub fn receive(&mut self) -> Option<Job> {
        while let Some(Reverse(job)) = self.visible.pop() {
            if job.receives < self.max_receives {
                return Some(Job { receives: job.receives + 1, ..job });
            }
            self.dead_lettered += 1;
        }
        None
    }

    /// A worker gave the job back: visible at once.
    pub fn give_back(&mut self, job: Job) {
        self.visible.push(Reverse(job));
    }

    /// A worker died: visible when its lease ends.
    pub fn abandon(&mut self, job: Job, lease_ends: f64) {
        self.leased.push(Reverse((milliseconds(lease_ends), job)));
    }

    pub fn end_leases(&mut self, now: f64) {
        while let Some(Reverse((ends, job))) = self.leased.peek().copied()
            && ends <= milliseconds(now)
        {
            self.leased.pop();
            self.visible.push(Reverse(job));
        }
    }

    #[must_use]
    pub fn visible(&self) -> usize {
        self.visible.len()
    }

    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased.len()
    }

    /// Arrival of the oldest job that no worker holds, in milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<i64> {
        let leased = self.leased.iter().map(|Reverse((_, job))| job.arrived_ms).min();
        self.visible.peek().map(|Reverse(job)| job.arrived_ms).into_iter().chain(leased).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_comes_back_at_once_or_with_its_lease_and_is_not_handed_out_for_ever() {
        let mut queue = Queue::new(2);
        queue.submit(1.0, 1);
        let job = queue.receive().unwrap();
        queue.give_back(job);
        let job = queue.receive().unwrap();
        assert_eq!(job.receives, 2);
        queue.abandon(job, 60.0);
        queue.end_leases(59.0);
        assert_eq!((queue.visible(), queue.leased(), queue.oldest_ms()), (0, 1, Some(1000)));
        queue.end_leases(60.0);
        assert_eq!(queue.receive(), None, "the third hand-over is refused");
        assert_eq!((queue.submitted, queue.dead_lettered), (1, 1));
    }
}
