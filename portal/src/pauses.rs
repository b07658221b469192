//! `PauseWatch`: what operators have paused, asked of the API at a modest pace, for teachers to read with its reason.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use job::MAX_REASON_CHARS;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::client::ApiClient;
use crate::database::Database;

/// How often the API is asked while pictures are pending or something is paused.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// Whatever happens, it is not asked again before.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// What `GET /v1/queue` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Whether the API takes new jobs.
    pub intake: Part,
    /// Whether pictures are made.
    pub generation: Part,
}

/// One part of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Part {
    pub paused: bool,
    /// A sentence for people.
    pub reason: Option<String>,
    pub since: Option<Timestamp>,
}

impl Queue {
    /// Returns what a teacher is told; none while everything goes on.
    pub fn words(&self) -> Option<String> {
        let Self { intake, generation } = self;
        let (part, end) = if intake.paused {
            (intake, "Nothing is lost: your text is kept, and pictures are asked for as soon as it goes on.")
        } else if generation.paused {
            (generation, "Nothing is lost: what you ask for waits in the queue until it goes on.")
        } else {
            return None;
        };
        Some(format!("{} {end}", part.words()))
    }
}

impl Part {
    fn words(&self) -> String {
        let reason: String = self.reason.as_deref().unwrap_or_default().trim().chars().take(MAX_REASON_CHARS).collect();
        let mut words = match (reason.is_empty(), reason.ends_with(['.', '!', '?'])) {
            (true, _) => "Pictures are paused by those who run the picture service.".to_owned(),
            (false, true) => format!("Pictures are paused: {reason}"),
            (false, false) => format!("Pictures are paused: {reason}."),
        };
        if let Some(since) = self.since {
            // The server does not know the teacher's time zone.
            words.push_str(&since.strftime(" (Since %-d %B, %H:%M UTC.)").to_string());
        }
        words
    }
}

/// What is known, and how to have it looked at again.
#[derive(Debug, Clone)]
pub struct KnownPauses {
    known: watch::Receiver<Queue>,
    nudge: Arc<Notify>,
}

impl KnownPauses {
    /// Returns what the API has said last.
    pub fn queue(&self) -> Queue {
        self.known.borrow().clone()
    }

    /// Has the API asked now, and not at the next turn.
    pub fn look(&self) {
        self.nudge.notify_one();
    }
}

/// The task that asks.
#[derive(Debug, Clone)]
pub struct PauseWatch {
    database: Database,
    api: ApiClient,
    known: watch::Sender<Queue>,
    nudge: Arc<Notify>,
}

impl PauseWatch {
    /// Makes it, and what others need of it.
    pub fn new(database: Database, api: ApiClient) -> (Self, KnownPauses) {
        let (known, seen) = watch::channel(Queue::default());
        let nudge = Arc::new(Notify::new());
        let shared = KnownPauses { known: seen, nudge: Arc::clone(&nudge) };
        (Self { database, api, known, nudge }, shared)
    }

    /// Asks until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.turns()).await;
    }

    async fn turns(self) {
        let mut nudged = false;
        loop {
            if nudged || self.is_wanted().await {
                self.ask().await;
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
            nudged = tokio::time::timeout(ASK_EVERY - ASK_AGAIN_AFTER, self.nudge.notified()).await.is_ok();
        }
    }

    /// Whether there is a picture that waits, or a pause that may have ended.
    async fn is_wanted(&self) -> bool {
        let is_paused = self.known.borrow().words().is_some();
        is_paused || self.database.next_due_ms().await.ok().flatten().is_some()
    }

    async fn ask(&self) {
        // What is not known is not told: an outage has words of its own.
        let queue = self.api.queue().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is paused cannot be asked");
            Queue::default()
        });
        self.known.send_if_modified(|known| {
            let is_news = *known != queue;
            if is_news {
                tracing::info!(intake = queue.intake.paused, generation = queue.generation.paused, "pauses");
                *known = queue;
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(reason: &str) -> Part {
        let since = Some("2026-11-06T08:05:00Z".parse().unwrap());
        Part { paused: true, reason: Some(reason.to_owned()), since }
    }

    #[test]
    fn a_teacher_reads_the_reason_and_since_when() {
        assert_eq!(Queue::default().words(), None);
        let mut queue = Queue { generation: part("The model is being changed"), ..Queue::default() };
        let expected = "Pictures are paused: The model is being changed. (Since 6 November, 08:05 UTC.) Nothing is lost: \
                        what you ask for waits in the queue until it goes on.";
        assert_eq!(queue.words().unwrap(), expected);
        // Where both stand still, the one that they meet first.
        queue.intake = part("We move house!");
        assert!(queue.words().unwrap().starts_with("Pictures are paused: We move house! (Since 6 November"));
        queue.intake = Part { paused: true, ..Part::default() };
        assert!(
            queue.words().unwrap().starts_with("Pictures are paused by those who run the picture service. Nothing")
        );
        queue.intake = part(&"x".repeat(1000));
        assert!(queue.words().unwrap().len() < 400, "an answer is no page");
    }

    #[test]
    fn the_answer_of_the_api_is_read() {
        let said = r#"{"intake":{"paused":true,"reason":"Maintenance.","since":"2026-11-06T08:05:00Z"},"generation":{"paused":false}}"#;
        let queue: Queue = serde_json::from_str(said).unwrap();
        assert_eq!(queue, Queue { intake: part("Maintenance."), generation: Part::default() });
    }
}
