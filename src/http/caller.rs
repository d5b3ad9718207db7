//! Who asks: the bearer token, and whether its account may still be used.
//!
//! A token says who somebody was when it was made. What they may do now is the account's to say, so every request
//! with a token looks it up; what was looked up holds for a second on this node, and not at all after a change here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue};
use dashmap::DashMap;

use crate::domain::ids::UserId;
use crate::domain::user::{AccountStatus, Role};

use super::problem::{Code, Problem};
use super::state::AppState;

/// How long what was looked up holds.
const STANDING_AGE_MAX: Duration = Duration::from_secs(1);
/// Accounts remembered at most.
const STANDINGS_MAX: usize = 10_000;

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The user.
    pub user: UserId,
    /// Their name, as the token has it.
    pub name: Arc<str>,
    /// Their e-mail address, as the token has it.
    pub email: Arc<str>,
    /// What they may do now.
    pub role: Role,
}

impl Caller {
    /// Who asks, `None` when the request has no `Authorization` header.
    ///
    /// # Errors
    /// 401 when the header is there and no good.
    pub(crate) async fn optional(state: &AppState, request: &HttpRequest) -> Result<Option<Self>, Problem> {
        match request.headers().get(header::AUTHORIZATION) {
            None => Ok(None),
            Some(value) => Self::of_token(state, bearer(value).ok_or_else(bad_token)?).await.map(Some),
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401 without a good token.
    pub(crate) async fn user(state: &AppState, request: &HttpRequest) -> Result<Self, Problem> {
        Self::optional(state, request).await?.ok_or_else(|| {
            Problem::new(Code::Unauthorized, "sign in and send the header Authorization: Bearer <access token>")
        })
    }

    /// Who asks, an administrator.
    ///
    /// # Errors
    /// 401 without a good token, 403 when it is not an administrator's.
    pub(crate) async fn admin(state: &AppState, request: &HttpRequest) -> Result<Self, Problem> {
        let caller = Self::user(state, request).await?;
        if caller.is_admin() {
            Ok(caller)
        } else {
            Err(Problem::new(Code::Forbidden, "only an administrator may do this"))
        }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// 401 when it is no good, its account is gone or suspended.
    pub(crate) async fn of_token(state: &AppState, token: &str) -> Result<Self, Problem> {
        let holder = state.tokens.read(token, state.clock.now()).ok_or_else(bad_token)?;
        let role = state.standings.role(state, holder.user).await?.ok_or_else(bad_token)?;
        Ok(Self { user: holder.user, name: holder.name, email: holder.email, role })
    }

    /// Whether they run the shop.
    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// As the ledger names them.
    pub(crate) fn actor(&self) -> Arc<str> {
        self.user.to_string().into()
    }
}

/// The token of `Bearer <token>`.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The 401 of a token that is no good, whyever.
pub(crate) fn bad_token() -> Problem {
    Problem::new(Code::Unauthorized, "the token is not valid, or its time is over")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// What accounts may do, as looked up within the last second.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    known: DashMap<UserId, Standing>,
    /// Grows with every change on this node: what was being looked up meanwhile is not remembered.
    changes: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    /// What the user may do; `None` when the account is gone or suspended.
    role: Option<Role>,
    looked_up: Instant,
}

impl Standings {
    /// The role of a user whose account may be used.
    async fn role(&self, state: &AppState, user: UserId) -> Result<Option<Role>, Problem> {
        if let Some(role) = self.fresh(user, Instant::now()) {
            return Ok(role);
        }
        let (looked_up, changes) = (Instant::now(), self.changes.load(Ordering::Acquire));
        let account = state.read(|store| async move { store.account(user).await }).await?;
        let role = account.filter(|account| account.status == AccountStatus::Active).map(|account| account.role);
        self.remember(user, Standing { role, looked_up }, changes);
        Ok(role)
    }

    /// An account has been changed here: what is known of it holds no longer.
    pub(crate) fn changed(&self, user: UserId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.known.remove(&user);
    }

    fn fresh(&self, user: UserId, now: Instant) -> Option<Option<Role>> {
        let standing = *self.known.get(&user)?;
        (now.saturating_duration_since(standing.looked_up) < STANDING_AGE_MAX).then_some(standing.role)
    }

    fn remember(&self, user: UserId, standing: Standing, changes: u64) {
        if self.known.len() >= STANDINGS_MAX {
            self.known.retain(|_, known| known.looked_up.elapsed() < STANDING_AGE_MAX);
            if self.known.len() >= STANDINGS_MAX {
                return;
            }
        }
        // Under the entry's lock, so that `changed` either is seen here or removes what is put in here.
        let entry = self.known.entry(user);
        if self.changes.load(Ordering::Acquire) == changes {
            entry.insert(standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ANN: UserId = UserId(Uuid::from_u128(1));

    #[test]
    fn a_standing_holds_for_a_second() {
        let standings = Standings::default();
        let looked_up = Instant::now();
        standings.remember(ANN, Standing { role: Some(Role::User), looked_up }, 0);
        assert_eq!(standings.fresh(ANN, looked_up), Some(Some(Role::User)));
        assert_eq!(standings.fresh(ANN, looked_up + STANDING_AGE_MAX), None);
    }

    #[test]
    fn a_change_is_seen_at_once_even_by_who_was_just_looking_it_up() {
        let standings = Standings::default();
        let (looked_up, changes) = (Instant::now(), standings.changes.load(Ordering::Acquire));
        standings.changed(ANN);
        standings.remember(ANN, Standing { role: Some(Role::Admin), looked_up }, changes);
        assert_eq!(standings.fresh(ANN, looked_up), None);
    }

    #[test]
    fn it_remembers_so_many_and_no_more() {
        let standings = Standings::default();
        for number in 0..(STANDINGS_MAX as u128 + 50) {
            standings.remember(UserId(Uuid::from_u128(number)), Standing { role: None, looked_up: Instant::now() }, 0);
        }
        assert!(standings.known.len() <= STANDINGS_MAX);
    }

    #[test]
    fn only_bearer_tokens_are_taken() {
        let token = |value: &'static str| bearer(&HeaderValue::from_static(value)).map(str::to_owned);
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(token("Basic abc"), None);
        assert_eq!(token("abc"), None);
    }
}
