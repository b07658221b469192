//! `MemoryRecords` behaves as the bucket; the others break in one way each.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use api::store::{ETag, RecordStore, StoreError, WriteError};
use async_trait::async_trait;
use job::{IndexEntry, JobId, Record, TenantId};

#[derive(Default)]
pub(crate) struct MemoryRecords {
    records: Mutex<HashMap<JobId, (Record, ETag)>>,
    /// Keys, in S3's order.
    index: Mutex<BTreeSet<String>>,
    lists: AtomicUsize,
    versions: AtomicU64,
    reads: AtomicUsize,
    unreadable: Mutex<BTreeSet<JobId>>,
}

impl MemoryRecords {
    /// Writes a record as a worker does.
    pub(crate) fn put(&self, record: &Record) {
        self.put_if(record, |_| true).expect("no condition");
    }

    /// Writes a record and its entry into the tenant's list, as a worker does.
    pub(crate) fn enter(&self, record: &Record) {
        self.put(record);
        let entry = IndexEntry::new(record.id, record.submitted_at.unwrap());
        self.index.lock().unwrap().insert(entry.key(&record.tenant));
    }

    /// Takes a record away, as a lifecycle rule does.
    pub(crate) fn expire(&self, id: &JobId) {
        self.records.lock().unwrap().remove(id);
    }

    /// Makes a record one that nobody can read.
    pub(crate) fn spoil(&self, id: &JobId) {
        self.unreadable.lock().unwrap().insert(*id);
    }

    /// Returns how many pages were listed.
    pub(crate) fn lists(&self) -> usize {
        self.lists.load(Ordering::Relaxed)
    }

    fn put_if(&self, record: &Record, allowed: impl FnOnce(Option<&ETag>) -> bool) -> Result<(), WriteError> {
        let mut records = self.records.lock().unwrap();
        if !allowed(records.get(&record.id).map(|(_, version)| version)) {
            return Err(WriteError::Conflict);
        }
        let version = ETag(format!("\"{}\"", self.versions.fetch_add(1, Ordering::Relaxed)));
        records.insert(record.id, (record.clone(), version));
        Ok(())
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
        if self.unreadable.lock().unwrap().contains(id) {
            return Err(StoreError::Unreadable(format!("{id}: line 1, column 6")));
        }
        Ok(self.records.lock().unwrap().get(id).cloned())
    }

    async fn create(&self, record: &Record) -> Result<(), WriteError> {
        self.put_if(record, |there| there.is_none())
    }

    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError> {
        self.put_if(record, |there| there == Some(expected))
    }

    async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&IndexEntry>,
        max: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let index = self.index.lock().unwrap();
        let all = index.iter().filter_map(|key| IndexEntry::of_key(key, tenant));
        Ok(all.filter(|entry| after.is_none_or(|after| entry > after)).take(max).collect())
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

    async fn list(&self, _: &TenantId, _: Option<&IndexEntry>, _: usize) -> Result<Vec<IndexEntry>, StoreError> {
        Err(self.0.clone())
    }
}

/// Fails reads while it is told to.
#[derive(Default)]
pub(crate) struct FaultyRecords {
    pub(crate) records: Arc<MemoryRecords>,
    fails: AtomicBool,
    failed: AtomicUsize,
}

impl FaultyRecords {
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Returns how many reads have failed.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl RecordStore for FaultyRecords {
    async fn read(&self, id: &JobId) -> Result<Option<(Record, ETag)>, StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Unavailable("for a while".to_owned()));
        }
        self.records.read(id).await
    }

    async fn create(&self, record: &Record) -> Result<(), WriteError> {
        self.records.create(record).await
    }

    async fn replace(&self, record: &Record, expected: &ETag) -> Result<(), WriteError> {
        self.records.replace(record, expected).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&IndexEntry>,
        max: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        self.records.list(tenant, after, max).await
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

    async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&IndexEntry>,
        max: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        self.records.list(tenant, after, max).await
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

    async fn list(&self, _: &TenantId, _: Option<&IndexEntry>, _: usize) -> Result<Vec<IndexEntry>, StoreError> {
        panic!("the store met a defect");
    }
}
