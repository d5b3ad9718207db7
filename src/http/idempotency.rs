//! Commands, once a name: a client may name its request by `Idempotency-Key`, and the same request under the same
//! name has its effect once, whoever of the two sides lost the first answer.
//!
//! The answer is kept in the transaction of the effect, by the journal. Here the request is given its scope and its
//! fingerprint, a kept answer is given back, and two of one name do not run at the same time on this node.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::actors::command::{AppliedOutcome, Command, CommandError, RememberAs};
use crate::domain::ids::CartSessionId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{IdempotencyKey, Remembered, StoredResponse};

use super::caller::Caller;
use super::json;
use super::problem::{Code, Problem};
use super::state::{AppState, State};

/// The header that names a request.
const KEY_HEADER: &str = "Idempotency-Key";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says that an answer is a kept one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key.
const KEY_CHARACTERS_MAX: usize = 255;
/// Characters of a key that is all that its caller is known by: 128 random bits need so many.
const LONE_KEY_CHARACTERS_MIN: usize = 22;
/// What is waited beyond the deadline: the one at work says more exactly whether it was begun.
const GRACE: Duration = Duration::from_millis(50);

/// Makes the answer of a command, for now and for when it comes again.
pub(crate) type Render<T> = Arc<dyn Fn(&T) -> StoredResponse + Send + Sync>;

/// A request's name, in its caller's scope, and what the request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    key: IdempotencyKey,
    fingerprint: [u8; 32],
}

impl Named {
    /// The name of a request, when it has one. `cart` is the session that the request's header names, on routes that
    /// use it.
    ///
    /// # Errors
    /// 400 when the key has another form, or is short and all that the caller is known by.
    pub(crate) fn of(
        state: &AppState,
        request: &HttpRequest,
        caller: Option<&Caller>,
        cart: Option<CartSessionId>,
        body: &Bytes,
    ) -> Result<Option<Self>, Problem> {
        let Some(value) = request.headers().get(&KEY) else { return Ok(None) };
        let key = IdempotencyKey {
            scope: String::new(),
            key: key_text(value.as_bytes()).ok_or_else(malformed_key)?.to_owned(),
        };
        let key = IdempotencyKey { scope: scope(&key.key, caller, cart)?, ..key };
        let session = cart.map(|cart| cart.to_string()).unwrap_or_default();
        let path = path_without_prefix(request.path());
        let parts = [request.method().as_str().as_bytes(), path.as_bytes(), session.as_bytes(), body];
        Ok(Some(Self { key, fingerprint: state.fingerprints.of(&parts) }))
    }
}

/// 1 to 255 visible ASCII characters.
fn key_text(bytes: &[u8]) -> Option<&str> {
    let fits = (1..=KEY_CHARACTERS_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if fits { std::str::from_utf8(bytes).ok() } else { None }
}

fn malformed_key() -> Problem {
    Problem::field(KEY_HEADER, format!("must be 1 to {KEY_CHARACTERS_MAX} visible ASCII characters"))
}

fn scope(key: &str, caller: Option<&Caller>, cart: Option<CartSessionId>) -> Result<String, Problem> {
    match (caller, cart) {
        (Some(caller), _) => Ok(format!("user:{}", caller.user)),
        (None, Some(cart)) => Ok(format!("cart:{}", cart.key)),
        (None, None) if key.len() >= LONE_KEY_CHARACTERS_MIN => Ok(format!("key:{key}")),
        (None, None) => Err(Problem::field(
            KEY_HEADER,
            format!(
                "must be random and of {LONE_KEY_CHARACTERS_MIN} characters or more without a sign-in or a cart session"
            ),
        )),
    }
}

/// The path as the route table knows it: both prefixes are one route.
pub(crate) fn path_without_prefix(path: &str) -> &str {
    path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// Names at work on this node, with what their requests are.
#[derive(Debug, Default)]
pub(crate) struct InFlight(DashMap<IdempotencyKey, [u8; 32]>);

/// Holds a name until it is dropped.
struct Turn {
    names: Arc<InFlight>,
    key: IdempotencyKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.names.0.remove(&self.key);
    }
}

impl InFlight {
    fn enter(self: &Arc<Self>, named: &Named) -> Result<Turn, Outcome> {
        match self.0.entry(named.key.clone()) {
            Entry::Occupied(taken) if *taken.get() == named.fingerprint => Err(Outcome::InProgress),
            Entry::Occupied(_) => Err(Outcome::Reused),
            Entry::Vacant(free) => {
                drop(free.insert(named.fingerprint));
                Ok(Turn { names: Arc::clone(self), key: named.key.clone() })
            }
        }
    }
}

/// What became of a named request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was done now.
    Done(StoredResponse),
    /// It was done before.
    Replayed(StoredResponse),
    /// The name was used for another request.
    Reused,
    /// It is being done.
    InProgress,
}

/// Has a command done and answers its request.
///
/// `work` gets the command and gives the answer; `render` makes the answer that is kept, and must make the same.
/// Named or not, the work goes on when the client leaves; the answer does not wait beyond the deadline.
///
/// # Errors
/// What the command says; 409 while the same request is running, 422 when its name was used for another.
pub(crate) async fn answer<T, W, F>(
    state: &State,
    actor: Arc<str>,
    named: Option<Named>,
    render: Render<T>,
    work: W,
) -> Result<HttpResponse, Problem>
where
    T: 'static,
    W: FnOnce(State, Command<T>) -> F + Send + 'static,
    F: Future<Output = Result<StoredResponse, CommandError>> + Send + 'static,
{
    let deadline = state.deadline();
    let command = Command { deadline, actor, remember: None };
    let outcome = match named {
        // The shop keeps to the deadline by itself, and does what it has begun.
        None => work(State::clone(state), command).await.map(Outcome::Done),
        Some(named) => {
            let begun = Arc::new(AtomicBool::new(false));
            // Boxed: few requests have a name, and the others are not to carry the room for it.
            let doing = Box::pin(once(State::clone(state), named, command, render, Arc::clone(&begun), work));
            let spawned = state.run(doing);
            match tokio::time::timeout_at((deadline + GRACE).into(), spawned).await {
                Ok(ended) => ended?,
                Err(_) => Err(late(&begun)),
            }
        }
    };
    match outcome.map_err(|error| state.refused(error))? {
        Outcome::Done(answer) => Ok(json::send(answer)),
        Outcome::Replayed(answer) => {
            let mut response = json::send(answer);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Outcome::Reused => {
            Err(Problem::new(Code::IdempotencyKeyReused, "the same Idempotency-Key came with another request before"))
        }
        Outcome::InProgress => {
            Err(Problem::new(Code::InProgress, "the first request with this Idempotency-Key is still running"))
        }
    }
}

fn late(begun: &AtomicBool) -> CommandError {
    let applied = if begun.load(Ordering::Acquire) { AppliedOutcome::Unknown } else { AppliedOutcome::No };
    CommandError::Deadline { applied }
}

/// A named request, on the program's runtime: looked up, done if it is new, looked up again if somebody was faster.
async fn once<T, W, F>(
    state: State,
    named: Named,
    command: Command<T>,
    render: Render<T>,
    begun: Arc<AtomicBool>,
    work: W,
) -> Result<Outcome, CommandError>
where
    W: FnOnce(State, Command<T>) -> F,
    F: Future<Output = Result<StoredResponse, CommandError>>,
{
    let life = i64::try_from(state.settings.idempotency_key_life.as_micros()).unwrap_or(i64::MAX);
    let not_before = Timestamp(state.clock.now().0.saturating_sub(life));
    // Before the look: who looks first and then gets the turn of one that has just ended would do it again.
    let turn = state.in_flight.enter(&named);
    if let Some(kept) = state.store.remembered(&named.key, not_before).await? {
        return Ok(replay(&named, kept));
    }
    let _turn = match turn {
        Ok(turn) => turn,
        Err(outcome) => return Ok(outcome),
    };
    if Instant::now() >= command.deadline {
        return Err(CommandError::Deadline { applied: AppliedOutcome::No });
    }
    begun.store(true, Ordering::Release);
    let remember = RememberAs { key: named.key.clone(), fingerprint: named.fingerprint, render };
    match work(State::clone(&state), Command { remember: Some(remember), ..command }).await {
        Ok(answer) => Ok(Outcome::Done(answer)),
        // However old it is: the store still keeps it, so the request can not be done anew.
        Err(CommandError::KeyKnown) => match state.store.remembered(&named.key, Timestamp(i64::MIN)).await? {
            Some(kept) => Ok(replay(&named, kept)),
            None => Ok(Outcome::InProgress),
        },
        // The same request may have come before and been at work beyond its deadline until now: what stands in the
        // way is then its own effect.
        Err(error) => match state.store.remembered(&named.key, not_before).await {
            Ok(Some(kept)) => Ok(replay(&named, kept)),
            Ok(None) | Err(_) => Err(error),
        },
    }
}

fn replay(named: &Named, kept: Remembered) -> Outcome {
    if kept.fingerprint == named.fingerprint { Outcome::Replayed(kept.response) } else { Outcome::Reused }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::domain::ids::{CartKey, UserId};
    use crate::domain::user::Role;

    use super::*;

    fn named(key: &str, fingerprint: u8) -> Named {
        let key = IdempotencyKey { scope: "user:1".to_owned(), key: key.to_owned() };
        Named { key, fingerprint: [fingerprint; 32] }
    }

    #[test]
    fn a_key_is_visible_ascii_of_1_to_255_characters() {
        assert_eq!(key_text(b"a-1~!"), Some("a-1~!"));
        assert!(key_text(&[b'a'; 255]).is_some());
        for bad in [&b""[..], b"a b", b"a\tb", "é".as_bytes(), &[b'a'; 256]] {
            assert_eq!(key_text(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_scope_is_the_user_or_the_cart_or_a_key_that_nobody_guesses() {
        let caller = Caller { user: UserId(Uuid::from_u128(1)), name: "".into(), email: "".into(), role: Role::User };
        let cart = CartSessionId { key: CartKey(Uuid::from_u128(2)), secret: [3; 16] };
        let of = |key: &str, caller, cart| scope(key, caller, cart).ok();
        assert_eq!(of("k", Some(&caller), Some(cart)).as_deref(), Some("user:00000000-0000-0000-0000-000000000001"));
        assert_eq!(of("k", None, Some(cart)).as_deref(), Some("cart:00000000-0000-0000-0000-000000000002"));
        let long = "a".repeat(22);
        assert_eq!(of(&long, None, None), Some(format!("key:{long}")));
        assert_eq!(scope(&"a".repeat(21), None, None).expect_err("too short").code(), Code::ValidationFailed);
    }

    #[test]
    fn both_prefixes_are_one_route() {
        assert_eq!(path_without_prefix("/api/orders/checkout"), "/orders/checkout");
        assert_eq!(path_without_prefix("/orders/checkout"), "/orders/checkout");
        assert_eq!(path_without_prefix("/apiary"), "/apiary");
    }

    #[test]
    fn one_of_a_name_runs_at_a_time_and_the_name_is_free_afterwards() {
        let in_flight = Arc::new(InFlight::default());
        let Ok(turn) = in_flight.enter(&named("a", 1)) else { panic!("the name is free") };
        assert!(matches!(in_flight.enter(&named("a", 1)), Err(Outcome::InProgress)));
        assert!(matches!(in_flight.enter(&named("a", 2)), Err(Outcome::Reused)));
        assert!(in_flight.enter(&named("b", 1)).is_ok());
        drop(turn);
        assert!(in_flight.enter(&named("a", 2)).is_ok());
        assert!(in_flight.0.is_empty());
    }

    #[test]
    fn a_kept_answer_is_given_to_the_same_request_only() {
        let response = StoredResponse { status: 200, headers: Vec::new(), body: "{}".to_owned() };
        let kept = |fingerprint| Remembered { fingerprint: [fingerprint; 32], response: response.clone() };
        assert_eq!(replay(&named("a", 1), kept(1)), Outcome::Replayed(response.clone()));
        assert_eq!(replay(&named("a", 1), kept(2)), Outcome::Reused);
    }
}
