//! Access tokens: JWTs signed with HMAC-SHA-256 (RFC 7519), by a key that all nodes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ids::UserId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::Account;

/// Bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 4096;
/// Tokens that are remembered at most.
const VERIFIED_MAX: usize = 10_000;
/// How often those whose time is over make room.
const TIDY_PERIOD: Duration = Duration::from_secs(10);
const MICROS_PER_SECOND: i64 = 1_000_000;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The user's id.
    pub sub: String,
    /// Their e-mail address.
    pub email: String,
    /// What they are called.
    pub name: String,
    /// What they might do when it was made; the account says what they may do now.
    pub role: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// From when on it is good for nothing, in seconds since 1970.
    pub exp: i64,
    /// Its own id.
    pub jti: String,
}

/// Who a token is for, and until when it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The user.
    pub user: UserId,
    /// What they are called.
    pub name: Arc<str>,
    /// Their e-mail address.
    pub email: Arc<str>,
    end: Timestamp,
}

impl Holder {
    /// Of a token that is one of ours.
    fn of(claims: Claims) -> Option<Self> {
        let end = Timestamp(claims.exp.checked_mul(MICROS_PER_SECOND)?);
        Some(Self { user: claims.sub.parse().ok()?, name: claims.name.into(), email: claims.email.into(), end })
    }
}

/// Makes and reads access tokens.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    header: Header,
    life: Duration,
    /// Tokens whose signature was verified: a token comes with each of its holder's requests, and what it says does not
    /// change.
    verified: DashMap<Box<str>, Holder>,
    /// When it may be looked again whether tokens that are remembered have ended, in microseconds since 1970: looking at
    /// all of them for each that finds no room would cost more than the signatures.
    tidy_at: AtomicI64,
}

impl Tokens {
    /// Tokens signed with `secret` that live so long.
    pub(crate) fn new(secret: &[u8], life: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The time that decides is the shop's clock, not this machine's: see `read`.
        validation.validate_exp = false;
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            header: Header::new(Algorithm::HS256),
            life,
            verified: DashMap::new(),
            tidy_at: AtomicI64::new(i64::MIN),
        }
    }

    /// How long a token lives.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    /// A token for an account.
    ///
    /// # Errors
    /// When it can not be signed, which a key of any length can.
    pub(crate) fn issue(&self, account: &Account, now: Timestamp) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            sub: account.id.to_string(),
            email: account.email.to_string(),
            name: account.name.clone(),
            role: account.role.name().to_owned(),
            iat: now.0.div_euclid(MICROS_PER_SECOND),
            exp: now.plus(self.life).0.div_euclid(MICROS_PER_SECOND),
            jti: Uuid::now_v7().to_string(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding)
    }

    /// Who a token is for, when it is ours, unchanged, and its time is not over.
    pub(crate) fn read(&self, token: &str, now: Timestamp) -> Option<Holder> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let verified = self.verified.get(token).map(|holder| holder.clone());
        let holder = verified.or_else(|| self.verify(token, now))?;
        (now < holder.end).then_some(holder)
    }

    /// Whether a period has passed; for one caller.
    fn may_tidy(&self, now: Timestamp) -> bool {
        let at = self.tidy_at.load(Ordering::Relaxed);
        let next = now.plus(TIDY_PERIOD).0;
        now.0 >= at && self.tidy_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn verify(&self, token: &str, now: Timestamp) -> Option<Holder> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?.claims;
        let holder = Holder::of(claims)?;
        if self.verified.len() >= VERIFIED_MAX && self.may_tidy(now) {
            self.verified.retain(|_, holder| now < holder.end);
        }
        if now < holder.end && self.verified.len() < VERIFIED_MAX {
            self.verified.insert(token.into(), holder.clone());
        }
        Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::user::{AccountStatus, EmailAddress, Role};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Timestamp = Timestamp(1_795_339_800_000_000);

    fn account() -> Account {
        Account {
            id: UserId(Uuid::from_u128(7)),
            email: EmailAddress::parse("ann@example.org").expect("an address"),
            name: "Ann".to_owned(),
            role: Role::User,
            status: AccountStatus::Active,
            verified: true,
            password_hash: String::new(),
            created_at: NOW,
        }
    }

    #[test]
    fn a_token_says_who_it_is_for_until_its_time_is_over() {
        let tokens = Tokens::new(&[1; 32], HOUR);
        let token = tokens.issue(&account(), NOW).expect("a token");
        let holder = tokens.read(&token, NOW).expect("a good token");
        assert_eq!((holder.user, &*holder.email, &*holder.name), (account().id, "ann@example.org", "Ann"));
        let end = NOW.plus(HOUR);
        assert!(tokens.read(&token, Timestamp(end.0 - 1)).is_some());
        assert_eq!(tokens.read(&token, end), None, "without any leeway, though it is remembered");
        assert_eq!(Tokens::new(&[1; 32], HOUR).read(&token, end), None);
    }

    #[test]
    fn a_changed_or_foreign_token_is_none() {
        let tokens = Tokens::new(&[1; 32], HOUR);
        let token = tokens.issue(&account(), NOW).expect("a token");
        assert_eq!(Tokens::new(&[2; 32], HOUR).read(&token, NOW), None);
        let (rest, signature) = token.rsplit_once('.').expect("three parts");
        let (header, _) = rest.split_once('.').expect("three parts");
        let admin =
            Tokens::new(&[2; 32], HOUR).issue(&Account { role: Role::Admin, ..account() }, NOW).expect("a token");
        let claims = admin.split('.').nth(1).expect("three parts");
        assert_eq!(tokens.read(&format!("{header}.{claims}.{signature}"), NOW), None);
        for bad in ["", ".", "..", "a.b.c", rest, &format!("{rest}."), &"a".repeat(5000)] {
            assert_eq!(tokens.read(bad, NOW), None, "{bad}");
        }
    }

    #[test]
    fn so_many_tokens_are_remembered_and_no_more() {
        let tokens = Tokens::new(&[1; 32], HOUR);
        let token = tokens.issue(&account(), NOW).expect("a token");
        let holder = tokens.read(&token, NOW).expect("a good token");
        for number in 0..VERIFIED_MAX + 5 {
            tokens.verified.insert(number.to_string().into(), holder.clone());
        }
        let other = tokens.issue(&Account { name: "Bob".to_owned(), ..account() }, NOW).expect("a token");
        assert!(tokens.read(&other, NOW).is_some_and(|holder| &*holder.name == "Bob"));
        assert!(!tokens.verified.contains_key(&*other), "there is no room");
        assert!(!tokens.may_tidy(NOW), "it was looked just now");
        let late = NOW.plus(HOUR);
        let new = tokens.issue(&account(), late).expect("a token");
        assert!(tokens.read(&new, late).is_some());
        assert_eq!(tokens.verified.len(), 1, "those whose time is over make room");
    }

    #[test]
    fn other_algorithms_are_refused() {
        let secret = [1; 32];
        let tokens = Tokens::new(&secret, HOUR);
        let token = tokens.issue(&account(), NOW).expect("a token");
        let claims = jsonwebtoken::decode::<Claims>(&token, &tokens.decoding, &tokens.validation).expect("good").claims;
        let other = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &EncodingKey::from_secret(&secret));
        assert_eq!(tokens.read(&other.expect("a token"), NOW), None, "signed with our key, but otherwise");
        // {"alg":"none","typ":"JWT"}
        let unsigned =
            format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", token.split('.').nth(1).expect("three parts"));
        assert_eq!(tokens.read(&unsigned, NOW), None);
    }
}
