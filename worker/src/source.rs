//! `SourceMaker`: asks the model for a picture, once, and checkpoints it before anything can fail.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use job::{Job, JobId, SourceInfo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::circuit::Circuit;
use crate::claim::Held;
use crate::error::{Class, JobError, Kind};
use crate::generate::GenerateRequest;
use crate::metrics::{self, Step};
use crate::models::{Model, Models};
use crate::pipeline::{Clock, Stop};
use crate::store::{ObjectStore, Source};
use crate::traces;

/// A claim must outlast the model call by this much, so that the checkpoint fits in.
const CLAIM_MARGIN: Duration = Duration::from_secs(60);
/// How often a checkpoint is looked for that an earlier attempt may still bring.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Wait between two tries to checkpoint a paid picture.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(2);
/// A paid picture is worth waiting for a store that is down, but not for ever.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(1800);

/// Bound of the sources that wait in memory to be rendered: what is left of 1 GiB when the answers being received, the
/// pictures being rendered and the uploads have theirs (docs/benchmarks.md). Beyond it a source is dropped and read back
/// when it is its turn, which costs the CPU of one more download.
const KEPT_BYTES: usize = 320 << 20;
/// The bound is counted in these.
const KEPT_UNIT: usize = 1024;

/// Makes the room for sources that wait.
pub fn room_for_sources() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(KEPT_BYTES / KEPT_UNIT))
}

/// A source that has been paid for and checkpointed.
#[derive(Debug)]
pub struct Paid {
    pub info: SourceInfo,
    /// Absent when there was no room to keep them: read them back from the checkpoint.
    pub bytes: Option<Bytes>,
    /// How long the model took, if it was asked now.
    pub generate_seconds: Option<f64>,
}

/// Makes sources. Shared by all deliveries.
#[derive(Clone)]
pub struct SourceMaker {
    pub store: Arc<dyn ObjectStore>,
    pub models: Models,
    pub circuit: Circuit,
    /// Where the paid calls run: tracked, so that a stop waits for them, and not dropped with the delivery.
    pub tasks: TaskTracker,
    /// See [`room_for_sources`].
    pub room: Arc<Semaphore>,
    pub model_timeout: Duration,
    pub clock: Clock,
}

impl SourceMaker {
    /// Reads the checkpoint of an earlier attempt, and waits for one that a call under way may still bring: the worker that
    /// lost its delivery to us may be alive, and its call is paid for. Not one of a generation before this.
    ///
    /// # Errors
    /// When the store cannot be read, or this process stops while it waits.
    pub async fn earlier(
        &self,
        job: &Job,
        held: &Held,
        generation: u32,
        stopping: &CancellationToken,
    ) -> Result<Option<Source>, Stop> {
        let wait = held.earlier_call((self.clock)());
        let deadline = Instant::now() + wait;
        if !wait.is_zero() {
            tracing::info!(at_most_ms = wait.as_millis(), "an earlier call may be under way, looking for its picture");
        }
        loop {
            let found = self.store.read_source(&job.id).instrument(traces::step("read source")).await?;
            if let Some(source) = found.filter(|source| source.info.generation >= generation) {
                return Ok(Some(source));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let next = deadline.min(Instant::now() + LOOK_AGAIN);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = stopping.cancelled() => return Err(Stop::GivenBack),
            }
        }
    }

    /// Waits for the limiter, pays for one picture and checkpoints it. Throttled calls were not paid for and wait here,
    /// under the lease, instead of burning a receive count.
    ///
    /// # Errors
    /// When the job expired, was canceled, or this process stops while it waits; when the model does not deliver.
    pub async fn make(
        &self,
        job: &Job,
        held: &mut Held,
        generation: u32,
        stopping: &CancellationToken,
    ) -> Result<Paid, Stop> {
        loop {
            let choice = self.models.choose();
            let model = choice.model.clone();
            let max_seed = model.generator.max_seed();
            let request = GenerateRequest {
                prompt: job.spec.prompt().to_owned(),
                negative_prompt: job.spec.negative_prompt().map(str::to_owned),
                // The same seed would give the same undecodable picture.
                seed: reseed(job.model_seed(max_seed), generation, max_seed),
            };
            tokio::select! {
                biased;
                () = model.limiter.acquire(held.lane()).instrument(traces::step("limit")) => {}
                () = stopping.cancelled() => return Err(Stop::GivenBack),
            }
            loop {
                let now = (self.clock)();
                if job.is_expired(now) {
                    return Err(Stop::Expired);
                }
                if held.covers_a_call(self.model_timeout + CLAIM_MARGIN, now) {
                    break;
                }
                // Once more if the store takes so long that the claim is no longer fresh when it is written.
                held.advance(self.store.as_ref(), now, |_| {}).await?;
            }
            // A task of its own: the call is paid for even if the lease is lost or the attempt is over, so it ends in a
            // checkpoint that the next attempt finds.
            let call = self.clone().pay(job.id, model.clone(), request, generation).in_current_span();
            let paid = self.tasks.spawn(call).await.unwrap_or_else(|panic| {
                Err(JobError::new(Kind::ModelAnswerMalformed, format!("reading the answer panicked: {panic}")))
            });
            match paid {
                Err(error) if error.kind == Kind::ModelThrottled => {
                    model.limiter.throttled(error.retry_after);
                    choice.answered();
                }
                Err(error) => {
                    if !choice.failed(&error, &job.id) {
                        return Err(error.into());
                    }
                    metrics::error(error.kind);
                }
                Ok(checkpointed) => {
                    choice.answered();
                    return Ok(checkpointed?);
                }
            }
        }
    }

    /// The outer error is the model's. The inner one is the store's, of a picture that was paid for: nobody else is to be
    /// asked for it.
    async fn pay(
        self,
        id: JobId,
        model: Model,
        request: GenerateRequest,
        generation: u32,
    ) -> Result<Result<Paid, JobError>, JobError> {
        let started = Instant::now();
        let generator = &model.generator;
        let answer = generator.generate(&request).instrument(traces::model_call(generator.model_id())).await;
        metrics::step_took(Step::Generate, started.elapsed());
        metrics::model_called(match &answer {
            Ok(_) => "picture",
            Err(error) if error.kind == Kind::ModelThrottled => "throttled",
            Err(error) if error.kind == Kind::ContentFiltered => "refused",
            Err(_) => "failed",
        });
        let image = answer?;
        model.limiter.succeeded();
        let generate_seconds = started.elapsed().as_secs_f64();
        let info = SourceInfo {
            model: generator.model_id().to_owned(),
            seed: image.seed,
            bytes: image.bytes.len() as u64,
            generation,
            made_at: Some((self.clock)()),
        };
        let source = Source { bytes: image.bytes, info };
        let checkpointed = self.checkpoint(&id, &source).instrument(traces::step("checkpoint")).await;
        Ok(checkpointed.map(|()| Paid {
            info: source.info,
            bytes: keep(source.bytes, &self.room),
            generate_seconds: Some(generate_seconds),
        }))
    }

    /// Writes the checkpoint, and does not give a paid picture up because the store is down for a while.
    async fn checkpoint(&self, id: &JobId, source: &Source) -> Result<(), JobError> {
        let started = Instant::now();
        let mut tripped = false;
        loop {
            match self.store.write_source(id, source).await {
                Ok(()) => break,
                Err(error) if started.elapsed() >= CHECKPOINT_PATIENCE => return Err(error),
                Err(error) => {
                    metrics::error(error.kind);
                    tracing::warn!(%error, "paid picture could not be checkpointed, trying again");
                    if error.class() == Class::Misconfigured {
                        tripped = true;
                        self.circuit.trip(&error);
                    }
                }
            }
            tokio::time::sleep(CHECKPOINT_RETRY).await;
        }
        if tripped {
            self.circuit.recovered();
        }
        metrics::step_took(Step::Checkpoint, started.elapsed());
        Ok(())
    }
}

/// Returns bytes that take up room until the last of their clones is dropped, or none when there is not enough.
fn keep(bytes: Bytes, room: &Arc<Semaphore>) -> Option<Bytes> {
    let units = u32::try_from(bytes.len().div_ceil(KEPT_UNIT)).ok()?;
    let room = Arc::clone(room).try_acquire_many_owned(units).ok()?;
    Some(Bytes::from_owner(Kept { bytes, _room: room }))
}

struct Kept {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn reseed(seed: u32, generation: u32, max_seed: u32) -> u32 {
    let next = u64::from(seed) + u64::from(generation.saturating_sub(1));
    u32::try_from(next).ok().filter(|&seed| seed <= max_seed).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_kept_while_there_is_room() {
        let room = Arc::new(Semaphore::new(3));
        let source = Bytes::from(vec![7; 2 * KEPT_UNIT]);
        let first = keep(source.clone(), &room).unwrap();
        assert_eq!(first, source);
        assert_eq!(keep(source.clone(), &room), None);
        let clone = first.clone();
        drop(first);
        assert_eq!(room.available_permits(), 1);
        drop(clone);
        assert!(keep(source, &room).is_some());
    }

    #[test]
    fn another_generation_has_another_seed_in_range() {
        assert_eq!(reseed(7, 1, 100), 7);
        assert_eq!(reseed(7, 2, 100), 8);
        assert_eq!(reseed(100, 2, 100), 1);
        assert_eq!(reseed(u32::MAX, 2, u32::MAX), 1);
    }
}
