//! The steps of `worker/src/claim.rs`, `pipeline.rs` and `delivery.rs` as a `stateright` model, a conditional write apiece.

use jiff::Timestamp;
use job::Claim;
use stateright::{Model, Property};
use uuid::Uuid;

use super::state::{At, Hold, IDLE, Message, Phase, Record, State, Status, WORKERS, Worker};

/// What may happen how often.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Messages of the one job.
    pub messages: usize,
    /// Hand-overs of each before the dead-letter queue.
    pub max_receive_count: u8,
    /// Hand-overs that the queue makes twice.
    pub copies: u8,
    /// Workers killed; another process takes the place.
    pub crashes: u8,
    /// Workers that stop for longer than their lease and go on as if nothing had been.
    pub pauses: u8,
    /// Model calls that fail, unpaid.
    pub faults: u8,
    /// The protection that is left out.
    pub without: Option<Protection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `Claim::may_be_taken_over`.
    TakeOverRule,
    /// `If-None-Match` and `If-Match`.
    ConditionalWrite,
    /// `sources/{id}`.
    Checkpoint,
    /// `Lease`.
    LeaseExtension,
    ImageBeforeRecord,
    RecordBeforeDelete,
    /// The queue's visibility timeout.
    Redelivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Receive {
        worker: usize,
        message: usize,
    },
    /// The queue hands over a second time what it has just handed over.
    ReceiveCopy {
        worker: usize,
        message: usize,
    },
    /// The visibility timeout.
    RunsOut {
        message: usize,
    },
    /// A wait that a worker has set is over.
    IsDue {
        message: usize,
    },
    /// The deadline of a claim whose holder is dead.
    ClaimRunsOut,
    Step {
        worker: usize,
    },
    CallFails {
        worker: usize,
    },
    Crash {
        worker: usize,
    },
}

impl Protocol {
    fn lacks(&self, protection: Protection) -> bool {
        self.without == Some(protection)
    }

    /// Whether a delivery may take the claim, by the very code of the worker.
    fn may_take(&self, hold: Hold, worker: &Worker) -> bool {
        let (before, deadline, after) = (at(0), at(10), at(20));
        let claim = Claim {
            token: Uuid::from_u128(hold.token.into()),
            worker: String::new(),
            message_id: hold.message.to_string(),
            receive_count: hold.receive_count.into(),
            deadline_at: deadline,
        };
        let now = if hold.has_run_out { after } else { before };
        self.lacks(Protection::TakeOverRule)
            || hold.token == worker.token
            || claim.may_be_taken_over(&worker.message.to_string(), worker.receive_count.into(), now)
    }

    /// Writes the record if it still has the version that the worker knows.
    fn write(&self, state: &mut State, worker: usize, status: Status, image: Option<u8>) -> bool {
        let Worker { version, token, message, receive_count, .. } = state.workers[worker];
        if version != state.record.version && !self.lacks(Protection::ConditionalWrite) {
            return false;
        }
        let hold = Hold { token, message, receive_count, has_run_out: false };
        let claim = (status == Status::Working).then_some(hold);
        state.record = Record { version: state.record.version + 1, status, claim, image };
        state.workers[worker].version = state.record.version;
        true
    }

    fn receive(&self, state: &mut State, worker: usize, message: usize, is_copy: bool) {
        let it = &mut state.messages[message];
        if !is_copy && it.receive_count >= self.max_receive_count {
            (it.at, it.is_dead) = (At::Gone, true);
            return;
        }
        if !is_copy {
            (it.at, it.receive_count) = (At::Held, it.receive_count + 1);
        }
        let receive_count = it.receive_count;
        state.next_token += 1;
        let token = state.next_token;
        state.workers[worker] = Worker { phase: Phase::ReadRecord, message, receive_count, token, ..IDLE };
    }

    fn step(&self, state: &mut State, worker: usize) {
        let me = state.workers[worker];
        let next = match me.phase {
            Phase::Idle => Phase::Idle,
            Phase::ReadRecord => {
                state.workers[worker].version = state.record.version;
                match (state.record.status, state.record.claim) {
                    (Status::Succeeded, _) => Phase::Delete,
                    (_, Some(hold)) if !self.may_take(hold, &me) => {
                        state.stepped_back = true;
                        Phase::StepBack
                    }
                    _ => Phase::WriteClaim,
                }
            }
            Phase::WriteClaim => {
                let took_over = state.record.claim.is_some_and(|hold| hold.token != me.token);
                if self.write(state, worker, Status::Working, None) {
                    state.took_over |= took_over;
                    Phase::ReadSource
                } else {
                    Phase::ReadRecord
                }
            }
            Phase::ReadSource => match state.source {
                Some(picture) => {
                    state.found_the_source = true;
                    state.workers[worker].picture = picture;
                    Phase::Advance
                }
                None => {
                    state.calls += 1;
                    state.workers[worker].picture = state.calls;
                    // It was paused just before.
                    state.written_off += u8::from(me.is_cut_off);
                    Phase::Calling
                }
            },
            Phase::Calling => {
                state.paid += 1;
                Phase::WriteSource
            }
            Phase::WriteSource => {
                if !self.lacks(Protection::Checkpoint) {
                    state.source = Some(me.picture);
                }
                Phase::Advance
            }
            Phase::Advance => match self.write(state, worker, Status::Working, None) {
                true if self.lacks(Protection::ImageBeforeRecord) => Phase::Finish,
                true if self.lacks(Protection::RecordBeforeDelete) => Phase::Delete,
                true => Phase::CreateImage,
                false => Phase::AfterLosing,
            },
            Phase::CreateImage if state.image.is_some() => Phase::Renew,
            Phase::CreateImage | Phase::WriteImage => {
                state.image = Some(me.picture);
                if self.lacks(Protection::ImageBeforeRecord) { Phase::Delete } else { Phase::Finish }
            }
            Phase::Renew if self.write(state, worker, Status::Working, None) => Phase::WriteImage,
            Phase::Renew => Phase::AfterLosing,
            Phase::Finish => match self.write(state, worker, Status::Succeeded, Some(me.picture)) {
                true if self.lacks(Protection::ImageBeforeRecord) => Phase::CreateImage,
                true => Phase::Delete,
                false => Phase::AfterLosing,
            },
            Phase::Release => {
                let is_last = me.receive_count >= self.max_receive_count;
                self.write(state, worker, if is_last { Status::Exhausted } else { Status::Queued }, None);
                Phase::StepBack
            }
            Phase::AfterLosing => {
                state.lost_the_claim = true;
                if state.record.status == Status::Succeeded { Phase::Delete } else { Phase::StepBack }
            }
            Phase::Delete | Phase::StepBack => {
                self.settle(state, worker, me.phase == Phase::Delete);
                Phase::Idle
            }
        };
        if next == Phase::Idle {
            state.workers[worker] = IDLE;
        } else {
            state.workers[worker].phase = next;
        }
    }

    fn settle(&self, state: &mut State, worker: usize, delete: bool) {
        let Worker { message, is_cut_off, .. } = state.workers[worker];
        // A stale receipt does nothing.
        if is_cut_off || state.messages[message].at == At::Gone {
            return;
        }
        if delete {
            state.deleted_too_early |= state.record.status != Status::Succeeded;
            state.messages[message].at = At::Gone;
        } else {
            // Whoever else holds the same hand-over goes on extending it.
            let another_has_it = state.holders(message).any(|other| other != worker);
            state.messages[message].at = if another_has_it { At::Held } else { At::Waiting };
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let message = Message { at: At::Visible, receive_count: 0, is_dead: false };
        vec![State {
            messages: vec![message; self.messages],
            record: Record { version: 0, status: Status::None, claim: None, image: None },
            source: None,
            image: None,
            workers: [IDLE; WORKERS],
            next_token: 0,
            calls: 0,
            paid: 0,
            written_off: 0,
            copies: self.copies,
            crashes: self.crashes,
            pauses: self.pauses,
            faults: self.faults,
            took_over: false,
            stepped_back: false,
            lost_the_claim: false,
            found_the_source: false,
            deleted_too_early: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (message, it) in state.messages.iter().enumerate() {
            match it.at {
                At::Visible => {
                    let idle = (0..WORKERS).filter(|&worker| state.workers[worker].phase == Phase::Idle);
                    actions.extend(idle.map(|worker| Action::Receive { worker, message }));
                }
                At::Held => {
                    let idle = (0..WORKERS).filter(|&worker| state.workers[worker].phase == Phase::Idle);
                    if state.copies > 0 {
                        actions.extend(idle.map(|worker| Action::ReceiveCopy { worker, message }));
                    }
                    // The lease is extended while anybody alive holds it, unless everybody who does is paused.
                    let holders = u8::try_from(state.holders(message).count()).unwrap();
                    let runs_out = holders == 0 || state.pauses >= holders || self.lacks(Protection::LeaseExtension);
                    if runs_out && !self.lacks(Protection::Redelivery) {
                        actions.push(Action::RunsOut { message });
                    }
                }
                At::Waiting => actions.push(Action::IsDue { message }),
                At::Gone => {}
            }
        }
        if state.record.claim.is_some_and(|hold| !hold.has_run_out && !state.holder_is_alive(hold)) {
            actions.push(Action::ClaimRunsOut);
        }
        for worker in 0..WORKERS {
            let phase = state.workers[worker].phase;
            if phase != Phase::Idle {
                actions.push(Action::Step { worker });
                if state.crashes > 0 {
                    actions.push(Action::Crash { worker });
                }
            }
            if phase == Phase::Calling && state.faults > 0 {
                actions.push(Action::CallFails { worker });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Receive { worker, message } => self.receive(&mut state, worker, message, false),
            Action::ReceiveCopy { worker, message } => {
                state.copies -= 1;
                self.receive(&mut state, worker, message, true);
            }
            Action::RunsOut { message } => {
                let holders: Vec<usize> = state.holders(message).collect();
                for worker in holders {
                    if self.lacks(Protection::LeaseExtension) {
                        continue;
                    }
                    state.pauses -= 1;
                    state.write_off(worker);
                    state.workers[worker].is_cut_off = true;
                }
                state.messages[message].at = At::Visible;
            }
            Action::IsDue { message } => state.messages[message].at = At::Visible,
            Action::ClaimRunsOut => state.record.claim.as_mut()?.has_run_out = true,
            Action::Step { worker } => self.step(&mut state, worker),
            Action::CallFails { worker } => {
                state.faults -= 1;
                state.workers[worker].phase = Phase::Release;
            }
            Action::Crash { worker } => {
                state.crashes -= 1;
                if !state.workers[worker].is_cut_off {
                    state.write_off(worker);
                }
                state.workers[worker] = IDLE;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("paid_once", |_, state: &State| state.paid <= 1 + state.written_off),
            Property::always("one_call_at_a_time", |_, state: &State| {
                let calling = state.workers.iter().filter(|one| one.phase == Phase::Calling && !one.is_cut_off);
                calling.count() <= 1
            }),
            Property::always("url_after_object", |_, state: &State| {
                state.record.status != Status::Succeeded || state.record.image == state.image
            }),
            Property::always("deleted_only_when_final", |_, state: &State| !state.deleted_too_early),
            Property::always("job_ends", |protocol: &Self, state: &State| {
                let mut actions = vec![];
                protocol.actions(state, &mut actions);
                let is_final = matches!(state.record.status, Status::Succeeded | Status::Exhausted);
                let is_over = is_final || state.messages.iter().any(|message| message.is_dead);
                !actions.is_empty() || (is_over && state.messages.iter().all(|message| message.at == At::Gone))
            }),
            Property::sometimes("a_claim_is_taken_over", |_, state: &State| state.took_over),
            Property::sometimes("a_claim_is_lost", |_, state: &State| state.lost_the_claim),
            Property::sometimes("a_duplicate_steps_back", |_, state: &State| state.stepped_back),
            Property::sometimes("a_checkpoint_is_found", |_, state: &State| state.found_the_source),
        ]
    }
}
