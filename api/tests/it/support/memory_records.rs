//! `MemoryRecords` behaves as the bucket; the others break in one way each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use api::store::{ETag, RecordStore, StoreError, WriteError};
use async_trait::async_trait;
use job::{JobId, Record};

#[derive(Default)]
pub(crate) struct MemoryRecords {
    records: Mutex<HashMap<JobId, (Record, ETag)>>,
    versions: AtomicU64,
    reads: AtomicUsize,
}

impl MemoryRecords {
    /// Writes a record as a worker does.
    pub(crate) fn put(&self, record: &Record) {
        let version = ETag(format!("\"{}\"", self.versions.fetch_add(1, Ordering::Relaxed)));
        self.records.lock().unwrap().insert(record.id, (record.clone(), version));
    }

    pub(crate) fn record(&self, id: &JobId) -> Option<Record> {
        self.records.lock().unwrap().get(id).map(|(record, _)| record.clone())
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl RecordStore for MemoryRecords {
    async fn read(&self, id: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.records.lock().unwrap().get(id).cloned())
    }

    async fn create(&self, record: &Record) -> Result<(), WriteError> {
        if self.record(&record.id).is_some() {
            return Err(WriteError::Conflict);
        }
        self.put(record);
        Ok(())
    }

    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError> {
        let version = self.records.lock().unwrap().get(&record.id).map(|(_, version)| version.clone());
        if version.as_ref() != Some(expected) {
            return Err(WriteError::Conflict);
        }
        self.put(record);
        Ok(())
    }
}

/// Fails every call.
pub(crate) struct BrokenRecords(pub(crate) StoreError);

#[async_trait]
impl RecordStore for BrokenRecords {
    async fn read(&self, _: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        Err(self.0.clone())
    }

    async fn create(&self, _: &Record) -> Result<(), WriteError> {
        Err(self.0.clone().into())
    }

    async fn replace(&self, _: &Record, _: &ETag) -> Result<(), WriteError> {
        Err(self.0.clone().into())
    }
}

/// Lets a worker write `rival` right before each of the first `rivals_left` writes.
pub(crate) struct ContendedRecords {
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) rival: Record,
    pub(crate) rivals_left: AtomicUsize,
}

impl ContendedRecords {
    fn let_rival_write(&self) {
        let left = self.rivals_left.load(Ordering::Relaxed);
        if left > 0 {
            self.rivals_left.store(left - 1, Ordering::Relaxed);
            self.records.put(&self.rival);
        }
    }
}

#[async_trait]
impl RecordStore for ContendedRecords {
    async fn read(&self, id: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        self.records.read(id).await
    }

    async fn create(&self, record: &Record) -> Result<(), WriteError> {
        self.let_rival_write();
        self.records.create(record).await
    }

    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError> {
        self.let_rival_write();
        self.records.replace(record, expected).await
    }
}

/// Panics at every read.
pub(crate) struct PanickingRecords;

#[async_trait]
impl RecordStore for PanickingRecords {
    async fn read(&self, _: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        panic!("the store met a defect");
    }

    async fn create(&self, _: &Record) -> Result<(), WriteError> {
        unreachable!("nothing is written before a read")
    }

    async fn replace(&self, _: &Record, _: &ETag) -> Result<(), WriteError> {
        unreachable!("nothing is written before a read")
    }
}
