//! `Batching`: what is asked for while a call is under way goes out together as the next call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// A call that takes many entries at once, such as `SendMessageBatch`.
#[async_trait]
pub trait BatchCall: Send + Sync + 'static {
    type Entry: Send + Sync + 'static;
    type Outcome: Send + 'static;

    /// Returns what an entry counts against [`Limits::weight`], in bytes.
    fn weight(&self, _entry: &Self::Entry) -> usize {
        0
    }

    /// Makes the call and returns one outcome for each entry, in their order. Must end by itself: nothing here stops it.
    async fn call(&self, entries: &[Self::Entry]) -> Vec<Self::Outcome>;

    /// Is told of an entry that nobody waits for any more: with its outcome, or with none if it was taken back before
    /// its call began.
    fn unheard(&self, _entry: &Self::Entry, _outcome: Option<Self::Outcome>) {}
}

/// How much goes where.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in one call.
    pub entries: usize,
    /// Weight of one call. An entry that is heavier goes alone.
    pub weight: usize,
    /// Calls under way at a time.
    pub calls: usize,
    /// Entries that wait for a call; one more is refused.
    pub waiting: usize,
    /// For how long a call under way holds back those that would share the next one.
    pub patience: Duration,
}

/// An entry has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoOutcome {
    /// It was never part of a call.
    #[error("too many are waiting already")]
    Full,
    /// Its call ended without a word about it; what has become of it is not known.
    #[error("the call gave no outcome for it")]
    Lost,
}

/// Collects entries into calls without a timer to wait for.
///
/// - An entry that comes while no call is under way is called at once, alone.
/// - What comes while one is under way shares the next, which begins when that one has ended, when it takes longer than
///   [`Limits::patience`], or when there is enough for a full one.
/// - Callers that stop waiting stop nobody else: their entry is left out, or its outcome goes to
///   [`BatchCall::unheard`].
pub struct Batching<C: BatchCall> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: BatchCall> {
    call: C,
    limits: Limits,
    state: Mutex<State<C>>,
    tasks: TaskTracker,
}

struct State<C: BatchCall> {
    waiting: VecDeque<Waiting<C>>,
    /// Of all that wait.
    weight: usize,
    under_way: usize,
    /// Of those under way, the ones that the waiting still hold back for.
    waited_for: usize,
}

struct Waiting<C: BatchCall> {
    entry: C::Entry,
    weight: usize,
    reply: oneshot::Sender<C::Outcome>,
}

/// The parts of a call, entry by entry.
type Batch<C> = (Vec<<C as BatchCall>::Entry>, Vec<oneshot::Sender<<C as BatchCall>::Outcome>>);

impl<C: BatchCall> Batching<C> {
    pub fn new(call: C, limits: Limits) -> Self {
        let state = State { waiting: VecDeque::new(), weight: 0, under_way: 0, waited_for: 0 };
        let tasks = TaskTracker::new();
        // Otherwise nobody could wait for it; tasks may be added all the same.
        tasks.close();
        Self { shared: Arc::new(Shared { call, limits, state: Mutex::new(state), tasks }) }
    }

    /// Has one entry called and returns its outcome.
    ///
    /// # Errors
    /// [`NoOutcome`].
    pub async fn ask(&self, entry: C::Entry) -> Result<C::Outcome, NoOutcome> {
        let reply = self.shared.put(entry);
        self.shared.begin();
        heard(reply).await
    }

    /// Has entries called, in as few calls as the limits allow, and returns one outcome for each, in their order.
    pub async fn ask_all(&self, entries: Vec<C::Entry>) -> Vec<Result<C::Outcome, NoOutcome>> {
        let replies: Vec<_> = entries.into_iter().map(|entry| self.shared.put(entry)).collect();
        self.shared.begin();
        let mut outcomes = Vec::with_capacity(replies.len());
        for reply in replies {
            outcomes.push(heard(reply).await);
        }
        outcomes
    }

    /// Waits until nothing is waiting and no call is under way.
    pub async fn drained(&self) {
        self.shared.tasks.wait().await;
    }
}

async fn heard<O>(reply: Result<oneshot::Receiver<O>, NoOutcome>) -> Result<O, NoOutcome> {
    reply?.await.map_err(|_| NoOutcome::Lost)
}

impl<C: BatchCall> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, entry: C::Entry) -> Result<oneshot::Receiver<C::Outcome>, NoOutcome> {
        let weight = self.call.weight(&entry);
        let (reply, heard) = oneshot::channel();
        let mut left_out = Vec::new();
        let put = {
            let mut state = self.lock();
            if state.waiting.len() >= self.limits.waiting {
                state.leave_out(&mut left_out);
            }
            if state.waiting.len() < self.limits.waiting {
                state.waiting.push_back(Waiting { entry, weight, reply });
                state.weight += weight;
                Ok(heard)
            } else {
                Err(NoOutcome::Full)
            }
        };
        self.tell_of(left_out);
        put
    }

    fn tell_of(&self, left_out: Vec<C::Entry>) {
        for entry in left_out {
            self.call.unheard(&entry, None);
        }
    }

    /// Begins every call that may begin now.
    fn begin(self: &Arc<Self>) {
        while let Some((entries, replies)) = self.next() {
            let flight = Flight { shared: Arc::clone(self), waited_for: true };
            self.tasks.spawn(flight.fly(entries, replies));
        }
    }

    /// Takes the next call's entries, if one may begin.
    fn next(&self) -> Option<Batch<C>> {
        let mut left_out = Vec::new();
        let batch = {
            let mut state = self.lock();
            self.take(&mut state, &mut left_out)
        };
        self.tell_of(left_out);
        batch
    }

    fn take(&self, state: &mut State<C>, left_out: &mut Vec<C::Entry>) -> Option<Batch<C>> {
        let Limits { entries: most, weight: heaviest, calls, .. } = self.limits;
        let is_full = state.waiting.len() >= most || state.weight >= heaviest;
        if state.under_way >= calls || (state.waited_for > 0 && !is_full) {
            return None;
        }
        let (mut entries, mut replies, mut weight) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = state.waiting.front() {
            if entries.len() == most || (!entries.is_empty() && weight + next.weight > heaviest) {
                break;
            }
            let Waiting { entry, weight: its, reply } = state.waiting.pop_front().expect("it was seen a line above");
            state.weight -= its;
            if reply.is_closed() {
                left_out.push(entry);
                continue;
            }
            weight += its;
            entries.push(entry);
            replies.push(reply);
        }
        if entries.is_empty() {
            return None;
        }
        state.under_way += 1;
        state.waited_for += 1;
        Some((entries, replies))
    }
}

impl<C: BatchCall> State<C> {
    /// Takes those out that nobody waits for.
    fn leave_out(&mut self, left_out: &mut Vec<C::Entry>) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.reply.is_closed() {
                self.weight -= waiting.weight;
                left_out.push(waiting.entry);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }
}

/// One call under way. However it ends, also by a panic, its place is free again and the next may begin.
struct Flight<C: BatchCall> {
    shared: Arc<Shared<C>>,
    waited_for: bool,
}

impl<C: BatchCall> Flight<C> {
    async fn fly(mut self, entries: Vec<C::Entry>, replies: Vec<oneshot::Sender<C::Outcome>>) {
        let shared = Arc::clone(&self.shared);
        let calling = shared.call.call(&entries);
        tokio::pin!(calling);
        let outcomes = match tokio::time::timeout(shared.limits.patience, &mut calling).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                self.let_the_next_go();
                calling.await
            }
        };
        drop(self);
        // An entry without an outcome is told so by its reply being dropped.
        for ((entry, reply), outcome) in entries.iter().zip(replies).zip(outcomes) {
            if let Err(outcome) = reply.send(outcome) {
                shared.call.unheard(entry, Some(outcome));
            }
        }
    }

    fn let_the_next_go(&mut self) {
        self.waited_for = false;
        self.shared.lock().waited_for -= 1;
        self.shared.begin();
    }
}

impl<C: BatchCall> Drop for Flight<C> {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.under_way -= 1;
            state.waited_for -= usize::from(self.waited_for);
        }
        self.shared.begin();
    }
}

#[cfg(test)]
mod tests;
