//! `Job` and its wire form: what travels in the queue, versioned.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{JobId, JobSpec, Place, TenantId, TraceContext};

/// Newest version that is read.
///
/// Raise it when an older worker must not read the new form; additions that an older worker may ignore keep the number.
/// [`Job::encode`] writes the oldest version that says all of a job:
///
/// - 1: a job without renditions.
/// - 2: a job with `spec.renditions`, which a worker of version 1 would leave out without a word.
/// - 3: a job that its caller asked for again, whose end a worker of version 2 would take for the last word.
pub const WIRE_VERSION: u64 = 3;

/// One accepted request, as the worker receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Identity.
    pub id: JobId,
    /// Whose job it is.
    pub tenant: TenantId,
    /// What to draw.
    pub spec: JobSpec,
    /// When the API accepted it.
    pub submitted_at: Timestamp,
    /// Past this time the job is `expired` and not paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    /// How often its caller had asked for it again when this message was sent; 0 is the first time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// What ties its logs together.
    pub trace: TraceContext,
}

/// A message body that is not a job we can do. Says where, and never what: the body has a prompt in it.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Not JSON at all, or not an object.
    #[error("message is not a JSON object: {0}")]
    NotJson(Place),
    /// No usable version number.
    #[error("message has no version: expected \"v\": {WIRE_VERSION}")]
    NoVersion,
    /// Written by a newer API: a newer worker will understand it, so it is retried and not poison.
    #[error("message has version {found}, this worker reads up to {WIRE_VERSION}")]
    NewerVersion {
        /// Version found.
        found: u64,
    },
    /// The right version with a missing or invalid field.
    #[error("message is not a valid job: {0}")]
    Invalid(Place),
}

impl Job {
    /// Returns the message body. At most about 90 kB: two prompts of 10,000 characters and an alternative text of
    /// 1,000, of at most 4 bytes each.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<'a> {
            v: u64,
            #[serde(flatten)]
            job: &'a Job,
        }
        let v = match (self.retries, self.spec.renditions()) {
            (0, []) => 1,
            (0, _) => 2,
            _ => WIRE_VERSION,
        };
        serde_json::to_string(&Versioned { v, job: self }).expect("a job always serialises")
    }

    /// Reads a message body.
    ///
    /// # Errors
    /// [`DecodeError::NewerVersion`] may succeed on another worker; every other error is final for this body.
    pub fn decode(body: &str) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Envelope {
            v: Option<serde_json::Value>,
        }
        let envelope: Envelope = serde_json::from_str(body).map_err(|error| DecodeError::NotJson(error.into()))?;
        match envelope.v.as_ref().and_then(serde_json::Value::as_u64) {
            Some(1..=WIRE_VERSION) => serde_json::from_str(body).map_err(|error| DecodeError::Invalid(error.into())),
            None | Some(0) => Err(DecodeError::NoVersion),
            Some(found) => Err(DecodeError::NewerVersion { found }),
        }
    }

    /// Returns whether the caller no longer wants the picture at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline_at.is_some_and(|deadline| deadline <= now)
    }

    /// Returns the seed to send to a model whose largest seed is `max_seed`: the caller's, or one derived from the id,
    /// so that a repeated attempt asks for the same picture. Never 0, which the models read as 'random'.
    pub fn model_seed(&self, max_seed: u32) -> u32 {
        let wanted = self.spec.seed().unwrap_or_else(|| {
            let folded = self.id.uuid().as_u128();
            let folded = (folded ^ (folded >> 32) ^ (folded >> 64) ^ (folded >> 96)) & u128::from(u32::MAX);
            u32::try_from(folded).expect("masked to 32 bits")
        });
        wanted.clamp(1, max_seed.max(1))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
pub(crate) fn is_zero(retries: &u32) -> bool {
    *retries == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::IdKeys;

    fn job(prompt: String, negative: Option<String>, seed: Option<u32>) -> Option<Job> {
        let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        let tenant: TenantId = "north".parse().unwrap();
        Some(Job {
            id: keys.issue(&tenant),
            spec: JobSpec::new(prompt, negative, seed).ok()?,
            tenant,
            submitted_at: Timestamp::UNIX_EPOCH,
            deadline_at: None,
            retries: 0,
            trace: TraceContext::generate(),
        })
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(prompt in "\\PC{1,400}", negative in proptest::option::of("\\PC{1,50}"), seed: Option<u32>) {
            if let Some(job) = job(prompt, negative, seed) {
                prop_assert_eq!(Job::decode(&job.encode()).unwrap(), job);
            }
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in "\\PC{0,200}") {
            prop_assert!(Job::decode(&body).is_err());
        }

        #[test]
        fn seeds_are_in_the_range_of_the_model(uuid_seed: Option<u32>, max in 1u32..) {
            let job = job("fox".into(), None, uuid_seed).unwrap();
            let seed = job.model_seed(max);
            prop_assert!((1..=max).contains(&seed));
            prop_assert_eq!(seed, job.model_seed(max));
        }
    }

    #[test]
    fn without_a_seed_of_its_own_a_job_has_one_that_follows_from_all_of_its_id() {
        let job = Job::decode(GOLDEN_V2).unwrap();
        // The four words of the UUID, each in it.
        let folded: u32 = 0x018f_3a5e ^ 0x7c00_7cc4 ^ 0xa1f0_0123 ^ 0x4567_89ab;
        assert_eq!(job.model_seed(u32::MAX), folded);
        assert_eq!(Job::decode(GOLDEN_V1).unwrap().model_seed(u32::MAX), 7);
    }

    /// The wire form of version 1, as a queue may still hold it after an update. Never edit the text: add a version.
    const GOLDEN_V1: &str = r#"{"v":1,"id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","tenant":"north","spec":{"prompt":"a red fox","negative_prompt":"text","seed":7},"submitted_at":"2026-11-24T10:00:00Z","deadline_at":"2026-11-24T10:05:00Z","trace":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","correlation_id":"assignment-42"},"added_later":true}"#;

    #[test]
    fn golden_version_1_still_decodes() {
        let job = Job::decode(GOLDEN_V1).unwrap();
        insta::assert_snapshot!(job.encode(), @r#"{"v":1,"id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","tenant":"north","spec":{"prompt":"a red fox","negative_prompt":"text","seed":7},"submitted_at":"2026-11-24T10:00:00Z","deadline_at":"2026-11-24T10:05:00Z","trace":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","correlation_id":"assignment-42"}}"#);
        assert!(!job.is_expired("2026-11-24T10:04:59Z".parse().unwrap()));
        assert!(job.is_expired("2026-11-24T10:05:00Z".parse().unwrap()));
    }

    /// Version 2, with what it adds.
    const GOLDEN_V2: &str = r#"{"v":2,"id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","tenant":"north","spec":{"prompt":"a red fox","renditions":[{"width":256,"format":"webp"},{"width":1024,"format":"avif"}]},"submitted_at":"2026-11-24T10:00:00Z","trace":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","correlation_id":"assignment-42"}}"#;

    #[test]
    fn golden_version_2_decodes_and_only_renditions_need_it() {
        let mut job = Job::decode(GOLDEN_V2).unwrap();
        assert_eq!(job.encode(), GOLDEN_V2);
        assert_eq!(job.spec.renditions().len(), 2);
        job.spec = job.spec.with_renditions([]);
        assert!(job.encode().starts_with(r#"{"v":1,"#), "a worker of version 1 can do it");
        let odd = GOLDEN_V2.replace("\"width\":256", "\"width\":300");
        assert!(matches!(Job::decode(&odd), Err(DecodeError::Invalid(_))));
    }

    /// Version 3, with what it adds.
    const GOLDEN_V3: &str = r#"{"v":3,"id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","tenant":"north","spec":{"prompt":"a red fox"},"submitted_at":"2026-11-24T11:00:00Z","retries":2,"trace":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","correlation_id":"assignment-42"}}"#;

    #[test]
    fn golden_version_3_decodes_and_only_what_is_asked_for_again_needs_it() {
        let mut job = Job::decode(GOLDEN_V3).unwrap();
        assert_eq!((job.encode().as_str(), job.retries), (GOLDEN_V3, 2));
        job.retries = 0;
        assert!(job.encode().starts_with(r#"{"v":1,"#), "a worker of version 1 can do it");
    }

    #[test]
    fn each_kind_of_bad_body_has_its_error() {
        assert!(matches!(Job::decode("not json"), Err(DecodeError::NotJson(_))));
        assert!(matches!(Job::decode("\"text\""), Err(DecodeError::NotJson(_))));
        assert!(matches!(Job::decode("{}"), Err(DecodeError::NoVersion)));
        assert!(matches!(Job::decode(r#"{"v":"one"}"#), Err(DecodeError::NoVersion)));
        assert!(matches!(Job::decode(r#"{"v":0}"#), Err(DecodeError::NoVersion)));
        assert!(matches!(Job::decode(r#"{"v":4}"#), Err(DecodeError::NewerVersion { found: 4 })));
        assert!(matches!(Job::decode(r#"{"v":1}"#), Err(DecodeError::Invalid(_))));
        let blank_prompt = GOLDEN_V1.replace("a red fox", " ");
        assert!(matches!(Job::decode(&blank_prompt), Err(DecodeError::Invalid(_))));
    }

    #[test]
    fn an_error_never_quotes_the_body() {
        for (good, bad) in [
            (r#""prompt":"a red fox""#, r#""prompt":{"a red fox":1}"#),
            (r#"{"prompt":"a red fox","negative_prompt":"text","seed":7}"#, r#""a red fox""#),
            (r#""seed":7"#, r#""seed":"a red fox""#),
            (r#""tenant":"north""#, r#""tenant":"a red fox""#),
        ] {
            let body = GOLDEN_V1.replace(good, bad);
            assert_ne!(body, GOLDEN_V1);
            let error = Job::decode(&body).unwrap_err();
            assert!(matches!(error, DecodeError::Invalid(_)), "{error}");
            assert!(error.to_string().starts_with("message is not a valid job: wrong field at 1:"), "{error}");
            assert!(!format!("{error}{error:?}").contains("fox"), "{error:?}");
        }
        let error = Job::decode(r#""a red fox""#).unwrap_err();
        assert!(!format!("{error}{error:?}").contains("fox"), "{error:?}");
        assert_eq!(error.to_string(), "message is not a JSON object: wrong field at 1:11");
    }

    #[test]
    fn the_largest_job_fits_a_message() {
        let widest = "\u{10FFFD}".repeat(crate::MAX_PROMPT_CHARS);
        let alt_text = "\u{10FFFD}".repeat(crate::MAX_ALT_TEXT_CHARS);
        let mut job = job(widest.clone(), Some(widest), None).unwrap();
        job.spec = job.spec.with_alt_text(Some(alt_text)).unwrap();
        let body = job.encode();
        assert!(body.len() < 90_000, "{} bytes", body.len());
    }
}
