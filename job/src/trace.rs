//! `TraceContext`: what ties the logs of one job together across HTTP, queue and worker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

const MAX_CORRELATION_CHARS: usize = 128;

/// W3C trace context and the caller's correlation id. Travels in the message body: SQS allows ten attributes only, and
/// tracing libraries that used them up have broken sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The caller's `traceparent`, or a new one.
    pub traceparent: Traceparent,
    /// The caller's `X-Correlation-Id`, or a new one.
    pub correlation_id: CorrelationId,
}

impl TraceContext {
    /// Makes a context for a request that brought none.
    pub fn generate() -> Self {
        Self { traceparent: Traceparent::generate(), correlation_id: CorrelationId::generate() }
    }
}

/// A version-00 `traceparent` header (W3C Trace Context, section 3.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Traceparent(String);

/// The text is not a version-00 traceparent; the standard says to ignore it and start a new trace.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a version-00 traceparent: expected 00-<32 hex>-<16 hex>-<2 hex>, ids not all zero")]
pub struct InvalidTraceparent;

impl Traceparent {
    /// Starts a new trace, marked as sampled.
    pub fn generate() -> Self {
        let span = Uuid::new_v4().simple().to_string();
        let (span, _) = span.split_at(16);
        Self(format!("00-{}-{span}-01", Uuid::new_v4().simple()))
    }

    /// Returns the trace id: 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).expect("checked at construction")
    }

    /// Returns the header's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let hex = |part: &str, chars: usize| {
            part.len() == chars && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let not_zero = |part: &str| part.bytes().any(|b| b != b'0');
        match text.split('-').collect::<Vec<_>>()[..] {
            ["00", trace, span, flags]
                if hex(trace, 32) && hex(span, 16) && hex(flags, 2) && not_zero(trace) && not_zero(span) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidTraceparent),
        }
    }
}

impl TryFrom<String> for Traceparent {
    type Error = InvalidTraceparent;

    fn try_from(text: String) -> Result<Self, InvalidTraceparent> {
        text.parse()
    }
}

impl From<Traceparent> for String {
    fn from(traceparent: Traceparent) -> Self {
        traceparent.0
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The caller's own name for this work: 1 to 128 visible ASCII characters, so that it is safe in logs, in a header and
/// in S3 metadata.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CorrelationId(String);

/// The text is not a correlation id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a correlation id: expected 1 to {MAX_CORRELATION_CHARS} visible ASCII characters without white space")]
pub struct InvalidCorrelationId;

impl CorrelationId {
    /// Makes a new one (UUIDv4).
    pub fn generate() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CorrelationId {
    type Err = InvalidCorrelationId;

    fn from_str(text: &str) -> Result<Self, InvalidCorrelationId> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for CorrelationId {
    type Error = InvalidCorrelationId;

    fn try_from(text: String) -> Result<Self, InvalidCorrelationId> {
        if (1..=MAX_CORRELATION_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(InvalidCorrelationId)
        }
    }
}

impl From<CorrelationId> for String {
    fn from(id: CorrelationId) -> Self {
        id.0
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_traceparent_parses() {
        let made = Traceparent::generate();
        assert_eq!(made.as_str().parse::<Traceparent>().unwrap(), made);
        assert_eq!(made.trace_id().len(), 32);
    }

    #[test]
    fn malformed_traceparents_are_refused() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<Traceparent>(), Err(InvalidTraceparent), "{bad:?}");
        }
    }

    #[test]
    fn correlation_ids_are_safe_in_a_header() {
        assert_eq!("assignment:42/picture=7".parse::<CorrelationId>().unwrap().as_str(), "assignment:42/picture=7");
        for bad in ["", "two words", "line\nbreak", "ümlaut", &"x".repeat(129)] {
            assert_eq!(bad.parse::<CorrelationId>(), Err(InvalidCorrelationId), "{bad:?}");
        }
    }
}
