//! `Courier`: carries requests to the API and states back, all from what the database says, so that a restart loses nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::assignments::MAX_PICTURES;
use crate::client::{ApiClient, ApiError, Wanted};
use crate::database::Database;
use crate::pictures::{Picture, State};

/// Polls at a time.
const IN_FLIGHT: usize = 8;
/// Polls of one round; the next one follows at once.
const POLLS_A_ROUND: i64 = 64;
/// How often the database is looked at though nobody has said that there is something: another process may have written.
const IDLE: Duration = Duration::from_secs(15);
/// Pauses while the API is away: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(20);
/// A job of which the API cannot say anything, though it is there, is asked for less often.
const ODD_JOB_PAUSE_MS: i64 = 20_000;

const UNREACHABLE: &str = "The picture service cannot be reached at the moment. Nothing is lost: your text is kept, and \
                           pictures are asked for again by themselves as soon as the service is back.";
const PAUSED: &str = "No new pictures are taken for the moment: the picture service is paused by those who run it. Nothing is \
                      lost: your text is kept, and pictures are asked for as soon as it goes on.";
const KEY_REJECTED: &str = "The picture service does not accept this portal’s key. Nothing is lost: please tell whoever \
                            runs the portal; pictures are made as soon as the key is right.";
const TOO_MANY: &str = "The picture service takes no more requests at the moment, because many were sent at once. Nothing is \
                        lost: the rest is sent by itself.";
const UNKNOWN_JOB: &str = "The picture service no longer knows this picture. Ask for it again.";

/// Where the pages meet the courier.
#[derive(Debug, Clone)]
pub struct Desk {
    wake: Arc<Notify>,
    trouble: watch::Receiver<Option<&'static str>>,
}

impl Desk {
    /// Has the courier look at the database at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns what keeps pictures from being made at the moment, in plain words.
    pub fn trouble(&self) -> Option<&'static str> {
        *self.trouble.borrow()
    }
}

/// The task. There may be one in each process: what one works on, the others leave alone.
#[derive(Debug)]
pub struct Courier {
    database: Database,
    api: ApiClient,
    wake: Arc<Notify>,
    trouble: watch::Sender<Option<&'static str>>,
    failures: u32,
}

/// Why a round ended early.
enum Halt {
    /// The API is away; what was claimed has been given back.
    Api(ApiError),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Courier {
    /// Makes the courier and what the pages need of it.
    pub fn new(database: Database, api: ApiClient) -> (Self, Desk) {
        let (trouble, troubled) = watch::channel(None);
        let wake = Arc::new(Notify::new());
        let shared = Desk { wake: Arc::clone(&wake), trouble: troubled };
        (Self { database, api, wake, trouble, failures: 0 }, shared)
    }

    /// Works until it is told to stop. A call that is cut off is made again by the next process: every one may be repeated.
    pub async fn run(mut self, stop: CancellationToken) {
        match self.database.resume_pending().await {
            Ok(0) => {}
            Ok(pictures) => tracing::info!(pictures, "pending pictures are taken up again"),
            Err(error) => tracing::error!(%error, "pending pictures cannot be read"),
        }
        loop {
            let pause = tokio::select! {
                pause = self.round() => pause,
                () = stop.cancelled() => return,
            };
            // While the API is away nothing that a page does makes it come back.
            let may_wake = self.failures == 0;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified(), if may_wake => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does what is due. Returns how long nothing is to be done.
    async fn round(&mut self) -> Duration {
        // What cannot be sent is no reason not to look after what has been.
        let done = match self.send().await {
            Err(Halt::Database(error)) => Err(Halt::Database(error)),
            sent => {
                let asked = self.ask().await;
                sent.and(asked)
            }
        };
        match done {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("the picture API is back");
                }
                self.failures = 0;
                self.heard();
                let due = self.database.next_due_ms().await.ok().flatten();
                due.map_or(IDLE, |ms| Duration::from_millis(ms.unsigned_abs()).min(IDLE))
            }
            Err(Halt::Api(error)) => {
                let words = match &error {
                    ApiError::KeyRejected => KEY_REJECTED,
                    ApiError::TooMany { .. } => TOO_MANY,
                    error if error.is_pause() => PAUSED,
                    _ => UNREACHABLE,
                };
                self.trouble.send_replace(Some(words));
                if self.failures == 0 {
                    tracing::warn!(%error, "pictures have to wait");
                }
                let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(8))).min(LAST_PAUSE);
                self.failures = self.failures.saturating_add(1);
                match error {
                    ApiError::Unavailable { retry_after: Some(asked), .. }
                    | ApiError::TooMany { retry_after: Some(asked) } => asked.max(pause),
                    // Half of it by chance, so that several portals do not come back in step.
                    _ => pause / 2 + pause.mul_f64(rand::random::<f64>() / 2.0),
                }
            }
            Err(Halt::Database(error)) => {
                tracing::error!(%error, "the database does not answer");
                LAST_PAUSE
            }
        }
    }

    /// The API has answered, whatever it said.
    fn heard(&self) {
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    /// Sends what has not been sent, or of which the answer was lost: the key makes it one job.
    async fn send(&self) -> Result<(), Halt> {
        let limit = i64::try_from(MAX_PICTURES).unwrap_or(i64::MAX);
        loop {
            let claimed = self.database.claim_due(true, limit).await?;
            let mut batch = Vec::new();
            for picture in claimed {
                let prompt = picture.style.prompt(&picture.prompt);
                match Wanted::new(prompt, picture.alt.clone(), picture.seed, picture.idempotency_key.clone()) {
                    Ok(wanted) => batch.push((picture, wanted)),
                    Err(error) => self.database.note_ended(&picture, State::Refused, &error.to_string()).await?,
                }
            }
            match &batch[..] {
                [] => return Ok(()),
                [(picture, wanted)] => self.send_one(picture, wanted).await?,
                _ => self.send_batch(&batch).await?,
            }
        }
    }

    async fn send_one(&self, picture: &Picture, wanted: &Wanted) -> Result<(), Halt> {
        match self.api.submit(wanted).await {
            Ok((accepted, after)) => {
                self.heard();
                Ok(self.database.note_accepted(picture, &accepted.status_url, millis(after)).await?)
            }
            Err(error) => self.not_sent(picture, error, 0).await,
        }
    }

    async fn send_batch(&self, batch: &[(Picture, Wanted)]) -> Result<(), Halt> {
        let wanted: Vec<Wanted> = batch.iter().map(|(_, wanted)| wanted.clone()).collect();
        match self.api.submit_batch(&wanted).await {
            Ok((results, after)) => {
                self.heard();
                for ((picture, _), result) in batch.iter().zip(results) {
                    match result {
                        Ok(accepted) => {
                            self.database.note_accepted(picture, &accepted.status_url, millis(after)).await?;
                        }
                        Err(error) => self.odd_one(picture, error).await?,
                    }
                }
                Ok(())
            }
            // Not one was taken. One by one each of them gets the answer that is its own.
            Err(ApiError::Refused { .. }) => {
                for (picture, wanted) in batch {
                    match self.api.submit(wanted).await {
                        Ok((accepted, after)) => {
                            self.database.note_accepted(picture, &accepted.status_url, millis(after)).await?;
                        }
                        Err(error) => self.odd_one(picture, error).await?,
                    }
                }
                Ok(())
            }
            Err(error) => {
                for (picture, _) in batch {
                    self.database.postpone(picture, 0).await?;
                }
                Err(Halt::Api(error))
            }
        }
    }

    /// One of several was not taken, by an API that answers: the others must not wait for it.
    async fn odd_one(&self, picture: &Picture, error: ApiError) -> Result<(), Halt> {
        match self.not_sent(picture, error, ODD_JOB_PAUSE_MS).await {
            Err(Halt::Api(error)) => {
                tracing::warn!(%error, picture.id = picture.id, "a picture of several could not be sent");
                Ok(())
            }
            done => done,
        }
    }

    async fn not_sent(&self, picture: &Picture, error: ApiError, pause_ms: i64) -> Result<(), Halt> {
        match error {
            ApiError::Refused { detail } => {
                self.heard();
                let words =
                    format!("The picture service did not take this request: {detail}. Change it and try again.");
                Ok(self.database.note_ended(picture, State::Refused, &words).await?)
            }
            error => {
                self.database.postpone(picture, pause_ms).await?;
                Err(Halt::Api(error))
            }
        }
    }

    /// Asks for the state of what is being made.
    async fn ask(&self) -> Result<(), Halt> {
        let due = self.database.claim_due(false, POLLS_A_ROUND).await?;
        let asking: Vec<_> = due.iter().map(|picture| async move { (picture, self.ask_one(picture).await) }).collect();
        let mut asked = futures::stream::iter(asking).buffer_unordered(IN_FLIGHT);
        let (mut answered, mut failed) = (false, Vec::new());
        while let Some((picture, outcome)) = asked.next().await {
            match outcome {
                Ok(()) => answered = true,
                Err(Halt::Api(error)) => failed.push((picture, error)),
                Err(halt) => return Err(halt),
            }
        }
        // Where others were answered it is not the API that is away.
        let pause_ms = if answered { ODD_JOB_PAUSE_MS } else { 0 };
        for (picture, error) in &failed {
            tracing::debug!(%error, picture.id = picture.id, "a poll failed");
            self.database.postpone(picture, pause_ms).await?;
        }
        match failed.pop() {
            Some((_, error)) if !answered => Err(Halt::Api(error)),
            _ => Ok(()),
        }
    }

    async fn ask_one(&self, picture: &Picture) -> Result<(), Halt> {
        let Some(status_url) = &picture.status_url else {
            return Ok(self.database.note_ended(picture, State::Job(job::Status::Failed), UNKNOWN_JOB).await?);
        };
        let asked = match self.api.job(status_url).await {
            Ok((view, _)) if picture.cancel_wanted && !view.status.is_final() => {
                match self.api.cancel(&view.urls.cancel).await {
                    // It ended in between; the next poll tells how.
                    Err(ApiError::AlreadyFinal) => Ok((view, Duration::ZERO)),
                    canceled => canceled,
                }
            }
            asked => asked,
        };
        match asked {
            Ok((view, after)) => {
                self.heard();
                Ok(self.database.note_view(picture, &view, millis(after)).await?)
            }
            Err(ApiError::NotFound) => {
                self.heard();
                Ok(self.database.note_ended(picture, State::Job(job::Status::Failed), UNKNOWN_JOB).await?)
            }
            Err(error @ (ApiError::Refused { .. } | ApiError::AlreadyFinal)) => {
                tracing::error!(%error, picture.id = picture.id, "a poll was refused");
                Ok(self.database.postpone(picture, ODD_JOB_PAUSE_MS).await?)
            }
            Err(error) => Err(Halt::Api(error)),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
