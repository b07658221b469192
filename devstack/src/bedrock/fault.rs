//! `Fault`: every way a call can be made to go wrong, and the directives in a prompt that ask for it.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One way a call goes wrong. In JSON, in directives and on the command line: the name in `snake_case`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Fault {
    /// 429 `ThrottlingException`.
    Throttle,
    /// 408 `ModelTimeoutException`.
    ModelTimeout,
    /// 424 `ModelErrorException`.
    ModelError,
    /// 500 `InternalServerException`.
    Internal,
    /// 503 `ServiceUnavailableException`.
    Unavailable,
    /// 429 `ModelNotReadyException`.
    NotReady,
    /// 400 `ServiceQuotaExceededException`.
    Quota,
    /// 403 `AccessDeniedException`.
    AccessDenied,
    /// 403 `ExpiredTokenException`.
    ExpiredCredentials,
    /// 404 with the text of a model past its end of life.
    Retired,
    /// 404 with the text of a legacy model that was not used lately.
    Legacy,
    /// 400 `ValidationException`.
    Validation,
    /// 400 `ValidationException` with the refusal text of Amazon's own models.
    ContentFilteredValidation,
    /// 200 with `Filter reason: prompt` and no picture.
    RefusePrompt,
    /// 200 with `Filter reason: output image` and no picture.
    RefuseOutput,
    /// 200 with `Inference error` and no picture.
    InferenceError,
    /// 200 whose base64 breaks off.
    TruncatedBase64,
    /// 200 whose picture is text.
    NotPng,
    /// A PNG of 16 bits a channel.
    Png16,
    /// A PNG with one channel.
    Grey,
    /// A PNG with an alpha channel that is opaque everywhere.
    Rgba,
    /// A PNG with an alpha channel that is not.
    RgbaTransparent,
    /// A JPEG, whatever was asked for.
    Jpeg,
    /// A PNG of some hundred bytes that claims 60000x60000 pixels.
    Bomb,
    /// A sound PNG of 0.7 MB with 30000x30000 pixels.
    BombInflating,
    /// Accept and never answer, for ten minutes or until the client leaves.
    Stall,
    /// Send the head and half of the body, then stall.
    HalfAnswer,
    /// Close the connection without a byte.
    Close,
}

impl Fault {
    /// Returns the name used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::ModelTimeout => "model_timeout",
            Self::ModelError => "model_error",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::NotReady => "not_ready",
            Self::Quota => "quota",
            Self::AccessDenied => "access_denied",
            Self::ExpiredCredentials => "expired_credentials",
            Self::Retired => "retired",
            Self::Legacy => "legacy",
            Self::Validation => "validation",
            Self::ContentFilteredValidation => "content_filtered_validation",
            Self::RefusePrompt => "refuse_prompt",
            Self::RefuseOutput => "refuse_output",
            Self::InferenceError => "inference_error",
            Self::TruncatedBase64 => "truncated_base64",
            Self::NotPng => "not_png",
            Self::Png16 => "png16",
            Self::Grey => "grey",
            Self::Rgba => "rgba",
            Self::RgbaTransparent => "rgba_transparent",
            Self::Jpeg => "jpeg",
            Self::Bomb => "bomb",
            Self::BombInflating => "bomb_inflating",
            Self::Stall => "stall",
            Self::HalfAnswer => "half_answer",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = InvalidDirective;

    fn from_str(text: &str) -> Result<Self, InvalidDirective> {
        let found = Self::value_variants().iter().copied().find(|fault| fault.as_str() == text);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::value_variants().iter().map(|fault| fault.as_str()).collect();
            InvalidDirective(format!("unknown fault {text:?}: expected one of {}", known.join(", ")))
        })
    }
}

/// A directive in a prompt that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidDirective(String);

/// What one prompt asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    faults: Vec<Repeated>,
    pub(crate) latency_ms: Option<u64>,
}

/// A fault for some calls, or for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repeated {
    fault: Fault,
    times: Option<u64>,
    retry_after_ms: Option<u64>,
}

impl Directives {
    /// Reads `[[fault:NAME]]`, `[[fault:NAME*N]]`, `[[fault:NAME*N retry_after_ms=MS]]` and `[[latency:2s]]` out of a
    /// prompt. Several faults follow each other: each takes its N calls, one without `*N` takes all that are left.
    pub(crate) fn parse(prompt: &str) -> Result<Self, InvalidDirective> {
        let mut directives = Self::default();
        for part in prompt.split("[[").skip(1) {
            let Some((directive, _)) = part.split_once("]]") else { continue };
            match directive.split_once(':') {
                Some(("fault", rest)) => directives.faults.push(Repeated::parse(rest)?),
                Some(("latency", rest)) => {
                    let ms = super::latency::milliseconds(rest)
                        .ok_or_else(|| InvalidDirective(format!("latency {rest:?} is not a duration such as 2s")))?;
                    directives.latency_ms = Some(ms);
                }
                // Other double brackets are the prompt's own.
                _ => {}
            }
        }
        Ok(directives)
    }

    /// Returns the fault of the `call`-th call for the prompt, counted from 1, and its `x-amz-retry-after`.
    pub(crate) fn fault_of_call(&self, call: u64) -> Option<(Fault, Option<u64>)> {
        let mut passed = 0;
        for repeated in &self.faults {
            match repeated.times {
                Some(times) if call > passed + times => passed += times,
                _ => return Some((repeated.fault, repeated.retry_after_ms)),
            }
        }
        None
    }
}

impl Repeated {
    fn parse(text: &str) -> Result<Self, InvalidDirective> {
        let number = |digits: &str| {
            digits
                .parse::<u64>()
                .map_err(|_| InvalidDirective(format!("{digits:?} in [[fault:{text}]] is not a number")))
        };
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (name, times) = match first.split_once('*') {
            Some((name, times)) => (name, Some(number(times)?)),
            None => (first, None),
        };
        let mut retry_after_ms = None;
        for word in words {
            let digits = word.strip_prefix("retry_after_ms=").ok_or_else(|| {
                InvalidDirective(format!("{word:?} in [[fault:{text}]] is not understood: expected retry_after_ms=N"))
            })?;
            retry_after_ms = Some(number(digits)?);
        }
        Ok(Self { fault: name.parse()?, times, retry_after_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(prompt: &str, calls: u64) -> Vec<Option<&'static str>> {
        let directives = Directives::parse(prompt).unwrap();
        (1..=calls).map(|call| directives.fault_of_call(call).map(|(fault, _)| fault.as_str())).collect()
    }

    #[test]
    fn faults_follow_each_other_in_the_order_written() {
        assert_eq!(sequence("a [[fault:throttle*2]] cat", 3), [Some("throttle"), Some("throttle"), None]);
        assert_eq!(sequence("[[fault:close]]", 2), [Some("close"), Some("close")]);
        let mixed = "[[fault:internal*1]] x [[fault:png16*1]]";
        assert_eq!(sequence(mixed, 3), [Some("internal"), Some("png16"), None]);
        assert_eq!(sequence("a [[cat]] in [brackets] [[", 1), [None]);
    }

    #[test]
    fn arguments_are_read() {
        let directives = Directives::parse("[[fault:throttle*1 retry_after_ms=1500]] [[latency:2s]]").unwrap();
        assert_eq!(directives.fault_of_call(1), Some((Fault::Throttle, Some(1500))));
        assert_eq!(directives.latency_ms, Some(2000));
    }

    #[test]
    fn nonsense_is_named() {
        for (prompt, named) in [
            ("[[fault:nope]]", "\"nope\""),
            ("[[fault:throttle*x]]", "\"x\""),
            ("[[fault:throttle soon]]", "\"soon\""),
            ("[[latency:soon]]", "\"soon\""),
        ] {
            let error = Directives::parse(prompt).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn every_name_is_the_same_in_json_on_the_command_line_and_here() {
        for fault in Fault::value_variants() {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.as_str());
            assert_eq!(fault.to_possible_value().unwrap().get_name(), fault.as_str());
            assert_eq!(fault.as_str().parse(), Ok(*fault));
        }
    }
}
