//! Products, in PostgreSQL.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgConnection;
use sqlx::{Encode, Postgres, QueryBuilder, Type};
use uuid::Uuid;

use crate::domain::ids::ProductId;
use crate::domain::product::Product;
use crate::domain::timestamp::Timestamp;
use crate::persistence::cursor::{Cursor, page_of};
use crate::persistence::records::{
    Listed, NewInventory, Page, ProductChange, ProductFilter, ProductPatch, ProductSort,
};
use crate::persistence::rows::ProductRow;
use crate::persistence::{Catalogue, ChangedProducts, ProductsMark, StoreError};

use super::PostgresStore;
use super::error::Answer;
use super::inventories::insert_stock;
use super::together::Identified;

/// Changed products that are named at most.
const CHANGED_MAX: i64 = 10_000;

impl Identified for ProductRow {
    fn id(&self) -> Uuid {
        self.id
    }
}

#[async_trait]
impl Catalogue for PostgresStore {
    async fn insert_product(&self, product: &Product, inventory: Option<&NewInventory>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_product(&mut transaction, product, inventory).await?;
        if let Some(inventory) = inventory {
            insert_stock(&mut transaction, inventory).await?;
        }
        transaction.commit().await
    }

    async fn product(&self, id: ProductId) -> Result<Option<Product>, StoreError> {
        self.product_rows.row(id.0).await?.map(Product::try_from).transpose()
    }

    async fn products(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let rows: Vec<ProductRow> = sqlx::query_as("SELECT * FROM products WHERE id = ANY($1)")
            .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .answered()
            .await?;
        rows.into_iter().map(Product::try_from).collect()
    }

    /// A transaction that was under way at the last look has an identifier at or above the lowest one that was. One at or
    /// above the next to be given out is none of this server's: it came with a copy of another's rows.
    async fn changed_products(&self, since: Option<ProductsMark>) -> Result<ChangedProducts, StoreError> {
        let since = since.map(|ProductsMark(mark)| mark.to_string());
        let rows: Vec<(i64, Option<Uuid>)> = sqlx::query_as(
            "SELECT pg_snapshot_xmin(seen)::text::bigint, products.id FROM pg_current_snapshot() AS seen \
             LEFT JOIN products ON changed_by >= $1::xid8 AND changed_by < pg_snapshot_xmax(seen) LIMIT $2",
        )
        .bind(since)
        .bind(CHANGED_MAX + 1)
        .fetch_all(&self.pool)
        .answered()
        .await?;
        let (mark, _) = rows.first().ok_or_else(|| StoreError::Corrupt("the server has no snapshot".to_owned()))?;
        let ids: Vec<ProductId> = rows.iter().filter_map(|(_, id)| id.map(ProductId)).collect();
        let named = i64::try_from(ids.len()).is_ok_and(|count| count <= CHANGED_MAX);
        Ok(ChangedProducts { mark: ProductsMark(*mark), ids: named.then_some(ids) })
    }

    async fn list_products(&self, filter: &ProductFilter, page: &Page) -> Result<Listed<Product>, StoreError> {
        match filter.sort {
            ProductSort::Name => {
                self.list_by("name_folded", filter, page, |row: &ProductRow| row.name_folded.clone()).await
            }
            ProductSort::Price => self.list_by("price", filter, page, |row: &ProductRow| row.price).await,
            ProductSort::CreatedAt => self.list_by("created_at", filter, page, |row: &ProductRow| row.created_at).await,
        }
    }

    async fn patch_product(
        &self,
        id: ProductId,
        patch: &ProductPatch,
        seen: Option<i64>,
        now: Timestamp,
    ) -> Result<ProductChange, StoreError> {
        let mut transaction = self.begin().await?;
        let changed: Option<ProductRow> = sqlx::query_as(
            "UPDATE products SET name = coalesce($1, name), name_folded = coalesce($2, name_folded), \
             description = CASE WHEN $3 THEN $4 ELSE description END, price = coalesce($5, price), \
             status = coalesce($6, status), version = version + 1, updated_at = $7 \
             WHERE id = $8 AND ($9 IS NULL OR version = $9) RETURNING *",
        )
        .bind(&patch.name)
        .bind(patch.name.as_deref().map(str::to_lowercase))
        .bind(patch.description.is_some())
        .bind(patch.description.as_ref().and_then(Option::as_ref))
        .bind(patch.price.map(|price| price.0))
        .bind(patch.status.map(|status| status.name()))
        .bind(now.0)
        .bind(id.0)
        .bind(seen)
        .fetch_optional(&mut *transaction)
        .answered()
        .await?;
        match changed {
            Some(row) => {
                let product = Product::try_from(row)?;
                transaction.commit().await?;
                Ok(ProductChange::Changed(Box::new(product)))
            }
            None if product_exists(&mut transaction, id).await? => Ok(ProductChange::Stale),
            None => Ok(ProductChange::NotFound),
        }
    }
}

impl PostgresStore {
    /// One page of products sorted by a column, whose value `key_of` reads from a row.
    async fn list_by<K>(
        &self,
        column: &'static str,
        filter: &ProductFilter,
        page: &Page,
        key_of: impl Fn(&ProductRow) -> K,
    ) -> Result<Listed<Product>, StoreError>
    where
        K: Serialize + DeserializeOwned + Send + Type<Postgres> + for<'q> Encode<'q, Postgres> + 'static,
    {
        let (direction, behind) = if filter.descending { ("DESC", "<") } else { ("ASC", ">") };
        let list = format!("products {column} {direction}");
        let mut query = QueryBuilder::new("SELECT * FROM products WHERE true");
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.name());
        }
        if let Some(text) = filter.text.as_deref().map(str::to_lowercase) {
            query.push(" AND (strpos(name_folded, ").push_bind(text.clone());
            query.push(") > 0 OR strpos(sku_folded, ").push_bind(text).push(") > 0)");
        }
        if let Some(cursor) = Cursor::<K>::of_page(&list, page)? {
            query.push(format_args!(" AND ({column}, id) {behind} (")).push_bind(cursor.key);
            query.push(", ").push_bind(cursor.id).push(")");
        }
        query.push(format_args!(" ORDER BY {column} {direction}, id {direction} LIMIT "));
        query.push_bind(i64::from(page.limit) + 1);
        let rows: Vec<ProductRow> = query.build_query_as().fetch_all(&self.pool).answered().await?;
        page_of(rows, page.limit, |last| Cursor::behind(&list, key_of(last), last.id))
    }
}

async fn insert_product(
    connection: &mut PgConnection,
    product: &Product,
    inventory: Option<&NewInventory>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO products (id, sku, sku_folded, name, name_folded, description, price, status, inventory_id, \
         version, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(product.id.0)
    .bind(&product.sku)
    .bind(product.sku.to_lowercase())
    .bind(&product.name)
    .bind(product.name.to_lowercase())
    .bind(&product.description)
    .bind(product.price.0)
    .bind(product.status.name())
    .bind(inventory.map(|inventory| inventory.id.0))
    .bind(product.version)
    .bind(product.created_at.0)
    .bind(product.updated_at.0)
    .execute(connection)
    .answered()
    .await?;
    Ok(())
}

async fn product_exists(connection: &mut PgConnection, id: ProductId) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM products WHERE id = $1)")
        .bind(id.0)
        .fetch_one(connection)
        .answered()
        .await
}
