//! `Status`: where a job is on its way, as a client reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of a job. The first three are pending, the others final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted and waiting, for the first time or for another attempt.
    Queued,
    /// A worker holds the claim and asks the model, or has yet to.
    Generating,
    /// The model has answered; the picture is being rendered and published.
    Processing,
    /// The picture is published.
    Succeeded,
    /// It ended without a picture; the failure says why.
    Failed,
    /// The model's content policy refused it. Never retried.
    Blocked,
    /// The caller withdrew it.
    Canceled,
    /// Its deadline passed before it was paid for.
    Expired,
}

impl Status {
    /// All states, in the order of a job's way.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Generating,
        Self::Processing,
        Self::Succeeded,
        Self::Failed,
        Self::Blocked,
        Self::Canceled,
        Self::Expired,
    ];

    /// Returns whether the job has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Generating | Self::Processing)
    }

    /// Returns the word used in JSON, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Generating => "generating",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_use_the_same_word() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
    }
}
