//! Cart sessions, in PostgreSQL, to read.

use async_trait::async_trait;

use crate::domain::cart::Cart;
use crate::domain::ids::CartKey;
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::KeptCart;
use crate::persistence::rows::{CartLineRow, carts};
use crate::persistence::{Carts, StoreError};

use super::PostgresStore;
use super::error::Answer;

#[async_trait]
impl Carts for PostgresStore {
    /// One statement, so that session and lines are of one moment. An ended session shows the lines that ended in
    /// its own way.
    async fn cart(&self, key: CartKey) -> Result<Option<KeptCart>, StoreError> {
        let rows: Vec<CartLineRow> = sqlx::query_as(
            "SELECT session.key, session.secret, session.state AS session_state, session.version, \
                 session.created_at, session.expires_at, orders.id AS order_id, \
                 hold.number, hold.product_id, hold.inventory_id, hold.quantity, hold.state AS hold_state \
             FROM cart_sessions session \
             LEFT JOIN orders ON orders.cart_key = session.key \
             LEFT JOIN holds hold ON hold.cart_key = session.key AND hold.state = \
                 CASE session.state WHEN 'open' THEN 'open' WHEN 'ordered' THEN 'sold' \
                                    WHEN 'cleared' THEN 'released' ELSE 'expired' END \
             WHERE session.key = $1 ORDER BY hold.number",
        )
        .bind(key.0)
        .fetch_all(&self.pool)
        .answered()
        .await?;
        Ok(carts(&rows)?.pop())
    }

    async fn carts(&self, keys: &[CartKey]) -> Result<Vec<Cart>, StoreError> {
        let rows: Vec<CartLineRow> = sqlx::query_as(
            "SELECT session.key, session.secret, session.state AS session_state, session.version, \
                 session.created_at, session.expires_at, NULL::uuid AS order_id, \
                 hold.number, hold.product_id, hold.inventory_id, hold.quantity, hold.state AS hold_state \
             FROM cart_sessions session \
             LEFT JOIN LATERAL (SELECT * FROM holds WHERE cart_key = session.key AND holds.state = \
                 CASE session.state WHEN 'open' THEN 'open' WHEN 'ordered' THEN 'sold' \
                                    WHEN 'cleared' THEN 'released' ELSE 'expired' END OFFSET 0) hold ON true \
             WHERE session.key = ANY($1) ORDER BY session.key, hold.number",
        )
        .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .answered()
        .await?;
        Ok(carts(&rows)?.into_iter().map(|kept| kept.cart).collect())
    }

    async fn carts_due(
        &self,
        now: Timestamp,
        after: (Timestamp, CartKey),
        limit: u32,
    ) -> Result<Vec<Cart>, StoreError> {
        let rows: Vec<CartLineRow> = sqlx::query_as(
            "SELECT session.key, session.secret, session.state AS session_state, session.version, \
                 session.created_at, session.expires_at, NULL::uuid AS order_id, \
                 hold.number, hold.product_id, hold.inventory_id, hold.quantity, hold.state AS hold_state \
             FROM (SELECT * FROM cart_sessions WHERE state = 'open' AND expires_at <= $1 AND (expires_at, key) > ($2, $3) \
                   ORDER BY expires_at, key LIMIT $4) session \
             LEFT JOIN LATERAL (SELECT * FROM holds WHERE cart_key = session.key AND state = 'open' OFFSET 0) hold ON true \
             ORDER BY session.expires_at, session.key, hold.number",
        )
        .bind(now.0)
        .bind(after.0.0)
        .bind(after.1.0)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .answered()
        .await?;
        Ok(carts(&rows)?.into_iter().map(|kept| kept.cart).collect())
    }

    async fn open_carts(&self, after: (Timestamp, CartKey), limit: u32) -> Result<Vec<Cart>, StoreError> {
        let rows: Vec<CartLineRow> = sqlx::query_as(
            "SELECT session.key, session.secret, session.state AS session_state, session.version, \
                 session.created_at, session.expires_at, NULL::uuid AS order_id, \
                 hold.number, hold.product_id, hold.inventory_id, hold.quantity, hold.state AS hold_state \
             FROM (SELECT * FROM cart_sessions WHERE state = 'open' AND (expires_at, key) > ($1, $2) \
                   ORDER BY expires_at, key LIMIT $3) session \
             LEFT JOIN LATERAL (SELECT * FROM holds WHERE cart_key = session.key AND state = 'open' OFFSET 0) hold ON true \
             ORDER BY session.expires_at, session.key, hold.number",
        )
        .bind(after.0.0)
        .bind(after.1.0)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .answered()
        .await?;
        Ok(carts(&rows)?.into_iter().map(|kept| kept.cart).collect())
    }
}
