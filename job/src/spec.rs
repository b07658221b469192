//! `JobSpec`: what the caller asked for, validated at construction.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::RenditionSpec;

/// Longest prompt in characters: the limit of the Stability models on Bedrock.
pub const MAX_PROMPT_CHARS: usize = 10_000;

/// What to draw. A value of this type has passed every check, so nothing behind it checks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawJobSpec", into = "RawJobSpec")]
pub struct JobSpec {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u32>,
    renditions: Vec<RenditionSpec>,
}

/// Why a spec was refused: the field and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidJobSpec {
    /// Nothing but white space.
    #[error("{field} is empty: describe the picture in 1 to {MAX_PROMPT_CHARS} characters")]
    Empty {
        /// Name of the field in the request.
        field: &'static str,
    },
    /// Over [`MAX_PROMPT_CHARS`].
    #[error("{field} has {chars} characters: shorten it to at most {MAX_PROMPT_CHARS}")]
    TooLong {
        /// Name of the field in the request.
        field: &'static str,
        /// Length found, in characters.
        chars: usize,
    },
    /// A character that SQS or the model does not take.
    #[error("{field} contains U+{code_point:04X} at character {position}: remove it")]
    ForbiddenCharacter {
        /// Name of the field in the request.
        field: &'static str,
        /// The Unicode scalar value found.
        code_point: u32,
        /// 1-based position in characters.
        position: usize,
    },
}

impl InvalidJobSpec {
    /// Returns the name of the field to mend.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Empty { field } | Self::TooLong { field, .. } | Self::ForbiddenCharacter { field, .. } => field,
        }
    }
}

impl JobSpec {
    /// Checks and keeps what the caller asked for. A `seed` of `None` or 0 means 'any'.
    ///
    /// # Errors
    /// When a text is empty, too long, or has a character outside the SQS character set or a control character other
    /// than tab, line feed and carriage return.
    pub fn new(prompt: String, negative_prompt: Option<String>, seed: Option<u32>) -> Result<Self, InvalidJobSpec> {
        check_text("prompt", &prompt)?;
        if let Some(text) = &negative_prompt {
            check_text("negative_prompt", text)?;
        }
        Ok(Self { prompt, negative_prompt, seed: seed.filter(|&seed| seed != 0), renditions: Vec::new() })
    }

    /// Asks for more pictures beside the standard one. Order and repeats mean nothing; the standard one is made in any case.
    #[must_use]
    pub fn with_renditions(mut self, renditions: impl IntoIterator<Item = RenditionSpec>) -> Self {
        self.renditions = renditions.into_iter().filter(|spec| *spec != RenditionSpec::STANDARD).collect();
        self.renditions.sort_unstable();
        self.renditions.dedup();
        self
    }

    /// Returns the description of the picture. User content: never logged at info or above.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Returns what must not be in the picture.
    pub fn negative_prompt(&self) -> Option<&str> {
        self.negative_prompt.as_deref()
    }

    /// Returns the seed the caller wants, never 0 (the models read 0 as 'random').
    pub fn seed(&self) -> Option<u32> {
        self.seed
    }

    /// Returns the pictures wanted beside the standard one, each once.
    pub fn renditions(&self) -> &[RenditionSpec] {
        &self.renditions
    }

    /// Returns a SHA-256 (hex) over the spec: equal specs have equal fingerprints.
    pub fn fingerprint(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a spec always serialises");
        Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), InvalidJobSpec> {
    let chars = text.chars().count();
    if chars > MAX_PROMPT_CHARS {
        return Err(InvalidJobSpec::TooLong { field, chars });
    }
    if let Some((index, found)) = text.chars().enumerate().find(|&(_, c)| !is_allowed(c)) {
        return Err(InvalidJobSpec::ForbiddenCharacter { field, code_point: found.into(), position: index + 1 });
    }
    if text.trim().is_empty() {
        return Err(InvalidJobSpec::Empty { field });
    }
    Ok(())
}

/// SQS takes #x9 #xA #xD, #x20-#xD7FF, #xE000-#xFFFD, #x10000-#x10FFFF; JSON escapes the C0 controls, but U+FFFE and
/// U+FFFF would pass through raw and fail the send. C1 controls are legal there and meaningless in a prompt.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (!c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}'))
}

/// The shape on the wire and in records.
#[derive(Serialize, Deserialize)]
struct RawJobSpec {
    prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    // Absent when empty, so that the fingerprint of a spec without renditions stays what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    renditions: Vec<RenditionSpec>,
}

impl TryFrom<RawJobSpec> for JobSpec {
    type Error = InvalidJobSpec;

    fn try_from(raw: RawJobSpec) -> Result<Self, InvalidJobSpec> {
        Ok(Self::new(raw.prompt, raw.negative_prompt, raw.seed)?.with_renditions(raw.renditions))
    }
}

impl From<JobSpec> for RawJobSpec {
    fn from(spec: JobSpec) -> Self {
        Self {
            prompt: spec.prompt,
            negative_prompt: spec.negative_prompt,
            seed: spec.seed,
            renditions: spec.renditions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFormat;

    fn spec(prompt: &str) -> Result<JobSpec, InvalidJobSpec> {
        JobSpec::new(prompt.to_owned(), None, None)
    }

    #[test]
    fn what_was_asked_for_is_kept_as_it_is() {
        let spec = JobSpec::new(" a fox ".into(), Some("text".into()), Some(7)).unwrap();
        assert_eq!((spec.prompt(), spec.negative_prompt(), spec.seed()), (" a fox ", Some("text"), Some(7)));
    }

    #[test]
    fn length_counts_characters_not_bytes() {
        assert!(spec(&"狐".repeat(MAX_PROMPT_CHARS)).is_ok());
        let error = spec(&"狐".repeat(MAX_PROMPT_CHARS + 1)).unwrap_err();
        assert_eq!(error, InvalidJobSpec::TooLong { field: "prompt", chars: MAX_PROMPT_CHARS + 1 });
    }

    #[test]
    fn empty_and_blank_are_refused() {
        assert_eq!(spec(""), Err(InvalidJobSpec::Empty { field: "prompt" }));
        assert_eq!(spec(" \n\t"), Err(InvalidJobSpec::Empty { field: "prompt" }));
        let error = JobSpec::new("fox".into(), Some(" ".into()), None).unwrap_err();
        assert_eq!(error.field(), "negative_prompt");
    }

    #[test]
    fn characters_that_sqs_rejects_are_named_with_their_position() {
        for (text, code_point, position) in
            [("a\0b", 0, 2), ("\u{FFFE}", 0xFFFE, 1), ("fox\u{FFFF}", 0xFFFF, 4), ("\u{7f}", 0x7f, 1)]
        {
            let expected = InvalidJobSpec::ForbiddenCharacter { field: "prompt", code_point, position };
            assert_eq!(spec(text), Err(expected));
        }
        assert!(spec("line one\r\n\tline two 🦊").is_ok());
    }

    #[test]
    fn seed_zero_means_any() {
        assert_eq!(JobSpec::new("fox".into(), None, Some(0)).unwrap().seed(), None);
        assert_eq!(JobSpec::new("fox".into(), None, Some(7)).unwrap().seed(), Some(7));
    }

    #[test]
    fn renditions_are_a_set_without_the_standard_one() {
        let rendition = |side, format| RenditionSpec::new(side, format).unwrap();
        let small = rendition(256, ImageFormat::Webp);
        let avif = rendition(1024, ImageFormat::Avif);
        let one = spec("fox").unwrap().with_renditions([avif, small, RenditionSpec::STANDARD, avif]);
        let other = spec("fox").unwrap().with_renditions([small, avif]);
        assert_eq!(one.renditions(), [small, avif]);
        assert_eq!(one.fingerprint(), other.fingerprint());
        let none = spec("fox").unwrap().with_renditions([RenditionSpec::STANDARD]);
        assert_eq!(none.fingerprint(), spec("fox").unwrap().fingerprint());
        assert_ne!(none.fingerprint(), one.fingerprint());
    }

    #[test]
    fn fingerprints_tell_specs_apart() {
        assert_eq!(spec("fox").unwrap().fingerprint(), spec("fox").unwrap().fingerprint());
        assert_ne!(spec("fox").unwrap().fingerprint(), spec("hen").unwrap().fingerprint());
    }
}
