//! Products of the catalogue.

use super::ids::{InventoryId, ProductId};
use super::money::Money;
use super::names;
use super::timestamp::Timestamp;

/// Who gets to see a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductStatus {
    /// Administrators only.
    Draft,
    /// Everybody.
    Published,
    /// Everybody who has its id; it is in no list.
    Unlisted,
}

names!(ProductStatus { Draft = "DRAFT", Published = "PUBLISHED", Unlisted = "UNLISTED" });
/// A product as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its identifier.
    pub id: ProductId,
    /// Stock keeping unit, one of its kind in the shop.
    pub sku: String,
    /// What it is called.
    pub name: String,
    /// More about it.
    pub description: Option<String>,
    /// The price of one.
    pub price: Money,
    /// Who gets to see it.
    pub status: ProductStatus,
    /// Its stock record, once there is one.
    pub inventory: Option<InventoryId>,
    /// Grows by one with every change of the product (not of its stock).
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}
