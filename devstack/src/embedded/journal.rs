//! The journal that lets queued messages outlive the process: one JSON line per send, receive and delete.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustack_sqs_model::types::MessageAttributeValue;
use serde::{Deserialize, Serialize};

/// A journal without live messages is emptied once it is longer than this.
const EMPTY_ABOVE_BYTES: u64 = 1024 * 1024;

/// A message that was sent and not deleted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    /// The queue's own id, also inside its receipt handles.
    pub(super) id: String,
    /// The id that clients know it by, when a restart gave it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first_id: Option<String>,
    pub(super) queue: String,
    pub(super) body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(super) attributes: HashMap<String, Attribute>,
    /// When it was sent, in milliseconds since the epoch.
    pub(super) sent_at: u64,
    /// When its delay is over, in milliseconds since the epoch.
    pub(super) visible_at: u64,
    /// How often it had been received from `queue` when this line was written.
    #[serde(default)]
    pub(super) receives: u32,
}

/// A message attribute; the model's own type has no equality.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Attribute {
    data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    string_value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary_value: Option<Vec<u8>>,
}

impl From<&MessageAttributeValue> for Attribute {
    fn from(value: &MessageAttributeValue) -> Self {
        Self {
            data_type: value.data_type.clone(),
            string_value: value.string_value.clone(),
            binary_value: value.binary_value.clone(),
        }
    }
}

impl From<Attribute> for MessageAttributeValue {
    fn from(value: Attribute) -> Self {
        Self { data_type: value.data_type, string_value: value.string_value, binary_value: value.binary_value }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Sent(Sent),
    Received { id: String, queue: String },
    Deleted { id: String },
}

/// What is remembered in memory of a live message.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) first_id: Option<String>,
    pub(super) queue: String,
    pub(super) group: Option<String>,
    pub(super) sent_at: u64,
    pub(super) receives: u32,
}

/// Appends to the journal file. A line is in the page cache before the call returns: it survives a kill of this
/// process, not a power failure.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None keeps messages in memory only.
    file: Option<File>,
    bytes: u64,
    live: HashMap<String, Live>,
}

impl Journal {
    /// Makes a journal that is not written anywhere.
    pub(super) fn in_memory() -> Self {
        Self { state: Mutex::new(State { file: None, bytes: 0, live: HashMap::new() }) }
    }

    /// Starts a new journal beside `path`; [`Journal::replace`] puts it into the place of the old one.
    pub(super) fn beside(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(successor(path))?;
        Ok(Self { state: Mutex::new(State { file: Some(file), bytes: 0, live: HashMap::new() }) })
    }

    /// Puts the journal written beside `path` into its place.
    pub(super) fn replace(path: &Path) -> io::Result<()> {
        std::fs::rename(successor(path), path)
    }

    pub(super) fn sent(&self, sent: Sent) -> io::Result<()> {
        let live = Live {
            first_id: sent.first_id.clone(),
            queue: sent.queue.clone(),
            group: sent.group.clone(),
            sent_at: sent.sent_at,
            receives: sent.receives,
        };
        let id = sent.id.clone();
        let mut state = self.lock();
        state.append(&Record::Sent(sent))?;
        state.live.insert(id, live);
        Ok(())
    }

    /// Notes a receive and returns what is known of the message; a receive from another queue than the last one tells
    /// that the message was moved to the dead-letter queue.
    pub(super) fn received(&self, id: &str, queue: &str) -> io::Result<Option<Live>> {
        let mut state = self.lock();
        let Some(live) = state.live.get_mut(id) else { return Ok(None) };
        live.receives = receives_after(&live.queue, live.receives, queue);
        queue.clone_into(&mut live.queue);
        let live = live.clone();
        state.append(&Record::Received { id: id.to_owned(), queue: queue.to_owned() })?;
        Ok(Some(live))
    }

    pub(super) fn deleted(&self, id: &str) -> io::Result<()> {
        let mut state = self.lock();
        if state.live.remove(id).is_none() {
            return Ok(());
        }
        if state.live.is_empty() && state.bytes > EMPTY_ABOVE_BYTES {
            return state.empty();
        }
        state.append(&Record::Deleted { id: id.to_owned() })
    }

    /// Deletes every message that `is_gone`.
    pub(super) fn purged(&self, is_gone: impl Fn(&Live) -> bool) -> io::Result<()> {
        let gone = |(id, live): (&String, &Live)| is_gone(live).then(|| id.clone());
        let ids: Vec<String> = self.lock().live.iter().filter_map(gone).collect();
        ids.iter().try_for_each(|id| self.deleted(id))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn empty(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.set_len(0)?;
            io::Seek::rewind(file)?;
            self.bytes = 0;
        }
        Ok(())
    }
}

/// The count starts anew in another queue: that is how the embedded queue moves messages.
fn receives_after(last_queue: &str, receives: u32, queue: &str) -> u32 {
    if last_queue == queue { receives + 1 } else { 1 }
}

fn successor(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Returns the messages that were sent and never deleted, in the order they were sent, each with the queue it was last
/// seen in. A kill can tear the last line; such a line is skipped with a warning, and so is any that does not parse.
pub(super) fn replay(path: &Path) -> io::Result<Vec<Sent>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut order: Vec<String> = Vec::new();
    let mut live: HashMap<String, Sent> = HashMap::new();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line?;
        let record = match serde_json::from_slice(&line) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(path = %path.display(), line = index + 1, %error, "journal line skipped");
                continue;
            }
        };
        match record {
            Record::Sent(sent) => {
                order.push(sent.id.clone());
                live.insert(sent.id.clone(), sent);
            }
            Record::Received { id, queue } => {
                if let Some(sent) = live.get_mut(&id) {
                    sent.receives = receives_after(&sent.queue, sent.receives, &queue);
                    sent.queue = queue;
                }
            }
            Record::Deleted { id } => {
                live.remove(&id);
            }
        }
    }
    Ok(order.into_iter().filter_map(|id| live.remove(&id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, queue: &str) -> Sent {
        Sent { id: id.into(), queue: queue.into(), body: format!("body of {id}"), sent_at: 7, ..Sent::default() }
    }

    fn written(write: impl FnOnce(&Journal)) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let journal = Journal::beside(&path).unwrap();
        write(&journal);
        Journal::replace(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_deleted_or_purged_does_not_come_back() {
        let (_dir, path) = written(|journal| {
            for id in ["a", "b", "c"] {
                journal.sent(sent(id, "jobs")).unwrap();
            }
            journal.sent(sent("other", "letters")).unwrap();
            journal.deleted("b").unwrap();
            journal.purged(|live| live.queue == "letters").unwrap();
        });
        let ids: Vec<String> = replay(&path).unwrap().into_iter().map(|sent| sent.id).collect();
        assert_eq!(ids, ["a", "c"]);
    }

    #[test]
    fn receives_are_counted_and_a_move_starts_the_count_anew() {
        let (_dir, path) = written(|journal| {
            journal.sent(sent("a", "jobs")).unwrap();
            journal.sent(sent("b", "jobs")).unwrap();
            for queue in ["jobs", "jobs", "dead"] {
                journal.received("a", queue).unwrap();
            }
            journal.received("b", "jobs").unwrap();
            assert!(journal.received("never sent", "jobs").unwrap().is_none());
        });
        let replayed = replay(&path).unwrap();
        assert_eq!((replayed[0].queue.as_str(), replayed[0].receives), ("dead", 1));
        assert_eq!((replayed[1].queue.as_str(), replayed[1].receives), ("jobs", 1));
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let (_dir, path) = written(|journal| journal.sent(sent("a", "jobs")).unwrap());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"sent":{"id":"b","qu"#).unwrap();
        let replayed = replay(&path).unwrap();
        assert_eq!(replayed, [sent("a", "jobs")]);
    }

    #[test]
    fn a_journal_without_live_messages_is_emptied() {
        let (_dir, path) = written(|journal| {
            let mut long = sent("a", "jobs");
            long.body = "x".repeat(usize::try_from(EMPTY_ABOVE_BYTES).unwrap());
            journal.sent(long).unwrap();
            journal.deleted("a").unwrap();
            journal.sent(sent("b", "jobs")).unwrap();
        });
        assert!(std::fs::metadata(&path).unwrap().len() < 1000);
        assert_eq!(replay(&path).unwrap(), [sent("b", "jobs")]);
    }

    #[test]
    fn no_file_is_an_empty_journal() {
        assert_eq!(replay(Path::new("/nonexistent/journal.jsonl")).unwrap(), []);
    }
}
