//! `MemoryQueue`: SQS as its documentation describes it, in memory and on tokio's clock.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use job::TenantId;
use tokio::sync::Notify;
use tokio::time::Instant;
use worker::lane::Entrance;
use worker::queue::{Delivery, JobQueue, MAX_RECEIVE, QueueError};

/// A queue with a dead-letter queue behind it.
pub struct MemoryQueue {
    state: Mutex<State>,
    arrived: Notify,
    lease: Duration,
    wait: Duration,
    max_receive_count: u32,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    dead: Vec<String>,
    sent: u64,
    handed_over: u64,
    /// Largest `max` asked for beyond which nothing may come back.
    faults: Vec<QueueError>,
    most_in_flight: usize,
    closed: Option<QueueError>,
}

struct Message {
    id: String,
    body: String,
    receipt: Option<String>,
    visible_at: Instant,
    receive_count: u32,
    sent_at: Timestamp,
}

impl MemoryQueue {
    pub fn new(lease: Duration, wait: Duration, max_receive_count: u32) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), lease, wait, max_receive_count }
    }

    pub fn send(&self, body: impl Into<String>) -> String {
        let mut state = self.state();
        state.sent += 1;
        let id = format!("message-{}", state.sent);
        state.messages.push(Message {
            id: id.clone(),
            body: body.into(),
            receipt: None,
            visible_at: Instant::now(),
            receive_count: 0,
            sent_at: Timestamp::now(),
        });
        drop(state);
        self.arrived.notify_waiters();
        id
    }

    /// The next receive fails like this.
    pub fn fail_next_receive(&self, error: QueueError) {
        self.state().faults.push(error);
    }

    /// Whatever changes lanes is refused from now on.
    pub fn close_entrance(&self, error: QueueError) {
        self.state().closed = Some(error);
    }

    /// What is put in is taken again.
    pub fn open_entrance(&self) {
        self.state().closed = None;
    }

    /// The bodies of all messages that were not deleted, in the order of their sending.
    pub fn bodies(&self) -> Vec<String> {
        self.state().messages.iter().map(|message| message.body.clone()).collect()
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.state().sent
    }

    /// Makes a message visible although somebody holds it, as a lost lease does.
    pub fn expire(&self, id: &str) {
        if let Some(message) = self.state().messages.iter_mut().find(|message| message.id == id) {
            message.visible_at = Instant::now();
        }
        self.arrived.notify_waiters();
    }

    /// Messages not deleted and not dead.
    pub fn len(&self) -> usize {
        self.state().messages.len()
    }

    pub fn visible(&self) -> usize {
        let now = Instant::now();
        self.state().messages.iter().filter(|message| message.visible_at <= now).count()
    }

    pub fn dead(&self) -> Vec<String> {
        self.state().dead.clone()
    }

    pub fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    pub fn receive_count(&self, id: &str) -> Option<u32> {
        self.state().messages.iter().find(|message| message.id == id).map(|message| message.receive_count)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(error) = state.faults.pop() {
            return Err(error);
        }
        let State { messages, dead, handed_over, most_in_flight, .. } = &mut *state;
        messages.retain(|message| {
            let spent = message.visible_at <= now && message.receive_count >= self.max_receive_count;
            if spent {
                dead.push(message.body.clone());
            }
            !spent
        });
        let mut taken = vec![];
        for message in messages.iter_mut().filter(|message| message.visible_at <= now).take(max.clamp(1, MAX_RECEIVE)) {
            *handed_over += 1;
            let receipt = format!("receipt-{handed_over}");
            message.receipt = Some(receipt.clone());
            message.receive_count += 1;
            message.visible_at = now + self.lease;
            taken.push(Delivery {
                body: message.body.clone(),
                receipt,
                message_id: message.id.clone(),
                receive_count: message.receive_count,
                sent_at: Some(message.sent_at),
            });
        }
        *most_in_flight = (*most_in_flight).max(messages.iter().filter(|message| message.visible_at > now).count());
        Ok(taken)
    }

    fn next_visible(&self) -> Option<Instant> {
        self.state().messages.iter().map(|message| message.visible_at).min()
    }
}

#[async_trait]
impl JobQueue for MemoryQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let give_up = Instant::now() + self.wait;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let taken = self.take(max)?;
            if !taken.is_empty() || Instant::now() >= give_up {
                return Ok(taken);
            }
            let wake = self.next_visible().map_or(give_up, |at| at.min(give_up));
            tokio::select! {
                () = arrived => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        let now = Instant::now();
        {
            let mut state = self.state();
            let held = state.messages.iter_mut().find(|message| message.receipt.as_deref() == Some(receipt));
            match held {
                Some(message) if message.visible_at > now => message.visible_at = now + visibility,
                Some(_) => return Err(QueueError::NotOurs("MessageNotInflight".into())),
                None => return Err(QueueError::NotOurs("ReceiptHandleIsInvalid".into())),
            }
        }
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn delete(&self, receipt: &str) -> Result<(), QueueError> {
        let mut state = self.state();
        let number = receipt.strip_prefix("receipt-").and_then(|number| number.parse::<u64>().ok());
        if number.is_none_or(|number| number > state.handed_over) {
            return Err(QueueError::NotOurs("ReceiptHandleIsInvalid".into()));
        }
        // A stale receipt is in order, and deletes nothing.
        state.messages.retain(|message| message.receipt.as_deref() != Some(receipt));
        Ok(())
    }
}

#[async_trait]
impl Entrance for MemoryQueue {
    async fn put(&self, body: String, _: &TenantId) -> Result<(), QueueError> {
        if let Some(error) = self.state().closed.clone() {
            return Err(error);
        }
        self.send(body);
        Ok(())
    }
}
