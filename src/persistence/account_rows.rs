//! Rows about users as the databases give them, how each becomes what the layers above know, and what the rows alone
//! decide. Shared by the stores.

use uuid::Uuid;

use crate::domain::ids::{ProfileId, UserId};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};

use super::StoreError;
use super::records::{Account, CODE_TRIES_MAX, NewRefreshToken, Profile};
use super::rows::named;

#[derive(sqlx::FromRow)]
pub(super) struct AccountRow {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    status: String,
    verified: bool,
    password_hash: String,
    created_at: i64,
}

impl TryFrom<AccountRow> for Account {
    type Error = StoreError;

    fn try_from(row: AccountRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: UserId(row.id),
            email: EmailAddress::parse(&row.email)
                .map_err(|_| StoreError::Corrupt(format!("the address of user {}", row.id)))?,
            name: row.name,
            role: named("role", &row.role, Role::from_name)?,
            status: named("account status", &row.status, AccountStatus::from_name)?,
            verified: row.verified,
            password_hash: row.password_hash,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// A mailed code as it is kept.
#[derive(sqlx::FromRow)]
pub(super) struct CodeRow {
    hash: Vec<u8>,
    wrong_tries: i64,
    expires_at: i64,
}

impl CodeRow {
    /// Whether the code may still be tried at `now`, however that ends.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at > now.0 && self.wrong_tries < CODE_TRIES_MAX
    }

    /// Whether it is the code of that hash.
    pub(super) fn is(&self, hash: &[u8; 32]) -> bool {
        self.hash == hash
    }
}

/// A refresh token as it is kept.
#[derive(sqlx::FromRow)]
pub(super) struct RefreshTokenRow {
    /// All tokens of one sign-in.
    pub(super) family: Uuid,
    user_id: Uuid,
    expires_at: i64,
    spent_at: Option<i64>,
    ended_at: Option<i64>,
}

/// What is to happen when a refresh token is shown.
pub(super) enum TokenUse {
    /// It is exchanged for this successor.
    Exchange(NewRefreshToken),
    /// It was exchanged before, so one of the two who have it stole it: its family ends.
    EndFamily,
    /// It is good for nothing.
    Refuse,
}

impl RefreshTokenRow {
    /// What is to happen when the token is shown at `now`, to be exchanged for `successor`.
    pub(super) fn shown(&self, successor: &[u8; 32], now: Timestamp, expires_at: Timestamp) -> TokenUse {
        if self.spent_at.is_some() {
            return TokenUse::EndFamily;
        }
        if self.ended_at.is_some() || self.expires_at <= now.0 {
            return TokenUse::Refuse;
        }
        let (family, user) = (self.family, UserId(self.user_id));
        TokenUse::Exchange(NewRefreshToken { hash: *successor, family, user, created_at: now, expires_at })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct ProfileRow {
    id: Uuid,
    user_id: Uuid,
    email: String,
    name: String,
    address: Option<String>,
    phone: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl From<ProfileRow> for Profile {
    fn from(row: ProfileRow) -> Self {
        Self {
            id: ProfileId(row.id),
            user: UserId(row.user_id),
            email: row.email,
            name: row.name,
            address: row.address,
            phone: row.phone,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        }
    }
}
