//! The model of the world, and the port to it: who calls for which job, and what that costs. And a renderer without pixels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use job::RenditionSpec;
use tokio::sync::oneshot;
use tokio::time::sleep;
use worker::error::{JobError, Kind};
use worker::generate::{GenerateRequest, Generator, SourceImage};
use worker::render::{Provenance, RenderError, Rendered, Rendition};
use worker::renderer::Renderer;

use super::plan::Service;
use super::process::{Life, Process, Refusal};
use super::store::checksum;
use super::world::{SLACK, World};

/// As in the settings.
const MODEL_TIMEOUT: Duration = Duration::from_secs(95);

/// Every call so far.
#[derive(Default)]
pub struct Calls {
    calls: Vec<Call>,
}

#[derive(Debug)]
pub struct Call {
    pub process: usize,
    pub job: usize,
    /// The model works on it.
    at_model: bool,
    /// It was paid for, and its picture is checkpointed nowhere.
    unsaved: bool,
    paid: bool,
    is_garbage: bool,
    /// Whoever made it was killed, cut off, or got no answer: the job may be paid for once more.
    written_off: bool,
    /// Its process was frozen while it was under way.
    pub was_frozen: bool,
    caller_waits: Arc<AtomicBool>,
}

impl Calls {
    /// Notes that these calls, if their picture is not safe yet, may have to be made again. Returns how many they are.
    pub fn write_off(&mut self, which: impl Fn(&Call) -> bool) -> u64 {
        let mut count = 0;
        for call in &mut self.calls {
            if (call.at_model || call.unsaved) && !call.written_off && which(call) {
                call.written_off = true;
                count += 1;
            }
        }
        count
    }

    /// Notes that what this process paid for is in the bucket.
    pub fn saved(&mut self, process: usize, job: usize) {
        for call in self.calls.iter_mut().filter(|call| call.process == process && call.job == job) {
            call.unsaved = false;
        }
    }

    /// Notes that what this process has under way stands still.
    pub fn freeze(&mut self, process: usize) {
        for call in self.calls.iter_mut().filter(|call| call.process == process && (call.at_model || call.unsaved)) {
            call.was_frozen = true;
        }
    }

    /// Returns (paid, allowed): one, one for each call written off, one for the first picture that could not be decoded.
    fn bill(&self, job: usize) -> (usize, usize) {
        let of_job = || self.calls.iter().filter(move |call| call.job == job);
        let garbage = usize::from(of_job().any(|call| call.is_garbage));
        (of_job().filter(|call| call.paid).count(), 1 + garbage + of_job().filter(|call| call.written_off).count())
    }
}

impl World {
    fn call_begins(&self, process: usize, job: usize, caller_waits: Arc<AtomicBool>) -> usize {
        let state = &mut *self.state();
        self.note(|| format!("process {process} calls the model for job {job}"));
        // It goes on after a pause in which its delivery went to somebody else, and does not know it yet.
        let cut_off = state.cut_off.get(&(process, job)).is_some_and(|at| at.elapsed() <= SLACK);
        let is_late = cut_off || !caller_waits.load(Ordering::SeqCst);
        let rival = state.calls.calls.iter().find(|other| {
            let excused = state.dead.contains(&other.process) || other.written_off;
            other.job == job && other.at_model && !excused && other.caller_waits.load(Ordering::SeqCst)
        });
        if let Some(rival) = rival.map(|rival| rival.process).filter(|_| !is_late) {
            self.breach(state, format!("processes {rival} and {process} call the model for job {job} at once"));
        }
        state.calls.calls.push(Call {
            process,
            job,
            at_model: true,
            unsaved: false,
            paid: false,
            is_garbage: false,
            written_off: is_late,
            was_frozen: false,
            caller_waits,
        });
        state.calls.calls.len() - 1
    }

    fn call_ends(&self, call: usize, paid: bool, is_garbage: bool, is_lost: bool) {
        let state = &mut *self.state();
        let one = &mut state.calls.calls[call];
        let is_lost = is_lost || !one.caller_waits.load(Ordering::SeqCst);
        (one.at_model, one.paid, one.is_garbage, one.unsaved) = (false, paid, is_garbage && paid, paid && !is_lost);
        let job = one.job;
        if paid {
            state.seen.paid += 1;
            if is_lost {
                one.written_off = true;
                state.seen.answers_lost += 1;
            }
            self.note(|| format!("job {job} is paid for"));
        }
        let (paid, allowed) = state.calls.bill(job);
        if paid > allowed {
            self.breach(state, format!("job {job} was paid for {paid} times, {allowed} allowed"));
        }
    }
}

/// The port of one process.
pub struct SimulatedGenerator(pub Arc<Process>);

enum Answer {
    Picture,
    Garbage,
    /// Paid for, and it never arrives.
    Lost,
    Fails(Kind),
}

impl SimulatedGenerator {
    fn answer(&self) -> Answer {
        let world = &self.0.world;
        let odds = world.odds();
        if world.coin(odds.model_fault) {
            const KINDS: [Kind; 7] = [
                Kind::ModelThrottled,
                Kind::ModelThrottled,
                Kind::ModelUnavailable,
                Kind::ModelFailed,
                Kind::ModelUnreachable,
                Kind::ContentFiltered,
                Kind::AccessDenied,
            ];
            return Answer::Fails(KINDS[world.index(KINDS.len())]);
        }
        if world.coin(odds.answer_lost) {
            Answer::Lost
        } else if world.coin(odds.garbage) {
            Answer::Garbage
        } else {
            Answer::Picture
        }
    }
}

#[async_trait]
impl Generator for SimulatedGenerator {
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        let (process, world) = (&self.0, &self.0.world);
        let job: usize = request.prompt.parse().unwrap();
        let does_one_more_thing = process.life() == Life::Frozen && world.coin(0.5);
        if !does_one_more_thing {
            process.running().await;
        }
        if let Some(refusal) = world.outage(Service::Model) {
            process.works_for(world.delay(1..500)).await;
            let kind = if refusal == Refusal::Denied { Kind::AccessDenied } else { Kind::ModelUnavailable };
            return Err(JobError::new(kind, "simulated"));
        }
        let answer = self.answer();
        let takes = world.delay(if world.coin(world.odds().slow) { 1..90_000 } else { 500..9_000 });
        let (sender, receiver) = oneshot::channel();
        let (caller, seed) = (Arc::clone(process), request.seed);
        let waits = Arc::new(AtomicBool::new(true));
        let caller_waits = Arc::clone(&waits);
        // The model goes on whatever becomes of the caller.
        tokio::spawn(async move {
            if caller.life() != Life::Running {
                caller.running().await;
            }
            let world = &caller.world;
            let call = world.call_begins(caller.number, job, caller_waits);
            if let Answer::Fails(kind) = answer {
                sleep(world.delay(1..2_000)).await;
                world.call_ends(call, false, false, false);
                drop(sender.send(Err(JobError::new(kind, "simulated"))));
                return;
            }
            sleep(takes).await;
            let (is_garbage, is_lost) = (matches!(answer, Answer::Garbage), matches!(answer, Answer::Lost));
            world.call_ends(call, true, is_garbage, is_lost);
            if is_lost {
                // Never answered: the caller gives up at its time-out.
                std::future::pending::<()>().await;
            }
            // No two are the same: two payments must not look like one.
            let bytes = Bytes::from(format!("{} of call {call}", if is_garbage { "garbage" } else { "picture" }));
            drop(sender.send(Ok(SourceImage { bytes, seed })));
        });
        let timed_out = || JobError::new(Kind::ModelTimedOut, "simulated");
        let answered = tokio::time::timeout(MODEL_TIMEOUT, receiver).await;
        waits.store(answered.is_ok(), Ordering::SeqCst);
        process.running().await;
        answered.map_err(|_| timed_out())?.unwrap_or_else(|_| Err(timed_out()))
    }

    fn model_id(&self) -> &str {
        "simulated"
    }

    fn max_seed(&self) -> u32 {
        u32::MAX
    }
}

/// Takes time and makes no pixels.
pub struct SimulatedRenderer(pub Arc<Process>);

#[async_trait]
impl Renderer for SimulatedRenderer {
    async fn render(
        &self,
        source: Bytes,
        _: &[RenditionSpec],
        _: &Provenance,
    ) -> Result<Result<Rendered, RenderError>, JobError> {
        let world = &self.0.world;
        self.0.works_for(world.delay(20..400)).await;
        if world.coin(world.odds().panic) {
            return Err(JobError::new(Kind::CpuTaskPanicked, "simulated"));
        }
        if source.starts_with(b"garbage") {
            return Ok(Err(RenderError::Undecodable("simulated".into())));
        }
        let bytes = Bytes::from([b"rendition of ".as_slice(), source.as_ref()].concat());
        let sha256 = checksum(&bytes);
        let rendition = Rendition { spec: RenditionSpec::STANDARD, bytes, sha256 };
        let none = Duration::ZERO;
        Ok(Ok(Rendered {
            rendition,
            extra: vec![],
            thumbhash: String::new(),
            decode: none,
            resize: none,
            encode: none,
        }))
    }
}
