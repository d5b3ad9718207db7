//! What PostgreSQL's errors mean to the layers above: the one place where they become [`StoreError`]s; and how long
//! an answer is waited for.
//!
//! The server names a violated rule by itself. What else it says is told apart by its five-character code
//! (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).

use std::future::Future;
use std::io;
use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::persistence::StoreError;
use crate::persistence::rows::is_undecodable;

/// How long an answer of the server is waited for: longer than it lets a statement of ours run, so that only a server
/// which is gone or frozen is given up.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(4);

/// The class of codes that mean: a rule of the schema forbids it.
const RULE_CLASS: &str = "23";
/// The class of codes that mean: a value that no column takes, such as a text with a NUL.
const DATA_CLASS: &str = "22";
/// What such a value is told as, so that whoever wrote many rows looks for the one.
const UNFIT_DATA: &str = "unfit_data";

/// Classes of codes that mean: not now. Connections, rolled back for somebody else's sake (deadlock, serialization),
/// resources, interventions of an operator or a time limit, the system's own failures.
const PASSING_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
/// Single codes that mean the same: a lock that did not come, a transaction that idled, a server that only reads
/// because it is being replaced.
const PASSING_CODES: [&str; 3] = ["55P03", "25P03", "25006"];
/// A transaction that was chosen to end a deadlock, or that can not be put in an order with others.
const CONFLICT_CODES: [&str; 2] = ["40001", "40P01"];

/// What an error of a statement, or of the way to the database, means. Nothing was changed.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    if let Some(rule) = violated_rule(&error) {
        return StoreError::Constraint(rule);
    }
    if is_undecodable(&error) {
        return StoreError::Corrupt(error.to_string());
    }
    if is_passing(&error) { StoreError::Unavailable(error) } else { StoreError::Failed(error) }
}

/// What an error of a `COMMIT` means. A rule's refusal and a conflict leave nothing; after anything else it may have
/// happened: a server that ends a connection may do so after the commit and before it says so.
pub(super) fn commit_error(error: sqlx::Error) -> StoreError {
    let certain = violated_rule(&error).is_some() || is_conflict(&error);
    if certain { store_error(error) } else { StoreError::Unknown(error) }
}

/// Whether the transaction was rolled back for the sake of another one, and would do if it were tried again.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| CONFLICT_CODES.contains(&code.as_str()))
}

/// That no answer came in time.
pub(super) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time"))
}

/// Whether the server has refused a statement and goes on: what the statement did, and a transaction of its own, was
/// rolled back.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    let answer = error.as_database_error().and_then(|answer| answer.try_downcast_ref::<PgDatabaseError>());
    answer.is_some_and(|answer| answer.severity() == PgSeverity::Error)
}

/// Waits for an answer of the server, for as long as that may take.
pub(super) trait Answer<T>: Future<Output = Result<T, sqlx::Error>> + Sized + Send {
    /// The answer. After an error, nothing was changed by the statement.
    ///
    /// # Errors
    /// As of [`store_error`]; [`StoreError::Unavailable`] when no answer comes in time.
    fn answered(self) -> impl Future<Output = Result<T, StoreError>> + Send {
        async move { self.in_time().await.map_err(store_error) }
    }

    /// The answer as sqlx gives it.
    fn in_time(self) -> impl Future<Output = Result<T, sqlx::Error>> + Send {
        async move { tokio::time::timeout(ANSWER_WAIT_MAX, self).await.unwrap_or_else(|_| Err(no_answer())) }
    }
}

impl<T, F: Future<Output = Result<T, sqlx::Error>> + Send> Answer<T> for F {}

/// The name of the rule that was violated, when it was one.
pub(super) fn violated_rule(error: &sqlx::Error) -> Option<String> {
    let answer = error.as_database_error()?;
    let code = answer.code()?;
    if code.starts_with(DATA_CLASS) {
        return Some(UNFIT_DATA.to_owned());
    }
    // A column that must not be empty is no rule with a name.
    code.starts_with(RULE_CLASS).then(|| answer.constraint().unwrap_or("unnamed").to_owned())
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether a later try may do better.
fn is_passing(error: &sqlx::Error) -> bool {
    let told = code_of(error).is_some_and(|code| {
        PASSING_CODES.contains(&code.as_str()) || PASSING_CLASSES.iter().any(|class| code.starts_with(class))
    });
    // A connection that was cut in the middle of a message says nothing sensible.
    let unreachable = matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    );
    told || unreachable
}
