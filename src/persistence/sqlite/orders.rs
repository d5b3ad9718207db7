//! Orders, and what was answered to requests that named themselves, in SQLite, to read.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::domain::ids::OrderId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::cursor::{Cursor, page_of};
use crate::persistence::records::{IdempotencyKey, Listed, Order, OrderFilter, Page, Remembered};
use crate::persistence::rows::{OrderItemRow, OrderRow, RememberedRow, add_lines};
use crate::persistence::{Orders, StoreError};

use super::error::store_error;
use super::{SqliteStore, json_of_ids, rows_of_json};

/// What its cursors call this list.
const LIST: &str = "orders";

#[async_trait]
impl Orders for SqliteStore {
    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        let rows: String = sqlx::query_scalar(
            "SELECT json_group_array(json_object('id', hex(id), 'cart_key', hex(cart_key), \
                 'cart_secret', hex(cart_sessions.secret), 'user_id', hex(user_id), 'user_name', user_name, \
                 'user_email', user_email, 'currency', currency, 'subtotal', subtotal, 'tax', tax, \
                 'grand_total', grand_total, 'status', status, 'sequence', sequence, \
                 'shipping_address', shipping_address, 'payment_reference', payment_reference, \
                 'created_at', orders.created_at, 'updated_at', updated_at)) FROM orders \
             LEFT JOIN cart_sessions ON cart_sessions.key = orders.cart_key \
             WHERE orders.id IN (SELECT unhex(value) FROM json_each($1))",
        )
        .bind(json_of_ids(ids.iter().map(|id| id.0)))
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        let rows: Vec<OrderRow> = rows_of_json(&rows)?;
        let mut orders: Vec<Order> = rows.into_iter().map(Order::try_from).collect::<Result<_, _>>()?;
        self.add_lines(&mut orders).await?;
        Ok(orders)
    }

    async fn list_orders(&self, filter: &OrderFilter, page: &Page) -> Result<Listed<Order>, StoreError> {
        let after = Cursor::<()>::of_page(LIST, page)?;
        let mut query = QueryBuilder::new(
            "SELECT orders.*, cart_sessions.secret AS cart_secret FROM orders \
             LEFT JOIN cart_sessions ON cart_sessions.key = orders.cart_key WHERE true",
        );
        if let Some(user) = filter.user {
            query.push(" AND orders.user_id = ").push_bind(user.0);
        }
        if let Some(status) = filter.status {
            // A user has few orders: the plus keeps SQLite from looking through all of that status instead.
            query.push(if filter.user.is_some() { " AND +orders.status = " } else { " AND orders.status = " });
            query.push_bind(status.name());
        }
        if let Some(cursor) = after {
            query.push(" AND orders.id < ").push_bind(cursor.id);
        }
        query.push(" ORDER BY orders.id DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
        let rows: Vec<OrderRow> = query.build_query_as().fetch_all(&self.readers).await.map_err(store_error)?;
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
            "SELECT created_at, id FROM orders INDEXED BY orders_pending WHERE status = 'PENDING' AND created_at < $1 \
             AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4",
        )
        .bind(placed_before.0)
        .bind(after.0.0)
        .bind(after.1.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
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
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        row.map(Remembered::try_from).transpose()
    }
}

impl SqliteStore {
    /// Gives orders their lines. Lines never change, so they need not be read in one moment with the orders.
    async fn add_lines(&self, orders: &mut [Order]) -> Result<(), StoreError> {
        if orders.is_empty() {
            return Ok(());
        }
        let rows: String = sqlx::query_scalar(
            "SELECT json_group_array(json_object('order_id', hex(order_id), 'product_id', hex(product_id), \
                 'inventory_id', hex(inventory_id), 'name', name, 'sku', sku, 'price', price, 'quantity', quantity, \
                 'total', total) ORDER BY order_id, position) \
             FROM order_items WHERE order_id IN (SELECT unhex(value) FROM json_each($1))",
        )
        .bind(json_of_ids(orders.iter().map(|order| order.id.0)))
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        let rows: Vec<OrderItemRow> = rows_of_json(&rows)?;
        add_lines(orders, rows);
        Ok(())
    }
}
