//! Rows by their identifiers, many of them in one query.
//!
//! Whoever asks while a query runs is answered by the next one, which begins after they have asked: so what they hear is
//! as new as if they had asked alone, and a crowd at many products costs the database a few queries, not one each.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::FromRow;
use sqlx::postgres::{PgPool, PgRow};
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use crate::persistence::StoreError;

use super::error::{Answer, no_answer};

/// Queries that run at a time: one may hang at a connection that is lost.
const QUERIES_MAX: usize = 2;
/// Rows of one query.
const ROWS_MAX: usize = 256;
/// Those who may wait for the next query; more wait until they may ask.
const WAITING_MAX: usize = 4_096;

/// A row that has an identifier.
pub(super) trait Identified {
    /// Its identifier.
    fn id(&self) -> Uuid;
}

type Question<R> = (Uuid, oneshot::Sender<Result<Option<R>, StoreError>>);

/// One table's rows, asked for by identifier. The queries end when this is dropped.
#[derive(Debug)]
pub(super) struct Together<R> {
    questions: mpsc::Sender<Question<R>>,
}

impl<R> Together<R>
where
    R: Identified + Clone + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static,
{
    /// Asks by a query whose one parameter are the identifiers. To be called on the runtime on which the pool is used.
    pub(super) fn new(pool: &PgPool, query: &'static str) -> Self {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..QUERIES_MAX {
            tokio::spawn(answer(pool.clone(), query, Arc::clone(&asked)));
        }
        Self { questions }
    }

    /// The row that has this identifier.
    ///
    /// # Errors
    /// What the query says.
    pub(super) async fn row(&self, id: Uuid) -> Result<Option<R>, StoreError> {
        let (answer, row) = oneshot::channel();
        let unanswered = || StoreError::Unavailable(no_answer());
        self.questions.send((id, answer)).await.map_err(|_| unanswered())?;
        row.await.map_err(|_| unanswered())?
    }
}

/// Answers what is asked, as much as waits at a time, until nobody can ask any more.
async fn answer<R>(pool: PgPool, query: &'static str, asked: Arc<Mutex<mpsc::Receiver<Question<R>>>>)
where
    R: Identified + Clone + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let mut questions = Vec::new();
    while asked.lock().await.recv_many(&mut questions, ROWS_MAX).await > 0 {
        let ids: Vec<Uuid> = questions.iter().map(|(id, _)| *id).collect();
        let found: Result<Vec<R>, StoreError> = sqlx::query_as(query).bind(ids).fetch_all(&pool).answered().await;
        let found = found.map(|rows| rows.into_iter().map(|row| (row.id(), row)).collect::<HashMap<_, _>>());
        for (id, answer) in questions.drain(..) {
            // Who does not wait any more is not told.
            let _ = answer.send(match &found {
                Ok(rows) => Ok(rows.get(&id).cloned()),
                Err(error) => Err(same(error)),
            });
        }
    }
}

/// An error once more, for each of those whom it concerns.
fn same(error: &StoreError) -> StoreError {
    let told = |error: &sqlx::Error| sqlx::Error::Protocol(error.to_string());
    match error {
        StoreError::Unavailable(error) => StoreError::Unavailable(told(error)),
        StoreError::Unknown(error) => StoreError::Unknown(told(error)),
        StoreError::Failed(error) => StoreError::Failed(told(error)),
        StoreError::Constraint(rule) => StoreError::Constraint(rule.clone()),
        StoreError::Corrupt(what) => StoreError::Corrupt(what.clone()),
        StoreError::InvalidCursor => StoreError::InvalidCursor,
    }
}
