//! `JobSpec`: what the caller asked for, validated at construction.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::RenditionSpec;

/// Longest prompt in characters: the limit of the Stability models on Bedrock.
pub const MAX_PROMPT_CHARS: usize = 10_000;

/// Longest alternative text in characters. Screen readers read it in one go: a few sentences, not an article.
pub const MAX_ALT_TEXT_CHARS: usize = 1_000;

/// What to draw. A value of this type has passed every check, so nothing behind it checks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawJobSpec", into = "RawJobSpec")]
pub struct JobSpec {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u32>,
    renditions: Vec<RenditionSpec>,
    alt_text: Option<String>,
}

/// Why a spec was refused: the field and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidJobSpec {
    /// Nothing but white space.
    #[error("{field} is empty: describe the picture in 1 to {max} characters")]
    Empty {
        /// Name of the field in the request.
        field: &'static str,
        /// Longest text allowed, in characters.
        max: usize,
    },
    /// Over [`MAX_PROMPT_CHARS`] or [`MAX_ALT_TEXT_CHARS`].
    #[error("{field} has {chars} characters: shorten it to at most {max}")]
    TooLong {
        /// Name of the field in the request.
        field: &'static str,
        /// Length found, in characters.
        chars: usize,
        /// Longest text allowed, in characters.
        max: usize,
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
            Self::Empty { field, .. } | Self::TooLong { field, .. } | Self::ForbiddenCharacter { field, .. } => field,
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
        check_text("prompt", &prompt, MAX_PROMPT_CHARS, is_allowed)?;
        if let Some(text) = &negative_prompt {
            check_text("negative_prompt", text, MAX_PROMPT_CHARS, is_allowed)?;
        }
        let seed = seed.filter(|&seed| seed != 0);
        Ok(Self { prompt, negative_prompt, seed, renditions: Vec::new(), alt_text: None })
    }

    /// Asks for more pictures beside the standard one. Order and repeats mean nothing; the standard one is made in any case.
    #[must_use]
    pub fn with_renditions(mut self, renditions: impl IntoIterator<Item = RenditionSpec>) -> Self {
        self.renditions = renditions.into_iter().filter(|spec| *spec != RenditionSpec::STANDARD).collect();
        self.renditions.sort_unstable();
        self.renditions.dedup();
        self
    }

    /// Says what the picture shows to those who cannot see it, in the caller's words. It is kept and handed out, and never
    /// drawn, changed or made up.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_ALT_TEXT_CHARS`], or has a control character: it is an attribute of one line.
    pub fn with_alt_text(mut self, alt_text: Option<String>) -> Result<Self, InvalidJobSpec> {
        if let Some(text) = &alt_text {
            check_text("alt_text", text, MAX_ALT_TEXT_CHARS, |c| is_allowed(c) && !c.is_control())?;
        }
        self.alt_text = alt_text;
        Ok(self)
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

    /// Returns the alternative text. User content: never logged.
    pub fn alt_text(&self) -> Option<&str> {
        self.alt_text.as_deref()
    }

    /// Returns a SHA-256 (hex) over what is to be drawn: specs that ask for the same pictures have equal fingerprints. The
    /// alternative text is not in it, so that it is the same to a worker that does not know the field.
    pub fn fingerprint(&self) -> String {
        let drawn = Self { alt_text: None, ..self.clone() };
        let canonical = serde_json::to_vec(&drawn).expect("a spec always serialises");
        Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn check_text(
    field: &'static str,
    text: &str,
    max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), InvalidJobSpec> {
    let chars = text.chars().count();
    if chars > max {
        return Err(InvalidJobSpec::TooLong { field, chars, max });
    }
    if let Some((index, found)) = text.chars().enumerate().find(|&(_, c)| !allowed(c)) {
        return Err(InvalidJobSpec::ForbiddenCharacter { field, code_point: found.into(), position: index + 1 });
    }
    if text.trim().is_empty() {
        return Err(InvalidJobSpec::Empty { field, max });
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alt_text: Option<String>,
}

impl TryFrom<RawJobSpec> for JobSpec {
    type Error = InvalidJobSpec;

    fn try_from(raw: RawJobSpec) -> Result<Self, InvalidJobSpec> {
        Self::new(raw.prompt, raw.negative_prompt, raw.seed)?
            .with_renditions(raw.renditions)
            .with_alt_text(raw.alt_text)
    }
}

impl From<JobSpec> for RawJobSpec {
    fn from(spec: JobSpec) -> Self {
        Self {
            prompt: spec.prompt,
            negative_prompt: spec.negative_prompt,
            seed: spec.seed,
            renditions: spec.renditions,
            alt_text: spec.alt_text,
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
        assert_eq!(
            error,
            InvalidJobSpec::TooLong { field: "prompt", chars: MAX_PROMPT_CHARS + 1, max: MAX_PROMPT_CHARS }
        );
    }

    #[test]
    fn empty_and_blank_are_refused() {
        let empty = Err(InvalidJobSpec::Empty { field: "prompt", max: MAX_PROMPT_CHARS });
        assert_eq!(spec(""), empty);
        assert_eq!(spec(" \n\t"), empty);
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
    fn an_alternative_text_is_one_line_and_kept_as_it_is() {
        let with = |text: &str| spec("fox").unwrap().with_alt_text(Some(text.to_owned()));
        assert_eq!(with(" A red fox, 狐, in \"snow\" ").unwrap().alt_text(), Some(" A red fox, 狐, in \"snow\" "));
        assert_eq!(spec("fox").unwrap().with_alt_text(None).unwrap().alt_text(), None);
        assert!(with(&"狐".repeat(MAX_ALT_TEXT_CHARS)).is_ok());
        let long = with(&"狐".repeat(MAX_ALT_TEXT_CHARS + 1)).unwrap_err();
        assert_eq!(long.to_string(), "alt_text has 1001 characters: shorten it to at most 1000");
        assert_eq!(
            with("  ").unwrap_err().to_string(),
            "alt_text is empty: describe the picture in 1 to 1000 characters"
        );
        for (text, code_point, position) in [("a\nb", 0xA, 2), ("\ta", 9, 1), ("a\0", 0, 2), ("\u{85}", 0x85, 1)] {
            let expected = InvalidJobSpec::ForbiddenCharacter { field: "alt_text", code_point, position };
            assert_eq!(with(text), Err(expected));
        }
    }

    #[test]
    fn an_alternative_text_travels_and_is_not_drawn() {
        let described = spec("fox").unwrap().with_alt_text(Some("A fox".into())).unwrap();
        let wire = serde_json::to_string(&described).unwrap();
        assert_eq!(wire, r#"{"prompt":"fox","alt_text":"A fox"}"#);
        assert_eq!(serde_json::from_str::<JobSpec>(&wire).unwrap(), described);
        assert!(serde_json::from_str::<JobSpec>(r#"{"prompt":"fox","alt_text":"a\nb"}"#).is_err());
        assert_eq!(described.fingerprint(), spec("fox").unwrap().fingerprint());
    }

    #[test]
    fn fingerprints_tell_specs_apart() {
        assert_eq!(spec("fox").unwrap().fingerprint(), spec("fox").unwrap().fingerprint());
        assert_ne!(spec("fox").unwrap().fingerprint(), spec("hen").unwrap().fingerprint());
    }
}
