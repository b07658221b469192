//! `Pauses`: what operators have stopped for the whole fleet, as `control/pause.json` says it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version written into the object.
pub const PAUSES_VERSION: u32 = 1;

/// Longest reason, in characters: clients are shown it.
pub const MAX_REASON_CHARS: usize = 200;

/// A part of the pipeline that can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The API accepts no new jobs.
    Intake,
    /// Workers receive no more deliveries; those in hand are finished.
    Generation,
}

impl Part {
    /// Both parts.
    pub const ALL: [Self; 2] = [Self::Intake, Self::Generation];

    /// Returns the word used in JSON, logs and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Generation => "generation",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a part stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// A sentence that clients may read.
    pub reason: String,
    /// Who did it, for operators: no client is shown it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// A pause without a usable reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the reason is not 1 to {MAX_REASON_CHARS} characters without control characters: clients are shown it")]
pub struct InvalidReason;

impl Pause {
    /// Makes a pause that begins at `now`.
    ///
    /// # Errors
    /// When the reason is empty, too long, or cannot be shown in one line.
    pub fn new(reason: &str, by: &str, now: Timestamp) -> Result<Self, InvalidReason> {
        let reason = reason.trim();
        let fits = (1..=MAX_REASON_CHARS).contains(&reason.chars().count());
        if !fits || reason.chars().any(char::is_control) {
            return Err(InvalidReason);
        }
        Ok(Self { reason: reason.to_owned(), by: by.to_owned(), since: now })
    }
}

/// What stands still. No object means that nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// Version of this form. A newer one is read as far as it is known.
    pub v: u32,
    /// No new jobs are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<Pause>,
    /// No pictures are begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Pause>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { v: PAUSES_VERSION, intake: None, generation: None }
    }
}

impl Pauses {
    /// Returns the pause of one part, if it stands still.
    pub fn of(&self, part: Part) -> Option<&Pause> {
        match part {
            Part::Intake => self.intake.as_ref(),
            Part::Generation => self.generation.as_ref(),
        }
    }

    /// Stops a part, or with `None` lets it go on.
    pub fn set(&mut self, part: Part, pause: Option<Pause>) {
        self.v = PAUSES_VERSION;
        match part {
            Part::Intake => self.intake = pause,
            Part::Generation => self.generation = pause,
        }
    }
}

/// Returns the key of the object that says what stands still.
pub fn pauses_key() -> &'static str {
    "control/pause.json"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(reason: &str) -> Result<Pause, InvalidReason> {
        Pause::new(reason, "operator", "2026-11-26T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_form_that_processes_of_other_releases_read() {
        let mut pauses = Pauses::default();
        pauses.set(Part::Generation, Some(pause(" The model is being changed. ").unwrap()));
        let golden = r#"{"v":1,"generation":{"reason":"The model is being changed.","by":"operator","since":"2026-11-26T08:00:00Z"}}"#;
        assert_eq!(serde_json::to_string(&pauses).unwrap(), golden);
        let newer = golden.replace(r#""v":1"#, r#""v":2,"upload":{}"#);
        let read: Pauses = serde_json::from_str(&newer).unwrap();
        assert_eq!((read.of(Part::Intake), read.of(Part::Generation)), (None, pauses.of(Part::Generation)));
        assert_eq!(read.of(Part::Generation).unwrap().reason, "The model is being changed.");
        // API, workers and imagectl of any release look here.
        assert_eq!(pauses_key(), "control/pause.json");
        pauses.set(Part::Generation, None);
        assert_eq!(pauses, Pauses::default());
    }

    #[test]
    fn a_reason_is_one_line_that_can_be_shown() {
        for bad in ["", "  ", "two\nlines", &"x".repeat(MAX_REASON_CHARS + 1)] {
            assert_eq!(pause(bad), Err(InvalidReason), "{bad:?}");
        }
        assert!(pause(&"ü".repeat(MAX_REASON_CHARS)).is_ok());
    }

    #[test]
    fn json_and_text_use_the_same_word() {
        for part in Part::ALL {
            assert_eq!(serde_json::to_string(&part).unwrap(), format!("\"{part}\""));
        }
    }
}
