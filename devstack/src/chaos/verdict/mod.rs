//! `Verdict`: whether the guarantees were kept, from what was found when everything had come to rest. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use job::{FailureCode, Status};
use serde::Serialize;

/// What a job has to come to, whatever goes wrong on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Picture,
    /// The model refuses its prompt.
    Blocked,
    /// The model calls its request invalid.
    Rejected,
}

/// Whether the picture of a job can be had at the URL that the API gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Picture {
    /// No URL was given out.
    None,
    Works,
    Broken(String),
}

/// What was found of one accepted job.
#[derive(Debug, Clone)]
pub(super) struct JobEvidence {
    pub(super) id: String,
    pub(super) expected: Expected,
    /// What its record says; None without one.
    pub(super) ending: Option<(Status, Option<FailureCode>)>,
    /// What the API says of it.
    pub(super) told: Option<Status>,
    pub(super) picture: Picture,
    /// It is in the dead-letter queue.
    pub(super) is_dead_letter: bool,
    /// Pictures billed for it, whether they reached anybody or not.
    pub(super) billed: u64,
    /// Pictures that its prompt asks the model to spoil: each is billed and no picture.
    pub(super) spoiled: u64,
    /// Its calls in flight that were hit by a SIGKILL or a SIGSTOP.
    pub(super) hit_by_signals: u64,
    /// Its calls in flight whose connection was lost.
    pub(super) hit_by_network: u64,
}

impl JobEvidence {
    fn has_ended(&self) -> bool {
        self.ending.is_some_and(|(status, _)| status.is_final())
    }

    fn beyond_one(&self) -> Beyond {
        let most = u64::from(self.expected == Expected::Picture);
        let mut left = self.billed.saturating_sub(most);
        let mut take = |excuse: u64| {
            let taken = left.min(excuse);
            left -= taken;
            taken
        };
        let (spoiled, signals, network) = (take(self.spoiled), take(self.hit_by_signals), take(self.hit_by_network));
        Beyond { spoiled, signals, network, unexplained: left }
    }
}

/// Pictures billed beyond one, by what excuses them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Beyond {
    /// The model spoiled them because the prompt asked it to.
    pub(super) spoiled: u64,
    /// A SIGKILL or SIGSTOP hit the call.
    pub(super) signals: u64,
    /// The call lost its connection.
    pub(super) network: u64,
    /// Nothing does.
    pub(super) unexplained: u64,
}

/// Messages of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Depth {
    pub(super) visible: u64,
    pub(super) invisible: u64,
}

/// From the end of a fault to the next picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Recovery {
    pub(super) after: String,
    pub(super) seconds: f64,
}

/// Everything that was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// The jobs whose submission was answered with 202.
    pub(super) jobs: Vec<JobEvidence>,
    /// Submissions that were answered otherwise in the end, with the answer.
    pub(super) refused: Vec<String>,
    pub(super) queue: Depth,
    pub(super) dead_letters: Depth,
    /// Jobs that were in the dead-letter queue when the faults were over, and were sent back from there.
    pub(super) redriven: u64,
    /// Further copies of jobs that have ended, found there as well.
    pub(super) redriven_copies: u64,
    /// Calls in flight that a SIGKILL or SIGSTOP hit, and that lost their connection.
    pub(super) hit_by_signals: u64,
    pub(super) hit_by_network: u64,
    pub(super) longest_recovery: Option<Recovery>,
}

/// The outcome of a run: the numbers of the table, and every breach in a sentence.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verdict {
    pub(super) accepted: u64,
    pub(super) succeeded: u64,
    /// By `blocked` or the code of the failure.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) redriven: u64,
    pub(super) redriven_copies: u64,
    pub(super) dead_letters: Depth,
    pub(super) lost: u64,
    pub(super) billed: u64,
    pub(super) beyond_one: Beyond,
    pub(super) hit_by_signals: u64,
    pub(super) hit_by_network: u64,
    pub(super) urls: u64,
    pub(super) broken_urls: u64,
    pub(super) queue: Depth,
    pub(super) longest_recovery: Option<Recovery>,
    pub(super) breaches: Vec<String>,
}

impl Verdict {
    /// Judges.
    pub(super) fn of(evidence: &Evidence) -> Self {
        let mut verdict = Self {
            accepted: count(evidence.jobs.iter()),
            succeeded: 0,
            failed: BTreeMap::new(),
            redriven: evidence.redriven,
            redriven_copies: evidence.redriven_copies,
            dead_letters: evidence.dead_letters,
            lost: 0,
            billed: 0,
            beyond_one: Beyond::default(),
            hit_by_signals: evidence.hit_by_signals,
            hit_by_network: evidence.hit_by_network,
            urls: 0,
            broken_urls: 0,
            queue: evidence.queue,
            longest_recovery: evidence.longest_recovery.clone(),
            breaches: Vec::new(),
        };
        if evidence.jobs.is_empty() {
            verdict.breaches.push("no job was accepted: nothing is proven".to_owned());
        }
        evidence.jobs.iter().for_each(|job| verdict.job(job));
        for refused in &evidence.refused {
            verdict.breaches.push(format!("a submission was never accepted: {refused}"));
        }
        let Depth { visible, invisible } = evidence.queue;
        if visible + invisible > 0 {
            let found = format!("{visible} visible and {invisible} invisible messages are left in the queue");
            verdict.breaches.push(found);
        }
        if evidence.dead_letters != Depth::default() {
            let Depth { visible, invisible } = evidence.dead_letters;
            let found = format!("{} messages are in the dead-letter queue after a redrive", visible + invisible);
            verdict.breaches.push(found);
        }
        verdict
    }

    /// Returns whether every guarantee was kept.
    pub(super) fn is_kept(&self) -> bool {
        self.breaches.is_empty()
    }

    fn job(&mut self, job: &JobEvidence) {
        let id = &job.id;
        match job.ending {
            Some((Status::Succeeded, _)) => self.succeeded += 1,
            Some((status, code)) if status.is_final() => {
                let word = code.map_or(status.as_str(), FailureCode::as_str);
                *self.failed.entry(word.to_owned()).or_default() += 1;
            }
            _ if job.is_dead_letter => {}
            _ => {
                self.lost += 1;
                let last = job.ending.map_or("no record", |(status, _)| status.as_str());
                self.breaches.push(format!("{id} is lost: {last}, and in no queue"));
            }
        }
        let expected = match job.expected {
            Expected::Picture => (Status::Succeeded, None),
            Expected::Blocked => (Status::Blocked, Some(FailureCode::ContentFiltered)),
            Expected::Rejected => (Status::Failed, Some(FailureCode::RequestRejected)),
        };
        if job.has_ended() && job.ending != Some(expected) {
            self.breaches.push(format!("{id} ended as {:?} instead of {expected:?}", job.ending));
        }
        if job.has_ended() && job.told != job.ending.map(|(status, _)| status) {
            self.breaches.push(format!("{id}: the API says {:?}, its record {:?}", job.told, job.ending));
        }
        self.money(job);
        let has_succeeded = job.ending.is_some_and(|(status, _)| status == Status::Succeeded);
        match &job.picture {
            Picture::Works => self.urls += 1,
            Picture::Broken(reason) => {
                self.urls += 1;
                self.broken_urls += 1;
                self.breaches.push(format!("{id}: its URL does not work: {reason}"));
            }
            Picture::None if has_succeeded => {
                self.breaches.push(format!("{id} succeeded and has no URL"));
            }
            Picture::None => {}
        }
    }

    fn money(&mut self, job: &JobEvidence) {
        self.billed += job.billed;
        let Beyond { spoiled, signals, network, unexplained } = job.beyond_one();
        self.beyond_one.spoiled += spoiled;
        self.beyond_one.signals += signals;
        self.beyond_one.network += network;
        self.beyond_one.unexplained += unexplained;
        if unexplained > 0 {
            let JobEvidence { id, billed, spoiled, hit_by_signals, hit_by_network, .. } = job;
            self.breaches.push(format!(
                "{id} was paid {billed} times: {spoiled} spoiled on request, calls in flight hit by signals: \
                 {hit_by_signals}, by the network: {hit_by_network}"
            ));
        }
        if job.ending.is_some_and(|(status, _)| status == Status::Succeeded) && job.billed == 0 {
            self.breaches
                .push(format!("{} has a picture that nobody paid for: the ledger is not to be trusted", job.id));
        }
    }
}

/// Returns the longest time from the end of a fault to the next picture. A fault after which no picture was due says
/// nothing. Times are since the beginning of the run.
pub(super) fn longest_recovery(healed: &[(Duration, String)], pictures: &[Duration]) -> Option<Recovery> {
    let mut pictures = pictures.to_vec();
    pictures.sort_unstable();
    let gap = |(at, fault): &(Duration, String)| {
        let next = pictures.iter().find(|picture| *picture >= at)?;
        Some(Recovery { after: fault.clone(), seconds: next.saturating_sub(*at).as_secs_f64() })
    };
    healed.iter().filter_map(gap).max_by(|a, b| a.seconds.total_cmp(&b.seconds))
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests;
