//! Products, in SQLite.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{Encode, QueryBuilder, Type};

use crate::domain::ids::ProductId;
use crate::domain::product::Product;
use crate::domain::timestamp::Timestamp;
use crate::persistence::cursor::{Cursor, page_of};
use crate::persistence::records::{
    Listed, NewInventory, Page, ProductChange, ProductFilter, ProductPatch, ProductSort,
};
use crate::persistence::rows::ProductRow;
use crate::persistence::{Catalogue, ChangedProducts, ProductsMark, StoreError};

use super::error::store_error;
use super::inventories::insert_stock;
use super::{SqliteStore, json_of_ids};

#[async_trait]
impl Catalogue for SqliteStore {
    async fn insert_product(&self, product: &Product, inventory: Option<&NewInventory>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_product(&mut transaction, product, inventory).await?;
        if let Some(inventory) = inventory {
            insert_stock(&mut transaction, inventory).await?;
        }
        transaction.commit().await
    }

    async fn product(&self, id: ProductId) -> Result<Option<Product>, StoreError> {
        let row: Option<ProductRow> = sqlx::query_as("SELECT * FROM products WHERE id = $1")
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await
            .map_err(store_error)?;
        row.map(Product::try_from).transpose()
    }

    async fn products(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let rows: Vec<ProductRow> =
            sqlx::query_as("SELECT * FROM products WHERE id IN (SELECT unhex(value) FROM json_each($1))")
                .bind(json_of_ids(ids.iter().map(|id| id.0)))
                .fetch_all(&self.readers)
                .await
                .map_err(store_error)?;
        rows.into_iter().map(Product::try_from).collect()
    }

    /// Nobody else has the database.
    async fn changed_products(&self, since: Option<ProductsMark>) -> Result<ChangedProducts, StoreError> {
        Ok(ChangedProducts { mark: since.unwrap_or(ProductsMark(0)), ids: Some(Vec::new()) })
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
        .await
        .map_err(store_error)?;
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

impl SqliteStore {
    /// One page of products sorted by a column, whose value `key_of` reads from a row.
    async fn list_by<K>(
        &self,
        column: &'static str,
        filter: &ProductFilter,
        page: &Page,
        key_of: impl Fn(&ProductRow) -> K,
    ) -> Result<Listed<Product>, StoreError>
    where
        K: Serialize + DeserializeOwned + Send + Type<Sqlite> + for<'q> Encode<'q, Sqlite> + 'static,
    {
        let (direction, behind) = if filter.descending { ("DESC", "<") } else { ("ASC", ">") };
        let list = format!("products {column} {direction}");
        let mut query = QueryBuilder::new("SELECT * FROM products WHERE true");
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.name());
        }
        if let Some(text) = filter.text.as_deref().map(str::to_lowercase) {
            query.push(" AND (instr(name_folded, ").push_bind(text.clone());
            query.push(") > 0 OR instr(sku_folded, ").push_bind(text).push(") > 0)");
        }
        if let Some(cursor) = Cursor::<K>::of_page(&list, page)? {
            query.push(format_args!(" AND ({column}, id) {behind} (")).push_bind(cursor.key);
            query.push(", ").push_bind(cursor.id).push(")");
        }
        query.push(format_args!(" ORDER BY {column} {direction}, id {direction} LIMIT "));
        query.push_bind(i64::from(page.limit) + 1);
        let rows: Vec<ProductRow> = query.build_query_as().fetch_all(&self.readers).await.map_err(store_error)?;
        page_of(rows, page.limit, |last| Cursor::behind(&list, key_of(last), last.id))
    }
}

async fn insert_product(
    connection: &mut SqliteConnection,
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
    .await
    .map_err(store_error)?;
    Ok(())
}

async fn product_exists(connection: &mut SqliteConnection, id: ProductId) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM products WHERE id = $1)")
        .bind(id.0)
        .fetch_one(connection)
        .await
        .map_err(store_error)
}
