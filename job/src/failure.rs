//! `Failure`: why a job ended without a picture, with stable codes that clients may match on.

use serde::{Deserialize, Serialize};

/// Stable code of a failure; part of the API's contract, so codes are added and never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The model's content policy refused the prompt or the picture.
    ContentFiltered,
    /// The model called the request invalid; the same request will be refused again.
    RequestRejected,
    /// The model's picture could not be decoded, twice.
    SourceUndecodable,
    /// Every attempt met a passing fault; the job is in the dead-letter queue and can be redriven.
    AttemptsExhausted,
}

impl FailureCode {
    /// All codes.
    pub const ALL: [Self; 4] =
        [Self::ContentFiltered, Self::RequestRejected, Self::SourceUndecodable, Self::AttemptsExhausted];

    /// Returns the word used in JSON, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContentFiltered => "content_filtered",
            Self::RequestRejected => "request_rejected",
            Self::SourceUndecodable => "source_undecodable",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }

    /// Returns a sentence for the person who wrote the prompt.
    pub fn title(self) -> &'static str {
        match self {
            Self::ContentFiltered => {
                "The image model refused this description because of its content policy. \
                 Rephrase it without violence, real people or other sensitive subjects and try again."
            }
            Self::RequestRejected => "The image model could not use this description. Change it and try again.",
            Self::SourceUndecodable => "The image model returned a picture that could not be read. Try again.",
            Self::AttemptsExhausted => "The picture could not be made because of a lasting fault. Try again later.",
        }
    }

    /// Returns whether a new job with the same spec may succeed.
    pub fn retryable(self) -> bool {
        match self {
            Self::ContentFiltered | Self::RequestRejected => false,
            Self::SourceUndecodable | Self::AttemptsExhausted => true,
        }
    }
}

/// Why a job ended without a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: FailureCode,
    /// A sentence for the person who wrote the prompt.
    pub title: String,
    /// What an operator wants to know. Never contains the prompt.
    pub detail: String,
    /// Whether a new job with the same spec may succeed.
    pub retryable: bool,
}

impl Failure {
    /// Makes a failure whose title and `retryable` follow from the code.
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, title: code.title().to_owned(), detail: detail.into(), retryable: code.retryable() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_use_the_same_word() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn a_refusal_is_never_retryable_and_what_passes_is() {
        for (code, retryable) in FailureCode::ALL.into_iter().zip([false, false, true, true]) {
            assert_eq!(Failure::new(code, "Filter reason: prompt").retryable, retryable, "{}", code.as_str());
        }
    }

    #[test]
    fn each_title_is_a_sentence_that_says_what_to_do() {
        for code in FailureCode::ALL {
            let title = Failure::new(code, "").title;
            assert!(title.starts_with("The ") && title.contains("try again") || title.contains("Try again"), "{title}");
        }
    }
}
