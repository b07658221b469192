//! `Secret`: signs a webhook as the specification Standard Webhooks has it, so that any of its libraries can verify it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// What the specification puts in front of a symmetric secret.
const PREFIX: &str = "whsec_";
/// Bytes that a secret may have, says the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that both ends of a webhook know.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// The text is not a secret. Never quoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSecret {
    #[error("has no 'whsec_' in front: write whsec_ and the base64 of 24 to 64 random bytes")]
    NoPrefix,
    #[error("is not base64 behind 'whsec_': make one with `echo whsec_$(openssl rand -base64 32)`")]
    NotBase64,
    #[error("has {0} bytes: 24 to 64 are needed, as of `echo whsec_$(openssl rand -base64 32)`")]
    Length(usize),
}

impl Secret {
    fn sign(&self, id: &str, timestamp: i64, payload: &str) -> String {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        hmac.update(format!("{id}.{timestamp}.").as_bytes());
        hmac.update(payload.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(hmac.finalize().into_bytes()))
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret::NoPrefix)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret::NotBase64)?;
        if !BYTES.contains(&bytes.len()) {
            return Err(InvalidSecret::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Returns the value of `webhook-signature`: one signature for each secret, so that a receiver may know either.
/// `id` has no full stop in it; `timestamp` is in seconds since 1970.
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, payload: &str) -> String {
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(id, timestamp, payload)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification and of its libraries' tests.
    #[test]
    fn the_example_of_the_specification() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let payload = r#"{"test": 2432232314}"#;
        assert_eq!(
            sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, payload),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn the_official_library_agrees_for_either_secret_of_a_rotation() {
        let texts = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
        let secrets = texts.map(|text| text.parse().unwrap());
        let signed = sign(&secrets, "msg_1", 1_614_265_330, r#"{"ünï": "code"}"#);
        let expected = texts.map(|text| {
            let official = standardwebhooks::Webhook::new(text).unwrap();
            official.sign("msg_1", 1_614_265_330, r#"{"ünï": "code"}"#.as_bytes()).unwrap()
        });
        assert_eq!(signed, expected.join(" "));
    }

    #[test]
    fn what_is_no_secret_is_told_and_not_shown() {
        let of = |text: &str| text.parse::<Secret>().unwrap_err();
        assert_eq!(of("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), InvalidSecret::NoPrefix);
        assert_eq!(of("whsec_not base64"), InvalidSecret::NotBase64);
        assert_eq!(of("whsec_c2hvcnQ="), InvalidSecret::Length(5));
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
