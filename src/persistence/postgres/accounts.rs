//! Users, their sign-in and their profiles, in PostgreSQL.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::domain::ids::{ProfileId, UserId};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};
use crate::persistence::account_rows::{AccountRow, CodeRow, ProfileRow, RefreshTokenRow, TokenUse};
use crate::persistence::records::{
    Account, CodePurpose, CodeTry, LoginTry, NewCode, NewEmail, NewRefreshToken, Profile, ProfilePatch,
};
use crate::persistence::rows::sized;
use crate::persistence::{Accounts, StoreError};

use super::PostgresStore;
use super::error::Answer;
use super::mail::insert_email;

#[async_trait]
impl Accounts for PostgresStore {
    async fn register(
        &self,
        account: &Account,
        profile: &Profile,
        code: Option<(&NewCode, &NewEmail)>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_account(&mut transaction, account).await?;
        insert_profile(&mut transaction, profile).await?;
        if let Some((code, mail)) = code {
            replace_code(&mut transaction, code).await?;
            insert_email(&mut transaction, mail).await?;
        }
        transaction.commit().await
    }

    async fn account_by_email(&self, email: &EmailAddress) -> Result<Option<Account>, StoreError> {
        let row: Option<AccountRow> = sqlx::query_as("SELECT * FROM users WHERE email = $1")
            .bind(email.as_str())
            .fetch_optional(&self.pool)
            .answered()
            .await?;
        row.map(Account::try_from).transpose()
    }

    async fn account(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        let mut connection = self.pool.acquire().answered().await?;
        account(&mut connection, user).await
    }

    async fn has_admin(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'ADMIN')")
            .fetch_one(&self.pool)
            .answered()
            .await
    }

    async fn put_code(&self, code: &NewCode, mail: &NewEmail) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        replace_code(&mut transaction, code).await?;
        insert_email(&mut transaction, mail).await?;
        transaction.commit().await
    }

    async fn verify_email(&self, user: UserId, hash: &[u8; 32], now: Timestamp) -> Result<CodeTry, StoreError> {
        let mut transaction = self.begin().await?;
        let outcome = try_code(&mut transaction, user, CodePurpose::VerifyEmail, hash, now).await?;
        if outcome == CodeTry::Accepted {
            sqlx::query("UPDATE users SET verified = true WHERE id = $1")
                .bind(user.0)
                .execute(&mut *transaction)
                .answered()
                .await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn reset_password(
        &self,
        user: UserId,
        hash: &[u8; 32],
        password_hash: &str,
        now: Timestamp,
    ) -> Result<CodeTry, StoreError> {
        let mut transaction = self.begin().await?;
        let outcome = try_code(&mut transaction, user, CodePurpose::ResetPassword, hash, now).await?;
        if outcome == CodeTry::Accepted {
            sqlx::query("UPDATE users SET password_hash = $1 WHERE id = $2")
                .bind(password_hash)
                .bind(user.0)
                .execute(&mut *transaction)
                .answered()
                .await?;
            end_refresh_tokens(&mut transaction, user, now).await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn record_login(&self, login: &LoginTry) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO logins (at, email, user_id, outcome, address, user_agent) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(login.at.0)
        .bind(&login.email)
        .bind(login.user.map(|user| user.0))
        .bind(login.outcome)
        .bind(&login.address)
        .bind(&login.user_agent)
        .execute(&mut *transaction)
        .answered()
        .await?;
        transaction.commit().await
    }

    async fn insert_refresh_token(&self, token: &NewRefreshToken) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_refresh_token(&mut transaction, token).await?;
        transaction.commit().await
    }

    async fn rotate_refresh_token(
        &self,
        hash: &[u8; 32],
        successor: &[u8; 32],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Option<UserId>, StoreError> {
        let mut transaction = self.begin().await?;
        lock_owner(&mut transaction, hash).await?;
        let known: Option<RefreshTokenRow> = sqlx::query_as(
            "SELECT family, user_id, expires_at, spent_at, ended_at FROM refresh_tokens WHERE hash = $1",
        )
        .bind(&hash[..])
        .fetch_optional(&mut *transaction)
        .answered()
        .await?;
        let Some(token) = known else { return Ok(None) };
        let next = match token.shown(successor, now, expires_at) {
            TokenUse::Exchange(next) => next,
            TokenUse::EndFamily => {
                end_family(&mut transaction, token.family, now).await?;
                transaction.commit().await?;
                return Ok(None);
            }
            TokenUse::Refuse => return Ok(None),
        };
        sqlx::query("UPDATE refresh_tokens SET spent_at = $1 WHERE hash = $2")
            .bind(now.0)
            .bind(&hash[..])
            .execute(&mut *transaction)
            .answered()
            .await?;
        insert_refresh_token(&mut transaction, &next).await?;
        transaction.commit().await?;
        Ok(Some(next.user))
    }

    async fn end_refresh_family(&self, hash: &[u8; 32]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        lock_owner(&mut transaction, hash).await?;
        let family: Option<Uuid> = sqlx::query_scalar("SELECT family FROM refresh_tokens WHERE hash = $1")
            .bind(&hash[..])
            .fetch_optional(&mut *transaction)
            .answered()
            .await?;
        let Some(family) = family else { return Ok(()) };
        end_family(&mut transaction, family, self.clock.now()).await?;
        transaction.commit().await
    }

    async fn set_role(&self, user: UserId, role: Role) -> Result<Option<Account>, StoreError> {
        let mut transaction = self.begin().await?;
        lock_with_admins(&mut transaction, user).await?;
        let Some(mut known) = account(&mut transaction, user).await? else { return Ok(None) };
        if role != Role::Admin {
            keep_an_admin(&mut transaction, &known).await?;
        }
        sqlx::query("UPDATE users SET role = $1 WHERE id = $2")
            .bind(role.name())
            .bind(user.0)
            .execute(&mut *transaction)
            .answered()
            .await?;
        transaction.commit().await?;
        known.role = role;
        Ok(Some(known))
    }

    async fn set_account_status(&self, user: UserId, status: AccountStatus) -> Result<Option<Account>, StoreError> {
        let mut transaction = self.begin().await?;
        lock_with_admins(&mut transaction, user).await?;
        let Some(mut known) = account(&mut transaction, user).await? else { return Ok(None) };
        if status != AccountStatus::Active {
            keep_an_admin(&mut transaction, &known).await?;
            end_refresh_tokens(&mut transaction, user, self.clock.now()).await?;
        }
        sqlx::query("UPDATE users SET status = $1 WHERE id = $2")
            .bind(status.name())
            .bind(user.0)
            .execute(&mut *transaction)
            .answered()
            .await?;
        transaction.commit().await?;
        known.status = status;
        Ok(Some(known))
    }

    async fn insert_profile(&self, profile: &Profile) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_profile(&mut transaction, profile).await?;
        transaction.commit().await
    }

    async fn profile(&self, id: ProfileId) -> Result<Option<Profile>, StoreError> {
        let row: Option<ProfileRow> = sqlx::query_as("SELECT * FROM profiles WHERE id = $1")
            .bind(id.0)
            .fetch_optional(&self.pool)
            .answered()
            .await?;
        Ok(row.map(Profile::from))
    }

    async fn profile_of(&self, user: UserId) -> Result<Option<Profile>, StoreError> {
        let row: Option<ProfileRow> = sqlx::query_as("SELECT * FROM profiles WHERE user_id = $1")
            .bind(user.0)
            .fetch_optional(&self.pool)
            .answered()
            .await?;
        Ok(row.map(Profile::from))
    }

    async fn patch_profile(
        &self,
        id: ProfileId,
        patch: &ProfilePatch,
        now: Timestamp,
    ) -> Result<Option<Profile>, StoreError> {
        let mut transaction = self.begin().await?;
        let row: Option<ProfileRow> = sqlx::query_as(
            "UPDATE profiles SET name = coalesce($1, name), \
             address = CASE WHEN $2 THEN $3 ELSE address END, \
             phone = CASE WHEN $4 THEN $5 ELSE phone END, updated_at = $6 \
             WHERE id = $7 RETURNING *",
        )
        .bind(&patch.name)
        .bind(patch.address.is_some())
        .bind(patch.address.as_ref().and_then(Option::as_ref))
        .bind(patch.phone.is_some())
        .bind(patch.phone.as_ref().and_then(Option::as_ref))
        .bind(now.0)
        .bind(id.0)
        .fetch_optional(&mut *transaction)
        .answered()
        .await?;
        transaction.commit().await?;
        Ok(row.map(Profile::from))
    }

    async fn secret(&self, name: &str, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(&candidate[..])
            .execute(&mut *transaction)
            .answered()
            .await?;
        let value: Vec<u8> = sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *transaction)
            .answered()
            .await?;
        transaction.commit().await?;
        sized("secret", value)
    }
}

async fn account(connection: &mut PgConnection, user: UserId) -> Result<Option<Account>, StoreError> {
    let row: Option<AccountRow> =
        sqlx::query_as("SELECT * FROM users WHERE id = $1").bind(user.0).fetch_optional(connection).answered().await?;
    row.map(Account::try_from).transpose()
}

async fn insert_account(connection: &mut PgConnection, account: &Account) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (id, email, name, role, status, verified, password_hash, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(account.id.0)
    .bind(account.email.as_str())
    .bind(&account.name)
    .bind(account.role.name())
    .bind(account.status.name())
    .bind(account.verified)
    .bind(&account.password_hash)
    .bind(account.created_at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}

async fn insert_profile(connection: &mut PgConnection, profile: &Profile) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO profiles (id, user_id, email, name, address, phone, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(profile.id.0)
    .bind(profile.user.0)
    .bind(&profile.email)
    .bind(&profile.name)
    .bind(&profile.address)
    .bind(&profile.phone)
    .bind(profile.created_at.0)
    .bind(profile.updated_at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}

async fn replace_code(connection: &mut PgConnection, code: &NewCode) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO codes (user_id, purpose, hash, wrong_tries, expires_at) VALUES ($1, $2, $3, 0, $4) \
         ON CONFLICT (user_id, purpose) \
         DO UPDATE SET hash = excluded.hash, wrong_tries = 0, expires_at = excluded.expires_at",
    )
    .bind(code.user.0)
    .bind(code.purpose.name())
    .bind(&code.hash[..])
    .bind(code.expires_at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}

/// Tries a code: the right one is spent, a wrong one counted.
async fn try_code(
    connection: &mut PgConnection,
    user: UserId,
    purpose: CodePurpose,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<CodeTry, StoreError> {
    let known: Option<CodeRow> = sqlx::query_as(
        "SELECT hash, wrong_tries, expires_at FROM codes WHERE user_id = $1 AND purpose = $2 FOR UPDATE",
    )
    .bind(user.0)
    .bind(purpose.name())
    .fetch_optional(&mut *connection)
    .answered()
    .await?;
    let Some(code) = known.filter(|code| code.is_alive(now)) else { return Ok(CodeTry::Refused) };
    let (statement, outcome) = if code.is(hash) {
        ("DELETE FROM codes WHERE user_id = $1 AND purpose = $2", CodeTry::Accepted)
    } else {
        ("UPDATE codes SET wrong_tries = wrong_tries + 1 WHERE user_id = $1 AND purpose = $2", CodeTry::Refused)
    };
    sqlx::query(statement).bind(user.0).bind(purpose.name()).execute(connection).answered().await?;
    Ok(outcome)
}

async fn insert_refresh_token(connection: &mut PgConnection, token: &NewRefreshToken) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO refresh_tokens (hash, family, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&token.hash[..])
    .bind(token.family)
    .bind(token.user.0)
    .bind(token.created_at.0)
    .bind(token.expires_at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}

async fn end_family(connection: &mut PgConnection, family: Uuid, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE refresh_tokens SET ended_at = $1 WHERE family = $2 AND ended_at IS NULL")
        .bind(now.0)
        .bind(family)
        .execute(connection)
        .answered()
        .await?;
    Ok(())
}

async fn end_refresh_tokens(connection: &mut PgConnection, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE refresh_tokens SET ended_at = $1 WHERE user_id = $2 AND ended_at IS NULL")
        .bind(now.0)
        .bind(user.0)
        .execute(connection)
        .answered()
        .await?;
    Ok(())
}

/// Takes the lock on the user of a refresh token: whoever uses, ends or replaces one of a user's tokens has it, so that
/// no successor of a token comes up beside the end of its family.
async fn lock_owner(connection: &mut PgConnection, hash: &[u8; 32]) -> Result<(), StoreError> {
    sqlx::query("SELECT id FROM users WHERE id = (SELECT user_id FROM refresh_tokens WHERE hash = $1) FOR UPDATE")
        .bind(&hash[..])
        .execute(connection)
        .answered()
        .await?;
    Ok(())
}

/// Takes the locks on a user and on all active administrators, in one order, so that of two changes which would leave
/// none the second one sees the first.
async fn lock_with_admins(connection: &mut PgConnection, user: UserId) -> Result<(), StoreError> {
    sqlx::query("SELECT id FROM users WHERE id = $1 OR (role = 'ADMIN' AND status = 'ACTIVE') ORDER BY id FOR UPDATE")
        .bind(user.0)
        .execute(connection)
        .answered()
        .await?;
    Ok(())
}

/// Refuses to go on when `account` is the last one that can run the shop.
async fn keep_an_admin(connection: &mut PgConnection, account: &Account) -> Result<(), StoreError> {
    if account.role != Role::Admin || account.status != AccountStatus::Active {
        return Ok(());
    }
    let others: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM users WHERE role = 'ADMIN' AND status = 'ACTIVE' AND id <> $1)",
    )
    .bind(account.id.0)
    .fetch_one(connection)
    .answered()
    .await?;
    if others { Ok(()) } else { Err(StoreError::Constraint("last_admin".to_owned())) }
}
