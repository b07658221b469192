//! Queues and messages across a restart: what is written down, and how it comes back.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::{RustackSqs, SqsSnapshot};
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::{ChangeMessageVisibilityInput, ReceiveMessageInput, SendMessageInput};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::journal::{self, Journal, Sent};
use super::queues::{LONGEST_VISIBILITY_SECONDS, Queues, now_ms, unwritten};

/// Ten is the most that one receive can return.
const LARGEST_RECEIVE: i32 = 10;

const QUEUES_FILE: &str = "queues.json";
const JOURNAL_FILE: &str = "journal.jsonl";

impl Queues {
    /// Opens the folder: creates its queues anew, then brings back their messages.
    pub(super) async fn open(
        provider: Arc<RustackSqs>,
        dir: Option<PathBuf>,
        local_addr: SocketAddr,
        stopping: CancellationToken,
    ) -> io::Result<Self> {
        let rest = RustackSqsHandler::new(Arc::clone(&provider));
        let Some(dir) = dir else {
            return Ok(Self {
                provider,
                rest,
                journal: Journal::in_memory(),
                sends: RwLock::new(()),
                dir: None,
                stopping,
            });
        };
        std::fs::create_dir_all(&dir)?;
        match std::fs::read(dir.join(QUEUES_FILE)) {
            Ok(bytes) => {
                let snapshot: SqsSnapshot = serde_json::from_slice(&bytes)?;
                provider.import_snapshot(snapshot).await.map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let path = dir.join(JOURNAL_FILE);
        let messages = journal::replay(&path)?;
        let journal = Journal::beside(&path)?;
        let queues = Self { provider, rest, journal, sends: RwLock::new(()), dir: Some(dir), stopping };
        queues.restore(messages, local_addr).await?;
        Journal::replace(&path)?;
        Ok(queues)
    }

    /// Sends every message again. The queue counts receives itself and has no way to be told a count, so a message that
    /// had been received n times takes part in n rounds of receiving and releasing everything.
    async fn restore(&self, messages: Vec<Sent>, local_addr: SocketAddr) -> io::Result<()> {
        let count = messages.len();
        let rounds = messages.iter().map(|sent| sent.receives).max().unwrap_or(0);
        let mut by_receives: HashMap<u32, Vec<Sent>> = HashMap::new();
        for sent in messages {
            by_receives.entry(sent.receives).or_default().push(sent);
        }
        let mut queue_urls: Vec<String> = Vec::new();
        for round in (0..=rounds).rev() {
            for mut sent in by_receives.remove(&round).unwrap_or_default() {
                let queue_url = format!("http://{local_addr}/000000000000/{}", sent.queue);
                let delay_seconds = sent.visible_at.saturating_sub(now_ms()).div_ceil(1000);
                let message = SendMessageInput {
                    queue_url: queue_url.clone(),
                    message_body: sent.body.clone(),
                    delay_seconds: Some(i32::try_from(delay_seconds).unwrap_or(i32::MAX)),
                    message_attributes: (sent.attributes.iter())
                        .map(|(name, value)| (name.clone(), value.clone().into()))
                        .collect(),
                    ..SendMessageInput::default()
                };
                match self.provider.send_message(message).await {
                    Ok(output) => {
                        let id = output.message_id.unwrap_or_default();
                        let before = std::mem::replace(&mut sent.id, id);
                        sent.first_id.get_or_insert(before);
                        self.journal.sent(sent)?;
                    }
                    Err(error) => tracing::warn!(queue = sent.queue, %error, "a kept message cannot be restored"),
                }
                if !queue_urls.contains(&queue_url) {
                    queue_urls.push(queue_url);
                }
            }
            if round > 0 {
                for queue_url in &queue_urls {
                    self.receive_and_release_all(queue_url).await.map_err(io::Error::other)?;
                }
            }
        }
        if count > 0 {
            tracing::info!(messages = count, "queued messages restored");
        }
        Ok(())
    }

    async fn receive_and_release_all(&self, queue_url: &str) -> Result<(), SqsError> {
        let mut receipts = Vec::new();
        loop {
            let input = ReceiveMessageInput {
                queue_url: queue_url.to_owned(),
                max_number_of_messages: Some(LARGEST_RECEIVE),
                visibility_timeout: Some(LONGEST_VISIBILITY_SECONDS),
                wait_time_seconds: Some(0),
                ..ReceiveMessageInput::default()
            };
            let messages = self.provider.receive_message(input).await?.messages;
            if messages.is_empty() {
                break;
            }
            receipts.extend(messages.into_iter().filter_map(|message| message.receipt_handle));
        }
        for receipt_handle in receipts {
            let release =
                ChangeMessageVisibilityInput { queue_url: queue_url.to_owned(), receipt_handle, visibility_timeout: 0 };
            self.provider.change_message_visibility(release).await?;
        }
        Ok(())
    }

    pub(super) async fn save_queues(&self) -> Result<(), SqsError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let snapshot = self.provider.export_snapshot().await?;
        let write = || {
            let temporary = dir.join("queues.new");
            std::fs::write(&temporary, serde_json::to_vec_pretty(&snapshot)?)?;
            std::fs::rename(&temporary, dir.join(QUEUES_FILE))
        };
        write().map_err(unwritten)
    }
}
