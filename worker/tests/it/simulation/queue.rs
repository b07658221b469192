//! The queue of the world, and the port to it: SQS with its rarer habits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use worker::queue::{Delivery, JobQueue, QueueError};

use super::plan::Service;
use super::process::{Process, Refusal};
use super::world::{LEASE, World};

pub const MAX_RECEIVE_COUNT: u32 = 5;
const LONG_POLL: Duration = Duration::from_secs(10);
/// What a call of the real adapter gives up after.
const TIMEOUT: Duration = Duration::from_secs(12);

#[derive(Default)]
pub struct Messages {
    messages: Vec<Message>,
    /// The jobs of the dead-letter queue.
    pub dead: Vec<usize>,
    sent: usize,
    receipts: u64,
}

#[derive(Debug, Clone)]
struct Message {
    id: usize,
    job: usize,
    visible_at: Instant,
    receive_count: u32,
    /// Those of the last hand-over; two if it was made twice.
    receipts: Vec<u64>,
    /// Who works on it, as far as the queue can know; two if it was handed over twice.
    holders: Vec<usize>,
    /// A copy is handed over as well.
    copy_is_out: bool,
    was_copied: bool,
    came_back: bool,
}

impl Messages {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    fn position(&self, receipt: u64) -> Option<usize> {
        self.messages.iter().position(|message| message.receipts.contains(&receipt))
    }

    fn next_visible(&self) -> Option<Instant> {
        self.messages.iter().map(|message| message.visible_at).min()
    }
}

impl World {
    pub fn send(&self, job: usize) {
        let state = &mut *self.state();
        let messages = &mut state.messages;
        messages.sent += 1;
        self.note(|| format!("message {} of job {job} is sent", messages.sent));
        messages.messages.push(Message {
            id: messages.sent,
            job,
            visible_at: Instant::now(),
            receive_count: 0,
            receipts: Vec::new(),
            holders: Vec::new(),
            copy_is_out: false,
            was_copied: false,
            came_back: false,
        });
        self.arrived.notify_waiters();
    }

    fn hand_over(&self, process: usize, max: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < max {
            let state = &mut *self.state();
            let due: Vec<usize> = (0..state.messages.len())
                .filter(|&at| state.messages.messages[at].visible_at <= now || state.messages.messages[at].copy_is_out)
                .collect();
            if due.is_empty() {
                break;
            }
            // In no order.
            let at = due[self.index(due.len())];
            let message = &mut state.messages.messages[at];
            let (is_copy, ended) = (message.visible_at > now, message.visible_at);
            let (id, job, was_copied) = (message.id, message.job, message.was_copied);
            if !is_copy {
                for holder in std::mem::take(&mut message.holders) {
                    self.note(|| format!("message {id} is taken from process {holder}"));
                    if !self.loses(state, holder, job, ended) && !was_copied {
                        self.breach(state, format!("process {holder} lost message {id} without any reason"));
                    }
                }
                if state.messages.messages[at].receive_count >= MAX_RECEIVE_COUNT {
                    self.note(|| format!("message {id} of job {job} is dead"));
                    state.messages.messages.remove(at);
                    state.messages.dead.push(job);
                    continue;
                }
            }
            state.messages.receipts += 1;
            let receipt = state.messages.receipts;
            let message = &mut state.messages.messages[at];
            if is_copy {
                message.copy_is_out = false;
                message.visible_at = message.visible_at.max(now + LEASE);
            } else {
                message.receive_count += 1;
                message.receipts.clear();
                message.visible_at = now + LEASE;
                (message.copy_is_out, message.was_copied) = (false, false);
                if self.coin(self.odds().copied) {
                    message.copy_is_out = true;
                    message.was_copied = true;
                    state.seen.copies += 1;
                }
            }
            message.receipts.push(receipt);
            message.holders.push(process);
            state.seen.hand_overs += 1;
            let receive_count = message.receive_count;
            self.note(|| {
                let copy = if is_copy { ", a copy" } else { "" };
                format!("message {id} of job {job} goes to process {process} (receive count {receive_count}{copy})")
            });
            taken.push(Delivery {
                body: self.jobs[job].encode(),
                receipt: receipt.to_string(),
                message_id: format!("message-{id}"),
                receive_count,
                sent_at: None,
            });
            // Fewer than there are, as SQS does with its samples.
            if self.index(3) == 0 {
                break;
            }
        }
        taken
    }

    fn set_visibility(&self, process: usize, receipt: u64, visibility: Duration) -> Result<(), QueueError> {
        let now = Instant::now();
        let state = &mut *self.state();
        let Some(at) = state.messages.position(receipt) else {
            return Err(QueueError::NotOurs("ReceiptHandleIsInvalid".into()));
        };
        let message = &mut state.messages.messages[at];
        if message.visible_at <= now {
            return Err(QueueError::NotOurs("MessageNotInflight".into()));
        }
        message.visible_at = now + visibility;
        let is_extension = visibility == LEASE;
        if !is_extension {
            // One of its two, if it has both hand-overs.
            if let Some(one) = message.holders.iter().position(|holder| *holder == process) {
                message.holders.remove(one);
            }
            self.note(|| format!("process {process} gives message {} back for {visibility:?}", message.id));
            self.arrived.notify_waiters();
        }
        Ok(())
    }

    fn delete(&self, process: usize, receipt: u64) {
        let state = &mut *self.state();
        // A stale receipt is in order, and deletes nothing.
        let Some(at) = state.messages.position(receipt) else { return };
        let message = state.messages.messages.remove(at);
        self.note(|| format!("process {process} deletes message {}", message.id));
        let is_final = state.objects.record(message.job).is_some_and(|record| record.status.is_final());
        if !is_final {
            self.breach(state, format!("job {} lost its message before its end", message.job));
        }
        if !message.came_back && self.coin(self.odds().undeleted) {
            state.seen.undeleted += 1;
            state.messages.messages.push(Message { came_back: true, holders: vec![], copy_is_out: false, ..message });
        }
    }

    /// A process that has drained holds nothing any more.
    pub fn check_drained(&self, process: usize) {
        let state = &mut *self.state();
        let now = Instant::now();
        let held: Vec<(usize, usize)> = state
            .messages
            .messages
            .iter()
            .filter(|message| message.holders.contains(&process) && message.visible_at > now && !message.was_copied)
            .map(|message| (message.id, message.job))
            .collect();
        for (id, job) in held {
            if !self.loses(state, process, job, now) {
                self.breach(state, format!("process {process} has drained and left message {id} invisible"));
            }
        }
    }

    async fn long_poll(&self) {
        let give_up = Instant::now() + LONG_POLL;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let now = Instant::now();
            let next = self.state().messages.next_visible();
            if next.is_some_and(|at| at <= now) || now >= give_up {
                return;
            }
            let wake = next.map_or(give_up, |at| at.min(give_up));
            tokio::select! {
                biased;
                () = arrived => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

/// The port of one process.
pub struct SimulatedQueue(pub Arc<Process>);

fn refused(refusal: Refusal) -> QueueError {
    match refusal {
        Refusal::Unavailable => QueueError::Unavailable("simulated".into()),
        Refusal::Denied => QueueError::Misconfigured("simulated".into()),
    }
}

#[async_trait]
impl JobQueue for SimulatedQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        self.0.world.long_poll().await;
        let process = self.0.number;
        let effect = move |world: &World| Ok(world.hand_over(process, max));
        self.0.call(Service::Queue, LONG_POLL + TIMEOUT, effect, |refusal| Err(refused(refusal))).await
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        let (process, receipt) = (self.0.number, receipt.parse().unwrap());
        let effect = move |world: &World| world.set_visibility(process, receipt, visibility);
        self.0.call(Service::Queue, TIMEOUT, effect, |refusal| Err(refused(refusal))).await
    }

    async fn delete(&self, receipt: &str) -> Result<(), QueueError> {
        let (process, receipt) = (self.0.number, receipt.parse().unwrap());
        let effect = move |world: &World| {
            world.delete(process, receipt);
            Ok(())
        };
        self.0.call(Service::Queue, TIMEOUT, effect, |refusal| Err(refused(refusal))).await
    }
}
