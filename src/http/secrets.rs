//! Keyed hashes and random secrets: what is kept of codes, tokens and requests, and how codes and tokens are made.

use aws_lc_rs::hmac;

use crate::persistence::{SharedStore, StoreError};

/// Digits of a mailed code.
const CODE_DIGITS_LIMIT: u32 = 1_000_000;

/// The operating system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness(#[source] getrandom::Error);

/// HMAC-SHA-256 with a key of the server's.
#[derive(Debug, Clone)]
pub(crate) struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// With this key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// With the key of that name, which is made when there is none yet.
    pub(crate) async fn load(store: &SharedStore, name: &str) -> Result<Self, KeyError> {
        let candidate = random_bytes::<32>().map_err(KeyError::Random)?;
        Ok(Self::new(&store.secret(name, candidate).await?))
    }

    /// The hash of some parts; the same bytes divided otherwise have another.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

/// Why a key of the server's is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A new one can not be made.
    #[error("a key can not be made")]
    Random(#[source] NoRandomness),
    /// The store does not give it.
    #[error("the store does not give the server's keys")]
    Store(#[from] StoreError),
}

/// Random bytes of the operating system.
///
/// # Errors
/// [`NoRandomness`] when it has none, which no healthy machine does.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// A code to be mailed: six digits, each code as likely as any other.
///
/// # Errors
/// [`NoRandomness`].
pub(crate) fn mailed_code() -> Result<String, NoRandomness> {
    // The numbers above the last whole million would make small codes likelier.
    const FAIR: u32 = u32::MAX - u32::MAX % CODE_DIGITS_LIMIT;
    loop {
        let number = u32::from_be_bytes(random_bytes()?);
        if number < FAIR {
            return Ok(format!("{:06}", number % CODE_DIGITS_LIMIT));
        }
    }
}

/// A refresh token: 256 random bits in hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`].
pub(crate) fn refresh_token() -> Result<String, NoRandomness> {
    use std::fmt::Write as _;

    let mut token = String::with_capacity(64);
    for byte in random_bytes::<32>()? {
        // Writing to a String does not fail.
        let _ = write!(token, "{byte:02x}");
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_hash_depends_on_key_parts_and_their_division() {
        let hash = KeyedHash::new(&[1; 32]);
        let of = hash.of(&[b"ab", b"c"]);
        assert_eq!(of, hash.of(&[b"ab", b"c"]));
        assert_ne!(of, hash.of(&[b"a", b"bc"]));
        assert_ne!(of, hash.of(&[b"abc"]));
        assert_ne!(of, KeyedHash::new(&[2; 32]).of(&[b"ab", b"c"]));
    }

    #[test]
    fn codes_are_six_digits_and_differ() {
        let codes: HashSet<_> = (0..200).map(|_| mailed_code().expect("randomness")).collect();
        assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit())));
        assert!(codes.len() > 190, "200 codes of a million are nearly all different: {}", codes.len());
    }

    #[test]
    fn refresh_tokens_are_256_bits_and_differ() {
        let (one, other) = (refresh_token().expect("randomness"), refresh_token().expect("randomness"));
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }
}
