//! Orders, and what was answered to requests that named themselves, in PostgreSQL, to read.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::domain::ids::OrderId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::cursor::{Cursor, page_of};
use crate::persistence::records::{IdempotencyKey, Listed, Order, OrderFilter, Page, Remembered};
use crate::persistence::rows::{OrderItemRow, OrderRow, RememberedRow, add_lines};
use crate::persistence::{Orders, StoreError};

use super::PostgresStore;
use super::error::Answer;

/// What its cursors call this list.
const LIST: &str = "orders";

#[async_trait]
impl Orders for PostgresStore {
    /// Written so that each row is found by its own key, also by a plan from when there were none: to such a plan one index is
    /// as good as another, but for the order that is asked for.
    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        let rows: Vec<OrderRow> = sqlx::query_as(
            "SELECT orders.*, (SELECT secret FROM cart_sessions WHERE key = orders.cart_key) AS cart_secret FROM orders \
             WHERE orders.id = ANY($1) ORDER BY orders.id",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .answered()
        .await?;
        let mut orders: Vec<Order> = rows.into_iter().map(Order::try_from).collect::<Result<_, _>>()?;
        self.add_lines(&mut orders).await?;
        Ok(orders)
    }

    async fn list_orders(&self, filter: &OrderFilter, page: &Page) -> Result<Listed<Order>, StoreError> {
        let after = Cursor::<()>::of_page(LIST, page)?;
        let mut query = QueryBuilder::new(
            "SELECT orders.*, (SELECT secret FROM cart_sessions WHERE key = orders.cart_key) AS cart_secret FROM orders \
             WHERE true",
        );
        if let Some(user) = filter.user {
            query.push(" AND orders.user_id = ").push_bind(user.0);
        }
        if let Some(status) = filter.status {
            query.push(" AND orders.status = ").push_bind(status.name());
        }
        if let Some(cursor) = after {
            query.push(" AND orders.id < ").push_bind(cursor.id);
        }
        query.push(" ORDER BY orders.id DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
        let rows: Vec<OrderRow> = query.build_query_as().fetch_all(&self.pool).answered().await?;
        let mut listed: Listed<Order> = page_of(rows, page.limit, |last| Cursor::behind(LIST, (), last.id))?;
        self.add_lines(&mut listed.rows).await?;
        Ok(listed)
    }

    async fn orders_pending_since(
        &self,
        placed_before: Timestamp,
        after: (Timestamp, OrderId),
        limit: u32,
    ) -> Result<Vec<(Timestamp, OrderId)>, StoreError> {
        let rows: Vec<(i64, Uuid)> = sqlx::query_as(
            "SELECT created_at, id FROM orders WHERE status = 'PENDING' AND created_at < $1 \
             AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4",
        )
        .bind(placed_before.0)
        .bind(after.0.0)
        .bind(after.1.0)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .answered()
        .await?;
        Ok(rows.into_iter().map(|(placed, id)| (Timestamp(placed), OrderId(id))).collect())
    }

    async fn remembered(&self, key: &IdempotencyKey, not_before: Timestamp) -> Result<Option<Remembered>, StoreError> {
        let row: Option<RememberedRow> = sqlx::query_as(
            "SELECT fingerprint, status, headers, body FROM idempotency_keys \
             WHERE scope = $1 AND key = $2 AND at >= $3",
        )
        .bind(&key.scope)
        .bind(&key.key)
        .bind(not_before.0)
        .fetch_optional(&self.pool)
        .answered()
        .await?;
        row.map(Remembered::try_from).transpose()
    }
}

impl PostgresStore {
    /// Gives orders their lines. Lines never change, so they need not be read in one moment with the orders.
    async fn add_lines(&self, orders: &mut [Order]) -> Result<(), StoreError> {
        if orders.is_empty() {
            return Ok(());
        }
        let rows: Vec<OrderItemRow> = sqlx::query_as(
            "SELECT * FROM order_items WHERE order_id = ANY($1) \
             ORDER BY order_id, position",
        )
        .bind(orders.iter().map(|order| order.id.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .answered()
        .await?;
        add_lines(orders, rows);
        Ok(())
    }
}
