//! Random tokens, what is kept of them, and password hashes.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// Characters of a class code: none that is mistaken for another when it is read from a blackboard.
const CODE_ALPHABET: &[u8; 31] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";
/// 31^8 codes: guessing one at the rate that the sign-in allows takes longer than a school exists.
const CODE_CHARS: usize = 8;
/// One hash takes 19 MiB and some 20 ms: more at once would only take memory from the pages.
static HASHING: Semaphore = Semaphore::const_new(2);

/// Returns 256 random bits, as text for cookies, ids and keys.
pub fn token() -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(rand::random::<[u8; 32]>())
}

/// Returns a random id of 120 bits: it stands in URLs, and nobody has to be able to guess the next one.
pub fn id() -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(rand::random::<[u8; 15]>())
}

/// Returns a random class code.
pub fn class_code() -> String {
    let mut code = String::with_capacity(CODE_CHARS);
    while code.len() < CODE_CHARS {
        // What does not divide evenly is thrown away, so that every character is as likely as the others.
        let byte = usize::from(rand::random::<u8>());
        if byte < 256 / CODE_ALPHABET.len() * CODE_ALPHABET.len() {
            code.push(char::from(CODE_ALPHABET[byte % CODE_ALPHABET.len()]));
        }
    }
    code
}

/// Returns a class code as it is kept: people write it in small letters and with a hyphen.
pub fn normalised_code(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

/// Returns what the database keeps of a session's token.
pub fn token_hash(token: &str) -> String {
    digest("session", token)
}

/// Returns the token that every form of this visitor carries. It follows from the cookie, which no other site can read.
pub fn csrf_token(cookie: &str) -> String {
    digest("form", cookie)
}

/// Compares without telling by its duration where the texts differ.
pub fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Returns a text that follows from these and from nothing else.
pub fn fingerprint<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    // With their lengths, so that no two lists run together into one.
    let hash = texts.fold(Sha256::new(), |hash, text| {
        hash.chain_update((text.len() as u64).to_be_bytes()).chain_update(text.as_bytes())
    });
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(hash.finalize())
}

fn digest(purpose: &str, text: &str) -> String {
    let bytes = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(text).finalize();
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// Hashes a password with Argon2id, in the parameters that OWASP recommends (19 MiB, 2 passes).
///
/// # Errors
/// When the machine has no memory or no randomness for it.
pub async fn hash_password(password: String) -> Result<String, argon2::password_hash::Error> {
    on_a_thread(move || Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())).await
}

/// Tells whether a password belongs to a hash. Without a hash it takes as long as with one, so that nobody learns from the
/// time whether an account exists.
pub async fn verify_password(password: String, hash: Option<String>) -> bool {
    let checked = on_a_thread(move || match hash {
        Some(hash) => Ok(Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()),
        None => Argon2::default().hash_password(password.as_bytes()).map(|_| false),
    });
    checked.await.unwrap_or(false)
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
) -> Result<T, argon2::password_hash::Error> {
    let _permit = HASHING.acquire().await.map_err(|_| argon2::password_hash::Error::Crypto)?;
    #[expect(clippy::disallowed_methods, reason = "the portal has no pool of its own for two hashes at a time")]
    let hashed = tokio::task::spawn_blocking(work).await;
    hashed.map_err(|_| argon2::password_hash::Error::Crypto)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let hash = hash_password("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify_password("correct horse".to_owned(), Some(hash.clone())).await);
        assert!(!verify_password("battery staple".to_owned(), Some(hash)).await);
        assert!(!verify_password("correct horse".to_owned(), None).await);
        assert!(!verify_password("correct horse".to_owned(), Some("not a hash".to_owned())).await);
    }

    #[test]
    fn tokens_differ_and_their_hashes_have_a_purpose() {
        assert_ne!(token(), token());
        assert_ne!(token_hash("a"), csrf_token("a"));
        assert!(same(&csrf_token("a"), &csrf_token("a")) && !same("a", "b") && !same("a", "ab"));
    }

    #[test]
    fn a_code_survives_how_people_write_it() {
        let code = class_code();
        assert_eq!(code.len(), CODE_CHARS);
        let (first, rest) = code.split_at(4);
        let written = format!(" {}-{rest} ", first.to_lowercase());
        assert_eq!(normalised_code(&written), code);
    }
}
