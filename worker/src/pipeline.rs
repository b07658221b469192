//! `Pipeline`: what is done for one job between receipt and settlement: claim, source, render, publish.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use job::{Failure, FailureCode, ImageInfo, Job, RenditionInfo, SourceInfo, Status, rendition_key};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::circuit::Pass;
use crate::claim::{Claimant, Claimed, Held, WriteError, claim};
use crate::disposition::Outcome;
use crate::error::{Class, JobError, Kind};
use crate::job_list::JobList;
use crate::metrics::{self, Step};
use crate::notices::Notices;
use crate::render::{Provenance, RenderError, Rendered, Rendition};
use crate::renderer::Renderer;
use crate::source::{Paid, SourceMaker};
use crate::store::{ObjectStore, StoreError};
use crate::traces;

/// Where the time comes from; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Undecodable pictures are asked for again this often.
const MAX_GENERATIONS: u32 = 2;

/// Performs jobs. One per process, shared by all deliveries.
pub struct Pipeline {
    pub store: Arc<dyn ObjectStore>,
    pub sources: SourceMaker,
    pub list: JobList,
    pub notices: Notices,
    pub renderer: Arc<dyn Renderer>,
    /// Pictures that may be read back, rendered or waiting for a thread at once; see [`render_gate`].
    pub gate: Arc<Semaphore>,
    pub attempt_timeout: Duration,
    pub stopping: CancellationToken,
    pub clock: Clock,
}

/// What one attempt came to.
enum Attempt {
    /// The environment is at fault: hold the job and try again.
    Hold(JobError),
    Ended(Result<Outcome, JobError>),
}

/// Why a job was left before its end.
#[derive(Debug)]
pub enum Stop {
    /// Somebody else has written the record.
    Lost,
    /// This process stops, and the job had not been paid for.
    GivenBack,
    /// Its deadline had passed before it was paid for.
    Expired,
    Failed(JobError),
}

impl From<JobError> for Stop {
    fn from(error: JobError) -> Self {
        Self::Failed(error)
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Lost => Self::Lost,
            WriteError::Failed(error) => Self::Failed(error),
        }
    }
}

/// Makes the gate for a pool of `threads`.
///
/// It lets in enough pictures that no thread waits, and no more, whatever the number of slots.
pub fn render_gate(threads: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(threads * 2))
}

impl Pipeline {
    /// Performs `job` as far as possible for this delivery. `is_last` says that the queue will not hand it over again.
    /// While the environment is at fault, the job is held here and tried again.
    ///
    /// Safe to drop: a paid picture is checkpointed all the same, by a tracked task of its own.
    ///
    /// # Errors
    /// Transient ones; a permanent one ends in the record and is an [`Outcome`].
    pub async fn process(&self, job: &Job, claimant: &Claimant, is_last: bool) -> Result<Outcome, JobError> {
        let circuit = &self.sources.circuit;
        let mut was_held = false;
        loop {
            let admitted = async { if was_held { circuit.admit_again().await } else { circuit.admit().await } };
            let pass = tokio::select! {
                biased;
                pass = admitted => pass,
                () = self.stopping.cancelled() => return Ok(self.give_back(job, claimant, is_last).await),
            };
            match self.attempt(job, claimant, is_last, &pass).await {
                Attempt::Hold(error) => {
                    metrics::error(error.kind);
                    pass.failed(&error);
                    was_held = true;
                }
                Attempt::Ended(ended) => {
                    // Any other end says nothing about the model.
                    if matches!(ended, Ok(Outcome::Published | Outcome::Rejected(_))) {
                        pass.passed();
                    }
                    return self.told(job, ended).await;
                }
            }
        }
    }

    /// Tells of an end. Not told, the delivery comes back, and the next one finds the end and tells of it.
    async fn told(&self, job: &Job, ended: Result<Outcome, JobError>) -> Result<Outcome, JobError> {
        match ended {
            Ok(outcome) if outcome.is_end() => self.notices.tell(job).await.map(|()| outcome),
            ended => ended,
        }
    }

    /// Makes the record of a job that was held say where it goes: back into the queue, or to the dead-letter queue.
    ///
    /// Safe after a [`process`](Self::process) that was dropped: what that had written last is found.
    pub async fn give_back(&self, job: &Job, claimant: &Claimant, is_last: bool) -> Outcome {
        match claim(self.store.as_ref(), job, claimant, &*self.clock).await {
            Ok(Claimed::Held(held)) => {
                let ended = self.conclude(job, held, Err(Stop::GivenBack), is_last).await;
                self.told(job, ended).await.unwrap_or(Outcome::GivenBack)
            }
            Ok(Claimed::AlreadyFinal(record)) => {
                let told = self.told(job, Ok(Outcome::AlreadyFinal(record.status))).await;
                told.unwrap_or(Outcome::GivenBack)
            }
            Ok(Claimed::Elsewhere { for_at_most }) => Outcome::HeldElsewhere { for_at_most },
            Ok(Claimed::OtherSpec) => Outcome::KeyConflict,
            Ok(Claimed::Superseded) => Outcome::Superseded,
            // The store may be what is down; then the claim runs out by itself.
            Err(_) => Outcome::GivenBack,
        }
    }

    async fn attempt(&self, job: &Job, claimant: &Claimant, is_last: bool, pass: &Pass) -> Attempt {
        let claiming = claim(self.store.as_ref(), job, claimant, &*self.clock).instrument(traces::step("claim"));
        let mut held = match claiming.await {
            Ok(Claimed::Held(held)) => held,
            Ok(Claimed::AlreadyFinal(record)) => {
                // It ended before any worker began it, so none has entered it.
                if record.attempts == 0 {
                    self.list.enter(&record);
                }
                return Attempt::Ended(Ok(Outcome::AlreadyFinal(record.status)));
            }
            Ok(Claimed::Elsewhere { for_at_most }) => {
                return Attempt::Ended(Ok(Outcome::HeldElsewhere { for_at_most }));
            }
            Ok(Claimed::OtherSpec) => return Attempt::Ended(Ok(Outcome::KeyConflict)),
            Ok(Claimed::Superseded) => return Attempt::Ended(Ok(Outcome::Superseded)),
            Err(error) if pass.blames_environment(&error, &job.id) => return Attempt::Hold(error),
            Err(error) => return Attempt::Ended(Err(error)),
        };
        self.list.enter(held.record());
        if held.is_new() {
            metrics::waited_in_queue(held.record().timings.queue_wait_seconds.unwrap_or_default());
        }
        match self.perform(job, &mut held).await {
            // The claim stays ours.
            Err(Stop::Failed(error)) if pass.blames_environment(&error, &job.id) => Attempt::Hold(error),
            ended => Attempt::Ended(self.conclude(job, held, ended, is_last).await),
        }
    }

    async fn perform(&self, job: &Job, held: &mut Held) -> Result<Outcome, Stop> {
        let mut paid = self.source(job, held, 1).await?;
        let rendered = loop {
            let info = paid.info.clone();
            let generate_seconds = paid.generate_seconds;
            let processing = |record: &mut job::Record| {
                record.status = Status::Processing;
                record.source = Some(info);
                record.timings.generate_seconds = generate_seconds.or(record.timings.generate_seconds);
            };
            held.advance(self.store.as_ref(), (self.clock)(), processing).await?;
            let generation = paid.info.generation;
            match self.render(job, paid).instrument(traces::step("render")).await? {
                Ok(rendered) => break rendered,
                Err(undecodable) if generation < MAX_GENERATIONS => {
                    tracing::warn!(error = %undecodable, "source cannot be decoded, asking for one more");
                    paid = self.source(job, held, generation + 1).await?;
                }
                Err(undecodable) => {
                    return Err(JobError::new(Kind::SourceUndecodable, undecodable.to_string()).into());
                }
            }
        };
        self.publish(job, held, rendered).instrument(traces::step("publish")).await
    }

    /// Returns the checkpointed source of this generation or a later one, or pays for one.
    async fn source(&self, job: &Job, held: &mut Held, generation: u32) -> Result<Paid, Stop> {
        // Nobody writes a source without a claim, so a record that we have just created has none.
        if !held.is_new()
            && let Some(source) = self.sources.earlier(job, held, generation, &self.stopping).await?
        {
            tracing::info!(source.generation = source.info.generation, "source found, not paying again");
            return Ok(Paid { info: source.info, bytes: Some(source.bytes), generate_seconds: None });
        }
        self.sources.make(job, held, generation, &self.stopping).await
    }

    /// Renders when there is room. The inner error means that the source is at fault.
    async fn render(&self, job: &Job, paid: Paid) -> Result<Result<Rendered, RenderError>, JobError> {
        let provenance = Provenance::from(&paid.info);
        let work = async {
            let _turn = Arc::clone(&self.gate).acquire_owned().await.expect("the gate is never closed");
            let source = match paid.bytes {
                Some(bytes) => bytes,
                None => self.read_back(job, &paid.info).await?,
            };
            self.renderer.render(source, job.spec.renditions(), &provenance).await
        };
        let timed_out = |_| JobError::new(Kind::AttemptTimedOut, "rendering did not end in time");
        match tokio::time::timeout(self.attempt_timeout, work).await.map_err(timed_out)?? {
            Err(RenderError::Encode(detail)) => Err(JobError::new(Kind::RenderFailed, detail)),
            ended => Ok(ended),
        }
    }

    async fn read_back(&self, job: &Job, info: &SourceInfo) -> Result<Bytes, JobError> {
        let found = self.store.read_source(&job.id).await?;
        let source = found.ok_or_else(|| {
            JobError::new(Kind::StoreUnavailable, format!("checkpoint of {} bytes has gone", info.bytes))
        })?;
        Ok(source.bytes)
    }

    /// Pictures first, then the record: whoever reads the record finds them.
    async fn publish(&self, job: &Job, held: &mut Held, rendered: Rendered) -> Result<Outcome, Stop> {
        metrics::step_took(Step::Decode, rendered.decode);
        metrics::step_took(Step::Resize, rendered.resize);
        metrics::step_took(Step::Encode, rendered.encode);
        let standard = info(job, &rendered.rendition);
        let image = ImageInfo {
            key: standard.key,
            width: standard.width,
            height: standard.height,
            bytes: standard.bytes,
            content_type: standard.content_type,
            sha256: standard.sha256,
            thumbhash: rendered.thumbhash,
        };
        let renditions: Vec<RenditionInfo> = rendered.extra.iter().map(|rendition| info(job, rendition)).collect();
        let size = image.bytes + renditions.iter().map(|rendition| rendition.bytes).sum::<u64>();
        let render_seconds = (rendered.decode + rendered.resize + rendered.encode).as_secs_f64();
        let pictures: Vec<Rendition> = std::iter::once(rendered.rendition).chain(rendered.extra).collect();
        let started = Instant::now();
        self.write_images(job, held, &pictures).await?;
        let took = started.elapsed();
        metrics::step_took(Step::Publish, took);
        held.finish(self.store.as_ref(), (self.clock)(), Status::Succeeded, |record| {
            record.image = Some(image);
            record.renditions = renditions;
            record.error = None;
            record.timings.render_seconds = Some(render_seconds);
            record.timings.upload_seconds = Some(took.as_secs_f64());
        })
        .await?;
        metrics::published(size);
        Ok(Outcome::Published)
    }

    /// Writes the pictures, over others only while the claim is ours: a worker that lost it must not change the bytes that
    /// the record of its successor describes.
    async fn write_images(&self, job: &Job, held: &mut Held, pictures: &[Rendition]) -> Result<(), Stop> {
        let create =
            |picture: &Rendition| self.store.create_image(&job.id, picture.spec, picture.bytes.clone(), &job.trace);
        let created = join_all(pictures.iter().map(create)).await;
        let mut taken = Vec::new();
        for (picture, created) in pictures.iter().zip(created) {
            match created {
                Ok(()) => {}
                Err(StoreError::Failed(error)) => return Err(error.into()),
                // An attempt that died before its record, our own write repeated, or somebody who has published: the
                // record tells. A renewal of the claim that succeeds proves that nobody has, and from here on others
                // step back.
                Err(StoreError::Conflict) => taken.push(picture),
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        held.advance(self.store.as_ref(), (self.clock)(), |_| {}).await?;
        let write =
            |picture: &&Rendition| self.store.write_image(&job.id, picture.spec, picture.bytes.clone(), &job.trace);
        try_join_all(taken.iter().map(write)).await?;
        Ok(())
    }

    /// Makes the record say how the attempt ended.
    async fn conclude(
        &self,
        job: &Job,
        mut held: Box<Held>,
        ended: Result<Outcome, Stop>,
        is_last: bool,
    ) -> Result<Outcome, JobError> {
        let store = self.store.as_ref();
        let now = (self.clock)();
        let error = match ended {
            Ok(outcome) => return Ok(outcome),
            Err(Stop::Lost) => return self.after_losing(job).await,
            Err(Stop::GivenBack) if is_last && self.told_before(job).await => {
                let failure = Failure::new(FailureCode::AttemptsExhausted, "given back at a shutdown");
                note(held.finish(store, now, Status::Failed, |record| record.error = Some(failure)).await);
                return Ok(Outcome::GivenBack);
            }
            Err(Stop::GivenBack) => {
                note(held.release(store, now, "shutdown").await);
                return Ok(Outcome::GivenBack);
            }
            Err(Stop::Expired) => {
                return match held.finish(store, now, Status::Expired, |_| {}).await {
                    Ok(()) => Ok(Outcome::Expired),
                    Err(WriteError::Lost) => self.after_losing(job).await,
                    Err(WriteError::Failed(error)) => Err(error),
                };
            }
            Err(Stop::Failed(error)) => error,
        };
        match error.class() {
            Class::Permanent => {
                let (status, code) = rejection(error.kind);
                let failure = Failure::new(code, error.detail.clone());
                match held.finish(store, now, status, |record| record.error = Some(failure)).await {
                    Ok(()) => Ok(Outcome::Rejected(code)),
                    Err(WriteError::Lost) => self.after_losing(job).await,
                    Err(WriteError::Failed(error)) => Err(error),
                }
            }
            Class::Transient if is_last && self.told_before(job).await => {
                let failure =
                    Failure::new(FailureCode::AttemptsExhausted, format!("last fault: {}", error.kind.as_str()));
                note(held.finish(store, now, Status::Failed, |record| record.error = Some(failure)).await);
                Err(error)
            }
            Class::Transient => {
                note(held.release(store, now, error.kind.as_str()).await);
                Err(error)
            }
            // Neither comes this far: the one is held, the other is not a job.
            Class::Misconfigured | Class::Poison => Err(error),
        }
    }

    /// Tells of an end that is about to be written, where no later delivery could. Otherwise it is not written: the
    /// reconciler finds the message among the dead letters, tells, and ends the job.
    async fn told_before(&self, job: &Job) -> bool {
        self.notices.tell(job).await.is_ok()
    }

    /// Finds out to whom the claim was lost.
    async fn after_losing(&self, job: &Job) -> Result<Outcome, JobError> {
        let Some((record, _)) = self.store.read_record(&job.id).await? else {
            return Err(JobError::new(Kind::StoreUnavailable, "the record has gone"));
        };
        if record.status.is_final() {
            return Ok(Outcome::AlreadyFinal(record.status));
        }
        let now = (self.clock)();
        let remaining = record.claim.map(|claim| claim.deadline_at.duration_since(now));
        let for_at_most = remaining.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        Ok(Outcome::HeldElsewhere { for_at_most })
    }
}

/// Returns what the record says of a picture.
fn info(job: &Job, rendition: &Rendition) -> RenditionInfo {
    RenditionInfo {
        key: rendition_key(&job.id, rendition.spec),
        width: rendition.spec.side(),
        height: rendition.spec.side(),
        bytes: rendition.bytes.len() as u64,
        content_type: rendition.spec.format().content_type().to_owned(),
        sha256: rendition.sha256.clone(),
    }
}

fn rejection(kind: Kind) -> (Status, FailureCode) {
    match kind {
        Kind::ContentFiltered => (Status::Blocked, FailureCode::ContentFiltered),
        Kind::SourceUndecodable => (Status::Failed, FailureCode::SourceUndecodable),
        _ => (Status::Failed, FailureCode::RequestRejected),
    }
}

/// A record that could not be brought up to date is no reason to treat the delivery in another way: its claim runs out.
fn note(written: Result<(), WriteError>) {
    if let Err(error) = written {
        tracing::warn!(?error, "record could not be brought up to date");
    }
}
