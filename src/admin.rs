//! Administrators made from outside the API: the first one at the first start, others by the command line.

use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::domain::ids::{ProfileId, UserId};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};
use crate::http::passwords::Passwords;
use crate::persistence::records::{Account, Profile};
use crate::persistence::{Accounts, StoreError};

/// What an administrator is called who was not given a name.
pub const NAME: &str = "Administrator";

/// Letters and digits of made-up passwords: none that is taken for another. A power of two, so that each is as
/// likely as the others.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 24 of 32 characters: 120 random bits.
const PASSWORD_CHARACTERS: usize = 24;

/// Why there is no new administrator.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address has an account already.
    #[error("that address has an account already")]
    AddressTaken,
    /// The password could not be hashed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The database did not do it.
    #[error(transparent)]
    Store(StoreError),
}

/// Makes an administrator who can sign in at once. Without a password one is made up and given back, which is the
/// only time that it can be read.
///
/// # Errors
/// [`AdminError::AddressTaken`] when the address has an account; others when something else fails.
pub async fn create(
    store: &dyn Accounts,
    email: &EmailAddress,
    name: &str,
    password: Option<SecretString>,
    now: Timestamp,
) -> Result<Option<SecretString>, AdminError> {
    let (password, made_up) = match password {
        Some(password) => (password, None),
        None => {
            let made_up = random_password()?;
            (made_up.clone(), Some(made_up))
        }
    };
    let user = UserId(Uuid::now_v7());
    let account = Account {
        id: user,
        email: email.clone(),
        name: name.to_owned(),
        role: Role::Admin,
        status: AccountStatus::Active,
        verified: true,
        password_hash: hash(&password).await?,
        created_at: now,
    };
    let profile = Profile {
        id: ProfileId(Uuid::now_v7()),
        user,
        email: email.to_string(),
        name: name.to_owned(),
        address: None,
        phone: None,
        created_at: now,
        updated_at: now,
    };
    match store.register(&account, &profile, None).await {
        Ok(()) => Ok(made_up),
        Err(StoreError::Constraint(rule)) if rule == "users_email_unique" => Err(AdminError::AddressTaken),
        Err(error) => Err(AdminError::Store(error)),
    }
}

async fn hash(password: &SecretString) -> Result<String, AdminError> {
    let passwords = Passwords::new(Handle::current(), 1).map_err(|error| AdminError::Hash(error.to_string()))?;
    let hashed = passwords.hash(password.expose_secret().to_owned()).await;
    hashed.map_err(|problem| AdminError::Hash(format!("{problem:?}")))
}

fn random_password() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0_u8; PASSWORD_CHARACTERS];
    getrandom::fill(&mut bytes)?;
    let characters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
    Ok(characters.map(|letter| char::from(*letter)).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_passwords_are_long_and_differ() {
        let passwords = [random_password(), random_password()].map(|password| password.expect("random numbers"));
        let [first, second] = &passwords;
        assert_ne!(first.expose_secret(), second.expose_secret());
        assert_eq!(first.expose_secret().len(), PASSWORD_CHARACTERS);
        assert!(first.expose_secret().bytes().all(|letter| ALPHABET.contains(&letter)));
    }
}
