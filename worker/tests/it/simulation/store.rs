//! The bucket of the world, and the port to it: conditional writes, and what must never be written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use job::{FailureCode, ImageInfo, IndexEntry, Job, JobId, Record, RenditionSpec, Status, TenantId, TraceContext};
use worker::error::{JobError, Kind};
use worker::store::{ETag, ObjectStore, Source, StoreError};

use super::plan::Service;
use super::process::{Process, Refusal};
use super::world::World;

/// What a call of the real adapter gives up after.
const TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Default)]
pub struct Objects {
    records: BTreeMap<usize, (Record, u64)>,
    sources: BTreeMap<usize, Source>,
    images: BTreeMap<usize, Bytes>,
    writes: u64,
}

impl Objects {
    pub fn record(&self, job: usize) -> Option<&Record> {
        self.records.get(&job).map(|(record, _)| record)
    }

    /// Returns how the picture that is there differs from what the record says of it.
    pub fn differs(&self, job: usize, told: &ImageInfo) -> Option<String> {
        match self.images.get(&job) {
            None => Some("there is none".to_owned()),
            Some(image) if checksum(image) != told.sha256 => {
                Some(format!("it is {}, the record tells of {}", checksum(image), told.sha256))
            }
            Some(_) => None,
        }
    }
}

/// Not a checksum, but as good as one: the simulated pictures are short.
pub fn checksum(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn etag(version: u64) -> ETag {
    ETag(format!("\"{version}\""))
}

impl World {
    fn write_record(&self, writer: &str, record: &Record, expected: Option<&ETag>) -> Result<ETag, StoreError> {
        let job = self.index_of(&record.id);
        let state = &mut *self.state();
        let found = state.objects.records.get(&job);
        if found.map(|(_, version)| etag(*version)).as_ref() != expected {
            state.seen.conflicts += 1;
            self.note(|| format!("{writer}: record of job {job} is not written, another version is there"));
            return Err(StoreError::Conflict);
        }
        let is_over = found.is_some_and(|(old, _)| {
            let exhausted = old.error.as_ref().is_some_and(|error| error.code == FailureCode::AttemptsExhausted);
            old.status.is_final() && !exhausted
        });
        self.note(|| format!("{writer}: record of job {job} is {:?}", record.status));
        if is_over {
            self.breach(state, format!("the final record of job {job} was written over"));
        }
        if record.status == Status::Succeeded {
            let told = record.image.as_ref();
            match told.map(|image| state.objects.differs(job, image)) {
                Some(None) => {}
                wrong => self.breach(state, format!("job {job} succeeded before its picture was there: {wrong:?}")),
            }
        }
        let token = |record: &Record| record.claim.as_ref().map(|claim| claim.token);
        let old = state.objects.records.get(&job).and_then(|(old, _)| token(old));
        if let (Some(old), Some(new)) = (old, token(record))
            && old != new
        {
            // Its process was frozen beyond the deadline of its claim.
            state.seen.cut_off_in_a_call += state.calls.write_off(|call| call.job == job && call.was_frozen);
        }
        state.objects.writes += 1;
        let version = state.objects.writes;
        state.objects.records.insert(job, (record.clone(), version));
        Ok(etag(version))
    }

    /// What the API does for `POST /v1/jobs/{id}/cancel`.
    pub fn cancel(&self, job: usize) {
        let found = self.state().objects.records.get(&job).map(|(record, version)| (record.clone(), etag(*version)));
        let now = self.now();
        let written = match found {
            None => {
                let Job { id, tenant, .. } = self.jobs[job].clone();
                self.write_record("API", &Record::canceled_before_start(id, tenant, now), None)
            }
            Some((record, _)) if record.status.is_final() => return,
            Some((mut record, etag)) => {
                record.finish(Status::Canceled, now);
                self.write_record("API", &record, Some(&etag))
            }
        };
        assert!(written.is_ok(), "nothing comes between");
    }

    fn write_source(&self, process: usize, job: usize, source: &Source) {
        self.note(|| format!("process {process}: source of job {job} is {:?}", source.bytes));
        let state = &mut *self.state();
        state.objects.sources.insert(job, source.clone());
        state.calls.saved(process, job);
    }

    fn write_image(&self, process: usize, job: usize, bytes: &Bytes, over: bool) -> Result<(), StoreError> {
        let state = &mut *self.state();
        if state.objects.images.contains_key(&job) {
            if !over {
                return Err(StoreError::Conflict);
            }
            state.seen.pictures_replaced += 1;
        }
        self.note(|| format!("process {process}: picture of job {job} is {bytes:?}"));
        state.objects.images.insert(job, bytes.clone());
        Ok(())
    }
}

/// The port of one process.
pub struct SimulatedStore(pub Arc<Process>);

fn refused(refusal: Refusal) -> JobError {
    match refusal {
        Refusal::Unavailable => JobError::new(Kind::StoreUnavailable, "simulated"),
        Refusal::Denied => JobError::new(Kind::AccessDenied, "simulated"),
    }
}

impl SimulatedStore {
    async fn ask<T, F>(&self, effect: F) -> Result<T, JobError>
    where
        T: Send + 'static,
        F: Fn(&World) -> T + Send + 'static,
    {
        let effect = move |world: &World| Ok(effect(world));
        self.0.call(Service::Store, TIMEOUT, effect, |refusal| Err(refused(refusal))).await
    }

    async fn write<T, F>(&self, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&World) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.call(Service::Store, TIMEOUT, effect, |refusal| Err(refused(refusal).into())).await
    }

    fn who(&self) -> String {
        format!("process {}", self.0.number)
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn read_record(&self, id: &JobId) -> Result<Option<(Record, ETag)>, JobError> {
        let job = self.0.world.index_of(id);
        let read = move |world: &World| {
            let found = world.state().objects.records.get(&job).cloned();
            found.map(|(record, version)| (record, etag(version)))
        };
        self.ask(read).await
    }

    async fn create_record(&self, record: &Record) -> Result<ETag, StoreError> {
        let (record, who) = (record.clone(), self.who());
        self.write(move |world| world.write_record(&who, &record, None)).await
    }

    async fn replace_record(&self, record: &Record, expected: &ETag) -> Result<ETag, StoreError> {
        let (record, expected, who) = (record.clone(), expected.clone(), self.who());
        self.write(move |world| world.write_record(&who, &record, Some(&expected))).await
    }

    async fn read_source(&self, id: &JobId) -> Result<Option<Source>, JobError> {
        let job = self.0.world.index_of(id);
        self.ask(move |world| world.state().objects.sources.get(&job).cloned()).await
    }

    async fn write_source(&self, id: &JobId, source: &Source) -> Result<(), JobError> {
        let (job, process, source) = (self.0.world.index_of(id), self.0.number, source.clone());
        self.ask(move |world| world.write_source(process, job, &source)).await
    }

    async fn create_image(
        &self,
        id: &JobId,
        _: RenditionSpec,
        encoded: Bytes,
        _: &TraceContext,
    ) -> Result<(), StoreError> {
        let (job, process) = (self.0.world.index_of(id), self.0.number);
        self.write(move |world| world.write_image(process, job, &encoded, false)).await
    }

    async fn write_image(
        &self,
        id: &JobId,
        _: RenditionSpec,
        encoded: Bytes,
        _: &TraceContext,
    ) -> Result<(), JobError> {
        let (job, process) = (self.0.world.index_of(id), self.0.number);
        let written = self.write(move |world| world.write_image(process, job, &encoded, true)).await;
        written.map_err(|error| match error {
            StoreError::Failed(error) => error,
            StoreError::Conflict => unreachable!("there is no condition"),
        })
    }

    async fn write_index(&self, _: &TenantId, _: &IndexEntry) -> Result<(), JobError> {
        self.ask(|_| ()).await
    }
}
