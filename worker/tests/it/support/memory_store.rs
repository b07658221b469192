//! `MemoryStore`: S3's conditional writes in memory, with faults on request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use job::{IndexEntry, JobId, Record, RenditionSpec, TenantId, TraceContext, record_key, rendition_key};
use worker::error::JobError;
use worker::quota::{Sheet, TimetableStore, timetable_key};
use worker::store::{ETag, Listed, ObjectStore, Shelf, Source, StoreError};

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    ReadRecord,
    WriteRecord,
    ReadSource,
    WriteSource,
    WriteImage,
    WriteIndex,
    ReadControl,
}

#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: HashMap<JobId, (Record, u64)>,
    sources: HashMap<JobId, Source>,
    images: HashMap<(JobId, RenditionSpec), Bytes>,
    controls: BTreeMap<String, (Bytes, u64)>,
    index: BTreeSet<String>,
    index_writes: usize,
    writes: u64,
    faults: HashMap<Call, (usize, JobError)>,
    /// What clients could read, in order.
    history: Vec<Record>,
    /// Keys of pictures that a record told of before they were there.
    told_too_early: Vec<String>,
    lose_next_answer: bool,
    /// So many writes are refused with a conflict although nobody else writes.
    busy: usize,
    published_by_another: Option<(Record, Bytes)>,
    written_by_another: Option<Record>,
    /// How far the clocks of those who write records are ahead of this store's.
    writers_ahead: SignedDuration,
}

impl MemoryStore {
    /// The next `times` calls of this kind fail.
    pub fn fail(&self, call: Call, times: usize, error: JobError) {
        self.state().faults.insert(call, (times, error));
    }

    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// The next record is written, and the answer gets lost on the way.
    pub fn lose_next_answer(&self) {
        self.state().lose_next_answer = true;
    }

    /// The next `times` records are refused, as S3 does with 409 while another conditional write is under way.
    pub fn is_busy(&self, times: usize) {
        self.state().busy = times;
    }

    /// Just before the next picture is written, somebody else has published this one.
    pub fn publish_first(&self, record: Record, webp: Bytes) {
        self.state().published_by_another = Some((record, webp));
    }

    /// Just before the next record is written, somebody else has written this one.
    pub fn write_first(&self, record: Record) {
        self.state().written_by_another = Some(record);
    }

    /// From now on the store's own times of records are by so much before those that their writers put into them.
    pub fn is_behind_its_writers(&self, by: SignedDuration) {
        self.state().writers_ahead = by;
    }

    fn before_image(&self, id: &JobId) {
        let published = self.state().published_by_another.take();
        if let Some((record, webp)) = published {
            self.state().images.insert((*id, RenditionSpec::STANDARD), webp);
            self.put_record(record);
        }
    }

    pub fn put_image(&self, id: JobId, webp: Bytes) {
        self.state().images.insert((id, RenditionSpec::STANDARD), webp);
    }

    pub fn record(&self, id: &JobId) -> Option<Record> {
        self.state().records.get(id).map(|(record, _)| record.clone())
    }

    /// Writes a record as somebody else would.
    pub fn put_record(&self, record: Record) {
        let mut state = self.state();
        state.writes += 1;
        let version = state.writes;
        state.history.push(record.clone());
        state.records.insert(record.id, (record, version));
    }

    pub fn put_source(&self, id: JobId, source: Source) {
        self.state().sources.insert(id, source);
    }

    pub fn image(&self, id: &JobId) -> Option<Bytes> {
        self.rendition(id, RenditionSpec::STANDARD)
    }

    pub fn rendition(&self, id: &JobId, spec: RenditionSpec) -> Option<Bytes> {
        self.state().images.get(&(*id, spec)).cloned()
    }

    pub fn source(&self, id: &JobId) -> Option<Source> {
        self.state().sources.get(id).cloned()
    }

    pub fn history(&self) -> Vec<Record> {
        self.state().history.clone()
    }

    /// Returns the keys of all lists, in S3's order.
    pub fn index(&self) -> Vec<String> {
        self.state().index.iter().cloned().collect()
    }

    /// Returns how often an entry was to be written.
    pub fn index_writes(&self) -> usize {
        self.state().index_writes
    }

    /// Returns the keys of the pictures that a worker told clients of before they could be fetched.
    pub fn told_too_early(&self) -> Vec<String> {
        self.state().told_too_early.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn check(&self, call: Call) -> Result<(), JobError> {
        match self.state().faults.get_mut(&call) {
            Some((times, error)) if *times > 0 => {
                *times -= 1;
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    fn write(&self, record: &Record, allowed: impl Fn(Option<u64>) -> bool) -> Result<ETag, StoreError> {
        self.check(Call::WriteRecord)?;
        let by_another = self.state().written_by_another.take();
        if let Some(by_another) = by_another {
            self.put_record(by_another);
        }
        let mut state = self.state();
        let found = state.records.get(&record.id).map(|(_, version)| *version);
        if state.busy > 0 {
            state.busy -= 1;
            return Err(StoreError::Conflict);
        }
        if !allowed(found) {
            return Err(StoreError::Conflict);
        }
        let told = record.image.iter().map(|image| &image.key).chain(record.renditions.iter().map(|one| &one.key));
        let there: Vec<String> = state.images.keys().map(|(id, spec)| rendition_key(id, *spec)).collect();
        let early: Vec<String> = told.filter(|key| !there.contains(key)).cloned().collect();
        state.told_too_early.extend(early);
        state.writes += 1;
        let version = state.writes;
        state.history.push(record.clone());
        state.records.insert(record.id, (record.clone(), version));
        // The SDK repeats the call, and finds its own write in the way.
        if std::mem::take(&mut state.lose_next_answer) { Err(StoreError::Conflict) } else { Ok(etag(version)) }
    }
}

fn etag(version: u64) -> ETag {
    ETag(format!("\"{version}\""))
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn read_record(&self, id: &JobId) -> Result<Option<(Record, ETag)>, JobError> {
        self.check(Call::ReadRecord)?;
        Ok(self.state().records.get(id).map(|(record, version)| (record.clone(), etag(*version))))
    }

    async fn create_record(&self, record: &Record) -> Result<ETag, StoreError> {
        self.write(record, |found| found.is_none())
    }

    async fn replace_record(&self, record: &Record, expected: &ETag) -> Result<ETag, StoreError> {
        self.write(record, |found| found.is_some_and(|version| etag(version) == *expected))
    }

    async fn read_source(&self, id: &JobId) -> Result<Option<Source>, JobError> {
        self.check(Call::ReadSource)?;
        Ok(self.source(id))
    }

    async fn write_source(&self, id: &JobId, source: &Source) -> Result<(), JobError> {
        self.check(Call::WriteSource)?;
        self.put_source(*id, source.clone());
        Ok(())
    }

    async fn create_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        _: &TraceContext,
    ) -> Result<(), StoreError> {
        self.check(Call::WriteImage)?;
        self.before_image(id);
        let mut state = self.state();
        if state.images.contains_key(&(*id, spec)) {
            return Err(StoreError::Conflict);
        }
        state.images.insert((*id, spec), encoded);
        Ok(())
    }

    async fn write_image(
        &self,
        id: &JobId,
        spec: RenditionSpec,
        encoded: Bytes,
        _: &TraceContext,
    ) -> Result<(), JobError> {
        self.check(Call::WriteImage)?;
        self.state().images.insert((*id, spec), encoded);
        Ok(())
    }

    async fn write_index(&self, tenant: &TenantId, entry: &IndexEntry) -> Result<(), JobError> {
        self.state().index_writes += 1;
        self.check(Call::WriteIndex)?;
        self.state().index.insert(entry.key(tenant));
        Ok(())
    }
}

#[async_trait]
impl Shelf for MemoryStore {
    async fn list_records(&self, after: Option<&str>, max: usize) -> Result<Vec<Listed>, JobError> {
        let ahead = self.state().writers_ahead;
        let listed = |(record, _): &(Record, u64)| Listed {
            key: record_key(&record.id),
            modified_at: record.updated_at - ahead,
        };
        let mut found: Vec<Listed> = self.state().records.values().map(listed).collect();
        found.retain(|one| after.is_none_or(|after| one.key.as_str() > after));
        found.sort_by(|one, other| one.key.cmp(&other.key));
        found.truncate(max);
        Ok(found)
    }

    async fn read_control(&self, key: &str) -> Result<Option<(Bytes, ETag)>, JobError> {
        self.check(Call::ReadControl)?;
        Ok(self.state().controls.get(key).map(|(body, version)| (body.clone(), etag(*version))))
    }

    async fn write_control(&self, key: &str, body: Bytes, expected: Option<&ETag>) -> Result<ETag, StoreError> {
        let mut state = self.state();
        let found = state.controls.get(key).map(|(_, version)| etag(*version));
        if found.as_ref() != expected {
            return Err(StoreError::Conflict);
        }
        state.writes += 1;
        let version = state.writes;
        state.controls.insert(key.to_owned(), (body, version));
        Ok(etag(version))
    }
}

#[async_trait]
impl TimetableStore for MemoryStore {
    async fn read_timetable(&self) -> Result<Sheet, JobError> {
        // Tests move their clocks, and this store has none of its own.
        Ok(Sheet { found: self.read_control(timetable_key()).await?, store_time: None })
    }

    async fn write_timetable(&self, body: Bytes, expected: Option<&ETag>) -> Result<(), StoreError> {
        self.write_control(timetable_key(), body, expected).await.map(drop)
    }
}
