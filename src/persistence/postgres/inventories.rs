//! Stock records and the ledger, in PostgreSQL. What changes a balance is the journal's.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::domain::ids::InventoryId;
use crate::domain::stock::Move;
use crate::persistence::cursor::Cursor;
use crate::persistence::records::{Inventory, Listed, Movement, NewInventory, Page};
use crate::persistence::rows::{InventoryRow, MovementRow, ledger_page};
use crate::persistence::{Inventories, StoreError};

use super::PostgresStore;
use super::error::Answer;
use super::together::Identified;

/// What its cursors call the ledger of an inventory. Such a cursor names the next row to show.
const LIST: &str = "movements";

impl Identified for InventoryRow {
    fn id(&self) -> Uuid {
        self.id
    }
}

#[async_trait]
impl Inventories for PostgresStore {
    async fn insert_inventory(&self, inventory: &NewInventory) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_stock(&mut transaction, inventory).await?;
        let product =
            sqlx::query("UPDATE products SET inventory_id = $1, version = version + 1, updated_at = $2 WHERE id = $3")
                .bind(inventory.id.0)
                .bind(inventory.at.0)
                .bind(inventory.product.0)
                .execute(&mut *transaction)
                .answered()
                .await?;
        if product.rows_affected() == 0 {
            return Err(StoreError::Constraint("inventories_product_exists".to_owned()));
        }
        transaction.commit().await
    }

    async fn inventory(&self, id: InventoryId) -> Result<Option<Inventory>, StoreError> {
        Ok(self.inventory_rows.row(id.0).await?.map(Inventory::from))
    }

    /// Walks back from the newest row, or from the one that the cursor names. Each row is found by its own key, whatever the plan:
    /// `OFFSET 0` keeps the planner from looking for another way to it.
    async fn movements(&self, id: InventoryId, page: &Page) -> Result<Listed<Movement>, StoreError> {
        let start = Cursor::<()>::of_page(LIST, page)?.map(|cursor| cursor.id);
        let rows: Vec<MovementRow> = sqlx::query_as(
            "WITH RECURSIVE walk AS ( \
                 SELECT movements.*, 1 AS step FROM movements WHERE inventory_id = $1 AND \
                     id = coalesce($2, (SELECT last_movement FROM inventories WHERE id = $1)) \
                 UNION ALL \
                 SELECT earlier.*, step + 1 FROM walk, \
                     LATERAL (SELECT * FROM movements WHERE id = walk.previous OFFSET 0) earlier WHERE step < $3 \
             ) \
             SELECT walk.*, (SELECT secret FROM cart_sessions WHERE key = walk.cart_key) AS cart_secret FROM walk \
             ORDER BY step",
        )
        .bind(id.0)
        .bind(start)
        .bind(i64::from(page.limit))
        .fetch_all(&self.pool)
        .answered()
        .await?;
        if start.is_some() && rows.is_empty() {
            return Err(StoreError::InvalidCursor);
        }
        ledger_page(LIST, rows)
    }
}

/// Writes a stock record and its first ledger row.
pub(super) async fn insert_stock(connection: &mut PgConnection, new: &NewInventory) -> Result<(), StoreError> {
    let first = Move::initial(new.quantity);
    sqlx::query(
        "INSERT INTO inventories (id, product_id, sku, on_hand, held, seq, last_movement, updated_at) \
         VALUES ($1, $2, $3, $4, 0, 1, $5, $6)",
    )
    .bind(new.id.0)
    .bind(new.product.0)
    .bind(&new.sku)
    .bind(new.quantity)
    .bind(new.movement.0)
    .bind(new.at.0)
    .execute(&mut *connection)
    .answered()
    .await?;
    sqlx::query(
        "INSERT INTO movements \
         (id, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand, held, actor, at) \
         VALUES ($1, $2, 1, $3, $4, $5, $5, 0, $5, 0, $6, $7)",
    )
    .bind(new.movement.0)
    .bind(new.id.0)
    .bind(first.reason.name())
    .bind(first.action.name())
    .bind(first.units)
    .bind(&new.actor)
    .bind(new.at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}
