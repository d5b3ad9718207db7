//! Passwords: argon2id with the crate's default parameters, kept in PHC form.
//!
//! A hash takes a core for tens of milliseconds, so it runs on the blocking threads, as many at once as there are
//! cores, and who waits too long is told that the server is overloaded.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::actors::command::AppliedOutcome;

use super::problem::{Code, Problem};

/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Makes and verifies password hashes.
pub(crate) struct Passwords {
    runtime: Handle,
    turns: Arc<Semaphore>,
    /// Verified against when there is no account, so that both cases take the same time.
    nobodys: Arc<str>,
}

impl Passwords {
    /// At most `at_once` hashes at a time, on the blocking threads of `runtime`.
    ///
    /// # Errors
    /// When the hash function does not work here.
    pub(crate) fn new(runtime: Handle, at_once: usize) -> Result<Self, argon2::password_hash::Error> {
        let nobodys = Argon2::default().hash_password(b"the password of nobody")?.to_string().into();
        Ok(Self { runtime, turns: Arc::new(Semaphore::new(at_once.max(1))), nobodys })
    }

    /// The hash of a password, in PHC form.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        let hashed =
            self.in_turn(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()));
        hashed.await?.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Problem::internal(AppliedOutcome::No)
        })
    }

    /// Whether the password is the one of `hash`. Without a hash it takes as long and says no.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Problem> {
        let nobodys = Arc::clone(&self.nobodys);
        self.in_turn(move || {
            let known = hash.is_some();
            let right = PasswordHash::new(hash.as_deref().unwrap_or(&nobodys))
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
            known && right
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Problem::new(Code::Overloaded, "too many sign-ins are waiting").applied(AppliedOutcome::No));
        };
        let done = self.runtime.spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "work on a password died");
            Problem::internal(AppliedOutcome::No)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_account_is_right() {
        let passwords = Passwords::new(Handle::current(), 2).expect("argon2");
        let hash = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        let verify = |password: &str, hash: Option<String>| passwords.verify(password.to_owned(), hash);
        assert!(verify("correct horse", Some(hash.clone())).await.expect("verified"));
        assert!(!verify("correct house", Some(hash)).await.expect("verified"));
        assert!(!verify("the password of nobody", None).await.expect("verified"));
        assert!(!verify("x", Some("not a hash".to_owned())).await.expect("verified"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so() {
        let passwords = Passwords::new(Handle::current(), 1).expect("argon2");
        let _busy = Arc::clone(&passwords.turns).acquire_owned().await.expect("a turn");
        let refused = passwords.hash("correct horse".to_owned()).await.expect_err("no turn");
        assert_eq!(refused.code(), Code::Overloaded);
    }
}
