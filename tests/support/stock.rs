//! A product with stock, straight into a store.

use storekeeper::domain::ids::{InventoryId, MovementId, ProductId};
use storekeeper::domain::money::Money;
use storekeeper::domain::product::{Product, ProductStatus};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::Catalogue;
use storekeeper::persistence::records::NewInventory;
use uuid::Uuid;

/// A product with stock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stock {
    pub(crate) product: ProductId,
    pub(crate) inventory: InventoryId,
}

impl Stock {
    /// A new one, with so many units.
    pub(crate) async fn new(store: &(impl Catalogue + ?Sized), quantity: i64, now: Timestamp) -> Self {
        let (product, inventory) = (ProductId(Uuid::now_v7()), InventoryId(Uuid::now_v7()));
        let (sku, movement) = (format!("SKU-{inventory}"), MovementId(Uuid::now_v7()));
        let made = NewInventory { id: inventory, product, sku, quantity, movement, actor: "test".to_owned(), at: now };
        let product_made = Product {
            id: product,
            sku: made.sku.clone(),
            name: "A thing".to_owned(),
            description: None,
            price: Money(100),
            status: ProductStatus::Published,
            inventory: Some(inventory),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        store.insert_product(&product_made, Some(&made)).await.expect("a product");
        Self { product, inventory }
    }
}
