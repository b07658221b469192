//! What the model knows of the world: messages, the record, the two objects, the workers, and what may still go wrong.

pub const WORKERS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub messages: Vec<Message>,
    pub record: Record,
    /// The call whose picture is checkpointed.
    pub source: Option<u8>,
    /// The call whose picture the CDN serves.
    pub image: Option<u8>,
    pub workers: [Worker; WORKERS],
    pub next_token: u8,
    pub calls: u8,
    pub paid: u8,
    /// Calls whose picture may be lost: under way when their worker was killed or cut off.
    pub written_off: u8,
    pub copies: u8,
    pub crashes: u8,
    pub pauses: u8,
    pub faults: u8,
    pub took_over: bool,
    pub stepped_back: bool,
    pub lost_the_claim: bool,
    pub found_the_source: bool,
    pub deleted_too_early: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    pub at: At,
    pub receive_count: u8,
    pub is_dead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    Visible,
    Held,
    Waiting,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// 0: there is none.
    pub version: u8,
    pub status: Status,
    pub claim: Option<Hold>,
    /// The picture that it tells of.
    pub image: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    None,
    Working,
    Queued,
    Succeeded,
    /// Attempts exhausted: a redrive may still end it well.
    Exhausted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hold {
    pub token: u8,
    pub message: usize,
    pub receive_count: u8,
    /// Its holder is dead, and its time is over.
    pub has_run_out: bool,
}

/// One worker, with one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub message: usize,
    pub receive_count: u8,
    pub token: u8,
    /// The version of the record that its next conditional write expects.
    pub version: u8,
    /// The call whose picture it has.
    pub picture: u8,
    /// Its delivery went to somebody else, and it does not know.
    pub is_cut_off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    ReadRecord,
    WriteClaim,
    ReadSource,
    Calling,
    WriteSource,
    Advance,
    CreateImage,
    Renew,
    WriteImage,
    Finish,
    /// The call failed: the record says that another attempt may follow, or that none does.
    Release,
    AfterLosing,
    Delete,
    StepBack,
}

pub const IDLE: Worker =
    Worker { phase: Phase::Idle, message: 0, receive_count: 0, token: 0, version: 0, picture: 0, is_cut_off: false };

impl State {
    /// Returns the workers that work on a delivery of `message` and have not lost it.
    pub fn holders(&self, message: usize) -> impl Iterator<Item = usize> {
        let workers = self.workers;
        (0..WORKERS).filter(move |&index| {
            let worker = workers[index];
            worker.phase != Phase::Idle && worker.message == message && !worker.is_cut_off
        })
    }

    /// Whether the holder of a claim can renew it.
    pub fn holder_is_alive(&self, hold: Hold) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.phase != Phase::Idle && !worker.is_cut_off && worker.token == hold.token)
    }

    /// Whether the URL shows a picture, and one of those that were paid for.
    pub fn shows_a_paid_picture(&self) -> bool {
        self.image.is_some_and(|call| (1..=self.calls).contains(&call))
    }

    /// Its call may have to be made again: it is under way, or its picture nowhere but in this worker.
    pub fn write_off(&mut self, worker: usize) {
        if matches!(self.workers[worker].phase, Phase::Calling | Phase::WriteSource) {
            self.written_off += 1;
        }
    }
}
